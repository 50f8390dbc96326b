"""The command line as a user meets it: help, configs, and mistakes that end in one line."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY, Zfrepro

from zfrepro.cli import COMMANDS, _quoted
from zfrepro.options import commands, shared
from zfrepro.options.compose import conf_folder


def refused(zfrepro: Zfrepro, *args: str, cwd: Path) -> str:
    """The one line that a mistake ends in."""
    done = zfrepro(*args, cwd=cwd, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and "Traceback" not in done.stderr, done.stderr
    return lines[0]


def test_help_lists_every_command(zfrepro: Zfrepro, tmp_path: Path) -> None:
    text = zfrepro("--help", cwd=tmp_path).stdout
    for name, command in COMMANDS.items():
        assert name in text and command.line in text
    assert zfrepro("--version", cwd=tmp_path).stdout.startswith("zfrepro ")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_teaches(command: str, zfrepro: Zfrepro, tmp_path: Path) -> None:
    text = zfrepro(command, "--help", cwd=tmp_path).stdout
    head = (conf_folder() / f"{command}.yaml").read_text().splitlines()[0].lstrip("# ")
    assert head in text and f"zfrepro {command}" in text
    assert re.search(r"^  seed=0 +of initialisation", text, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_config_is_printed(command: str, zfrepro: Zfrepro, tmp_path: Path) -> None:
    assert "run: " in zfrepro(command, "--cfg", "job", cwd=tmp_path).stdout
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def test_every_config_has_a_command() -> None:
    files = {path.stem for path in conf_folder().glob("*.yaml")} - {"base"}
    assert files == set(COMMANDS)


DATACLASSES = {
    value
    for module in (commands, shared)
    for value in vars(module).values()
    if isinstance(value, type) and dataclasses.is_dataclass(value)
}


@pytest.mark.parametrize("cls", sorted(DATACLASSES, key=lambda cls: cls.__name__))
def test_every_option_has_a_meaning_and_a_check(cls: type) -> None:
    for field in dataclasses.fields(cls):
        assert field.metadata.get("meaning"), (
            f"{cls.__name__}.{field.name}: declare it with option(default, meaning, check)"
        )
        assert callable(field.metadata["check"])
        if "null:" in field.metadata["meaning"]:
            assert "Optional" in field.type, f"{cls.__name__}.{field.name}: null is no value of it"
        elif "Optional" in field.type:
            raise AssertionError(f"{cls.__name__}.{field.name}: its meaning does not say what null stands for")


def test_preset_chooses_and_the_command_line_wins(zfrepro: Zfrepro, tmp_path: Path) -> None:
    text = zfrepro("train", "preset=paper", "model=alexnet", "lr=0.5", "--cfg", "job", cwd=tmp_path).stdout
    assert (
        "name: alexnet\n" in text and "name: imagenet\n" in text and "lr: 0.5\n" in text and "run: ${preset}\n" in text
    )
    assert "epochs: 70\n" in text and "batch_size: 128\n" in text


MISTAKES = [
    (["trian"], "trian: no such command (did you mean train?)"),
    (["train", "epohcs=3"], "epohcs: unknown key (did you mean epochs?)"),
    (["train", "+epohcs=3"], "epohcs: unknown key (did you mean epochs?)"),
    (["train", "data.sizes=3"], "data.sizes: unknown key (did you mean data.size?)"),
    (["train", "epochs=-1"], "epochs=-1: must be 1 or more"),
    (["train", "epochs=many"], "epochs: Value 'many'"),
    (["train", "batch_size=0"], "batch_size=0: must be 1 or more"),
    (["train", "lr=-0.1"], "lr=-0.1: must be a positive number"),
    (["train", "lr=nan"], "lr=nan: must be a positive number"),
    (["train", "model=zfnt"], "model=zfnt: no such file in conf/model (did you mean zfnet?)"),
    (["train", "preset=demos"], "preset=demos: no such file in conf/preset (did you mean demo?)"),
    (["train", "model=zfnet"], "model.input_size=224: the crop is larger than the images"),
    (["train", "device=cuda:7"], "device=cuda:7: "),
    (["train", "device=gpu"], "device=gpu: must be auto, cpu, cuda"),
    (["train", "precision=fp16"], "precision=fp16: must be one of fp32, bf16, auto (did you mean bf16?)"),
    (["train", "schedule=plato"], "schedule=plato: must be one of plateau, cosine"),
    (["train", "renorm_radius=0"], "renorm_radius=0.0: must be a positive number, or null for off"),
    (["train", "model.remove=[9]"], "model.remove=9: the layers to choose from are 1, 2, 3, 4, 5, 6, 7"),
    (
        ["train", "model.remove=[1,2,3,4,5]"],
        "model.remove=[1, 2, 3, 4, 5]: must be such that a convolutional layer is left",
    ),
    (["summary", "num_classes=0"], "num_classes=0: must be 1 or more"),
    (["occlude", "others=4"], "others=4: must be between 0 and 3"),
    (["train", "data=folder", "data.root=~/no such (folder)"], "/no such (folder): does not exist"),
    (["train", "run=../elsewhere"], "run=../elsewhere: must be a name"),
    (["train", "data.on_error=ignore"], "data.on_error=ignore: must be one of raise, skip"),
    (["train", "epochs"], "epochs"),
    (["evaluate", "run=nobody"], "run=nobody: no trained run in outputs/nobody; train it with"),
    (["train", "data=tiny_imagenet", "data.root=/nowhere"], "/nowhere"),
]


@pytest.mark.parametrize(("args", "start"), MISTAKES, ids=[" ".join(args) for args, _ in MISTAKES])
def test_mistakes_end_in_one_line(args: list[str], start: str, zfrepro: Zfrepro, tmp_path: Path) -> None:
    assert start in refused(zfrepro, *args, cwd=tmp_path)
    assert "outputs" not in os.listdir(tmp_path) or not list(tmp_path.glob("outputs/*/train/checkpoints/*"))  # noqa: PTH208


@pytest.mark.parametrize(
    ("given", "handed_on"),
    [
        ("data.root=/data/my pics (1)", "data.root='/data/my pics (1)'"),
        ("parts=it's.csv", r"parts='it\'s.csv'"),
        ("outputs=/plain/path-1.0", "outputs=/plain/path-1.0"),
        ("data.root='/quoted already'", "data.root='/quoted already'"),
        ("data.root=/a,/b c", "data.root=/a,/b c"),  # a sweep's
        ("run=2024_01_15", "run='2024_01_15'"),  # not the number 20240115
        ("run=demo", "run=demo"),
        ("lr=1e-3", "lr=1e-3"),
    ],
)
def test_paths_and_names_reach_hydra_in_quotes(given: str, handed_on: str) -> None:
    assert _quoted(given) == handed_on


def test_home_is_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert _quoted("data.root=~/pictures") == "data.root='/home/ann/pictures'"


@pytest.mark.parametrize(("options", "size"), [([], 64), (["model=zfnet"], 256), (["model.input_size=112"], 128)])
def test_pictures_are_packed_a_little_larger_than_the_input(
    options: list[str], size: int, zfrepro: Zfrepro, tmp_path: Path
) -> None:
    text = zfrepro("train", "data=folder", *options, "--cfg", "job", "--resolve", cwd=tmp_path).stdout
    assert f"\n  size: {size}\n" in text


def test_debug_shows_the_traceback(zfrepro: Zfrepro, tmp_path: Path) -> None:
    assert "Traceback" in zfrepro("train", "epochs=0", "debug=true", cwd=tmp_path, check=False).stderr


def test_read_only_folder(zfrepro: Zfrepro, tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("a file where the folder should be")
    line = refused(zfrepro, "train", *TINY, cwd=tmp_path)
    assert "outputs" in line


def test_shell_completion(tmp_path: Path) -> None:
    def complete(line: str) -> list[str]:
        env = {**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line)), "_TYPER": ""}
        call = [sys.executable, "-m", "zfrepro", "-sc", "query=bash"]
        return subprocess.run(call, env=env, capture_output=True, text=True, cwd=tmp_path).stdout.split()

    assert complete("zfrepro ev")[0] == "evaluate"
    assert "model=alexnet" in complete("zfrepro train model=al")
    assert "preset=" in complete("zfrepro train pre")
    install = [sys.executable, "-m", "zfrepro", "-sc", "install=bash"]
    assert "complete" in subprocess.run(install, capture_output=True, text=True, cwd=tmp_path).stdout
