"""Proper scores: they reward calibration and sharpness together, and need no bins.

Legend: N items, C options, M bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from trueprune.audits.confidence.binned import DEFAULT_BINS, class_bins
from trueprune.audits.confidence.bins import check_bins
from trueprune.audits.confidence.check import check_probabilities

SMALLEST = 1e-12


@dataclass(frozen=True)
class MurphyDecomposition:
    """The Brier score as `reliability - resolution + uncertainty + remainder`.

    **Arguments:**

    - `reliability`: squared distance of confidence from frequency, over bins; 0 is calibrated.
    - `resolution`: how far the frequencies of the bins lie from the overall one; more is better.
    - `uncertainty`: what always answering with the overall frequencies would score.
    - `remainder`: of the spread of probabilities inside the bins; 0 if each bin holds one probability.
    """

    reliability: float
    resolution: float
    uncertainty: float
    remainder: float

    @property
    def brier(self) -> float:
        """The Brier score."""
        return self.reliability - self.resolution + self.uncertainty + self.remainder


def brier(probabilities_NC: npt.ArrayLike, gold_N: npt.ArrayLike) -> float:
    """The Brier score `1/n sum_i sum_c (p_ic - 1[y_i = c])^2` (Brier 1950), summed over the options.

    With two options it is twice the one-column form of `sklearn.metrics.brier_score_loss`.

    **Arguments:**

    - `probabilities_NC`, `gold_N`: as for `check_probabilities`.

    **Returns:** from 0 to 2; lower is better.

    **Raises:** as `check_probabilities`.
    """
    return float(brier_items(*check_probabilities(probabilities_NC, gold_N)).mean())


def nll(probabilities_NC: npt.ArrayLike, gold_N: npt.ArrayLike) -> float:
    """Negative log-likelihood of the right option in nats, probabilities below 1e-12 taken as 1e-12.

    Arguments and errors as for `brier`.
    """
    return float(nll_items(*check_probabilities(probabilities_NC, gold_N)).mean())


def murphy(probabilities_NC: npt.ArrayLike, gold_N: npt.ArrayLike, bins: int = DEFAULT_BINS) -> MurphyDecomposition:
    """Murphy's decomposition (1973) of the Brier score, each option binned by its own probability and summed.

    The three terms add up to the score only when all probabilities of a bin are equal. The remainder is the two terms
    of Stephenson, Coelho and Jolliffe 2008 (Weather and Forecasting 23:752), within-bin variance less twice the
    within-bin covariance: with it the identity is exact.

    **Arguments:**

    - `probabilities_NC`, `gold_N`: as for `check_probabilities`.
    - `bins`: M, of equal width.

    **Raises:** as `check_probabilities`.
    """
    probabilities_NC, gold_N = check_probabilities(probabilities_NC, gold_N)
    items, options = probabilities_NC.shape
    bin_NC = class_bins(probabilities_NC, check_bins(bins))
    of_gold_N = bin_NC[np.arange(items), gold_N]
    count_B = np.bincount(bin_NC.ravel(), minlength=options * bins)
    number_B = np.maximum(count_B, 1)
    mean_B = np.bincount(bin_NC.ravel(), probabilities_NC.ravel(), options * bins) / number_B
    frequency_B = np.bincount(of_gold_N, minlength=options * bins) / number_B
    overall_C = np.bincount(gold_N, minlength=options) / items
    off_NC = probabilities_NC - mean_B[bin_NC]
    # Deviations sum to zero in a bin, so the covariance with the outcome needs the right option only.
    covariance = off_NC[np.arange(items), gold_N].sum()
    return MurphyDecomposition(
        reliability=float((count_B * (mean_B - frequency_B) ** 2).sum() / items),
        resolution=float((count_B * (frequency_B - np.repeat(overall_C, bins)) ** 2).sum() / items),
        uncertainty=float((overall_C * (1 - overall_C)).sum()),
        remainder=float(((off_NC**2).sum() - 2 * covariance) / items),
    )


def brier_items(probabilities_NC: Float[np.ndarray, "N C"], gold_N: np.ndarray) -> Float[np.ndarray, " N"]:
    """The Brier score of each item, of checked arrays."""
    off_NC = probabilities_NC.copy()
    off_NC[np.arange(len(gold_N)), gold_N] -= 1
    return np.einsum("nc,nc->n", off_NC, off_NC)


def nll_items(probabilities_NC: Float[np.ndarray, "N C"], gold_N: np.ndarray) -> Float[np.ndarray, " N"]:
    """The negative log-likelihood of each item, of checked arrays."""
    return -np.log(np.maximum(probabilities_NC[np.arange(len(gold_N)), gold_N], SMALLEST))
