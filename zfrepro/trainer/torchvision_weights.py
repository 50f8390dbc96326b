"""torchvision's trained weights: where their files are, and what is known of them beside their numbers."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor

from zfrepro.errors import UserError, nearest, words_of
from zfrepro.files import file_hash

PREFIX = "torchvision/"  # of the names of its tables in conf/model
EPSILON = 1e-5  # of its batch normalisation, which stands right behind each convolution
# Oxford's VGG-16 has the shape of torchvision's and takes other pixels: with its colours turned round it is torchvision's
# IMAGENET1K_FEATURES. It is known by its first layer: SHA-256 of the 64 x 3 x 3 x 3 float32 numbers, of R, G, B.
OXFORD = {"vgg16": "ae2da5ecbf928578dd7088d3049fa43d79f0c69cedc39305893902a0ba43432b"}
OXFORD_MEAN = (123.68, 116.779, 103.939)
SILENCE = 60  # seconds after which a connection counts as lost


@dataclass(frozen=True)
class Preprocessing:
    """What a network's inputs are: (pixel - mean) / std, pixels 0..255 in the order R, G, B."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    how: str  # how this is known, in words
    bgr: bool = False  # the first layer's filters are of B, G, R


def architecture(table: str) -> str | None:
    """torchvision's name of the network that a table is of: 'vgg16' of 'torchvision/vgg16'; None: not torchvision's."""
    from zfrepro.vision import torchvision

    name = table.removeprefix(PREFIX)
    return name if table.startswith(PREFIX) and name in torchvision.models.list_models() else None


def members(name: str) -> dict[str, Any]:
    """torchvision's weights of a network by name; DEFAULT is one of them."""
    from zfrepro.vision import torchvision

    return dict(torchvision.models.get_model_weights(name).__members__)


def fetched(name: str, weights: str) -> Path:
    """The file of the weights that torchvision calls so, downloaded unless it is there.

    Raises UserError for an unknown name, a download that fails and a file that is not torchvision's: each says what to
    fetch, and where to put it.
    """
    there = members(name)
    if weights not in there:
        hint = nearest(weights, there)
        raise UserError(f"weights={weights}: no such file, and torchvision's {name} has {', '.join(there)}{hint}")
    url = there[weights].url
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _impatient():
                torch.hub.download_url_to_file(url, str(path), hash_prefix(url), progress=True)
        except (OSError, http.client.HTTPException, RuntimeError) as error:
            failed = f"could not fetch {url} ({words_of(error)})"
            raise UserError(f"weights={weights}: {failed}; fetch it by hand to {path}") from error
    if not file_hash(path).startswith(hash_prefix(url)):
        raise UserError(
            f"{path}: not the file that torchvision has there (a download that was cut, or a page in its place); delete it, "
            f"or fetch {url} to its place"
        )
    return path


def hash_prefix(url: str) -> str:
    """The first figures of the file's SHA-256, which torchvision's names end with; '' where there are none."""
    found = re.search(r"-([0-9a-f]{8,})\.\w+$", url)
    return found.group(1) if found else ""


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """A connection over which nothing comes is given up."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


# ------------------------------------------------------------------------------------------------- what is known of them


def known_preprocessing(name: str, digest: str, layer1: Tensor, classifies: bool) -> Preprocessing | None:
    """The pixels that weights of torchvision's network `name` take; None where a file leaves it open.

    digest: SHA-256 of the file, which tells torchvision's own; layer1: the first layer's filters (maps, 3, k, k) float32,
    which tell Oxford's; classifies: whether there is a classifier. Otherwise it is known where all of torchvision's weights
    that these can be take the same.
    """
    there = members(name)
    for key, member in there.items():
        prefix = hash_prefix(member.url)
        if prefix and digest.startswith(prefix):
            return _of(member, f"{PREFIX}{name}'s {key}, by the file's hash")
    if _sha256(layer1) == OXFORD.get(name):
        return _of(there["IMAGENET1K_FEATURES"], "torchvision's IMAGENET1K_FEATURES, by the numbers of the first layer")
    if _sha256(layer1.flip(1)) == OXFORD.get(name):
        return Preprocessing(OXFORD_MEAN, (1.0,) * 3, "Oxford's VGG-16, by the numbers of its first layer", bgr=True)
    possible = [member for member in there.values() if not classifies or member.meta.get("categories")]
    found = {_of(member, f"as all of torchvision's weights of {name} have it") for member in possible}
    return found.pop() if len(found) == 1 else None


def _sha256(filters: Tensor) -> str:
    return hashlib.sha256(filters.contiguous().numpy().tobytes()).hexdigest()


def _of(member: Any, how: str) -> Preprocessing:
    """torchvision's (x / 255 - mean) / std."""
    given = member.transforms()
    mean, std = (tuple(255 * float(value) for value in values) for values in (given.mean, given.std))
    return Preprocessing(mean, std, how)


def class_names(name: str, count: int) -> Sequence[str] | None:
    """The names of the classes, where there are as many as torchvision's network has."""
    known = (member.meta.get("categories", ()) for member in members(name).values())
    return next((names for names in known if names and len(names) == count), None)
