"""Training as a user runs it: files, resume after SIGKILL, two processes, refusals."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from conftest import TINY, Refused, Zfrepro, latest, of_its_own, toy_data, toy_table
from omegaconf import OmegaConf
from torch import Tensor

from zfrepro.checkpoints import load_checkpoint
from zfrepro.data import Packed
from zfrepro.errors import UserError
from zfrepro.files import lock
from zfrepro.options.commands import TrainConfig
from zfrepro.options.identity import write_config
from zfrepro.options.shared import DataConfig
from zfrepro.run import load_config
from zfrepro.trainer import distributed
from zfrepro.trainer.distributed import Team
from zfrepro.trainer.folder import Folder, _summary_writer
from zfrepro.trainer.recipe import finished
from zfrepro.trainer.tasks import Classification
from zfrepro.trainer.train import Training, build_network

LINE = {
    "epoch", "lr", "train_loss", "train_top1_error", "val_top1_error", "val_top5_error", "images_per_second",
    "filters_renormalized", "seconds",
}  # fmt: skip


def weights(outputs: Path, run: str, name: str = "last") -> dict[str, torch.Tensor]:
    return load_checkpoint(outputs / run / "train" / "checkpoints" / f"{name}.pt")["model"]  # type: ignore[no-any-return]


def lines(outputs: Path, run: str) -> list[dict[str, object]]:
    """metrics.jsonl without what depends on the clock."""
    text = (outputs / run / "train" / "metrics.jsonl").read_text()
    return [
        {k: v for k, v in json.loads(x).items() if k not in ("seconds", "images_per_second")} for x in text.splitlines()
    ]


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


def test_files_of_a_run(tiny_run: Path) -> None:
    folder = tiny_run / "tiny" / "train"
    for name in (
        "config.yaml",
        "metrics.jsonl",
        "curves.png",
        "filters.png",
        "checkpoints/last.pt",
        "checkpoints/best.pt",
    ):
        assert (folder / name).stat().st_size > 0
    assert sorted(path.name for path in (folder / "checkpoints").glob("epoch_*")) == ["epoch_1.pt", "epoch_2.pt"]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2] and all(set(row) == LINE for row in rows)
    assert set(rows[0]["filters_renormalized"]) == {"1", "2", "3", "4", "5"}
    assert 0 <= rows[1]["val_top5_error"] <= rows[1]["val_top1_error"] <= 100
    assert OmegaConf.load(folder / "config.yaml").batch_size == 40
    best = min(rows, key=lambda row: row["val_top1_error"])
    assert load_checkpoint(folder / "checkpoints" / "best.pt")["epoch"] == best["epoch"]


def test_finished_run_does_nothing(tiny_run: Path, zfrepro: Zfrepro) -> None:
    last = tiny_run / "tiny" / "train" / "checkpoints" / "last.pt"
    before = last.read_bytes()
    text = zfrepro("train", f"outputs={tiny_run}", "run=tiny", "snapshot_epochs=[1,2]", *TINY).stdout
    assert "finished, 2 epochs; nothing to do" in text and last.read_bytes() == before


@pytest.mark.parametrize("name", ["curves.png", "metrics.jsonl"])
def test_a_finished_run_writes_what_is_missing(tiny_run: Path, zfrepro: Zfrepro, name: str) -> None:
    """As after a signal between the last epoch and the pictures."""
    missing = tiny_run / "tiny" / "train" / name
    missing.unlink()
    zfrepro("train", f"outputs={tiny_run}", "run=tiny", "snapshot_epochs=[1,2]", *TINY)
    assert missing.stat().st_size > 0


def test_lost_weights_of_a_finished_run_name_a_cure_that_cures(
    tiny_run: Path, tmp_path: Path, refused: Refused
) -> None:
    """To train it, as `zfrepro train` says that there is nothing to do, is none."""
    shutil.copytree(tiny_run / "tiny", tmp_path / "lost")
    (tmp_path / "lost" / "train" / "checkpoints" / "best.pt").unlink()
    assert "begin again with resume=false" in refused("evaluate", f"outputs={tmp_path}", "run=lost")


def test_a_picture_that_does_not_come_to_the_disk_is_missing(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of one would count as drawn. A disk may say that it is full as late as that."""
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    folder = Folder(TrainConfig(run="full", outputs=str(tmp_path)))
    with pytest.raises(OSError, match="No space left"):
        folder.pictures(lines(tiny_run, "tiny"), np.zeros((4, 3, 7, 7)))
    assert not any(folder.path.iterdir())


