"""Runs made of weights that were trained elsewhere: outputs equal to the other network's on the same pixels, or a refusal."""

from __future__ import annotations

import hashlib
import http.client
import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from tests.conftest import Zfrepro, small_table
from zfrepro.errors import UserError
from zfrepro.models.imported import Trained, assemble, fold_batch_norm, read_state_dict
from zfrepro.models.network import Network
from zfrepro.options.compose import load_model
from zfrepro.options.shared import Experiment, LayerConfig, ModelConfig
from zfrepro.options.tables import read_table
from zfrepro.run import TrainedRun, open_run
from zfrepro.trainer import torchvision_weights
from zfrepro.trainer.imported import given_preprocessing, read_classes, read_file
from zfrepro.trainer.torchvision_weights import known_preprocessing

IMAGENET = "mean=[0.485,0.456,0.406]", "std=[0.229,0.224,0.225]"
FEW = "data=embedded", "data.size=32", "data.train_per_class=1", "data.val_per_class=1"


def shaken(model: nn.Module) -> nn.Module:
    """A model in evaluation, its biases and statistics random: nothing is zero or one by its initialisation."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_mean, module.bias):
                nn.init.normal_(values, 0, 0.1)
            for values in (module.running_var, module.weight):
                nn.init.uniform_(values, 0.5, 1.5)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.bias, 0, 0.3)
            nn.init.normal_(module.weight, 0, module.weight[0].numel() ** -0.5)
    return model.eval()


def small_net() -> nn.Module:
    """In PyTorch's own modules: 31 px, two convolutional layers, one fully connected, five classes."""
    features = nn.Sequential(
        nn.Conv2d(3, 5, 5, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(5, 6, 3), nn.ReLU(), nn.MaxPool2d(2, 1)
    )
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(6 * 5 * 5, 7), nn.ReLU(), nn.Dropout(), nn.Linear(7, 5))
    return shaken(nn.Sequential(OrderedDict(features=features, classifier=classifier)))


def small_net_table() -> ModelConfig:
    """Its layer table."""
    rows = [
        LayerConfig(maps=5, kernel=5, stride=2, padding=1, pool=3, pool_stride=2, pool_padding=1),
        LayerConfig(maps=6, kernel=3, pool=2, pool_stride=1),
        LayerConfig(kind="fc", units=7, dropout=0.5),
    ]
    return ModelConfig("small", 31, rows)


def test_batch_norm_is_folded() -> None:
    conv, norm = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, eps=0.01).eval()
    for values in (norm.running_mean, norm.bias):
        nn.init.normal_(values)
    for values in (norm.running_var, norm.weight):
        nn.init.uniform_(values, 0.1, 2)
    x = torch.randn(2, 3, 8, 8)
    folded = fold_batch_norm(Trained("conv", conv.weight, conv.bias), norm.state_dict(), 0.01)
    assert torch.allclose(torch.nn.functional.conv2d(x, folded.weight, folded.bias), norm(conv(x)), atol=1e-5)


# ------------------------------------------------------------------------------------------------------------ torchvision


def test_batch_norm_of_torchvision_is_folded() -> None:
    from zfrepro.vision import torchvision

    theirs = shaken(torchvision.models.vgg.make_layers([4, "M", 6, 5, "M"], batch_norm=True))
    rows = [LayerConfig(maps=maps, kernel=3, padding=1, pool=pool) for maps, pool in ((4, 2), (6, 0), (5, 2))]
    given = read_state_dict(theirs.state_dict(), "weights", epsilon=1e-5)
    ours = assemble(ModelConfig("narrow", 20, rows), given, "weights")
    x = torch.randn(2, 3, 20, 20)
    with torch.inference_mode():
        assert torch.allclose(ours.features(x, [3])[3], theirs(x), atol=1e-5)


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19"])
def test_tables_fit_torchvision(name: str) -> None:
    from zfrepro.vision import torchvision

    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, weights=None)
        ours = Network(load_model(f"torchvision/{name}"), 1000)
        given = read_state_dict(theirs.state_dict(), "weights", epsilon=1e-5)
    assert [one.weight.shape for one in given] == [
        ours.weights[str(layer.number)].weight.shape for layer in ours.layers
    ]


