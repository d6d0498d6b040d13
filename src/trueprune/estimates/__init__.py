"""What a run will cost, from the configuration alone: operations, bytes, memory and time, before anything is spent."""

from trueprune.estimates.config import read_shape
from trueprune.estimates.device import Device, find_device
from trueprune.estimates.shape import BlockShape, Matrix, ModelShape
from trueprune.estimates.variants import Variant, variants_of
from trueprune.estimates.work import Part, Step, Work

__all__ = [
    "BlockShape",
    "Device",
    "Matrix",
    "ModelShape",
    "Part",
    "Step",
    "Variant",
    "Work",
    "find_device",
    "read_shape",
    "variants_of",
]
