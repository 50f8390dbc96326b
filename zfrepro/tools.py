"""The commands around the experiments: prepare, summary, doctor."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from zfrepro import __version__
from zfrepro.data import find_problems, open_data, packed_folder
from zfrepro.devices import resolve_precision
from zfrepro.files import shown
from zfrepro.models.network import Network, multiply_adds
from zfrepro.models.table import conv_ops, op_sizes, receptive_field
from zfrepro.options.commands import DoctorConfig, SummaryConfig, TrainConfig


def prepare(config: TrainConfig) -> None:
    """`zfrepro prepare`: build the packed data set, or say that it is there."""
    there = packed_folder(config.data).exists()
    data = open_data(config.data)
    size = sum(file.stat().st_size for file in data.folder.iterdir())
    print(
        f"{config.data.name}: {len(data.train)} training and {len(data.val)} validation images of {data.num_classes} classes"
    )
    print(f"{'already packed in' if there else 'wrote'} {shown(data.folder)} ({size / 1e6:.0f} MB)")


def summary(config: SummaryConfig) -> None:
    """`zfrepro summary`: print the layer table (paper, Fig. 3)."""
    with torch.device("meta"):
        network = Network(config.model, config.num_classes)
    print("\n".join(layer_table(network)))


def layer_table(network: Network) -> list[str]:
    """Lines of the layer table: what each layer is, its output, receptive field / stride in pixels, parameters and
    multiply-adds for one image."""
    side = network.input_size
    lines = [
        f"{network.config.name}: input {network.channels}x{side}x{side}, {network.num_classes} classes",
        f"{'layer':<8}{'what':<46}{'output':>12}{'field/stride':>14}{'parameters':>14}{'multiply-adds':>16}",
    ]
    work = multiply_adds(network)
    parameters = {int(name): sum(p.numel() for p in module.parameters()) for name, module in network.weights.items()}
    for layer in network.layers:
        what, output, seen = f"{layer.outputs} units", f"{layer.outputs}", ""
        if layer.kind == "conv":
            ops = conv_ops(network.layers, layer.number)
            field, side = receptive_field(ops), op_sizes(ops, network.input_size)[-1]
            what = f"{layer.outputs} maps: " + ", ".join(
                _describe(op.kind, op.kernel, op.stride, op.padding) for op in layer.ops
            )
            output, seen = f"{layer.outputs}x{side}x{side}", f"{field.size}/{field.stride}"
        n = layer.number
        lines.append(f"{n:<8}{what:<46}{output:>12}{seen:>14}{parameters[n]:>14,}{work[n]:>16,}")
    n = network.softmax
    lines.append(f"{n:<8}{'softmax':<46}{network.num_classes:>12}{'':>14}{parameters[n]:>14,}{work[n]:>16,}")
    total, extra = sum(work.values()), _other_operations(network)
    lines.append(f"{'total':<80}{sum(parameters.values()):>14,}{total:>16,}")
    lines.append(
        f"{total / 1e9:.2f} G multiply-adds in the weights, {(total + extra) / 1e9:.2f} G with biases, pooling and normalisation"
    )
    return lines


def _describe(kind: str, kernel: int, stride: int, padding: int) -> str:
    if kind in ("relu", "norm"):
        return kind
    return f"{kernel}x{kernel}/{stride}" + (f" pad {padding}" if padding else "") + (" pool" if kind == "pool" else "")


def _other_operations(network: Network) -> int:
    """Biases (one addition an output), pooling (one comparison a window element), normalisation (size + 2 an element)."""
    ops = conv_ops(network.layers)
    outputs = {layer.number: layer.outputs for layer in network.layers}
    costs = {"conv": 1, "relu": 0, "norm": network.config.norm_size + 2}
    return sum(
        outputs[op.layer] * size * size * (op.kernel**2 if op.kind == "pool" else costs[op.kind])
        for op, size in zip(ops, network.sizes[1:])
    ) + sum(layer.outputs for layer in network.layers if layer.kind == "fc")


def doctor(config: DoctorConfig) -> None:
    """`zfrepro doctor`: print what is there and what is wrong with it."""
    names = ("torch", "torchvision", "hydra-core", "omegaconf", "numpy", "matplotlib", "scikit-learn", "tensorboard")
    print(f"zfrepro {__version__}, Python {platform.python_version()} on {platform.platform()}")
    print("packages: " + ", ".join(f"{name} {_version(name)}" for name in names))
    print(
        f"cpu: {os.cpu_count()} cores, {torch.get_num_threads()} threads; precision=auto means {_auto(torch.device('cpu'))}"
    )
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30
        device = torch.device("cuda", index)
        print(
            f"gpu {index}: {torch.cuda.get_device_name(index)}, {memory:.0f} GiB; precision=auto means {_auto(device)}"
        )
    if not torch.cuda.device_count():
        print("gpu: none" + ("" if torch.backends.cuda.is_built() else " (torch is a CPU build)"))
    outputs = Path(config.outputs).expanduser().resolve()
    runs = sorted(path.parent.parent.name for path in outputs.glob("*/train/config.yaml"))
    print(f"runs in {shown(outputs)}/: {', '.join(runs) or 'none yet; begin with `zfrepro train`'}")
    cache = Path(config.data.cache).expanduser()
    packed = sorted(path.parent.name for path in cache.glob("*/manifest.json"))
    print(f"packed data sets in {cache}: {', '.join(packed) or 'none yet'}; {_free(cache):.0f} GB free")
    problems = find_problems(config.data)
    print(f"data={config.data.name}: " + ("ready" if not problems else "not usable:"))
    for problem in problems:
        print(f"  - {problem}")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _auto(device: torch.device) -> str:
    return resolve_precision("auto", device)


def _free(folder: Path) -> float:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free / 1e9
