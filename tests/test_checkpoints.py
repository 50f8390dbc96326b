"""Checkpoints that cannot be written, and those that should not be read."""

from __future__ import annotations

import copy
import errno
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Refused, toy_data
from test_train import toy

from zfrepro.checkpoints import _Watched, load_checkpoint, save_checkpoint
from zfrepro.errors import UserError, explain_os_error
from zfrepro.files import file_hash
from zfrepro.options.shared import Common
from zfrepro.run import open_run, snapshots
from zfrepro.trainer.distributed import Team
from zfrepro.trainer.tasks import Classification
from zfrepro.trainer.train import Training

Damage = Callable[[dict[str, Any]], object]


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file of this process may be larger than 200 kB: writing fails as on a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_ctrl_c_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes out as itself, not as what torch makes of a file that is cut, and leaves no half file."""
    count = [0]

    class Hasty(io.BytesIO):
        def write(self, data: Any) -> int:
            count[0] += 1
            if count[0] == 3:
                raise KeyboardInterrupt
            return super().write(data)

    monkeypatch.setattr("zfrepro.checkpoints._Watched", lambda file: _Watched(Hasty()))  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "last.pt", {"model": {"a": torch.zeros(1000)}})
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on files")
def test_what_cannot_be_written_leaves_the_last_one(tmp_path: Path, small_files: None) -> None:
    """torch raises a RuntimeError about a position; the reason is the operating system's."""
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"model": torch.zeros(10)})
    before = path.read_bytes()
    with pytest.raises(OSError) as caught:
        save_checkpoint(path, {"model": torch.zeros(1_000_000)})
    assert explain_os_error(caught.value).startswith(f"{path}: larger than files may be here")
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.skipif(sys.platform == "win32", reason="other rights there")
def test_what_another_user_keeps_to_himself_is_not_called_unwritable(tmp_path: Path) -> None:
    """A folder without rights, or a file; asked as nobody where the tests run as root."""
    (tmp_path / "theirs").mkdir()
    code = "import os, sys, errno; from zfrepro.errors import explain_os_error\n"
    code += "if os.geteuid() == 0: os.setuid(65534)\n"
    code += "print(explain_os_error(PermissionError(errno.EACCES, 'Permission denied', sys.argv[1])))"

    def said(path: Path) -> str:
        return subprocess.run(
            [sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True
        ).stdout

    (tmp_path / "theirs").chmod(0)
    assert "theirs/a/b: not for you to read (Permission denied)" in said(tmp_path / "theirs" / "a" / "b")
    (tmp_path / "theirs").chmod(0o755)
    assert "not/there: cannot be written" in said(Path("/not/there"))


def test_a_umask_that_takes_ones_own_rights_is_named() -> None:
    refused = OSError(errno.EACCES, "Permission denied", "outputs/demo")
    assert "outputs/demo: cannot be written (Permission denied); make it writable" in explain_os_error(refused)
    before = os.umask(0o277)
    try:
        assert "`umask` takes your own rights" in explain_os_error(refused) and os.umask(0o277) == 0o277
    finally:
        os.umask(before)


def without(key: str) -> Damage:
    return lambda state: state.pop(key)


def put(value: object, *keys: Any) -> Damage:
    def damage(state: Any) -> None:
        for key in keys[:-1]:
            state = state[key]
        state[keys[-1]] = value

    return damage


BAD_WEIGHTS = [
    (without("mean"), "its entry 'mean' is missing"),
    (without("scale"), "its entry 'scale' is missing"),
    (without("class_names"), "its entry 'class_names' is missing"),
    (without("epoch"), "its entry 'epoch' is missing"),
    (put(7, "class_names"), "its entry 'class_names' is damaged"),
    (put("two", "epoch"), "its entry 'epoch' is damaged"),
    (put([1, 2, 3], "mean"), "its entry 'mean' is damaged"),
    (put(torch.tensor(float("nan")), "scale"), "its entry 'scale' is damaged"),
    (put({}, "model"), "its entry 'model' is damaged"),
    (put("a", "model", "weights.1.weight"), "its entry 'model' is damaged"),
    (put(torch.full((8, 3, 7, 7), float("nan")), "model", "weights.1.weight"), "no finite numbers"),
    (put(torch.zeros(2), "model", "weights.1.weight"), "do not fit the model"),
    (put({"val": 3}, "split"), "what the checkpoint says of its data is damaged"),
]


@pytest.mark.parametrize(("damage", "line"), BAD_WEIGHTS)
def test_a_sound_file_with_wrong_entries_is_refused_in_a_line(
    tiny_run: Path, tmp_path: Path, refused: Refused, damage: Damage, line: str
) -> None:
    shutil.copytree(tiny_run / "tiny" / "train", tmp_path / "tiny" / "train")
    path = tmp_path / "tiny" / "train" / "checkpoints" / "best.pt"
    state = load_checkpoint(path)
    damage(state)
    torch.save(state, path)
    assert line in refused("evaluate", f"outputs={tmp_path}", "run=tiny")


def test_a_checkpoint_that_a_training_replaces_while_it_is_opened(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hash under which results stand is that of the weights that they are of."""
    shutil.copytree(tiny_run / "tiny" / "train", tmp_path / "tiny" / "train")
    path, calls = tmp_path / "tiny" / "train" / "checkpoints" / "best.pt", []

    def replaced(which: Path) -> dict[str, Any]:
        state = load_checkpoint(which)
        if not calls:
            save_checkpoint(path, state | {"epoch": 9})
        calls.append(which)
        return state

    monkeypatch.setattr("zfrepro.run.load_checkpoint", replaced)
    run = open_run(Common(run="tiny", outputs=str(tmp_path)))
    assert run.epoch == 9 and run.checkpoint_hash == file_hash(path)


BAD_PLACES: list[Damage] = [
    without("trainer"),
    put(3, "trainer"),
    *[lambda state, key=key: state["trainer"].pop(key) for key in ("epoch", "tally", "rate", "optimiser", "metrics")],  # type: ignore[misc]
    put("x", "trainer", "epoch"),
    put(-1, "trainer", "step"),
    put(None, "trainer", "seconds"),
    put([1, 2], "trainer", "tally", "sums"),
    put({"9": 1}, "trainer", "tally", "renormalised"),
    put(-0.1, "trainer", "rate", "factor"),
    put("x", "trainer", "metrics"),
    put(["x"], "trainer", "metrics", 0),
    put("x", "trainer", "metrics", 0, "val_top1_error"),
    put([], "trainer", "optimiser"),
    put(torch.zeros(3), "trainer", "optimiser", "state", 0, "momentum_buffer"),
    put("x", "trainer", "optimiser", "state", 0, "momentum_buffer"),
    put("fp8", "trainer", "precision"),
]


def test_a_place_that_is_none_is_refused(tmp_path: Path) -> None:
    data, team = toy_data(8, size=8), Team(0, 1, torch.device("cpu"))
    config = toy(tmp_path)
    Training(config, team, data, Classification(data)).run()
    sound = load_checkpoint(tmp_path / "toy" / "train" / "checkpoints" / "last.pt")
    Training(config, team, data, Classification(data), copy.deepcopy(sound))
    for damage in BAD_PLACES:
        state = copy.deepcopy(sound)
        damage(state)
        with pytest.raises(UserError, match=r"last\.pt: not a checkpoint of this run"):
            Training(config, team, data, Classification(data), state)


def test_other_files_among_the_snapshots_are_none(tmp_path: Path) -> None:
    (tmp_path / "train" / "checkpoints").mkdir(parents=True)
    for name in ("epoch_2.pt", "epoch_x.pt", "epoch_.pt", "epoch_10.pt", "epoch_-1.pt"):
        (tmp_path / "train" / "checkpoints" / name).touch()
    assert snapshots(tmp_path) == [2, 10]
