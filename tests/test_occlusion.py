"""Figure 7: the maps against a loop over positions, the claims' measures against hand-made cases, the command."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import Refused, Zfrepro, small_table
from zfrepro.errors import UserError
from zfrepro.evaluator import occlusion, pictures
from zfrepro.models.network import Network
from zfrepro.models.partial import square_positions
from zfrepro.options.commands import OccludeConfig
from zfrepro.run import TrainedRun

SMALL = ["num_images=2", "claims_images=4", "square=20", "stride=18", "others=2"]


def test_maps_equal_a_loop_over_positions() -> None:
    torch.manual_seed(0)
    network = Network(small_table(), 6).double().eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    image, fill = torch.randn(2, 3, 31, 31, dtype=torch.float64)
    starts = square_positions(31, 8, 7)
    slide = occlusion.Slide(8, 7, starts, fill, 3)
    found = occlusion.slide_over(network, image, 4, slide)
    with torch.no_grad():
        clean = network.features(image[None], [3])[3][0]
        assert found.map == int(clean.amax((1, 2)).argmax())
        assert clean[(found.map, *found.unit)] == clean.max()
        assert found.clean_activity == pytest.approx(float(clean[found.map].sum()))
        for i, y in enumerate(starts):
            for j, x in enumerate(starts):
                painted = image.clone()
                painted[:, y : y + 8, x : x + 8] = fill[:, y : y + 8, x : x + 8]
                softmax = network(painted[None]).softmax(1)[0]
                assert found.probability[i, j] == pytest.approx(float(softmax[4]), abs=1e-9)
                assert found.top_class[i, j] == int(softmax.argmax())
                assert found.top_probability[i, j] == pytest.approx(float(softmax.max()), abs=1e-9)
                layer = network.features(painted[None], [3])[3][0]
                assert found.activity[i, j] == pytest.approx(float(layer[found.map].sum()), abs=1e-9)


@pytest.mark.parametrize(("kind", "value"), [("grey", 128), ("black", 0)])
def test_the_fill_is_what_pixels_would_give(run: TrainedRun, kind: str, value: int) -> None:
    """Painting the picture itself, before the mean is subtracted and the crop taken, is the same."""
    picture = np.array(run.data.val.images[:1])
    fill = pictures.fill_input(run, kind, 0)
    edge = (run.mean.shape[0] - run.network.input_size) // 2
    painted = picture.copy()
    painted[:, edge + 3 : edge + 13, edge + 7 : edge + 17] = value
    expected = run.inputs(painted)[0]
    ours = run.inputs(picture)[0].clone()
    ours[:, 3:13, 7:17] = fill[:, 3:13, 7:17]
    torch.testing.assert_close(ours, expected)
    assert (pictures.fill_pixels(run, fill) == value).all()


def test_the_mean_fill_is_zero_and_shows_the_mean_image(run: TrainedRun) -> None:
    fill = pictures.fill_input(run, "mean", 0)
    assert not fill.any()
    edge = (run.mean.shape[0] - run.network.input_size) // 2
    mean = run.mean[edge:-edge, edge:-edge].cpu().numpy()
    assert np.abs(pictures.fill_pixels(run, fill) - mean).max() <= 0.5


def test_covers_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    starts, square, size = [0, 3, 5], 4, 9
    cover = occlusion.covers(starts, square, size)
    pixels, drop = rng.random((size, size)), rng.random((3, 3))
    below = occlusion.below_square(pixels, cover)
    heat, counts = np.zeros((size, size)), np.zeros((size, size))
    for i, y in enumerate(starts):
        for j, x in enumerate(starts):
            place = slice(y, y + square), slice(x, x + square)
            assert below[i, j] == pytest.approx(pixels[place].sum())
            heat[place] += drop[i, j]
            counts[place] += 1
    np.testing.assert_allclose(occlusion.heat_map(drop, cover), heat / counts)


def test_measures_of_hand_made_cases() -> None:
    heat = np.array([[0.0, 1.0], [3.0, 0.0]])
    mask = np.array([[0.0, 0.0], [1.0, 1.0]])
    assert occlusion.share_inside(heat, mask) == 0.75
    assert np.isnan(occlusion.share_inside(np.zeros((2, 2)), mask))
    assert occlusion.points_at(heat, mask)
    assert not occlusion.points_at(heat.T, mask)
    assert occlusion.correlation(heat, 5 - 2 * heat) == pytest.approx(-1)
    assert np.isnan(occlusion.correlation(heat, np.ones((2, 2))))
    a, b = np.random.default_rng(0).random((2, 4, 5))
    assert occlusion.correlation(a, b) == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_other_images_are_the_strongest_of_other_classes() -> None:
    labels = np.array([0, 1, 1, 2, 3])
    strongest = torch.tensor([[9.0], [5.0], [7.0], [1.0], [6.0]])
    nothing = np.zeros(5)
    seen = pictures.Survey(np.arange(5), labels, labels, nothing, strongest, torch.zeros(5, 1))
    assert occlusion.other_images(seen, 0, 0, 3).tolist() == [2, 4, 3]
    assert occlusion.other_images(seen, 0, 3, 1).tolist() == [0]


def test_chosen_images_are_of_different_classes_first() -> None:
    labels = np.array([5, 5, 2, 5, 2, 7])
    assert pictures.of_different_classes(labels, 4).tolist() == [0, 2, 5, 1]


def test_the_survey_keeps_images_and_answers_together(run: TrainedRun) -> None:
    seen = pictures.survey(run, 5, seed=3)
    assert sorted(seen.rows.tolist()) == list(range(len(run.data.val)))
    row = int(seen.rows[11])
    image = run.inputs(np.array(run.data.val.images[row : row + 1]))
    with torch.no_grad():
        found = run.network.features(image, [5, 8])
    torch.testing.assert_close(seen.strongest[11], found[5][0].amax((1, 2)).cpu(), atol=1e-4, rtol=1e-4)
    assert seen.labels[11] == run.data.val.labels[row]
    assert seen.probability[11] == pytest.approx(float(found[8].softmax(1)[0, seen.labels[11]]), abs=1e-4)


def test_the_claims_numbers_against_loops(run: TrainedRun) -> None:
    """Falls and covers position by position; every measure beside that with the next image's projection or mask."""
    slide = occlusion.slide_of(run, OccludeConfig(run="tiny", square=20, stride=18))
    seen, which = pictures.survey(run, slide.layer, 0), np.arange(3)
    claims, arrays = occlusion.measure_claims(run, seen, slide, which)
    truth = run.data.val.truth
    assert truth is not None
    masks = truth.masks[seen.rows[which]][:, 4:60, 4:60] / 255
    heats, counts = np.zeros((2, 3, 56, 56))
    for image, inputs in enumerate(run.inputs(run.data.val.images[seen.rows[which]])):
        label = seen.labels[image]
        clean = run.network.features(inputs[None], [slide.layer, 8])
        number = int(clean[slide.layer][0].amax((1, 2)).argmax())
        for (p, y), (q, x) in itertools.product(enumerate(slide.starts), repeat=2):
            at = slice(y, y + 20), slice(x, x + 20)
            painted = inputs.clone()
            painted[(..., *at)] = slide.fill[(..., *at)]
            found = run.network.features(painted[None], [slide.layer, 8])
            activity, fall = (
                float(clean[layer][0, unit].sum() - found[layer][0, unit].sum()) if layer < 8 else
                float(clean[8].softmax(1)[0, unit] - found[8].softmax(1)[0, unit])
                for layer, unit in ((slide.layer, number), (8, label))
            )  # fmt: skip
            assert arrays["activity_drop"][image, p, q] == pytest.approx(activity, rel=1e-3, abs=1e-3)
            assert arrays["probability_drop"][image, p, q] == pytest.approx(fall, rel=1e-3, abs=1e-5)
            assert arrays["cover"][image, p, q] == pytest.approx(masks[image][at].mean(), abs=1e-6)
            heats[image][at] += max(fall, 0)
            counts[image][at] += 1
    heats /= np.maximum(counts, 1)

    def expected(
        measure: Callable[[np.ndarray, np.ndarray], float], a: np.ndarray, b: np.ndarray
    ) -> tuple[float, float]:
        own, other = ([measure(a[i], b[(i + step) % 3]) for i in range(3)] for step in (0, 1))
        return float(np.mean(own)), float(np.mean(other))

    def corrcoef(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])

    wanted = {
        "activity_falls_where_the_projection_is": expected(corrcoef, arrays["activity_drop"], arrays["energy"]),
        "probability_falls_where_the_object_is": expected(corrcoef, arrays["probability_drop"], arrays["cover"]),
        "drop_inside_mask_percent": expected(lambda h, m: 100 * (h * m).sum() / h.sum(), heats, masks),
    }
    for name, (own, other) in wanted.items():
        assert (claims[name]["mean"], claims[name]["control"]) == pytest.approx((own, other), rel=1e-3, abs=1e-3), name
        assert abs(own - other) > 0.02, "the control must differ for this to notice"


