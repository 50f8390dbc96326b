"""The commands around the experiments: prepare, summary, doctor."""

from __future__ import annotations

import os
import platform
import shutil

import torch

from zfrepro import __version__
from zfrepro.checkpoints import checkpoint_of, load_checkpoint
from zfrepro.data import examine, not_used, open_data, packed_folder
from zfrepro.devices import resolve_precision
from zfrepro.files import nearest_existing, shown
from zfrepro.models.network import Network, multiply_adds
from zfrepro.models.summary import COLUMNS, describe, on_paper, other_operations
from zfrepro.options.commands import DoctorConfig, SummaryConfig, TrainConfig
from zfrepro.provenance import versions
from zfrepro.run import load_config, runs_in


def prepare(config: TrainConfig) -> None:
    """`zfrepro prepare`: build the packed data set, or say that it is there."""
    there = packed_folder(config.data).exists()
    data = open_data(config.data)
    size = sum(file.stat().st_size for file in data.folder.iterdir())
    print(
        f"{config.data.name}: {len(data.train)} training and {len(data.val)} validation images of {data.num_classes} classes"
    )
    for line in not_used(config.data) if there else ():
        print(f"note: {line}")
    print(f"{'already packed in' if there else 'wrote'} {shown(data.folder)} ({size / 1e6:.0f} MB)")


def summary(config: SummaryConfig) -> None:
    """`zfrepro summary`: print the layer table (ZF Fig. 3; VGG Tables 1, 2), of a run or of one that is described."""
    model, outputs = config.model, config.num_classes
    if config.run:
        model = load_config(config.folder, config.run).model
        outputs = len(load_checkpoint(checkpoint_of(config.folder))["class_names"])
    print("\n".join(layer_table(on_paper(model, outputs))))


def layer_table(network: Network) -> list[str]:
    """Lines of the layer table: what each layer is, its output, receptive field / stride in pixels, parameters and
    multiply-adds for one image."""
    side, work = network.input_size, sum(multiply_adds(network).values())
    total = ["total", "", "", "", "", f"{sum(p.numel() for p in network.parameters()):,}", f"{work:,}"]
    lines = [[*COLUMNS[:4], "field/stride", *COLUMNS[5:]], *describe(network), total]
    classes = f"{network.outputs} classes" if network.outputs else "no classifier"
    return [
        f"{network.config.name}: input {network.channels}x{side}x{side}, {classes}",
        *aligned(lines, texts=3),
        f"{amount(work)} multiply-adds in the weights, {amount(work + other_operations(network))} with biases, pooling and "
        "normalisation",
    ]


def amount(operations: int) -> str:
    """'7.61 G', '42.8 M'."""
    return f"{operations / 1e9:.2f} G" if operations >= 1e9 else f"{operations / 1e6:.1f} M"


def aligned(lines: list[list[str]], texts: int) -> list[str]:
    """Columns of equal width, the first `texts` of them flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    return [
        "  ".join(
            cell.ljust(width) if i < texts else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths))
        )
        for line in lines
    ]


def doctor(config: DoctorConfig) -> None:
    """`zfrepro doctor`: print what is there and what is wrong with it."""
    names = ("torch", "torchvision", "hydra-core", "omegaconf", "numpy", "matplotlib", "scikit-learn", "tensorboard")
    there = versions(*names)
    print(f"zfrepro {__version__}, Python {platform.python_version()} on {platform.platform()}")
    print("packages: " + ", ".join(f"{name} {there.get(name, 'not installed')}" for name in names))
    auto = resolve_precision("auto", torch.device("cpu"))
    print(f"cpu: {os.cpu_count()} cores, {torch.get_num_threads()} threads; precision=auto means {auto}")
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30
        name, auto = torch.cuda.get_device_name(index), resolve_precision("auto", torch.device("cuda", index))
        print(f"gpu {index}: {name}, {memory:.0f} GiB; precision=auto means {auto}")
    if not torch.cuda.device_count():
        print("gpu: none" + ("" if torch.backends.cuda.is_built() else " (torch is a CPU build)"))
    outputs = config.runs_folder
    runs = runs_in(outputs)
    print(f"runs in {shown(outputs)}{os.sep}: {', '.join(runs) or 'none yet; begin with `zfrepro train`'}")
    cache = config.data.cache_folder
    packed, place = sorted(path.parent.name for path in cache.glob("*/manifest.json")), nearest_existing(cache)
    free = f"; {shutil.disk_usage(place).free / 1e9:.0f} GB free" if place else ""
    print(f"packed data sets in {cache}: {', '.join(packed) or 'none yet'}{free}")
    problems, notes = examine(config.data)
    print(f"data={config.data.name}: " + ("ready" if not problems else "not usable:"))
    for line in [*problems, *notes]:
        print(f"  - {line}")
