"""The readings of EAVSS as sums over answers, for many labellings at once.

Legend: P labellings, N answers, L blocks; H hallucinated answers, T those that are not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

VARIANTS = ("delta", "conditional", "logratio", "effect")
# Keeps `delta` finite where both sets are near zero equally often.
LEAST = 1e-8


@dataclass(frozen=True, eq=False)
class Scores:
    """HSAV, HSS and EAVSS of every labelling, of shape `(P, L)`."""

    hsav_PL: Float[np.ndarray, "P L"]
    hss_PL: Float[np.ndarray, "P L"]
    score_PL: Float[np.ndarray, "P L"]


def scores_of(
    labels_PN: Bool[np.ndarray, "P N"],
    variance_NL: Float[np.ndarray, "N L"],
    zeros_NL: Float[np.ndarray, "N L"],
    entries_N: Float[np.ndarray, " N"],
    *,
    weights_N: Float[np.ndarray, " N"],
    variant: str,
    smoothing: bool = True,
) -> Scores:
    """HSAV, HSS and EAVSS.

    **Arguments:**

    - `labels_PN`: which answers are hallucinated; each labelling has some of both.
    - `variance_NL`: activation variance of each answer.
    - `zeros_NL`, `entries_N`: its entries near zero, and its entries.
    - `weights_N`: of each answer in the variance of a set.
    - `variant`: see `EavssOptions`.
    - `smoothing`: Laplace's rule for shares near zero.
    """
    h_PN = labels_PN.astype(np.float64)
    # An infinite score is the caller's to refuse; under shuffling it is one that is far.
    with np.errstate(divide="ignore", invalid="ignore"):
        if variant == "effect":
            log_av_NL = np.log(variance_NL)
            log_as_NL = np.log(near_zero_share(zeros_NL, entries_N[:, None], entries_N.mean(), smoothing))
            return Scores(*(cohens_d(h_PN, x_NL) for x_NL in (log_av_NL, log_as_NL, log_av_NL - log_as_NL)))
        weighted_NL = weights_N[:, None] * variance_NL
        av_H, av_T = (set_PN @ weighted_NL / (set_PN @ weights_N)[:, None] for set_PN in _sets(h_PN))
        as_H, as_T = (
            near_zero_share(set_PN @ zeros_NL, (set_PN @ entries_N)[:, None], entries_N.sum() / 2, smoothing)
            for set_PN in _sets(h_PN)
        )
        if variant == "delta":
            hsav, hss = np.abs(av_H - av_T), np.abs(as_H - as_T)
            return Scores(hsav, hss, hsav / (hss + LEAST))
        if variant == "conditional":
            return Scores(av_H, as_H, av_H / as_H)
        hsav, hss = np.log(av_H / av_T), np.log(as_H / as_T)
        return Scores(hsav, hss, hsav - hss)


def _sets(h_PN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return h_PN, 1 - h_PN


def near_zero_share(zeros: np.ndarray, entries: np.ndarray, mean_entries: float, smoothing: bool) -> np.ndarray:
    """`(zeros + f) / (entries + 2 f)` with `f = entries / mean_entries`: Laplace's rule where all have as many entries.

    With `f = 1` throughout, sets in which nothing is near zero would differ by their sizes alone.

    **Arguments:**

    - `zeros`, `entries`: of each set.
    - `mean_entries`: over the sets that are compared.
    - `smoothing`: whether anything is added.
    """
    f = entries / mean_entries if smoothing else np.zeros_like(entries)
    return (zeros + f) / (entries + 2 * f)


def cohens_d(h_PN: Float[np.ndarray, "P N"], x_NL: Float[np.ndarray, "N L"]) -> Float[np.ndarray, "P L"]:
    """Difference of the means of two sets over their pooled standard deviation; 0 where nothing varies.

    **Arguments:**

    - `h_PN`: 1 for the one set, 0 for the other.
    - `x_NL`: the values.
    """
    # Relative to one of them: values that are equal are then 0 to the last bit.
    x_NL = x_NL - x_NL[:1]
    x_NL = x_NL - x_NL.mean(0)
    means, within_PL = [], 0.0
    for set_PN in _sets(h_PN):
        n_P1 = set_PN.sum(1)[:, None]
        means.append(set_PN @ x_NL / n_P1)
        within_PL = within_PL + set_PN @ x_NL**2 - n_P1 * means[-1] ** 2
    sd_PL = np.sqrt(np.maximum(within_PL, 0.0) / (len(x_NL) - 2))
    return np.where(sd_PL == 0, 0.0, (means[0] - means[1]) / sd_PL)


def surprise(score_PL: Float[np.ndarray, "P L"], variant: str) -> Float[np.ndarray, "P L"]:
    """How far each labelling's score lies from what labels that mean nothing give.

    The mean is taken over all labellings, the true one included, so that the test stays exact.

    **Arguments:**

    - `score_PL`: of `scores_of`.
    - `variant`: which.
    """
    if variant in ("logratio", "effect"):
        return np.abs(score_PL)
    log_PL = np.log(np.maximum(score_PL, np.finfo(np.float64).tiny))
    return np.abs(log_PL - log_PL.mean(0))
