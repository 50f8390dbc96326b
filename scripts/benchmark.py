"""Timings behind the numbers in the README. Each sub-command compares ours with a plain baseline in one process.

python scripts/benchmark.py train        the training loop against a bare forward-backward-step loop on random tensors
python scripts/benchmark.py deconv       windowed projections against automatic differentiation, and top-nine search
python scripts/benchmark.py occlusion    the incremental occluder against brute force, and against one position at a time
python scripts/benchmark.py crops        scale-jittered crops out of packed pixels, and out of JPEG files
python scripts/benchmark.py evaluate     dense evaluation of VGG-D against separate crops, and against torchvision's VGG-16
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from itertools import product
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zfrepro.models.network import Network, initialise
from zfrepro.options.compose import conf_folder, load_model, to_dataclass


def network_of(name: str, num_classes: int) -> Network:
    """A network of conf/model/<name>.yaml with He's random weights, laid out as in training."""
    network = Network(load_model(name), num_classes)
    initialise(network, "he", 0)
    return network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def elapsed(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def seconds(work: Callable[[], object], repeats: int) -> float:
    """The best of `repeats` wall-clock times, after one unmeasured call."""
    work()
    return min(elapsed(work) for _ in range(repeats))


# ----------------------------------------------------------------------------------------------------------------- train


def train(args: argparse.Namespace) -> None:
    """Images per second of `zfrepro train`'s own steps, fed from a packed data set, against the same model's bare
    forward-backward-step loop on one random batch; the two in turn, `args.rounds` times."""
    import dataclasses
    import tempfile

    from hydra import compose, initialize_config_dir

    from zfrepro.data import open_data
    from zfrepro.models.network import Noise
    from zfrepro.options.commands import TrainConfig
    from zfrepro.trainer.distributed import Team
    from zfrepro.trainer.feed import epoch_order
    from zfrepro.trainer.tasks import Classification
    from zfrepro.trainer.train import Training

    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = to_dataclass(compose("train", [f"preset={args.preset}", *args.overrides]), TrainConfig)
    with tempfile.TemporaryDirectory() as outputs:
        data = open_data(config.data)
        team = Team(0, 1, torch.device("cpu"))
        ours = Training(dataclasses.replace(config, outputs=outputs), team, data, Classification(data))
    steps, batch = min(args.steps, ours.steps), config.batch_size
    rows = epoch_order(ours.rows, 0, 0)[: steps * batch]
    side = ours.network.input_size
    inputs = torch.randn(batch, 3, side, side).to(memory_format=torch.channels_last) * 10
    labels = torch.randint(ours.data.num_classes, (batch,))
    optimiser = torch.optim.SGD(ours.network.parameters(), lr=1e-6, momentum=config.momentum, fused=True)

    def bare() -> None:
        for step in range(steps):
            with torch.autocast("cpu", torch.bfloat16, enabled=ours.precision == "bf16"):
                logits = ours.network(inputs, Noise(0, step, 0, batch)).float()
            loss = torch.nn.functional.cross_entropy(logits, labels)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()

    def fed() -> None:
        for step, (x, y) in enumerate(ours.feeds["train"].training(rows, 0, 0, 0)):
            ours.update(x, y, step)

    bare(), fed()  # warm up
    rates = [(steps * batch / elapsed(bare), steps * batch / elapsed(fed)) for _ in range(args.rounds)]
    print(
        f"{config.model.name}, batches of {batch}, {ours.precision}, {torch.get_num_threads()} threads, images per second"
    )
    print(f"{'bare loop':>10} {'training':>10} {'ratio':>7}")
    for plain, whole in rates:
        print(f"{plain:10.0f} {whole:10.0f} {whole / plain:7.2f}")
    ratios = sorted(whole / plain for plain, whole in rates)
    print(f"median ratio {ratios[len(ratios) // 2]:.2f} (1: feeding, renormalisation and bookkeeping cost nothing)")


# ---------------------------------------------------------------------------------------------------------------- deconv


def deconv(args: argparse.Namespace) -> None:
    """16 maps x 9 images of each layer of the full ZFNet: every unit of an image of its own, as a top-nine's are."""
    from oracle import autograd_projections

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
    top_nine(network, images, args)


def top_nine(network: Network, images: Tensor, args: argparse.Namespace) -> None:
    """The search for all maps of all layers against the bare forward pass to the last convolutional layer."""
    from zfrepro.forward import batch_size
    from zfrepro.search import search

    size = batch_size(network, network.conv_layers)
    batches = list(zip(images.split(size), torch.arange(len(images)).split(size))) * args.passes

    def outputs() -> Iterator[tuple[np.ndarray, dict[int, Tensor]]]:
        for inputs, numbers in batches:
            yield numbers.numpy(), network.features(inputs, network.conv_layers)

    @torch.no_grad()
    def forward() -> None:
        for _ in outputs():
            pass

    @torch.no_grad()
    def searched() -> None:
        search(outputs())

    times = [(seconds(forward, 1), seconds(searched, 1)) for _ in range(args.repeats)]
    bare, whole = (min(column) for column in zip(*times))
    count = len(images) * args.passes
    print(
        f"top-nine search of {count} images, {sum(network.conv(n).out_channels for n in network.conv_layers)} maps: "
        f"{whole:.2f} s; bare forward pass {bare:.2f} s: {100 * (whole / bare - 1):+.1f} %"
    )


# ------------------------------------------------------------------------------------------------------------- occlusion


def occlusion(args: argparse.Namespace) -> None:
    """Every position of a square on one image: incremental, by brute force at its best batch size, and one by one."""
    network = network_of(args.model, 1000)
    print(f"{args.model}, stride {args.stride}, {torch.get_num_threads()} threads, best of {args.repeats}")
    for square in args.squares:
        slide(network, square, args)


def slide(network: Network, square: int, args: argparse.Namespace) -> None:
    """One square's line. One by one, the network also runs in torch's default layout, as a plain loop has it."""
    from oracle import brute_force_features

    from zfrepro.models.partial import collect, occluded_features, square_positions

    size = network.input_size
    image, fill = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 60
    every = square_positions(size, square, args.stride)
    few = every[: -(-max(args.batches) // len(every))]  # rows of positions, enough for the largest batch

    def logits(ys: list[int], batch: int | None) -> Tensor:
        where = network, image, fill, square, ys, every, [network.top]
        stream = occluded_features(*where) if batch is None else brute_force_features(*where, batch=batch)
        return collect(stream, lambda found: found[network.top])

    trials = {batch: seconds(partial(logits, few, batch), args.repeats) for batch in args.batches}
    best = min(trials, key=trials.__getitem__)
    ways = {"ours": partial(logits, every, None), "brute force": partial(logits, every, best)}
    ways["one by one"] = partial(logits, every[:2], 1)
    default = deepcopy(network).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    @torch.no_grad()
    def plain_loop() -> None:
        for y, x in product(every[:2], every):
            painted = image.clone()
            painted[:, y : y + square, x : x + square] = fill[:, y : y + square, x : x + square]
            default(painted[None])

    ways["default layout"] = plain_loop
    # In turn, so that other work on the machine troubles all alike; the best of each is kept.
    times = [[elapsed(way) for way in ways.values()] for _ in range(args.repeats)]
    a, b, c, d = (min(column) for column in zip(*times))
    c, d = (part * len(every) / 2 for part in (c, d))
    expected = ways["brute force"]()
    difference = float((ways["ours"]() - expected).abs().max() / expected.abs().max())
    print(
        f"square {square}: {len(every) ** 2} positions in {a:.2f} s; brute force at batch {best} {b:.2f} s: "
        f"{b / a:.1f}x; one by one {c:.1f} s: {c / a:.1f}x ({d:.1f} s in torch's default layout: {d / a:.1f}x); "
        f"largest difference {difference:.1e} of the largest logit",
        flush=True,
    )


# ----------------------------------------------------------------------------------------------------------------- crops

FEEDS = (  # smaller side of the packed images, smallest and largest side S when rescaled, crop
    (128, 64, 128, 56), (128, 64, 64, 56), (256, 256, 256, 224), (384, 384, 384, 224), (512, 256, 512, 224),
)  # fmt: skip


def crops(args: argparse.Namespace) -> None:
    """Images per second and core (of processor time) of VGG's feed: scale-jittered crops out of whole images of many shapes,
    packed as raw pixels, and as JPEG files (quality 90) that are decoded, resized and cropped by Pillow for every visit."""
    from zfrepro.data.rescaling import draw_places, read_crops, resample, rescaled_shapes, shapes_of

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    for short, low, high, crop in FEEDS:
        images = Ragged([plasma(short, seed) for seed in range(args.images)])
        files = [to_jpeg(picture) for picture in images.pictures]
        rows = np.arange(args.batch) % len(images)
        shapes = shapes_of(images, rows)
        places = draw_places(shapes, (low, high), crop, generator)
        sizes = rescaled_shapes(shapes, places.side.numpy()).tolist()
        corners = torch.stack([places.y, places.x], 1).tolist()
        regions = read_crops(images, rows, places, crop)
        read = rate(partial(read_crops, images, rows, places, crop), args)
        made = rate(partial(resample, regions, torch.zeros(3), 0.1), args)
        decoded = rate(partial(decode_all, [files[row] for row in rows], sizes, corners, crop), args)
        pixels, jpeg = (
            float(np.mean([len(one) for one in many])) for many in ([p.tobytes() for p in images.pictures], files)
        )
        print(
            f"{short} px, S {low} to {high}, {crop} px crops: raw pixels {pixels / 1e3:.0f} kB an image, read {read:.0f}/s, "
            f"rescaled {made:.0f}/s, both {1 / (1 / read + 1 / made):.0f}/s; JPEG {jpeg / 1e3:.0f} kB, {decoded:.0f}/s"
        )


class Ragged:
    """Images of many shapes, in memory."""

    def __init__(self, pictures: list[np.ndarray]) -> None:
        self.pictures, self.shapes = pictures, np.array([picture.shape[:2] for picture in pictures])

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, row: int) -> np.ndarray:
        return self.pictures[row]


def plasma(short: int, seed: int) -> np.ndarray:
    """(h, w, 3) uint8 of 1/f noise, which takes about as many bytes as JPEG as a photograph; one of five proportions."""
    from PIL import Image

    generator = np.random.default_rng(seed)
    ratio = (1.0, 4 / 3, 3 / 2, 3 / 4, 2 / 3)[seed % 5]
    height, width = (short, round(short * ratio)) if ratio >= 1 else (round(short / ratio), short)
    total = np.zeros((height, width, 3))
    for cells in (2, 4, 8, 16, 32, 64, 128):
        noise = generator.integers(0, 256, (cells, cells, 3)).astype(np.uint8)
        total += np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)) / cells**0.7
    return np.uint8(255 * (total - total.min()) / np.ptp(total))


