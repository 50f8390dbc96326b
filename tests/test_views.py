"""What a training sees of its images: rescaled rectangles, colour shifts, shares of a batch, going on bit by bit."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import toy_data, toy_table, toy_whole
from PIL import Image
from torch import Tensor

from zfrepro.checkpoints import load_checkpoint
from zfrepro.data import Packed, Split
from zfrepro.data.rescaling import Places
from zfrepro.models.network import Network, deviation, initialise
from zfrepro.options.commands import TrainConfig
from zfrepro.options.compose import load_model
from zfrepro.options.shared import DataConfig, LayerConfig, LearnedBoxes, ModelConfig
from zfrepro.trainer import feed as feeding
from zfrepro.trainer.distributed import Team
from zfrepro.trainer.feed import Feed
from zfrepro.trainer.tasks import Classification
from zfrepro.trainer.train import Training
from zfrepro.trainer.views import Rectangles, colour_axes, view_of

CPU = torch.device("cpu")


def config(outputs: Path = Path(), **options: object) -> TrainConfig:
    base = TrainConfig(
        run="toy", preset="vgg_demo", epochs=2, batch_size=4, lr=0.05, outputs=str(outputs), init="he_all"
    )
    small = {"model": toy_table(8, 5), "input_scale": 0.02, "precision": "fp32", "renorm_radius": None}
    vgg = {
        "data": DataConfig(name="embedded", size=9, fit="whole"),
        "augmentation": "random_crop",
        "subtract": "colour",
    }
    return dataclasses.replace(base, **{**small, **vgg, "snapshot_epochs": [], **options})  # type: ignore[arg-type]


def feed(data: Packed, team: Team, **options: object) -> Feed:
    made = config(**options)
    view = view_of(made, data, data.train, torch.from_numpy(data.colour).float(), torch.tensor(made.input_scale), 8)
    return Feed(data.train, Witness(data), view, 4, team, lambda inputs: inputs)


class Witness(Classification):
    """Remembers the places of the crops as a task is told them."""

    def __init__(self, data: Packed) -> None:
        super().__init__(data)
        self.told: list[tuple[Tensor, Tensor]] = []

    def targets(self, split: Split, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(rows)

    def seen(self, targets: Tensor, crops: Tensor, flip: Tensor, draw: Tensor) -> Tensor:
        self.told.append((crops, flip))
        return targets


def test_crops_are_pillows_of_the_whole_rescaled_rectangle() -> None:
    """Resized by Pillow to S, drawn anew for every image, and cut where the task was told that the crop lies."""
    data = toy_whole(12)
    made = feed(data, Team(0, 1, CPU), train_scale=[8, 14])
    batches = [(x, rows) for epoch in range(4) for x, rows in made.training(np.arange(12), 0, 100 * epoch, 0)]
    assert isinstance(made.task, Witness) and len(batches) == len(made.task.told) == 12
    sides = set()
    for (inputs, rows), (crops, flips) in zip(batches, made.task.told):
        for crop, row, place, flip in zip(inputs, rows.tolist(), crops.double().numpy(), flips.tolist()):
            image = data.train.images[row]
            height, width = image.shape[:2]
            side = round(8 * min(height, width) / (place[2] - place[0] if width <= height else place[3] - place[1]))
            sides.add(side)
            size = (width * side // min(height, width), height * side // min(height, width))
            x, y = round(place[0] * size[0] / width), round(place[1] * size[1] / height)
            resized = np.stack(
                [np.asarray(Image.fromarray(image[:, :, c].astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
                 for c in range(3)]
            )  # fmt: skip
            expected = (resized[:, y : y + 8, x : x + 8] - data.colour[:, None, None]) * 0.02
            found = crop.flip(2) if flip else crop
            np.testing.assert_allclose(found.numpy(), expected, atol=2e-4)
    assert sides == set(range(8, 15))


@pytest.mark.parametrize("augmentation", ["random_crop", "ten_crop", "centre"])
def test_crops_of_squares_lie_where_the_task_is_told(augmentation: str) -> None:
    """Both ends of the place that is told, cut out of the image by hand."""
    data = toy_data(12, 13)
    made = feed(data, Team(0, 1, CPU), augmentation=augmentation)
    for inputs, rows in made.training(np.arange(12), 3, 0, 0):
        assert isinstance(made.task, Witness)
        crops, flips = made.task.told.pop(0)
        for crop, row, (left, top, right, bottom), flip in zip(inputs, rows, crops.int().tolist(), flips.tolist()):
            seen = (data.train.images[row][top:bottom, left:right] - data.colour) * 0.02
            expected = (seen[:, ::-1] if flip else seen).transpose(2, 0, 1)
            np.testing.assert_allclose(crop.numpy(), expected, atol=1e-5)


def test_the_last_batch_is_left_out_of_training_where_it_is_not_full_and_validated_all_the_same() -> None:
    made = feed(toy_data(12, 13), Team(0, 1, CPU))
    full = [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [rows.tolist() for _, rows in made.training(np.arange(11), 3, 0, 0)] == full
    assert [(len(inputs), rows.tolist()) for inputs, rows in made.centre(11)] == [
        *((4, rows) for rows in full),
        (3, [8, 9, 10]),
    ]


def test_where_a_crop_lies_in_its_image() -> None:
    """Of 9 x 13 pixels rescaled to 10 x 14 one is 0.9 high and 13 / 14 wide: the larger side is rounded down."""
    data = toy_whole(12)
    view = feed(data, Team(0, 1, CPU), train_scale=[8, 14]).view
    places, unlike = Places(*torch.tensor([[10] * 12, [1] * 12, [2] * 12, [0] * 12])), 0
    for (left, top, right, bottom), image in zip(view.crops(np.arange(12), places).tolist(), data.train.images):
        height, width = image.shape[:2]
        down, across = (side / (side * 10 // min(height, width)) for side in (height, width))
        assert (left, top) == pytest.approx((2 * across, down))
        assert (right, bottom) == pytest.approx((10 * across, 9 * down))
        unlike += abs(down - across) > 0.01
    assert unlike


def test_the_centre_of_the_middle_scale_is_validated() -> None:
    data = toy_whole(12)
    made = feed(data, Team(0, 1, CPU), train_scale=[8, 14])
    view = made.view
    assert isinstance(view, Rectangles)
    places = view.centre(np.arange(12))
    assert places.side.tolist() == [11] * 12 and not places.flip.any()
    for row, y, x in zip(range(12), places.y.tolist(), places.x.tolist()):
        height, width = (
            side * 11 // min(data.train.images[row].shape[:2]) for side in data.train.images[row].shape[:2]
        )
        assert (y, x) == ((height - 8) // 2, (width - 8) // 2)


@pytest.mark.parametrize("options", [{}, {"train_scale": [8, 14]}, {"augmentation": "ten_crop"}])
def test_without_flips_the_same_crops_are_seen_as_they_are(options: dict[str, object]) -> None:
    """Squares, rectangles of drawn scales, the ten crops: what was mirrored is not, the rest is the same."""
    data = toy_whole(12) if options.get("train_scale") else toy_data(12, 13)
    mirrored = 0
    usual, plain = (feed(data, Team(0, 1, CPU), boxes=LearnedBoxes(flips=flips), **options) for flips in (True, False))
    for (x, _), (y, _) in zip(usual.training(np.arange(12), 5, 0, 0), plain.training(np.arange(12), 5, 0, 0)):
        assert isinstance(usual.task, Witness) and isinstance(plain.task, Witness)
        (crops, flips), (same, none) = usual.task.told.pop(0), plain.task.told.pop(0)
        assert not none.any() and torch.equal(crops, same)
        mirrored += int(flips.sum())
        for drawn, seen, flip in zip(x, y, flips.tolist()):
            torch.testing.assert_close(seen, drawn.flip(2) if flip else drawn)
    assert 0 < mirrored < 12


@pytest.mark.parametrize("whole", [True, False])
def test_processes_share_one_batch(whole: bool) -> None:
    """Crops, shifts and targets of two processes are those of one, whose batch is theirs together."""
    data = toy_whole(12) if whole else dataclasses.replace(toy_data(12, 13), covariance=np.diag([900.0, 400, 100]))
    scales = [9, 12] if whole else []
    feeds = [
        feed(data, team, train_scale=scales, colour_shift=0.1)
        for team in (Team(0, 1, CPU), Team(0, 2, CPU), Team(1, 2, CPU))
    ]
    for (x, rows), *parts in zip(*(one.training(np.arange(12), 3, 7, 1) for one in feeds)):
        assert torch.equal(x, torch.cat([part for part, _ in parts]))
        assert torch.equal(rows, torch.cat([part for _, part in parts]))


def test_the_colour_shift_is_one_draw_an_image_of_a_tenth_of_the_pixels_spread() -> None:
    data = toy_whole(12)
    axes = colour_axes(data, 0.1, "sqrt")
    assert axes is not None
    np.testing.assert_allclose((axes @ axes.T).numpy(), 0.01 * data.covariance, rtol=1e-5)
    plain, shifted = (feed(data, Team(0, 1, CPU), train_scale=[9], colour_shift=shift) for shift in (0.0, 0.1))
    draws = []
    for seed in range(60):
        for (x, _), (y, _) in zip(
            plain.training(np.arange(12), seed, 0, 0), shifted.training(np.arange(12), seed, 0, 0)
        ):
            difference = (y - x).flatten(2) / 0.02
            assert (difference - difference[:, :, :1]).abs().max() < 1e-2  # the same for all pixels
            draws.append(difference[:, :, 0])
    found = torch.cat(draws).double().numpy()  # 720 draws: standard error of a variance 5 %
    np.testing.assert_allclose(
        np.cov(found.T), 0.01 * data.covariance, atol=0.2 * 0.01 * np.diag(data.covariance).max()
    )
    assert np.abs(found.mean(0)).max() < 4 * math.sqrt(0.01 * np.diag(data.covariance).max() / len(found))


def test_the_colour_shift_may_go_by_the_eigenvalue_itself() -> None:
    """Variances 900, 400 and 100 along the colours: a tenth of them, where the square roots are 30, 20 and 10."""
    data = dataclasses.replace(toy_data(12, 13), covariance=np.diag([900.0, 400, 100]))
    for by, lengths in (("sqrt", [3, 2, 1]), ("eigenvalue", [90, 40, 10])):
        view = feed(data, Team(0, 1, CPU), colour_shift=0.1, colour_shift_by=by).view
        shifts = view.draw_shift(4000, torch.Generator().manual_seed(0))
        assert shifts is not None
        torch.testing.assert_close(shifts.std(0), torch.tensor(lengths).float(), rtol=0.05, atol=0)


class Cut(Classification):
    """Stops a training after so many updates, as SIGKILL does."""

    left = 7

    def loss(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return super().loss(outputs, targets)


def test_a_training_on_rectangles_goes_on_bit_by_bit(tmp_path: Path) -> None:
    data, team = toy_whole(16), Team(0, 1, CPU)
    ends = {}
    for name in ("whole", "cut"):
        made = config(tmp_path / name, train_scale=[9, 12], colour_shift=0.1, checkpoint_every=1)
        last = tmp_path / name / "toy" / "train" / "checkpoints" / "last.pt"
        if name == "cut":
            with pytest.raises(KeyboardInterrupt):
                Training(made, team, data, Cut(data)).run()
            assert load_checkpoint(last)["trainer"]["step"] == 2
        Training(made, team, data, Classification(data), load_checkpoint(last) if name == "cut" else None).run()
        ends[name] = load_checkpoint(last)
    for key, weights in ends["whole"]["model"].items():
        assert torch.equal(weights, ends["cut"]["model"][key]), key
    assert ends["whole"]["trainer"]["metrics"][1]["train_loss"] == ends["cut"]["trainer"]["metrics"][1]["train_loss"]


@pytest.mark.parametrize("augmentation", ["centre", "random_crop"])
def test_what_frozen_layers_make_is_kept_and_the_same(
    tmp_path: Path, augmentation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs of frozen layers computed once, and anew at every visit: the same training to the bit. Their dropout is off."""
    data, team = toy_data(16, 13), Team(0, 1, CPU)
    rows = [
        LayerConfig(maps=4, kernel=3, padding=1),
        LayerConfig(maps=4, kernel=3, pool=2),
        LayerConfig(kind="fc", units=6, dropout=0.5),
        LayerConfig(kind="fc", units=6),
    ]
    table = ModelConfig(name="four", input_size=8, layers=rows)
    squares = DataConfig(name="embedded", size=13)
    origin = config(tmp_path, model=table, data=squares, augmentation=augmentation)
    Training(origin, team, data, Classification(data)).run()
    ends = []
    for kept in (1 << 30, 0):
        monkeypatch.setattr(feeding, "KEPT_BYTES", kept)
        made = dataclasses.replace(origin, run=f"kept{kept}", init_from="toy", freeze=3, lr=0.2)
        training = Training(made, team, data, Classification(data))
        training.run()
        assert (training.feeds["train"].kept is not None) == (kept > 0 and augmentation == "centre")
        assert (training.feeds["val"].kept is not None) == (kept > 0)
        ends.append(training)
    for a, b in zip(ends[0].network.parameters(), ends[1].network.parameters()):
        assert torch.equal(a, b)
    assert ends[0].at.metrics[-1]["val_top1_error"] == ends[1].at.metrics[-1]["val_top1_error"]
    assert ends[0].at.metrics[-1]["train_loss"] == ends[1].at.metrics[-1]["train_loss"]


