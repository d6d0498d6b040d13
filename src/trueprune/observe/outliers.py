"""OWL's layerwise outlier distribution (arXiv 2310.05175, section 3).

Legend: O out features, I in features.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from trueprune.models.anatomy import Block
from trueprune.observe.statistics import ColumnNorms


def outlier_percentage(block: Block, norms: Mapping[str, ColumnNorms], threshold: float) -> float:
    """`100 * #{a > M * mean(a)} / n`, where `a = |W| * ||x||` are the Wanda scores of all matrices of a block together.

    Two passes, a sum and a count, one matrix at a time, so that the scores of a block are never held together.

    **Arguments:**

    - `block`: a block of the dense model.
    - `norms`: column norms by matrix name; a matrix that no token reached (an idle expert) scores zero.
    - `threshold`: `M`, how many times the mean an outlier exceeds.

    **Returns:** a percentage, 0 to 100.
    """
    total = 0.0
    for site in block.sites:
        if site.name in norms:
            # Summing the columns first needs no score matrix: sum_oi |W_oi| n_i = sum_i n_i sum_o |W_oi|.
            column_sums_I = site.weight_OI.abs().sum(0, dtype=torch.float64)
            total += float(column_sums_I @ norms[site.name].norm_C.double())
    cut = threshold * total / block.numel
    outliers = 0
    for site in block.sites:
        if site.name in norms:
            score_OI = site.weight_OI.abs().float() * norms[site.name].norm_C
            outliers += int((score_OI > cut).sum())
    return 100.0 * outliers / block.numel