def test_a_start_that_failed_binds_nobody(tmp_path: Path, zfrepro: Zfrepro) -> None:
    args = ["train", f"outputs={tmp_path}", "run=other", *TINY, "epochs=1", "snapshot_epochs=[]"]
    done = zfrepro(*args, "batch_size=4096", check=False)
    assert done.returncode == 2 and "larger than the 180 training images" in done.stderr
    assert "wrote" in zfrepro(*args, "batch_size=80").stdout


def test_other_config_is_refused(tiny_run: Path, refused: Refused) -> None:
    args = ["train", f"outputs={tiny_run}", "run=tiny", "snapshot_epochs=[1,2]", *TINY]
    assert "lr=0.5 (was 0.02)" in refused(*args, "lr=0.5", "model.layers.0.maps=9")


def test_damaged_checkpoint_is_refused_and_kept(tiny_run: Path, zfrepro: Zfrepro) -> None:
    last = tiny_run / "tiny" / "train" / "checkpoints" / "last.pt"
    whole = last.read_bytes()
    try:
        last.write_bytes(whole[: len(whole) // 2])
        done = zfrepro("train", f"outputs={tiny_run}", "run=tiny", "snapshot_epochs=[1,2]", *TINY, check=False)
        assert done.returncode == 2 and "last.pt: not a readable checkpoint" in done.stderr
        assert len(last.read_bytes()) == len(whole) // 2
    finally:
        last.write_bytes(whole)


def test_same_seed_same_weights_other_seed_others(tiny_run: Path, zfrepro: Zfrepro, tmp_path: Path) -> None:
    args = ["train", f"outputs={tmp_path}", "snapshot_epochs=[1,2]", *TINY]
    zfrepro(*args, "run=again")
    zfrepro(*args, "run=other", "seed=1")
    assert_same(weights(tiny_run, "tiny"), weights(tmp_path, "again"))
    assert not torch.equal(
        weights(tmp_path, "again")["weights.1.weight"], weights(tmp_path, "other")["weights.1.weight"]
    )


TOLD = """
import importlib, os, sys
import torch._dynamo  # an optimiser loads it
from zfrepro.cli import main

training = importlib.import_module("zfrepro.trainer.train")
save = training.save_checkpoint

def told(number, count):
    '''Train, and send oneself the signal `number` after so many checkpoints, before the next is written.'''
    def saved(path, state):
        nonlocal count
        if count == 0:
            os.kill(os.getpid(), number)
        count -= 1
        save(path, state)
    training.save_checkpoint = saved
    main()

for words in sys.argv.pop(1).split(","):
    run, number, count = words.split(":")
    if not (child := os.fork()):
        sys.argv.append(f"run={run}")
        told(int(number), int(count))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
SIGNALS = [
    *(("killed", getattr(signal, "SIGKILL", signal.SIGTERM), count) for count in (0, 2, 4)),
    *(("stopped", number, 2) for number in (signal.SIGTERM, signal.SIGINT)),
    ("closed", getattr(signal, "SIGHUP", signal.SIGTERM), 2),
]
STEPWISE = ["snapshot_epochs=[1,2]", "checkpoint_every=1"]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, list[int], str]:
    """Trainings in processes of their own, which get SIGNALS after so many checkpoints of their own: the outputs folder, the
    exit statuses, standard error."""
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    outputs = tmp_path_factory.mktemp("told")
    signals = ",".join(f"{run}:{int(number)}:{count}" for run, number, count in SIGNALS)
    command = [sys.executable, "-c", TOLD, signals, "train", f"outputs={outputs}", *TINY, *STEPWISE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return outputs, [int(line) for line in done.stdout.splitlines() if re.fullmatch("-?[0-9]+", line)], done.stderr


def place_of(outputs: Path, run: str) -> tuple[int, int]:
    """Epochs and further steps at the last checkpoint."""
    place = load_checkpoint(outputs / run / "train" / "checkpoints" / "last.pt")["trainer"]
    return place["epoch"], place["step"]


def test_killed_at_several_moments_ends_bit_identical(
    tiny_run: Path, zfrepro: Zfrepro, told: tuple[Path, list[int], str]
) -> None:
    """SIGKILL before the first checkpoint, in the middle of an epoch and after one; the end is the uninterrupted run's, to the
    bit."""
    outputs, statuses, errors = told
    assert statuses[:3] == [-9, -9, -9], errors
    assert place_of(outputs, "killed") == (1, 1)
    zfrepro("train", f"outputs={outputs}", "run=killed", *TINY, *STEPWISE)
    assert_same(weights(tiny_run, "tiny"), weights(outputs, "killed"))
    assert_same(weights(tiny_run, "tiny", "epoch_1"), weights(outputs, "killed", "epoch_1"))
    assert lines(tiny_run, "tiny") == lines(outputs, "killed")


def test_signals_save_and_say_so(told: tuple[Path, list[int], str]) -> None:
    outputs, statuses, errors = told
    assert statuses[3:] == [143, 130, 129], errors
    said = [line.partition(";")[0] for line in errors.splitlines() if line.startswith("zfrepro: ")]
    assert said == [f"zfrepro: stopped by {name}" for name in ("SIGTERM", "SIGINT", "SIGHUP")]
    assert "Traceback" not in errors
    assert place_of(outputs, "stopped") == (1, 3)  # the update that was under way is kept
    assert place_of(outputs, "closed") == (0, 4)


def test_two_processes_at_one_run(tmp_path: Path, zfrepro: Zfrepro) -> None:
    with lock(tmp_path / "one"):
        done = zfrepro("train", f"outputs={tmp_path}", "run=one", *TINY, check=False)
    assert done.returncode == 2 and "another process" in done.stderr and "torchrun" not in done.stderr


def test_processes_of_srun_are_strangers(tmp_path: Path, zfrepro: Zfrepro, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    with lock(tmp_path / "one"):
        done = zfrepro("train", f"outputs={tmp_path}", "run=one", *TINY, check=False)
    assert done.stderr.count("\n") == 1 and "those of torchrun train together" in done.stderr


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, "RANK=0, WORLD_SIZE=2: the 2 processes do not meet"),
        ({"RANK": "5", "WORLD_SIZE": "2"}, "RANK=5, WORLD_SIZE=2: the 2 processes do not meet"),
        ({"RANK": "0", "WORLD_SIZE": "two"}, "WORLD_SIZE=two: must be a whole number"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK=-1: must be a whole number"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "port"}, "do not meet"),
    ],
)
def test_variables_of_torchrun_without_torchrun(
    variables: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch, refused: Refused, tmp_path: Path
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert says in refused("train", f"outputs={tmp_path}", *TINY)
    assert not list(tmp_path.iterdir())


def test_a_machine_of_that_name_is_not_waited_for_as_long_as_torch_would(
    monkeypatch: pytest.MonkeyPatch, zfrepro: Zfrepro, tmp_path: Path
) -> None:
    """On some clusters a name becomes known with its process."""
    tried, places = [], {"MASTER_ADDR": "late.invalid", "MASTER_PORT": "29500", "RANK": "1", "WORLD_SIZE": "2"}
    for name, value in places.items():
        monkeypatch.setenv(name, value)

    def resolve(name: str, port: None) -> None:
        tried.append(name)
        if len(tried) != 3:
            raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    distributed._find_master("late.invalid")
    assert tried == ["late.invalid"] * 3
    monkeypatch.setattr(distributed, "RESOLVING", 0.0)
    done = zfrepro("train", f"outputs={tmp_path}", *TINY, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and not list(tmp_path.iterdir())
    assert "MASTER_ADDR=late.invalid: no machine of that name is known here" in done.stderr


def test_processes_that_do_not_come_are_not_waited_for_for_ever() -> None:
    """As on a machine that the others do not reach; gloo's waiting hears nothing, so it is waited for in earnest."""
    code = "from zfrepro.trainer import distributed as d; d.JOINING = 0.5; d._join('gloo', 0, 2)"
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    there = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "RANK": "0", "WORLD_SIZE": "2"}
    call = [sys.executable, "-c", code]
    done = subprocess.run(call, check=False, capture_output=True, text=True, timeout=60, env=os.environ | there)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "the 2 processes do not meet (not within 0.5 seconds)" in done.stderr and "SOCKET_IFNAME" in done.stderr


# Two processes as torchrun starts them, but after the imports, which take seconds.
FORKED = """
with socket.socket() as free:
    free.bind(("localhost", 0))
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(free.getsockname()[1]), WORLD_SIZE="2")
child = os.fork()
os.environ["RANK"] = "0" if child else "1"
if child:
    atexit.register(os.waitpid, child, 0)
"""
PAIR = (
    """
import atexit, importlib, os, socket
import torch._dynamo  # an optimiser loads it
from zfrepro.cli import main

importlib.import_module("zfrepro.trainer.train")
"""
    + FORKED
    + """
main()
"""
)
TORCHRUN = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", "-m", "zfrepro"]


@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param(["-c", PAIR], marks=pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")),
        pytest.param(TORCHRUN, marks=pytest.mark.long),
    ],
    ids=["forked", "torchrun"],
)
def test_two_processes_train_as_one(launcher: list[str], zfrepro: Zfrepro, tmp_path: Path) -> None:
    """Two CPU processes: the same global batches, crops and dropout; equal up to rounding.

    Rounding may let a pooling window choose another of two equal values, so each weight's difference is held against
    the way that the weights have come in training: other crops, order or dropout would make it as long as that way.
    """
    options = latest([f"outputs={tmp_path}", *TINY, "epochs=1", "batch_size=80", "snapshot_epochs=[]", "device=cpu"])
    zfrepro("train", "run=alone", *options)
    command = [sys.executable, *launcher, "train", "run=team", *options]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    config = load_config(tmp_path / "alone")
    begin = build_network(config, 60).state_dict()
    alone, team = weights(tmp_path, "alone"), weights(tmp_path, "team")
    for key, weight in alone.items():
        assert (weight - team[key]).norm() <= 0.05 * (weight - begin[key]).norm(), key
    a, b = lines(tmp_path, "alone")[0], lines(tmp_path, "team")[0]
    assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-5)
    assert a["train_top1_error"] == b["train_top1_error"]


