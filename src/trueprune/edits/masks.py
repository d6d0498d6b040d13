"""Which weights of a matrix go, given their scores: pure functions, exact on ties.

A mask is `True` where a weight becomes zero. Ties are settled as by a stable ascending sort: the lowest column first.
Legend: R rows (output features), C columns (input features), G groups of m columns.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from trueprune._support.errors import PlanError
from trueprune.plans.plan import Pattern


def lowest_in_row(score_RC: Float[Tensor, "R C"], count: int) -> Bool[Tensor, "R C"]:
    """The `count` lowest scores of each row (Wanda's comparison group, arXiv 2306.11695).

    Finds each row's threshold by selection, without sorting it; equal to the first `count` of a stable ascending sort.

    **Arguments:**

    - `score_RC`: of shape `(R, C)`, free of NaN.
    - `count`: how many go in each row, `0 <= count <= C`.

    **Returns:** bool, of shape `(R, C)`.
    """
    if count == 0:
        return torch.zeros_like(score_RC, dtype=torch.bool)
    threshold_R1 = _kth_smallest(score_RC, count)
    mask_RC = score_RC <= threshold_R1
    # Every row holds at least `count`, so ties at a threshold show in the total, which is quicker to count.
    if _count(mask_RC) != count * score_RC.shape[0]:
        surplus_R = mask_RC.sum(1) - count
        rows = surplus_R.nonzero()[:, 0]
        equal_RC = score_RC[rows] == threshold_R1[rows]
        room_R1 = equal_RC.sum(1, keepdim=True) - surplus_R[rows, None]
        mask_RC[rows] &= ~equal_RC | (equal_RC.cumsum(1) <= room_R1)
    return mask_RC


def lowest_in_matrix(score_RC: Float[Tensor, "R C"], count: int) -> Bool[Tensor, "R C"]:
    """The `count` lowest scores of the whole matrix, ties by row then column; bool, of shape `(R, C)`."""
    return lowest_in_row(score_RC.reshape(1, -1), count).view(score_RC.shape)


def lowest_in_group(score_RC: Float[Tensor, "R C"], pattern: Pattern) -> Bool[Tensor, "R C"]:
    """In each group of m consecutive columns of a row, the n lowest scores.

    **Arguments:**

    - `score_RC`: of shape `(R, C)`, C divisible by m.
    - `pattern`: n:m.

    **Returns:** bool, of shape `(R, C)`.

    **Raises:** `PlanError` if m does not divide C.
    """
    rows, columns = score_RC.shape
    check_divides(columns, pattern)
    score_XG = score_RC.reshape(-1, pattern.m)
    # A score's rank is the number of scores that a stable sort puts before it; m is small, so compare all pairs.
    rank_XG = torch.zeros_like(score_XG, dtype=torch.int16)
    for i in range(pattern.m):
        for j in range(i):
            later_first = score_XG[:, i] < score_XG[:, j]
            rank_XG[:, j] += later_first
            rank_XG[:, i] += ~later_first
    return (rank_XG < pattern.n).view(rows, columns)


def check_divides(columns: int, pattern: Pattern, where: str = "a matrix") -> None:
    """Refuse a pattern whose m does not divide the columns.

    **Raises:** `PlanError`.
    """
    if columns % pattern.m:
        raise PlanError(
            f"the pattern {pattern} does not divide {where} with {columns} input columns",
            "Choose an m that divides it, or 'unstructured'",
        )


def cumulative_mass(score_RC: Float[Tensor, "R C"], sparsity: float, tolerance: float = 0.001) -> Bool[Tensor, "R C"]:
    """Wanda's appendix variant: each row loses the lowest scores that together hold a share alpha of its sum.

    `alpha` in [0, 0.8] is bisected from 0.4 until the matrix's sparsity is within `tolerance` of the target or the
    interval is narrower than `tolerance`. A row whose lowest score alone exceeds its share loses nothing (the released
    code reads an invalid index there).

    **Arguments:**

    - `score_RC`: of shape `(R, C)`.
    - `sparsity`: target over the matrix.

    **Returns:** bool, of shape `(R, C)`.
    """
    sorted_RC = score_RC.sort(dim=1, stable=True).values
    cumulative_RC = sorted_RC.cumsum(1)
    total_R1 = sorted_RC.sum(1, keepdim=True)
    low, alpha, high = 0.0, 0.4, 0.8

    def mask_at(alpha: float) -> Tensor:
        count_R1 = (cumulative_RC <= alpha * total_R1).sum(1, keepdim=True)
        threshold_R1 = sorted_RC.gather(1, (count_R1 - 1).clamp_min(0))
        return (score_RC <= threshold_R1) & (count_R1 > 0)

    mask_RC = mask_at(alpha)
    while abs((found := float(mask_RC.float().mean())) - sparsity) > tolerance and high - low >= tolerance:
        if found > sparsity:
            high = alpha
        else:
            low = alpha
        alpha = (low + high) / 2
        mask_RC = mask_at(alpha)
    return mask_RC


def _kth_smallest(score_RC: Float[Tensor, "R C"], k: int) -> Float[Tensor, "R 1"]:
    """The k-th smallest (1-based) of each row, of shape `(R, 1)`."""
    if score_RC.device.type == "cpu" and score_RC.dtype == torch.float32:
        # numpy's introselect is several times faster than kthvalue on the CPU.
        part = np.partition(score_RC.numpy(), k - 1, axis=1)[:, k - 1 : k]
        return torch.from_numpy(np.ascontiguousarray(part))
    return score_RC.kthvalue(k, dim=1, keepdim=True).values


def _count(mask_RC: Tensor) -> int:
    return int(np.count_nonzero(mask_RC.numpy()) if mask_RC.device.type == "cpu" else torch.count_nonzero(mask_RC))
