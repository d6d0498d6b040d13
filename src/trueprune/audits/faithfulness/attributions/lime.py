"""LIME: a linear model that imitates the classifier near the full text (Ribeiro et al. 2016, arXiv 1602.04938).

Legend: S masks, D words.
"""

from __future__ import annotations

from math import comb
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from trueprune.audits.faithfulness.value import Value, check_samples, check_words, evaluate, every_mask

DEFAULT_SAMPLES = 1000
KERNEL_WIDTH, DISTANCE_SCALE, ALPHA = 25.0, 100.0, 1.0  # lime 0.2: its text explainer's


def lime(value: Value, n_words: int, *, samples: int | None = None, seed: int = 0) -> Float[np.ndarray, " D"]:
    """Coefficients of a ridge regression of the model's probability on which words are kept, weighted by proximity.

    Sampling, distance, kernel and regression are those of the text explainer of lime 0.2. What differs: all D words
    stay in the regression (lime selects 10 before it), and where 2^D <= samples nothing is drawn (see `lime_masks`).

    **Arguments:**

    - `value`, `n_words`, `seed`: see `Attribution`.
    - `samples`: masks, the full text among them; 1,000 by default (lime: 5,000).

    **Returns:**

    Of shape `(D,)`. The ridge penalty shrinks the coefficients: for one word from v(1) - v(0) towards 0.

    **Raises:**

    - `AuditError`: no word, or fewer than 2 samples.
    """
    check_words(n_words)
    samples = DEFAULT_SAMPLES if samples is None else samples
    masks_SD, counts_S = lime_masks(n_words, samples, seed)
    weights_S = counts_S * lime_weights(masks_SD)
    coefficients_D, _ = weighted_ridge(masks_SD, evaluate(value, masks_SD), weights_S, ALPHA)
    return coefficients_D


def lime_masks(n_words: int, samples: int, seed: int = 0) -> tuple[Bool[np.ndarray, "S D"], Float[np.ndarray, " S"]]:
    """Masks to fit the linear model on, and how often each counts.

    The first mask is the full text. Every other one removes r words, r uniform on 1..D, and which is uniform given r.

    Where 2^D <= samples, each of the 2^D masks comes once, in the count that sampling gives it in expectation: 1 for
    the full text, (samples - 1) / (D C(D, r)) for a mask without r words. The counts add up to `samples`, so that
    the ridge penalty weighs as much against the data as it does when masks are drawn.

    **Arguments:**

    - `n_words`: D.
    - `samples`: at least 2.
    - `seed`: what is drawn.

    **Returns:**

    The masks, of shape `(S, D)`, and their counts (all 1 if drawn), of shape `(S,)`; S = min(samples, 2^D).

    **Raises:**

    - `AuditError`: fewer than 2 samples.
    """
    check_samples(samples)
    if 2**n_words <= samples:
        masks_SD = every_mask(n_words)[::-1].copy()
        subsets_D = np.array([n_words * comb(n_words, removed) for removed in range(1, n_words + 1)], dtype=np.float64)
        removed_S = n_words - masks_SD.sum(1)
        counts_S = np.where(removed_S == 0, 1.0, (samples - 1) / subsets_D[removed_S - 1])
        return masks_SD, counts_S
    rng = np.random.default_rng(seed)
    removed_S = rng.integers(1, n_words + 1, size=samples)
    removed_S[0] = 0
    ranks_SD = rng.random((samples, n_words)).argsort(1).argsort(1)
    return ranks_SD >= removed_S[:, None], np.ones(samples)


def lime_weights(masks_SD: Bool[np.ndarray, "S D"], kernel_width: float = KERNEL_WIDTH) -> Float[np.ndarray, " S"]:
    """LIME's proximity to the full text: sqrt(exp(-d²/width²)), d = 100 times the cosine distance.

    **Arguments:**

    - `masks_SD`: of shape `(S, D)`.
    - `kernel_width`: lime 0.2's is 25.

    **Returns:**

    Of shape `(S,)`, in (0, 1], 1 for the full text.
    """
    distance_S = DISTANCE_SCALE * cosine_distance(masks_SD)
    return np.exp(-(distance_S**2) / (2 * kernel_width**2))


def captum_weights(
    masks_SD: Bool[np.ndarray, "S D"], distance: Literal["cosine", "euclidean"] = "cosine", kernel_width: float = 1.0
) -> Float[np.ndarray, " S"]:
    """The exponential kernel of captum's LIME, on the masks themselves: exp(-d²/(2 width²)).

    It is there to solve what captum solves. At its default width of 1 all masks weigh nearly the same by cosine.

    **Arguments:**

    - `masks_SD`: of shape `(S, D)`.
    - `distance`: from the full text.
    - `kernel_width`: in units of the distance.

    **Returns:**

    Of shape `(S,)`, in [0, 1], 1 for the full text.
    """
    if distance == "cosine":
        squared_S = cosine_distance(masks_SD) ** 2
    else:
        squared_S = (~masks_SD).sum(1).astype(np.float64)
    return np.exp(-squared_S / (2 * kernel_width**2))


def cosine_distance(masks_SD: Bool[np.ndarray, "S D"]) -> Float[np.ndarray, " S"]:
    """Cosine distance of masks from the full text: 1 - sqrt(kept/D), which makes it 1 for the empty one."""
    return 1 - np.sqrt(masks_SD.mean(1))


def weighted_ridge(
    masks_SD: Bool[np.ndarray, "S D"],
    values_S: Float[np.ndarray, " S"],
    weights_S: Float[np.ndarray, " S"],
    alpha: float = ALPHA,
) -> tuple[Float[np.ndarray, " D"], float]:
    """Minimise sum_s weight_s (value_s - b - c · mask_s)² + alpha ‖c‖²; the intercept b is not penalised.

    **Arguments:**

    - `masks_SD`: of shape `(S, D)`.
    - `values_S`: what to imitate, of shape `(S,)`.
    - `weights_S`: non-negative, not all 0, of shape `(S,)`.
    - `alpha`: the penalty; at 0 the shortest of the solutions is taken.

    **Returns:**

    c, of shape `(D,)`, and b.
    """
    total = weights_S.sum()
    mean_D, mean = weights_S @ masks_SD / total, weights_S @ values_S / total
    centred_SD = masks_SD - mean_D
    weighted_DS = centred_SD.T * weights_S
    gram_DD = weighted_DS @ centred_SD + alpha * np.eye(masks_SD.shape[1])
    coefficients_D = np.linalg.lstsq(gram_DD, weighted_DS @ (values_S - mean), rcond=None)[0]
    return coefficients_D, float(mean - mean_D @ coefficients_D)
