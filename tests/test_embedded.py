"""The embedded data set keeps its promises: reproducible, true to its truth, and not solved by colour."""

from itertools import combinations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from zfrepro.data import embedded, embedded_portrait
from zfrepro.data.embedded import Drawing, draw, draw_scenes, scene_shapes, whole_shapes
from zfrepro.data.embedded_kinds import (
    CLASSES,
    KEYPOINTS,
    KINDS,
    PLACES,
    SOURCE_CLASSES,
    TARGET_CLASSES,
    Kind,
    eyes,
    nose,
)
from zfrepro.data.embedded_portrait import _pose
from zfrepro.data.embedded_sketch import Sketch, box, uniforms

ALL = SOURCE_CLASSES + TARGET_CLASSES
FACE_CLASSES = tuple(name for name, (kind, _) in CLASSES.items() if {eyes, nose} <= set(kind.parts))
RIGHT, LEFT, NOSE = (KEYPOINTS.index(name) for name in ("right_eye", "left_eye", "nose"))


@pytest.fixture(scope="module")
def every() -> Drawing:
    """Two images of each of the ninety classes, 64 px."""
    return draw(ALL, np.arange(2 * len(ALL)) % len(ALL), np.arange(2 * len(ALL)), 64, seed=3)


@pytest.fixture(scope="module")
def faces() -> Drawing:
    return draw(FACE_CLASSES, np.arange(196) % len(FACE_CLASSES), np.arange(196), 64, seed=5)


def test_source_and_target_are_two_large_disjoint_sets_with_faces_in_both() -> None:
    assert len(SOURCE_CLASSES) >= 60 and len(TARGET_CLASSES) >= 24
    assert not set(SOURCE_CLASSES) & set(TARGET_CLASSES)
    assert len(set(ALL)) == len(ALL)
    assert len(set(FACE_CLASSES) & set(SOURCE_CLASSES)) >= 5
    assert len(set(FACE_CLASSES) & set(TARGET_CLASSES)) >= 5
    assert {"right_eye", "left_eye", "nose"} <= set(KEYPOINTS)


def test_a_part_in_a_place_does_not_tell_the_class_nor_do_the_parts() -> None:
    """Every part belongs to several kinds, no two kinds have the same three, and of a kind every part is in every
    place once."""
    parts = [set(kind.parts) for kind in KINDS.values()]
    assert all(sum(part in own for own in parts) >= 3 for part in set.union(*parts))
    assert max(len(one & other) for one, other in combinations(parts, 2)) == 2
    for name, kind in KINDS.items():
        own = [one for one, (its, _) in CLASSES.items() if its is kind]
        assert own == [name, f"{name}_b", f"{name}_c"] and {shift for _, shift in map(CLASSES.get, own)} == {0, 1, 2}
        assert {one in SOURCE_CLASSES for one in own} in ({True}, {False})


def sketched(kind: Kind, shift: int, count: int = 40, size: int = 96) -> Sketch:
    """The kind in its own frame, from [-1.4, 1.4]."""
    t = ((np.arange(size) + 0.5) * (2.8 / size) - 1.4).astype(np.float32)
    x, y = np.tile(t, size)[None].repeat(count, 0), np.repeat(t, size)[None].repeat(count, 0)
    chance = uniforms(np.arange(count, dtype=np.uint64), 96)
    sketch = Sketch(x, y, np.full((count, 1), 2.8 / size, np.float32), chance)
    kind.draw(sketch, np.full((count, 1), shift))
    return sketch


@pytest.mark.parametrize("name", KINDS)
def test_classes_of_a_kind_differ_by_where_the_parts_sit_alone(name: str) -> None:
    """Under the same chance the three arrangements have the same strokes in the same colours and of the same size;
    what is not a part does not move, and each stroke of a part is in three places."""
    first, *others = (sketched(KINDS[name], shift, count=12) for shift in range(PLACES))
    used = len(first.paint)
    areas, places = [], []
    for one in (first, *others):
        np.testing.assert_array_equal(np.stack(one.paint), np.stack(first.paint))
        assert one.used == first.used <= one.chance.shape[1]
        cover = one.cover[:used]
        areas.append(cover.sum(2))
        places.append(np.stack([(cover * one.x).sum(2), (cover * one.y).sum(2)], -1) / (cover.sum(2)[..., None] + 1e-6))
    np.testing.assert_allclose(areas, np.stack([areas[0]] * 3), rtol=0.05, atol=3.0)
    moved = [np.abs(a - b).max(-1).mean(1) for a, b in combinations(places, 2)]  # (3, strokes)
    fixed = np.max(moved, axis=0) < 1e-6
    assert fixed[:2].all() and (~fixed).sum() >= 3
    assert (np.min(moved, axis=0)[~fixed] > 0.3).all()


