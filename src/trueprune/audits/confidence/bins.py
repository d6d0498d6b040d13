"""Sums over bins of confidence, for many resamples at once: every binned error is a formula on these.

Legend: N items, R resamples (or draws), M bins, K distinct confidences.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from trueprune._support.errors import AuditError

# A third in single precision, or after a row was divided by its sum, lies on the edge 5/15 still.
EDGE_TOLERANCE = 1e-6
CHUNK = 2_000_000


class BinSums(NamedTuple):
    """Sums over the items of each bin: how many, of their confidences, of their correctness; each `(R, M)`."""

    count_RM: Float[np.ndarray, "#R M"]
    confidence_RM: Float[np.ndarray, "#R M"]
    right_RM: Float[np.ndarray, "#R M"]


def check_bins(bins: int) -> int:
    """The number of bins; `AuditError` unless it is at least one."""
    if bins < 1:
        raise AuditError(f"{bins} bins", "Give at least one bin")
    return bins


def bin_index(values: Float[np.ndarray, "..."], bins: int) -> Int[np.ndarray, "..."]:
    """The bin `(m/M, (m+1)/M]` of each value, 0 in the first (Guo et al. 2017, arXiv 1706.04599, section 2).

    A value within 1e-6 above an edge counts as on it. torchmetrics takes `[m/M, (m+1)/M)`, and 1 as a bin of its own:
    the two differ only for values on an edge.
    """
    return np.maximum(np.ceil((values - EDGE_TOLERANCE) * bins).astype(np.int64) - 1, 0)


def row_chunks(rows: int, width: int) -> Iterator[slice]:
    """Slices of rows of which each holds at most some two million numbers."""
    step = max(1, CHUNK // max(width, 1))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def bin_sums(bin_N: Int[np.ndarray, " N"], bins: int, weights_RN: Float[np.ndarray, "R N"]) -> Float[np.ndarray, "R M"]:
    """The sum of each row's weights in each bin."""
    sums_RM = np.empty((len(weights_RN), bins))
    for row, weights_N in enumerate(weights_RN):
        sums_RM[row] = np.bincount(bin_N, weights_N, bins)
    return sums_RM


def equal_width(
    confidence_N: Float[np.ndarray, " N"],
    mass_RN: Float[np.ndarray, "#R N"],
    right_RN: Float[np.ndarray, "#R N"],
    bins: int,
) -> BinSums:
    """Bins of equal width.

    **Arguments:**

    - `confidence_N`: in [0, 1].
    - `mass_RN`: how often each item occurs in each resample; one row if always the same.
    - `right_RN`: correctness times mass.
    - `bins`: M.
    """
    bin_N = bin_index(confidence_N, bins)
    return BinSums(
        bin_sums(bin_N, bins, mass_RN),
        bin_sums(bin_N, bins, mass_RN * confidence_N),
        bin_sums(bin_N, bins, right_RN),
    )


def equal_mass(
    confidence_N: Float[np.ndarray, " N"],
    mass_RN: Float[np.ndarray, "#R N"],
    right_RN: Float[np.ndarray, "#R N"],
    bins: int,
) -> BinSums:
    """Bins that hold exactly n/M items each, in the order of confidence.

    An edge that falls among items of equal confidence, or inside one item, divides them in proportion: what breaking
    ties at random gives on average, so that the order of the items has no say. Without ties, and with M dividing n,
    these are the bins of `tensor_split` on the sorted items. Arguments as for `equal_width`.
    """
    order_N, start_K = tied(confidence_N)
    mass_RK = np.add.reduceat(mass_RN[:, order_N], start_K, axis=1)
    right_RK = np.add.reduceat(right_RN[:, order_N], start_K, axis=1)
    confidence_RK = mass_RK * confidence_N[order_N][start_K]
    rows = max(len(mass_RN), len(right_RN))
    up_to = [np.broadcast_to(_running(sums), (rows, len(start_K) + 1)) for sums in (mass_RK, confidence_RK, right_RK)]
    share = np.arange(bins + 1) / bins
    count_RM, confidence_RM, right_RM = (np.empty((rows, bins)) for _ in range(3))
    for row, (mass, confidence, right) in enumerate(zip(*up_to, strict=True)):
        edge = mass[-1] * share
        count_RM[row] = mass[-1] / bins
        confidence_RM[row] = np.diff(np.interp(edge, mass, confidence))
        right_RM[row] = np.diff(np.interp(edge, mass, right))
    return BinSums(count_RM, confidence_RM, right_RM)


def tied(values_N: Float[np.ndarray, " N"]) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " K"]]:
    """The order of rising values, and where in it each group of equal values starts (for `np.add.reduceat`)."""
    order_N = np.argsort(values_N, kind="stable")
    sorted_N = values_N[order_N]
    return order_N, np.flatnonzero(np.concatenate([[True], sorted_N[1:] != sorted_N[:-1]]))


def _running(sums_RK: np.ndarray) -> np.ndarray:
    return np.pad(np.cumsum(sums_RK, axis=1), ((0, 0), (1, 0)))
