"""Where and how precisely to compute."""

from __future__ import annotations

import re

import torch
from joblib import cpu_count

from zfrepro.errors import UserError, nearest, require


def resolve_device(device: str) -> torch.device:
    """'auto' -> CUDA where there is a GPU. Raises UserError for a GPU that is not there.

    From then on fp32 means fp32: cuDNN's convolutions would drop thirteen bits of it (TF32) unless told otherwise, and products
    of matrices would where the environment says TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1. And torch keeps to its container's quota
    of CPUs: a thread for every core of the machine would wait for the others most of the time.
    """
    torch.set_num_threads(min(torch.get_num_threads(), cpu_count()))
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    known, hint = re.fullmatch(r"cpu|cuda(:\d+)?", device), nearest(device, ("cpu", "cuda", "auto"))
    require("device", device, known is not None, f"auto, cpu, cuda or cuda:<n>{hint}")
    if device.startswith("cuda"):
        count = torch.cuda.device_count()
        index = int(device.partition(":")[2] or 0)
        if index >= count:
            there = f"this machine has {count} GPU(s)" if count else "no GPU is there (or torch is a CPU build)"
            raise UserError(f"device={device}: {there}; use device=cpu or device=auto")
    return torch.device(device)


def resolve_precision(precision: str, device: torch.device) -> str:
    """'auto' -> 'bf16' where the hardware multiplies bfloat16 natively (GPUs from Ampere on, CPUs with AVX512-BF16 or AMX)."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    if not torch.backends.mkldnn.is_available():  # as on Apple's machines
        return "fp32"
    return "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() and torch.cpu._is_avx512_bf16_supported() else "fp32"
