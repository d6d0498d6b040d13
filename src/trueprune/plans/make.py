"""From evidence to a plan: what the allocation wants, brought to the target or to whole numbers of n:m."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from trueprune._support.errors import PlanError
from trueprune.plans.evidence import AllocationOptions, Evidence
from trueprune.plans.plan import BlockPlan, Pattern, Plan
from trueprune.plans.project import project_keep
from trueprune.plans.registry import ALLOCATIONS


def check_sparsity(sparsity: float) -> None:
    """Refuse a sparsity outside [0, 1).

    **Raises:** `PlanError`.
    """
    if not 0 <= sparsity < 1:
        raise PlanError(f"the sparsity {sparsity} is outside [0, 1)", "Give a share such as 0.5")


def make_plan(
    allocation: str,
    evidence: Evidence,
    sparsity: float,
    *,
    pattern: Pattern | None = None,
    options: AllocationOptions | None = None,
    score: str = "",
) -> Plan:
    """Decide how sparse each block gets.

    **Arguments:**

    - `allocation`: `"uniform"`, `"owl"`, `"swl"`, `"tplo"` or `"eavss"`.
    - `evidence`: what was observed on the dense model.
    - `sparsity`: the target over all prunable weights, in [0, 1).
    - `pattern`: unstructured by default; under n:m the target is n/m.
    - `options`: the constants.
    - `score`: recorded in the plan.

    **Returns:** a `Plan` whose parameter-weighted mean sparsity is the target (unstructured).

    **Raises:** `PlanError`.
    """
    check_sparsity(sparsity)
    pattern = pattern or Pattern()
    options = options or AllocationOptions()
    wanted = ALLOCATIONS[allocation].want(evidence, sparsity, options)
    notes: tuple[str, ...] = ()
    if pattern.structured:
        zeros_L = nm_zeros(wanted.keep_L, pattern, options.nm_levels)
        sparsities = [int(zeros) / pattern.m for zeros in zeros_L]
        notes = (_nm_note(allocation, pattern, sparsities, evidence.weights),)
    elif allocation == "uniform":
        sparsities = [sparsity] * len(evidence.weights)
    else:
        keep_L = project_keep(
            wanted.keep_L, 1 - sparsity, np.array(evidence.weights), bounds=options.bounds, fixed_L=wanted.fixed_L
        )
        sparsities = (1 - keep_L).clip(0).tolist()
    found = {"outliers": list(evidence.outliers)} if evidence.outliers is not None else {}
    return Plan(
        method=allocation,
        sparsity=sparsity,
        blocks=tuple(BlockPlan(value) for value in sparsities),
        pattern=pattern,
        score=score,
        options={key: value for key, value in asdict(options).items() if allocation != "uniform"},
        evidence={**found, **wanted.found},
        notes=notes,
    )


def nm_zeros(keep_L: np.ndarray, pattern: Pattern, levels: float = 2.0) -> np.ndarray:
    """How many of each m weights every block loses: OWL's n:m rule, for any allocation.

    `n_l = n - round(r_l - mean(r))` with `r = levels (u - min u) / (max u - min u)`. For OWL, whose wanted density is a
    straight line in the outlier percentage, this is the released rule; for SWL and TPLO it is ours.

    **Arguments:**

    - `keep_L`: wanted densities, of shape `(L,)`.
    - `pattern`: the target n:m.
    - `levels`: over how many steps of n the blocks are spread (2 in OWL's scripts); 0 keeps all at n:m.

    **Returns:** integers of shape `(L,)` in `[0, m - 1]`.
    """
    spread = keep_L.max() - keep_L.min()
    # Less than rounding noise is no preference.
    r_L = levels * (keep_L - keep_L.min()) / spread if spread > 1e-9 else np.zeros_like(keep_L)
    return np.clip(pattern.n - np.round(r_L - r_L.mean()), 0, pattern.m - 1).astype(int)


def _nm_note(allocation: str, pattern: Pattern, sparsities: Sequence[float], weights: Sequence[int]) -> str:
    if len(set(sparsities)) == 1:
        return f"{allocation}: every block gets {pattern}"
    counts = {n: sparsities.count(n / pattern.m) for n in range(pattern.m + 1) if n / pattern.m in sparsities}
    parts = ", ".join(f"{count} blocks {n}:{pattern.m}" for n, count in counts.items())
    mean = float(np.average(sparsities, weights=weights))
    return (
        f"{allocation} with {pattern}: n differs between blocks ({parts}), mean sparsity {mean:.4f}; an accelerator "
        f"that wants {pattern} in every matrix needs --method wanda, magnitude or sparsegpt, or --nm-levels 0"
    )
