"""What the allocations need of the dense model, gathered with the least work."""

from __future__ import annotations

import torch
from torch import Tensor

from trueprune.models.anatomy import Anatomy
from trueprune.models.load import LoadedModel
from trueprune.observe.activations import encode, last_token_activations
from trueprune.observe.engine import BlockStream
from trueprune.observe.moments import NearZero
from trueprune.observe.outliers import outlier_percentage
from trueprune.observe.profile import LayerProfile, ProfileWatch
from trueprune.observe.separation import separation_by_dataset
from trueprune.observe.statistics import ColumnNorms
from trueprune.observe.wiring import read_wirings
from trueprune.texts.statements import StatementSet
from trueprune.texts.tokens import TokenBatch


@torch.no_grad()
def observe_blocks(
    anatomy: Anatomy,
    tokens: TokenBatch,
    *,
    outlier_threshold: float | None = None,
    zero: NearZero | None = None,
    gap: int | None = None,
    batch_tokens: int | None = None,
    description: str = "observe blocks",
) -> tuple[list[float] | None, LayerProfile | None]:
    """Outliers and the layer profile, whichever is asked for, in one forward of the dense model.

    **Arguments:**

    - `anatomy`: the dense model's parts.
    - `tokens`: calibration tokens.
    - `outlier_threshold`: OWL's M; `None` for no outliers.
    - `zero`: when an activation counts as zero; `None` for no profile.
    - `gap`: see `ProfileWatch`.
    - `batch_tokens`: tokens that go through a block in one call.
    - `description`: what the progress bar says.

    **Returns:** outlier percentage of every block, and the profile.

    **Raises:** `ModelError` where activations overflow.
    """
    watch = None if zero is None else ProfileWatch(anatomy, read_wirings(anatomy), zero, gap=gap)
    stream = BlockStream(anatomy, tokens, batch_tokens=batch_tokens)
    percentages = []
    for block in stream.blocks(description):
        if outlier_threshold is None:
            stream.advance(block, watch=watch)
        else:
            last = block.index == len(anatomy.blocks) - 1
            norms = stream.observe(block, ColumnNorms, advance=not last, watch=watch)
            percentages.append(outlier_percentage(block, norms, outlier_threshold))
    return (None if outlier_threshold is None else percentages), (None if watch is None else watch.result())


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
    percentages, _ = observe_blocks(
        anatomy, tokens, outlier_threshold=threshold, batch_tokens=batch_tokens, description="observe outliers"
    )
    assert percentages is not None
    return percentages


def observe_separation(loaded: LoadedModel, anatomy: Anatomy, statements: StatementSet) -> dict[str, Tensor]:
    """Separation ratio of every block and dataset, all blocks in one batched forward.

    **Returns:** for each topic and polarity a tensor of shape `(L,)`.
    """
    encoded = encode(loaded, statements.texts)
    acts_NLD = last_token_activations(anatomy, encoded, description="observe separation")
    return separation_by_dataset(acts_NLD, statements)
