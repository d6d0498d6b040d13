"""NAOPC: AOPC between the least and the most that any order reaches, to compare two models (Edin et al. 2025).

A pruned model is another model, and AOPC has another range on every model and input (arXiv 2408.08137).

Legend: D words, A orders, S masks, W states of a beam, C candidates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from trueprune._support.errors import AuditError
from trueprune.audits.faithfulness.removal import full_curve
from trueprune.audits.faithfulness.value import Value, check_words, evaluate, every_mask

EXACT_UP_TO = 10
MAX_EXACT = 16
BEAM_WIDTH = 5
FLAT = 1e-12


@dataclass(frozen=True)
class AopcBounds:
    """The range of AOPC over the orders in which the words of one input can be removed.

    The same range serves comprehensiveness and sufficiency, which are both AOPCs of an order.

    **Arguments:**

    - `lowest`, `highest`: of AOPC as in `removal.full_curve`.
    - `exact`: whether all orders were covered; a beam finds bounds that lie within the exact ones.
    """

    lowest: float
    highest: float
    exact: bool

    def normalise(self, aopc_A: Float[np.ndarray, " A"]) -> Float[np.ndarray, " A"]:
        """(AOPC - lowest)/(highest - lowest), of shape `(A,)`; 0 where all orders give the same AOPC.

        The 0 is a convention (the authors' package divides by 0): it says nothing about the explanation, so count the
        items with `is_flat`. An order that beats what a beam found comes out above 1 or below 0: see `widened`.
        """
        if self.is_flat:
            return np.zeros_like(aopc_A)
        return (aopc_A - self.lowest) / (self.highest - self.lowest)

    @property
    def is_flat(self) -> bool:
        """Whether all orders give the same AOPC: with one word, or where the model does not read the text."""
        return self.highest - self.lowest <= FLAT

    def widened(self, aopc_A: Float[np.ndarray, " A"]) -> AopcBounds:
        """Bounds that include the AOPCs of given orders: still within the exact bounds, since these are reached."""
        return replace(
            self, lowest=min(self.lowest, float(aopc_A.min())), highest=max(self.highest, float(aopc_A.max()))
        )


@dataclass(frozen=True, eq=False)
class Naopc:
    """AOPC of some orders on one input, as it is and normalised.

    **Arguments:**

    - `bounds`: the range, widened by the orders themselves.
    - `comprehensiveness_A`, `sufficiency_A`: NAOPC, in [0, 1], of shape `(A,)`; the first is better high, the second
        low.
    - `raw_comprehensiveness_A`, `raw_sufficiency_A`: AOPC, of shape `(A,)`.
    """

    bounds: AopcBounds
    comprehensiveness_A: Float[np.ndarray, " A"]
    sufficiency_A: Float[np.ndarray, " A"]
    raw_comprehensiveness_A: Float[np.ndarray, " A"]
    raw_sufficiency_A: Float[np.ndarray, " A"]


def measure_naopc(value: Value, orders_AD: Int[np.ndarray, "A D"], bounds: AopcBounds | None = None) -> Naopc:
    """NAOPC of orders: comprehensiveness removes the most important word first, sufficiency the least important.

    **Arguments:**

    - `value`: the model, see `faithfulness.value`.
    - `orders_AD`: words from most to least important, of shape `(A, D)`.
    - `bounds`: the range, `aopc_bounds` by default. They are widened by the AOPCs of the orders, which changes
        nothing where they are exact and keeps NAOPC in [0, 1] where they come from a beam.

    **Returns:**

    Both, normalised and raw.

    **Raises:**

    - `AuditError`: no word.
    """
    check_words(orders_AD.shape[1])
    comprehensiveness_A, sufficiency_A = full_curve(value, orders_AD)
    bounds = aopc_bounds(value, orders_AD.shape[1]) if bounds is None else bounds
    bounds = bounds.widened(np.concatenate([comprehensiveness_A, sufficiency_A]))
    return Naopc(
        bounds,
        bounds.normalise(comprehensiveness_A),
        bounds.normalise(sufficiency_A),
        comprehensiveness_A,
        sufficiency_A,
    )


def aopc_bounds(value: Value, n_words: int, *, exact_up_to: int = EXACT_UP_TO, width: int = BEAM_WIDTH) -> AopcBounds:
    """The range of AOPC: exact for short texts, by beam search for others.

    **Arguments:**

    - `value`: the model, see `faithfulness.value`.
    - `n_words`: D.
    - `exact_up_to`: the largest D that is enumerated, at 2^D masks.
    - `width`: of the beam; Edin et al. report a width of 5.

    **Returns:**

    The bounds.

    **Raises:**

    - `AuditError`: no word, more words to enumerate than 16, or a width below 1.
    """
    return exact_bounds(value, n_words) if n_words <= exact_up_to else beam_bounds(value, n_words, width)


def exact_bounds(value: Value, n_words: int) -> AopcBounds:
    """The least and the most AOPC of all D! orders, from 2^D masks in one call.

    AOPC depends on the sets that an order passes through, so that the best way from a set to the empty text is the best
    of the ways of the sets with one word less: dynamic programming, where the authors go through permutations.

    **Arguments:**

    - `value`: the model, see `faithfulness.value`.
    - `n_words`: D, at most 16.

    **Returns:**

    The bounds, `exact`.

    **Raises:**

    - `AuditError`: no word, or more than 16.
    """
    if check_words(n_words) > MAX_EXACT:
        raise AuditError(
            f"exact bounds of AOPC for {n_words} words need 2^{n_words} texts",
            f"Search with a beam above {MAX_EXACT} words or fewer",
        )
    masks_SD = every_mask(n_words)
    values_S = evaluate(value, masks_SD)
    # sums of the values on the way from a mask (not counted) to the empty text
    least_S, most_S = np.zeros_like(values_S), np.zeros_like(values_S)
    sizes_S = masks_SD.sum(1)
    for size in range(1, n_words + 1):
        codes_C = np.flatnonzero(sizes_S == size)
        kept_CD = masks_SD[codes_C]
        next_CD = codes_C[:, None] & ~(1 << np.arange(n_words))
        least_S[codes_C] = np.where(kept_CD, (values_S + least_S)[next_CD], np.inf).min(1)
        most_S[codes_C] = np.where(kept_CD, (values_S + most_S)[next_CD], -np.inf).max(1)
    full = values_S[-1]
    return AopcBounds(float(full - most_S[-1] / n_words), float(full - least_S[-1] / n_words), True)


def beam_bounds(value: Value, n_words: int, width: int = BEAM_WIDTH) -> AopcBounds:
    """A low and a high AOPC that two beam searches over orders find; they lie within the exact bounds.

    Each step extends the `width` best beginnings of an order by every remaining word, for both searches in one call: D
    calls of at most 2 width (D - i) masks. As beginnings with the same words differ only in what they have summed, the
    better one stands for all (the authors keep repetitions in the beam), so that with a width of C(D, D/2) the
    bounds are exact.

    **Arguments:**

    - `value`: the model, see `faithfulness.value`.
    - `n_words`: D.
    - `width`: of each beam, at least 1.

    **Returns:**

    The bounds, not `exact`.

    **Raises:**

    - `AuditError`: no word, or a width below 1.
    """
    check_words(n_words)
    if width < 1:
        raise AuditError(f"the width of the beam is {width}", "Give a width of at least 1")
    full_1D = np.ones((1, n_words), dtype=bool)
    beams = {sign: (full_1D, np.zeros(1)) for sign in (1.0, -1.0)}  # each search minimises sign x the sum of values
    full = 0.0
    for step in range(n_words):
        extended = {sign: _extend(*beam) for sign, beam in beams.items()}
        asked_SD = np.concatenate([full_1D] * (step == 0) + [masks_CD for masks_CD, _ in extended.values()])
        asked_SD = np.unique(asked_SD, axis=0)
        values_S = evaluate(value, asked_SD)
        known = {mask_D.tobytes(): p for mask_D, p in zip(asked_SD, values_S.tolist(), strict=True)}
        if step == 0:
            full = known[full_1D.tobytes()]
        for sign, (masks_CD, sums_C) in extended.items():
            sums_C = sums_C + sign * np.array([known[mask_D.tobytes()] for mask_D in masks_CD])
            beams[sign] = _best(masks_CD, sums_C, width)
    least, most = beams[1.0][1][0], -beams[-1.0][1][0]
    return AopcBounds(float(full - most / n_words), float(full - least / n_words), False)


def _extend(
    masks_WD: Bool[np.ndarray, "W D"], sums_W: Float[np.ndarray, " W"]
) -> tuple[Bool[np.ndarray, "C D"], Float[np.ndarray, " C"]]:
    """Every way to remove one more word."""
    states_C, words_C = np.nonzero(masks_WD)
    masks_CD = masks_WD[states_C]
    masks_CD[np.arange(len(words_C)), words_C] = False
    return masks_CD, sums_W[states_C]


def _best(
    masks_CD: Bool[np.ndarray, "C D"], sums_C: Float[np.ndarray, " C"], width: int
) -> tuple[Bool[np.ndarray, "W D"], Float[np.ndarray, " W"]]:
    """The `width` smallest sums over different masks; equal sums are kept in the order of their masks."""
    by_sum_C = np.lexsort((*masks_CD.T, sums_C))
    _, first = np.unique(masks_CD[by_sum_C], axis=0, return_index=True)
    chosen_W = by_sum_C[np.sort(first)[:width]]
    return masks_CD[chosen_W], sums_C[chosen_W]
