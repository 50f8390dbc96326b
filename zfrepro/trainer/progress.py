"""Where a training stands: what has to be remembered from one step to the next, and over an interruption."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from zfrepro.trainer.distributed import Team


@dataclass
class Tally:
    """This process's sums over the steps of an epoch so far."""

    loss: Tensor  # () float64
    wrong: Tensor  # () int64
    images: int = 0
    seconds: float = 0.0
    renormalised: dict[str, Tensor] = field(default_factory=dict)  # layer -> () int64

    @classmethod
    def empty(cls, device: torch.device, layers: list[int]) -> Tally:
        zero = torch.zeros((), dtype=torch.int64, device=device)
        return cls(zero.double(), zero.clone(), renormalised={str(layer): zero.clone() for layer in layers})

    def add(self, loss: Tensor, wrong: Tensor, images: int) -> None:
        """Take in a batch: its mean loss, its wrong images. No synchronisation."""
        self.loss += loss.detach().double() * images
        self.wrong += wrong
        self.images += images


@dataclass(frozen=True)
class Totals:
    """An epoch's sums over all processes, the same on each of them."""

    loss: float
    wrong: float
    images: float
    told: bool  # any process was told to stop

    @classmethod
    def of(cls, tally: Tally, team: Team, told: bool = False) -> Totals:
        """Waits for the device and for the other processes, which must ask as well."""
        own = torch.tensor([tally.images, told], dtype=torch.float64, device=tally.loss.device)
        loss, wrong, images, any_told = team.sum(
            torch.cat([torch.stack([tally.loss, tally.wrong.double()]), own])
        ).tolist()
        return cls(loss, wrong, images, any_told > 0)


@dataclass
class Progress:
    """The place in a training, and what was measured on the way there."""

    tally: Tally
    epoch: int = 0  # finished epochs
    step: int = 0  # updates within the current one
    seconds: float = 0.0  # of training in the finished epochs, over all resumes
    metrics: list[dict[str, Any]] = field(default_factory=list)  # the lines of metrics.jsonl

    def state(self, totals: Totals) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,
            "tally": {
                "sums": [totals.loss, totals.wrong, totals.images],
                "seconds": self.tally.seconds,
                "renormalised": {layer: int(n) for layer, n in self.tally.renormalised.items()},
            },
            "metrics": self.metrics,
        }

    def restore(self, state: dict[str, Any], leads: bool) -> None:
        """Take up `state` again; the sums of all processes go on in the one that leads."""
        self.epoch, self.step, self.seconds = int(state["epoch"]), int(state["step"]), float(state["seconds"])
        self.metrics, saved = [dict(line) for line in state["metrics"]], state["tally"]
        loss, wrong, images = map(float, saved["sums"])
        if self.epoch < 0 or self.step < 0 or len(self.metrics) != self.epoch:
            raise ValueError("no place in a training")
        if leads:
            self.tally.loss += loss
            self.tally.wrong += int(wrong)
            self.tally.images += int(images)
        self.tally.seconds = float(saved["seconds"])
        for layer, count in saved["renormalised"].items():
            self.tally.renormalised[layer] += count
