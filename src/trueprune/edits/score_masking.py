"""Zero the weights of lowest score: magnitude, and Wanda (arXiv 2306.11695).

Legend: O out features, I in features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from trueprune.edits import masks
from trueprune.edits.rule import EditOptions, EditRule, Target
from trueprune.observe.statistics import ColumnNorms


def magnitude_score(weight_OI: Float[Tensor, "O I"]) -> Float[Tensor, "O I"]:
    """`|W|` in float32, of shape `(O, I)`."""
    return weight_OI.abs().float()


def wanda_score(weight_OI: Float[Tensor, "O I"], norm_I: Float[Tensor, " I"]) -> Float[Tensor, "O I"]:
    """`|W_oi| * ||x_i||_2` in float32, of shape `(O, I)` (arXiv 2306.11695, eq. 1).

    **Arguments:**

    - `weight_OI`: of shape `(O, I)`.
    - `norm_I`: L2 norm of each input column over all calibration tokens, of shape `(I,)`.
    """
    return weight_OI.abs().float() * norm_I


def prune_mask(score_OI: Float[Tensor, "O I"], target: Target, options: EditOptions, group: str) -> Bool[Tensor, "O I"]:
    """Which weights go: n:m groups, the appendix variant, or the lowest of each row or of the matrix.

    **Returns:** bool, of shape `(O, I)`.
    """
    if target.pattern.structured:
        return masks.lowest_in_group(score_OI, target.pattern)
    if options.variant:
        return masks.cumulative_mass(score_OI, target.sparsity)
    if group == "row":
        return masks.lowest_in_row(score_OI, int(score_OI.shape[1] * target.sparsity))
    return masks.lowest_in_matrix(score_OI, int(score_OI.numel() * target.sparsity))


def _apply_magnitude(weights: Sequence[Tensor], _: None, targets: Sequence[Target], options: EditOptions) -> None:
    for weight_OI, target in zip(weights, targets, strict=True):
        mask_OI = prune_mask(magnitude_score(weight_OI), target, options, options.group or "matrix")
        weight_OI.masked_fill_(mask_OI, 0)


def _apply_wanda(
    weights: Sequence[Tensor], norms: ColumnNorms | None, targets: Sequence[Target], options: EditOptions
) -> None:
    for weight_OI, target in zip(weights, targets, strict=True):
        # No token came by (an idle expert): all inputs count alike, which is magnitude within the row.
        norm_I = torch.ones(weight_OI.shape[1], device=weight_OI.device) if norms is None else norms.norm_C
        mask_OI = prune_mask(wanda_score(weight_OI, norm_I), target, options, options.group or "row")
        weight_OI.masked_fill_(mask_OI, 0)


MAGNITUDE = EditRule(_apply_magnitude)
WANDA = EditRule(_apply_wanda, ColumnNorms)
