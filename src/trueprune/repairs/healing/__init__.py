"""Healing by training: losses, updates that hold zeros, and a loop that can be cut off."""

from trueprune.repairs.healing.data import HealingData, healing_data
from trueprune.repairs.healing.heal import Healed, check_teacher, heal_blocks
from trueprune.repairs.healing.losses import answer_vectors, cross_entropy, distillation, info_nce, triplet
from trueprune.repairs.healing.options import WAYS, HealingOptions, check_way
from trueprune.repairs.healing.precision import resolve_precision
from trueprune.repairs.healing.state import Store

__all__ = [
    "WAYS",
    "Healed",
    "HealingData",
    "HealingOptions",
    "Store",
    "answer_vectors",
    "check_teacher",
    "check_way",
    "cross_entropy",
    "distillation",
    "heal_blocks",
    "healing_data",
    "info_nce",
    "resolve_precision",
    "triplet",
]