def to_jpeg(picture: np.ndarray) -> bytes:
    """As a file of quality 90."""
    from io import BytesIO

    from PIL import Image

    Image.fromarray(picture).save(file := BytesIO(), "JPEG", quality=90)
    return file.getvalue()


def decode_all(files: list[bytes], sizes: list[list[int]], corners: list[list[int]], crop: int) -> None:
    """Decode, resize, crop."""
    from io import BytesIO

    from PIL import Image

    for file, (height, width), (y, x) in zip(files, sizes, corners):
        image = Image.open(BytesIO(file)).convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
        np.asarray(image.crop((x, y, x + crop, y + crop)))


def rate(work: Callable[[], object], args: argparse.Namespace) -> float:
    """Images per second of processor time, the best of `args.repeats`."""
    work()
    return float(args.batch) / min(processor_time(work) for _ in range(args.repeats))


# -------------------------------------------------------------------------------------------------------------- evaluate


def evaluate(args: argparse.Namespace) -> None:
    """A VGG on whole images: dense evaluation against a crop at each of its places, one by one and batched, and against
    torchvision's VGG of the same table and weights, on the same crops and, its classifier as convolutions, on the same
    images. Processor time; an image's answer is the softmax of its scores, averaged over places."""
    network = network_of(args.model, 1000).requires_grad_(False)
    crop = network.input_size
    side = args.size or crop * 12 // 7  # Q=384 for crops of 224 px: 6x6 places
    images = torch.randn(args.images, 3, side, side, generator=torch.Generator().manual_seed(0)) * 60
    images = images.to(memory_format=torch.channels_last)
    stride = prod(op.stride for op in network.ops)
    starts = range(0, side - crop + 1, stride)
    crops = torch.stack([images[..., y : y + crop, x : x + crop] for y, x in product(starts, starts)], 1).flatten(0, 1)
    crops = crops.contiguous(memory_format=torch.channels_last)
    theirs = torchvision_vgg(network)
    whole = torch.nn.Sequential(theirs.features, *as_convolutions(theirs.classifier))

    def one_by_one(model: torch.nn.Module) -> Tensor:
        return torch.cat([model(one[None]) for one in crops])

    def batched(model: torch.nn.Module) -> Tensor:
        return torch.cat([model(part) for part in crops.split(args.batch)])

    ways: dict[str, Callable[[], Tensor]] = {
        "dense": partial(network, images),
        "crops, one by one": partial(one_by_one, network),
        "crops, batched": partial(batched, network),
        "torchvision, crops": partial(batched, theirs),
        "torchvision, convolutions": partial(whole, images),
    }
    with torch.inference_mode():
        scores = {name: way() for name, way in ways.items()}
        scores["places, one by one"] = classified_places(network, images)
        # In turn, so that other work on the machine troubles all alike; the best of each is kept.
        times = [{name: processor_time(way) for name, way in ways.items()} for _ in range(args.repeats)]
    best = {name: min(trial[name] for trial in times) for name in ways}
    answers = {name: mean_scores(found, args.images).softmax(1) for name, found in scores.items()}
    print(
        f"{args.model}, {args.images} images of {side} px, {len(starts)}x{len(starts)} places, {torch.get_num_threads()} "
        f"threads; dense {best['dense']:.2f} s; best of {args.repeats}"
    )
    for name, spent in list(best.items())[1:]:
        print(f"{name:<26} {spent:7.2f} s: {spent / best['dense']:5.1f}x")
    pairs = [("places, one by one", "dense"), ("torchvision, convolutions", "dense"), ("crops, one by one", "crops, batched"),
             ("torchvision, crops", "crops, batched"), ("crops, batched", "dense")]  # fmt: skip
    for a, b in pairs:
        own, other = (mean_scores(scores[name], args.images) for name in (a, b))
        print(
            f"{a} against {b}: answers differ by {largest_difference(answers[a], answers[b]):.1e} of the largest, scores by "
            f"{largest_difference(own, other):.1e}"
        )
    print("(A crop is padded with zeros where the whole image has neighbours: the last line is that, and no error.)")