class Scripted(Classification):
    """Classification whose validations give errors that were written down beforehand."""

    def __init__(self, data: Packed, script: list[tuple[float, float]]) -> None:
        super().__init__(data)
        self.script = iter(script)

    def errors(self, counts: list[float], images: int) -> dict[str, float]:
        return dict(zip(("val_top1_error", "val_top5_error"), next(self.script)))


class Broken(ModuleType):
    """A package of which nothing can be imported."""

    def __getattr__(self, name: str) -> object:
        raise TypeError("no such\ndescriptor")


def toy(outputs: Path, **options: object) -> TrainConfig:
    (outputs / "toy" / "train" / "checkpoints").mkdir(parents=True, exist_ok=True)
    base = TrainConfig(run="toy", preset="demo", epochs=4, batch_size=4, lr=0.1, outputs=str(outputs), init="he")
    return dataclasses.replace(base, model=toy_table(8, 5), input_scale=0.01, **options)  # type: ignore[arg-type]


def test_the_best_weights_are_those_of_the_lowest_top1_error(tmp_path: Path) -> None:
    """Which is not where the top-5 error is lowest, and the first of two equal ones; the plateau looks at it as well."""
    data = toy_data(8, size=8)
    task = Scripted(data, [(50, 30), (40, 35), (45, 10), (40, 50)])
    Training(toy(tmp_path, patience=2), Team(0, 1, torch.device("cpu")), data, task).run()
    assert load_checkpoint(tmp_path / "toy" / "train" / "checkpoints" / "best.pt")["epoch"] == 2
    assert load_checkpoint(tmp_path / "toy" / "train" / "checkpoints" / "last.pt")["trainer"]["rate"]["factor"] == 0.1


