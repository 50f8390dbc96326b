"""Weights from another run: which layer goes where, to the bit; frozen layers; what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, Zfrepro
from omegaconf import OmegaConf
from PIL import Image

from zfrepro.checkpoints import load_checkpoint
from zfrepro.models.network import Network
from zfrepro.models.table import layers_of
from zfrepro.options.commands import TrainConfig
from zfrepro.options.compose import load_model
from zfrepro.options.shared import Experiment
from zfrepro.run import open_run
from zfrepro.trainer.start import Source, names_of, same_name, same_number, same_order, source_inputs, take_over
from zfrepro.trainer.train import build_network

# VGG's own numbering, conv1_1 and so on, counted from 1; A's convolutions are 1 to 8, its fully connected layers 9 to 11.
FROM_A = {
    "vgg_b": {1: 1, 3: 2, 5: 3, 6: 4, 11: 9, 12: 10, 13: 11},
    "vgg_c": {1: 1, 3: 2, 5: 3, 6: 4, 14: 9, 15: 10, 16: 11},
    "vgg_d": {1: 1, 3: 2, 5: 3, 6: 4, 14: 9, 15: 10, 16: 11},
    "vgg_e": {1: 1, 3: 2, 5: 3, 6: 4, 17: 9, 18: 10, 19: 11},
    "vgg_b_5x5": {6: 9, 7: 10, 8: 11},
    "vgg_a_lrn": {1: 1, 2: 2, 3: 3, 4: 4, 9: 9, 10: 10, 11: 11},
}


def shapes(model: str, classes: int = 10) -> dict[int, tuple[int, ...]]:
    with torch.device("meta"):
        network = Network(load_model(model), classes)
    return {int(number): tuple(module.weight.shape) for number, module in network.weights.items()}  # type: ignore[union-attr]


@pytest.mark.parametrize("scale", ["", "_demo"])
@pytest.mark.parametrize("name", FROM_A)
def test_vggs_first_four_convolutions_and_the_fully_connected_layers(name: str, scale: str) -> None:
    assert same_order(shapes("vgg_a" + scale), shapes(name + scale), convolutions=4) == FROM_A[name]


def test_all_convolutions_and_another_number_of_classes() -> None:
    """conv4_1, 4_2, 5_1, 5_2 follow; the top layer does not fit, those below it do."""
    expected = {1: 1, 3: 2, 5: 3, 6: 4, 8: 5, 9: 6, 10: 7, 11: 8, 14: 9, 15: 10}
    assert same_order(shapes("vgg_a_demo"), shapes("vgg_d_demo", classes=7)) == expected
    own, edited = shapes("vgg_a_demo"), shapes("vgg_a_demo", classes=7)
    assert same_number(own, edited) == {number: number for number in range(1, 11)}
    assert same_number(own, {1: own[1], 2: own[3], 12: own[9]}) == {1: 1}


BY_NAME = {  # all of A's eight convolutions
    "vgg_b": {1: 1, 3: 2, 5: 3, 6: 4, 7: 5, 8: 6, 9: 7, 10: 8, 11: 9, 12: 10, 13: 11},
    "vgg_d": {1: 1, 3: 2, 5: 3, 6: 4, 8: 5, 9: 6, 11: 7, 12: 8, 14: 9, 15: 10, 16: 11},
    "vgg_e": {1: 1, 3: 2, 5: 3, 6: 4, 9: 5, 10: 6, 13: 7, 14: 8, 17: 9, 18: 10, 19: 11},
    "vgg_b_5x5": {6: 9, 7: 10, 8: 11},
}


@pytest.mark.parametrize("scale", ["", "_demo"])
@pytest.mark.parametrize("name", BY_NAME)
def test_layers_of_the_same_name(name: str, scale: str) -> None:
    """conv5_1 goes to conv5_1, whatever stands before it; the first four convolutions alone are those of the order."""
    own, theirs = (names_of(layers_of(load_model(model + scale), 10)) for model in (name, "vgg_a"))
    tables = shapes("vgg_a" + scale), shapes(name + scale)
    assert same_name(*tables, theirs, own) == BY_NAME[name]
    assert same_name(*tables, theirs, own, 4) == FROM_A[name]
    assert same_name(*tables, theirs, {**own, 1: "other"}, 4) == {k: v for k, v in FROM_A[name].items() if k != 1}


def test_an_earlier_layer_is_not_gone_back_to() -> None:
    """Of two alike in the target the second stays drawn, although a later one of the source would fit."""
    same, up, down = (8, 8, 3, 3), (16, 8, 3, 3), (8, 16, 3, 3)
    own = dict(enumerate((same, up, down, same), start=1))
    deeper = dict(enumerate((same, same, up, down), start=1))
    assert same_order(own, deeper) == {1: 1, 3: 2, 4: 3}


def test_fully_connected_layers_are_counted_from_the_top() -> None:
    """Of three to two: the top one to the top one."""
    own = {1: (8, 3, 5, 5), 2: (6, 32), 3: (6, 6), 4: (9, 6)}
    assert same_order(own, {1: (8, 3, 5, 5), 2: (6, 6), 3: (9, 6)}) == {1: 1, 2: 3, 3: 4}


def test_a_mean_image_is_resized_as_an_image() -> None:
    """By Pillow, antialiased where it shrinks."""
    mean = 255 * torch.rand(12, 12, 3, generator=torch.Generator().manual_seed(0))
    for size in (7, 12, 20):
        found, scale = source_inputs({"mean": mean, "scale": torch.tensor(0.5)}, size)
        for colour in range(3):
            plane = Image.fromarray(mean[:, :, colour].numpy())
            expected = np.asarray(plane.resize((size, size), Image.Resampling.BILINEAR))
            np.testing.assert_allclose(found[:, :, colour].numpy(), expected, atol=1e-3)
        assert scale == 0.5


def config(**options: object) -> TrainConfig:
    return TrainConfig(run="r", preset="vgg_demo", epochs=1, batch_size=4, lr=0.1, init="he", **options)  # type: ignore[arg-type]


def test_taken_layers_are_the_sources_bits_and_the_others_the_drawn_ones() -> None:
    a = build_network(config(model=load_model("vgg_a_demo"), seed=1), 10)
    made = config(model=load_model("vgg_b_demo"), init_match="order", init_convolutions=4, seed=2)
    b, drawn = build_network(made, 10), build_network(made, 10)
    line = take_over(b, Source("a", {"model": a.state_dict()}), made)
    for number in range(1, 14):
        origin = FROM_A["vgg_b"].get(number)
        for name in ("weight", "bias"):
            expected = (
                a.state_dict()[f"weights.{origin}.{name}"] if origin else drawn.state_dict()[f"weights.{number}.{name}"]
            )
            assert torch.equal(b.state_dict()[f"weights.{number}.{name}"], expected), number
    assert line == (
        "from run=a: layers 1, 3 (its 2), 5 (its 3), 6 (its 4), 11 (its 9), 12 (its 10), 13 (its 11); drawn: 2, 4, 7, 8, 9, 10"
    )


def test_four_classes_are_no_box() -> None:
    """The top layer fits, and is drawn all the same."""
    a = build_network(config(model=load_model("vgg_a_demo"), seed=1), 4)
    made = config(model=load_model("vgg_a_demo"), regression="scr", seed=2)
    boxes, drawn = build_network(made, 4), build_network(made, 4)
    assert take_over(boxes, Source("a", {"model": a.state_dict()}), made).endswith("; drawn: 11")
    for name in ("weight", "bias"):
        key = f"weights.11.{name}"
        assert torch.equal(boxes.state_dict()[key], drawn.state_dict()[key])


# ---------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def outputs(tiny_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_run / "tiny" / "train", tmp_path / "tiny" / "train")
    return tmp_path


def tune(outputs: Path, zfrepro: Zfrepro, *options: str, check: bool = True) -> tuple[str, str]:
    """Fine-tune `tiny` on other classes; what was printed."""
    given = ["run=tuned", "init_from=tiny", "data=embedded_target", "snapshot_epochs=[]", *TINY, "epochs=1"]
    done = zfrepro("train", f"outputs={outputs}", *given, *options, check=check)
    return done.stdout, done.stderr


def test_frozen_layers_keep_every_bit_and_pixels_come_as_before(outputs: Path, zfrepro: Zfrepro) -> None:
    """Weight decay, momentum and renormalisation included: none of them acts on a frozen layer."""
    said, _ = tune(outputs, zfrepro, "freeze=3", "renorm_radius=0.005", "input_scale=1", "weight_decay=0.1")
    assert "from run=tiny: layers 1, 2, 3, 4, 5, 6, 7" in said and "frozen: 1 to 3" in said
    source = load_checkpoint(outputs / "tiny" / "train" / "checkpoints" / "best.pt")
    tuned = load_checkpoint(outputs / "tuned" / "train" / "checkpoints" / "last.pt")
    for key, weights in source["model"].items():
        if key.split(".")[1] != "8":  # another number of classes
            assert torch.equal(weights, tuned["model"][key]) == (int(key.split(".")[1]) <= 3), key
    assert torch.equal(source["mean"], tuned["mean"]) and torch.equal(source["scale"], tuned["scale"])
    assert len(tuned["trainer"]["optimiser"]["state"]) == 2 * 5  # weights and biases of layers 4 to 8


def test_layers_are_taken_by_name(outputs: Path, zfrepro: Zfrepro) -> None:
    """One of another name there is drawn, although its number and shape are the same."""
    path = outputs / "tiny" / "train" / "config.yaml"
    saved = OmegaConf.load(path)
    saved.model.layers[2].name = "other"
    OmegaConf.save(saved, path)
    said, _ = tune(outputs, zfrepro, "init_match=name")
    assert "from run=tiny: layers 1, 2, 4, 5, 6, 7; drawn: 3, 8" in said


def test_rescaled_images_are_tested_with_the_colour_with_which_they_are_trained(
    outputs: Path, zfrepro: Zfrepro
) -> None:
    """The source's mean is an image, which fits no rescaled one."""
    tune(outputs, zfrepro, "train_scale=[64]", "augmentation=random_crop", "subtract=colour")
    source = load_checkpoint(outputs / "tiny" / "train" / "checkpoints" / "best.pt")["mean"]
    config = Experiment(run="tuned", outputs=str(outputs), device="cpu")
    assert source.ndim == 3 and source.std((0, 1)).min() > 0
    assert torch.allclose(open_run(config).mean, source.mean((0, 1)).expand_as(source))


