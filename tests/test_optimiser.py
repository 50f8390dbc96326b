"""Filter renormalisation and annealing against hand-computed values."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from zfrepro.options.commands import TrainConfig
from zfrepro.trainer.optimiser import LearningRate, renormalise


def config(**options: object) -> TrainConfig:
    base = TrainConfig(run="r", preset="demo", epochs=10, batch_size=4, lr=0.1)
    return dataclasses.replace(base, **options)  # type: ignore[arg-type]


def test_renormalise_by_hand() -> None:
    """One filter of RMS 0.2 (scaled), one of exactly 0.1 and one below (untouched to the bit), one all zero."""
    filters = torch.zeros(4, 2, 3, 3)
    filters[0] = 0.2
    filters[1] = 0.125
    filters[2, 0, 0, 0] = 0.01
    before = filters.clone()
    scaled = renormalise(filters, 0.125)
    assert int(scaled) == 1
    assert torch.allclose(filters[0], torch.full((2, 3, 3), 0.125))
    assert torch.equal(filters[1:], before[1:])


def test_rms_is_over_maps_and_kernel_not_the_norm() -> None:
    """A large filter whose norm is far above the radius, its RMS below: untouched."""
    filters = torch.full((1, 96, 5, 5), 0.09)
    assert filters.norm() > 4
    assert int(renormalise(filters, 0.1)) == 0 and torch.equal(filters, torch.full((1, 96, 5, 5), 0.09))


@pytest.mark.parametrize("shape", [(7, 3, 7, 7), (5, 1, 1, 1), (3, 4, 2, 3)])
def test_renormalise_against_a_loop(shape: tuple[int, ...]) -> None:
    filters = torch.randn(*shape, generator=torch.Generator().manual_seed(0)).double() * 0.15
    expected, count = filters.clone(), 0
    for index in range(shape[0]):
        rms = float((expected[index] ** 2).mean()) ** 0.5
        if rms > 0.1:
            expected[index] *= 0.1 / rms
            count += 1
    assert count > 0
    assert int(renormalise(filters, 0.1)) == count
    assert torch.allclose(filters, expected, rtol=1e-12)


def test_plateau_divides_by_ten() -> None:
    rate = LearningRate(config(patience=2), total_steps=100)
    assert [rate.epoch_ended(e) for e in (50, 40, 41)] == [True, True, False]
    assert rate.at(30) == pytest.approx(0.1)
    rate.epoch_ended(40)  # not lower: the second bad epoch
    assert rate.at(40) == pytest.approx(0.01)
    rate.epoch_ended(39)
    rate.epoch_ended(42)
    assert rate.at(60) == pytest.approx(0.01)
    rate.epoch_ended(42)
    assert rate.at(70) == pytest.approx(0.001)


def test_warm_up_and_cosine() -> None:
    rate = LearningRate(config(schedule="cosine", warmup_steps=4), total_steps=104)
    assert [rate.at(step) for step in range(4)] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert rate.at(54) == pytest.approx(0.05)
    assert rate.at(104) == pytest.approx(0.0, abs=1e-12)


def test_schedule_resumes() -> None:
    whole = LearningRate(config(patience=2), 100)
    for error in (50.0, 51.0):
        whole.epoch_ended(error)
    half = LearningRate(config(patience=2), 100)
    half.restore(whole.state())
    for error in (52.0, 49.0, 53.0):
        assert whole.epoch_ended(error) == half.epoch_ended(error)
    assert whole == half
