"""Binned calibration errors of the top answer, and of every class.

Legend: N items, C options, R resamples, M bins.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from trueprune.audits.confidence.bins import (
    BinSums,
    bin_index,
    bin_sums,
    check_bins,
    equal_mass,
    equal_width,
)
from trueprune.audits.confidence.check import check_confidence, check_probabilities

DEFAULT_BINS = 15


def ece(confidence_N: npt.ArrayLike, correct_N: npt.ArrayLike, bins: int = DEFAULT_BINS) -> float:
    """Expected calibration error, `sum_m n_m/n |acc_m - conf_m|` over bins of equal width.

    Guo et al. 2017 (arXiv 1706.04599), equation 3, with their bins `(lo, hi]` and M = 15; torchmetrics' bins are
    `[lo, hi)`. It is biased upwards on few items: give `null_error` beside it.

    **Arguments:**

    - `confidence_N`: of shape `(N,)`, in [0, 1]; `top_label` makes it and the next from probabilities.
    - `correct_N`: of shape `(N,)`, in [0, 1]; fractions are accepted.
    - `bins`: M.

    **Returns:** from 0 to 1.

    **Raises:** `AuditError` for arrays that `check_confidence` refuses.
    """
    return _plain(ece_of, equal_width, confidence_N, correct_N, bins)


def ace(confidence_N: npt.ArrayLike, correct_N: npt.ArrayLike, bins: int = DEFAULT_BINS) -> float:
    """Adaptive calibration error: `ece` over bins of equal mass of the top answer.

    After Nixon et al. 2019 (arXiv 1904.01685), who average over all classes; of the top answer it is the
    adaptive ECE of torch-uncertainty. Items of equal confidence are never divided by position, see
    `bins.equal_mass`. Arguments and errors as for `ece`.
    """
    return _plain(ece_of, equal_mass, confidence_N, correct_N, bins)


def mce(confidence_N: npt.ArrayLike, correct_N: npt.ArrayLike, bins: int = DEFAULT_BINS) -> float:
    """Maximum calibration error, `max_m |acc_m - conf_m|` over the bins of equal width that hold an item.

    Guo et al. 2017, equation 5. One item alone in its bin can decide it. Arguments and errors as for `ece`.
    """
    return _plain(mce_of, equal_width, confidence_N, correct_N, bins)


def rmsce(confidence_N: npt.ArrayLike, correct_N: npt.ArrayLike, bins: int = DEFAULT_BINS) -> float:
    """Root mean square calibration error, `sqrt(sum_m n_m/n (acc_m - conf_m)^2)` over bins of equal width.

    Hendrycks et al. 2019 (arXiv 1812.04606), who take bins of equal mass; of equal width it is the l2 norm of
    torchmetrics. Arguments and errors as for `ece`.
    """
    return _plain(rmsce_of, equal_width, confidence_N, correct_N, bins)


def debiased_squared_ce(confidence_N: npt.ArrayLike, correct_N: npt.ArrayLike, bins: int = DEFAULT_BINS) -> float:
    """Debiased squared error, `sum_m n_m/n [(acc_m - conf_m)^2 - acc_m (1 - acc_m) / (n_m - 1)]`.

    Kumar et al. 2019 (arXiv 1909.10155), section 5, over bins of equal width, so that it is `rmsce` squared less
    its bias; their code takes bins of equal mass. It is a squared error and not its root, and falls below zero when a
    calibrated model's bins happen to agree well. A bin with fewer than two items adds nothing, as in their code.
    Arguments and errors as for `ece`.

    **Returns:** from -1 to 1.
    """
    return _plain(debiased_of, equal_width, confidence_N, correct_N, bins)


def classwise_ece(probabilities_NC: npt.ArrayLike, gold_N: npt.ArrayLike, bins: int = DEFAULT_BINS) -> float:
    """Classwise error, `1/C sum_c sum_m n_mc/n |mean 1[y = c] - mean p_c|` over bins of equal width.

    Kull et al. 2019 (arXiv 1910.12656), section 2; the static calibration error of Nixon et al. 2019. C counts the
    options that some item has, with a probability above zero or as the right one: columns of padding change nothing.

    **Arguments:**

    - `probabilities_NC`, `gold_N`: as for `check_probabilities`.
    - `bins`: M.

    **Returns:** from 0 to 1.

    **Raises:** as `check_probabilities`.
    """
    probabilities_NC, gold_N = check_probabilities(probabilities_NC, gold_N)
    return float(classwise_of(probabilities_NC, gold_N, np.ones((1, len(gold_N))), check_bins(bins))[0])


def ece_of(sums: BinSums) -> Float[np.ndarray, " R"]:
    """`ece` or `ace` of each resample."""
    return np.abs(sums.right_RM - sums.confidence_RM).sum(1) / sums.count_RM.sum(1)


def mce_of(sums: BinSums) -> Float[np.ndarray, " R"]:
    """`mce` of each resample."""
    return np.abs(_gaps(sums)).max(1)


def rmsce_of(sums: BinSums) -> Float[np.ndarray, " R"]:
    """`rmsce` of each resample."""
    return np.sqrt((sums.count_RM * _gaps(sums) ** 2).sum(1) / sums.count_RM.sum(1))


def debiased_of(sums: BinSums) -> Float[np.ndarray, " R"]:
    """`debiased_squared_ce` of each resample."""
    count_RM = np.broadcast_to(sums.count_RM, sums.right_RM.shape)
    accuracy_RM = sums.right_RM / np.maximum(count_RM, 1)
    variance_RM = accuracy_RM * (1 - accuracy_RM) / np.maximum(count_RM - 1, 1)
    terms_RM = np.where(count_RM >= 2, count_RM * (_gaps(sums) ** 2 - variance_RM), 0.0)
    return terms_RM.sum(1) / count_RM.sum(1)


def classwise_of(
    probabilities_NC: Float[np.ndarray, "N C"], gold_N: np.ndarray, counts_RN: Float[np.ndarray, "R N"], bins: int
) -> Float[np.ndarray, " R"]:
    """`classwise_ece` of each resample; the options are those of all items."""
    items, options = probabilities_NC.shape
    bin_NC = class_bins(probabilities_NC, bins)
    right_RB = bin_sums(bin_NC[np.arange(items), gold_N], options * bins, counts_RN)
    sums_RB = np.empty_like(right_RB)
    for row, counts_N in enumerate(counts_RN):
        sums_RB[row] = np.bincount(bin_NC.ravel(), (probabilities_NC * counts_N[:, None]).ravel(), options * bins)
    return np.abs(right_RB - sums_RB).sum(1) / counts_RN.sum(1) / options_in_use(probabilities_NC, gold_N)


def class_bins(probabilities_NC: Float[np.ndarray, "N C"], bins: int) -> np.ndarray:
    """The bin of each probability, numbered through over the options."""
    return bin_index(probabilities_NC, bins) + bins * np.arange(probabilities_NC.shape[1])


def options_in_use(probabilities_NC: Float[np.ndarray, "N C"], gold_N: np.ndarray) -> int:
    """How many options some item has, with a probability above zero or as the right one."""
    is_gold_C = np.bincount(gold_N, minlength=probabilities_NC.shape[1]) > 0
    return int(np.count_nonzero((probabilities_NC > 0).any(0) | is_gold_C))


def _gaps(sums: BinSums) -> np.ndarray:
    # An empty bin has no gap.
    return (sums.right_RM - sums.confidence_RM) / np.where(sums.count_RM > 0, sums.count_RM, 1)


def _plain(formula: Callable, binning: Callable, confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int) -> float:
    confidence_N, correct_N = check_confidence(confidence, correct)
    return float(formula(binning(confidence_N, np.ones((1, len(correct_N))), correct_N[None], check_bins(bins)))[0])
