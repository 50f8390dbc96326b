"""`make all-figures`: nothing of the paper can go missing from it, and it goes on where it stopped."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conftest import TINY, Zfrepro

from zfrepro import papers
from zfrepro.cli import COMMANDS
from zfrepro.files import write_text
from zfrepro.options.compose import conf_folder
from zfrepro.papers import zfnet

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts" / "all_figures.py"
# arXiv v3 has Figures 1-9 and Tables 1-7. Figures 1 and 3 are diagrams; Figure 8 shows the pictures of Table 1.
IDS = ["fig2", "fig4", "fig5", "fig6", "fig7", "fig9", *(f"table{n}" for n in range(1, 8))]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """scripts/all_figures.py as a module."""
    spec = importlib.util.spec_from_file_location("all_figures", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["all_figures"] = module
    spec.loader.exec_module(module)
    return module


# ------------------------------------------------------------------------------------------------- nothing is missing


def test_every_figure_and_table_is_an_item() -> None:
    assert {item.id for item in zfnet.ITEMS} >= set(IDS) and len(IDS) == 13
    assert len({item.folder for item in zfnet.ITEMS}) == len(zfnet.ITEMS), "each has its own folder"
    assert all(item.folder.startswith(item.id) for item in zfnet.ITEMS)


@pytest.mark.parametrize("item", zfnet.ITEMS, ids=lambda item: item.id)
def test_every_item_has_a_config_a_command_and_a_target(item: papers.Item, script: ModuleType) -> None:
    assert item.command in COMMANDS
    head = (conf_folder() / f"{item.command}.yaml").read_text().splitlines()[0:12]
    assert any(f"zfrepro {item.command}" in line for line in head)
    stages = script.plan(script.arguments(["--outputs", "nowhere", "--only", item.id]))
    assert [stage.command for stage in stages] == ["train", item.command, "report"]
    done = subprocess.run(["make", "-n", item.id], cwd=ROOT, capture_output=True, text=True)
    assert f"--only {item.id}" in done.stdout, done.stderr


@pytest.mark.parametrize("target", ["train", "fig7"])
def test_a_folder_s_name_may_have_spaces(target: str) -> None:
    call = ["make", "--dry-run", target, "DATA=/data/my pictures"]
    said = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    words = [word for line in said.splitlines() if "pictures" in line for word in shlex.split(line.lstrip("@"))]
    assert any(word.endswith("/data/my pictures") for word in words)


def test_every_table_of_numbers_has_them() -> None:
    folder = papers.reference(zfnet.PAPER)
    stems = [path.stem for item in zfnet.ITEMS for path in folder.glob(f"{item.id}_*.csv")]
    assert len(stems) == 7
    assert all(papers.reported(stem) for stem in stems)


def test_all_of_it_is_planned(script: ModuleType) -> None:
    stages = script.plan(script.arguments(["--outputs", "nowhere"]))
    assert stages[0].command == "train" and stages[-1].command == "report"
    assert {stage.command for stage in stages[1:-1]} == {item.command for item in zfnet.ITEMS}
    assert [stage.command for stage in stages[-4:]] == ["evaluate", "transfer", "probe", "report"], "after Table 3"
    assert len({stage.command for stage in stages}) == len(stages)
    assert not any(stage.skip for stage in stages)
    assert 0 < sum(stage.minutes or math.inf for stage in stages) <= 40, (
        "with one thread; two cores share the trainings"
    )
    titles = " ".join(stage.what for stage in stages)
    assert all(item.title in titles for item in zfnet.ITEMS)


def test_configs_accept_what_is_planned(script: ModuleType, zfrepro: Any, tmp_path: Path) -> None:
    given = ["--target", "caltech101", "--target-data", "/there", "--parts", "parts.csv", "--data", "/here"]
    planned = {}  # of what differs in the run's name alone, one
    for preset in ("demo", "tiny_imagenet", "paper"):
        for stage in script.plan(script.arguments(["--outputs", "nowhere", "--preset", preset, *given])):
            options = [option for option in stage.options if not option.startswith("run=")]
            planned[(stage.command, *options)] = stage
    for stage in planned.values():
        printed = zfrepro(stage.command, *stage.options, "--cfg", "job", cwd=tmp_path).stdout
        assert "run: " in printed


def test_the_papers_table_3_is_of_the_papers_recipe(script: ModuleType, zfrepro: Any, tmp_path: Path) -> None:
    """Its nets are averaged in Table 2 beside the run itself."""
    [ablate] = [one for one in script.plan(script.arguments(["--preset", "paper"])) if one.command == "ablate"]
    printed = zfrepro("ablate", *ablate.options, "--cfg", "job", cwd=tmp_path).stdout
    for key in ("epochs", "batch_size", "lr", "warmup_steps", "dropout"):
        assert f"\n{key}: null\n" in printed


def test_a_network_from_elsewhere_is_imported_and_what_needs_training_is_named(script: ModuleType) -> None:
    files = ["--weights", "vgg16.pth", "--model", "torchvision/vgg16", "--data-set", "folder", "--data", "/photographs"]
    for more, wanted in ((files, "data.root=/photographs"), ([], "data.download=true")):
        given = script.arguments(["--outputs", "nowhere", "--preset", "pretrained", *more])
        stages = {stage.command: stage for stage in script.plan(given)}
        assert next(iter(stages)) == "import" and wanted in stages["import"].options
        assert {name for name, stage in stages.items() if "trained elsewhere" in stage.skip} == {"evolve", "ablate"}
        assert not any("average" in option or "runs=" in option for option in stages["evaluate"].options)
    assert "weights=DEFAULT" in stages["import"].options and "data=imagenette" in stages["import"].options


def test_the_second_papers_plan(script: ModuleType) -> None:
    stages = script.plan(script.arguments(["--outputs", "nowhere", "--paper", "vgg"]))
    assert [stage.command for stage in stages[:4]] == ["train", "depth", "localize", "transfer"]
    assert "preset=vgg_demo" in stages[0].options and "protocol=vgg" in stages[3].options
    assert "runs=[vgg_demo/depth/d_64-128,vgg_demo/depth/e_64-128]" in stages[3].options
    full = script.plan(script.arguments(["--outputs", "nowhere", "--preset", "vgg", "--target", "voc2007"]))
    assert "runs=[vgg/depth/d_256-512,vgg/depth/e_256-512]" in full[3].options
    one = script.plan(script.arguments(["--outputs", "nowhere", "--only", "vgg_table8"]))
    assert [stage.command for stage in one] == ["train", "localize", "report"] and "run=vgg_demo" in one[1].options


def test_what_only_the_user_has_is_asked_for(script: ModuleType) -> None:
    stages = {
        stage.command: stage
        for stage in script.plan(script.arguments(["--outputs", "nowhere", "--preset", "paper", "--data", "/x"]))
    }
    assert "TARGET=" in stages["transfer"].skip and "PARTS=" in stages["correspond"].skip and not stages["occlude"].skip
    given = [
        "--outputs",
        "nowhere",
        "--preset",
        "paper",
        "--target",
        "caltech256",
        "--target-data",
        "/y",
        "--parts",
        "p.csv",
    ]
    stages = {stage.command: stage for stage in script.plan(script.arguments(given))}
    assert not any(stage.skip for stage in stages.values())
    assert {"data=caltech256", "data.root=/y"} <= set(stages["probe"].options)
    assert "data.root=/y" not in stages["train"].options


# ---------------------------------------------------------------------------------------------------------- running it


def test_a_failure_does_not_stop_the_others(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called = []

    def call(stage: Any, log: Path) -> int:
        called.append(stage.command)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("zfrepro: it went wrong\n" if stage.command == "occlude" else "wrote something\n")
        return 2 if stage.command == "occlude" else 0

    monkeypatch.setattr(script, "call", call)
    args = script.arguments(["--outputs", str(tmp_path), "--only", "fig2", "fig7", "table7"])
    assert script.run(script.plan(args), args) == 1
    out = capsys.readouterr().out
    assert called == ["train", "visualize", "occlude", "probe", "report"]
    assert "FAILED" in out and "it went wrong" in out and "failed: zfrepro occlude" in out
    called.clear()
    monkeypatch.setattr(script, "call", lambda stage, log: called.append(stage.command) or log.write_text("no") * 0 + 2)
    assert script.run(script.plan(args), args) == 1
    assert called == ["train"], "without a network there is nothing to look at"


def test_weights_without_a_classifier_are_not_evaluated(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called = []
    classes = 0

    def call(stage: Any, log: Path) -> int:
        called.append(stage.command)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("wrote something\n")
        (log.parent.parent / "train").mkdir(exist_ok=True)
        (log.parent.parent / "train" / "import.json").write_text(json.dumps({"classes": classes}))
        return 0

    monkeypatch.setattr(script, "call", call)
    given = ["--outputs", str(tmp_path), "--preset", "pretrained", "--only", "fig2", "table2"]
    assert script.run(script.plan(script.arguments(given)), script.arguments(given)) == 0
    assert called == ["import", "visualize", "report"] and "init_from=pretrained freeze=" in capsys.readouterr().out
    called, classes = [], 1000
    assert script.run(script.plan(script.arguments(given)), script.arguments(given)) == 0
    assert called == ["import", "visualize", "evaluate", "report"]


def all_figures(outputs: Path, *only: str) -> list[str]:
    """The command line of a small call: training, some figures and tables, the page."""
    train = ["--train", *TINY, "snapshot_epochs=[1,2]", "checkpoint_every=1"]
    also = ["--also", "precision=fp32", "device=cpu"]
    return [sys.executable, str(SCRIPT), "--outputs", str(outputs), "--run", "tiny", *train, *also, "--only", *only]


def test_the_second_call_has_nothing_to_do(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zfrepro: Zfrepro, capsys: Any
) -> None:
    """The stages run in this process, which has imported everything already."""

    def call(stage: Any, log: Path) -> int:
        done = zfrepro(stage.command, *stage.options, check=False)
        write_text(log, done.stdout + done.stderr)
        return done.returncode

    monkeypatch.setattr(script, "call", call)
    args = script.arguments(all_figures(tmp_path, "table2")[2:])

    def said() -> list[str]:
        assert script.run(script.plan(args), args) == 0
        return capsys.readouterr().out.splitlines()

    first = said()
    lines = [line for line in first if line.startswith("[")]
    assert len(lines) == 3 and all("done in" in line for line in lines)
    assert first[-1] == f"The page: {tmp_path / 'tiny' / 'report' / 'index.html'}"
    lines = [line for line in said() if line.startswith("[")]
    assert len(lines) == 2 and "up to date" in lines[0]


def test_a_stage_is_a_process_of_its_own(script: ModuleType, tmp_path: Path) -> None:
    for options, status, said in ((["--cfg", "job"], 0, "preset: demo"), (["epochs=0"], 2, "zfrepro: epochs=0: must")):
        log = tmp_path / "logs" / "train.log"
        assert script.call(script.Stage("train", "the network", options, None), log) == status
        assert said in log.read_text(encoding="utf-8")


def test_mistakes(tmp_path: Path) -> None:
    wrong = subprocess.run(
        [sys.executable, str(SCRIPT), "--only", "fig3"], capture_output=True, text=True, cwd=tmp_path
    )
    assert wrong.returncode == 2 and "the ids are fig2" in wrong.stderr
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def numbers(folder: Path) -> dict[str, Any]:
    """All that was measured: arrays, and metrics without where and when."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*/*.npz")):
        if path.parent.name != "search":
            with np.load(path) as arrays:
                found |= {f"{path.parent.name}/{path.name}/{name}": arrays[name] for name in arrays}
    for path in sorted(folder.glob("*/metrics.json")):
        metrics = json.loads(path.read_text())
        metrics.pop("provenance")
        found[f"{path.parent.name}/metrics"] = np.array(json.dumps(metrics, sort_keys=True))
    lines = [json.loads(line) for line in (folder / "train" / "metrics.jsonl").read_text().splitlines()]
    found["train/loss"] = np.array([[line["train_loss"], line["val_top1_error"]] for line in lines])
    return found


