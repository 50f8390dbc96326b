"""The layer table and the network against the paper's table, hand-computed values and torch's own modules."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from conftest import Zfrepro, small_table
from omegaconf import OmegaConf

from zfrepro import papers
from zfrepro.checkpoints import load_checkpoint
from zfrepro.errors import UserError
from zfrepro.models.network import Network, Noise, contrast_normalise, dropout, initialise, multiply_adds
from zfrepro.models.table import Op, layers_of, op_sizes, ops_of, receptive_box, receptive_field
from zfrepro.options.compose import conf_folder
from zfrepro.options.compose import load_model as model
from zfrepro.options.shared import ModelConfig
from zfrepro.tools import layer_table


def on_meta(config: ModelConfig, classes: int) -> Network:
    with torch.device("meta"):
        return Network(config, classes)


def parameters(network: Network) -> int:
    return sum(p.numel() for p in network.parameters())


def test_zfnet_is_the_papers_table() -> None:
    network = on_meta(model("zfnet"), 5)
    counts = {int(name): sum(p.numel() for p in m.parameters()) for name, m in network.weights.items()}
    for row in papers.reported("zfnet_layers"):
        number = int(row["layer"])
        expected = 4097 * 5 if row["kind"] == "softmax" else row["parameters"]
        assert counts[number] == expected
        if row["kind"] == "conv":
            side = op_sizes(ops_of(network.layers, number), 224)[-1]
            assert f"{network.layers[number - 1].outputs}x{side}x{side}" == row["output"]
    assert parameters(network) == 58_281_093
    assert network.sizes == [224, 110, 110, 55, 55, 26, 26, 13, 13, 13, 13, 13, 13, 13, 13, 6, *[1] * 7]


def test_zfnet_multiply_adds_by_hand() -> None:
    hand = {1: 96 * 3 * 49 * 110**2, 2: 256 * 96 * 25 * 26**2, 3: 384 * 256 * 9 * 169, 4: 384 * 384 * 9 * 169}
    hand |= {5: 256 * 384 * 9 * 169, 6: 9216 * 4096, 7: 4096 * 4096, 8: 4096 * 5}
    assert multiply_adds(on_meta(model("zfnet"), 5)) == hand
    assert "1.16 G multiply-adds in the weights, 1.17 G" in layer_table(on_meta(model("zfnet"), 5))[-1]
    assert layer_table(on_meta(model("zfnet"), 0))[0] == "zfnet: input 3x224x224, no classifier"


def test_the_printed_table() -> None:
    lines = [" ".join(line.split()) for line in layer_table(on_meta(model("zfnet"), 5))]
    assert lines[0] == "zfnet: input 3x224x224, 5 classes"
    assert lines[3] == "2 conv2 256 maps: 5x5/2, relu, 3x3/2 pad 1 pool, norm 256x13x13 43/16 614,656 415,334,400"
    assert lines[7] == "6 fc6 4096 units: 6x6/1, relu, dropout 0.5 4096 331/32 37,752,832 37,748,736"
    assert lines[9] == "8 softmax 5 classes: 1x1/1 5 331/32 20,485 20,480"
    assert lines[10] == "total 58,281,093 1,163,957,376"


def test_alexnet_sizes() -> None:
    network = on_meta(model("alexnet"), 1000)
    assert [network.sizes[i] for i in (1, 4, 5, 8, 9, 11, 13, 15)] == [55, 27, 27, 13, 13, 13, 13, 6]
    # conv weights and biases, dense; then the three fully connected layers
    hand = 96 * 364 + 256 * (96 * 25 + 1) + 384 * (256 * 9 + 1) + 384 * (384 * 9 + 1) + 256 * (384 * 9 + 1)
    hand += 4096 * 9217 + 4096 * 4097 + 1000 * 4097
    assert parameters(network) == hand


def test_the_layer_below_the_softmax_may_be_any() -> None:
    """Table 3's row without layers 6 and 7: the softmax reads the maps."""
    config = model("alexnet")
    config.remove = [3, 4, 6, 7]
    network = on_meta(config, 10)
    assert network.widths == {1: 96, 2: 256, 5: 256, 8: 10}
    assert network.weights["8"].in_features == 256 * 36


@pytest.mark.parametrize("name", sorted(path.stem for path in (conf_folder() / "model").glob("*.yaml")))
def test_every_model_runs(name: str) -> None:
    config = model(name)
    if config.input_size <= 64:
        network = Network(config, 3)
        initialise(network, "he", 0)
        assert network(torch.randn(2, 3, config.input_size, config.input_size)).shape == (2, 3)
    else:
        assert on_meta(config, 3).softmax == len(config.layers) + 1
    assert config.sibling is None or (conf_folder() / "model" / f"{config.sibling}.yaml").exists()


