"""A run in Python, for notebooks: arrays in, arrays out, by the functions that the commands themselves call.

    run = zfrepro.open_run("outputs/vgg16")
    projections = run.project("dog.jpg", layer=10)

Pictures are paths, or arrays (N, H, W, 3) or (H, W, 3) uint8 of any size: they are resized and cut to the centre square as the
run's own images were. S px: side of these squares; s px: side of the network's input, their centre crop.

Where the run's data set has to be packed again, that is done by several processes: on Windows and macOS a script needs the usual
`if __name__ == "__main__":` then.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np
import torch
from PIL import Image

from zfrepro import run as runs
from zfrepro.data import Packed, read_image
from zfrepro.data.decode import fitted
from zfrepro.errors import UserError, require, require_choice, require_layer
from zfrepro.evaluator.occlusion import slide_of, slide_over, stacked
from zfrepro.forward import forward
from zfrepro.models.deconvnet import Rules
from zfrepro.models.window import project
from zfrepro.options.commands import OccludeConfig
from zfrepro.options.declare import check_options
from zfrepro.options.shared import DataPlace, Experiment
from zfrepro.search import Top, exact, top_images

Picture = str | os.PathLike[str] | np.ndarray
Pictures = Picture | Iterable[Picture]
Given = ParamSpec("Given")
Result = TypeVar("Result")


def undisturbed(method: Callable[Concatenate[Run, Given], Result]) -> Callable[Concatenate[Run, Given], Result]:
    """The method on the run's device and in its precision, whatever device and autocast the notebook has set for its own."""

    @functools.wraps(method)
    def call(run: Run, *args: Given.args, **kwargs: Given.kwargs) -> Result:
        device = run.opened.device
        with torch.device(device), torch.autocast(device.type, enabled=False):
            return method(run, *args, **kwargs)

    return call


@dataclass(frozen=True)
class Occlusion:
    """A grey square at P x P places of N pictures: what became of the class and of each picture's strongest map. Without a
    softmax layer probabilities are NaN and classes -1."""

    starts: np.ndarray  # (P,): rows and columns of the square's upper left corner, pixels of the network's input
    square: int  # its side in pixels
    labels: np.ndarray  # (N,) the classes of the probabilities
    maps: np.ndarray  # (N,) the strongest map of the layer
    units: np.ndarray  # (N, 2) row and column of its maximum
    activity: np.ndarray  # (N, P, P) the map's sum over space
    probability: np.ndarray  # (N, P, P) of the class
    top_class: np.ndarray  # (N, P, P) the most probable class
    top_probability: np.ndarray  # (N, P, P)
    clean_activity: np.ndarray  # (N,) without a square, here and below
    clean_probability: np.ndarray
    clean_top_class: np.ndarray


def open_run(
    folder: str | Path,
    checkpoint: str | int = "best",
    device: str = "auto",
    precision: str = "auto",
    data_root: str | None = None,
) -> Run:
    """The run in a folder such as outputs/demo: its 'best' or 'last' weights or those of a snapshot epoch.

    device: auto, cpu, cuda; precision: auto, fp32, bf16; data_root: where its data set lies now, if it was moved. Raises
    UserError (zfrepro.errors) where there is no such run.
    """
    require_choice("precision", precision, ("auto", "fp32", "bf16"))
    path = Path(folder).expanduser().resolve()
    config = Experiment(run=path.name, outputs=str(path.parent), device=str(device), precision=precision)
    config.data = DataPlace(root=data_root)
    with torch.device("cpu"):
        return Run(runs.open_run(config, checkpoint))