def torchvision_vgg(network: Network) -> Any:
    """torchvision's VGG of our table (of vgg_d: its VGG-16) with our weights."""
    from zfrepro.vision import torchvision

    rows = network.config.layers
    cfg = [step for row in rows if row.kind == "conv" for step in ([row.maps, "M"] if row.pool else [row.maps])]
    model = torchvision.models.vgg.VGG(torchvision.models.vgg.make_layers(cfg), network.outputs, init_weights=False)
    units = [network.widths[number] for number in network.widths if number not in network.conv_layers]
    inputs = [network.widths[network.conv_layers[-1]] * 7 * 7, *units]
    linear = [torch.nn.Linear(*sides) for sides in zip(inputs, units)]
    model.classifier = torch.nn.Sequential(*(step for one in linear for step in (one, torch.nn.ReLU())))[:-1]
    for own, given in zip(model.parameters(), network.parameters(), strict=True):
        own.data = given.data
    return model.eval()


def as_convolutions(classifier: Any) -> list[torch.nn.Module]:
    """Fully connected layers above 7x7 maps, with their weights seen as filters."""
    steps: list[torch.nn.Module] = []
    for step in classifier:
        if isinstance(step, torch.nn.Linear):
            side = 1 if steps else 7
            weight = step.weight.data.view(step.out_features, -1, side, side)
            conv = torch.nn.Conv2d(weight.shape[1], weight.shape[0], side, device="meta")
            conv.weight, conv.bias = torch.nn.Parameter(weight, requires_grad=False), step.bias
            step = conv
        steps.append(step)
    return steps


