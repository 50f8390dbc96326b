"""Top-1 and top-5 errors by hand, ten crops by a loop."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from zfrepro.evaluator.errors import softmax_outputs, top_errors
from zfrepro.options.commands import EvaluateConfig
from zfrepro.run import open_run


def test_top_errors_by_hand() -> None:
    probabilities = np.array(
        [
            [0.40, 0.30, 0.10, 0.10, 0.06, 0.04],  # class 0: right
            [0.40, 0.30, 0.10, 0.10, 0.06, 0.04],  # class 1: second
            [0.40, 0.30, 0.10, 0.10, 0.06, 0.04],  # class 5: sixth, wrong twice
            [0.20, 0.20, 0.20, 0.20, 0.10, 0.10],  # class 3 ties with class 0, which comes first
        ]
    )
    assert top_errors(probabilities, np.array([0, 1, 5, 3])) == pytest.approx((75.0, 25.0))


def test_fewer_than_five_classes() -> None:
    assert top_errors(np.array([[0.1, 0.9]]), np.array([0])) == pytest.approx((100.0, 0.0))


def test_ten_crops_by_a_loop(tiny_run) -> None:  # type: ignore[no-untyped-def]
    run = open_run(EvaluateConfig(run="tiny", outputs=str(tiny_run), precision="fp32"))
    packed = dataclasses.replace(run.data, val=dataclasses.replace(run.data.val, images=run.data.val.images[:3]))
    run.__dict__["data"] = packed
    outputs = softmax_outputs(run, 20)
    size, crop = run.mean.shape[0], run.network.input_size
    last, middle = size - crop, (size - crop) // 2
    for index in range(3):
        image = (torch.from_numpy(packed.val.images[index]).float() - run.mean) * run.scale
        softmaxes = []
        for y, x in [(0, 0), (0, last), (last, 0), (last, last), (middle, middle)]:
            part = image[y : y + crop, x : x + crop].permute(2, 0, 1)[None]
            softmaxes += [run.network(part).softmax(1), run.network(part.flip(3)).softmax(1)]
        assert np.allclose(outputs[1, index], torch.cat(softmaxes).mean(0), atol=1e-5)
        assert np.allclose(outputs[0, index], softmaxes[8][0], atol=1e-5)
