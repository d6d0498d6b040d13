"""The items that got worst, side by side: what was asked, what the dense model said and what the pruned one says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from trueprune.audits.measurement import Measurement
from trueprune.reports.item_texts import ItemText, ItemTexts, Said, gather, pool_of

if TYPE_CHECKING:
    from trueprune.reports.audit import AuditedModel, AuditReport

__all__ = ["ItemText", "ItemTexts", "Said", "gather", "worst_items"]

# Metrics whose items mean something to a reader: the first part of the metric's name, by instrument. `None`: any.
LISTED: Mapping[str, tuple[str, ...] | None] = {
    "lie-detection": None,
    "accuracy": None,
    "calibration": ("brier",),
    "faithfulness": ("comprehensiveness",),
    "open-qa": ("correct",),
    "truthfulness": ("mc2",),
    "truthful-generation": ("bleu-acc", "judged"),
    "perplexity": None,
}
# Longer texts are cut: a list is to be read.
TEXT_LIMIT = 600
SAID_LIMIT = 300
ROUNDING = 1e-9


def worst_items(report: AuditReport, texts: ItemTexts | None = None, count: int = 5) -> list[dict[str, Any]]:
    """For every pruned model and headline metric the items on which it lost most against the dense model.

    At most one item of a cluster is listed, so that five variants of one fact do not fill the list; of items that lost
    equally much, those that come first.

    **Arguments:**

    - `report`: models, with the values of each item.
    - `texts`: what the items say; without them items are listed by name.
    - `count`: items of each list.

    **Returns:** plain data: for each metric and model how many items got `worse`, `better` and stayed the `same`, and
    the worst of them with text, the right answer, and value and answer `before` and `after`.
    """
    known = ItemTexts() if texts is None else texts
    found = []
    headline = {(row.instrument, row.metric) for row in report.rows if row.headline}
    shown = {name for name in headline if _listed(*name)}
    dense = {(m.instrument, m.metric): m for m in report.models[0].measurements}
    for model in report.models[1:]:
        for after in model.measurements:
            name = (after.instrument, after.metric)
            before = after.baseline or dense.get(name)
            if name in shown and before is not None and list(before.item_ids) == list(after.item_ids):
                sides = _Sides(known, report.models[0], model, before, after)
                found.append(sides.listed(count))
    return found


def _listed(instrument: str, metric: str) -> bool:
    names = LISTED.get(instrument, ())
    return names is None or metric.split("/")[0] in names


@dataclass(frozen=True, eq=False)
class _Sides:
    """One metric of the dense and of one pruned model."""

    texts: ItemTexts
    dense: AuditedModel
    model: AuditedModel
    before: Measurement
    after: Measurement
    pool: str = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "pool", pool_of(self.after.instrument, self.after.metric))

    def listed(self, count: int) -> dict[str, Any]:
        sign = 1.0 if self.after.higher_is_better else -1.0
        before_n, after_n = np.asarray(self.before.values), np.asarray(self.after.values)
        # Rounding is no change.
        same_n = np.isclose(before_n, after_n, rtol=ROUNDING, atol=ROUNDING)
        gain_n = np.where(same_n, 0.0, sign * (after_n - before_n))
        chosen: list[int] = []
        seen: set[str] = set()
        for index in np.argsort(gain_n, kind="stable").tolist():
            if gain_n[index] >= 0 or len(chosen) == count:
                break
            cluster = str((self.after.clusters or self.after.item_ids)[index])
            if cluster not in seen:
                seen.add(cluster)
                chosen.append(index)
        return {
            "instrument": self.after.instrument,
            "metric": self.after.metric,
            "model": self.model.name,
            "n": self.after.n,
            "worse": int((gain_n < 0).sum()),
            "better": int((gain_n > 0).sum()),
            "same": int((gain_n == 0).sum()),
            "items": [self._item(index) for index in chosen],
        }

    def _item(self, index: int) -> dict[str, Any]:
        name = str(self.after.item_ids[index])
        found = self.texts.items.get(self.pool, {}).get(name)
        return {
            "item": name,
            "text": _window(name, self.after) if found is None else _cut(found.text, TEXT_LIMIT),
            "right": None if found is None or not found.right else _cut(found.right, SAID_LIMIT),
            "before": self._side(self.dense, self.before, index),
            "after": self._side(self.model, self.after, index),
        }

    def _side(self, model: AuditedModel, measurement: Measurement, index: int) -> dict[str, Any]:
        said = self.texts.said.get(model.name, {}).get(self.pool, {}).get(str(measurement.item_ids[index]))
        return {
            "value": float(measurement.values[index]),
            "said": None if said is None else _cut(said.words, SAID_LIMIT),
            "probability": None if said is None else said.probability,
        }


def _window(name: str, measurement: Measurement) -> str | None:
    """Where a window of the perplexity's text begins, by its name; other items without a text go by their names."""
    start = name.partition(":")[0]
    return f"the window from token {start}" if measurement.instrument == "perplexity" and start.isdigit() else None


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
