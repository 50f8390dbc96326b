"""From packed rows to batches on the device, one batch ahead of the training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from zfrepro.data import Split
from zfrepro.data.transforms import centre_crop, draw_crops, take_crops
from zfrepro.trainer.distributed import Team
from zfrepro.trainer.tasks import Task


def stream_seed(seed: int, *place: int) -> int:
    """A seed for one place of a run (its epoch, its step): randomness is a function of where one is, so that a resumed run
    needs no generator's state."""
    return int(np.random.SeedSequence([seed, *place]).generate_state(1, np.uint64)[0] >> 1)


def epoch_order(rows: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """The training rows in this epoch's order."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


class Feed:
    """Batches of one split: (inputs (b, 3, s, s) float32 channels_last, the task's targets (b, ...)) on the team's device.

    `batch` is the global batch; every process takes its share of it. `below` makes of network inputs what is trained on
    them: the outputs of frozen layers.
    """

    def __init__(
        self,
        split: Split,
        task: Task,
        mean: Tensor,
        scale: Tensor,
        crop: int,
        batch: int,
        team: Team,
        below: Callable[[Tensor], Tensor],
    ) -> None:
        self.split, self.task, self.below = split, task, below
        self.mean, self.scale, self.crop, self.batch, self.team = mean, scale, crop, batch, team

    def _read(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Copy rows out of the memory map (this is where the disk is waited for)."""
        # NumPy, on the reader's one thread: torch would start a second team of threads, which gets in the first one's way.
        images, targets = torch.from_numpy(self.split.images[rows]), self.task.targets(self.split, rows)
        if self.team.device.type == "cuda":
            images, targets = images.pin_memory(), targets.pin_memory()
        return images, targets

    def _ahead(self, batches: list[np.ndarray]) -> Iterator[tuple[Tensor, Tensor]]:
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(self._read, batches[0]) if batches else None
            for number in range(len(batches)):
                assert coming is not None
                images, targets = coming.result()
                if number + 1 < len(batches):
                    coming = reader.submit(self._read, batches[number + 1])
                device = self.team.device
                yield images.to(device, non_blocking=True), targets.to(device, non_blocking=True)

    def training(
        self, rows: np.ndarray, augmentation: str, seed: int, first_step: int, skip: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Full batches of `rows` in their order, randomly cropped and flipped, beginning with batch number `skip`.

        `first_step` is the run's step number at the epoch's first batch.
        """
        share = self.team.share(self.batch)
        steps = len(rows) // self.batch
        batches = [rows[n * self.batch : (n + 1) * self.batch][share] for n in range(skip, steps)]
        for number, (images, targets) in enumerate(self._ahead(batches), start=skip):
            generator = torch.Generator().manual_seed(stream_seed(seed, first_step + number))
            # Drawn for the global batch, so that the crops do not depend on the number of processes.
            drawn = draw_crops(self.batch, images.shape[1], self.crop, augmentation, generator)
            y, x, flip = (values[share].to(images.device) for values in drawn)
            yield self.below(take_crops(images, self.mean, y, x, flip, self.crop, self.scale)), targets

    def centre(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of the first `count` rows, centre-cropped."""
        share = self.team.share(count)
        rows = np.arange(share.start, share.stop)
        batches = [rows[n : n + self.batch] for n in range(0, len(rows), self.batch)]
        for images, targets in self._ahead(batches):
            yield self.below(centre_crop(images, self.mean, self.crop, self.scale)), targets
