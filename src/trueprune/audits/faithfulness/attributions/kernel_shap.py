"""Kernel SHAP: Shapley values as a weighted regression, for texts too long to enumerate (Lundberg & Lee 2017).

Legend: S coalitions (masks), D words, P sizes of coalitions (1..D-1), Q sizes that are drawn.
"""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
from jaxtyping import Bool, Float

from trueprune.audits.faithfulness.value import Value, check_samples, check_words, evaluate, every_mask

RIDGE = 1e-6
ILL_CONDITIONED = 1e10
DRAWS_PER_COALITION = 4  # as in the shap library: repetitions are skipped by drawing up to 4 times as many


def kernel_shap(value: Value, n_words: int, *, samples: int | None = None, seed: int = 0) -> Float[np.ndarray, " D"]:
    """Shapley values, exact where all 2^D - 2 coalitions fit the budget, else estimated.

    The estimate is the weighted least squares of Lundberg & Lee (2017, theorem 2) under the constraint that the values
    add up to v(full) - v(empty), on coalitions drawn in complementary pairs (Covert & Lee 2021, arXiv 2012.01536):
    pairs make the estimate exact for every game without interactions of three or more words. There is no l1 selection
    (the shap library once kept 10 features by default): a word that is left out cannot be removed in its order.

    **Arguments:**

    - `value`, `n_words`, `seed`: see `Attribution`.
    - `samples`: coalitions besides the full and the empty text; min(2^D - 2, 2D + 512) by default. At most as many
        different ones are asked for, in one call.

    **Returns:**

    Of shape `(D,)`; the sum is v(full) - v(empty).

    **Raises:**

    - `AuditError`: no word, or fewer than 2 samples.
    """
    check_words(n_words)
    samples = 2 * n_words + 512 if samples is None else samples
    masks_SD, weights_S = shap_coalitions(n_words, samples, seed)
    ends_2D = np.array([[False], [True]]).repeat(n_words, 1)
    values_S = evaluate(value, np.concatenate([ends_2D, masks_SD]))
    return constrained_regression(masks_SD, values_S[2:], weights_S, float(values_S[0]), float(values_S[1]))


def shap_coalitions(
    n_words: int, samples: int, seed: int = 0, *, paired: bool = True
) -> tuple[Bool[np.ndarray, "S D"], Float[np.ndarray, " S"]]:
    """Coalitions to fit, and their weights.

    Of a size s, all coalitions together weigh (D-1)/(s (D-s)). The smallest sizes and their complements are taken
    completely, as in the shap library: as long as the budget that is left, split over the remaining sizes by weight,
    covers a pair of sizes. What remains is drawn: as many coalitions of a size as its weight entitles it to (systematic
    sampling, so that rounding is all that is random in the numbers), each of them once, with its complement.

    **Arguments:**

    - `n_words`: D.
    - `samples`: the budget, at least 2.
    - `seed`: what is drawn.
    - `paired`: draw complements together; without, the estimate is noisier. For comparison.

    **Returns:**

    At most `samples` different masks, none of them full or empty, of shape `(S, D)`, and their weights, of shape
    `(S,)`, which sum to 1.

    **Raises:**

    - `AuditError`: fewer than 2 samples.
    """
    check_samples(samples)
    sizes_P = np.arange(1, n_words)
    mass_P = (n_words - 1) / (sizes_P * (n_words - sizes_P))
    mass_P /= mass_P.sum()
    if samples >= 2**n_words - 2:
        masks_SD = every_mask(n_words)[1:-1]
        sizes_S = masks_SD.sum(1)
        return masks_SD, mass_P[sizes_S - 1] / np.bincount(sizes_S)[sizes_S]
    parts, budget, smallest, rest = [], samples, 1, 1.0
    while smallest < n_words - smallest:
        n_pair, mass = 2 * comb(n_words, smallest), float(2 * mass_P[smallest - 1])
        if n_pair > budget * mass / rest:
            break
        chosen_SD = _all_subsets(n_words, smallest)
        parts += [(chosen_SD, mass / 2), (~chosen_SD, mass / 2)]
        budget, rest, smallest = budget - n_pair, rest - mass, smallest + 1
    # a budget below 2^D - 2 leaves some sizes to draw from
    parts += _draw(smallest, mass_P, n_words, budget, seed, paired)
    masks_SD = np.concatenate([masks_SD for masks_SD, _ in parts])
    weights_S = np.concatenate([np.full(len(masks_SD), mass / len(masks_SD)) for masks_SD, mass in parts])
    return masks_SD, weights_S / weights_S.sum()


