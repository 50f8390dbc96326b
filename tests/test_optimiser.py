"""SGD, filter renormalisation and annealing against hand-computed values."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import composed, small_table, toy_data, toy_table

from zfrepro.options.commands import TrainConfig
from zfrepro.trainer.distributed import Team
from zfrepro.trainer.optimiser import LearningRate, renormalise
from zfrepro.trainer.tasks import Classification
from zfrepro.trainer.train import Training


def config(**options: object) -> TrainConfig:
    base = TrainConfig(run="r", preset="demo", epochs=10, batch_size=4, lr=0.1, precision="fp32")
    return dataclasses.replace(base, **options)  # type: ignore[arg-type]


def preset(name: str, *overrides: str) -> TrainConfig:
    return composed("train", TrainConfig, f"preset={name}", "data.root=/nowhere", *overrides)


def test_the_papers_recipe_to_the_letter() -> None:
    """ZFNet, section 3: batches of 128, momentum 0.9, lr 0.01, filters of RMS 0.1, weights N(0, 0.01), 70 epochs, ten crops."""
    c = preset("paper")
    assert (c.batch_size, c.momentum, c.lr, c.renorm_radius, c.init, c.epochs) == (128, 0.9, 0.01, 0.1, "paper", 70)
    assert (c.schedule, c.augmentation, c.data.size, c.model.input_size) == ("plateau", "ten_crop", 256, 224)
    assert (c.weight_decay, c.input_scale, c.warmup_steps) == (5e-4, 1.0, 0)
    assert [layer.dropout for layer in c.model.layers[-2:]] == [0.5, 0.5]


def test_vggs_recipe_to_the_letter() -> None:
    """VGG, section 3.1: batches of 256, momentum 0.9, decay 5e-4, lr 0.01 divided three times, 74 epochs, S = 256."""
    c = preset("vgg")
    assert (c.batch_size, c.momentum, c.weight_decay, c.lr, c.divisions, c.epochs) == (256, 0.9, 5e-4, 0.01, 3, 74)
    assert (c.schedule, c.augmentation, c.train_scale, c.model.input_size) == ("plateau", "random_crop", [256], 224)
    assert (c.data.fit, c.subtract, c.colour_shift, c.input_scale, c.init) == ("whole", "colour", 0.1, 1.0, "paper")
    assert c.renorm_radius is None and [layer.dropout for layer in c.model.layers[-2:]] == [0.5, 0.5]
    assert round(c.epochs * 1_281_167 / c.batch_size, -4) == 370_000


def test_three_updates_by_hand(tmp_path: Path) -> None:
    """Soft-max regression through one ReLU layer, its gradient and SGD with momentum and decay written out in float64:
    v <- 0.9 v + g + decay w; w <- w - lr v."""
    data = toy_data(12, size=8)
    table = toy_table(8, units=5)
    made = config(model=table, outputs=str(tmp_path), momentum=0.9, weight_decay=0.05, init="he", renorm_radius=None)
    training = Training(made, Team(0, 1, torch.device("cpu")), data, Classification(data))
    network = training.network
    w1, w2 = (network.weights[n].weight.detach().double().numpy().reshape(-1, k) for n, k in (("1", 192), ("2", 5)))
    w1, w2, b1, b2 = w1.copy(), w2.copy(), np.zeros(5), np.zeros(3)
    speeds = [np.zeros_like(w) for w in (w1, b1, w2, b2)]
    rng = np.random.default_rng(0)
    for step in range(3):
        x, labels = rng.normal(size=(4, 3, 8, 8)), rng.integers(0, 3, 4)
        training.update(torch.from_numpy(x).float(), torch.from_numpy(labels), step)
        flat = x.reshape(4, -1)
        before = flat @ w1.T + b1
        hidden = np.maximum(before, 0)
        scores = hidden @ w2.T + b2
        p = np.exp(scores - scores.max(1, keepdims=True))
        wrong = (p / p.sum(1, keepdims=True) - np.eye(3)[labels]) / 4
        down = wrong @ w2 * (before > 0)
        gradients = [down.T @ flat, down.sum(0), wrong.T @ hidden, wrong.sum(0)]
        for w, v, g in zip((w1, b1, w2, b2), speeds, gradients):
            v[:] = 0.9 * v + g + 0.05 * w
            w -= 0.1 * v
    for number, w, b in (("1", w1, b1), ("2", w2, b2)):
        module = network.weights[number]
        np.testing.assert_allclose(module.weight.detach().numpy().reshape(w.shape), w, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(module.bias.detach().numpy(), b, rtol=1e-4, atol=1e-5)


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


def test_renormalisation_is_for_convolutional_filters_alone(tmp_path: Path) -> None:
    """ZFNet, section 3: "each filter in the convolutional layers". After an update all else is as without it, bit for bit: all
    biases, and the weights of the fully connected layer and of the softmax layer, whose RMS is above the radius too."""
    data, radius = toy_data(12, size=31), 0.02
    inputs, labels = torch.randn(4, 3, 31, 31, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0])
    after = []
    for given in (None, radius):
        made = config(model=small_table(), outputs=str(tmp_path), init="he_all", renorm_radius=given)
        training = Training(made, Team(0, 1, torch.device("cpu")), data, Classification(data))
        training.update(inputs, labels, 0)
        after.append(training.network.state_dict())
    for name, plain in after[0].items():
        rms = plain.flatten(1).square().mean(1).sqrt() if plain.ndim > 1 else plain.abs()
        assert rms.max() > (radius if plain.ndim > 1 else 0), name
        factor = (radius / rms).clamp(max=1).view(-1, 1, 1, 1) if plain.ndim == 4 else 1
        torch.testing.assert_close(
            after[1][name], plain * factor, **({} if plain.ndim == 4 else {"rtol": 0, "atol": 0})
        )


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


def test_a_plateau_after_the_last_division_ends_the_training() -> None:
    """VGG: three divisions, and no fourth. A new best error in between starts the count again."""
    rate = LearningRate(config(patience=2, divisions=3), total_steps=100)
    rates = []
    for error in (50, 51, 50, 49, 50, 50, 50, 50, 48, 49):
        rate.epoch_ended(error)
        rates.append(round(rate.at(50), 6))
    assert rates == [0.1, 0.1, 0.01, 0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001, 0.0001] and not rate.ended
    again = LearningRate(config(patience=2, divisions=3), total_steps=100)
    again.restore(rate.state())
    for one in (rate, again):
        one.epoch_ended(48)
        assert one.ended and one.at(60) == pytest.approx(0.0001)
    forever = LearningRate(config(patience=2), total_steps=100)
    for _ in range(20):
        forever.epoch_ended(50)
    assert not forever.ended and forever.at(60) < 1e-6


def test_warm_up_and_cosine() -> None:
    rate = LearningRate(config(schedule="cosine", warmup_steps=4), total_steps=104)
    assert [rate.at(step) for step in range(4)] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert rate.at(54) == pytest.approx(0.05)
    assert rate.at(104) == pytest.approx(0.0, abs=1e-12)


def test_a_very_long_training_resumes() -> None:
    """Also where the plateau's factor, which cosine does not use, has become 0."""
    long = LearningRate(config(patience=1, schedule="cosine"), 1000)
    for _ in range(400):
        long.epoch_ended(50.0)
    again = LearningRate(long.config, 1000)
    again.restore(long.state())
    assert again == long and again.at(0) == pytest.approx(0.1)


def test_schedule_resumes() -> None:
    whole = LearningRate(config(patience=2), 100)
    for error in (50.0, 51.0):
        whole.epoch_ended(error)
    half = LearningRate(config(patience=2), 100)
    half.restore(whole.state())
    for error in (52.0, 49.0, 53.0):
        assert whole.epoch_ended(error) == half.epoch_ended(error)
    assert whole == half