def test_what_is_known_of_torchvisions_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    layer1, usual = torch.randn(64, 3, 3, 3), [255 * 0.485, 255 * 0.456, 255 * 0.406]
    by_hash = known_preprocessing("vgg16", "88682ab5" + "0" * 56, layer1, False)
    assert by_hash is not None and by_hash.mean == pytest.approx([122.99925, 116.9991, 103.9992])
    assert by_hash.std == pytest.approx([1, 1, 1])
    by_hash = known_preprocessing("vgg16", "397923af" + "0" * 56, layer1, False)
    assert by_hash is not None and by_hash.mean == pytest.approx(usual)
    # Without a classifier it may be torchvision's or Oxford's; with one it is no IMAGENET1K_FEATURES.
    assert known_preprocessing("vgg16", "0" * 64, layer1, False) is None
    whole = known_preprocessing("vgg16", "0" * 64, layer1, True)
    assert whole is not None and whole.mean == pytest.approx(usual) and not whole.bgr
    assert known_preprocessing("vgg19", "0" * 64, layer1, False) is not None
    digest = hashlib.sha256(layer1.numpy().tobytes()).hexdigest()
    monkeypatch.setitem(torchvision_weights.OXFORD, "vgg16", digest)
    for classifies in (True, False):
        oxford = known_preprocessing("vgg16", "0" * 64, layer1, classifies)
        assert oxford is not None and oxford.std == pytest.approx([1, 1, 1]) and not oxford.bgr
        turned = known_preprocessing("vgg16", "0" * 64, layer1.flip(1), classifies)
        assert turned is not None and turned.mean == pytest.approx([123.68, 116.779, 103.939]) and turned.bgr


# ---------------------------------------------------------------------------------------------------- state dicts in order


def test_own_architecture_in_order_and_by_shape() -> None:
    theirs, x = small_net(), torch.randn(3, 3, 31, 31)
    parallel = {f"module.{key}": value for key, value in theirs.state_dict().items()}
    half = {key: value.double() for key, value in theirs.state_dict().items()}
    beside = {"state_dict": parallel, "epoch": 3}, {"model": half}, {"state_dict": parallel, "mean": torch.zeros(3)}
    for state in (theirs.state_dict(), parallel, half, *beside):
        ours = assemble(small_net_table(), read_state_dict(state, "weights"), "weights")
        with torch.inference_mode():
            assert torch.allclose(ours(x), theirs(x), atol=1e-5)
        assert ours.outputs == 5 and ours.feature_layers == [1, 2, 3]


def test_fully_connected_layers_may_come_as_convolutions_and_convolutions_without_bias() -> None:
    theirs, x = small_net(), torch.randn(3, 3, 31, 31)
    state = theirs.state_dict()
    state["classifier.1.weight"] = state["classifier.1.weight"].view(7, 6, 5, 5)
    nn.init.zeros_(theirs.features[0].bias)
    del state["features.0.bias"]
    ours = assemble(small_net_table(), read_state_dict(state, "weights"), "weights")
    with torch.inference_mode():
        assert torch.allclose(ours(x), theirs(x), atol=1e-5)


@pytest.mark.parametrize("case", ["left out", "nan", "top left out", "cut"])
def test_weights_without_a_classifier_make_a_network_without_softmax(case: str) -> None:
    theirs, x = small_net(), torch.randn(3, 3, 31, 31)
    state, layers = theirs.state_dict(), None
    for key in [key for key in state if key.startswith("classifier" if case != "top left out" else "classifier.4")]:
        if case == "nan":
            state[key] = torch.full_like(state[key], torch.nan)
        else:
            del state[key]
    if case == "cut":  # what lies above is not looked at
        state, layers = {**state, "top.weight": torch.zeros(3), "top.scale": torch.zeros(3)}, 2
    given = read_state_dict(state, "weights", wanted=layers)
    ours = assemble(small_net_table(), given, "weights", layers)
    assert ours.softmax is None and ours.feature_layers == ([1, 2, 3] if case == "top left out" else [1, 2])
    with torch.inference_mode():
        assert torch.allclose(ours.features(x, [2])[2], theirs.features(x), atol=1e-5)


