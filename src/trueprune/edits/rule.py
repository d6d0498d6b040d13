"""What an edit is: a statistic it needs and a function from weights to pruned weights.

Legend: O out features, I in features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from trueprune._support.errors import PlanError
from trueprune.observe.statistics import Statistic
from trueprune.plans.plan import Pattern

Group = Literal["row", "matrix"]


@dataclass(frozen=True)
class EditOptions:
    """The constants of the edits.

    **Arguments:**

    - `group`: weights compared with each other: `"row"` (one output) or `"matrix"`; `None` is each score's own custom,
        rows for Wanda, matrices for magnitude. SparseGPT has groups of its own.
    - `variant`: Wanda's appendix variant (cumulative mass) instead of equal counts a row.
    - `block_size`: columns that SparseGPT prunes before it updates the rest.
    - `damping`: SparseGPT adds this share of the mean diagonal to the Gram matrix.
    """

    group: Group | None = None
    variant: bool = False
    block_size: int = 128
    damping: float = 0.01

    def __post_init__(self):
        if self.block_size < 1:
            raise PlanError(f"--block-size {self.block_size} is no number of columns", "Use e.g. 128")
        if not self.damping > 0:
            raise PlanError(f"--damping {self.damping} is not positive", "Use e.g. 0.01")


@dataclass(frozen=True)
class Target:
    """What one matrix loses: a sparsity, or n:m."""

    sparsity: float
    pattern: Pattern


@dataclass(frozen=True)
class EditRule:
    """A way to zero weights.

    **Arguments:**

    - `apply`: `(weights, statistic, targets, options)`: edits in place the weights, each of shape `(O, I)`, that share
        the input which `statistic` summarises (`None` where no token came by).
    - `statistic`: the class to observe, or `None`.
    """

    apply: Callable[[Sequence[Tensor], Any, Sequence[Target], EditOptions], None]
    statistic: type[Statistic] | None = None
