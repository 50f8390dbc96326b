"""Data sets: found, packed once, opened as memory-mapped arrays, cropped in batches on the device."""

from zfrepro.data.locating import placed
from zfrepro.data.own import Known, open_own, recall, remember
from zfrepro.data.packed import Boxes, Packed, Split, Truth
from zfrepro.data.packing import examine, not_used, open_data, packed_folder, read_image, read_images

__all__ = [
    "Boxes", "Known", "Packed", "Split", "Truth", "examine", "not_used", "open_data", "open_own",
    "packed_folder", "placed", "read_image", "read_images", "recall", "remember",
]  # fmt: skip
