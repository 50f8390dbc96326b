"""Trainings side by side: results, logs, failures, and no worker that outlives its parent."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from zfrepro.data.rows import run_tasks
from zfrepro.errors import UserError
from zfrepro.workers import Interrupted, cpus, handling, in_parallel


def squared(number: int) -> tuple[int, int, int, set[int]]:
    """The square; who computed it, and with how many threads of torch and of NumPy's matrix products."""
    import numpy  # noqa: F401
    import torch

    print(f"squaring {number}")
    return number * number, os.getpid(), torch.get_num_threads(), blas_threads()


def blas_threads() -> set[int]:
    """Of the libraries of matrix products that are loaded here."""
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def trained(outputs: Path) -> None:
    """As experiments do it: a training, in a process that has no terminal and is not the first."""
    from conftest import toy_data
    from test_train import toy

    from zfrepro.trainer import train

    train(toy(outputs), toy_data(8, 8))


def refused(number: int) -> None:
    raise UserError(f"{number} is no good")


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_container_s_quota_of_cpus_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight cores are seen, and the time of two may be used: docker run --cpus=2."""
    quota, real, there = "/sys/fs/cgroup/cpu.max", open, os.path.exists
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.setattr("psutil.Process.cpu_affinity", lambda self: list(range(8)))
    monkeypatch.setattr(os.path, "exists", lambda path: path == quota or there(path))
    monkeypatch.setattr(
        "builtins.open", lambda file, *a, **k: io.StringIO("200000 100000") if file == quota else real(file, *a, **k)
    )
    assert cpus() == 2


def test_without_semaphores_one_process_does_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in containers without /dev/shm: each kind of system fails otherwise."""
    for error in (
        OSError(38, "Function not implemented"),
        FileNotFoundError(2, "no /dev/shm"),
        ImportError("no SemLock"),
    ):

        def fail(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("multiprocessing.synchronize.SemLock.__init__", fail)
            tasks = [partial(squared, n) for n in range(3)]
            found = in_parallel(tasks, [tmp_path / "log"] * 3, 3, "cpu", "squaring")  # type: ignore[arg-type]
            assert [(square, pid) for square, pid, *_ in found] == [(n * n, os.getpid()) for n in range(3)]


def test_tasks_run_in_processes_of_their_own_and_print_into_their_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zfrepro.workers.cpus", lambda: 6)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")  # as far as there are CPUs; a suite may run under 1
    logs = [tmp_path / str(number) / "train.log" for number in range(5)]
    tasks = [*(partial(squared, n) for n in range(5)), partial(trained, tmp_path)]
    found = in_parallel(tasks, [*logs, tmp_path / "toy" / "train.log"], 2, "cpu", "squaring and training")  # type: ignore[arg-type]
    found.remove(None)  # type: ignore[arg-type]
    squares, pids, threads, blas = zip(*found)
    assert sorted(squares) == [0, 1, 4, 9, 16]
    assert os.getpid() not in pids and len(set(pids)) <= 2
    assert set(threads) == {3}  # its share of six
    assert set.union(*blas) <= {1}  # they would fight for the CPUs; none: a library that cannot be told
    assert [log.read_text() for log in logs] == [f"squaring {number}\n" for number in range(5)]
    assert "epoch   4/4" in (tmp_path / "toy" / "train.log").read_text()
    assert (tmp_path / "toy" / "train" / "checkpoints" / "last.pt").exists()


def taken_first() -> int:
    """How readily Linux takes this process where memory ends, -1000 to 1000."""
    return int(Path("/proc/self/oom_score_adj").read_text())


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_where_memory_ends_a_worker_is_taken_before_its_parent() -> None:
    """A parent that is left says what to do; killed itself, it could say nothing."""
    assert min(run_tasks([taken_first] * 4, 2)) >= 300


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_process_that_packs_keeps_to_one_thread() -> None:
    """A fork brings along NumPy's matrix products as the parent has them: with two threads here."""
    with threadpool_limits(2, user_api="blas"):
        here, *found = blas_threads(), *run_tasks([blas_threads] * 4, 2)
    assert here <= {2} and set.union(*found) <= {1}  # none: a library that cannot be told


def test_one_at_a_time_stays_in_this_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ((_, pid, *_),) = in_parallel([partial(squared, 3)], [tmp_path / "log"], 0, "cpu", "squaring")
    assert pid == os.getpid() and capsys.readouterr().out == "squaring 3\n" and not (tmp_path / "log").exists()
    assert (
        len({pid for _, pid, *_ in in_parallel([partial(squared, n) for n in (1, 2)], [tmp_path] * 2, 1, "cpu", "")})
        == 1
    )


def test_a_failure_is_raised_and_stops_the_others(tmp_path: Path) -> None:
    tasks = [partial(refused, 1), *[partial(time.sleep, 60)] * 3]
    began = time.monotonic()
    with pytest.raises(UserError, match="1 is no good"):
        list(in_parallel(tasks, [tmp_path / "log"] * 4, 2, "cpu", "failing"))
    assert time.monotonic() - began < 50  # nobody waited for the sleepers