def test_the_command(tiny_run: Path, zfrepro: Zfrepro, run: TrainedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network has hardly learned anything; so that enough is there to measure on, five of its answers count as right."""
    monkeypatch.setattr(pictures, "correct", lambda seen: np.arange(5))
    arguments = ["occlude", f"outputs={tiny_run}", "run=tiny", *SMALL]
    zfrepro(*arguments)
    folder = tiny_run / "tiny" / "fig7_occlusion"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["square"] == 20
    assert metrics["provenance"]["checkpoint_hash"] == run.checkpoint_hash
    with np.load(folder / "arrays.npz") as arrays:
        assert arrays["ys"].tolist() == [0, 18, 36]
        assert arrays["probability"].shape == arrays["activity"].shape == arrays["top_class"].shape == (2, 3, 3)
        assert arrays["projections"].shape == (2, 56, 56, 3)
        assert arrays["others"].shape == (2, 2, 56, 56, 3)
        assert (arrays["other_labels"] != arrays["labels"][:, None]).all()
        image, label = (
            run.inputs(np.pad(arrays["images"][1:], ((0, 0), (4, 4), (4, 4), (0, 0)))),
            int(arrays["labels"][1]),
        )
        image[0, :, 36:56, 18:38] = pictures.fill_input(run, "grey", 0)[:, 36:56, 18:38]
        with torch.no_grad():
            expected = run.network(image).softmax(1)[0]
        assert arrays["probability"][1, 2, 1] == pytest.approx(float(expected[label]), abs=1e-5)
        assert arrays["top_class"][1, 2, 1] == int(expected.argmax())
    for name in ("occlusion.png", "claims.png", "claims.npz"):
        assert (folder / name).stat().st_size > 0
    for key in ("pointing_accuracy_percent", "drop_inside_mask_percent", "activity_falls_where_the_projection_is"):
        assert {"mean", "control"} <= set(metrics["claims"][key])
    assert "up to date" in zfrepro(*arguments).stdout


def test_frames_of_own_pictures_are_told(tiny_run: Path, zfrepro: Zfrepro, tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (80, 80), colour) for colour in ("red", "blue"))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    first.save(tmp_path / "b.gif")
    images = f"images=[{tmp_path / 'a.gif'},{tmp_path / 'b.gif'}]"
    options = ["claims_images=0", "square=30", "stride=20", "resume=false", images]
    (note,) = [
        line
        for line in zfrepro("occlude", f"outputs={tiny_run}", "run=tiny", *options).stderr.splitlines()
        if "note:" in line
    ]
    assert note == "note: 1 of the files holds several frames or pages, of which the first is taken: a.gif"


def test_own_pictures_by_class_name(tiny_run: Path, zfrepro: Zfrepro, tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 90, 3)).astype(np.uint8)).save(tmp_path / "a.png")
    common = ["occlude", f"outputs={tiny_run}", "run=tiny", "claims_images=0", "square=30", "stride=20"]
    zfrepro(*common, f"images=[{tmp_path / 'a.png'}]", "labels=[Dog]")
    metrics = json.loads((tiny_run / "tiny" / "fig7_occlusion" / "metrics.json").read_text())
    assert [(one["name"], one["class"]) for one in metrics["images"]] == [("a.png", "dog")]
    assert "claims" not in metrics


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["square=57"], "square=57: must be at most"),
        (["stride=0"], "stride=0: must be 1 or more"),
        (["layer=6"], "layer=6: the layers to choose from are 1, 2, 3, 4, 5"),
        (["fill=gray"], "did you mean grey?"),
        (["images=[none.jpg]"], "none.jpg: cannot be read as an image"),
        (["images=[a.txt]"], "a.txt: cannot be read as an image"),
        (["images=[a.png]", "labels=[dgo]"], "labels=dgo: no class of this run (did you mean dog?)"),
        (["images=[a.png]", "labels=[dog,cat]"], "2 labels for 1 images"),
    ],
)
def test_mistakes_are_one_line(
    tiny_run: Path, refused: Refused, tmp_path: Path, arguments: list[str], says: str
) -> None:
    (tmp_path / "a.txt").write_text("no image")
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    assert says in refused("occlude", f"outputs={tiny_run}", "run=tiny", *arguments, cwd=tmp_path)
    assert not list((tiny_run / "tiny").glob(".*.tmp"))


def test_no_correct_image_is_said_plainly(run: TrainedRun) -> None:
    wrong = np.array([1])
    seen = pictures.Survey(wrong, wrong, np.array([0]), np.array([0.1]), torch.zeros(1, 1), torch.zeros(1, 1))
    with pytest.raises(UserError, match="train it longer"):
        pictures.chosen(run, seen, 1)