def test_model_files_are_all_there() -> None:
    assert len(list((conf_folder() / "model").glob("*.yaml"))) == 20


# Receptive fields / strides as listed for ZFNet.
@pytest.mark.parametrize(
    ("layer", "size", "stride"), [(1, 11, 4), (2, 43, 16), (3, 75, 16), (4, 107, 16), (5, 171, 32)]
)
def test_receptive_fields(layer: int, size: int, stride: int) -> None:
    field = receptive_field(ops_of(layers_of(model("zfnet")), layer))
    assert (field.size, field.stride) == (size, stride)


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_receptive_box_by_perturbation(layer: int) -> None:
    """In float64, exactly the pixels in the box move a unit (ReLU and max replaced by identity and mean, to see all)."""
    torch.manual_seed(0)
    ops = ops_of(layers_of(small_table()), layer)
    size = op_sizes(ops, 31)[-1]
    image = torch.zeros(1, 1, 31, 31, dtype=torch.float64, requires_grad=True)
    x = image
    for op in ops:
        if op.kind in ("conv", "pool"):
            x = torch.nn.functional.conv2d(
                x, torch.ones(1, 1, op.kernel, op.kernel).double(), None, op.stride, op.padding
            )
    for row, column in [(0, 0), (size - 1, 0), (size // 2, size - 1)]:
        (gradient,) = torch.autograd.grad(x[0, 0, row, column], image, retain_graph=True)
        ys, xs = torch.nonzero(gradient[0, 0], as_tuple=True)
        seen = (int(ys.min()), int(xs.min()), int(ys.max()) + 1, int(xs.max()) + 1)
        assert receptive_box(ops, row, column, 31) == seen


def test_input_too_small_is_refused() -> None:
    with pytest.raises(UserError, match=r"model.input_size=4: too small, the pool of layer 2"):
        op_sizes([Op("conv", 1, 3), Op("pool", 2, 3, 2)], 4)


def test_contrast_normalisation_by_hand() -> None:
    a = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1)
    b = contrast_normalise(a, size=3, k=2.0, alpha=0.5, beta=0.75).flatten()
    sums = [1 + 4, 1 + 4 + 9, 4 + 9 + 16, 9 + 16]
    hand = [value / (2 + 0.5 * total) ** 0.75 for value, total in zip([1, 2, 3, 4], sums)]
    assert b.tolist() == pytest.approx(hand, rel=1e-6)


def test_an_even_window_holds_one_map_more_before_than_after() -> None:
    a = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]).view(1, 5, 1, 1)
    b = contrast_normalise(a, size=4, k=2.0, alpha=0.5, beta=0.75).flatten()
    sums = [1 + 4, 1 + 4 + 9, 1 + 4 + 9 + 16, 4 + 9 + 16 + 25, 9 + 16 + 25]
    hand = [value / (2 + 0.5 * total) ** 0.75 for value, total in zip([1, 2, 3, 4, 5], sums)]
    assert b.tolist() == pytest.approx(hand, rel=1e-6)


@pytest.mark.parametrize("size", [1, 2, 4, 5, 6])
@pytest.mark.parametrize("channels", [1, 3, 8])
def test_contrast_normalisation_against_torch(channels: int, size: int) -> None:
    x = torch.randn(2, channels, 3, 5, dtype=torch.float64) * 50
    theirs = torch.nn.LocalResponseNorm(size, alpha=1e-4 * size, beta=0.75, k=2.0)(x)  # torch divides alpha by the size
    assert torch.allclose(contrast_normalise(x, size, 2.0, 1e-4, 0.75), theirs, rtol=1e-12)


@pytest.mark.parametrize(("channels", "size"), [(1, 5), (3, 5), (8, 3), (7, 4), (5, 2)])
def test_derivative_of_contrast_normalisation_by_differences(channels: int, size: int) -> None:
    x = (torch.randn(2, channels, 3, 2, dtype=torch.float64) * 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: contrast_normalise(a, size, 2.0, 0.3, 0.75), [x])