def refusal(state: Any, table: ModelConfig | None = None, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        assemble(table or small_net_table(), read_state_dict(state, "weights=w.pth"), "weights=w.pth", **options)
    assert str(caught.value).startswith(("weights=w.pth: ", "layers="))
    return str(caught.value)


def with_nan(key: str, value: float = torch.nan) -> dict[str, Tensor]:
    state = small_net().state_dict()
    state[key].view(-1)[-1] = value
    return state


def without(*keys: str) -> dict[str, Tensor]:
    return {key: value for key, value in small_net().state_dict().items() if key not in keys}


def test_numbers_that_are_not_finite_are_refused_wherever_a_layer_is_kept() -> None:
    assert "layer 2, features.3 holds" in refusal(with_nan("features.3.weight"))
    assert "layer 4, classifier.4 holds" in refusal(with_nan("classifier.4.bias"))
    assert "layer 1, features.0" in refusal(with_nan("features.0.bias", torch.inf))
    assert "layers=1 takes those below" in refusal(with_nan("features.3.weight"))
    kept = assemble(small_net_table(), read_state_dict(with_nan("classifier.4.bias"), "w"), "w", layers=3)
    assert kept.softmax is None


def test_every_layer_that_does_not_fit_is_named() -> None:
    table = small_net_table()
    table.layers[1].maps, table.layers[2].units = 9, 8
    said = refusal(small_net().state_dict(), table)
    assert "table small: layer 2 is 9x5x3x3, features.3 6x5x3x3; layer 3 is 8x225, classifier.1 7x150; layer 4" in said
    assert "the table has 3 layers below its softmax, the file 1 in all" in refusal(
        without("features.3.weight", "features.3.bias", *(k for k in small_net().state_dict() if "classifier" in k))
    )
    assert "the file 5 in all" in refusal({**small_net().state_dict(), "z.weight": torch.zeros(2, 5)})
    one = {"classifier.4.weight": torch.zeros(1, 7), "classifier.4.bias": torch.zeros(1)}
    assert "classifier.4 has one output" in refusal({**small_net().state_dict(), **one})
    assert "layers=9: must be between 1 and 3" in refusal(small_net().state_dict(), layers=9)


ODD: dict[str, tuple[Callable[[], Any], str]] = {
    "a list": (lambda: [1, 2], "holds a list and no state dict"),
    "a tensor": (lambda: torch.zeros(3), "holds a Tensor"),
    "empty": (dict, "not a state dict"),
    "empty inside": (lambda: {"state_dict": {}}, "not a state dict"),
    "numbers": (lambda: {"a.weight": 3}, "it also holds a.weight"),
    "keys that are no text": (lambda: {3: torch.zeros(3)}, "it also holds 3"),
    "a buffer": (lambda: {**small_net().state_dict(), "mean": torch.zeros(3)}, "its entry mean is no weight"),
    "a counter": (
        lambda: {"n_averaged": torch.tensor(3)},
        "fully connected layer; leave it out of what is saved, or export",
    ),
    "weights of classes": (
        lambda: {"loss.weight": torch.ones(5)},
        "fully connected layer; leave it out of what is saved",
    ),
    "whole numbers": (lambda: {"a.weight": torch.zeros(2, 3, 3, 3, dtype=torch.int8)}, "torch.int8"),
    "sparse": (lambda: {"a.weight": torch.eye(3).to_sparse()}, "sparse"),
    "three axes": (lambda: {"a.weight": torch.zeros(2, 3, 4)}, "a (weight 2x3x4) is no convolution"),
    "no axis": (lambda: {"a.weight": torch.zeros(())}, "is no convolution"),
    "a bias alone": (lambda: {"a.bias": torch.zeros(3)}, "a (bias 3) is no convolution"),
    "a bias of another layer": (lambda: {"a.weight": torch.zeros(2, 3), "a.bias": torch.zeros(3)}, "a bias of 3"),
    "batch norm": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).state_dict(),
        "1 is batch normalisation, and a state dict says neither its epsilon",
    ),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_state_dicts_are_refused(case: str) -> None:
    make, said = ODD[case]
    assert said in refusal(make())


