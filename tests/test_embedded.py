"""The embedded data set keeps its promises: reproducible, true to its truth, and not solved by colour."""

import numpy as np
import pytest

from zfrepro.data import embedded
from zfrepro.data.embedded import FACE_CLASSES, KEYPOINTS, SOURCE_CLASSES, TARGET_CLASSES, Drawing, draw, draw_scenes
from zfrepro.data.embedded_sketch import Sketch, box, uniforms

ALL = SOURCE_CLASSES + TARGET_CLASSES
RIGHT, LEFT, NOSE = (KEYPOINTS.index(name) for name in ("right_eye", "left_eye", "nose"))


@pytest.fixture(scope="module")
def every() -> Drawing:
    """Three images of each of the forty classes, 64 px."""
    return draw(ALL, np.arange(3 * len(ALL)) % len(ALL), np.arange(3 * len(ALL)), 64, seed=3)


@pytest.fixture(scope="module")
def faces() -> Drawing:
    return draw(FACE_CLASSES, np.arange(196) % len(FACE_CLASSES), np.arange(196), 64, seed=5)


def test_source_and_target_are_two_large_disjoint_sets_with_faces_in_both() -> None:
    assert len(SOURCE_CLASSES) >= 20 and len(TARGET_CLASSES) >= 20
    assert not set(SOURCE_CLASSES) & set(TARGET_CLASSES)
    assert len(set(ALL)) == len(ALL)
    assert len(set(FACE_CLASSES) & set(SOURCE_CLASSES)) >= 5
    assert len(set(FACE_CLASSES) & set(TARGET_CLASSES)) >= 5
    assert {"right_eye", "left_eye", "nose"} <= set(KEYPOINTS)


def test_shapes_and_types(every: Drawing) -> None:
    count = 3 * len(ALL)
    assert every.images.shape == (count, 64, 64, 3) and every.images.dtype == np.uint8
    assert every.masks.shape == (count, 64, 64) and every.masks.dtype == np.uint8
    assert every.boxes.shape == (count, 4) and every.boxes.dtype == np.int16
    assert every.keypoints.shape == (count, len(KEYPOINTS), 2) and every.keypoints.dtype == np.float32
    assert every.labels.dtype == np.int64


def test_an_image_does_not_depend_on_its_batch(every: Drawing) -> None:
    """Bit for bit: drawn alone, in another order, among other classes, or under another label of the same name."""
    rng = np.random.default_rng(0)
    some = rng.permutation(len(every.labels))[:37]
    again = draw(ALL, every.labels[some], some, 64, seed=3)
    for field in ("images", "masks", "boxes", "keypoints"):
        np.testing.assert_array_equal(getattr(again, field), getattr(every, field)[some], err_msg=field)
    for i in some[:6]:
        alone = draw([ALL[every.labels[i]]], np.array([0]), np.array([i]), 64, seed=3)
        np.testing.assert_array_equal(alone.images[0], every.images[i])
        np.testing.assert_array_equal(alone.keypoints[0], every.keypoints[i])


def test_seed_id_and_class_each_change_the_picture() -> None:
    base = draw(["cat"], np.array([0]), np.array([7]), 32, seed=0).images
    for name, one, seed in (("cat", 7, 1), ("cat", 8, 0), ("dog", 7, 0)):
        other = draw([name], np.array([0]), np.array([one]), 32, seed=seed).images
        assert np.abs(other.astype(int) - base).mean() > 10


def test_boxes_are_those_of_the_masks(every: Drawing) -> None:
    for mask, (x0, y0, x1, y1) in zip(every.masks > 127, every.boxes, strict=True):
        rows, columns = np.nonzero(mask)
        assert (x0, y0, x1, y1) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_objects_fill_a_fair_part_of_the_image(every: Drawing) -> None:
    side = (every.boxes[:, 2:] - every.boxes[:, :2]).max(axis=1) / 64
    assert np.quantile(side, 0.05) > 0.35 and np.quantile(side, 0.95) <= 1.0
    assert 0.5 < side.mean() < 0.75


def test_masks_are_antialiased(every: Drawing) -> None:
    """Partly covered pixels line the outline: some, but few beside the full ones."""
    partly = ((every.masks > 8) & (every.masks < 247)).mean()
    assert 0.005 < partly < 0.2 * (every.masks >= 247).mean() + 0.02


