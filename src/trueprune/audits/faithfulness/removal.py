"""Which words to remove and what their removal does: comprehensiveness and sufficiency (DeYoung et al. 2020, ERASER).

Legend: D words, A orders (one an attribution), B bins, S masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from jaxtyping import Bool, Float, Int

from trueprune._support.errors import AuditError
from trueprune.audits.faithfulness.value import Value, check_scores, check_words, evaluate

BINS = (0.01, 0.05, 0.1, 0.2, 0.5)
TIED = 10  # decimals of the largest score: symmetric words must not be ordered by rounding errors


def order_words(scores_D: Float[np.ndarray, " D"], *, seed: int = 0, absolute: bool = False) -> Int[np.ndarray, " D"]:
    """Words from most to least important.

    Scores that agree to 10 decimals of the largest are tied. Ties are broken by a permutation drawn from `seed`,
    so that neither early nor late words are preferred; the same scores and seed give the same order. Give every item a
    seed of its own, from its identifier, or the same positions win in all items of one length.

    **Arguments:**

    - `scores_D`: attributions, of shape `(D,)`.
    - `seed`: breaks ties.
    - `absolute`: order by absolute value, so that words that speak against the class count as important.

    **Returns:**

    Indices of words, of shape `(D,)`.

    **Raises:**

    - `AuditError`: no word, or a score that is not finite.
    """
    check_scores(scores_D)
    keys_D = np.abs(scores_D) if absolute else scores_D
    largest = np.abs(keys_D).max()
    if largest > 0:
        keys_D = np.round(keys_D / largest, TIED)
    return np.lexsort((np.random.default_rng(seed).permutation(len(keys_D)), -keys_D))


def bin_sizes(n_words: int, bins: Sequence[float] = BINS) -> Int[np.ndarray, " B"]:
    """How many words the bins are: ceil(k D), at least 1.

    ERASER's bins are shares of the tokens of documents; rounding up keeps its smallest bins from being empty on short
    texts. Bins that come out at the same size are all kept, as in ERASER's code.

    **Arguments:**

    - `n_words`: D.
    - `bins`: shares k in (0, 1].

    **Returns:**

    Of shape `(B,)`.

    **Raises:**

    - `AuditError`: no word, no bin, or a share outside (0, 1].
    """
    check_words(n_words)
    if not bins or not all(0 < share <= 1 for share in bins):
        raise AuditError(f"the bins are {list(bins)}", "Give shares of the words above 0 and at most 1")
    # 0.07 * 100 is a little above 7
    return np.array([max(1, ceil(share * n_words - 1e-9)) for share in bins])


@dataclass(frozen=True, eq=False)
class Removal:
    """What is left of the probability of the explained class.

    **Arguments:**

    - `full`, `empty`: on the full text, and on the text without any of its words.
    - `without_AB`: without the top words of each order and bin, of shape `(A, B)`.
    - `only_AB`: on these words only, of shape `(A, B)`.
    """

    full: float
    empty: float
    without_AB: Float[np.ndarray, "A B"]
    only_AB: Float[np.ndarray, "A B"]


def removal_masks(orders_AD: Int[np.ndarray, "A D"], sizes_B: Int[np.ndarray, " B"]) -> Bool[np.ndarray, "S D"]:
    """All masks that an item needs, for all attributions: the model is asked once.

    **Arguments:**

    - `orders_AD`: words from most to least important, of shape `(A, D)`.
    - `sizes_B`: how many are taken, of shape `(B,)`; see `bin_sizes`.

    **Returns:**

    Of shape `(2 + 2AB, D)`: the full text, the empty one, then (order by order, bin by bin) without the top words, then
    in the same sequence only these.
    """
    only_ABD = orders_AD.argsort(1)[:, None, :] < sizes_B[:, None]
    only_SD = only_ABD.reshape(-1, orders_AD.shape[1])
    ends_2D = np.array([[True], [False]]).repeat(orders_AD.shape[1], 1)
    return np.concatenate([ends_2D, ~only_SD, only_SD])


def measure_removal(value: Value, orders_AD: Int[np.ndarray, "A D"], sizes_B: Int[np.ndarray, " B"]) -> Removal:
    """Ask the model for `removal_masks`, in one call.

    **Arguments:**

    - `value`: the model, see `faithfulness.value`.
    - `orders_AD`, `sizes_B`: as in `removal_masks`.

    **Returns:**

    The probabilities, taken apart.
    """
    values_S = evaluate(value, removal_masks(orders_AD, sizes_B))
    without_AB, only_AB = values_S[2:].reshape(2, len(orders_AD), len(sizes_B))
    return Removal(float(values_S[0]), float(values_S[1]), without_AB, only_AB)


def comprehensiveness(removal: Removal) -> Float[np.ndarray, "A B"]:
    """p(full) - p(without the top words), in [-1, 1], of shape `(A, B)`; higher is more faithful (ERASER, eq. 1)."""
    return removal.full - removal.without_AB


def sufficiency(removal: Removal) -> Float[np.ndarray, "A B"]:
    """p(full) - p(only the top words), in [-1, 1], of shape `(A, B)`; lower is more faithful (ERASER, eq. 2)."""
    return removal.full - removal.only_AB


def aopc(per_bin_AB: Float[np.ndarray, "A B"]) -> Float[np.ndarray, " A"]:
    """The plain mean over bins, of shape `(A,)`.

    This is what ERASER's code computes. Its paper divides by |B| + 1 and counts a bin without words: for
    comprehensiveness that bin adds 0, so that the paper's number is |B|/(|B|+1) of this one.
    """
    return per_bin_AB.mean(1)


def full_curve(
    value: Value, orders_AD: Int[np.ndarray, "A D"]
) -> tuple[Float[np.ndarray, " A"], Float[np.ndarray, " A"]]:
    """AOPC over every step: 1/D sum_i [p(full) - p(without the first i words of the order)], i = 1..D.

    This is the AOPC of Edin et al. (2025, arXiv 2408.08137), which `naopc` normalises. Their sufficiency is the same
    curve with the least important word removed first. The model is asked once.

    **Arguments:**

    - `value`: the model, see `faithfulness.value`.
    - `orders_AD`: words from most to least important, of shape `(A, D)`.

    **Returns:**

    Comprehensiveness (higher is more faithful) and sufficiency (lower is), each of shape `(A,)`.
    """
    n_orders, n_words = orders_AD.shape
    ranks_AD = orders_AD.argsort(1)
    steps_D1 = np.arange(1, n_words + 1)[:, None]
    falling_ADD = ranks_AD[:, None, :] >= steps_D1
    rising_ADD = ranks_AD[:, None, :] < n_words - steps_D1
    masks_SD = np.concatenate([falling_ADD, rising_ADD]).reshape(-1, n_words)
    values_S = evaluate(value, np.concatenate([np.ones((1, n_words), dtype=bool), masks_SD]))
    falling_A, rising_A = (values_S[0] - values_S[1:].reshape(2, n_orders, n_words)).mean(2)
    return falling_A, rising_A