@pytest.mark.parametrize("key", ["ema", "model_ema", "module", "params", "state_dict"])
def test_a_state_dict_is_found_under_any_key_that_holds_the_only_one(key: str) -> None:
    state, optimiser = small_net().state_dict(), {"state": {0: {"weight": torch.ones(2, 2)}}}
    saved = {
        key: {"decay": 0.9, "shadow": state},
        "optimizer": optimiser,
        "loss": {"weight": torch.ones(5)},
        "epoch": 3,
    }
    assert [one.name for one in read_state_dict(saved, "w")] == [
        "features.0",
        "features.3",
        "classifier.1",
        "classifier.4",
    ]


def test_layers_in_the_order_of_the_alphabet_are_refused() -> None:
    """Sorted by safetensors, HDF5 or JSON: where shapes are alike, they would be taken for one another."""
    convolutions = nn.Sequential(OrderedDict((f"conv{n}", nn.Conv2d(4, 4, 3)) for n in range(1, 12))).state_dict()
    assert [one.name for one in read_state_dict(convolutions, "w")] == [f"conv{n}" for n in range(1, 12)]
    backwards = refusal(dict(reversed(convolutions.items())))
    assert "its layers stand in disorder (conv11 before conv10)" in backwards
    moved = ["conv4.weight", "conv4.bias", *convolutions]
    assert "in disorder (conv4 before conv1)" in refusal({key: convolutions[key] for key in moved})
    widths = nn.ModuleDict({"fc99": nn.Linear(9, 99), "fc20": nn.Linear(99, 20), "b": nn.Linear(20, 9)}).state_dict()
    assert [one.name for one in read_state_dict(widths, "w")] == ["fc99", "fc20", "b"]  # these are no numbers of layers
    said = refusal(dict(sorted(convolutions.items())))
    assert (
        "its layers stand in the order of the alphabet (conv11 before conv2)" in said and "model.state_dict()" in said
    )


def test_which_of_several_state_dicts_is_not_guessed() -> None:
    state = small_net().state_dict()
    said = refusal({"model": state, "ema": state})
    assert said.startswith(
        "weights=w.pth: holds 2 state dicts (model, ema); save the one that is meant, such as torch.save("
    )


def test_a_message_names_a_few_of_many_layers() -> None:
    wrong = {f"{number}.weight": torch.zeros(2, 3, 3, 3) for number in range(16)}
    assert "layer 4 is 128x128x3x3, 3 2x3x3x3; and 12 more" in refusal(wrong, load_model("torchvision/vgg16"))


# ------------------------------------------------------------------------------------------- what a file does not say