def test_a_training_that_ends_in_its_warm_up_says_so_and_what_would_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = toy_data(8, size=8)
    team, task = Team(0, 1, torch.device("cpu")), Scripted(data, [(50, 30)] * 4)
    Training(toy(tmp_path, warmup_steps=8), team, data, task).run()
    assert "warmup_steps" not in capsys.readouterr().out
    Training(toy(tmp_path, warmup_steps=20), team, data, task)._say_begun()
    said = capsys.readouterr().out
    assert "8 updates in all" in said and "warmup_steps=20" in said and "passes=6" in said
    Training(toy(tmp_path, warmup_steps=20, passes=6), team, data, task)._say_begun()
    assert "warmup_steps" not in capsys.readouterr().out


def test_of_several_labels_one_is_learned_and_that_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = toy_data(8, size=8)
    several = dataclasses.replace(data, train=dataclasses.replace(data.train, multi=np.ones((8, 3), np.int8)))
    for given in (data, several):
        Training(toy(tmp_path), Team(0, 1, torch.device("cpu")), given, Classification(given)).run()
        said = "its images have several labels, of which the first alone is learned, and counts as right"
        assert (said in capsys.readouterr().out) == (given is several)


def test_of_few_classes_no_top5_error_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three are among any five guesses; the file of metrics keeps its keys."""
    data = toy_data(8, size=8)
    Training(toy(tmp_path), Team(0, 1, torch.device("cpu")), data, Classification(data)).run()
    said = capsys.readouterr().out
    assert "best validation error" in said and "top-5" not in said
    assert lines(tmp_path, "toy")[-1]["val_top5_error"] == 0


def test_a_broken_tensorboard_stops_no_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken by a protobuf of another version, say; that is told once."""
    _summary_writer.cache_clear()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", Broken("torch.utils.tensorboard"))
    data = toy_data(8, size=8)
    Training(toy(tmp_path), Team(0, 1, torch.device("cpu")), data, Classification(data)).run()
    _summary_writer.cache_clear()
    assert len(lines(tmp_path, "toy")) == 4
    assert capsys.readouterr().err.count("tensorboard is broken here and gets no events (no such descriptor)") == 1


