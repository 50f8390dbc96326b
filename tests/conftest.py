"""Fixtures that several test files share."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import pickle
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from zfrepro.data import Packed, Split, examine, open_data
from zfrepro.data.packed import Whole
from zfrepro.options.compose import conf_folder, load_model, to_dataclass
from zfrepro.options.identity import write_config
from zfrepro.options.shared import Common, DataConfig, LayerConfig, ModelConfig
from zfrepro.run import TrainedRun, open_run
from zfrepro.workers import in_parallel

T = TypeVar("T")

# The demo's network with a quarter of its maps and units.
NARROW = [
    *(f"model.layers.{row}.maps={maps}" for row, maps in enumerate((8, 24, 32, 32, 24))),
    *(f"model.layers.{row}.units=128" for row in (5, 6)),
]
# A demo in seconds: that network, a few of the embedded data set's images a class and a handful of steps.
TINY = [
    *NARROW,
    "data.train_per_class=3",
    "data.val_per_class=2",
    "epochs=2",
    "batch_size=40",
    "warmup_steps=2",
    "precision=fp32",
]


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data cache of the whole test session: a folder of its own, never the user's."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["ZFREPRO_CACHE"] = str(folder)
    yield folder


@pytest.fixture(scope="session", autouse=True)
def signals() -> Iterator[None]:
    """As at a terminal: a program that is begun in the background hears no Ctrl-C, one of nohup's no SIGHUP, nor would those that
    it begins."""
    usual = {"SIGINT": signal.default_int_handler, "SIGHUP": signal.SIG_DFL}
    known = {getattr(signal, name): handler for name, handler in usual.items() if hasattr(signal, name)}
    before = {
        number: signal.signal(number, known[number]) for number in known if signal.getsignal(number) == signal.SIG_IGN
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def latest(words: Sequence[str]) -> list[str]:
    """Of an option that is given twice the last, so that a test may give TINY and something else."""
    last = {word.partition("=")[0]: place for place, word in enumerate(words)}
    return [word for place, word in enumerate(words) if "=" not in word or last[word.partition("=")[0]] == place]


Zfrepro = Callable[..., "subprocess.CompletedProcess[str]"]
Refused = Callable[..., str]


@pytest.fixture(scope="session")
def zfrepro() -> Zfrepro:
    """Run the program as a user would, but in this process (importing torch takes seconds):
    zfrepro('train', 'epochs=1', cwd=folder); its status is checked unless check=False."""
    from zfrepro import cli

    def run(*args: str, cwd: Path | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        out, err, argv, here = io.StringIO(), io.StringIO(), sys.argv, Path.cwd()
        heard = signal.getsignal(signal.SIGINT)
        try:
            sys.argv = ["zfrepro", *latest(args)]
            os.chdir(cwd or here)
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    cli.main()
                except SystemExit as stop:
                    status = int(stop.code or 0)
                except Exception:
                    traceback.print_exc()
                    status = 1
        finally:
            sys.argv = argv
            os.chdir(here)
            signal.signal(signal.SIGINT, heard)
        if check and status:
            raise AssertionError(f"{' '.join(args)} ended with {status}:\n{out.getvalue()}\n{err.getvalue()}")
        return subprocess.CompletedProcess(args, status, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def refused(zfrepro: Zfrepro) -> Refused:
    """Run the program with a mistake: refused("train", "epochs=0", cwd=folder) is the one line that it ends in."""

    def run(*args: str, cwd: Path | None = None) -> str:
        done = zfrepro(*args, cwd=cwd, check=False)
        lines: list[str] = done.stderr.splitlines()
        assert done.returncode == 2 and len(lines) == 1, done.stdout + done.stderr
        return lines[0]

    return run


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, zfrepro: Zfrepro, cache: Path) -> Path:
    """An outputs folder with one run, `tiny`: a demo network of two short epochs. Use outputs=<it> run=tiny."""
    outputs = tmp_path_factory.mktemp("outputs")
    zfrepro("train", f"outputs={outputs}", "run=tiny", "snapshot_epochs=[1,2]", *TINY)
    return outputs


@pytest.fixture(scope="session")
def run(tiny_run: Path) -> TrainedRun:
    """The run `tiny`, opened: not to be changed."""
    return open_run(Common(run="tiny", outputs=str(tiny_run), precision="fp32"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tensors that are small are computed faster by one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def composed(command: str, options: type[T], *words: str) -> T:
    """The options of a command, its config with some words of Hydra's."""
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return to_dataclass(compose(command, list(words)), options)


