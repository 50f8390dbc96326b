"""torchvision, importable beside a CPU build of torch: `from zfrepro.vision import torchvision`.

Where torchvision is the CUDA build and torch a CPU build, torchvision's native library does not load, and its import
ends with "operator torchvision::nms does not exist": it registers a fake of an operator that nobody declared. Declaring
the schemas cures the import; the operators (box suppression) stay unusable, and nothing here uses them.
Import this module lazily: torchvision takes a second or two.
"""

from __future__ import annotations

import importlib.machinery
from importlib.util import find_spec
from pathlib import Path

import torch

SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def declare_missing_operators() -> torch.library.Library | None:
    """Declare the schemas where the native library is absent or unloadable; the returned library must be kept alive."""
    if _native_library_loads():
        return None
    library = torch.library.Library("torchvision", "DEF")
    for schema in SCHEMAS.values():
        library.define(schema)
    return library


def _native_library_loads() -> bool:
    """Load torchvision's extension as torchvision itself would (loading it twice does no harm)."""
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True  # not installed: let the import say so
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        library = Path(spec.origin).parent / f"_C{suffix}"
        if library.exists():
            try:
                torch.ops.load_library(str(library))
            except OSError:
                return False
            return True
    return False


_operators = declare_missing_operators()

import torchvision  # noqa: E402

__all__ = ["torchvision"]