@pytest.mark.parametrize("name", ["dog", "house", "bus"])
def test_the_first_arrangement_is_the_table_s_and_the_next_moves_every_part_on(name: str) -> None:
    """Read from the strokes: the n-th part's first stroke is at place n, n + 1, n + 2."""
    kind = KINDS[name]
    along = 0 if name == "bus" else 1  # side by side, or one above the other
    for shift in range(PLACES):
        s = sketched(kind, shift, count=12)
        order, cut = [], sketched(Kind(kind.body, kind.outer, ()), 0, count=12)
        start = len(cut.paint)
        for i in range(PLACES):
            own = sketched(Kind(kind.body, kind.outer, kind.parts[: i + 1]), shift, count=12)
            stroke = s.cover[start]
            order.append(float(((stroke * (s.x, s.y)[along]).sum(1) / stroke.sum(1)).mean()))
            start = len(own.paint)
        assert np.argsort(order).tolist() == np.roll(np.arange(PLACES), shift).tolist()


def test_shapes_and_types(every: Drawing) -> None:
    count = 2 * len(ALL)
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
    assert np.quantile(side, 0.05) > 0.4 and np.quantile(side, 0.95) <= 1.0
    assert 0.65 < side.mean() < 0.85


def test_masks_are_antialiased(every: Drawing) -> None:
    """Partly covered pixels line the outline: some, but few beside the full ones."""
    partly = ((every.masks > 8) & (every.masks < 247)).mean()
    assert 0.005 < partly < 0.2 * (every.masks >= 247).mean() + 0.02


def test_what_stands_in_front_is_not_of_the_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the picture changes if nothing stands in front, the mask has a hole."""
    rows = np.arange(60)
    covered = draw(ALL, rows, rows, 48, seed=4)
    monkeypatch.setattr(embedded_portrait, "_occluder", lambda picture, pose, chance, canvas: 0.0)
    bare = draw(ALL, rows, rows, 48, seed=4)
    front = np.abs(covered.images.astype(int) - bare.images).max(-1) > 60
    hidden = front & (bare.masks > 127)
    assert hidden.any(axis=(1, 2)).sum() > 10
    assert (covered.masks[hidden] > 127).mean() < 0.02
    np.testing.assert_array_equal(covered.masks[~front] > bare.masks[~front], False)


def test_key_points_lie_on_the_visible_object(every: Drawing, faces: Drawing) -> None:
    for drawing in (every, faces):
        image, point = np.nonzero(np.isfinite(drawing.keypoints[:, :, 0]))
        x, y = drawing.keypoints[image, point].T
        assert (drawing.masks[image, y.astype(int), x.astype(int)] > 127).all()
        x0, y0, x1, y1 = drawing.boxes[image].T
        assert ((x0 <= x) & (x < x1) & (y0 <= y) & (y < y1)).all()


def test_faces_have_eyes_and_nose_and_others_do_not(every: Drawing, faces: Drawing) -> None:
    assert np.isfinite(faces.keypoints[:, [RIGHT, LEFT, NOSE], 0]).mean() > 0.85
    for part, points in ((eyes, [RIGHT, LEFT]), (nose, [NOSE])):
        other = np.array([part not in CLASSES[name][0].parts for name in ALL])[every.labels]
        assert np.isnan(every.keypoints[other][:, points]).all()


def test_the_right_eye_is_the_subjects_own(faces: Drawing) -> None:
    """At the image's left in every frontal face; both mirrored and unmirrored poses occur, so the swap has happened."""
    right, left = (faces.keypoints[:, k] for k in (RIGHT, LEFT))
    seen = np.isfinite(right + left)[:, 0]
    assert (right[seen, 0] < left[seen, 0]).all()
    keys = embedded._keys(5, "cat", np.arange(64))
    flip = _pose(keys, *np.zeros((3, 64, 1), np.float32)).flip
    assert 0.25 < (flip < 0).mean() < 0.75


