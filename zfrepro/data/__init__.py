"""Data sets: found, packed once, opened as memory-mapped arrays, cropped in batches on the device."""

from zfrepro.data.packed import Packed, Split, Truth
from zfrepro.data.packing import find_problems, open_data, packed_folder, read_image

__all__ = ["Packed", "Split", "Truth", "find_problems", "open_data", "packed_folder", "read_image"]
