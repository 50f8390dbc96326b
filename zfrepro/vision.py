"""torchvision, importable beside a CPU build of torch: `from zfrepro.vision import torchvision`.

Where torchvision is the CUDA build and torch a CPU build, torchvision's native library does not load, and its import
ends with "operator torchvision::nms does not exist": it registers a fake of an operator that nobody declared. Declaring
the schemas cures the import; the operators (box suppression) stay unusable, and nothing here uses them.
Import this module lazily: torchvision takes a second or two.
"""

from __future__ import annotations

import torch

try:
    import torchvision
except RuntimeError:
    _operators = torch.library.Library("torchvision", "DEF")  # what it declares lasts as long as it
    for _name in ("nms", "qnms"):
        _operators.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

__all__ = ["torchvision"]