def test_derivative_of_contrast_normalisation_against_torch() -> None:
    x = (torch.randn(2, 9, 3, 5) * 50).to(memory_format=torch.channels_last).requires_grad_()
    upper = torch.randn(2, 9, 3, 5)
    (theirs,) = torch.autograd.grad(torch.nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0)(x), x, upper)
    (ours,) = torch.autograd.grad(contrast_normalise(x, 5, 2.0, 1e-4, 0.75), x, upper)
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_contrast_normalisation_keeps_bfloat16_exact_enough() -> None:
    x = torch.randn(2, 8, 4, 4) * 100
    exact = contrast_normalise(x.bfloat16().float(), 5, 2.0, 1e-4, 0.75)
    assert torch.equal(contrast_normalise(x.bfloat16(), 5, 2.0, 1e-4, 0.75), exact.bfloat16())


def test_forward_against_torch_modules() -> None:
    torch.manual_seed(1)
    network = Network(small_table(), 3)
    initialise(network, "he", 1)
    w, nn = network.weights, torch.nn
    norm = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
    reference = nn.Sequential(
        w["1"], nn.ReLU(), nn.MaxPool2d(3, 2, 1), norm, w["2"], nn.ReLU(), norm, nn.MaxPool2d(3, 2),
        w["3"], nn.ReLU(), nn.MaxPool2d(2, 1), nn.Flatten(), w["4"], nn.ReLU(), w["5"],
    )  # fmt: skip
    x = torch.randn(3, 3, 31, 31) * 5000  # so that normalisation is no constant factor, and its place matters
    assert torch.allclose(network(x), reference(x), rtol=1e-5, atol=1e-6)
    features = network.features(x, [1, 3, 4])
    assert sorted(features) == [1, 3, 4]
    assert torch.allclose(features[3], reference[:11](x), rtol=1e-5, atol=1e-6)


def test_dropout_is_a_function_of_step_and_rows() -> None:
    x, noise = torch.ones(6, 2000), Noise(seed=3, step=5, first=0, total=6)
    whole = dropout(x, 0.3, 0, 6, noise.generator(x.device))
    part = dropout(x[2:5], 0.3, 2, 6, noise.generator(x.device))
    assert torch.equal(whole[2:5], part)
    assert not torch.equal(whole, dropout(x, 0.3, 0, 6, Noise(3, 6, 0, 6).generator(x.device)))
    assert set(whole.unique().tolist()) == {0.0, whole.max().item()} and whole.max().item() == pytest.approx(1 / 0.7)
    assert (whole == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert torch.equal(dropout(x, 0.0, 0, 6, noise.generator(x.device)), x)


def test_no_dropout_without_noise() -> None:
    network, table = Network(small_table(), 3), small_table()
    table.layers[-1].dropout = 0.0
    without = Network(table, 3)
    without.load_state_dict(network.state_dict())
    x = torch.randn(2, 3, 31, 31)
    assert torch.equal(network(x), without(x))
    assert not torch.equal(network(x, Noise(0, 0, 0, 2)), network(x, Noise(0, 1, 0, 2)))


@pytest.mark.parametrize(("init", "middle"), [("paper", 0.01), ("he", math.sqrt(2 / (96 * 25)))])
def test_initialisation(init: str, middle: float) -> None:
    network = Network(model("zfnet_demo"), 100)
    initialise(network, init, seed=1)
    deviations = {name: module.weight.std().item() for name, module in network.weights.items()}
    assert deviations["1"] == pytest.approx(0.01, rel=0.05) and deviations["8"] == pytest.approx(0.01, rel=0.05)
    expected = middle if init == "paper" else math.sqrt(2 / (32 * 25))
    assert deviations["2"] == pytest.approx(expected, rel=0.05)
    assert all(not module.bias.any() for module in network.weights.values())


def test_removing_every_layer_is_refused() -> None:
    config = small_table()
    config.remove = [1, 2, 3, 4]
    with pytest.raises(UserError, match="no layer is left"):
        layers_of(config)


def test_conf_is_found(tmp_path: Path) -> None:
    assert (conf_folder() / "train.yaml").exists()
    assert OmegaConf.load(conf_folder() / "model" / "zfnet.yaml").name == "zfnet"


def test_a_run_s_layer_table_is_its_own(tiny_run: Path, zfrepro: Zfrepro) -> None:
    classes = len(load_checkpoint(tiny_run / "tiny" / "train" / "checkpoints" / "best.pt")["class_names"])
    said = zfrepro("summary", f"outputs={tiny_run}", "run=tiny").stdout
    assert said.startswith("zfnet_demo: input 3x56x56, ") and f", {classes} classes\n" in said
    assert "no trained run" in zfrepro("summary", f"outputs={tiny_run}", "run=tinny", check=False).stderr
