"""zfrepro: the figures and tables of Zeiler & Fergus (2014, ZFNet) and Simonyan & Zisserman (2015, VGG), reproduced."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zfrepro.api import Run, open_run

try:
    __version__ = version("zfrepro")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+unknown"

__all__ = ["Run", "open_run"]


def __getattr__(name: str) -> Any:
    """The Python interface, loaded when it is asked for: torch takes a second."""
    if name in __all__:
        return getattr(import_module("zfrepro.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
