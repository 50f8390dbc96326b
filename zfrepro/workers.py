"""Trainings side by side: processes of one thread each do twice the work of one training with all the threads.

A worker ends with its parent, however that ends; a training that is told to stop saves first.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from zfrepro.config import UserError, resolve_device


class Interrupted(Exception):
    """A signal asked us to stop; everything is saved. `status`: the exit status that shells expect."""

    def __init__(self, number: int) -> None:
        self.number, self.status = number, 128 + number
        super().__init__(f"stopped by {signal.Signals(number).name}; the same command goes on from here")

    def __reduce__(self) -> tuple[type[Interrupted], tuple[int]]:
        return Interrupted, (self.number,)


Result = TypeVar("Result")

MOST = 4  # trainings at once unless told otherwise: each holds a network, its momentum and a batch's activations


def cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_parallel(
    tasks: Sequence[Callable[[], Result]], logs: Sequence[Path], workers: int, device: str, what: str
) -> Iterator[Result]:
    """The results of tasks as they come. What task i prints goes to `logs[i]`.

    workers: how many at once; 0: on a GPU one, on the CPU one for each, at most 4. One at a time run in this process and
    print to the terminal; others must be picklable. The first exception of a task stops all of them and is raised.
    """
    count = min(len(tasks), workers or (1 if resolve_device(device).type != "cpu" else min(cpus(), MOST)))
    if count <= 1:
        yield from (task() for task in tasks)
        return
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    share = max(1, cpus() // count)
    with ProcessPoolExecutor(count, context, start_worker, (os.getpid(), share)) as pool:
        futures = [pool.submit(_logged, task, log) for task, log in zip(tasks, logs, strict=True)]
        before = signal.signal(signal.SIGTERM, _interrupt)
        try:
            with tqdm(total=len(tasks), desc=f"{what}, {count} at a time", unit="net", disable=None) as bar:
                for future in as_completed(futures):
                    yield future.result()
                    bar.update()
        except BrokenProcessPool as error:
            why = "a training process was killed, perhaps for lack of memory: give workers=1"
            raise UserError(f"stopped: {why}; the same command goes on from here") from error
        except BaseException:
            for child in multiprocessing.active_children():
                child.terminate()  # a training saves what it has
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: object) -> None:
    raise Interrupted(number)


def _logged(task: Callable[[], Result], log: Path) -> Result:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        return task()


def start_worker(parent: int, threads: int | None = None) -> None:
    """Begin a worker process: leave Ctrl-C and SIGTERM to the parent, and end with it even where it is killed outright.

    threads: how many torch may use; None: torch is not used.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
