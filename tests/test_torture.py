"""What scripts/torture.py takes for too slow: the processor's time, and the clock where nothing is done."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

pytest.importorskip("resource", reason="Windows")
import torture


def spin() -> int:
    while True:
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_refusal_may_take_so_much_of_the_processor_s_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torture, "SECONDS", 1)
    (tmp_path / "sound").mkdir()

    def tried(work: object, patience: float) -> str:
        monkeypatch.setattr(torture, "_status", work)
        return str(torture.try_case(torture.Case(["train"], "seed"), tmp_path / "sound", tmp_path, patience))

    assert tried(spin, 600) == "takes more than 1 s of the processor's time"
    assert tried(lambda: time.sleep(60) or 2, 0.2) == "status -1: hangs"
    assert tried(lambda: time.sleep(1.2) or min(2, os.write(2, b"seed\n")), 600) == ""