@pytest.mark.parametrize(("name", "order"), [("dog", (0, 1)), ("dog_b", (0, 1)), ("dog_c", (1, 0)), ("cat_c", (1, 0))])
def test_the_nose_is_below_the_eyes_where_the_arrangement_says_so(name: str, order: tuple[int, int]) -> None:
    """dog: eyes, nose, mouth; dog_b: mouth, eyes, nose; dog_c: nose, mouth, eyes."""
    points = draw([name], np.zeros(40, int), np.arange(40), 48, seed=2).keypoints
    both = np.stack([points[:, [RIGHT, LEFT], 1].mean(1), points[:, NOSE, 1]], 1)
    seen = np.isfinite(both).all(1)
    assert seen.sum() > 20 and (both[seen].argsort(1) == order).mean() > 0.95


def test_the_key_point_of_an_eye_is_on_its_pupil() -> None:
    """The key points are where the pixels are: the pupil differs from the white around it, either way, by far."""
    owls = draw(["owl"], np.zeros(60, int), np.arange(60), 160, seed=1)
    grey, points = owls.images.mean(axis=3), owls.keypoints[:, [RIGHT, LEFT]]
    apart = []
    for picture, pair, (x0, _, x1, _) in zip(grey, points, owls.boxes, strict=True):
        for x, y in pair[np.isfinite(pair[:, 0])]:
            angle, r = np.linspace(0, 2 * np.pi, 12, endpoint=False), 0.105 * (x1 - x0)
            around = picture[(y + r * np.sin(angle)).astype(int), (x + r * np.cos(angle)).astype(int)]
            apart.append(abs(picture[int(y), int(x)] - np.median(around)))
    assert len(apart) > 80 and np.median(apart) > 70


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


def test_the_truth_is_that_of_a_drawing_eight_times_as_fine() -> None:
    """Mask, box and key points against brute force: the coverage counted on 64 finer pixels a pixel."""
    names = ALL[::7]
    rows = np.arange(len(names))
    coarse, fine = draw(names, rows, rows, 32, seed=6), draw(names, rows, rows, 256, seed=6)
    counted = (fine.masks > 127).reshape(-1, 32, 8, 32, 8).mean(axis=(2, 4)) * 255.0
    assert np.abs(counted - coarse.masks).mean() < 2.0 and np.quantile(np.abs(counted - coarse.masks), 0.99) < 40
    assert np.abs(fine.boxes / 8.0 - coarse.boxes).max() <= 1.0
    both = np.isfinite(fine.keypoints) & np.isfinite(coarse.keypoints)
    np.testing.assert_allclose(fine.keypoints[both], 8.0 * coarse.keypoints[both], atol=2e-3)


@pytest.mark.parametrize("size", [17, 32])
def test_a_rectangle_shows_its_square_and_more(size: int) -> None:
    """Shading and shadows look a few pixels over the square's rim; within it the pixels are the same."""
    rows = np.arange(60)
    square, whole = (draw(ALL, rows, rows, size, 1, fit) for fit in ("square", "whole"))
    assert (whole.shapes == whole_shapes(ALL, rows, rows, size, 1)).all() and (whole.shapes.min(1) == size).all()
    assert {(h > w) - (h < w) for h, w in whole.shapes.tolist()} == {-1, 0, 1}
    longest = whole.shapes.max(1)
    assert longest.max() <= 1.5 * size + 1 and np.ptp(longest) > 0.3 * size
    for i, (h, w) in enumerate(whole.shapes):
        assert whole.images[i].shape == (h, w, 3) and whole.masks[i].shape == (h, w)
        top, left = (h - size) // 2, (w - size) // 2
        inner = whole.images[i][top : top + size, left : left + size].astype(int)
        assert np.abs(inner - square.images[i])[2:-2, 2:-2].max() <= 1
        np.testing.assert_array_equal(whole.masks[i][top : top + size, left : left + size], square.masks[i])
        seen = np.isfinite(square.keypoints[i])
        moved = square.keypoints[i] + np.array([left, top], np.float32)
        np.testing.assert_allclose(whole.keypoints[i][seen], moved[seen], atol=1e-4)
        ys, xs = np.nonzero(whole.masks[i] > 127)
        assert whole.boxes[i].tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_a_rectangle_does_not_depend_on_its_batch() -> None:
    many, few = (draw(ALL, rows, rows, 24, 2, "whole") for rows in (np.arange(40), np.array([31, 7])))
    for i, row in enumerate((31, 7)):
        np.testing.assert_array_equal(few.images[i], many.images[row])
        np.testing.assert_array_equal(few.boxes[i], many.boxes[row])