ONLY = "fig2", "fig4", "table2"


@pytest.mark.long
def test_killed_at_three_stages(tmp_path: Path) -> None:
    """SIGKILL in training, in Figure 2 and in Figure 4; the call after that ends with the numbers of an undisturbed one."""
    subprocess.run(all_figures(tmp_path / "whole", *ONLY), check=True, timeout=600, capture_output=True)
    outputs = tmp_path / "killed"
    marks = ("train/checkpoints/last.pt", ".fig2_features.layer2.*.tmp", ".fig4_evolution.all.*.tmp")
    for mark in marks:
        process = subprocess.Popen(all_figures(outputs, *ONLY), stdout=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + 300
        while not list((outputs / "tiny").glob(mark)):
            assert process.poll() is None and time.monotonic() < deadline, f"{mark} never appeared"
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (outputs / "tiny" / "report" / "index.html").exists()
    subprocess.run(all_figures(outputs, *ONLY), check=True, timeout=600, capture_output=True)
    whole, killed = numbers(tmp_path / "whole" / "tiny"), numbers(outputs / "tiny")
    assert whole.keys() == killed.keys() and len(whole) > 60
    for name, values in whole.items():
        np.testing.assert_array_equal(killed[name], values, err_msg=name)
    assert (outputs / "tiny" / "report" / "index.html").exists()
