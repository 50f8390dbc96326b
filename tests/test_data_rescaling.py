"""Rescaling: whatever the shape, scale and place, what Pillow's resize and a slice say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from zfrepro.data.packed import Whole
from zfrepro.data.rescaling import (
    Images,
    Places,
    by_shape,
    draw_places,
    read_crops,
    resample,
    rescaled,
    rescaled_shapes,
    shapes_of,
)
from zfrepro.errors import UserError

BLACK = torch.zeros(3)
SHAPES = ((37, 53), (53, 37), (40, 40), (31, 97), (23, 24))


def pack(shapes: tuple[tuple[int, int], ...], seed: int = 0) -> Whole:
    """Images of noise, as they are packed; the hole between two of them belongs to nobody."""
    generator = np.random.default_rng(seed)
    counts = [h * w for h, w in shapes]
    offsets = np.cumsum([0, *(count + 5 for count in counts[:-1])])
    flat = generator.integers(0, 256, 3 * (offsets[-1] + counts[-1]), dtype=np.uint8)
    return Whole(flat, np.array(shapes, np.int32), offsets, 3)


def pillow(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """(height, width, 3) float32: Pillow's own, without its rounding."""
    planes = [Image.fromarray(image[:, :, c].astype(np.float32)) for c in range(3)]
    return np.stack([np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR)) for plane in planes], 2)


def pixels(tensor: torch.Tensor) -> np.ndarray:
    return tensor.permute(0, 2, 3, 1).numpy()


def scaled_crops(
    images: Images, rows: np.ndarray, places: Places, crop: int, colour: torch.Tensor, scale: float | torch.Tensor = 1.0
) -> torch.Tensor:
    """One crop of each of the images `rows` at its place, on the colour's device."""
    return resample(read_crops(images, rows, places, crop).to(colour.device), colour, scale)


@pytest.mark.parametrize("side", [20, 23, 29, 37, 64, 91])
def test_whole_images_are_rescaled_as_pillow_does(side: int) -> None:
    images = pack(SHAPES)
    for row, (height, width) in enumerate(rescaled_shapes(images.shapes, side).tolist()):
        assert min(height, width) == side
        ours = pixels(rescaled(images, np.array([row]), side, BLACK))[0]
        assert np.abs(ours - pillow(images[row], height, width)).max() < 1e-3
        rounded = Image.fromarray(images[row]).resize((width, height), Image.Resampling.BILINEAR)
        assert np.abs(ours - np.asarray(rounded)).max() <= 1.0  # which rounds twice on its way


def test_crops_of_a_batch_are_pieces_of_the_rescaled_images() -> None:
    images, crop = pack(SHAPES), 17
    rows = np.array([4, 0, 3, 1, 2, 0, 3, 4])
    for sides in ((17, 17), (18, 60), (40, 120)):
        places = draw_places(shapes_of(images, rows), sides, crop, torch.Generator().manual_seed(1))
        assert len(places.flip.unique()) == 2
        ours = pixels(scaled_crops(images, rows, places, crop, BLACK))
        for b, row in enumerate(rows.tolist()):
            side, y, x = int(places.side[b]), int(places.y[b]), int(places.x[b])
            height, width = rescaled_shapes(images.shapes[[row]], side)[0].tolist()
            expected = pillow(images[row], height, width)[y : y + crop, x : x + crop]
            expected = expected[:, ::-1] if places.flip[b] else expected
            assert np.abs(ours[b] - expected).max() < 1e-3


def test_at_its_own_size_a_crop_is_a_slice_and_squares_are_rectangles() -> None:
    squares = np.random.default_rng(0).integers(0, 256, (3, 20, 20, 3), dtype=np.uint8)
    places = Places(*torch.tensor([[20, 20, 20], [0, 3, 8], [8, 1, 0], [0, 1, 0]]))
    ours = pixels(scaled_crops(squares, np.array([2, 0, 1]), places, 12, BLACK))
    assert np.array_equal(ours[0], squares[2, 0:12, 8:20])
    assert np.array_equal(ours[1], squares[0, 3:15, 1:13][:, ::-1])
    assert np.array_equal(ours[2], squares[1, 8:20, 0:12])