def test_mean_and_std_are_of_pixels_up_to_1_or_255() -> None:
    for mean, std in (([0.5, 0.25, 0.125], [0.25, 0.5, 1]), ([127.5, 63.75, 31.875], [63.75, 127.5, 255])):
        found = given_preprocessing(mean, std, "rgb")
        assert found.mean == (127.5, 63.75, 31.875) and found.std == (63.75, 127.5, 255) and not found.bgr
    caffe = given_preprocessing([103.939, 116.779, 123.68], [1], "bgr")
    assert caffe.mean == (123.68, 116.779, 103.939) and caffe.std == (1, 1, 1) and caffe.bgr
    assert given_preprocessing([0], [255], "rgb").std == (255,) * 3
    assert given_preprocessing([0.48235, 0.45882, 0.40784], [1 / 255] * 3, "rgb").std == pytest.approx((1,) * 3)
    for mean, std, key in (
        ([0.5], [], "std="), ([], [1], "mean="), ([1, 2], [1], "mean="), ([1], [0], "std="), ([1], [-1], "std="),
        ([np.nan], [1], "mean="), ([1], [np.inf], "std="), ([0], [1], "0..255 or 0..1"),
        ([123.675, 116.28, 103.53], [0.229, 0.224, 0.225], "give both of the same"), ([128], [0.0078125], "it is 58.8"),
        ([0.485, 0.456, 0.406], [58.395, 57.12, 57.375], "give both of the same"), ([1], [127.5], "give both of the same"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=key):
            given_preprocessing(mean, std, "rgb")


def test_classes_of_a_file(tmp_path: Path) -> None:
    def read(text: str, name: str = "classes.txt") -> tuple[list[str], list[str]]:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return read_classes(tmp_path / name, 2)

    assert read("\ufefftench\r\ngoldfish\r\n\r\n") == (["tench", "goldfish"], [])
    synsets = ["tench, Tinca tinca", "goldfish"], ["n01440764", "n01443537"]
    assert read("n01440764 tench, Tinca tinca\nn01443537 goldfish\n") == synsets
    assert read("n01440764\nn01443537") == (synsets[1], synsets[1])
    assert read(json.dumps({"1": ["n01443537", "goldfish"], "0": ["n01440764", "tench"]}), "i.json")[1] == synsets[1]
    assert read(json.dumps(["a", "b"]), "i.json") == (["a", "b"], [])
    for text, name in (
        ("one", "a.txt"),
        ("a\nb\nc", "a.txt"),
        ("3", "a.json"),
        ("{", "a.json"),
        ('{"a": 1}', "a.json"),
    ):
        with pytest.raises(UserError, match="classes="):
            read(text, name)
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "binary.txt", tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError, match="classes="):
            read_classes(path, 2)


# ------------------------------------------------------------------------------------------------------------ the command


@pytest.fixture
def own(tmp_path: Path) -> tuple[nn.Module, list[str]]:
    """A user's network, its state dict and table in files; and the options that import them."""
    model = small_net()
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    table = OmegaConf.to_container(OmegaConf.structured(small_net_table()))
    del table["name"]
    (tmp_path / "my table.yaml").write_text(OmegaConf.to_yaml(table))
    return model, [
        f"model={tmp_path / 'my table.yaml'}", f"weights={tmp_path / 'mine.pth'}", f"outputs={tmp_path}", *FEW, *IMAGENET
    ]  # fmt: skip


def opened(folder: Path, name: str) -> TrainedRun:
    return open_run(Experiment(run=name, outputs=str(folder), device="cpu", precision="fp32"))


def outputs_of(run: TrainedRun, model: nn.Module, turned: bool = False) -> tuple[Tensor, Tensor]:
    """The run's outputs and the model's for the same pictures, prepared by their definition."""
    pictures = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8))
    pixels = pictures[:, :31, :31].permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.inference_mode():
        return run.network(run.inputs(pictures)), model(((pixels.flip(1) if turned else pixels) - mean) / std)


def test_a_state_dict_and_a_table_become_a_run(
    zfrepro: Zfrepro, own: tuple[nn.Module, list[str]], tmp_path: Path
) -> None:
    model, options = own
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\ne\n")
    said = zfrepro("import", *options, f"classes={tmp_path / 'classes.txt'}").stdout
    assert "3 layers and 5 classes" in said and "minus 123.675, 116.28, 103.53, divided by 58.395" in said
    run = opened(tmp_path, "my_table")  # the run has the table's name, the table its file's
    assert run.class_names == tuple("abcde") and run.config.model.name == "my_table"
    found, expected = outputs_of(run, model)
    assert torch.allclose(found, expected, atol=1e-4)
    zfrepro("visualize", f"outputs={tmp_path}", "run=my_table", "layer=2", "num_maps=2")
    assert (tmp_path / "my_table" / "fig2_features" / "layer2.png").exists()