def test_key_points_lie_on_the_visible_object(every: Drawing, faces: Drawing) -> None:
    for drawing in (every, faces):
        image, point = np.nonzero(np.isfinite(drawing.keypoints[:, :, 0]))
        x, y = drawing.keypoints[image, point].T
        assert (drawing.masks[image, y.astype(int), x.astype(int)] > 127).all()
        x0, y0, x1, y1 = drawing.boxes[image].T
        assert ((x0 <= x) & (x < x1) & (y0 <= y) & (y < y1)).all()


def test_faces_have_eyes_and_nose_and_others_do_not(every: Drawing, faces: Drawing) -> None:
    assert np.isfinite(faces.keypoints[:, [RIGHT, LEFT, NOSE], 0]).mean() > 0.85
    other = np.array([name not in FACE_CLASSES for name in ALL])[every.labels]
    assert np.isnan(every.keypoints[other][:, [RIGHT, LEFT, NOSE]]).all()


def test_the_right_eye_is_the_subjects_own(faces: Drawing) -> None:
    """At the image's left in every frontal face; both mirrored and unmirrored poses occur, so the swap has happened."""
    right, left, nose = (faces.keypoints[:, k] for k in (RIGHT, LEFT, NOSE))
    seen = np.isfinite(right + left)[:, 0]
    assert (right[seen, 0] < left[seen, 0]).all()
    keys = embedded._keys(5, "cat", np.arange(64))
    flip = embedded._pose(keys, *np.zeros((3, 64, 1), np.float32)).flip
    assert 0.25 < (flip < 0).mean() < 0.75
    seen &= np.isfinite(nose)[:, 0]
    assert (nose[seen, 1] > (right[seen, 1] + left[seen, 1]) / 2).mean() > 0.95


def test_the_key_point_of_an_eye_is_on_its_dark_pupil() -> None:
    """The key points are where the pixels are: an owl's pupil is darker than the disc around its eye."""
    owls = draw(["owl"], np.zeros(40, int), np.arange(40), 96, seed=1)
    points = owls.keypoints[:, RIGHT]
    seen = np.isfinite(points[:, 0])
    grey = owls.images.mean(axis=3)
    pupil = [grey[i, int(y), int(x)] for i, (x, y) in enumerate(points) if seen[i]]
    assert np.median(pupil) < 0.5 * np.median(grey[seen])


def test_another_size_is_the_same_picture_resampled() -> None:
    labels, ids = np.arange(len(ALL)), np.arange(len(ALL))
    small, large = draw(ALL, labels, ids, 64, seed=2), draw(ALL, labels, ids, 128, seed=2)
    halved = large.images.reshape(-1, 64, 2, 64, 2, 3).mean(axis=(2, 4))
    assert np.abs(halved - small.images).mean() < 6.0
    coverage = large.masks.reshape(-1, 64, 2, 64, 2).mean(axis=(2, 4))
    assert np.abs(coverage - small.masks).mean() < 1.5
    both = np.isfinite(small.keypoints) & np.isfinite(large.keypoints)
    np.testing.assert_allclose(large.keypoints[both], 2 * small.keypoints[both], atol=1e-3)
    assert np.abs(large.boxes - 2 * small.boxes).mean() < 1.0


@pytest.mark.parametrize("size", [16, 24, 100])
def test_any_size_can_be_drawn(size: int) -> None:
    drawing = draw(ALL, np.arange(len(ALL)), np.arange(len(ALL)), size, seed=0)
    assert drawing.images.shape == (len(ALL), size, size, 3)
    assert (drawing.masks > 127).any(axis=(1, 2)).all()


