"""What Windows, and macOS, would refuse or do otherwise: their rules imitated here, where neither is."""

from __future__ import annotations

import ast
import errno
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Zfrepro, composed, find_problems
from omegaconf import OmegaConf
from packaging.requirements import Requirement
from test_data_people import config_of, make

import zfrepro
from zfrepro import cli, errors, files, workers
from zfrepro.data import open_data
from zfrepro.errors import UserError, explain_os_error
from zfrepro.features import extract
from zfrepro.files import move, nearest_existing, write_text
from zfrepro.options.arguments import for_hydra
from zfrepro.options.commands import EvaluateConfig, TrainConfig
from zfrepro.options.shared import DataConfig, Experiment, run_name
from zfrepro.results import writing
from zfrepro.run import load_config, open_run
from zfrepro.trainer.distributed import backend

POSIX = {"fcntl", "resource", "pwd", "grp", "termios", "readline", "pty", "tty", "posix", "syslog"}


@pytest.mark.parametrize("path", sorted(Path(zfrepro.__file__).parent.rglob("*.py")), ids=lambda path: path.stem)
def test_no_module_needs_what_windows_lacks(path: Path) -> None:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        named = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        assert not POSIX & {*named, getattr(node, "module", None)}


def test_whole_numbers_have_64_bits() -> None:
    """NumPy's had 32 on Windows before 2.0: too few for the bytes of ImageNet."""
    toml = pytest.importorskip("tomllib")
    given = toml.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
    there = [Requirement(text) for text in given["project"]["dependencies"]]
    on_windows = [one for one in there if one.marker is None or one.marker.evaluate({"sys_platform": "win32"})]
    assert not all("1.26.4" in one.specifier for one in on_windows if one.name == "numpy")


# ---------------------------------------------------------------------------------------------------- files that are open


def held(path: Path) -> bool:
    """Whether this process has the file, or one in the folder, open or mapped."""
    place, there = (
        str(path.resolve()),
        [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.exists()],
    )
    there += [line.split(None, 5)[-1].strip() for line in Path("/proc/self/maps").read_text().splitlines()]
    return any(one == place or one.startswith(f"{place}/") for one in there)


@pytest.fixture
def open_files_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither renamed, replaced nor removed, and no folder renamed with one in it."""

    def refusing(call: Callable[..., None]) -> Callable[..., None]:
        def checked(*paths: Any, **more: Any) -> None:
            if any(held(Path(path)) for path in paths):
                raise PermissionError(errno.EACCES, "used by another process", str(paths[0]))
            call(*paths, **more)

        return checked

    for name in ("rename", "replace", "unlink", "remove", "rmdir"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))
    monkeypatch.setattr(shutil, "_use_fd_functions", False)


IMITATED = Path("/proc/self/maps").exists() and sys.version_info >= (
    3,
    11,
)  # before, pathlib kept `os.unlink` for itself
needs_proc = pytest.mark.skipif(not IMITATED, reason="no /proc here, or Python 3.10")


@needs_proc
def test_open_files_are_refused_here(tmp_path: Path, open_files_stay: None) -> None:
    np.save(tmp_path / "a.npy", np.zeros(9))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    with pytest.raises(PermissionError):
        (tmp_path / "a.npy").unlink()
    del mapped
    (tmp_path / "a.npy").unlink()


@needs_proc
@pytest.mark.parametrize("fit", ["square", "whole"])
def test_packing_closes_what_it_renames(tmp_path: Path, open_files_stay: None, fit: str) -> None:
    drawn = DataConfig(name="embedded", size=32, train_per_class=1, val_per_class=1, workers=1, fit=fit)
    drawn.cache = str(tmp_path / "cache")
    assert len(open_data(drawn).train) == len(open_data(drawn).val)
    root = make(tmp_path / "pets")
    (root / "cat" / "broken.jpg").write_bytes(b"none")
    open_data(config_of(tmp_path, root, on_error="skip", workers=1, fit=fit))


@needs_proc
def test_results_close_what_they_rename(tmp_path: Path, open_files_stay: None) -> None:
    for value in (1.0, 2.0):
        with writing(tmp_path / "fig5_invariance", EvaluateConfig(resume=False), None) as out:
            assert out is not None
            out.arrays("arrays.npz", value=np.array(value))
            out.done({"value": value})


@needs_proc
def test_features_close_what_they_rename(tiny_run: Path, tmp_path: Path, open_files_stay: None) -> None:
    shutil.copytree(tiny_run / "tiny", tmp_path / "tiny")
    run = open_run(Experiment(run="tiny", outputs=str(tmp_path), device="cpu"))
    assert set(extract(run, run.data, [1, 6])) == {1, 6}
    assert list(tmp_path.glob("tiny/features/*/layer1.npy"))


def test_a_file_that_another_program_has_open_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scanner for viruses, or a report of a training that goes on."""
    replace, refusals = Path.replace, [2]

    def refuse(source: Path, target: Path) -> Path:
        if refusals[0]:
            refusals[0] -= 1
            raise PermissionError(errno.EACCES, "Access is denied", str(source))
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(PermissionError):
        write_text(tmp_path / "a", "once")  # elsewhere a refusal is a refusal
    refusals[0] = 2
    monkeypatch.setattr(files, "WINDOWS", True)
    write_text(tmp_path / "a", "waited")
    assert (tmp_path / "a").read_text() == "waited"
    refusals[0] = 99
    monkeypatch.setattr(files, "PATIENCE", 0.1)
    with pytest.raises(PermissionError):
        move(tmp_path / "a", tmp_path / "b")