def test_a_network_of_bgr(zfrepro: Zfrepro, own: tuple[nn.Module, list[str]], tmp_path: Path) -> None:
    """mean and std are then of B, G, R as well: the same numbers act on turned pictures."""
    model, options = own
    zfrepro("import", *options, "channels=bgr", "run=bgr")
    found, expected = outputs_of(opened(tmp_path, "bgr"), model, turned=True)
    assert torch.allclose(found, expected, atol=1e-4)


def test_an_import_is_done_once_and_replaces_nothing_unasked(
    zfrepro: Zfrepro, own: tuple[nn.Module, list[str]], tmp_path: Path, tiny_run: Path
) -> None:
    _, options = own
    zfrepro("import", *options, "run=a")
    assert "nothing to do" in zfrepro("import", *options, "run=a").stdout
    done = zfrepro("import", *options, "run=a", "channels=bgr", check=False)
    assert done.returncode == 2 and "other options" in done.stderr
    zfrepro("import", *options, "run=a", "channels=bgr", "resume=false")
    assert "nothing to do" in zfrepro("import", *options, "run=a", "channels=bgr").stdout
    kept = (tiny_run / "tiny" / "train" / "checkpoints" / "last.pt").read_bytes()
    for resume in ("resume=true", "resume=false"):
        done = zfrepro("import", *options, "run=tiny", f"outputs={tiny_run}", resume, check=False)
        assert done.returncode == 2 and "was trained here" in done.stderr
    assert (tiny_run / "tiny" / "train" / "checkpoints" / "last.pt").read_bytes() == kept