SIGNAL = {
    "paper": (6.2e-6, 2.5e-7, 7.3e-10, 2.0e-8, 1.5e-9),
    "variance": (6.2e5, 2.5e6, 7.3e6, 2.0e8, 1.5e10),
    "glorot": (8.5e-3, 4.2e-3, 1.5e-3, 1.5e-3, 5.3e-4),
    "he_all": (1.4, 1.4, 1.4, 1.4, 1.4),
}


@pytest.mark.parametrize("init", SIGNAL)
def test_the_signal_at_initialisation(init: str) -> None:
    """Rms of the logits over that of the input in VGG's A to E, in mean field: a layer multiplies it by sqrt(fan in) times the
    weights' deviation, a ReLU halves its square. The numbers were computed elsewhere, with the reading of the paper."""
    for name, expected in zip("abcde", SIGNAL[init]):
        with torch.device("meta"):
            network = Network(load_model(f"vgg_{name}"), 1000)
        shapes = [tuple(module.get_parameter("weight").shape) for module in network.weights.values()]
        ends = [number in (0, len(shapes) - 1) for number in range(len(shapes))]
        gains = [math.prod(shape[1:]) * deviation(init, shape, end) ** 2 for shape, end in zip(shapes, ends)]
        assert math.sqrt(math.prod(gains) / 2 ** (len(gains) - 1)) == pytest.approx(expected, rel=0.05), name


def test_glorot_and_he() -> None:
    network = Network(
        ModelConfig(name="x", input_size=9, layers=[LayerConfig(maps=40, kernel=5), LayerConfig(kind="fc", units=50)]),
        30,
    )
    initialise(network, "glorot", 1)
    conv, fc = (network.weights[n].weight.detach() for n in ("1", "2"))
    for weight, (fan_in, fan_out) in ((conv, (75, 1000)), (fc, (1000, 50))):
        bound = math.sqrt(6 / (fan_in + fan_out))
        assert isinstance(weight, Tensor)
        assert 0.98 * bound < float(weight.abs().max()) <= bound
        assert float(weight.var()) == pytest.approx(bound**2 / 3, rel=0.05)
    initialise(network, "he_all", 1)
    for number, fan_in in (("1", 75), ("2", 1000), ("3", 50)):
        weight = network.weights[number].weight.detach()
        assert isinstance(weight, Tensor)
        assert float(weight.std()) == pytest.approx(math.sqrt(2 / fan_in), rel=0.06)
