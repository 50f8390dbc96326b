"""Atomic writes, hostile checkpoints, locks, and an experiment's output."""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import os
import pickle
import platform
import runpy
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from zfrepro import files
from zfrepro.checkpoints import load_checkpoint, save_checkpoint
from zfrepro.errors import UserError, explain_os_error, line_of
from zfrepro.files import atomic_write, digest, lock, machine, pending, read_json, waiting_lock, write_text
from zfrepro.options.commands import EvaluateConfig, TrainConfig
from zfrepro.options.identity import config_hash
from zfrepro.provenance import device_name, git_commit
from zfrepro.results import writing
from zfrepro.trainer import several


def test_atomic_write_keeps_the_old_file_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "value.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_write(path, "w") as file:
        file.write("half of the n")
        raise RuntimeError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["value.txt"]  # noqa: PTH208


def test_full_disk_is_one_line() -> None:
    line = explain_os_error(OSError(errno.ENOSPC, "No space left on device", "outputs/x"))
    assert line.startswith("outputs/x: no space left") and "\n" not in line


def test_failures_of_the_machine_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (
        "could not create a primitive",
        "[enforce fail] DefaultCPUAllocator: can't allocate memory",
        "CUDA out of memory.",
    ):
        assert (line_of(RuntimeError(words)) or "").startswith("not enough memory; free some")
    assert (line_of(MemoryError()) or "").endswith("give a smaller batch_size") and line_of(
        RuntimeError("shapes")
    ) is None
    assert "`ulimit -n`" in explain_os_error(OSError(errno.EMFILE, "Too many open files", "x"))
    for answer in (errno.EIO, errno.ENOTCONN, errno.ESHUTDOWN):  # a broken disk, sshfs whose network is gone, Lustre
        assert "mend that, then give the same command again" in explain_os_error(
            OSError(answer, os.strerror(answer), "x")
        )
    for answer in (errno.ENODEV, errno.ESPIPE):  # FUSE without a cache of pages; rclone
        assert "give data.cache= and outputs= on" in explain_os_error(OSError(answer, os.strerror(answer), "x"))
    assert "give a path at which" in explain_os_error(OSError(errno.ENOTDIR, "Not a directory", "f/a"))
    nowhere = FileNotFoundError(
        errno.ENOENT, "No usable temporary directory found in ['/tmp', '/']"
    )  # as tempfile says it
    assert explain_os_error(nowhere).endswith("make one of them writable, or set TMPDIR=<folder>")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(FileNotFoundError) as caught:
        Path.cwd()
    assert "the working folder is not there any more" in explain_os_error(caught.value)


def test_a_full_disk_as_numpy_tells_it(tmp_path: Path) -> None:
    line = line_of(OSError("12288 requested and 5088 written"))
    assert line is not None and line.startswith("the file system: no space left on the disk")
    assert line_of(OSError("something else")) is None
    with pytest.raises(OSError, match="No space") as caught, pending(tmp_path, "table2"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert (line_of(caught.value) or "").startswith(f"{tmp_path / 'table2'}: no space left on the disk")


def test_a_training_that_fills_the_disk_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fill(run: TrainConfig) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "best.pt"))

    monkeypatch.setattr(several, "train", fill)
    said = several.attempt(TrainConfig(run="a/net"), debug=False) or ""
    assert said.startswith(f"net ({tmp_path / 'best.pt'}: no space left on the disk; free some")
    assert "Traceback" not in capsys.readouterr().err


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch /tmp/zfrepro-was-here",)


