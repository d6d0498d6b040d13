"""How far true and false statements lie apart in each block's output (TPLO, arXiv 2509.00096; Truth is Universal).

Legend: N statements, L blocks, D residual width.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from trueprune._support.errors import AuditError
from trueprune.texts.statements import StatementSet


def separation_ratio(acts_NLD: Float[Tensor, "N L D"], labels_N: Int[Tensor, " N"]) -> Float[Tensor, " L"]:
    """Between-class over within-class variance of last-token activations, for every block at once.

    `q_l = B_l / W_l` with `B = 1/2 mean_d[(mu_F - mu)^2 + (mu_T - mu)^2]`, `W = 1/2 (mean_d var(F) + mean_d var(T))`,
    unbiased variances, `mu` the mean over all statements: a ratio of averages over dimensions, not an average of
    ratios.

    **Arguments:**

    - `acts_NLD`: of shape `(N, L, D)`.
    - `labels_N`: of shape `(N,)`, 1 true, 0 false.

    **Returns:** of shape `(L,)`, float32.

    **Raises:** `AuditError` when a class has fewer than two statements, or no variance inside the classes.
    """
    # Relative to one statement: means of equal activations are then equal to the last bit.
    acts_NLD = acts_NLD.float() - acts_NLD[:1].float()
    true_NLD, false_NLD = acts_NLD[labels_N == 1], acts_NLD[labels_N == 0]
    if len(true_NLD) < 2 or len(false_NLD) < 2:
        raise AuditError(
            f"separation needs two true and two false statements, got {len(true_NLD)} and {len(false_NLD)}",
            "Give statements of both labels",
        )
    mean_LD = acts_NLD.mean(0)
    between_L = ((false_NLD.mean(0) - mean_LD).square() + (true_NLD.mean(0) - mean_LD).square()).mean(-1) / 2
    within_L = (false_NLD.var(0).mean(-1) + true_NLD.var(0).mean(-1)) / 2
    if bool(((within_L == 0) & (between_L > 0)).any()):
        raise AuditError("the statements of each class all give the same activation", "Give statements that differ")
    # A block in which every statement ends in the same activation (say, its attention is gone) separates nothing.
    return torch.where(within_L > 0, between_L / within_L.clamp_min(torch.finfo(torch.float32).tiny), 0.0)


def separation_by_dataset(acts_NLD: Tensor, statements: StatementSet) -> dict[str, Tensor]:
    """`separation_ratio` for each dataset, that is each topic and polarity.

    A dataset with fewer than two statements of a label has no variance inside its classes and is left out.

    **Returns:** for `"cities/affirmative"` and the like, a tensor of shape `(L,)`.

    **Raises:** `AuditError` if no dataset is left.
    """
    names = np.array(
        [f"{topic}/{polarity}" for topic, polarity in zip(statements.topics, statements.polarities, strict=True)]
    )
    labels = torch.from_numpy(statements.labels)
    result = {}
    for name in sorted(set(names)):
        rows = torch.from_numpy(np.flatnonzero(names == name))
        if int(torch.bincount(labels[rows], minlength=2).min()) >= 2:
            result[str(name)] = separation_ratio(acts_NLD[rows], labels[rows])
    if not result:
        raise AuditError(
            f"no topic of {statements.name} has two true and two false statements of one polarity",
            "Give more statements of both labels",
        )
    return result
