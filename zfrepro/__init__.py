"""zfrepro: Visualizing and Understanding Convolutional Networks (Zeiler & Fergus, 2014), reproduced."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("zfrepro")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+unknown"
