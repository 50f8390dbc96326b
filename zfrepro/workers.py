"""Trainings side by side: processes of one thread each do twice the work of one training with all the threads.

A worker ends with its parent, however that ends; a training that is told to stop saves first. This file loads no torch, which
takes seconds: a worker looks for its parent before.
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
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, TypeVar

import psutil
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from zfrepro.errors import WINDOWS, UserError

GOES_ON = "the same command (without resume=false) goes on from here"


class Interrupted(Exception):
    """A signal asked us to stop; everything is saved. `status`: the exit status that shells expect."""

    def __init__(self, number: int) -> None:
        self.number, self.status = number, 128 + number
        super().__init__(f"stopped by {signal.Signals(number).name}; {GOES_ON}")

    def __reduce__(self) -> tuple[type[Interrupted], tuple[int]]:
        return Interrupted, (self.number,)


# The terminal was closed; a batch system warns that the time is nearly over. Of these Windows has Ctrl-Break.
NAMES = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGBREAK")
WARNINGS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
STOPS = (signal.SIGINT, signal.SIGTERM, *WARNINGS)


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect STOPS in a list instead of dying of them; a second Ctrl-C or SIGTERM kills as usual. A terminal that closes may
    tell twice, and a batch system every second."""
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        received.append(number)
        # A worker may be told twice, and is saving already.
        if number not in WARNINGS and multiprocessing.parent_process() is None:
            signal.signal(number, old[number])

    with handling(note, *STOPS) as old:
        yield received


@contextlib.contextmanager
def handling(handler: Any, *numbers: int) -> Iterator[dict[int, Any]]:
    """Another handler of some signals for the block, which is told the former ones. None where this is not the main thread,
    which alone may set one, none in the place of one that was set outside Python, which could not be set again, and none of
    WARNINGS that somebody else handles, as submitit does, or ignores, as `nohup` does."""
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        formers = {number: signal.getsignal(number) for number in numbers}
        before = {
            number: former
            for number, former in formers.items()
            if former is not None and (number not in WARNINGS or former is signal.SIG_DFL or _is_ours(former))
        }
    for number in before:
        signal.signal(number, handler)
    try:
        yield before
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def _is_ours(handler: Any) -> bool:
    return getattr(handler, "__module__", "") == __name__


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Processes that are begun in the block never hear of the terminal: their parent tells them what to do. This one does
    after it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [number for number in STOPS if number != signal.SIGTERM])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


Result = TypeVar("Result")

MOST = 4  # trainings at once unless told otherwise: each holds a network, its momentum and a batch's activations
MOST_ON_WINDOWS = 61  # processes of a pool, which refuses more there


def cpus() -> int:
    """CPUs that this process may use: of its affinity, and of its container's quota."""
    from joblib import cpu_count

    return int(cpu_count())


def at_once(count: int) -> int:
    """So many processes, or as many as Windows lets one wait for; one where there are no semaphores to share, as in
    containers without /dev/shm."""
    try:
        multiprocessing.Lock()
    except (OSError, ImportError):
        return 1
    return min(count, MOST_ON_WINDOWS) if WINDOWS else count


def in_parallel(
    tasks: Sequence[Callable[[], Result]],
    logs: Sequence[Path],
    workers: int,
    device: str,
    what: str,
    heard: Callable[[Result], object] = lambda result: None,
) -> list[Result]:
    """The results of tasks in the order in which they come; `heard` is called with each then. What task i prints goes to
    `logs[i]`.

    workers: how many at once; 0: on a GPU one, on the CPU one for each, at most 4. One at a time run in this process and
    print to the terminal; others must be picklable. The first exception, of a task or of `heard`, stops all of them and is
    raised: no worker is left when this returns, however it does.
    """
    results: list[Result] = []

    def note(result: Result) -> None:
        results.append(result)
        heard(result)

    count = at_once(min(len(tasks), workers or usual_workers(device)))
    if count <= 1:
        for task in tasks:
            note(task())
        return results
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    stop, share = context.Event(), max(1, cpus() // count)
    told = handling(_interrupt, *(number for number in STOPS if number != signal.SIGINT))
    with ProcessPoolExecutor(count, context, _start_training, (os.getpid(), share, stop)) as pool, told:
        try:
            with unheard():
                futures = [pool.submit(_logged, task, log) for task, log in zip(tasks, logs, strict=True)]
            with tqdm(total=len(tasks), desc=f"{what}, {count} at a time", unit="net", disable=None) as bar:
                for future in as_completed(futures):
                    note(future.result())
                    bar.update()
            return results
        except BaseException as error:
            with handling(signal.SIG_IGN, *STOPS):  # the workers come to their end, however often this one is told
                stop.set()  # the pool has handed out more tasks than it has workers
                for child in multiprocessing.active_children():
                    child.terminate()  # a training saves what it has; on Windows it has what it last saved
                pool.shutdown(wait=True, cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                why = "a training process was stopped from outside, perhaps for lack of memory (workers=1 needs less)"
                raise UserError(f"{why}; {GOES_ON}") from error
            raise


def usual_workers(device: str) -> int:
    """How many trainings at once: on a GPU, or within a distributed run, one; on the CPU one for each, at most 4."""
    from zfrepro.devices import resolve_device

    alone = resolve_device(device).type != "cpu" or os.environ.get("WORLD_SIZE", "1") != "1"
    return 1 if alone else min(cpus(), MOST)


def _interrupt(number: int, frame: object) -> None:
    raise Interrupted(number)


# ---------------------------------------------------------------------------------------------------- in the workers

_stop: Event | None = None  # set: take up no further task


def _start_training(parent: int, threads: int, stop: Event) -> None:
    global _stop
    _stop = stop
    start_worker(parent)
    import torch

    torch.set_num_threads(threads)


def _logged(task: Callable[[], Result], log: Path) -> Result:
    """The task, its output into the log. A worker that was told to stop ends here, past the pool, which would go on."""
    assert _stop is not None
    if _stop.is_set():
        os._exit(1)
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with (
            log.open("a", buffering=1, encoding="utf-8") as file,
            contextlib.redirect_stdout(file),
            contextlib.redirect_stderr(file),
        ):
            return task()
    except Interrupted as error:
        os._exit(error.status)
    finally:
        if _stop.is_set():
            os._exit(1)


def start_worker(parent: int) -> None:
    """Begin a worker process: ignore the terminal, die of SIGTERM, and end with the parent even where that is killed outright.

    NumPy's matrix products keep to one thread: as many as there are CPUs, in every worker, would wait for one another.
    """
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read where the library is loaded from here on
    threadpool_limits(1, user_api="blas")  # where a fork brought it along
    for number in STOPS:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
    with contextlib.suppress(OSError):  # where memory ends, Linux takes a worker, and the parent can say so
        Path("/proc/self/oom_score_adj").write_text("300", encoding="utf-8")

    def watch() -> None:
        while os.getppid() == parent and psutil.pid_exists(parent):  # Windows gives no orphan another parent
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
