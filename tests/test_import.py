"""Runs made of torchvision's weights: outputs equal to torchvision's on the same pixels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.conftest import Zfrepro
from zfrepro.models.imported import convert, fold_batch_norm
from zfrepro.models.network import Network
from zfrepro.options.compose import load_model
from zfrepro.options.shared import Experiment
from zfrepro.run import open_run


def torchvision_model(name: str, classes: int = 1000) -> nn.Module:
    """torchvision's model with random weights and batch-norm statistics that are not the identity."""
    from zfrepro.vision import torchvision

    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None, num_classes=classes).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_mean, module.bias):
                nn.init.normal_(values, 0, 0.1)
            for values in (module.running_var, module.weight):
                nn.init.uniform_(values, 0.5, 1.5)
    return model


def test_batch_norm_is_folded() -> None:
    conv, norm = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5).eval()
    for values in (norm.running_mean, norm.bias):
        nn.init.normal_(values)
    for values in (norm.running_var, norm.weight):
        nn.init.uniform_(values, 0.1, 2)
    x = torch.randn(2, 3, 8, 8)
    weight, bias = fold_batch_norm(conv, norm)
    assert torch.allclose(torch.nn.functional.conv2d(x, weight, bias), norm(conv(x)), atol=1e-5)


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "vgg11_bn"])
def test_converted_networks_equal_torchvision(name: str) -> None:
    theirs = torchvision_model(name, classes=7)
    ours = convert(Network(load_model(f"torchvision/{name}"), 7), theirs).eval()
    x = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        expected, found = theirs(x), ours(x)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["vgg13", "vgg16", "vgg16_bn", "vgg19"])
def test_tables_fit_torchvision(name: str) -> None:
    from zfrepro.vision import torchvision

    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, weights=None)
        ours = Network(load_model(f"torchvision/{name}"), 1000)
        convert(ours, theirs)  # refuses a shape that differs


def test_a_state_dict_becomes_a_run(zfrepro: Zfrepro, tmp_path: Path) -> None:
    theirs = torchvision_model("alexnet")
    file = tmp_path / "alexnet.pth"
    torch.save(theirs.state_dict(), file)
    options = ["model=torchvision/alexnet", "run=alex", f"outputs={tmp_path}"]
    zfrepro(
        "import",
        *options,
        f"weights={file}",
        "data=embedded",
        "data.size=256",
        "data.train_per_class=1",
        "data.val_per_class=1",
    )
    assert "nothing to do" in zfrepro("import", *options, f"weights={file}").stdout
    run = open_run(Experiment(run="alex", outputs=str(tmp_path), device="cpu", precision="fp32"))
    assert run.class_names[0] == "tench" and len(run.class_names) == 1000
    images = torch.randint(0, 256, (2, 256, 256, 3), dtype=torch.uint8)
    pixels = images[:, 16:240, 16:240].permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.inference_mode():
        expected, found = theirs((pixels - mean) / std), run.network(run.inputs(images))
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    zfrepro("visualize", f"outputs={tmp_path}", "run=alex", "layer=1", "num_maps=2", "num_images=4")
    assert (tmp_path / "alex" / "fig2_features" / "layer1.png").exists()


def test_what_cannot_be_imported_is_refused(zfrepro: Zfrepro, tmp_path: Path) -> None:
    def refused(*options: str) -> str:
        done = zfrepro("import", f"outputs={tmp_path}", *options, check=False)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    assert "such as model=torchvision/vgg16" in refused("model=zfnet")
    assert "DEFAULT" in refused("weights=nowhere.pth")
    wrong = tmp_path / "wrong.pth"
    torch.save({"weight": torch.zeros(3)}, wrong)
    assert "not a state dict of torchvision's alexnet" in refused(f"weights={wrong}")
    wrong.write_bytes(b"no checkpoint")
    assert "not a readable state dict" in refused(f"weights={wrong}")
