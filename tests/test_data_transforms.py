"""Crops: every pixel's value says where it came from, so each crop is compared with indices written by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from zfrepro.data import transforms
from zfrepro.data.transforms import centre_crop, crop_positions, draw_crops, take_crops
from zfrepro.errors import UserError

SIZE, CROP = 6, 4
ZERO = torch.zeros(SIZE, SIZE, 3)


def numbered(batch: int = 1) -> Tensor:
    """(B, 6, 6, 3) uint8: 10 * y + x in red, the image's number in green, 7 in blue."""
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    images = [torch.stack([10 * y + x, torch.full_like(x, b), torch.full_like(x, 7)], 2) for b in range(batch)]
    return torch.stack(images).to(torch.uint8)


def ten_crops(images: Tensor, mean: Tensor, crop: int, scale: float = 1.0) -> Tensor:
    """(10, 3, c, c): all crops of one image (1, S, S, 3)."""
    y, x, flip = crop_positions(images.shape[1], crop).T
    return take_crops(images.expand(10, -1, -1, -1), mean, y, x, flip, crop, scale)


def test_ten_crops_are_the_corners_and_the_centre_and_their_mirror_images() -> None:
    expected = [[0, 0, 0], [0, 2, 0], [2, 0, 0], [2, 2, 0], [1, 1, 0]]
    expected += [[0, 0, 1], [0, 2, 1], [2, 0, 1], [2, 2, 1], [1, 1, 1]]
    assert crop_positions(SIZE, CROP).tolist() == expected
    red = ten_crops(numbered(), ZERO, CROP)[:, 0]
    assert red[0].tolist() == [[0, 1, 2, 3], [10, 11, 12, 13], [20, 21, 22, 23], [30, 31, 32, 33]]
    assert red[1, 0].tolist() == [2, 3, 4, 5]
    assert red[2, 0].tolist() == [20, 21, 22, 23]
    assert red[3, -1].tolist() == [52, 53, 54, 55]
    assert red[4, 0].tolist() == [11, 12, 13, 14]
    assert red[5, 0].tolist() == [3, 2, 1, 0]
    assert red[9].tolist() == [[14, 13, 12, 11], [24, 23, 22, 21], [34, 33, 32, 31], [44, 43, 42, 41]]


def test_colours_stay_in_place_and_images_apart() -> None:
    crops = take_crops(numbered(3), ZERO, *torch.tensor([[0, 1, 2], [2, 1, 0], [1, 0, 1]]), CROP)
    assert crops.shape == (3, 3, CROP, CROP)
    assert crops.is_contiguous(memory_format=torch.channels_last)
    assert crops[:, 1].unique(dim=0)[:, 0, 0].tolist() == [0, 1, 2]
    assert crops[:, 2].unique().tolist() == [7]
    assert crops[:, 0, 0].tolist() == [[5, 4, 3, 2], [11, 12, 13, 14], [23, 22, 21, 20]]


def test_the_mean_is_subtracted_at_the_images_own_place() -> None:
    mean = numbered()[0].float()  # equal to the image: whatever the crop, nothing is left
    for crops in (ten_crops(numbered(), mean, CROP), centre_crop(numbered(), mean, CROP)):
        assert crops.abs().max() == 0


def test_all_implementations_agree() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (10, 9, 9, 3), dtype=torch.uint8, generator=generator)
    mean = torch.rand(9, 9, 3, generator=generator) * 255
    y, x, flip = crop_positions(9, 5).T
    by_row = take_crops(images, mean, y, x, flip, 5, scale=0.1)
    by_index = transforms._take_by_index(images, mean, y, x, flip, 5).mul(0.1).permute(0, 3, 1, 2)
    assert torch.equal(by_row, by_index)
    assert torch.equal(centre_crop(images, mean, 5, 0.1)[4], by_row[4])
    assert torch.equal(centre_crop(images[:1], mean, 5, 0.1)[0], ten_crops(images[:1], mean, 5, 0.1)[4])


def test_scale_may_be_a_factor_per_colour() -> None:
    factors = torch.tensor([1.0, 2.0, 3.0])
    plain, scaled = (centre_crop(numbered(), ZERO, CROP, scale) for scale in (1.0, factors))
    assert torch.equal(scaled, plain * factors.view(1, 3, 1, 1))


def test_drawn_crops_repeat_with_the_seed_and_cover_their_range() -> None:
    y, x, flip = draw_crops(4000, SIZE, CROP, "random_crop", torch.Generator().manual_seed(1))
    assert len(torch.stack([y, x, flip], 1).unique(dim=0)) == 3 * 3 * 2
    drawn = torch.stack(draw_crops(4000, SIZE, CROP, "ten_crop", torch.Generator().manual_seed(1)), 1)
    places, counts = drawn.unique(dim=0, return_counts=True)
    assert sorted(places.tolist()) == sorted(crop_positions(SIZE, CROP).tolist())
    assert counts.min() > 300
    again = torch.stack(draw_crops(4000, SIZE, CROP, "ten_crop", torch.Generator().manual_seed(1)), 1)
    assert torch.equal(drawn, again)


def test_images_are_not_written_to() -> None:
    images, before = numbered(2), numbered(2)
    take_crops(images, ZERO, *torch.tensor([[0, 1], [2, 0], [1, 0]]), CROP, 0.5)
    centre_crop(images, ZERO, CROP, 0.5)
    assert torch.equal(images, before)


def test_a_crop_as_large_as_the_image_and_one_larger() -> None:
    assert crop_positions(4, 4)[:, :2].abs().max() == 0
    with pytest.raises(UserError, match=r"model\.input_size=7"):
        crop_positions(6, 7)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_takes_the_same_crops() -> None:
    images = torch.randint(256, (16, 9, 9, 3), dtype=torch.uint8)
    mean = torch.rand(9, 9, 3) * 255
    place = draw_crops(16, 9, 5, "random_crop", torch.Generator().manual_seed(0))
    here = take_crops(images, mean, *place, 5, 0.1)
    there = take_crops(images.cuda(), mean.cuda(), *place, 5, 0.1)
    assert torch.equal(here, there.cpu())
    assert there.is_contiguous(memory_format=torch.channels_last)