def test_what_to_do_about_an_open_file(monkeypatch: pytest.MonkeyPatch) -> None:
    error = PermissionError(errno.EACCES, "Access is denied", "last.pt")
    assert "close" not in explain_os_error(error)
    monkeypatch.setattr(errors, "WINDOWS", True)
    assert "close what has it open" in explain_os_error(error)


# ---------------------------------------------------------------------------------------------------- names and places


@pytest.mark.parametrize("name", ["nul", "a/AUX", "con/b", "com1.x", "demo.", "a./b"])
def test_runs_that_can_be_no_folder_on_windows(name: str) -> None:
    assert "Windows" in (run_name(name) or "")
    for like in ("console", "null", "aux_1", "com", "a.con", "torchvision/vgg16", "v1.0"):
        assert run_name(like) is None


@pytest.mark.parametrize(
    "path", ["C:\\pets\\", "\\\\server\\share\\my pets", "C:\\new\\table", "C:\\O'Brien\\a,b", "D:/a b"]
)
def test_paths_as_windows_has_them(path: str) -> None:
    """From the command line into the config, into YAML and back."""
    words = for_hydra("train", TrainConfig, ["data=folder", f"data.root={path}"])
    config = composed("train", TrainConfig, *words)
    saved = OmegaConf.create(OmegaConf.to_yaml(OmegaConf.structured(config)))
    assert config.data.root == saved.data.root == path


def test_an_archive_whose_classes_are_one_folder_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pets = make(tmp_path / "pets")
    shutil.copytree(pets / "cat", pets / "CAT")
    archive = Path(shutil.make_archive(str(tmp_path / "pets"), "zip", pets))
    assert len(open_data(config_of(tmp_path, archive)).class_names) == 3
    monkeypatch.setattr(Path, "samefile", lambda one, other: True)
    with pytest.raises(UserError, match="CAT and cat in it are one"):
        open_data(config_of(tmp_path, archive, cache=str(tmp_path / "other")))


def test_runs_whose_names_differ_in_capital_letters_alone(
    tiny_run: Path, tmp_path: Path, zfrepro: Zfrepro, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One folder there; elsewhere two."""
    shutil.copytree(tiny_run / "tiny" / "train", tmp_path / "tiny" / "train")
    (tmp_path / "Tiny").symlink_to(tmp_path / "tiny")
    given = (f"outputs={tmp_path}", "run=Tiny")
    assert load_config(tmp_path / "Tiny", "Tiny").epochs == 2
    names = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: [name for name in names(folder) if name != "Tiny"])
    for command in ("evaluate", "train"):
        done = zfrepro(command, *given, check=False)
        assert (
            done.returncode == 2 and "run=Tiny: is tiny on this disk" in done.stderr and "give run=tiny," in done.stderr
        )


def test_a_user_with_an_apostrophe(tmp_path: Path, zfrepro: Zfrepro, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows' folder of temporary files has the user's name in it."""
    (home := tmp_path / "O'Brien").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(home))
    (tmp_path / "own.yaml").write_text("input_size: 32\nlayers: [{kind: conv, maps: 8, kernel: 3}]\n")
    assert "own: input 3x32x32" in zfrepro("summary", "model=own.yaml", cwd=tmp_path).stdout