def test_whoever_hears_of_results_can_stop_the_others(tmp_path: Path) -> None:
    def enough(result: tuple[int, int, int, set[int]]) -> None:
        raise UserError(f"{result[0]} is enough")

    tasks = [partial(squared, 3), *[partial(time.sleep, 60)] * 3]
    with pytest.raises(UserError, match="9 is enough"):
        in_parallel(tasks, [tmp_path / "log"] * 4, 2, "cpu", "squaring", enough)
    assert not multiprocessing.active_children()


def test_a_killed_worker_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"perhaps for lack of memory \(workers=1 needs less\)"):
        list(in_parallel([killed, killed], [tmp_path / "log"] * 2, 2, "cpu", "dying"))


def test_a_request_to_stop_travels_between_processes() -> None:
    again = pickle.loads(pickle.dumps(Interrupted(signal.SIGTERM)))
    assert (
        again.status == 143
        and str(again) == "stopped by SIGTERM; the same command (without resume=false) goes on from here"
    )


def test_a_handler_that_was_set_outside_python_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where Python is embedded: it has no name for such a one, and could not set it again."""
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(signal, "getsignal", lambda number: None)
        with handling(signal.SIG_IGN, signal.SIGINT) as former:
            assert former == {}
    assert signal.getsignal(signal.SIGINT) is before


HANGUPS = """
import os, signal, sys
from zfrepro.workers import stop_signals
number = getattr(signal, sys.argv[2])
if sys.argv[1] == "ignored":
    signal.signal(number, signal.SIG_IGN)
if sys.argv[1] == "taken":
    signal.signal(number, lambda number, frame: print("theirs"))
with stop_signals() as told:
    os.kill(os.getpid(), number)
    os.kill(os.getpid(), number)  # the shell tells its jobs, then the kernel tells the terminal's
print(told == [number] * 2)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no such signals here")
@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"])
@pytest.mark.parametrize(
    ("how", "said"), [("heard", ["True"]), ("ignored", ["False"]), ("taken", ["theirs", "theirs", "False"])]
)
def test_a_warning_asks_to_stop(name: str, how: str, said: list[str]) -> None:
    """A terminal closes, but not under `nohup`; a batch system says that the time is nearly over, but to submitit, which then
    gives the job again."""
    done = subprocess.run([sys.executable, "-c", HANGUPS, how, name], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, said)


def test_a_worker_looks_for_its_parent_before_it_loads_torch() -> None:
    code = "import sys, zfrepro.workers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


PARENT = """
import os, sys, time
from functools import partial
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from zfrepro.workers import Interrupted, in_parallel
from test_workers import note_and_sleep
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    tasks = [partial(note_and_sleep, folder / f"pid{n}") for n in range(6)]
    try:
        list(in_parallel(tasks, [folder / "log"] * 6, 2, "cpu", "sleeping"))
    except Interrupted as error:
        sys.exit(error.status)
    except KeyboardInterrupt:
        sys.exit(130)
"""


def note_and_sleep(path: Path) -> None:
    """As a training: SIGTERM is heard, what there is is saved, which takes a moment, and then the work ends."""
    from zfrepro.workers import stop_signals

    with stop_signals() as stopped:
        path.write_text(str(os.getpid()))
        while not stopped:
            time.sleep(0.05)
        time.sleep(1)
        path.with_suffix(".saved").write_text("")
        raise Interrupted(stopped[0])


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGKILL", -9)])
def test_workers_end_with_their_parent(tmp_path: Path, name: str, status: int) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, str(script), str(tmp_path), str(Path(__file__).parent)])
    notes = [tmp_path / f"pid{n}" for n in range(2)]
    wait_until(lambda: all(note.exists() and note.read_text() for note in notes), parent)
    parent.send_signal(getattr(signal, name))
    assert parent.wait(60) == status
    pids = [int(note.read_text()) for note in notes]
    wait_until(lambda: not any(map(alive, pids)))
    assert len(list(tmp_path.glob("pid*.saved"))) == (0 if name == "SIGKILL" else 2)
    saved = list(tmp_path.glob("*.saved"))
    assert len(list(tmp_path.glob("pid*"))) == len(notes) + len(saved)  # no further task was begun


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_impatient_ctrl_c_ends_as_one(tmp_path: Path) -> None:
    """At a terminal everyone hears of it: while the workers begin, and while they save."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    call = [sys.executable, str(script), str(tmp_path), str(Path(__file__).parent)]
    parent = subprocess.Popen(call, start_new_session=True, stderr=subprocess.PIPE, text=True)
    assert parent.stderr is not None
    notes = [tmp_path / f"pid{n}" for n in range(2)]
    wait_until(lambda: all(note.exists() and note.read_text() for note in notes), parent)
    for _ in range(3):
        os.killpg(parent.pid, signal.SIGINT)
        time.sleep(0.2)
    errors = parent.stderr.read()
    assert parent.wait(60) == 130 and "Traceback" not in errors, errors
    assert len(list(tmp_path.glob("pid*.saved"))) == 2


def wait_until(reached: object, process: subprocess.Popen[Any] | None = None) -> None:
    for _ in range(600):
        if reached():  # type: ignore[operator]
            return
        assert process is None or process.poll() is None
        time.sleep(0.1)
    raise AssertionError("waited for a minute")
