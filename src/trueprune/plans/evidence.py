"""What an allocation may look at, and the constants it may be given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from trueprune._support.errors import PlanError

Correction = Literal["all", "tail"]


@dataclass(frozen=True)
class Evidence:
    """What was observed on the dense model, block by block.

    **Arguments:**

    - `weights`: prunable weights of each block, of length L.
    - `outliers`: outlier percentage of each block (OWL), or `None`.
    - `separation`: true/false separation ratios of each block by dataset, or `None`.
    - `eavss`: how hallucinated answers differ from true ones in each block, or `None`.
    """

    weights: tuple[int, ...]
    outliers: tuple[float, ...] | None = None
    separation: Mapping[str, tuple[float, ...]] | None = None
    eavss: tuple[float, ...] | None = None


@dataclass(frozen=True)
class AllocationOptions:
    """The constants of the allocations.

    **Arguments:**

    - `lam`: OWL's half range of densities, lambda.
    - `outlier_threshold`: OWL's M: an outlier exceeds M times the mean score.
    - `scale`: k, how strongly SWL and TPLO follow the separation, and `eavss` its scores.
    - `pivot`: the first block (0-based) whose density TPLO takes from the separation; `"auto"` finds the crossing.
    - `pivot_scale`: the k with which `"auto"` looks for the crossing; 0.08 gives the papers' pivots.
    - `correction`: whether TPLO's last shift, which restores the target, falls on all blocks or on the tail from the
        pivot on.
    - `bounds`: least and greatest density of a block.
    - `nm_levels`: under n:m, over how many steps of n the blocks are spread (OWL's n:m lambda).
    """

    lam: float = 0.08
    outlier_threshold: float = 5.0
    scale: float = 0.04
    pivot: int | Literal["auto"] = "auto"
    pivot_scale: float = 0.08
    correction: Correction = "all"
    bounds: tuple[float, float] = (0.001, 1.0)
    nm_levels: float = 2.0

    def __post_init__(self):
        low, high = self.bounds
        if not 0 < low < high <= 1:
            raise PlanError(f"the bounds {low} {high} of a density are not in (0, 1]", "Use e.g. --bounds 0.001 1")
        if not self.outlier_threshold > 0:
            raise PlanError(f"--outlier-threshold {self.outlier_threshold} is not positive", "Use e.g. 5")
        if min(self.lam, self.scale, self.nm_levels) < 0:
            raise PlanError("--lam, --scale and --nm-levels must not be negative", "Use e.g. 0.08, 0.04 and 2")


@dataclass(frozen=True, eq=False)
class Wanted:
    """What an allocation wants before the target is restored.

    **Arguments:**

    - `keep_L`: densities, of shape `(L,)`.
    - `fixed_L`: blocks that must not move when the target is restored, of shape `(L,)` bool, or `None`.
    - `found`: plain data worth keeping in the plan, e.g. the pivot.
    """

    keep_L: np.ndarray
    fixed_L: np.ndarray | None = None
    found: Mapping[str, object] = field(default_factory=dict)
