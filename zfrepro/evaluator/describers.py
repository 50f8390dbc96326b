"""Networks that describe images at several scales, and in which ways their descriptors are put together (VGG, Appendix B)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from zfrepro import papers
from zfrepro.errors import require, require_layer
from zfrepro.evaluator.descriptors import Pool, describe, join_scales, unit_length
from zfrepro.evaluator.target import has_several
from zfrepro.options.commands import TransferConfig
from zfrepro.options.shared import DataConfig
from zfrepro.run import TrainedRun, naming, open_run

FULL_INPUT = 224  # pixels, to which the paper's scales belong
JOINED = {"one": "one scale", "mean": "scales averaged", "stack": "scales stacked", "max": "maximum over scales"}
SCALES, VOC_SCALES = (256, 384, 512), (256, 384, 512, 640, 768)


@dataclass(frozen=True)
class Net:
    """A network whose layer below the softmax describes images; its top convolutional layer where it has no other."""

    run: TrainedRun
    layer: int
    scales: tuple[int, ...]

    def joined(self, join: str) -> tuple[int, ...]:
        """Those of its scales that are joined in this way: for 'one' the middle one."""
        return self.scales[len(self.scales) // 2 :][:1] if join == "one" else self.scales

    @property
    def model(self) -> str:
        """Its table's name without folders."""
        return self.run.config.model.name.rpartition("/")[2]

    @property
    def of_vgg(self) -> bool:
        """Whether it is one of the paper's networks."""
        return papers.paper_of(self.run.config.model.name).id == "vgg"


@dataclass(frozen=True)
class Method:
    """A row of the table: one network or several, its scales joined in one way."""

    nets: tuple[int, ...]
    join: str  # one | mean | stack | max


def open_net(config: TransferConfig, name: str, targets: Sequence[DataConfig]) -> Net:
    """A run, the layer that describes, and the sizes at which it does. Raises UserError for what does not fit."""
    with naming("runs" if name in config.runs else "run", name):
        run = open_run(dataclasses.replace(config, run=name))
    layer = config.layer or run.network.feature_layers[-1]
    require_layer("layer", layer, run.network.feature_layers)
    size = run.network.input_size
    usual = VOC_SCALES if all(map(has_several, targets)) else SCALES
    scales = tuple(sorted(config.scales or (round(scale * size / FULL_INPUT) for scale in usual)))
    least = size if layer > run.network.conv_layers[-1] else smallest(run, layer)
    for scale in scales:
        require(
            "scales", scale, scale >= least, f"{least} pixels or more, of which layer {layer} of run={name} makes maps"
        )
    return Net(run, layer, scales)


def smallest(run: TrainedRun, layer: int) -> int:
    """The smallest side of an image of which a convolutional layer makes maps."""
    size = 1
    for op in reversed([op for op in run.network.ops if op.layer <= layer]):
        size = max(1, (size - 1) * op.stride + op.kernel - 2 * op.padding)
    return size


@dataclass(frozen=True)
class Descriptors:
    """All networks' descriptors of a target's images, on the disk."""

    nets: Sequence[Net]
    files: Mapping[tuple[int, int], np.ndarray]  # network, scale -> (N, D)
    unit_scales: bool  # each scale's have unit length before they are joined

    @classmethod
    def of(cls, nets: Sequence[Net], pool: Pool, config: TransferConfig) -> Descriptors:
        """Computed, or taken from the runs' features/."""
        pairs = [(index, net, scale) for index, net in enumerate(nets) for scale in net.scales]
        files = {(index, scale): describe(net.run, pool, net.layer, scale, config.relu) for index, net, scale in pairs}
        return cls(nets, files, config.unit_scales)

    def rows(self, method: Method, rows: np.ndarray) -> np.ndarray:
        """(n, D) of unit length: a network's scales joined, several networks' stacked."""
        found = []
        for index in method.nets:
            several = [self.files[index, scale][rows] for scale in self.nets[index].joined(method.join)]
            found.append(join_scales(several, "mean" if method.join == "one" else method.join, self.unit_scales))
        return found[0] if len(found) == 1 else unit_length(np.concatenate(found, axis=1))


def methods_of(nets: Sequence[Net], join: str) -> list[Method]:
    """Each network in each way that differs, then VGG's together."""
    ways = ("one", "mean", "stack", *(["max"] if join == "max" else []))
    found = [
        Method((index,), how) for index, net in enumerate(nets) for how in (ways if len(net.scales) > 1 else ("one",))
    ]
    return [*found, *together(nets, join)]


def together(nets: Sequence[Net], join: str) -> list[Method]:
    """VGG's networks stacked; nothing where there are not several."""
    own = tuple(index for index, net in enumerate(nets) if net.of_vgg)
    return [Method(own, join)] if len(own) > 1 else []


def preferred(net: Net, index: int, join: str) -> Method:
    """The way in which a network is compared with others."""
    return Method((index,), join if len(net.scales) > 1 else "one")


def first_of_vgg(nets: Sequence[Net], join: str) -> Method | None:
    """The first of VGG's networks, its scales joined so: what the claims about joining them are about. None without one."""
    return next((Method((index,), join) for index, net in enumerate(nets) if net.of_vgg), None)


def last_of_vgg(nets: Sequence[Net], methods: Sequence[Method]) -> Method:
    """The last way in which VGG's networks alone describe: together, where there are several. Without any, the last of all."""
    own = [method for method in methods if all(nets[index].of_vgg for index in method.nets)]
    return (own or methods)[-1]


def named(nets: Sequence[Net], method: Method) -> str:
    """What the table calls a row of ours."""
    return " & ".join(nets[index].run.config.run for index in method.nets) + f", {JOINED[method.join]}"


def sizes_of(nets: Sequence[Net], method: Method) -> str:
    """The scales of a row, in pixels."""
    return " ".join(map(str, nets[method.nets[0]].joined(method.join)))
