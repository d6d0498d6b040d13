"""The top-answer errors by name, in the one form that resampling items and drawing null answers both need."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from trueprune.audits.confidence.binned import debiased_of, ece_of, mce_of, rmsce_of
from trueprune.audits.confidence.bins import equal_mass, equal_width
from trueprune.audits.confidence.smooth import smece_of

# (confidence_N, mass_RN, right_RN, bins) -> (R,); smece has no bins.
ErrorOf = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]

TOP_LABEL_ERRORS: dict[str, ErrorOf] = {
    "ece": lambda confidence, mass, right, bins: ece_of(equal_width(confidence, mass, right, bins)),
    "ace": lambda confidence, mass, right, bins: ece_of(equal_mass(confidence, mass, right, bins)),
    "mce": lambda confidence, mass, right, bins: mce_of(equal_width(confidence, mass, right, bins)),
    "rmsce": lambda confidence, mass, right, bins: rmsce_of(equal_width(confidence, mass, right, bins)),
    "debiased": lambda confidence, mass, right, bins: debiased_of(equal_width(confidence, mass, right, bins)),
    "smece": lambda confidence, mass, right, bins: smece_of(confidence, mass, right),
}
