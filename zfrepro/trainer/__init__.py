"""Training (paper, section 3)."""

from zfrepro.trainer.train import train

__all__ = ["train"]