def test_the_colour_is_subtracted_and_the_rest_scaled() -> None:
    images, colour = pack(SHAPES), torch.tensor([100.0, 50.0, 25.0])
    rows, places = np.arange(5), draw_places(pack(SHAPES).shapes, (30, 50), 20, torch.Generator().manual_seed(0))
    plain = scaled_crops(images, rows, places, 20, BLACK)
    moved = scaled_crops(images, rows, places, 20, colour, torch.tensor([0.5, 1.0, 2.0]))
    expected = (plain - colour.view(1, 3, 1, 1)) * torch.tensor([0.5, 1.0, 2.0]).view(1, 3, 1, 1)
    assert torch.allclose(moved, expected, atol=1e-4)
    assert moved.is_contiguous(memory_format=torch.channels_last)


def test_parts_of_a_batch_precision_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images, rows = pack(SHAPES), np.arange(5)
    places = draw_places(images.shapes, (30, 50), 20, torch.Generator().manual_seed(0))
    whole = scaled_crops(images, rows, places, 20, BLACK)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(scaled_crops(images, rows, places, 20, BLACK), whole)
    monkeypatch.setattr("zfrepro.data.rescaling.FLOATS", 1)
    assert torch.allclose(scaled_crops(images, rows, places, 20, BLACK), whole, atol=1e-4)
    alone = torch.cat([scaled_crops(images, rows[b : b + 1], places[b : b + 1], 20, BLACK) for b in range(5)])
    assert torch.allclose(alone, whole, atol=1e-4)


def test_only_what_a_crop_shows_is_read() -> None:
    images = pack(((400, 600),))
    places = Places(*torch.tensor([[100], [50], [120], [0]]))  # a quarter of the size
    regions = read_crops(images, np.array([0]), places, 10)
    assert regions.pixels.shape[1:3] <= (10 * 4 + 8, 10 * 4 + 8)
    assert resample(regions, BLACK).shape == (1, 3, 10, 10)


def test_places_are_uniform_and_inside() -> None:
    shapes = np.tile([[40, 60]], (6000, 1))
    places = draw_places(shapes, (10, 12), 8, torch.Generator().manual_seed(0))
    for side in (10, 11, 12):
        chosen = places.side == side
        assert abs(int(chosen.sum()) - 2000) < 150
        for place, length in ((places.y, side), (places.x, side * 60 // 40)):
            values, counts = place[chosen].unique(return_counts=True)
            assert values.tolist() == list(range(length - 8 + 1))
            assert counts.min() > 0.75 * int(chosen.sum()) / len(values)
    assert abs(int(places.flip.sum()) - 3000) < 150
    assert draw_places(shapes, (10, 12), 8, torch.Generator(), flip=False).flip.sum() == 0
    one = draw_places(shapes[:10], (10, 12), 8, torch.Generator().manual_seed(5))
    two = draw_places(np.concatenate([[[60, 40]] * 3, shapes[3:10]]), (10, 12), 8, torch.Generator().manual_seed(5))
    assert torch.equal(one.side, two.side) and torch.equal(one.x[3:], two.x[3:])  # others' shapes do not matter
    with pytest.raises(UserError, match="train_scale=7"):
        draw_places(shapes, (7, 12), 8, torch.Generator())


def test_batches_of_one_shape() -> None:
    images = pack(((20, 30), (40, 60), (30, 20), (20, 31), (10, 15), (20, 30)))
    rows = np.arange(6)
    assert [batch.tolist() for batch in by_shape(images, rows, 10, 330)] == [[0, 1], [3, 4], [5], [2]]
    for batch in by_shape(images, rows, 10, 330):
        assert 1 <= len(batch) <= 2 and len({tuple(s) for s in rescaled_shapes(images.shapes[batch], 10).tolist()}) == 1
    assert [len(batch) for batch in by_shape(images, rows, 10, 1)] == [1] * 6
    with pytest.raises(UserError, match="of one shape"):
        rescaled(images, np.array([0, 2]), 10, BLACK)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_rescales_alike() -> None:
    images, rows = pack(SHAPES), np.arange(5)
    places = draw_places(images.shapes, (30, 50), 20, torch.Generator().manual_seed(0))
    there = scaled_crops(images, rows, places, 20, BLACK.cuda())
    assert torch.allclose(there.cpu(), scaled_crops(images, rows, places, 20, BLACK), atol=1e-2)
    assert there.is_contiguous(memory_format=torch.channels_last)