def test_colour_does_not_give_the_class_away() -> None:
    """Nearest centroid on the object's or the image's mean colour, or on the image's colour histogram, mostly fails."""
    labels = np.repeat(np.arange(len(SOURCE_CLASSES)), 40)
    drawing = draw(SOURCE_CLASSES, labels, np.arange(len(labels)), 32, seed=0)
    weight = drawing.masks[..., None] / 255.0
    inside = (drawing.images * weight).sum(axis=(1, 2)) / weight.sum(axis=(1, 2))
    whole = drawing.images.mean(axis=(1, 2))
    bins = (drawing.images // 64).astype(int) @ np.array([16, 4, 1])
    histogram = np.stack([np.bincount(b.ravel(), minlength=64) for b in bins]) / 32**2
    for name, features in (("object", inside), ("image", whole), ("histogram", histogram)):
        train = np.arange(len(labels)) % 2 == 0
        centroids = np.stack([features[train & (labels == c)].mean(axis=0) for c in range(len(SOURCE_CLASSES))])
        nearest = ((features[~train][:, None] - centroids) ** 2).sum(axis=2).argmin(axis=1)
        assert (nearest != labels[~train]).mean() > 0.75, name


def test_scenes_labels_follow_from_their_objects() -> None:
    scenes = draw_scenes(SOURCE_CLASSES, np.arange(96), 48, seed=0)
    used = scenes.object_labels >= 0
    assert set(used.sum(axis=1)) == {1, 2, 3, 4}
    assert scenes.difficult.any() and not (scenes.difficult & ~used).any()
    for i in range(96):
        easy = set(scenes.object_labels[i][used[i] & ~scenes.difficult[i]])
        hard = set(scenes.object_labels[i][scenes.difficult[i]]) - easy
        expected = np.zeros(len(SOURCE_CLASSES), np.int8)
        expected[list(easy)] = 1
        expected[list(hard)] = -1
        np.testing.assert_array_equal(scenes.labels[i], expected)


def test_scenes_boxes_and_owners_agree_and_hidden_objects_are_difficult() -> None:
    scenes = draw_scenes(SOURCE_CLASSES, np.arange(64), 48, seed=1)
    assert (scenes.difficult | (scenes.visible >= embedded.HIDDEN) | (scenes.object_labels < 0)).all()
    assert ((scenes.owners >= 0) == (scenes.masks > 127)).mean() > 0.999
    for i, slot in np.argwhere(scenes.boxes.any(axis=2)):
        rows, columns = np.nonzero(scenes.owners[i] == slot)
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        np.testing.assert_array_equal(scenes.boxes[i, slot], box)


def test_a_scene_does_not_depend_on_its_batch() -> None:
    many = draw_scenes(SOURCE_CLASSES, np.arange(40), 32, seed=4)
    few = draw_scenes(SOURCE_CLASSES, np.array([33, 5]), 32, seed=4)
    for field in ("images", "labels", "masks", "owners", "object_labels", "boxes", "visible", "difficult"):
        np.testing.assert_array_equal(getattr(few, field), getattr(many, field)[[33, 5]], err_msg=field)


@pytest.mark.parametrize(
    ("classes", "labels", "ids", "size", "message"),
    [
        (["cat", "unicorn"], [0], [0], 32, "unicorn"),
        (["cat"], [1], [0], 32, "label 1"),
        (["cat"], [-1], [0], 32, "label -1"),
        (["cat"], [0], [0], 15, "at least 16"),
        (["cat"], [0, 0], [0], 32, "one length"),
        ([], [0], [0], 32, "at least one class"),
    ],
)
def test_impossible_requests_are_refused(
    classes: list[str], labels: list[int], ids: list[int], size: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        draw(classes, np.array(labels), np.array(ids), size, seed=0)


def test_scenes_refuse_what_drawings_refuse() -> None:
    with pytest.raises(ValueError, match="unicorn"):
        draw_scenes(["unicorn"], np.arange(2), 32, seed=0)
    with pytest.raises(ValueError, match="at least 16"):
        draw_scenes(["cat"], np.arange(2), 8, seed=0)


def test_no_images_is_a_valid_request() -> None:
    assert draw(["cat"], np.empty(0, int), np.empty(0, int), 32, seed=0).images.shape == (0, 32, 32, 3)
    assert draw_scenes(["cat"], np.empty(0, int), 32, seed=0).labels.shape == (0, 1)


def test_a_part_drawn_on_its_rows_alone_is_the_whole_part() -> None:
    size, count = 24, 3
    t = ((np.arange(size) + 0.5) * (2.0 / size) - 1.0).astype(np.float32)
    x, y = np.tile(t, size)[None].repeat(count, 0), np.repeat(t, size)[None].repeat(count, 0)
    pixel = np.full((count, 1), 2.0 / size, np.float32)
    whole, rows = (Sketch(x, y, pixel, uniforms(np.arange(count, dtype=np.uint64), 96)) for _ in range(2))
    for centre, half in ((0.3, 0.4), (-0.2, 0.25)):  # the second partly over the first
        d, colour = box(x, y - centre, half, half, 0.1), whole.vivid()
        whole.fill(d, colour, 0.1)
        touched = np.flatnonzero((d < 2.0 / size).reshape(-1, size).any(axis=1))
        assert 0 < len(touched) < count * size
        rows.fill_rows(touched, d.reshape(-1, size)[touched], colour, 0.1)
    for one, other in zip(whole.layer(), rows.layer()):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(whole.height, rows.height)
    assert whole.height.max() > 0.05