def test_a_scene_s_rectangle_shows_its_square_and_more() -> None:
    ids = np.arange(24)
    square, whole = (draw_scenes(SOURCE_CLASSES, ids, 32, 3, fit) for fit in ("square", "whole"))
    assert (whole.shapes == scene_shapes(ids, 32, 3)).all() and whole.shapes.max() > 40
    np.testing.assert_array_equal(whole.object_labels, square.object_labels)
    assert ((whole.labels != 0) == (square.labels != 0)).all()
    for i, (h, w) in enumerate(whole.shapes):
        top, left = (h - 32) // 2, (w - 32) // 2
        inner = whole.images[i][top : top + 32, left : left + 32].astype(int)
        assert np.abs(inner - square.images[i])[2:-2, 2:-2].max() <= 1
        np.testing.assert_array_equal(whole.owners[i][top : top + 32, left : left + 32], square.owners[i])
        for slot, (x0, y0, x1, y1) in enumerate(whole.boxes[i]):
            ys, xs = np.nonzero(whole.owners[i] == slot)
            assert (x0, y0, x1, y1) == ((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) if len(xs) else (0, 0, 0, 0))


@pytest.mark.parametrize("size", [16, 24, 100])
def test_any_size_can_be_drawn(size: int) -> None:
    drawing = draw(ALL, np.arange(len(ALL)), np.arange(len(ALL)), size, seed=0)
    assert drawing.images.shape == (len(ALL), size, size, 3)
    assert (drawing.masks > 127).any(axis=(1, 2)).all()


def test_neither_colour_nor_area_gives_the_class_away() -> None:
    """Sixty classes, chance 1.7 %: linear classifiers of mean colours, colour histograms and the mask's area."""
    count = len(SOURCE_CLASSES)
    labels = np.repeat(np.arange(count), 30)
    drawing = draw(SOURCE_CLASSES, labels, np.arange(len(labels)), 32, seed=0)
    weight = drawing.masks[..., None] / 255.0
    inside = (drawing.images * weight).sum(axis=(1, 2)) / weight.sum(axis=(1, 2))
    bins = (drawing.images // 64).astype(int) @ np.array([16, 4, 1])
    whole, object_ = (
        np.stack([np.bincount(b[m], minlength=64) / m.sum() for b, m in zip(bins, masks, strict=True)])
        for masks in (np.ones(drawing.masks.shape, bool), drawing.masks > 127)
    )
    area, train = drawing.masks.mean(axis=(1, 2))[:, None], np.arange(len(labels)) % 3 != 0
    for name, features, bound in (
        ("means", np.concatenate([inside, drawing.images.mean(axis=(1, 2))], 1), 0.04),
        ("histogram", whole, 0.05),
        ("object's histogram", object_, 0.08),
        ("area", np.concatenate([area, area**2], 1), 0.06),
    ):
        scaled = StandardScaler().fit_transform(features)
        right = LogisticRegression(C=0.1, max_iter=60, tol=1e-3).fit(scaled[train], labels[train]).predict(scaled)
        score = (right == labels)[~train].mean()
        assert score < bound, (name, score)


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
    there = np.stack([(scenes.owners == slot).any((1, 2)) for slot in range(scenes.boxes.shape[1])], 1)
    assert (scenes.difficult | there | (scenes.object_labels < 0)).all()
    for i, slot in np.argwhere(scenes.boxes.any(axis=2)):
        rows, columns = np.nonzero(scenes.owners[i] == slot)
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        np.testing.assert_array_equal(scenes.boxes[i, slot], box)


def test_a_scene_does_not_depend_on_its_batch() -> None:
    many = draw_scenes(SOURCE_CLASSES, np.arange(40), 32, seed=4)
    few = draw_scenes(SOURCE_CLASSES, np.array([33, 5]), 32, seed=4)
    for field in ("images", "labels", "owners", "object_labels", "boxes", "difficult"):
        np.testing.assert_array_equal(getattr(few, field), getattr(many, field)[[33, 5]], err_msg=field)


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