def constrained_regression(
    masks_SD: Bool[np.ndarray, "S D"],
    values_S: Float[np.ndarray, " S"],
    weights_S: Float[np.ndarray, " S"],
    empty: float,
    full: float,
) -> Float[np.ndarray, " D"]:
    """Minimise sum_s weight_s (v_s - v(empty) - phi · mask_s)² under sum phi = v(full) - v(empty), in closed form.

    Covert & Lee (2021): with A = Z'WZ, b = Z'W(v - v(empty)) and Δ = v(full) - v(empty),
    phi = A⁻¹(b - 1 (1'A⁻¹b - Δ) / (1'A⁻¹1)). Where too few coalitions leave A ill-conditioned it gets a ridge of 1e-6;
    elsewhere none, for it would bias the exact values by about as much.

    **Arguments:**

    - `masks_SD`: coalitions, without the full and the empty one, of shape `(S, D)`.
    - `values_S`: their values, of shape `(S,)`.
    - `weights_S`: of shape `(S,)`; only their ratios matter.
    - `empty`, `full`: v(empty) and v(full).

    **Returns:**

    phi, of shape `(D,)`.
    """
    n_words = masks_SD.shape[1]
    if n_words == 1:
        return np.array([full - empty])
    kept_SD = masks_SD.astype(np.float64)
    weighted_DS = kept_SD.T * (weights_S / weights_S.sum())
    gram_DD = weighted_DS @ kept_SD
    if np.linalg.cond(gram_DD) > ILL_CONDITIONED:
        gram_DD += RIDGE * np.eye(n_words)
    right_D2 = np.stack([weighted_DS @ (values_S - empty), np.ones(n_words)], 1)
    free_D, ones_D = np.linalg.solve(gram_DD, right_D2).T
    return free_D - ones_D * (free_D.sum() - (full - empty)) / ones_D.sum()


def _draw(
    smallest: int, mass_P: Float[np.ndarray, " P"], n_words: int, budget: int, seed: int, paired: bool
) -> list[tuple[Bool[np.ndarray, "S D"], float]]:
    """Different coalitions of the sizes from `smallest` to its complement, at most `budget`: masks and weight."""
    rng = np.random.default_rng(seed)
    if paired:
        sizes_Q, wanted = np.arange(smallest, n_words // 2 + 1), budget // 2
        mass_Q = mass_P[sizes_Q - 1] * np.where(2 * sizes_Q == n_words, 1, 2)
    else:
        sizes_Q, wanted = np.arange(smallest, n_words - smallest + 1), budget
        mass_Q = mass_P[sizes_Q - 1]
    edges_Q = mass_Q.cumsum() / mass_Q.sum()
    points = (rng.random() + np.arange(wanted)) / max(wanted, 1)
    counts_Q = np.bincount(np.searchsorted(edges_Q[:-1], points, side="right"), minlength=len(sizes_Q))
    parts = []
    for size, count in zip(sizes_Q.tolist(), counts_Q.tolist(), strict=True):
        if not count:
            continue
        masks_SD = rng.random((DRAWS_PER_COALITION * count, n_words)).argsort(1).argsort(1) < size
        if paired and 2 * size == n_words:
            masks_SD ^= ~masks_SD[:, :1]  # both of a pair have this size: the one with the first word stands for it
        _, first = np.unique(np.packbits(masks_SD, axis=1), axis=0, return_index=True)
        masks_SD = masks_SD[np.sort(first)[:count]]
        masks_SD = np.concatenate([masks_SD, ~masks_SD]) if paired else masks_SD
        parts.append((masks_SD, float(mass_Q.sum()) * count / wanted))
    return parts


def _all_subsets(n_words: int, size: int) -> Bool[np.ndarray, "S D"]:
    chosen = np.array(list(combinations(range(n_words), size)))
    masks_SD = np.zeros((len(chosen), n_words), dtype=bool)
    masks_SD[np.arange(len(chosen))[:, None], chosen] = True
    return masks_SD
