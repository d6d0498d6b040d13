"""From measurements to plain data: a row for each model, instrument and metric, with intervals and paired changes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from trueprune._support.errors import AuditError
from trueprune.audits.measurement import Measurement
from trueprune.reports.document import document
from trueprune.reports.gates.contract import Verdict
from trueprune.reports.html import render
from trueprune.reports.item_texts import ItemTexts
from trueprune.reports.paired import Estimate, estimate, paired_change
from trueprune.reports.plain import plain
from trueprune.reports.significance import ChangeTest, holm, p_value


@dataclass(frozen=True, eq=False)
class AuditedModel:
    """What was measured on one model.

    **Arguments:**

    - `name`: how tables call it.
    - `measurements`: everything measured.
    - `about`: plain data: source, method, sparsity.
    - `curves`: per-block curves by name, e.g. `{"separation": [...]}`.
    """

    name: str
    measurements: Sequence[Measurement]
    about: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One metric of one model.

    **Arguments:**

    - `model`, `instrument`, `metric`: what this is.
    - `estimate`: value, interval and n.
    - `change`: pruned minus dense with its interval; `None` for the dense model.
    - `higher_is_better`, `headline`, `details`: as in `Measurement`.
    - `test`: whether the change is more than chance; `None` without a change or for a count.
    """

    model: str
    instrument: str
    metric: str
    estimate: Estimate
    change: Estimate | None
    higher_is_better: bool
    headline: bool
    details: dict[str, Any]
    test: ChangeTest | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data with `value`, `interval`, `n` and `change` beside the names."""
        change: dict[str, Any] | None = None
        if self.change is not None:
            change = {"value": self.change.value, "interval": list(self.change.interval)}
            change["test"] = None if self.test is None else asdict(self.test)
        return {
            "model": self.model,
            "instrument": self.instrument,
            "metric": self.metric,
            "value": self.estimate.value,
            "interval": list(self.estimate.interval),
            "n": self.estimate.n,
            "change": change,
            "higher_is_better": self.higher_is_better,
            "headline": self.headline,
            "details": self.details,
        }


@dataclass(frozen=True, eq=False)
class AuditReport:
    """An audit of several models against the first.

    **Arguments:**

    - `models`: the dense model first.
    - `rows`: one a model and metric.
    - `settings`: how it was measured.
    - `verdict`: what a gate says of it; `None` without a gate.
    - `items`: what items say and what was answered, from `trueprune.reports.items.gather`; without it the document
        lists items by name.
    """

    models: Sequence[AuditedModel]
    rows: Sequence[Row]
    settings: dict[str, Any]
    verdict: Verdict | None = None
    items: ItemTexts | None = None

    def value(self, model: str, metric: str) -> Estimate:
        """The estimate of one metric of one model, e.g. `report.value("demo", "perplexity")`."""
        return self._row(model, metric).estimate

    def change(self, model: str, metric: str) -> Estimate | None:
        """The paired change of one metric of one model against the dense one."""
        return self._row(model, metric).change

    def _row(self, model: str, metric: str) -> Row:
        for row in self.rows:
            if row.model == model and row.metric == metric:
                return row
        raise KeyError(f"no metric {metric!r} of {model!r}")

    def to_json(self) -> dict[str, Any]:
        """The document: plain data that `audit.json` holds and `report.html` is made of."""
        return document(self)


def compare(models: Sequence[AuditedModel], settings: dict[str, Any], *, resamples: int, seed: int) -> AuditReport:
    """Estimate every metric of every model and its paired change against the first.

    Where a measurement brings its own baseline, the change is taken against that.

    **Arguments:**

    - `models`: the dense model first.
    - `settings`: kept in the report.
    - `resamples`, `seed`: of the bootstrap.
    """
    dense = {(m.instrument, m.metric): m for m in models[0].measurements}
    rows = []
    tests: list[tuple[int, str, float]] = []
    for index, model in enumerate(models):
        for measurement in model.measurements:
            before = measurement.baseline
            if before is None:
                before = dense.get((measurement.instrument, measurement.metric))
            change = None
            if index and before is not None:
                change = paired_change(before, measurement, resamples=resamples, seed=seed)
                if (test := p_value(before, measurement, change)) is not None:
                    tests.append((len(rows), *test))
            found = estimate(measurement, resamples=resamples, seed=seed)
            rows.append(_row(model.name, measurement, found, change))
    for row, name, p in tests:
        rows[row] = replace(rows[row], test=ChangeTest(name, p, p))
    return AuditReport(models, adjusted(rows), settings)


def adjusted(rows: Sequence[Row]) -> list[Row]:
    """The rows with p-values corrected for how many there are.

    What tables show is a family of its own: metrics that few look at shall not weaken it. The others are corrected for
    all tests.

    **Arguments:**

    - `rows`: with or without a test.
    """
    found = list(rows)
    every = [i for i, row in enumerate(found) if row.test is not None]
    shown = [i for i in every if found[i].headline]
    # The headline metrics last, so that their own correction stands.
    for family in (every, shown):
        tests = [test for i in family if (test := rows[i].test) is not None]
        for i, test, p in zip(family, tests, holm([test.p for test in tests]), strict=True):
            found[i] = replace(found[i], test=replace(test, p_adjusted=p))
    return found


def _row(model: str, measurement: Measurement, found: Estimate, change: Estimate | None) -> Row:
    return Row(
        model=model,
        instrument=measurement.instrument,
        metric=measurement.metric,
        estimate=found,
        change=change,
        higher_is_better=measurement.higher_is_better,
        headline=measurement.headline,
        details=dict(measurement.details),
    )


def write_report(report: AuditReport, folder: Path) -> None:
    """Write `audit.json`, the page `report.html` that is made of it, and `items.jsonl` with every per-item value.

    **Arguments:**

    - `report`: the audit.
    - `folder`: an existing folder.
    """
    found = report.to_json()
    data = json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "audit.json").write_text(data + "\n", encoding="utf-8")
    try:
        (folder / "report.html").write_text(render(found), encoding="utf-8")
    except AuditError as error:
        # Hours of measuring are not thrown away for a page.
        warnings.warn(f"report.html is not written: {error.problem}", stacklevel=2)
    with (folder / "items.jsonl").open("w", encoding="utf-8") as file:
        for line in _item_lines(report):
            file.write(json.dumps(plain(line), ensure_ascii=False, allow_nan=False) + "\n")


def _item_lines(report: AuditReport) -> Iterator[dict[str, Any]]:
    for model in report.models:
        for m in model.measurements:
            yield {
                "model": model.name,
                "instrument": m.instrument,
                "metric": m.metric,
                "items": list(m.item_ids),
                "values": [round(float(v), 9) for v in m.values],
                "weights": None if m.weights is None else [float(w) for w in m.weights],
                "clusters": None if m.clusters is None else list(m.clusters),
                "baseline": None if m.baseline is None else [round(float(v), 9) for v in m.baseline.values],
            }


def settings_of(options: Any) -> dict[str, Any]:
    """An options dataclass as plain data."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(options).items()}
