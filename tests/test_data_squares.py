"""Squares out of images that are packed whole: what packing squares gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zfrepro.data import embedded, open_data
from zfrepro.data.embedded_kinds import TARGET_CLASSES
from zfrepro.data.packed import Boxes
from zfrepro.data.squares import Squares, squared
from zfrepro.options.shared import DataConfig


def embedded_data(tmp_path: Path, part: str, fit: str, size: int) -> DataConfig:
    cache = str(tmp_path / "cache")
    return DataConfig("embedded", size, fit, cache=cache, train_per_class=2, val_per_class=1, workers=1, part=part)


def test_drawn_rectangles_are_packed_as_they_are_drawn(tmp_path: Path) -> None:
    data = open_data(embedded_data(tmp_path, "target", "whole", 32), progress=False)
    classes, count = TARGET_CLASSES, len(data.train)
    drawing = embedded.draw(classes, np.arange(count) % len(classes), np.arange(count), 32, 0, "whole")
    truth, boxes = data.train.truth, data.train.boxes
    assert truth is not None and boxes is not None
    assert len({image.shape for image in drawing.images}) > 3
    for row in range(count):
        assert np.array_equal(data.train.images[row], drawing.images[row])
        assert np.array_equal(truth.masks[row], drawing.masks[row])
        corners, labels = boxes[row]
        assert corners.tolist() == [drawing.boxes[row].tolist()] and labels.tolist() == [row % len(classes)]
    assert np.array_equal(truth.keypoints, drawing.keypoints, equal_nan=True)


def test_the_squares_of_drawn_rectangles_are_the_drawn_squares(tmp_path: Path) -> None:
    whole = squared(open_data(embedded_data(tmp_path, "source", "whole", 32), progress=False), 32)
    square = open_data(embedded_data(tmp_path, "source", "square", 32), progress=False)
    ours, theirs = whole.train.truth, square.train.truth
    assert ours is not None and theirs is not None and whole.train.boxes is not None and square.train.boxes is not None
    away = np.abs(whole.train.images[:].astype(int) - square.train.images)
    assert away[:, 2:-2, 2:-2].max() <= 1  # shading looks a few pixels over the square's rim
    assert np.array_equal(ours.masks[3:9], theirs.masks[3:9])
    # Of an object at the square's rim the whole picture may show more, and so the rest of its box.
    cut = (theirs.boxes[:, :2] == 0).any(1) | (theirs.boxes[:, 2:] == 32).any(1)
    assert np.array_equal(ours.boxes[~cut], theirs.boxes[~cut]) and not cut.all()
    assert (ours.boxes[:, :2] <= theirs.boxes[:, :2]).all() and (ours.boxes[:, 2:] >= theirs.boxes[:, 2:]).all()
    assert ours.boxes.min() >= 0 and ours.boxes.max() <= 32
    assert np.allclose(ours.keypoints, theirs.keypoints, equal_nan=True)
    assert np.array_equal(whole.train.boxes.corners[~cut], square.train.boxes.corners[~cut])
    assert whole.fit == "square" and whole.size == 32 and whole.key != square.key


def test_scenes_have_a_box_for_every_object_that_is_seen(tmp_path: Path) -> None:
    for fit in ("square", "whole"):
        data = open_data(embedded_data(tmp_path, "scenes", fit, 32), progress=False)
        boxes = data.train.boxes
        assert boxes is not None and data.train.multi is not None
        for row in range(len(data.train)):
            corners, labels = boxes[row]
            assert (corners[:, 2:] > corners[:, :2]).all()
            assert set(labels.tolist()) >= set(np.flatnonzero(data.train.multi[row] == 1).tolist())
            height, width = data.train.images[row].shape[:2]
            assert corners.min() >= 0 and (corners[:, 2:] <= [width, height]).all()


@pytest.fixture
def photographs(tmp_path: Path) -> DataConfig:
    for label in range(2):
        for n in range(5):
            pixels = np.random.default_rng(10 * label + n).integers(0, 256, (5, 7, 3), dtype=np.uint8)
            picture = Image.fromarray(pixels).resize((60 + 9 * n, 50 + 20 * label), Image.Resampling.BICUBIC)
            (tmp_path / "tree" / f"c{label}").mkdir(parents=True, exist_ok=True)
            picture.save(tmp_path / "tree" / f"c{label}" / f"{n}.png")
    return DataConfig("folder", 32, "whole", str(tmp_path / "tree"), cache=str(tmp_path / "cache"), workers=1)


def test_rows_are_taken_as_from_an_array(photographs: DataConfig) -> None:
    data = open_data(photographs, progress=False)
    square = open_data(DataConfig(**(vars(photographs) | {"fit": "square"})), progress=False)
    squares = squared(data, 32).train.images
    assert squares.shape == square.train.images.shape and len(squares) == len(data.train)
    parts = ((3, slice(1, 5)), (np.array([4, 0]), slice(2, 9), slice(1, 3)), (slice(1, 3), slice(None), 4))
    for rows in (3, slice(2, 7), np.array([4, 0, 4]), np.array([[1], [2]]), slice(None), np.int64(5), -1, *parts):
        assert np.array_equal(squares[rows], square.train.images[rows])
    half = squared(data, 16).train.images
    fresh = open_data(DataConfig(**(vars(photographs) | {"fit": "square", "size": 16})), progress=False)
    assert np.abs(half[:].astype(int) - fresh.train.images).max() <= 12  # resized twice
    assert np.abs(half[:].astype(int) - fresh.train.images).mean() < 1
    assert isinstance(half, Squares)


def test_boxes_of_some_images() -> None:
    boxes = Boxes.of([[(0, 0, 1, 1)], [], [(1, 1, 2, 2), (2, 2, 3, 3)]], [[5], [], [6, 7]])
    taken = boxes.take(np.array([2, 1, 0, 2]))
    assert taken.starts.tolist() == [0, 2, 2, 3, 5] and taken.labels.tolist() == [6, 7, 5, 6, 7]
    assert taken.corners[:, 0].tolist() == [1, 2, 0, 1, 2] and boxes.images.tolist() == [0, 2, 2]
    kept = boxes.only(np.array([True, False, True]))
    assert kept.starts.tolist() == [0, 1, 1, 2] and kept[2][1].tolist() == [7] and len(kept) == 3
