"""Filter renormalisation and the learning rate (paper, section 3)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zfrepro.options.commands import TrainConfig


@torch.no_grad()
def renormalise(filters: Tensor, radius: float) -> Tensor:
    """Scale every filter whose root mean square exceeds `radius` back to it, in place; leave the others untouched.

    filters: (out_maps, in_maps, k, k); the RMS is taken over in_maps x k x k. Returns how many were scaled, () int64, on
    the filters' device (no synchronisation).
    """
    rms = filters.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    over = rms > radius
    filters.mul_(torch.where(over, radius / rms, torch.ones_like(rms)))
    return over.sum()


def restore_momentum(optimiser: torch.optim.SGD, state: dict[int, dict[str, Tensor | None]]) -> None:
    """Take up the momentum of an optimiser's `state_dict()["state"]`; the rest is the config's.

    Raises ValueError (or what Python does) where it is not the momentum of these weights.
    """
    weights = [one for group in optimiser.param_groups for one in group["params"]]
    for number, saved in state.items():
        buffer = saved["momentum_buffer"]
        if buffer is not None and (buffer.shape != weights[number].shape or not bool(buffer.isfinite().all())):
            raise ValueError(f"momentum of weights {number}")
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


@dataclass
class LearningRate:
    """The learning rate of every step, in [0, config.lr].

    plateau: divided by 10 after `patience` epochs without a lower validation error (the paper: "when the validation error
    plateaus"); training has ended where that would come once more after `divisions`. cosine: falls to 0 over the run. Both
    rise linearly over the first `warmup_steps`.
    """

    config: TrainConfig
    total_steps: int
    factor: float = 1.0
    best_error: float = math.inf
    bad_epochs: int = 0

    def at(self, step: int) -> float:
        """The learning rate of update number `step`, counted from 0."""
        c = self.config
        warm = min(1.0, (step + 1) / c.warmup_steps) if c.warmup_steps else 1.0
        if c.schedule == "plateau":
            return c.lr * warm * self.factor
        done = max(0, step - c.warmup_steps) / max(1, self.total_steps - c.warmup_steps)
        return c.lr * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    @property
    def divided(self) -> int:
        """How often the plateau's rate was divided."""
        return round(-math.log10(self.factor))

    @property
    def ended(self) -> bool:
        """Whether the error has stopped falling after the last division (VGG, section 3.1: three)."""
        most = self.config.divisions if self.config.schedule == "plateau" else None
        return most is not None and self.divided >= most and self.bad_epochs >= self.config.patience

    def epoch_ended(self, error: float) -> bool:
        """Take an epoch's validation error; True if it is the best so far."""
        if error < self.best_error:
            self.best_error, self.bad_epochs = error, 0
            return True
        self.bad_epochs += 1
        if self.bad_epochs >= self.config.patience and not self.ended:
            self.factor, self.bad_epochs = self.factor / 10, 0
        return False

    def state(self) -> dict[str, float]:
        return {"factor": self.factor, "best_error": self.best_error, "bad_epochs": self.bad_epochs}

    def restore(self, state: dict[str, float]) -> None:
        if not 0 <= state["factor"] <= 1:
            raise ValueError("factor of the learning rate")
        self.factor, self.best_error = float(state["factor"]), float(state["best_error"])
        self.bad_epochs = int(state["bad_epochs"])