def alone(config: TrainConfig, saved: dict[str, object] | None = None) -> Training:
    data = toy_data(8, size=8)
    return Training(config, Team(0, 1, torch.device("cpu")), data, Classification(data), saved)


def test_an_epoch_is_noted_when_its_last_checkpoint_is_there(tmp_path: Path) -> None:
    """Other commands take a training for finished by metrics.jsonl, and then its last.pt for the last weights."""
    config = toy(tmp_path, epochs=1, data=DataConfig(name="embedded", size=8), snapshot_epochs=[])
    folder = Folder(config)
    folder.last.mkdir()  # cannot be replaced by a file, as on a disk that is full
    with pytest.raises(OSError):
        alone(config).run()
    assert not folder.ended
    folder.last.rmdir()
    alone(config).run()
    write_config(folder.path / "config.yaml", config)
    assert folder.ended and finished(config)
    text = (folder.path / "metrics.jsonl").read_text()
    for name in ("metrics.jsonl", "curves.png"):  # stopped behind last.pt
        (folder.path / name).unlink()
    alone(config, load_checkpoint(folder.last)).run()
    assert (folder.path / "metrics.jsonl").read_text() == text
    folder.last.unlink()
    assert not finished(dataclasses.replace(config, lr=0.2)) and not finished(config)


def test_more_processes_than_validation_images(tmp_path: Path) -> None:
    data = toy_data(8, size=8)
    with pytest.raises(UserError, match="4 processes: more than the 3 validation images"):
        few = dataclasses.replace(data, val=dataclasses.replace(data.val, labels=data.val.labels[:3]))
        Training(toy(tmp_path), Team(0, 4, torch.device("cpu")), few, Classification(few))


