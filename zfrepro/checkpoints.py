"""A network's weights with what was needed to make them."""

from __future__ import annotations

import errno
import re
import warnings
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from zfrepro.errors import UserError, named
from zfrepro.files import atomic_write

CURE = "move it away, or train again with resume=false"


def checkpoint_of(run: Path, name: str = "best") -> Path:
    """A file of a run's weights: best, last or epoch_<n>."""
    return run / "train" / "checkpoints" / f"{name}.pt"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically. Raises OSError where it cannot be written; what stood there then stands there still."""
    with atomic_write(path) as file:
        watched = _Watched(file)
        try:
            torch.save(state, cast(IO[bytes], watched))
        except RuntimeError as error:  # torch's own, about a position in the file, over whatever stopped the writing
            if watched.failed is None:
                raise
            raise watched.failed from error


class _Watched:
    """A file that remembers why it could not be written."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.failed: BaseException | None = None  # Ctrl-C too

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except BaseException as error:
            self.failed = error
            raise

    def flush(self) -> None:
        self.file.flush()


def read_tensors(path: Path) -> Any:
    """What `torch.save` has written, onto the CPU: tensors and plain values only, nothing in the file is run.

    Raises OSError where there is no file, and ValueError, why, for every other file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the protocol of pickles that are none of ours
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for files that are cut or are none of its own
        # A few bytes of an archive come to EINVAL; every other OSError is of the file system.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise named(error, path) from None
        more = re.search(r"Weights ?[Uu]npickler|Unsupported (global|class|operand)|[Ww]eights.only", str(error))
        raise ValueError(
            "it holds more than tensors, or is damaged" if more else "it is cut, empty or something else"
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, tensors and plain values only.

    Raises UserError where it is damaged or hostile, lacks what a network needs, or holds weights that are no numbers.
    """
    try:
        state = read_tensors(path)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such checkpoint") from None
    except ValueError as error:
        raise UserError(f"{path}: not a readable checkpoint: {error}; {CURE}") from error
    if not isinstance(state, dict) or "model" not in state:
        raise UserError(f"{path}: not a checkpoint of zfrepro; {CURE}")
    for name, right in ENTRIES.items():
        if (name in state or name not in OPTIONAL) and not right(state.get(name)):
            raise UserError(f"{path}: its entry '{name}' is {'damaged' if name in state else 'missing'}; {CURE}")
    if not all(bool(weights.isfinite().all()) for weights in state["model"].values()):
        raise UserError(
            f"{path}: holds weights that are no finite numbers; train again with a lower lr and resume=false, or import "
            "sound ones"
        )
    return state


def _are_numbers(value: Any, *shapes: int) -> bool:
    """A tensor of finite numbers with so many dimensions, the last of them three colours."""
    right = isinstance(value, Tensor) and value.is_floating_point() and value.ndim in shapes
    return right and (value.ndim == 0 or value.shape[-1] == 3) and bool(value.isfinite().all())


def _are_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)


OPTIONAL = {"class_ids", "trainer"}
ENTRIES = {
    "model": lambda value: (
        isinstance(value, dict)
        and len(value) > 0
        and all(isinstance(weights, Tensor) and weights.is_floating_point() for weights in value.values())
    ),
    "class_names": _are_names,
    "class_ids": _are_names,
    "mean": lambda value: _are_numbers(value, 1, 3),
    "scale": lambda value: _are_numbers(value, 0, 1),
    "epoch": lambda value: isinstance(value, int) and value >= 0 and not isinstance(value, bool),
    "trainer": lambda value: isinstance(value, dict),
}
