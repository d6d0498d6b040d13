"""From importance to what is dropped: so many of the least important, or as many as hold a share of all importance.

Legend: K candidates.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from trueprune._support.errors import PlanError
from trueprune.plans.avss import cumulative, normalised
from trueprune.plans.rankings import LayerEvidence, Ranking, window_importance

Unit = tuple[str, int]
# The kinds of units that each choice of the user has as candidates.
KINDS: dict[str, tuple[str, ...]] = {
    "block": ("block",),
    "attention": ("attention",),
    "mlp": ("mlp",),
    "joint": ("attention", "mlp"),
}


def candidates(what: str, present: Mapping[str, Sequence[int]]) -> list[Unit]:
    """What may be dropped: kind and block of every unit that is there.

    **Arguments:**

    - `what`: `"block"`, `"attention"`, `"mlp"` or `"joint"` (attention and MLPs, compared with each other).
    - `present`: for each kind, the blocks that have it.
    """
    return [(kind, index) for kind in KINDS[what] for index in present[kind]]


def importance_of(units: Sequence[Unit], ranking: Ranking, evidence: LayerEvidence) -> Float[np.ndarray, " K"]:
    """Importance of each candidate, of shape `(K,)`.

    **Raises:** `PlanError` if one is not finite.
    """
    by_kind = {kind: ranking.importance(evidence, kind) for kind in {kind for kind, _ in units}}
    importance_K = np.array([by_kind[kind][index] for kind, index in units], dtype=float)
    if not np.isfinite(importance_K).all():
        kind, index = units[int(np.flatnonzero(~np.isfinite(importance_K))[0])]
        name = f"block {index}" if kind == "block" else f"the {kind} of block {index}"
        raise PlanError(
            f"{name} has no such score: what is scored is not there, or does more than add to the residual stream",
            "Use another ranking, another --avss-site, or drop whole blocks (--what block)",
        )
    return importance_K


def share_of(fraction: float | None) -> float:
    """The fraction that was given, or a quarter.

    **Raises:** `PlanError` outside (0, 1).
    """
    if fraction is not None and not 0 < fraction < 1:
        raise PlanError(f"the fraction {fraction} is outside (0, 1)", "Give a share such as 0.25")
    return 0.25 if fraction is None else fraction


def how_many(n_candidates: int, fraction: float | None, count: int | None, what: str) -> int:
    """The number to drop: as given, or `floor(fraction * candidates)`. One of each kind is spared.

    **Raises:** `PlanError` if that is none, all, or more than there are.
    """
    names = {"block": "blocks", "attention": "attention sublayers", "mlp": "MLP sublayers", "joint": "sublayers"}[what]
    if count is not None and fraction is not None:
        raise PlanError("--count and --fraction were both given", "Use one of them")
    if count is None:
        # 1/3 of 30 is 10, also in binary.
        count = math.floor(share_of(fraction) * n_candidates + 1e-9)
    if count < 1:
        raise PlanError(f"none of the {n_candidates} {names} would be dropped", "Give a larger --fraction or --count")
    most = n_candidates - len(KINDS[what])
    if count > most:
        raise PlanError(
            f"{count} {names} are to be dropped, and the model has {n_candidates}",
            f"Drop at most {most}" if most > 0 else "There is nothing to spare",
        )
    return count


def sparing(units: Sequence[Unit], going: Sequence[int]) -> list[int]:
    """Of candidates that are to go, in this order, those that leave at least one of each kind."""
    left = Counter(kind for kind, _ in units)
    spared = []
    for i in going:
        if left[units[i][0]] > 1:
            left[units[i][0]] -= 1
            spared.append(i)
    return spared


def by_rank(importance_K: Float[np.ndarray, " K"], count: int) -> list[int]:
    """The `count` least important, least important first; ties by depth."""
    return [int(i) for i in np.argsort(importance_K, kind="stable")[:count]]


def by_mass(importance_K: Float[np.ndarray, " K"], fraction: float) -> list[int]:
    """The least important whose shares of all importance add up to at most `fraction`, least important first.

    **Raises:** `PlanError` for importances that have no mass (negative, or all zero).
    """
    if (importance_K < 0).any() or not importance_K.sum() > 0:
        raise PlanError("--rule mass needs a ranking with positive scores", "Use --rule rank")
    share_K = normalised(importance_K)
    sum_K = cumulative(share_K, "rank")
    return [int(i) for i in np.argsort(share_K, kind="stable") if sum_K[i] <= fraction + 1e-12]


def consecutive_blocks(ranking: Ranking, evidence: LayerEvidence, count: int) -> list[int]:
    """The `count` consecutive blocks that matter least together.

    A gap of n compares the stream before block l and before block l + n. (LLM-Drop's search reads the column of n + 1.)
    """
    start = int(np.argmin(window_importance(ranking, evidence, count)))
    return list(range(start, start + count))
