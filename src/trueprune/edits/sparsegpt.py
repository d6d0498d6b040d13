"""SparseGPT: zero weights and let the ones that stay make up for them (arXiv 2301.00774).

Legend: R rows of all matrices that share an input, C input columns, K columns of a block.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from trueprune._support.errors import PlanError
from trueprune.edits.masks import check_divides
from trueprune.edits.rule import EditOptions, EditRule, Target
from trueprune.edits.score_masking import WANDA
from trueprune.observe.statistics import Gram


def inverse_factor(gram_CC: Float[Tensor, "C C"], damping: float) -> Float[Tensor, "C C"]:
    """The upper Cholesky factor `U` of the damped inverse Gram matrix, `U^T U = (G + damp I)^-1`.

    `damp = damping * mean(diag G)`; a column without input gets a diagonal of one. Damping is raised tenfold, at most
    four times, if rounding leaves the matrix indefinite.

    **Arguments:**

    - `gram_CC`: `X X^T` of shape `(C, C)`, float32. A constant factor cancels.
    - `damping`: share of the mean diagonal.

    **Returns:** of shape `(C, C)`.

    **Raises:** `PlanError` if the matrix stays indefinite.
    """
    gram_CC = gram_CC.clone()
    diagonal_C = gram_CC.diagonal()
    diagonal_C[diagonal_C == 0] = 1
    damp = damping * float(diagonal_C.mean())
    for _ in range(5):
        diagonal_C += damp
        factor_CC, info = torch.linalg.cholesky_ex(gram_CC)
        if not int(info):
            inverse_CC = torch.cholesky_inverse(factor_CC)
            upper_CC, info = torch.linalg.cholesky_ex(inverse_CC, upper=True)
            if not int(info):
                return upper_CC
        damp *= 10
    raise PlanError("the Gram matrix of the calibration inputs cannot be inverted", "Use more calibration tokens")


def sparsegpt_solve(
    weights: Sequence[Tensor],
    gram_CC: Float[Tensor, "C C"],
    targets: Sequence[Target],
    *,
    block_size: int = 128,
    damping: float = 0.01,
) -> list[Tensor]:
    """Prune matrices that share an input, column by column, moving each column's error to the columns after it.

    Saliency is `w^2 / U_jj^2`; unstructured, the lowest share of each matrix's block of columns goes, as in the
    released code (threshold at index `int(numel * S)`, inclusive). Rows are independent but for that
    threshold, so matrices with one input are solved together.

    **Arguments:**

    - `weights`: float tensors of shapes `(O, C)`.
    - `gram_CC`: Gram matrix of the common input, of shape `(C, C)`.
    - `targets`: one a matrix.
    - `block_size`: columns pruned before the rest is updated (cut to a multiple of m under n:m).
    - `damping`: see `inverse_factor`.

    **Returns:** new weights, float32, of the same shapes.
    """
    upper_CC = inverse_factor(gram_CC, damping)
    dead_C = gram_CC.diagonal() == 0
    # Columns become rows: all updates then run over contiguous memory.
    weight_CR = torch.cat([weight.float() for weight in weights]).t().contiguous()
    weight_CR[dead_C] = 0
    row_counts = [weight.shape[0] for weight in weights]
    columns = weight_CR.shape[0]
    patterns = {target.pattern for target in targets if target.pattern.structured}
    for pattern in patterns:
        check_divides(columns, pattern)
        block_size = max(block_size - block_size % pattern.m, pattern.m)
    for start in range(0, columns, block_size):
        end = min(start + block_size, columns)
        block_KR = weight_CR[start:end]
        upper_KK = upper_CC[start:end, start:end]
        mask_KR = _block_mask(block_KR, upper_KK, row_counts, targets)
        error_KR = _prune_block(block_KR, upper_KK, mask_KR, row_counts, targets)
        weight_CR[end:].addmm_(upper_CC[start:end, end:].t(), error_KR, alpha=-1)
    return [part.t() for part in weight_CR.split(row_counts, dim=1)]


def _block_mask(block_KR: Tensor, upper_KK: Tensor, row_counts: list[int], targets: Sequence[Target]) -> Tensor:
    """The unstructured part of a block's mask; n:m groups are masked when their turn comes."""
    saliency_KR = (block_KR / upper_KK.diagonal()[:, None]).square()
    mask_KR = torch.zeros_like(block_KR, dtype=torch.bool)
    parts = zip(saliency_KR.split(row_counts, 1), mask_KR.split(row_counts, 1), targets, strict=True)
    for saliency, mask, target in parts:
        if not target.pattern.structured and target.sparsity > 0:
            index = min(int(saliency.numel() * target.sparsity), saliency.numel() - 1)
            threshold = saliency.reshape(-1).kthvalue(index + 1).values
            mask.copy_(saliency <= threshold)
    return mask_KR


def _prune_block(
    block_KR: Tensor, upper_KK: Tensor, mask_KR: Tensor, row_counts: list[int], targets: Sequence[Target]
) -> Tensor:
    """Prune a block of columns in place; returns each column's error divided by `U_jj`, of shape `(K, R)`."""
    error_KR = torch.empty_like(block_KR)
    structured = any(target.pattern.structured for target in targets)
    for column in range(block_KR.shape[0]):
        if structured:
            _mask_groups(column, block_KR, upper_KK, mask_KR, row_counts, targets)
        weight_R = block_KR[column]
        pruned_R = weight_R.masked_fill(mask_KR[column], 0)
        torch.div(weight_R - pruned_R, upper_KK[column, column], out=error_KR[column])
        block_KR[column + 1 :].addr_(upper_KK[column, column + 1 :], error_KR[column], alpha=-1)
        block_KR[column] = pruned_R
    return error_KR


def _mask_groups(
    column: int, block_KR: Tensor, upper_KK: Tensor, mask_KR: Tensor, row_counts: list[int], targets: Sequence[Target]
) -> None:
    """At the first column of a group of m, choose its n by the saliency that the updates so far have left."""
    parts = zip(block_KR.split(row_counts, 1), mask_KR.split(row_counts, 1), targets, strict=True)
    for weight, mask, target in parts:
        n, m = target.pattern.n, target.pattern.m
        if m and column % m == 0 and target.sparsity > 0:
            here = slice(column, column + m)
            saliency = (weight[here] / upper_KK.diagonal()[here, None]).square()
            lowest = saliency.sort(dim=0, stable=True).indices[:n]
            mask[here].scatter_(0, lowest, True)


def _apply(weights: Sequence[Tensor], gram: Gram | None, targets: Sequence[Target], options: EditOptions) -> None:
    if gram is None:
        # No token came by (an idle expert): there is no error to minimise, so weights go by magnitude within the row.
        WANDA.apply(weights, None, targets, EditOptions())
        return
    solved = sparsegpt_solve(weights, gram.gram_CC, targets, block_size=options.block_size, damping=options.damping)
    for weight_OI, new_OI in zip(weights, solved, strict=True):
        weight_OI.copy_(new_OI)


SPARSEGPT = EditRule(_apply, Gram)
