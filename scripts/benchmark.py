"""Timings behind the numbers in the README. Each sub-command compares ours with a plain baseline in one process.

python scripts/benchmark.py deconv       windowed projections against automatic differentiation, and top-nine search
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import Tensor

from zfrepro.config import ModelConfig, conf_folder, to_dataclass
from zfrepro.models.network import Network, initialise


def network_of(name: str, num_classes: int, biases: float = 0.0) -> Network:
    """A network of conf/model/<name>.yaml with He's random weights, laid out as in training."""
    config = to_dataclass(OmegaConf.create(OmegaConf.load(conf_folder() / "model" / f"{name}.yaml")), ModelConfig)  # type: ignore[arg-type]
    network = Network(config, num_classes)
    initialise(network, "he", 0)
    return network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def seconds(work: Callable[[], object], repeats: int) -> float:
    """The best of `repeats` wall-clock times, after one unmeasured call."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


# ---------------------------------------------------------------------------------------------------------------- deconv


def strongest_units(network: Network, images: Tensor, layer: int, maps: int) -> tuple[Tensor, Tensor]:
    """The place of the maximum of the first `maps` maps in every image: units (maps * N, 3) and their images."""
    found = torch.cat([network.features(chunk, [layer])[layer][:, :maps] for chunk in images.split(16)])
    place = found.flatten(2).argmax(2)  # (N, maps)
    which, number = torch.meshgrid(torch.arange(len(images)), torch.arange(maps), indexing="ij")
    width = found.shape[-1]
    units = torch.stack([number, place // width, place % width], -1).reshape(-1, 3)
    return units, which.reshape(-1)


def deconv(args: argparse.Namespace) -> None:
    """16 maps x 9 images of each layer of the full ZFNet: every unit of an image of its own, as a top-nine's are."""
    from zfrepro.models.oracle import autograd_projections
    from zfrepro.models.window import project_windows

    network = network_of(args.model, 1000)
    size, count = network.input_size, args.maps * args.images
    images = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 60
    images = images.to(memory_format=torch.channels_last)
    print(
        f"{args.model} {size} px, {args.maps} maps x {args.images} images, {torch.get_num_threads()} threads, seconds"
    )
    print(f"{'layer':>5} {'ours':>8} {'oracle':>8} {'one by one':>11} {'ratio':>7} {'ratio':>7}  largest difference")
    totals = [0.0, 0.0, 0.0]
    for layer in network.conv_layers:
        with torch.no_grad():
            numbers = torch.arange(count) % args.maps
            spots = torch.cat([network.features(part, [layer])[layer] for part in images.split(16)])
            own = spots[torch.arange(count), numbers].flatten(1).argmax(1)
            units = torch.stack([numbers, own // spots.shape[-1], own % spots.shape[-1]], 1)
            del spots

        def ours(layer: int = layer, units: Tensor = units) -> Tensor:
            return project_windows(network, images, layer, units).on_images()

        def oracle(layer: int = layer, units: Tensor = units, batch: int = args.batch) -> Tensor:
            pairs = zip(images.split(batch), units.split(batch))
            return torch.cat([autograd_projections(network, part, layer, own) for part, own in pairs])

        difference = float((ours() - oracle()).abs().max() / oracle().abs().max())
        times = [seconds(ours, args.repeats), seconds(oracle, args.repeats), seconds(lambda: oracle(batch=1), 1)]
        totals = [total + own for total, own in zip(totals, times)]
        a, b, c = times
        print(f"{layer:>5} {a:>8.3f} {b:>8.3f} {c:>11.3f} {b / a:>6.1f}x {c / a:>6.1f}x  {difference:.1e}", flush=True)
    a, b, c = totals
    print(f"total {a:>8.3f} {b:>8.3f} {c:>11.3f} {b / a:>6.1f}x {c / a:>6.1f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("deconv", help=deconv.__doc__)
    command.set_defaults(work=deconv)
    command.add_argument("--model", default="zfnet")
    command.add_argument("--maps", type=int, default=16)
    command.add_argument("--images", type=int, default=9)
    command.add_argument("--batch", type=int, default=16, help="images of a batch of the oracle")
    command.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work(args)


if __name__ == "__main__":
    main()