def test_what_was_started_from_is_remembered(outputs: Path, zfrepro: Zfrepro) -> None:
    """A run goes on without the other one, but does not take other weights for the same."""
    tune(outputs, zfrepro)
    best = outputs / "tiny" / "train" / "checkpoints" / "best.pt"
    whole = best.read_bytes()
    best.unlink()
    assert "nothing to do" in tune(outputs, zfrepro)[0]
    shutil.copy(outputs / "tiny" / "train" / "checkpoints" / "epoch_1.pt", best)
    if best.read_bytes() == whole:
        shutil.copy(outputs / "tiny" / "train" / "checkpoints" / "epoch_2.pt", best)
    _, errors = tune(outputs, zfrepro, check=False)
    assert "init_from=tiny has other weights than when run=tuned was begun" in errors and len(errors.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["init_from=tyni"], "init_from=tyni: "),
        (["init_from=tuned"], "init_from=tuned: must be another run than the one to be trained"),
        (["init_from=null", "freeze=2"], "freeze=2: must be 0 where there is no init_from=<run>"),
        (["freeze=8"], "freeze=8: must be at most 7, the layers below the softmax"),
        (["model.layers.1.maps=10", "freeze=2"], "freeze=2: layer 2 cannot be taken from init_from=tiny"),
        (
            ["model.layers.0.maps=9", "model.layers.2.maps=33", "model.layers.4.maps=25", "model.layers.5.units=100"],
            "init_from=tiny: none of its layers' weights",
        ),
    ],
)
def test_starts_that_make_no_sense(outputs: Path, zfrepro: Zfrepro, options: list[str], line: str) -> None:
    said, errors = tune(outputs, zfrepro, *options, check=False)
    assert line in errors.splitlines()[-1] and errors.count("zfrepro: ") == 1, said + errors
    assert not (outputs / "tuned" / "train" / "checkpoints" / "last.pt").exists()
