"""Repairs: what a pruned model can be given back; without training here, with it in `healing`."""

from trueprune.repairs.base import Recalibration
from trueprune.repairs.fold import fold_temperature
from trueprune.repairs.isotonic import Isotonic, fit_isotonic
from trueprune.repairs.platt import Platt, fit_platt
from trueprune.repairs.recalibration import fit_recalibration, read_recalibration, recalibration_from_json
from trueprune.repairs.registry import RECALIBRATIONS
from trueprune.repairs.temperature import Temperature, fit_temperature, fit_temperature_of
from trueprune.repairs.vector import Vector, fit_vector

__all__ = [
    "RECALIBRATIONS",
    "Isotonic",
    "Platt",
    "Recalibration",
    "Temperature",
    "Vector",
    "fit_isotonic",
    "fit_platt",
    "fit_recalibration",
    "fit_temperature",
    "fit_temperature_of",
    "fit_vector",
    "fold_temperature",
    "read_recalibration",
    "recalibration_from_json",
]
