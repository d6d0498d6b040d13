"""One property of one model, kept item by item so that two models can be compared on the same items.

Legend: n items, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

Reduction = Literal["mean", "exp-mean"]


@dataclass(frozen=True, eq=False)
class Measurement:
    """Per-item values of one metric of one model.

    The value of the metric is the weighted mean of `values` (`reduction="mean"`) or its exponential
    (`reduction="exp-mean"`: perplexity from per-window negative log-likelihoods weighted by tokens), or, where it is no
    mean of items (a calibration error), what `statistic` says.

    **Arguments:**

    - `instrument`: the instrument that measured, e.g. `"lie-detection"`.
    - `metric`: the metric within the instrument, e.g. `"grouped/logistic/retrained"`.
    - `item_ids`: one stable identifier an item; two models are paired by these.
    - `values`: of shape `(n,)`, one finite number an item.
    - `weights`: of shape `(n,)`, non-negative; ones by default.
    - `clusters`: one label an item; items of one cluster (variants of one fact) are resampled together. By default
        each item is its own cluster.
    - `reduction`: see above.
    - `higher_is_better`: the direction in which the metric is good.
    - `headline`: whether tables show it without being asked.
    - `details`: plain data about how it was measured (layer, probe, subset ...).
    - `baseline`: the dense model measured at the same time on the same items, where that matters (timings): what the
        change is taken against. By default it is taken against the dense model's own measurement.
    - `statistic`: how often each item occurs in each resample, `(R, n)`, to the metric, `(R,)`; NaN where a resample
        leaves it undefined.
    """

    instrument: str
    metric: str
    item_ids: Sequence[str]
    values: np.ndarray
    weights: np.ndarray | None = None
    clusters: Sequence[str] | None = None
    reduction: Reduction = "mean"
    higher_is_better: bool = True
    headline: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)
    baseline: Measurement | None = None
    statistic: Callable[[np.ndarray], np.ndarray] | None = None

    def __post_init__(self):
        if len(self.values) != self.n:
            raise ValueError(f"{self.metric}: {len(self.values)} values for {self.n} items")
        if not np.isfinite(self.values).all():
            raise ValueError(f"{self.metric}: a per-item value is not finite")
        if self.baseline is not None and list(self.baseline.item_ids) != list(self.item_ids):
            raise ValueError(f"{self.metric}: the baseline has other items")

    @property
    def n(self) -> int:
        """The number of items."""
        return len(self.item_ids)

    @property
    def value(self) -> float:
        """The metric on the items as they are."""
        return float(self.resample(np.ones((1, self.n)))[0])

    def resample(self, counts_Rn: Float[np.ndarray, "R n"]) -> Float[np.ndarray, " R"]:
        """The metric on resampled items.

        **Arguments:**

        - `counts_Rn`: how often each item occurs in each resample, of shape `(R, n)`.

        **Returns:** of shape `(R,)`.
        """
        if self.statistic is not None:
            return self.statistic(counts_Rn)
        weights_n = np.ones(self.n) if self.weights is None else np.asarray(self.weights, dtype=np.float64)
        mean_R = (counts_Rn @ (weights_n * self.values)) / (counts_Rn @ weights_n)
        return np.exp(mean_R) if self.reduction == "exp-mean" else mean_R