def test_features_of_torchvision_become_a_run(zfrepro: Zfrepro, tmp_path: Path) -> None:
    from zfrepro.vision import torchvision

    with torch.device("meta"):  # its fully connected layers are large, and not wanted
        theirs = torchvision.models.alexnet().features
    theirs = shaken(theirs.to_empty(device="cpu"))
    torch.save(theirs.state_dict(), tmp_path / "features.pth")
    options = "model=torchvision/alexnet", "run=alex", f"outputs={tmp_path}", "data=embedded", "data.size=256"
    said = zfrepro("import", *options, f"weights={tmp_path / 'features.pth'}").stdout
    assert "no classifier" in said and "init_from=alex freeze=5" in said and "as all of torchvision's weights" in said
    command = next(line for line in said.splitlines() if line.startswith("  zfrepro train")).split()[1:]
    composed = zfrepro(*command, f"outputs={tmp_path}", "--cfg", "job").stdout
    assert "init_from: alex" in composed and "name: torchvision/alexnet" in composed and "size: 256" in composed
    run = opened(tmp_path, "alex")
    assert run.class_names == () and run.network.feature_layers == [1, 2, 3, 4, 5]
    pictures = torch.randint(0, 256, (1, 256, 256, 3), dtype=torch.uint8)
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.inference_mode():
        expected = theirs((pictures[:, 16:240, 16:240].permute(0, 3, 1, 2) / 255 - mean) / std)
        found = run.network.features(run.inputs(pictures), [5])[5]
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_what_cannot_be_imported_is_refused(zfrepro: Zfrepro, own: tuple[nn.Module, list[str]], tmp_path: Path) -> None:
    _, options = own
    table, weights, outputs = options[:3]

    def refused(*given: str) -> str:
        done = zfrepro("import", outputs, *FEW, *given, check=False)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    assert "mean=[r,g,b] std=[r,g,b]" in refused(table, weights)
    assert "mean and std go together" in refused(table, weights, IMAGENET[0])
    assert "channels=gbr" in refused(table, weights, *IMAGENET, "channels=gbr")
    assert "5 lines" in refused(table, weights, *IMAGENET, f"classes={table.removeprefix('model=')}")
    assert "no classifier" in refused(table, weights, *IMAGENET, "layers=2", f"classes={tmp_path / 'mine.pth'}")
    assert "data.size=16" in refused(table, weights, *IMAGENET, "data.size=16")
    assert "model.remove" in refused(table, weights, *IMAGENET, "model.remove=[2]")
    assert "does not fit the table torchvision/alexnet" in (said := refused(weights))
    assert "give model=<the network's own layer table>.yaml" in said
    assert "such as model=torchvision/vgg16" in refused("model=zfnet")
    assert "DEFAULT" in refused("weights=nowhere.pth")
    assert "not a file" in refused(f"weights={tmp_path}")
    assert "nowhere.yaml: cannot be read" in refused("model=nowhere.yaml", weights)
    (tmp_path / "broken.pth").write_bytes(b"layers:\n- a\n")
    assert "not a readable state dict" in refused(f"weights={tmp_path / 'broken.pth'}", *IMAGENET)
    (tmp_path / "net.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    said = refused(f"weights={tmp_path / 'net.safetensors'}", *IMAGENET)
    assert "load_model(model, 'net.safetensors')" in said and "'net.pth') writes" in said
    (tmp_path / "broken.yaml").write_text("name: {a: b}\nlayers: []")
    refused(f"model={tmp_path / 'broken.yaml'}", weights, *IMAGENET)
    torch.save({"a.weight": torch.zeros(2, 3, 3, 3, device="meta")}, tmp_path / "bare.pth")
    assert "a has a shape and no values" in refused(table, f"weights={tmp_path / 'bare.pth'}", *IMAGENET)
    assert not list(tmp_path.glob("*/.lock")), "a refused import leaves nothing behind"


def test_files_that_are_no_state_dict_and_no_table(tmp_path: Path) -> None:
    torch.save(small_net().state_dict(), tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    for content in (
        b"no checkpoint",
        b"",
        whole[: len(whole) // 2],
        whole[:-1],
        b"PK\x03\x04",
        b"\x80\x02.",
        b"\xff" * 99,
    ):
        (tmp_path / "broken.pth").write_bytes(content)
        with pytest.raises(UserError, match="not a readable state dict"):
            read_file(tmp_path / "broken.pth", "weights=broken.pth")
    torch.save(small_net(), tmp_path / "module.pth")
    with pytest.raises(UserError, match="it holds more than tensors"):
        read_file(tmp_path / "module.pth", "weights=module.pth")
    for text in ("layers: [", "- a", "text", "input_size: 3", "", "a: !!python/object:os.x {}"):
        (tmp_path / "broken.yaml").write_text(text)
        with pytest.raises(UserError, match="model="):
            read_table(str(tmp_path / "broken.yaml"))


def test_torchvisions_cache_and_downloads(zfrepro: Zfrepro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    file = tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    url = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"

    def refused(weights: str = "DEFAULT") -> str:
        with pytest.raises(UserError) as caught:
            torchvision_weights.fetched("alexnet", weights)
        return str(caught.value)

    for error in (
        URLError("no route"), http.client.IncompleteRead(b"", 7), ConnectionResetError(), TimeoutError("timed out"),
        RuntimeError('invalid hash value (expected "7be5be79", got "00000000")'), OSError(28, "No space left on device"),
    ):  # fmt: skip

        def fail(*args: object, error: Exception = error, **more: object) -> None:
            raise error

        monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
        said = refused()
        assert url in said and str(file) in said
    file.parent.mkdir(parents=True, exist_ok=True)
    for content in (b"", b"<html>", b"PK\x03\x04cut"):
        file.write_bytes(content)
        said = refused("IMAGENET1K_V1")
        assert url in said and str(file) in said and "delete it" in said
    assert "IMAGENET1K_V1, DEFAULT" in refused("IMAGENET1K_V9")
    done = zfrepro("import", f"outputs={tmp_path}", check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "delete it" in done.stderr


def test_small_table_of_the_tests_is_no_torchvision_network() -> None:
    assert torchvision_weights.architecture("torchvision/vgg16") == "vgg16"
    assert torchvision_weights.architecture("vgg16") is None
    assert torchvision_weights.architecture(f"torchvision/{small_table().name}") is None