def test_a_drive_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows not even the root of a path has to exist."""
    monkeypatch.setattr(Path, "exists", lambda path: False)
    drawn = DataConfig(name="embedded", size=32, cache="/z/cache")
    assert "cannot be written" in find_problems(drawn)[0]
    assert nearest_existing(Path("/z/cache")) is None


def test_folders_are_told_with_the_systems_own_sign(
    tmp_path: Path, zfrepro: Zfrepro, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sep", "\\")
    assert "runs in outputs\\:" in zfrepro("doctor", cwd=tmp_path).stdout


# ---------------------------------------------------------------------------------------------------- streams, processes


@pytest.mark.parametrize("buffered", [True, False], ids=["buffered", "PYTHONUNBUFFERED"])
def test_a_window_takes_text(buffered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes, even of UTF-8, would be shown as letters of the window's own character set."""
    window = type("_WindowsConsoleIO", (io.BytesIO,), {})
    stream = io.TextIOWrapper(io.BufferedWriter(window()) if buffered else window(), "utf-8")
    for name in ("stdout", "__stdout__"):
        monkeypatch.setattr(sys, name, stream)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    cli._patient_streams()
    assert sys.stdout is stream and stream.errors == "backslashreplace"


@pytest.mark.skipif(not hasattr(os, "eventfd"), reason="nothing here that refuses as Windows does")
def test_a_reader_who_has_left_as_windows_tells_it() -> None:
    number = os.eventfd(0)  # takes eight bytes at a time, and calls everything else invalid
    assert cli._Pipe(number).write(b"text") == 4


def test_a_pool_has_as_many_processes_as_windows_can_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert workers.at_once(96) == 96
    monkeypatch.setattr(workers, "WINDOWS", True)
    assert (workers.at_once(96), workers.at_once(4)) == (61, 4)


def test_ctrl_break_stops_a_command_as_a_closed_terminal_does() -> None:
    """The one signal that another program can send there; what had been computed since the last save would be lost."""
    code = "import signal; vars(signal).pop('SIGHUP', None); signal.SIGBREAK = 21\n"
    code += "from zfrepro import workers; print(workers.STOPS)"
    assert "21" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_gpus_talk_without_nccl(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, word in ((True, "nccl"), (False, "gloo")):
        monkeypatch.setattr("torch.distributed.is_nccl_available", lambda there=there: there)
        assert (backend(torch.device("cuda", 1)), backend(torch.device("cpu"))) == (word, "gloo")


def test_an_interrupted_command_is_left_to_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C reaches it by itself there, and to terminate is to kill."""
    import all_figures

    class Child:
        ended, asked = False, False

        def wait(self) -> int:
            if not self.asked:
                self.asked = True
                raise KeyboardInterrupt
            return 130

        def terminate(self) -> None:
            self.ended = True

    for windows in (True, False):
        child = Child()
        monkeypatch.setattr(all_figures, "WINDOWS", windows)
        monkeypatch.setattr(subprocess, "Popen", lambda *given, child=child, **more: child)
        with pytest.raises(KeyboardInterrupt):
            all_figures.call(all_figures.Stage("train", "", [], None), tmp_path / "log")
        assert child.ended is not windows


def test_all_figures_in_a_narrow_character_set(tmp_path: Path) -> None:
    scripts = Path(__file__).parent.parent / "scripts"
    code = f"import sys; sys.path.insert(0, {str(scripts)!r}); import all_figures as a; a.plan = lambda args: []\n"
    code += "a.announce = lambda *given: print('█'); sys.exit(a.main())"
    env = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    assert subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True).returncode == 0


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_make_finds_the_programs_where_windows_has_them() -> None:
    call = ["make", "--dry-run", "OS=Windows_NT", "lint"]
    said = subprocess.run(call, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=True).stdout
    assert ".venv/Scripts/ruff" in said and ".venv/bin" not in said
