"""From packed rows to batches on the device, one batch ahead of the training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zfrepro.data import Split
from zfrepro.data.rescaling import Places
from zfrepro.trainer.distributed import Team
from zfrepro.trainer.tasks import Task
from zfrepro.trainer.views import Pixels, View

KEPT_BYTES = 2 << 30  # of frozen layers' outputs that are kept in memory; more are computed at every visit


def epoch_order(rows: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(rows)


class Batch(NamedTuple):
    """A process's share of a batch, read."""

    pixels: Pixels | None  # None: `kept` has what comes of them
    rows: np.ndarray
    shift: Tensor | None  # (b, 3) added to all pixels of an image
    targets: Tensor


class Feed:
    """Batches of one split: (inputs (b, 3, c, c) float32 channels_last, the task's targets (b, ...)) on the team's device.

    `batch` is the global batch; every process takes its share of it. `below` makes of network inputs what is trained on
    them: the outputs of frozen layers (or, where there are none, the same).
    """

    def __init__(
        self, split: Split, task: Task, view: View, batch: int, team: Team, below: Callable[[Tensor], Tensor]
    ) -> None:
        self.split, self.task, self.view, self.batch, self.team, self.below = split, task, view, batch, team, below
        self.kept: Tensor | None = None  # (N, ...) by row

    def training(self, rows: np.ndarray, seed: int, first_step: int, skip: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Full batches of `rows` in their order, as the view draws them, beginning with batch number `skip`.

        `first_step` is the run's step number at the epoch's first batch.
        """

        def batches() -> Iterator[Batch]:
            share = self.team.share(self.batch)
            for number in range(skip, len(rows) // self.batch):
                # Randomness is a function of where one is, so that a resumed run needs no generator's state.
                place = np.random.SeedSequence([seed, first_step + number]).generate_state(1, np.uint64)
                generator = torch.Generator().manual_seed(int(place[0]) >> 1)
                drawn = rows[number * self.batch : (number + 1) * self.batch]
                # Drawn for the global batch, so that the crops do not depend on the number of processes.
                places, shift = self.view.draw(drawn, generator), self.view.draw_shift(len(drawn), generator)
                choice = torch.rand(len(drawn), generator=generator)
                own = None if shift is None else shift[share]
                yield self._read(drawn[share], places[share], choice[share], own)

        return self._ahead(batches())

    def centre(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of the first `count` rows, centre-cropped."""
        share = self.team.share(count)
        rows = np.arange(share.start, share.stop)
        parts = (rows[n : n + self.batch] for n in range(0, len(rows), self.batch))
        return self._ahead(self._read(part, self.view.centre(part), torch.zeros(len(part))) for part in parts)

    def _read(self, rows: np.ndarray, places: Places, choice: Tensor, shift: Tensor | None = None) -> Batch:
        """choice: (b,) in [0, 1), see `Task.seen`."""
        crops = self.view.crops(rows, places)
        targets = self.task.seen(self.task.targets(self.split, rows), crops, places.flip, choice)
        pixels = None if self.kept is not None else self.view.read(rows, places)
        if self.team.device.type == "cuda":
            pixels, targets = pixels and pixels.pinned(), targets.pin_memory()
        return Batch(pixels, rows, shift, targets)

    def keep(self, rows: np.ndarray) -> None:
        """Compute what frozen layers make of the centre crops of some rows once, and feed that, if it fits into memory."""
        kept: Tensor | None = None
        for part in np.array_split(rows, max(1, len(rows) // self.batch)):
            made = self._below(Batch(self.view.read(part, self.view.centre(part)), part, None, torch.empty(0)))
            if kept is None:
                if made[0].nbytes * len(self.split) > KEPT_BYTES:
                    return
                kept = torch.empty((len(self.split), *made.shape[1:]), dtype=made.dtype)
            kept[torch.from_numpy(part)] = made.cpu()
        self.kept = kept

    def _below(self, batch: Batch) -> Tensor:
        device = self.team.device
        if batch.pixels is None:
            assert self.kept is not None
            kept = self.kept[torch.from_numpy(batch.rows)].to(device, non_blocking=True)
            return kept.contiguous(memory_format=torch.channels_last) if kept.ndim == 4 else kept
        shift = None if batch.shift is None else batch.shift.to(device, non_blocking=True)
        return self.below(self.view.inputs(batch.pixels.to(device), shift))

    def _ahead(self, batches: Iterator[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
        """Batch after batch; while one is computed with, the next is read (this is where the disk is waited for)."""
        # On one thread, with NumPy: torch would start a second team of threads, which gets in the first one's way.
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(next, batches, None)
            while (batch := coming.result()) is not None:
                coming = reader.submit(next, batches, None)
                yield self._below(batch), batch.targets.to(self.team.device, non_blocking=True)
