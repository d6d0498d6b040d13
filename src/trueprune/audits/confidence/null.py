"""What a calibration error would be without any miscalibration: on few items it is far from zero.

Legend: N items, C options, R draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trueprune._support.errors import AuditError
from trueprune.audits.confidence.binned import DEFAULT_BINS, class_bins, classwise_of, options_in_use
from trueprune.audits.confidence.bins import check_bins, row_chunks
from trueprune.audits.confidence.check import check_confidence, check_probabilities
from trueprune.audits.confidence.kinds import TOP_LABEL_ERRORS

DRAWS = 1000


@dataclass(frozen=True)
class NullError:
    """An error beside what a perfectly calibrated model of the same confidences shows.

    **Arguments:**

    - `observed`: the error of the answers given.
    - `mean`, `percentile_95`: of the draws.
    - `share`: `(k + 1) / (R + 1)` for k of R draws at least as large as the observed: the p-value of calibration.
    """

    observed: float
    mean: float
    percentile_95: float
    share: float


def null_error(
    confidence_N: npt.ArrayLike,
    correct_N: npt.ArrayLike,
    kind: str = "ece",
    bins: int = DEFAULT_BINS,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> NullError:
    """The null of a calibration error: correctness drawn as Bernoulli(confidence), item by item.

    The consistency resampling of Broecker and Smith 2007 (Weather and Forecasting 22:651) with the confidences held
    fixed, as in the calibration test of Vaicenavicius et al. 2019 (arXiv 1902.06977).

    **Arguments:**

    - `confidence_N`, `correct_N`: of shape `(N,)`, in [0, 1].
    - `kind`: `"ece"`, `"ace"`, `"mce"`, `"rmsce"`, `"debiased"` or `"smece"`.
    - `bins`: M; unused by `"smece"`.
    - `draws`: R.
    - `seed`: of the draws.

    **Raises:** `AuditError` for another kind, no draws, or arrays that `check_confidence` refuses.
    """
    confidence_N, correct_N = check_confidence(confidence_N, correct_N)
    if kind not in TOP_LABEL_ERRORS:
        raise AuditError(f"no calibration error is called {kind!r}", f"Take one of {', '.join(TOP_LABEL_ERRORS)}")
    error = TOP_LABEL_ERRORS[kind]
    rng, items = np.random.default_rng(seed), len(confidence_N)
    once, bins = np.ones((1, items)), check_bins(bins)
    drawn_R = np.empty(_check_draws(draws))
    for chunk in row_chunks(draws, items):
        right_RN = (rng.random((chunk.stop - chunk.start, items)) < confidence_N).astype(np.float64)
        drawn_R[chunk] = error(confidence_N, once, right_RN, bins)
    return _summary(float(error(confidence_N, once, correct_N[None], bins)[0]), drawn_R)


def null_classwise_ece(
    probabilities_NC: npt.ArrayLike,
    gold_N: npt.ArrayLike,
    bins: int = DEFAULT_BINS,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> NullError:
    """The null of `classwise_ece`: the right option drawn from each item's own probabilities.

    **Arguments:**

    - `probabilities_NC`, `gold_N`: as for `check_probabilities`.
    - `bins`, `draws`, `seed`: as for `null_error`.

    **Raises:** as `check_probabilities`.
    """
    probabilities_NC, gold_N = check_probabilities(probabilities_NC, gold_N)
    rng, (items, options) = np.random.default_rng(seed), probabilities_NC.shape
    bin_NC, item_N = class_bins(probabilities_NC, check_bins(bins)), np.arange(items)
    expected_B = np.bincount(bin_NC.ravel(), probabilities_NC.ravel(), options * bins)
    # A draw of 1 - 1e-16 must not run past the last option that the item has.
    upto_NC = np.where(np.cumsum(probabilities_NC, 1) >= 1 - 1e-12, 1.0, np.cumsum(probabilities_NC, 1))
    scale = items * options_in_use(probabilities_NC, gold_N)
    drawn_R = np.empty(_check_draws(draws))
    for draw in range(draws):
        gold = (rng.random((items, 1)) >= upto_NC).sum(1)
        right_B = np.bincount(bin_NC[item_N, gold], minlength=options * bins)
        drawn_R[draw] = np.abs(right_B - expected_B).sum() / scale
    return _summary(float(classwise_of(probabilities_NC, gold_N, np.ones((1, items)), bins)[0]), drawn_R)


def _check_draws(draws: int) -> int:
    if draws < 1:
        raise AuditError(f"{draws} draws", "Give at least one draw")
    return draws


def _summary(observed: float, drawn_R: np.ndarray) -> NullError:
    # A draw equal to the observed must count as such whatever the order of its sum.
    reached = int((drawn_R >= observed - 1e-12).sum())
    share = (reached + 1) / (len(drawn_R) + 1)
    return NullError(observed, float(drawn_R.mean()), float(np.quantile(drawn_R, 0.95)), share)
