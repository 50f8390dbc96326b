"""Files that an earlier command left and something else has damaged: told, made again, never taken for whole."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Zfrepro

from zfrepro.checkpoints import load_checkpoint
from zfrepro.errors import UserError
from zfrepro.features import extract
from zfrepro.files import read_array, read_lines, write_json
from zfrepro.lists import read_table, read_text
from zfrepro.options.commands import TrainConfig, VisualizeConfig
from zfrepro.papers.zfnet import PAPER
from zfrepro.report.network import best_errors, read_epochs
from zfrepro.report.page import read_section
from zfrepro.results import writing
from zfrepro.run import open_run
from zfrepro.trainer.folder import Folder


def test_a_stored_array_is_whole_or_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, values = tmp_path / "a.npy", np.arange(12.0).reshape(3, 4)
    assert read_array(path, (3, 4)) is None and not capsys.readouterr().out
    np.save(path, values)
    for shape in ((3, 4), (None, 4)):
        assert np.array_equal(read_array(path, shape), values)  # type: ignore[arg-type]
    assert read_array(path, (4, 3)) is None and "shape (3, 4)" in capsys.readouterr().out
    whole = path.read_bytes()
    for content in (b"", whole[:-8], whole[:20], b"<html>", b"PK\x03\x04"):
        path.write_bytes(content)
        assert read_array(path, (3, 4)) is None and "damaged" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"no numbers at all", b"\x93NUMPY"])
def test_damaged_features_are_computed_again(tiny_run: Path, content: bytes) -> None:
    run = open_run(VisualizeConfig(run="tiny", outputs=str(tiny_run), precision="fp32"))
    first = {layer: np.array(values) for layer, values in extract(run, run.data, [1, 6]).items()}
    stored = next((run.folder / "features").glob("*/layer6.npy"))
    stored.write_bytes(content)
    again = extract(run, run.data, [1, 6])
    assert all(np.array_equal(first[layer], again[layer]) for layer in first)


def test_lines_of_metrics_are_read_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_lines(path) == []
    path.write_bytes(b'{"epoch": 1}\n[1]\n\xff\xfe\n{"epoch": 2\n')
    assert read_lines(path) == [{"epoch": 1}, None, None, None]


def test_a_training_without_a_last_line_says_so(tmp_path: Path) -> None:
    folder = Folder(TrainConfig(run="r", outputs=str(tmp_path)))
    path = tmp_path / "r" / "train" / "metrics.jsonl"
    path.parent.mkdir(parents=True)
    for text in ("", '{"epoch": 1, "sec', "3\n", '{"epoch": 1}\n', '{"seconds": "x"}\n'):
        path.write_text(text)
        with pytest.raises(UserError, match=r"metrics\.jsonl: its last line cannot be read \(seconds\); delete"):
            folder.noted("seconds")
    path.write_text('x\n{"seconds": 2, "train_top1_error": 3, "ended": true}\n')
    assert folder.noted("seconds") == 2 and folder.ended


def test_a_damaged_checkpoint_is_told_before_other_options(tiny_run: Path, tmp_path: Path, zfrepro: Zfrepro) -> None:
    shutil.copytree(tiny_run / "tiny" / "train", tmp_path / "cut" / "train")
    os.truncate(tmp_path / "cut" / "train" / "checkpoints" / "last.pt", 1000)
    done = zfrepro("train", "run=cut", f"outputs={tmp_path}", "epochs=9", check=False)
    assert done.returncode == 2 and "last.pt: not a readable checkpoint" in done.stderr, done.stderr


def test_the_page_knows_epochs_of_classes_and_of_boxes(tmp_path: Path) -> None:
    path, damaged = tmp_path / "metrics.jsonl", list[str]()
    lines = [{"epoch": n, "seconds": n, "val_top1_error": 60 - n, "val_top5_error": 20} for n in (1, 2)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert best_errors(read_epochs(damaged, path)) == "Validation error 58.0 % top-1, 20.0 % top-5."
    assert best_errors(read_epochs(damaged, path), 5) == "Validation error 58.0 % top-1."
    path.write_text(json.dumps({"epoch": 1, "seconds": 2, "val_localisation_error": 71.25}) + "\n")
    assert best_errors(read_epochs(damaged, path)) == "Localisation error 71.2 %, the true class given."
    assert damaged == []
    path.write_text(path.read_text() + '{"epoch": Infinity, "seconds": 1}\n{"epoch"\n')
    assert len(read_epochs(damaged, path)) == 1 and damaged == ["metrics.jsonl (2 of its lines cannot be read)"]


ORIGINS = [
    None,
    [],
    "x",
    {"files": []},
    {"files": {"all": "x"}},
    {"files": {"all": [1]}},
    {"parts": [1], "files": {}},
    {"files": {"all": None}},
]


@pytest.mark.parametrize("origin", ORIGINS)
def test_a_result_that_does_not_say_how_it_was_made_is_made_again(tmp_path: Path, origin: object) -> None:
    config = VisualizeConfig(run="r", outputs=str(tmp_path))
    write_json(tmp_path / "fig2_features" / "metrics.json", {"layer5": {"a": 1}, "provenance": origin})
    with writing(tmp_path / "fig2_features", config, "c", part="layer5") as out:
        assert out is not None
        out.arrays("layer5.npz", a=np.zeros(3))
        out.done({"a": 2})
    assert json.loads((tmp_path / "fig2_features" / "metrics.json").read_text())["layer5"] == {"a": 2}


@pytest.mark.parametrize("origin", ORIGINS)
def test_the_page_shows_a_result_that_does_not_say_how_it_was_made(tmp_path: Path, origin: object) -> None:
    item = next(one for one in PAPER.items if one.folder == "fig7_occlusion")
    write_json(tmp_path / item.folder / "metrics.json", {"provenance": origin})
    section = read_section(tmp_path, "r", PAPER, item)
    assert section.measured and section.damaged == ["metrics.json (it does not say how it was made)"]


def test_lists_that_are_no_files_are_refused_and_cut_ones_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder.csv").mkdir()
    for name in ("pipe.csv", "folder.csv", "nonsuch.csv"):
        with pytest.raises(UserError, match=f"parts={tmp_path}/{name}: cannot be read"):
            read_table(tmp_path / name, ["image"], "parts")
    (tmp_path / "cut.csv").write_bytes("image\na.png\n".encode("utf-16")[:-1])
    assert read_text(tmp_path / "cut.csv").startswith("image\na.png")


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("was-here",)


def test_a_hostile_pickle_is_refused_with_nothing_beside_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("best.pt").write_bytes(pickle.dumps({"model": Hostile()}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError, match=r"best\.pt: not a readable checkpoint: it holds more than tensors"):
            load_checkpoint(Path("best.pt"))
    assert not Path("was-here").exists()


def test_entries_of_a_checkpoint_that_need_not_be_there_are_looked_at(tiny_run: Path, tmp_path: Path) -> None:
    state = torch.load(tiny_run / "tiny" / "train" / "checkpoints" / "last.pt", weights_only=True)
    for entry, wrong in (("class_ids", 5), ("class_ids", [1]), ("trainer", [1])):
        torch.save({**state, entry: wrong}, tmp_path / "last.pt")
        with pytest.raises(UserError, match=f"its entry '{entry}' is damaged"):
            load_checkpoint(tmp_path / "last.pt")