class Run:
    """A network with what it was trained on. Layers have the paper's numbers."""

    def __init__(self, opened: runs.TrainedRun) -> None:
        self.opened = opened

    def __repr__(self) -> str:
        layers = f"layers {', '.join(map(str, self.layers))}"
        return f"<run {self.opened.config.run}: {self.opened.config.model.name}, {layers}, {len(self.class_names)} classes>"

    @property
    def network(self) -> torch.nn.Module:
        """The network itself, for whatever else one has in mind: a torch module that takes `inputs`."""
        return self.opened.network

    @property
    def layers(self) -> list[int]:
        """Numbers of the layers below the softmax."""
        return self.opened.network.feature_layers

    @property
    def conv_layers(self) -> list[int]:
        """Numbers of the convolutional layers."""
        return self.opened.network.conv_layers

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes that the network tells apart; empty: it has no softmax."""
        return self.opened.class_names

    @property
    def data(self) -> Packed:
        """The run's data set: `data.val.images` (N, S, S, 3), `data.val.labels` (N,), `data.class_names` ..."""
        return self.opened.squares

    def pictures(self, images: Pictures) -> np.ndarray:
        """(N, S, S, 3) uint8: pictures as the run's own are packed; what is packed already stays as it is."""
        alone = isinstance(images, np.ndarray) and images.ndim <= 3 and images.dtype.kind not in "OU"
        many = isinstance(images, Iterable) and not isinstance(images, str) and not alone
        each: Iterable[object] = images if many else [images]  # type: ignore[assignment]
        found = [_packed(image, self.opened.side) for image in each]
        require("images", found, len(found) > 0, "one picture or more")
        return np.stack(found)

    def crops(self, images: Pictures) -> np.ndarray:
        """(N, s, s, 3) uint8: what the network sees of pictures."""
        return self.opened.crops(self.pictures(images)).numpy()

    @undisturbed
    def inputs(self, images: Pictures) -> torch.Tensor:
        """(N, 3, s, s) float32: the network's inputs, mean subtracted and scaled."""
        return self.opened.inputs(self.pictures(images))

    @undisturbed
    def features(self, images: Pictures, layers: Sequence[int] | None = None) -> dict[int, np.ndarray]:
        """Layer -> its outputs for N pictures, float32: maps (N, C, h, w) after ReLU, pooling and normalisation, or units
        (N, U). layers: which, None: all below the softmax."""
        layers = self.layers if layers is None else np.atleast_1d(_whole("layers", layers)).tolist()
        for layer in layers:
            require_layer("layers", layer, self.layers)
        pixels = self.pictures(images)
        found = [outputs for _, outputs in forward(self.opened, pixels, layers, np.arange(len(pixels)))]
        return {layer: torch.cat([one[layer] for one in found]).float().cpu().numpy() for layer in layers}

    @undisturbed
    def probabilities(self, images: Pictures) -> np.ndarray:
        """(N, classes) float32: the softmax for the centre crops of N pictures. Raises UserError where there is none."""
        top, pixels = runs.require_softmax(self.opened), self.pictures(images)
        found = [outputs[top] for _, outputs in forward(self.opened, pixels, [top], np.arange(len(pixels)), exact=True)]
        return torch.cat(found).softmax(1).cpu().numpy()

    @undisturbed
    def strongest(self, images: Pictures, layer: int, maps: Sequence[int] | None = None) -> np.ndarray:
        """(N, 3) int64: map, row and column of the strongest unit of a convolutional layer in each picture; maps: of these
        maps, one a picture."""
        output = torch.from_numpy(self.features(images, [layer])[layer])
        if output.ndim != 4:
            raise UserError(f"layer={layer}: the convolutional layers are {', '.join(map(str, self.conv_layers))}")
        chosen = output.amax((2, 3)).argmax(1) if maps is None else torch.from_numpy(self._maps(maps, layer))
        require("maps", maps, len(chosen) == len(output), f"one for each of the {len(output)} pictures")
        place = output[torch.arange(len(output)), chosen].flatten(1).argmax(1)
        return torch.stack([chosen, place // output.shape[3], place % output.shape[3]], 1).numpy()

    @undisturbed
    def project(
        self,
        images: Pictures,
        layer: int,
        units: Sequence[tuple[int, int, int]] | np.ndarray | None = None,
        which: Sequence[int] | None = None,
        unpool: str = "sum",
        ties: str = "drop",
    ) -> np.ndarray:
        """(U, s, s, 3) float32: units of a convolutional layer projected to pixels by the deconvnet (ZFNet, section 2.1), both
        signs, zero where a unit does not reach.

        units: (U, 3) map, row, column; None: the strongest of each picture. which: (U,) each unit's picture; None: unit i is of
        picture i, or of the only one. unpool, ties: where the paper is silent, see `zfrepro visualize --help`.
        """
        require_layer("layer", layer, self.conv_layers)
        pixels = self.pictures(images)
        chosen = torch.from_numpy(self.strongest(pixels, layer) if units is None else _whole("units", units))
        found = project(self.opened.network, self.opened.inputs(pixels), layer, chosen, which, Rules(unpool, ties))
        return found.permute(0, 2, 3, 1).cpu().numpy()

    @undisturbed
    def top_images(self, layer: int, maps: Sequence[int] | None = None, count: int = 9, split: str = "val") -> Top:
        """The images of the run's data set that excite each of M maps most, strongest first: `values` (M, count), `images`
        (M, count) rows of `data.val` or `data.train`, `rows` and `columns` (M, count) of the unit.

        maps: which, in float32 whatever the precision; None: all. The search is made once and kept in the run's folder.
        """
        require_layer("layer", layer, self.conv_layers)
        require_choice("split", split, ("val", "train"))
        require("count", count, int(_whole("count", count)) > 0, "1 or more")
        if maps is None:
            return top_images(self.opened, split, count)[layer]
        number = self._maps(maps, layer)
        found, _ = exact(self.opened, split, count, layer, number)
        return Top(*(part[number] for part in vars(found).values()))

    @undisturbed
    def occlude(
        self,
        images: Pictures,
        labels: Sequence[int] | None = None,
        layer: int | None = None,
        square: int | None = None,
        stride: int | None = None,
        fill: str = "grey",
    ) -> Occlusion:
        """A square slides over each picture (ZFNet, section 4.2). labels: classes by number, None: the most probable ones;
        layer: whose strongest map is watched, None: the last convolutional one; square, stride: pixels, None: 50 and 8 of 224;
        fill: grey, mean, black, noise."""
        config = OccludeConfig(layer=layer, square=square, stride=stride, fill=fill)
        for key in ("layer", "square", "stride"):
            _whole(key, getattr(config, key) or 0)
        check_options(config)
        slide, pixels = slide_of(self.opened, config), self.pictures(images)
        if labels is None:
            labels = self.probabilities(pixels).argmax(1).tolist() if self.class_names else [-1] * len(pixels)
        numbers = np.atleast_1d(_whole("labels", labels))
        require("labels", labels, len(numbers) == len(pixels), f"one for each of the {len(pixels)} pictures")
        if classes := len(self.class_names):
            possible = f"numbers of classes, 0 to {classes - 1}"
            require("labels", labels, 0 <= numbers.min() <= numbers.max() < classes, possible)
        network, inputs = self.opened.network, self.opened.inputs(pixels)
        found = [slide_over(network, image, int(label), slide) for image, label in zip(inputs, numbers, strict=True)]
        return Occlusion(np.array(slide.starts), slide.square, numbers, **stacked(found))

    def _maps(self, given: Sequence[int], layer: int) -> np.ndarray:
        """(M,) int64. Raises UserError for what are no maps of the layer."""
        numbers, width = np.atleast_1d(_whole("maps", given)), self.opened.network.widths[layer]
        require("maps", given, 0 <= numbers.min() <= numbers.max() < width, f"numbers of maps, 0 to {width - 1}")
        return numbers


def _whole(key: str, given: object) -> np.ndarray:
    """int64, of the shape given. Raises UserError for what are no whole numbers, or none at all."""
    numbers = np.asarray(given)
    require(key, given, numbers.dtype.kind in "iu", "whole numbers")
    return numbers.astype(np.int64)


def _packed(image: object, side: int) -> np.ndarray:
    """(S, S, 3) uint8. Raises UserError for what is no picture."""
    if isinstance(image, str | os.PathLike):
        return read_image(Path(image).expanduser(), side)
    if not isinstance(image, np.ndarray):
        raise UserError(f"a picture is a path or an array (H, W, 3) of uint8, not a {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise UserError(f"a picture is an array (H, W, 3) of uint8, not {image.shape} of {image.dtype}")
    return image if image.shape[:2] == (side, side) else fitted(Image.fromarray(image), side, "square")