def classified_places(network: Network, images: Tensor) -> Tensor:
    """(B * P, C) scores: the maps of the whole images once, then the fully connected layers of one place after the other."""
    last = network.conv_layers[-1]
    maps, side = network.features(images, [last])[last], network.side(last)
    corners = product(range(maps.shape[2] - side + 1), range(maps.shape[3] - side + 1))
    windows = torch.stack([maps[..., y : y + side, x : x + side] for y, x in corners], 1).flatten(0, 1)
    return torch.cat([network(one[None], after=last) for one in windows])


def mean_scores(scores: Tensor, images: int) -> Tensor:
    """(images, C): scores of every place, (B, C, h, w) or (B * P, C), averaged over places."""
    return scores.flatten(2).mean(2) if scores.ndim == 4 else scores.unflatten(0, (images, -1)).mean(1)


def largest_difference(own: Tensor, other: Tensor) -> float:
    """As a share of the largest value."""
    return float((own - other).abs().max() / other.abs().max())


def processor_time(work: Callable[[], object]) -> float:
    """Seconds of processor time of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("train", help=train.__doc__)
    command.set_defaults(work=train)
    command.add_argument("--preset", default="demo")
    command.add_argument("--steps", type=int, default=60)
    command.add_argument("--rounds", type=int, default=5)
    command.add_argument("overrides", nargs="*", help="such as data.root=<folder>")
    command = commands.add_parser("deconv", help=deconv.__doc__)
    command.set_defaults(work=deconv)
    command.add_argument("--model", default="zfnet")
    command.add_argument("--maps", type=int, default=16)
    command.add_argument("--images", type=int, default=9)
    command.add_argument("--batch", type=int, default=16, help="images of a batch of the oracle")
    command.add_argument("--repeats", type=int, default=3)
    command.add_argument("--passes", type=int, default=3, help="times that the search goes over the images")
    command = commands.add_parser("occlusion", help=occlusion.__doc__)
    command.set_defaults(work=occlusion)
    command.add_argument("--model", default="zfnet")
    command.add_argument("--squares", type=int, nargs="+", default=[50, 32])
    command.add_argument("--stride", type=int, default=8)
    command.add_argument("--batches", type=int, nargs="+", default=[4, 8, 16, 32, 64, 128])
    command.add_argument("--repeats", type=int, default=2)
    command = commands.add_parser("crops", help=crops.__doc__)
    command.set_defaults(work=crops)
    command.add_argument("--images", type=int, default=40)
    command.add_argument("--batch", type=int, default=64)
    command.add_argument("--repeats", type=int, default=7)
    command = commands.add_parser("evaluate", help=evaluate.__doc__)
    command.set_defaults(work=evaluate)
    command.add_argument("--model", default="vgg_d", help="vgg_d_demo: a small one")
    command.add_argument("--size", type=int, help="smaller side Q of the images; default: 6x6 places")
    command.add_argument("--images", type=int, default=1)
    command.add_argument("--batch", type=int, default=12, help="crops of a batch")
    command.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work(args)


if __name__ == "__main__":
    main()