def small_table(size: int = 31, **last: int) -> ModelConfig:
    """An awkward little table: odd sizes, overlapping pools, both orders of normalisation."""
    return ModelConfig(
        name="small",
        input_size=size,
        layers=[
            LayerConfig(
                maps=5, kernel=5, stride=2, padding=1, pool=3, pool_stride=2, pool_padding=1, norm="after_pool"
            ),
            LayerConfig(maps=6, kernel=3, stride=1, padding=2, pool=3, pool_stride=2, norm="before_pool"),
            LayerConfig(maps=4, kernel=3, stride=1, padding=1, pool=2, pool_stride=1),
            LayerConfig(kind="fc", units=7, dropout=0.5),
        ],
    )


def narrow(name: str, by: int = 4) -> ModelConfig:
    """A network of conf/model with its geometry and a `by`-th of its maps and units."""
    config = load_model(name)
    for row in config.layers:
        row.maps, row.units = row.maps // by, row.units // by
    return config


def narrow_file(folder: Path, name: str, by: int = 4) -> str:
    """The same as a file: model=<it>."""
    write_config(path := folder / f"{name}.yaml", narrow(name, by))
    return str(path)


def of_its_own(folder: Path, epoch: int = 7) -> None:
    """Let the copy of a run count as a training of its own: its weights stay, the epoch behind them is another."""
    path = folder / "train" / "checkpoints" / "best.pt"
    torch.save(torch.load(path, weights_only=True) | {"epoch": epoch}, path)


def handed_over(tasks: Sequence[Callable[[], Any]], *others: Any) -> list[Any]:
    """In the place of `in_parallel`: the tasks as another process would get them, worked on here, without its imports."""
    return in_parallel(pickle.loads(pickle.dumps(tasks)), *others)


def toy_table(size: int, units: int) -> ModelConfig:
    """One convolution over the whole input, and the softmax."""
    return ModelConfig(name="toy", input_size=size, layers=[LayerConfig(maps=units, kernel=size)])


def toy_data(count: int, size: int) -> Packed:
    """Noise of three classes, in memory: `count` images to train on, three to validate on."""
    known = open_data(DataConfig(name="embedded", size=64, train_per_class=3, val_per_class=2))
    pixels = np.random.default_rng(0).integers(0, 256, (count + 3, size, size, 3)).astype(np.uint8)
    labels = np.arange(count + 3) % 3
    return dataclasses.replace(
        known,
        key="toy",
        class_names=("a", "b", "c"),
        mean=np.full((size, size, 3), 127.5, np.float32),
        train=Split("train", pixels[3:], labels[3:], [""] * count),
        val=Split("val", pixels[:3], labels[:3], [""] * 3),
    )


def toy_whole(count: int) -> Packed:
    """The same with pictures of many shapes, 9 to 13 pixels a side."""
    data = toy_data(count, 13)
    rng = np.random.default_rng(1)

    def ragged(split: Split) -> Split:
        shapes = rng.integers(9, 14, (len(split), 2))
        offsets = np.concatenate([[0], shapes.prod(1).cumsum()[:-1]])
        flat = np.concatenate([image[:h, :w].ravel() for image, (h, w) in zip(split.images, shapes)])
        return dataclasses.replace(split, images=Whole(flat, shapes, offsets, 3))  # type: ignore[arg-type]

    pixels = rng.normal(size=(50, 3)) @ np.diag([30.0, 20.0, 10.0]) @ rng.normal(size=(3, 3))
    return dataclasses.replace(
        data,
        manifest={**data.manifest, "fit": "whole"},
        colour=np.array([120.0, 130.0, 110.0]),
        covariance=np.cov(pixels.T),
        train=ragged(data.train),
        val=ragged(data.val),
    )


def data_config(folder: Path, name: str, root: Path | str | None, **changes: object) -> DataConfig:
    """A data set at 16 pixels, packed by this process into a cache in `folder`."""
    settings: dict[str, object] = {"size": 16, "root": str(root) if root else None, "workers": 1}
    settings |= {"cache": str(folder / "cache")} | changes
    return DataConfig(name=name, **settings)  # type: ignore[arg-type]


def find_problems(config: DataConfig) -> list[str]:
    """What is wrong with a data set."""
    return examine(config)[0]


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory, zfrepro: Zfrepro, tiny_run: Path) -> Path:
    """A run's folder with a few small experiments and the page on it; the others are missing. Do not write into it."""
    outputs = tmp_path_factory.mktemp("reported")
    shutil.copytree(tiny_run / "tiny" / "train", outputs / "tiny" / "train")
    pictures = []
    for seed, name in enumerate(("first.png", "second.png")):
        pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(outputs / name)
        pictures.append(str(outputs / name))
    where = (f"outputs={outputs}", "run=tiny", "precision=fp32")
    zfrepro("visualize", *where, "num_maps=3")
    zfrepro("evolve", *where, "num_maps=2", "alike_maps=4")
    zfrepro("occlude", *where, f"images=[{','.join(pictures)}]", "stride=6", "claims_images=0")
    zfrepro("evaluate", *where)
    zfrepro("report", *where)
    return outputs / "tiny"