TEAM = (
    """
import atexit, contextlib, dataclasses, importlib, os, shutil, socket, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import torch._dynamo  # an optimiser loads it
from conftest import toy_data
from test_train import toy
from zfrepro.checkpoints import load_checkpoint
from zfrepro.errors import UserError
from zfrepro.trainer.distributed import team
from zfrepro.trainer.progress import Totals
from zfrepro.trainer.tasks import Classification
from zfrepro.trainer.train import Training
from zfrepro.workers import Interrupted

outputs = Path(sys.argv[1])
data = toy_data(16, 8)
"""
    + FORKED
    + """

class Nan(Classification):
    calls = 0
    def loss(self, outputs, targets):
        loss, wrong = super().loss(outputs, targets)
        self.calls += 1
        return (loss * float("nan") if self.calls == 4 and os.environ["RANK"] == "1" else loss), wrong

class Told(Classification):
    told = False
    def loss(self, outputs, targets):
        if os.environ["RANK"] == "1" and not self.told:
            os.kill(os.getpid(), 15)
        self.told = True
        return super().loss(outputs, targets)

class Dies(Classification):
    def loss(self, outputs, targets):
        if os.environ["RANK"] == "1":
            os._exit(9)
        return super().loss(outputs, targets)

def ends(task, run, **options):
    try:
        training = Training(toy(outputs / run, **options), members, data, task(data))
        training.run()
    except (UserError, Interrupted, IsADirectoryError) as error:
        line = f"{run} {members.rank}: {error}"
    else:
        line = f"{run} {members.rank}: trained"
    (outputs / f"{run}{members.rank}").write_text(line)

def unlike(name, data, folder="unlike", **options):
    training = importlib.import_module("zfrepro.trainer.train")
    training.team = lambda device: contextlib.nullcontext(members)
    try:
        training.train(toy(outputs / folder, **options), data)
    except UserError as error:
        (outputs / f"{name}{members.rank}").write_text(str(error))

with team("cpu") as members:
    unlike("options", data, seed=members.rank)
    unlike("pictures", dataclasses.replace(data, key=f"toy {members.rank}"))
    training = importlib.import_module("zfrepro.trainer.train")
    ours = training.code_hash
    training.code_hash = lambda: f"code {members.rank}"
    unlike("code", data)
    training.code_hash = ours
    training.resolve_precision = lambda asked, device: "fp32" if members.leads else "bf16"
    unlike("precision", data)
    training.resolve_precision = lambda asked, device: "fp32"
    ends(Nan, "nan")
    ends(Told, "told", checkpoint_every=2, epochs=1)
    saved = load_checkpoint(outputs / "told" / "toy" / "train" / "checkpoints" / "last.pt")
    again = Training(toy(outputs / "told", checkpoint_every=2, epochs=1), members, data, Classification(data), saved)
    (outputs / f"images{members.rank}").write_text(str(Totals.of(again.at.tally, members).images))
    if members.leads:
        shutil.copytree(outputs / "told", outputs / "mine0")
    unlike("own", data, f"mine{members.rank}", checkpoint_every=2, epochs=1)
    if members.leads:
        (outputs / "full" / "toy" / "train" / "checkpoints" / "best.pt").mkdir(parents=True)
    ends(Classification, "full")
    Training(toy(outputs / "dies"), members, data, Dies(data)).run()
"""
)


UNLIKE = {
    "options": "seed: 1 for RANK=1, 0 for RANK=0; give all the same options",
    "pictures": "data: toy 1 for RANK=1, toy 0 for RANK=0; all machines need the same images",
    "code": "zfrepro: code 1 for RANK=1, code 0 for RANK=0; give all the same options and version",
    "precision": "precision: bf16 for RANK=1, fp32 for RANK=0; give precision=fp32",
    "own": "for RANK=0; give outputs=<a folder that all machines share>",
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_what_one_process_meets_ends_all(tmp_path: Path) -> None:
    """A loss that is no number, a signal, a file that cannot be written: seen by one of two processes, heard by both. One that
    is killed is missed by the other. Two machines with other options, images or folders do not train together."""
    script = tmp_path / "team.py"
    script.write_text(TEAM)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(Path(__file__).parent)],
        capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 1 and "UserError: RANK=0: another of the 2 processes has ended" in done.stderr
    for rank in "01":
        assert "the loss is not finite in epoch 1 by step 4" in (tmp_path / f"nan{rank}").read_text()
        assert "stopped by SIGTERM" in (tmp_path / f"told{rank}").read_text()
        assert (tmp_path / f"images{rank}").read_text() == "8.0"  # of two steps, counted once
        for name, says in UNLIKE.items():
            assert says in (tmp_path / f"{name}{rank}").read_text()
    assert "the process that writes the files could not go on" in (tmp_path / "full1").read_text()
    assert "Is a directory" in (tmp_path / "full0").read_text()  # its own failure


def test_no_finite_loss_stops(zfrepro: Zfrepro, tmp_path: Path) -> None:
    done = zfrepro("train", f"outputs={tmp_path}", "run=wild", *TINY, "lr=1e9", "renorm_radius=null", check=False)
    assert (
        done.returncode == 2 and "the loss is not finite in epoch 1" in done.stderr and "try a lower lr" in done.stderr
    )


