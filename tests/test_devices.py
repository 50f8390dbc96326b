"""Where and how precisely to compute; what a GPU computes otherwise."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from zfrepro.devices import resolve_device, resolve_precision
from zfrepro.errors import UserError


def test_the_device() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UserError, match=r"device=cuda:99: .*use device=cpu or device=auto"):
        resolve_device("cuda:99")
    with pytest.raises(UserError, match="device=gpu: must be auto, cpu, cuda or cuda:<n>"):
        resolve_device("gpu")


def test_what_was_asked_for_is_the_precision() -> None:
    assert [resolve_precision(asked, torch.device("cpu")) for asked in ("fp32", "bf16")] == ["fp32", "bf16"]
    assert resolve_precision("auto", torch.device("cpu")) in ("fp32", "bf16")


def test_fp32_is_not_shortened() -> None:
    torch.backends.cudnn.allow_tf32 = True  # as torch begins
    torch.backends.cuda.matmul.allow_tf32 = True  # as it begins under TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1
    resolve_device("cpu")
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_convolutions_on_a_gpu_are_those_of_the_cpu() -> None:
    device = resolve_device("cuda")
    images, filters = torch.randn(8, 64, 30, 30), torch.randn(64, 64, 3, 3)
    exact = F.conv2d(images.double(), filters.double())
    found = F.conv2d(images.to(device), filters.to(device)).cpu().double()
    assert float((found - exact).abs().max() / exact.abs().max()) < 1e-5


def test_torch_keeps_to_the_quota_of_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")  # joblib's own word for a quota
        resolve_device("cpu")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
