"""The recalibrations by name: one line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from trueprune.repairs.base import Recalibration
from trueprune.repairs.isotonic import Isotonic, fit_isotonic
from trueprune.repairs.platt import Platt, fit_platt
from trueprune.repairs.temperature import Temperature, fit_temperature
from trueprune.repairs.vector import Vector, fit_vector


@dataclass(frozen=True)
class Method:
    """A way to recalibrate.

    **Arguments:**

    - `fit`: `(scores_NC, gold_N) -> Recalibration`.
    - `read`: from what its `to_json` gave.
    """

    fit: Callable[..., Recalibration]
    read: Callable[[Mapping[str, Any]], Recalibration]


RECALIBRATIONS: dict[str, Method] = {
    "temperature": Method(fit_temperature, Temperature.from_json),
    "vector": Method(fit_vector, Vector.from_json),
    "platt": Method(fit_platt, Platt.from_json),
    "isotonic": Method(fit_isotonic, Isotonic.from_json),
}
