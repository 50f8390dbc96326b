"""The trainings of an experiment, side by side; one that fails leaves the others alone."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from functools import partial

from tqdm import tqdm

from zfrepro.errors import UserError, line_of, words_of
from zfrepro.options.commands import TrainConfig
from zfrepro.trainer.train import train
from zfrepro.workers import in_parallel


def train_all(runs: Sequence[TrainConfig], workers: int, device: str, debug: bool) -> list[str]:
    """Train what is not trained yet, several at once; return a line for each failure. What a training prints goes to
    `train.log` in its run's folder."""
    tasks = [partial(attempt, run, debug) for run in runs]
    logs = [run.folder / "train.log" for run in runs]

    def say(failure: str | None) -> None:
        if failure:
            tqdm.write(f"failed, the others go on: {failure}")

    return [failure for failure in in_parallel(tasks, logs, workers, device, "training", say) if failure]


def attempt(run: TrainConfig, debug: bool) -> str | None:
    """Train; return a line about the failure if there is one. A request to stop is no failure and goes on upwards."""
    try:
        train(run)
    except Exception as error:
        if hasattr(error, "status"):
            raise
        line = line_of(error)
        if debug or line is None:
            traceback.print_exc()
        return f"{run.run.rpartition('/')[2]} ({line or words_of(error)})"
    return None


def raise_failures(failures: Sequence[str], count: int) -> None:
    """End with status 1 if trainings have failed, after all that could be done is done."""
    if failures:
        error = UserError(f"{len(failures)} of {count} trainings failed: " + "; ".join(failures))
        error.status = 1  # type: ignore[attr-defined]
        raise error
