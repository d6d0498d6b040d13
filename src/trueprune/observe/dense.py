"""What the allocations need of the dense model, gathered with the least work."""

from __future__ import annotations

import torch
from torch import Tensor

from trueprune.models.anatomy import Anatomy
from trueprune.models.load import LoadedModel
from trueprune.observe.activations import encode, last_token_activations
from trueprune.observe.engine import BlockStream
from trueprune.observe.outliers import outlier_percentage
from trueprune.observe.separation import separation_by_dataset
from trueprune.observe.statistics import ColumnNorms
from trueprune.texts.statements import StatementSet
from trueprune.texts.tokens import TokenBatch


@torch.no_grad()
def observe_outliers(
    anatomy: Anatomy, tokens: TokenBatch, threshold: float, *, batch_tokens: int | None = None
) -> list[float]:
    """OWL's outlier percentage of every block, in one forward of the dense model.

    **Arguments:**

    - `anatomy`: the dense model's parts.
    - `tokens`: calibration tokens.
    - `threshold`: M.
    - `batch_tokens`: tokens that go through a block in one call.
    """
    stream = BlockStream(anatomy, tokens, batch_tokens=batch_tokens)
    percentages = []
    for block in stream.blocks("observe outliers"):
        last = block.index == len(anatomy.blocks) - 1
        norms = stream.observe(block, ColumnNorms, advance=not last)
        percentages.append(outlier_percentage(block, norms, threshold))
    return percentages


def observe_separation(loaded: LoadedModel, anatomy: Anatomy, statements: StatementSet) -> dict[str, Tensor]:
    """Separation ratio of every block and dataset, all blocks in one batched forward.

    **Returns:** for each topic and polarity a tensor of shape `(L,)`.
    """
    encoded = encode(loaded, statements.texts)
    acts_NLD = last_token_activations(anatomy, encoded, description="observe separation")
    return separation_by_dataset(acts_NLD, statements)