class Spoilt(Classification):
    """One bias becomes no number in the second epoch's last update: no loss of that epoch is computed with it."""

    calls, bias = 0, torch.empty(0)

    def loss(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        if self.calls == 4:
            self.bias[1] = torch.nan
        return super().loss(outputs, targets)


def test_weights_that_are_no_numbers_are_not_kept(tmp_path: Path) -> None:
    data = toy_data(8, size=8)
    task = Spoilt(data)
    training = Training(toy(tmp_path), Team(0, 1, torch.device("cpu")), data, task)
    task.bias = training.network.get_parameter("weights.2.bias").data
    with pytest.raises(UserError, match=r"weights are not finite in epoch 2 by step 2 \(lr"):
        training.run()
    folder = tmp_path / "toy" / "train"
    for name in ("best", "last"):
        saved = load_checkpoint(folder / "checkpoints" / f"{name}.pt")
        assert saved["epoch"] == 1 and all(weights.isfinite().all() for weights in saved["model"].values())
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 1


def test_renormalisation_holds_the_radius(zfrepro: Zfrepro, tmp_path: Path) -> None:
    zfrepro("train", f"outputs={tmp_path}", "run=small", *TINY, "renorm_radius=0.005", "epochs=1")
    for layer in range(1, 6):
        rms = weights(tmp_path, "small")[f"weights.{layer}.weight"].square().mean((1, 2, 3)).sqrt()
        assert rms.max() <= 0.005 * (1 + 1e-5)
    assert lines(tmp_path, "small")[0]["filters_renormalized"]["1"] > 0  # type: ignore[index]


def test_resume_false_starts_over(zfrepro: Zfrepro, tmp_path: Path) -> None:
    args = ["train", f"outputs={tmp_path}", "run=r", *TINY, "epochs=1"]
    zfrepro(*args)
    first = weights(tmp_path, "r")
    zfrepro(*args, "seed=5", "resume=false")
    assert not torch.equal(first["weights.1.weight"], weights(tmp_path, "r")["weights.1.weight"])


def test_a_training_that_cannot_begin_takes_nothing_away(zfrepro: Zfrepro, tiny_run: Path, tmp_path: Path) -> None:
    """Started over with a mistake among the options: what stood there stands there still."""
    shutil.copytree(tiny_run / "tiny" / "train", tmp_path / "tiny" / "train")
    names = {path: path.stat().st_size for path in (tmp_path / "tiny" / "train").rglob("*") if path.is_file()}
    for wrong in ("batch_size=100000", "freeze=99", "data=folder"):
        done = zfrepro("train", f"outputs={tmp_path}", "run=tiny", *TINY, "resume=false", wrong, check=False)
        assert done.returncode == 2, done.stderr
        assert {path: path.stat().st_size for path in names if path.exists()} == names


def test_sweep(zfrepro: Zfrepro, tmp_path: Path) -> None:
    zfrepro("train", "-m", "seed=0,1", "run=s${seed}", *TINY, "epochs=1", cwd=tmp_path)
    assert {path.name for path in (tmp_path / "outputs").iterdir() if path.is_dir()} == {"s0", "s1"}


def test_evaluate_and_average(zfrepro: Zfrepro, tiny_run: Path, tmp_path: Path) -> None:
    for name in ("tiny", "twin"):
        shutil.copytree(tiny_run / "tiny" / "train", tmp_path / name / "train")
    done = zfrepro("evaluate", f"outputs={tmp_path}", "run=tiny", "runs=[tiny,twin]", check=False)
    assert done.returncode == 2 and "runs=twin: has the very weights of tiny" in done.stderr
    of_its_own(tmp_path / "twin")
    zfrepro("evaluate", f"outputs={tmp_path}", "run=tiny", "runs=[tiny,twin]")
    folder = tmp_path / "tiny" / "table2_imagenet"
    metrics = json.loads((folder / "metrics.json").read_text())["runs"]
    assert metrics["average of 2"] == metrics["tiny"]
    table = (folder / "table.csv").read_text()
    assert "zfnet (5 convnets) (a),36.7,15.3,15.3" in table and "ours: average of 2" in table
    rows = [json.loads(x) for x in (tiny_run / "tiny" / "train" / "metrics.jsonl").read_text().splitlines()]
    assert metrics["tiny"]["val_top1_error_centre"] == pytest.approx(
        min(row["val_top1_error"] for row in rows), abs=0.01
    )
