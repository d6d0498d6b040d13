"""The smooth calibration error: no bins, and a bandwidth that follows from the data.

Legend: N items, R resamples, G grid cells, F frequencies.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from trueprune.audits.confidence.bins import bin_sums, row_chunks
from trueprune.audits.confidence.check import check_confidence

GRID = 4096
COARSE_GRID = 256
FLOOR = 0.001
HALVINGS = 10


def smece(confidence_N: npt.ArrayLike, correct_N: npt.ArrayLike) -> float:
    """The smooth expected calibration error of Blasiok and Nakkiran 2023 (arXiv 2309.12236), sections 3 and 4.

    `smECE_s` is the integral of `|r_s|` over [0, 1], where `r_s` is the residual `correct - confidence` smoothed by a
    Gaussian of width s that is reflected at 0 and 1. It falls as s grows; `smECE` is its value where the two meet, the
    smallest s with `s >= smECE_s`, found by ten halvings from 1 and never below 0.001. The authors' code (relplot)
    cuts the Gaussian off at a distance of 1/2, which loses mass once the error exceeds some 0.15 and gives less than
    here (0.203 for 0.212); all reflections count here, as in the paper.

    **Arguments:**

    - `confidence_N`: of shape `(N,)`, in [0, 1].
    - `correct_N`: of shape `(N,)`, in [0, 1].

    **Returns:** from 0 to 1.

    **Raises:** `AuditError` for arrays that `check_confidence` refuses.
    """
    confidence_N, correct_N = check_confidence(confidence_N, correct_N)
    return float(smece_of(confidence_N, np.ones((1, len(correct_N))), correct_N[None])[0])


def smece_of(
    confidence_N: Float[np.ndarray, " N"], mass_RN: Float[np.ndarray, "#R N"], right_RN: Float[np.ndarray, "#R N"]
) -> Float[np.ndarray, " R"]:
    """`smece` of each resample; arguments as for `bins.equal_width`."""
    rows = max(len(mass_RN), len(right_RN))
    residual_RN = right_RN - mass_RN * confidence_N
    total_R = np.broadcast_to(mass_RN.sum(1), (rows,))
    # Each residual is shared by the two nearest points of the grid, which leaves its mean position where it was.
    below_N = np.minimum((confidence_N * GRID).astype(np.int64), GRID - 1)
    share_N = confidence_N * GRID - below_N
    error_R = np.empty(rows)
    for chunk in row_chunks(rows, max(2 * GRID, len(confidence_N))):
        residual = residual_RN[chunk] / total_R[chunk, None]
        grid_RG = bin_sums(below_N, GRID + 1, residual * (1 - share_N))
        grid_RG += bin_sums(below_N + 1, GRID + 1, residual * share_N)
        # Zeros to twice the length: the real part is then the sum of residual times cos(pi k confidence).
        error_R[chunk] = _fixed_point(np.fft.rfft(grid_RG, 2 * GRID, axis=1).real)
    return error_R


def _fixed_point(cosines_RF: np.ndarray) -> np.ndarray:
    low_R, high_R = np.zeros(len(cosines_RF)), np.ones(len(cosines_RF))
    for _ in range(HALVINGS):
        middle_R = (low_R + high_R) / 2
        enough_R = (middle_R >= FLOOR) & (_smoothed(cosines_RF, middle_R) <= middle_R)
        low_R, high_R = np.where(enough_R, low_R, middle_R), np.where(enough_R, middle_R, high_R)
    return _smoothed(cosines_RF, high_R)


def _smoothed(cosines_RF: np.ndarray, width_R: np.ndarray) -> np.ndarray:
    """`smECE_s` at one width a row.

    A Gaussian reflected at 0 and 1 is the heat kernel of the interval: cos(pi k t) is damped by exp(-(pi k s)^2 / 2),
    whatever k, so no image has to be summed.
    """
    error_R = np.empty(len(width_R))
    for width in np.unique(width_R):
        # At least ten points a width; a wide kernel leaves no frequency that a coarse grid would miss.
        points = min(GRID, COARSE_GRID * 2 ** max(0, int(np.ceil(np.log2(10 / width / COARSE_GRID)))))
        damping_F = np.exp(-((np.pi * width * np.arange(points + 1)) ** 2) / 2)
        rows = np.flatnonzero(width_R == width)
        # The inverse transform divides by its length: the sum of absolute values is the trapezoidal integral.
        smooth = np.fft.irfft(cosines_RF[rows, : points + 1] * damping_F, 2 * points, axis=1)
        error_R[rows] = np.abs(smooth).sum(1)
    return error_R