@pytest.mark.parametrize("kind", ["truncated", "noise", "empty", "pickle", "other"])
def test_damaged_and_hostile_checkpoints(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"model": {"w": torch.zeros(1000)}})
    whole = path.read_bytes()
    evil = pickle.dumps({"model": Evil()})
    other = tmp_path / "other.pt"
    torch.save([1, 2], other)
    contents = {"truncated": whole[:700], "noise": b"no checkpoint" * 50, "empty": b"", "pickle": evil}
    path.write_bytes(contents.get(kind, other.read_bytes()))
    with pytest.raises(UserError, match=r"last\.pt: not a"):
        load_checkpoint(path)
    assert not Path("/tmp/zfrepro-was-here").exists()


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    weights, mean = torch.randn(3, 2), torch.rand(4, 4, 3)
    state = {"model": {"w": weights}, "epoch": 3, "class_names": ["a"], "mean": mean, "scale": torch.tensor(1.0)}
    save_checkpoint(tmp_path / "c.pt", state)
    loaded = load_checkpoint(tmp_path / "c.pt")
    assert torch.equal(loaded["model"]["w"], weights) and torch.equal(loaded["mean"], mean)
    assert loaded["class_names"] == ["a"] and loaded["epoch"] == 3


@pytest.mark.skipif(sys.platform == "win32", reason="other rights there")
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_whoever_shares_a_folder_may_take_its_locks(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with waiting_lock(tmp_path / "a.lock"):
            assert (tmp_path / "a.lock").stat().st_mode & 0o777 == 0o666
    finally:
        os.umask(before)


def test_lock_is_for_one_process(tmp_path: Path) -> None:
    code = "from zfrepro.files import lock; from pathlib import Path\n"
    code += f"with lock(Path({str(tmp_path)!r})): print('got it')"
    with lock(tmp_path):
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "another process" in second.stderr
    third = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert third.stdout == "got it\n"


def config(tmp_path: Path, **options: object) -> EvaluateConfig:
    return EvaluateConfig(run="r", outputs=str(tmp_path), **options)  # type: ignore[arg-type]


def write(tmp_path: Path, value: float, **options: object) -> bool:
    with writing(tmp_path / "table", config(tmp_path, **options), "abc") as out:
        if out is None:
            return False
        out.arrays("arrays.npz", value=np.array(value))
        out.table(["model", "error"], [["ours", value], ["paper", None]], "Measured on nothing.")
        out.done({"value": np.float32(value), "bad": float("nan")})
        return True


def test_class_names_that_would_break_a_table(tmp_path: Path) -> None:
    with writing(tmp_path / "table", config(tmp_path), "abc") as out:
        assert out is not None
        out.table(["class", "error"], [["a|b", 1.0], ["c\nd", None]], "")
        out.done({})
    assert (tmp_path / "table" / "table.md").read_text().splitlines()[2:4] == [r"| a\|b | 1.0 |", "| c d |  |"]
    rows = list(csv.reader((tmp_path / "table" / "table.csv").open(newline="")))
    assert rows[1:] == [["a|b", "1.0"], ["c\nd", ""]]


def test_output_is_whole_and_up_to_date(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert write(tmp_path, 1.5)
    folder = tmp_path / "table"
    assert sorted(path.name for path in folder.iterdir()) == ["arrays.npz", "metrics.json", "table.csv", "table.md"]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["value"] == 1.5 and metrics["bad"] is None
    wanted = {"command", "config_hash", "checkpoint_hash", "git_commit", "versions", "device", "seed", "seconds"}
    assert wanted | {"peak_memory_bytes"} <= set(metrics["provenance"])
    assert (folder / "table.csv").read_text().splitlines() == ["model,error", "ours,1.5", "paper,"]
    assert "Measured on nothing." in (folder / "table.md").read_text()
    assert not write(tmp_path, 2.5)
    assert "up to date" in capsys.readouterr().out
    assert np.load(folder / "arrays.npz")["value"] == 1.5
    assert write(tmp_path, 2.5, resume=False)
    assert write(tmp_path, 3.5, batch_size=7)
    assert np.load(folder / "arrays.npz")["value"] == 3.5


def test_other_inputs_make_another_result(tmp_path: Path) -> None:
    """A target data set or a picture that changed below the same name."""

    def made(inputs: str) -> bool:
        with writing(tmp_path / "fig", config(tmp_path), "abc", inputs=inputs) as out:
            if out is not None:
                out.done({})
            return out is not None

    one, other = digest(np.ones(3)), digest(np.zeros(3))
    assert [made(one), made(one), made(other)] == [True, False, True]
    assert read_json(tmp_path / "fig" / "metrics.json")["provenance"]["data_key"] == other
    assert made("") and read_json(tmp_path / "fig" / "metrics.json")["provenance"]["data_key"] is None


def test_a_result_whose_files_are_gone_is_made_again(tmp_path: Path) -> None:
    assert write(tmp_path, 1.5) and not write(tmp_path, 1.5)
    (tmp_path / "table" / "table.md").unlink()
    assert write(tmp_path, 1.5) and (tmp_path / "table" / "table.md").exists()


def test_files_of_an_earlier_result_go(tmp_path: Path) -> None:
    """What belongs to old weights or options must not stand beside new numbers; other files are let be."""

    def make(folder: str, checkpoint: str, part: str | None, *names: str) -> set[str]:
        with writing(tmp_path / folder, config(tmp_path, resume=False), checkpoint, part) as out:
            assert out is not None
            for name in names:
                out.path(name).write_text(name)
            out.done({})
        return {path.name for path in (tmp_path / folder).iterdir()} - {"metrics.json"}

    assert make("fig7", "abc", None, "a.png", "claims.png") == {"a.png", "claims.png"}
    (tmp_path / "fig7" / "notes.txt").touch()
    assert make("fig7", "abc", None, "a.png") == {"a.png", "notes.txt"}
    assert make("fig2", "abc", "layer1", "1.png", "both.png") == {"1.png", "both.png"}
    assert make("fig2", "abc", "layer2", "2.png", "both.png") == {"1.png", "2.png", "both.png"}
    assert make("fig2", "abc", "layer2", "two.png") == {"1.png", "two.png", "both.png"}
    assert make("fig2", "new", "layer1", "1.png") == {"1.png"}


def test_arrays_are_those_that_were_given(tmp_path: Path) -> None:
    """NumPy before 2.3 takes an option of saving that it does not know for one more array."""
    with writing(tmp_path / "table2_imagenet", config(tmp_path)) as out:
        assert out is not None
        out.arrays("arrays.npz", a=np.arange(3))
        with np.load(out.pending / "arrays.npz") as found:
            assert found.files == ["a"]
        with pytest.raises(ValueError, match=r"arrays\.npz: b: an array of objects"):
            out.arrays("arrays.npz", a=np.arange(3), b=np.array([{}]))


def test_a_table_has_the_parts_of_one_checkpoint(tmp_path: Path) -> None:
    def write_part(part: str, checkpoint: str, *values: float) -> list[str]:
        with writing(tmp_path / "fig", config(tmp_path), checkpoint, part=part) as out:
            assert out is not None
            shown = out.table_with_others(["x"], [[value] for value in values], f"of {part}.")
            out.done({"value": 1, **shown})
        assert (tmp_path / "fig" / "table.md").read_text().endswith(f"{part}: of {part}.\n")
        return (tmp_path / "fig" / "table.csv").read_text().split()

    assert write_part("a", "first", 1) == ["target,x", "a,1"]
    assert write_part("b", "first", 2, 3) == ["target,x", "a,1", "b,2", "b,3"]
    assert write_part("c", "other", 4) == ["target,x", "c,4"]
    path = tmp_path / "fig" / "metrics.json"
    path.write_text(path.read_text().replace('"notes": "of c."', '"notes": 7'))
    assert write_part("d", "other", 5) == ["target,x", "d,5"], "a damaged part is left out"


def test_unfinished_output_leaves_the_last_one(tmp_path: Path) -> None:
    write(tmp_path, 1.5)
    with pytest.raises(ZeroDivisionError), writing(tmp_path / "table", config(tmp_path, batch_size=9), "abc") as out:
        assert out is not None
        out.arrays("arrays.npz", value=np.array(9.0))
        raise ZeroDivisionError
    assert not list(tmp_path.glob("*.tmp")) and not list(tmp_path.glob(".*.tmp"))
    assert np.load(tmp_path / "table" / "arrays.npz")["value"] == 1.5
    assert not write(tmp_path, 1.5)


@pytest.mark.skipif(os.name == "nt", reason="users by number")
def test_another_user_s_process_may_be_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by hidepid on clusters: what looks dead may be packing into a cache that they share."""
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    packing, forgotten = (
        tmp_path / f".data.{machine()}.{killed.pid}-{time.time():.0f}.{end}.tmp" for end in ("a", "b")
    )
    packing.mkdir()
    forgotten.mkdir()
    os.utime(forgotten, (0, 0))
    own = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    files.remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [packing.name]
    monkeypatch.undo()
    files.remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


def test_who_writes_a_file_again_clears_up_after_the_killed(tmp_path: Path) -> None:
    page, script = tmp_path / "report" / "index.html", (
        "import os, sys; from pathlib import Path; from zfrepro.files import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as file: os.kill(os.getpid(), 9)"
    )  # fmt: skip
    subprocess.run([sys.executable, "-c", script, str(page)], check=False)
    assert [path.suffix for path in page.parent.iterdir()] == [".tmp"]
    with atomic_write(page.with_name("claims.json")):  # a living process keeps what it is at
        write_text(page, "whole")
        assert len(list(page.parent.glob(".claims.json.*.tmp"))) == 1
    assert {path.name for path in page.parent.iterdir()} == {"index.html", "claims.json"}


def test_leftovers_of_the_killed_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    run, killed = tmp_path / "run", subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    reborn = f"{os.getpid()}-1"  # our number, but of a process that began long ago
    for process in (f"{killed.pid}-{time.time():.0f}", reborn):
        dead = run / f".fig5_invariance.all.{machine()}.{process}.ab.tmp"
        (dead / "half").mkdir(parents=True)
        dead.with_name(f".metrics.json.{machine()}.{process}.cd.tmp").touch()
    elsewhere = run / f".fig5_invariance.all.another-machine.{process}.ab.tmp"
    elsewhere.mkdir()
    unseen = run / f".fig5_invariance.all.{platform.node()}-7.{process}.ab.tmp"  # of a container of the same name
    forgotten = unseen.with_name(unseen.name.replace(".ab.", ".cd."))
    unseen.mkdir()
    forgotten.mkdir()
    os.utime(forgotten, (0, 0))
    with writing(run / "fig4_evolution", config(tmp_path), None) as living:
        assert living is not None
        assert {path.name for path in run.iterdir()} == {living.pending.name, elsewhere.name, unseen.name}
        script = (
            "import sys; from pathlib import Path; from zfrepro.results import writing\n"
            "from zfrepro.options.commands import EvaluateConfig\n"
            "with writing(Path(sys.argv[1]), EvaluateConfig(), None) as out: out.done({'other': 1})"
        )
        subprocess.run([sys.executable, "-c", script, str(run / "fig4_evolution")], check=True)
        living.arrays("arrays.npz", ones=np.ones(3))  # another process has made the same meanwhile
        living.done({"mine": 1})
    assert json.loads((run / "fig4_evolution" / "metrics.json").read_text())["mine"] == 1
    assert {path.name for path in run.iterdir()} == {"fig4_evolution", ".results.lock", elsewhere.name, unseen.name}


def test_a_mac_has_two_numbers_for_what_is_not_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    """There SMB answers flock with the one that is not EOPNOTSUPP."""
    with monkeypatch.context() as patch:
        patch.setattr(errno, "EOPNOTSUPP", 102)
        patch.setattr(errno, "ENOTSUP", 45)
        there = runpy.run_path(files.__file__)
    assert {45, 102} <= set(there["LOCKLESS"]) and {45, 102} <= set(there["UNSYNCED"])


@pytest.mark.parametrize("answer", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(tmp_path: Path, answer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lustre and NFS may know no flock: a file's existence is the lock there."""

    def refuse(*args: object) -> None:
        raise OSError(answer, os.strerror(answer))

    monkeypatch.setattr("fcntl.flock", refuse)
    with lock(tmp_path / "run"), pytest.raises(UserError, match="another process"), lock(tmp_path / "run"):
        pass
    with lock(tmp_path / "run"), waiting_lock(tmp_path / "other.lock"):
        pass


def test_a_power_cut_empties_no_file_of_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on XFS: what was given its name and never synchronised keeps the name alone."""
    kept: set[int] = set()
    monkeypatch.setattr(os, "fsync", lambda handle: kept.add(os.fstat(handle).st_ino))
    with writing(tmp_path / "run" / "fig4_evolution", EvaluateConfig()) as out:
        assert out is not None
        out.arrays("arrays.npz", ones=np.ones(3))
        out.done({"value": 1})
    found = {path.name for path in (tmp_path / "run" / "fig4_evolution").iterdir() if path.stat().st_ino in kept}
    assert found == {"arrays.npz", "metrics.json"}


@pytest.mark.parametrize("answer", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSPC])
def test_a_file_system_that_does_not_sync(tmp_path: Path, answer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFS refuses it for folders, some FUSE for all. A disk that is full is another matter."""

    def refuse(handle: int) -> None:
        raise OSError(answer, os.strerror(answer))

    monkeypatch.setattr(os, "fsync", refuse)
    expected = pytest.raises(OSError) if answer == errno.ENOSPC else contextlib.nullcontext()
    with expected:
        write_text(tmp_path / "a", "here")
    assert (tmp_path / "a").exists() == (answer != errno.ENOSPC)


def test_a_refused_start_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError), lock(tmp_path / "fresh"):
        raise UserError("refused")
    assert not list(tmp_path.iterdir())


def test_a_refused_start_takes_nothing_from_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which may begin in the same folder once the lock is let go."""
    look = Path.iterdir

    def begun_after(folder: Path) -> Iterator[Path]:
        found = list(look(folder))
        write_text(folder / "train" / "config.yaml", "")
        return iter(found)

    monkeypatch.setattr(Path, "iterdir", begun_after)
    with lock(tmp_path / "fresh"):
        pass
    assert (tmp_path / "fresh" / "train" / "config.yaml").exists()


def test_damaged_metrics_are_made_again(tmp_path: Path) -> None:
    assert write(tmp_path, 1.5)
    (tmp_path / "table" / "metrics.json").write_text("{")
    assert write(tmp_path, 1.5) and not write(tmp_path, 1.5)


def test_parts_gather_in_one_file(tmp_path: Path) -> None:
    def make(checkpoint: str, part: str, maps: str) -> bool:
        with writing(tmp_path / "fig", config(tmp_path), checkpoint, part=part) as out:
            if out is not None:
                out.done({"maps": maps})
            return out is not None

    assert make("abc", "layer1", "one") and make("abc", "layer2", "two")
    metrics = read_json(tmp_path / "fig" / "metrics.json")
    assert (metrics["layer1"]["maps"], metrics["layer2"]["maps"]) == ("one", "two")
    assert not make("abc", "layer1", "again")
    assert make("another checkpoint", "layer1", "new")
    assert "layer2" not in read_json(tmp_path / "fig" / "metrics.json")


def test_the_gpu_that_is_named_is_the_one_that_was_used(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {None: "the first", "cuda": "the first", "cuda:1": "the second"}
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device=None: names[device])
    found = [device_name(device) for device in ("auto", "cuda", "cuda:1")]
    assert found == ["the first", "the first", "the second"] and device_name("cpu").startswith("cpu (")


def test_a_commit_is_the_checkouts_own_and_not_that_of_a_project_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    code = tmp_path / "zfrepro" / "provenance.py"
    write_text(code, "")
    monkeypatch.setattr("zfrepro.provenance.__file__", str(code))
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    assert git_commit() is None  # installed below it, in an environment that it ignores
    subprocess.run([*git, "add", "zfrepro"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "ours"], check=True)
    found = git_commit()
    assert found is not None and len(found) == 12
    code.write_text("changed")
    assert git_commit() == f"{found}+"


def test_hash_ignores_places_only(tmp_path: Path) -> None:
    one = config_hash(config(tmp_path))
    assert one == config_hash(config(tmp_path / "elsewhere", resume=False))
    assert one != config_hash(config(tmp_path, seed=1))
