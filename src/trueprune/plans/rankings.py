"""How important a block, an attention or an MLP is: one line each. The least important goes first.

Legend: L blocks, W windows of consecutive blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from trueprune._support.errors import PlanError
from trueprune.observe.profile import LayerProfile
from trueprune.plans.avss import AvssOptions, normalised, profile_avss
from trueprune.plans.eavss import EavssResult

# Which blocks a ranking by EAVSS takes first: those in which hallucinated answers differ least, or most.
First = Literal["indifferent", "prone"]
FIRSTS: tuple[str, ...] = get_args(First)


@dataclass(frozen=True, eq=False)
class LayerEvidence:
    """What a ranking may look at.

    **Arguments:**

    - `n_blocks`: L.
    - `profile`: what was observed on calibration tokens, or `None`.
    - `avss`: how AVSS is taken.
    - `seed`: of random rankings.
    - `eavss`: how hallucinated answers differ from true ones, or `None`.
    - `eavss_first`: which blocks go first by it.
    """

    n_blocks: int
    profile: LayerProfile | None = None
    avss: AvssOptions = field(default_factory=AvssOptions)
    seed: int = 0
    eavss: EavssResult | None = None
    eavss_first: First = "indifferent"

    @property
    def observed(self) -> LayerProfile:
        """The profile.

        **Raises:** `PlanError` if there is none.
        """
        if self.profile is None:
            raise PlanError("this ranking needs a layer profile", "Observe one, or rank by random, first or last")
        return self.profile


def _turned(values: dict[str, np.ndarray], unit: str) -> np.ndarray:
    if unit not in values:
        raise PlanError(
            f"no {unit} of this model adds to the residual stream and does nothing else",
            "Drop whole blocks (--what block)",
        )
    return values[unit]


def by_avss(evidence: LayerEvidence, unit: str) -> np.ndarray:
    """AVSS (arXiv 2411.02117)."""
    return profile_avss(evidence.observed, unit, evidence.avss)


def by_eavss(evidence: LayerEvidence, unit: str) -> np.ndarray:
    """`|EAVSS|` (arXiv 2411.10069, in our reading): as with AVSS, blocks with the lowest score go first, in which true
    and hallucinated answers differ least; or those with the highest (`eavss_first = "prone"`). The choice is ours.

    **Raises:** `PlanError` for sublayers, or without scores.
    """
    if unit != "block":
        raise PlanError("EAVSS is taken at the output of whole blocks", "Drop blocks (--what block)")
    if evidence.eavss is None:
        raise PlanError("this ranking needs EAVSS", "Observe it on true and hallucinated answers")
    size_L = np.abs(evidence.eavss.score_L)
    return size_L if evidence.eavss_first == "indifferent" else -size_L


def eavss_window(evidence: LayerEvidence, count: int) -> np.ndarray:
    """Sum of what `by_eavss` gives, which has a sign that shares would lose."""
    return window_sum(by_eavss(evidence, "block"), count)


def by_cosine(evidence: LayerEvidence, unit: str) -> np.ndarray:
    """`1 - E cos(x, x + u)`: LLM-Drop (arXiv 2406.15786); for blocks ShortGPT's block influence (arXiv 2403.03853)."""
    return 1 - _turned(dict(evidence.observed.cosine), unit)


def by_angle(evidence: LayerEvidence, unit: str) -> np.ndarray:
    """`E arccos(cos(x, x + u)) / pi` at last tokens (arXiv 2403.17887)."""
    return _turned(dict(evidence.observed.angle), unit)


def at_random(evidence: LayerEvidence, unit: str) -> np.ndarray:
    """A random order, other for attention than for MLPs."""
    seed = [evidence.seed, ("block", "attention", "mlp").index(unit)]
    return np.random.default_rng(seed).permutation(evidence.n_blocks).astype(float)


def first(evidence: LayerEvidence, unit: str) -> np.ndarray:
    """The first go first."""
    return np.arange(evidence.n_blocks, dtype=float)


def last(evidence: LayerEvidence, unit: str) -> np.ndarray:
    """The last go first."""
    return -np.arange(evidence.n_blocks, dtype=float)


def window_sum(importance_L: np.ndarray, count: int) -> np.ndarray:
    """Sum over each window of `count` consecutive blocks, of shape `(L - count + 1,)`."""
    return np.convolve(importance_L, np.ones(count), mode="valid")


def cosine_window(evidence: LayerEvidence, count: int) -> np.ndarray:
    """`1 - E cos(x_l, x_{l + n})` over all tokens: what a window of n blocks does to the stream."""
    return 1 - evidence.observed.gap_cosine[count]


def angle_window(evidence: LayerEvidence, count: int) -> np.ndarray:
    """`d(l, l + n)` (arXiv 2403.17887, eq. 8)."""
    gaps_LL = evidence.observed.angle_gap
    return gaps_LL[: len(gaps_LL) + 1 - count, count - 1]


@dataclass(frozen=True)
class Ranking:
    """A way to say what matters least.

    **Arguments:**

    - `importance`: `(evidence, unit) -> importance of every layer`, of shape `(L,)`; NaN where there is no such unit.
    - `window`: `(evidence, n) -> importance of n consecutive blocks`, of shape `(L - n + 1,)`; by default the sum of
        their shares.
    - `observes`: whether it looks at activations, and so changes when layers go.
    - `scored`: whether it looks at how AVSS is taken.
    - `gap`: whether `window` needs streams compared n blocks apart at all tokens.
    - `answers`: whether it looks at true and hallucinated answers, instead of calibration tokens.
    """

    importance: Callable[[LayerEvidence, str], np.ndarray]
    window: Callable[[LayerEvidence, int], np.ndarray] | None = None
    observes: bool = True
    scored: bool = False
    gap: bool = False
    answers: bool = False

    @property
    def profiled(self) -> bool:
        """Whether it needs a layer profile."""
        return self.observes and not self.answers


RANKINGS: dict[str, Ranking] = {
    "avss": Ranking(by_avss, scored=True),
    "block-influence": Ranking(by_cosine, cosine_window, gap=True),
    "cosine": Ranking(by_cosine, cosine_window, gap=True),
    "angular": Ranking(by_angle, angle_window),
    "eavss": Ranking(by_eavss, eavss_window, answers=True),
    "random": Ranking(at_random, observes=False),
    "first": Ranking(first, observes=False),
    "last": Ranking(last, observes=False),
}


def window_importance(ranking: Ranking, evidence: LayerEvidence, count: int) -> np.ndarray:
    """Importance of every window of `count` consecutive blocks, of shape `(L - count + 1,)`."""
    if ranking.window is not None:
        return ranking.window(evidence, count)
    importance_L = ranking.importance(evidence, "block")
    return window_sum(normalised(importance_L) if ranking.observes else importance_L, count)


def find_ranking(name: str) -> Ranking:
    """The ranking of a name.

    **Raises:** `PlanError` that names the known ones.
    """
    if name not in RANKINGS:
        raise PlanError(
            f"unknown ranking {name!r}, and no file of that name", f"Use one of {', '.join(RANKINGS)}, or a JSON file"
        )
    return RANKINGS[name]
