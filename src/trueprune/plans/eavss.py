"""EAVSS: which blocks hallucinated answers pass otherwise than true ones (arXiv 2411.10069).

Public is the paper's abstract alone: it names a hallucination-specific variance (HSAV) and sparsity (HSS) that extend
AVSS, and no formula. The readings here, their normalisation, test and choice of blocks are ours.
Legend: N answers, L blocks, P labellings (the true one and its shuffles).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float

from trueprune._support.errors import PlanError
from trueprune.observe.answers import AnswerProfile
from trueprune.plans.contrasts import VARIANTS, Scores, scores_of, surprise
from trueprune.plans.evidence import AllocationOptions, Evidence, Wanted
from trueprune.plans.shuffles import benjamini_hochberg, in_mixed_clusters, shuffled_labels
from trueprune.plans.swl import swl_keep

Variant = Literal["delta", "conditional", "logratio", "effect"]
AnswerEstimator = Literal["official", "token"]
# Fewer answers of a kind leave scores uncertain.
ENOUGH = 200


@dataclass(frozen=True)
class EavssOptions:
    """How EAVSS is taken; H are hallucinated answers, N are not, AV is activation variance and AS the share near zero.

    **Arguments:**

    - `eavss_variant`: `logratio`, `ln(AV_H / AV_N) - ln(AS_H / AS_N)`, which no scale changes and whose sign says on
        which answers AVSS is greater; `delta`, `|AV_H - AV_N| / (|AS_H - AS_N| + 1e-8)`, the new terms put into AVSS;
        `conditional`, `AV_H / AS_H`, AVSS on hallucinated answers; `effect`, Cohen's d of each answer's ln AVSS, which
        the few answers with massive activations do not carry alone.
    - `eavss_estimator`: `official` (variance over units of an answer's mean activation) or `token` (of each token).
    - `eavss_smoothing`: Laplace's rule for shares of zeros, so that none is 0: one zero and two entries are added, in
        proportion where answers are of different length.
    - `eavss_balance`: compare as many hallucinated as true answers; which are left out, the seed decides.
    - `eavss_shuffles`: how often labels are shuffled for p-values.
    - `eavss_level`: a block is significant if its p-value, adjusted for all blocks, lies below this.
    - `eavss_prone`: which share of the blocks counts as hallucination-prone.
    - `seed`: of shuffles, and of what balancing leaves out.
    """

    eavss_variant: Variant = "logratio"
    eavss_estimator: AnswerEstimator = "official"
    eavss_smoothing: bool = True
    eavss_balance: bool = True
    eavss_shuffles: int = 1000
    eavss_level: float = 0.05
    eavss_prone: float = 0.25
    seed: int = 0

    def __post_init__(self):
        if self.eavss_variant not in VARIANTS:
            raise PlanError(f"unknown EAVSS variant {self.eavss_variant!r}", f"Use one of {', '.join(VARIANTS)}")
        if self.eavss_estimator not in get_args(AnswerEstimator):
            raise PlanError(f"unknown EAVSS estimator {self.eavss_estimator!r}", "Use official or token")
        if self.eavss_shuffles < 1:
            raise PlanError(f"--eavss-shuffles {self.eavss_shuffles} is not positive", "Use e.g. 1000")
        if not (0 < self.eavss_level < 1 and 0 < self.eavss_prone <= 1):
            raise PlanError("--eavss-level and --eavss-prone must be shares", "Use e.g. 0.05 and 0.25")


@dataclass(frozen=True, eq=False)
class EavssResult:
    """What hallucinated answers do otherwise, block by block.

    **Arguments:**

    - `hsav_L`, `hss_L`: hallucination-specific activation variance and sparsity, as the variant has them.
    - `score_L`: EAVSS.
    - `normalised_L`: NEAVSS: shares of the sum over blocks (`delta`, `conditional`), or z-scores over blocks.
    - `p_value_L`: of the permutation test that hallucinated and true answers do not differ.
    - `adjusted_p_L`: after Benjamini and Hochberg.
    - `significant_L`: whether that lies below the level.
    - `answers`: hallucinated and true answers that were compared.
    - `notes`: sentences that a user should read.
    """

    hsav_L: Float[np.ndarray, " L"]
    hss_L: Float[np.ndarray, " L"]
    score_L: Float[np.ndarray, " L"]
    normalised_L: Float[np.ndarray, " L"]
    p_value_L: Float[np.ndarray, " L"]
    adjusted_p_L: Float[np.ndarray, " L"]
    significant_L: Bool[np.ndarray, " L"]
    answers: tuple[int, int]
    notes: tuple[str, ...] = ()


def eavss_of(profile: AnswerProfile, options: EavssOptions | None = None) -> EavssResult:
    """EAVSS of every block, and how sure it is.

    The test shuffles the labels: within each question that has answers of both kinds, else among questions. Its
    statistic is the score's absolute value where it has a sign, else (`delta`, `conditional`) how far its logarithm
    lies from the mean logarithm under shuffling, because answers that do not differ have such a score, too: AVSS on any
    half of them is not 0. `p = (1 + #{shuffles at least as far}) / (1 + shuffles)`.

    **Arguments:**

    - `profile`: what was observed.
    - `options`: variant, estimator, test.

    **Raises:** `PlanError` if all answers are hallucinated, or none is, or a score is infinite.
    """
    options = options or EavssOptions()
    _refuse_one_kind(profile.hallucinated_N)
    labels_N = profile.hallucinated_N
    rows = _balanced(labels_N, profile.clusters, options.seed) if options.eavss_balance else np.arange(len(labels_N))
    labels_N = labels_N[rows]
    _refuse_one_kind(labels_N)
    clusters = [profile.clusters[i] for i in rows]
    shuffled_PN = shuffled_labels(labels_N, clusters, options.eavss_shuffles, options.seed)
    entries_N = profile.entries_N[rows].astype(np.float64)
    scores = scores_of(
        np.concatenate([labels_N[None], shuffled_PN]),
        profile.variance[options.eavss_estimator][rows],
        profile.zeros_NL[rows].astype(np.float64),
        entries_N,
        weights_N=entries_N if options.eavss_estimator == "token" else np.ones(len(rows)),
        variant=options.eavss_variant,
        smoothing=options.eavss_smoothing,
    )
    _refuse_infinite(scores)
    far_PL = surprise(scores.score_PL, options.eavss_variant)
    # The same labelling, or its mirror image, may differ in the last bits.
    at_least_L = (far_PL[1:] >= far_PL[:1] * (1 - 1e-9)).sum(0)
    p_value_L = (1 + at_least_L) / (1 + options.eavss_shuffles)
    adjusted_L = benjamini_hochberg(p_value_L)
    score_L = scores.score_PL[0]
    return EavssResult(
        scores.hsav_PL[0],
        scores.hss_PL[0],
        score_L,
        _normalised(score_L, options.eavss_variant),
        p_value_L,
        adjusted_L,
        adjusted_L < options.eavss_level,
        (int(labels_N.sum()), int((~labels_N).sum())),
        _notes(labels_N),
    )


def prone_layers(result: EavssResult, share: float = 0.25, *, significant: bool = False) -> list[int]:
    """The hallucination-prone blocks: those with the greatest absolute EAVSS.

    **Arguments:**

    - `result`: of `eavss_of`.
    - `share`: of all blocks, rounded down, at least one; AVSS's authors take a quarter.
    - `significant`: those instead whose adjusted p-value lies below the level; may be none.

    **Returns:** block indices in order of depth.
    """
    if significant:
        return [int(i) for i in np.flatnonzero(result.significant_L)]
    count = max(1, math.floor(share * len(result.score_L) + 1e-9))
    return sorted(int(i) for i in np.argsort(-np.abs(result.score_L), kind="stable")[:count])


def want_eavss(evidence: Evidence, sparsity: float, options: AllocationOptions) -> Wanted:
    """Blocks in which hallucinated answers differ more keep more: SWL's densities (arXiv 2509.00096) with `p_l` each
    block's share of `|EAVSS|`. Ours.

    **Raises:** `PlanError` if EAVSS was not observed, or is nowhere.
    """
    if evidence.eavss is None:
        raise PlanError("this allocation needs the EAVSS of each block", "Observe it on true and hallucinated answers")
    size_L = np.abs(np.array(evidence.eavss, dtype=np.float64))
    if not size_L.sum() > 0:
        raise PlanError("true and hallucinated answers coincide in every block", "Give answers that differ")
    share_L = size_L / size_L.sum()
    return Wanted(
        swl_keep(share_L, sparsity, options.scale),
        found={"eavss": list(evidence.eavss), "eavss_share": share_L.tolist()},
    )


def _refuse_one_kind(labels_N: np.ndarray) -> None:
    wrong, right = int(labels_N.sum()), int((~labels_N).sum())
    remedy = "Use --answers-from pairs (right and wrong answers that are given), or other questions (--qa, --qa-items)"
    if not wrong or not right:
        kind = "right" if not wrong else "wrong"
        raise PlanError(f"every answer ({wrong + right}) is {kind}, and EAVSS compares the two", remedy)
    if wrong + right < 3:
        raise PlanError("EAVSS compares true and hallucinated answers, and there is one of each", remedy)


def _balanced(labels_N: np.ndarray, clusters: tuple[str, ...], seed: int) -> np.ndarray:
    """As many examples of each label; those go first whose cluster has one label only."""
    least = min(int(labels_N.sum()), int((~labels_N).sum()))
    order = np.random.default_rng(seed).permutation(len(labels_N))
    order = order[np.argsort(~in_mixed_clusters(labels_N, clusters)[order], kind="stable")]
    return np.sort(np.concatenate([order[labels_N[order]][:least], order[~labels_N[order]][:least]]))


def _refuse_infinite(scores: Scores) -> None:
    if not np.isfinite(scores.score_PL[0]).all():
        block = int(np.flatnonzero(~np.isfinite(scores.score_PL[0]))[0])
        raise PlanError(
            f"the EAVSS of block {block} is not finite: no activation is near zero, or all of them are alike",
            "Keep --eavss-smoothing, or raise --answer-near-zero",
        )


def _normalised(score_L: np.ndarray, variant: str) -> np.ndarray:
    if variant in ("delta", "conditional"):
        return score_L / score_L.sum() if score_L.sum() > 0 else np.zeros_like(score_L)
    spread = score_L.std()
    return (score_L - score_L.mean()) / spread if spread > 0 else np.zeros_like(score_L)


def _notes(labels_N: np.ndarray) -> tuple[str, ...]:
    wrong, right = int(labels_N.sum()), int((~labels_N).sum())
    if min(wrong, right) >= ENOUGH:
        return ()
    return (f"EAVSS compares {wrong} hallucinated and {right} true answers; below {ENOUGH} each it is uncertain",)
