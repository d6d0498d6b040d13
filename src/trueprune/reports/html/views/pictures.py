"""The pictures of a property: which of its measurements bring curves, and how these are drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trueprune.reports.html.charts import Curve, line_figure, reliability_figure
from trueprune.reports.html.figure import Figure
from trueprune.reports.html.numbers import is_number
from trueprune.reports.html.views.table import Measured

LAYER = "/layer-"


def pictures(measured: Measured, instrument: str) -> list[Figure]:
    """All pictures of one instrument.

    **Arguments:**

    - `measured`: the document.
    - `instrument`: its name.
    """
    found = [*_separation(measured, instrument), *_layers(measured, instrument)]
    for metric, rows in measured.metrics(instrument):
        found += _reliability(measured, metric, rows)
        found += _risk(measured, metric, rows)
        found += _by_bin(measured, metric, rows)
    return [figure for figure in found if figure is not None]


def _separation(measured: Measured, instrument: str) -> Iterator[Figure | None]:
    names = {one["name"] for one in measured.instruments}
    # The curve comes with either; it is drawn once.
    if instrument != ("separation" if "separation" in names else "lie-detection"):
        return
    curves = []
    for place, model in enumerate(measured.document["models"]):
        values = _numbers((model.get("curves") or {}).get("separation"))
        if values:
            curves.append(Curve(place, model["name"], list(range(len(values))), values))
    peak = None
    if curves and curves[0].index == 0:
        peak = max(range(len(curves[0].y)), key=lambda i: curves[0].y[i] or 0.0)
    yield line_figure(
        curves,
        "Separation of true and false statements over the blocks",
        "How far apart true and false statements lie after each block (variance between over variance within). The "
        "dashed line marks the block in which the dense model separates them best.",
        "block",
        "separation",
        mark=peak,
        zero=True,
        x_text=lambda value: f"{value:.0f}",
    )


def _layers(measured: Measured, instrument: str) -> Iterator[Figure | None]:
    """The curve of a sweep over layers: one metric a layer."""
    by_model: dict[str, dict[int, float]] = {}
    for metric, rows in measured.metrics(instrument):
        number = metric.rpartition(LAYER)[2] if LAYER in metric else ""
        if number.isdigit():
            for name, row in rows.items():
                by_model.setdefault(name, {})[int(number)] = row["value"]
    curves = [
        Curve(place, name, sorted(by_model[name]), [by_model[name][i] for i in sorted(by_model[name])])
        for place, name in enumerate(measured.names)
        if len(by_model.get(name, ())) > 2
    ]
    yield line_figure(
        curves,
        "Accuracy of a probe trained anew at each block",
        "Accuracy of a logistic probe trained on each block's output, on facts that it was not trained on.",
        "block",
        "accuracy",
        x_text=lambda value: f"{value:.0f}",
    )


def _reliability(measured: Measured, metric: str, rows: Mapping[str, Mapping[str, Any]]) -> Iterator[Figure | None]:
    tables = [
        (place, name, rows[name]["details"]["reliability"])
        for place, name in enumerate(measured.names)
        if name in rows and isinstance(rows[name]["details"].get("reliability"), Mapping)
    ]
    if tables:
        task = metric.partition("/")[2]
        yield reliability_figure(
            tables,
            f"Confidence and how often it is right, {task}",
            "Points below the diagonal are overconfident. Vertical lines are the 95 % "
            "intervals of the bins, columns below count their items, the faint line is the dense model.",
        )


def _risk(measured: Measured, metric: str, rows: Mapping[str, Mapping[str, Any]]) -> Iterator[Figure | None]:
    curves = []
    for place, name in enumerate(measured.names):
        curve = rows[name]["details"].get("risk_coverage") if name in rows else None
        if isinstance(curve, Mapping):
            coverage, risk = _numbers(curve.get("coverage")), _numbers(curve.get("risk"))
            if coverage and len(coverage) == len(risk) and all(value is not None for value in coverage):
                curves.append(Curve(place, name, [value or 0.0 for value in coverage], risk))
    if curves:
        task = metric.partition("/")[2]
        yield line_figure(
            curves,
            f"Errors among the most confident answers, {task}",
            "A model whose confidence can be trusted errs least where it is surest: its line starts near zero and "
            "rises to the right.",
            "share of questions answered, the most confident first",
            "share of errors",
            zero=True,
        )


def _by_bin(measured: Measured, metric: str, rows: Mapping[str, Mapping[str, Any]]) -> Iterator[Figure | None]:
    kind, _, rest = metric.partition("/")
    if kind not in ("comprehensiveness", "sufficiency") or not any(row["headline"] for row in rows.values()):
        return
    curves = []
    shares = ((measured.document.get("settings") or {}).get("faithfulness") or {}).get("bins")
    for place, name in enumerate(measured.names):
        values = _numbers(rows[name]["details"].get("by_bin")) if name in rows else []
        if values:
            bins = _numbers(shares)
            known = len(bins) == len(values) and all(value is not None for value in bins)
            x = [value or 0.0 for value in bins] if known else [float(i + 1) for i in range(len(values))]
            curves.append(Curve(place, name, x, values))
    words = {
        "comprehensiveness": "How much the answer's probability falls when the words that matter most are removed: "
        "higher is more faithful.",
        "sufficiency": "How much the answer's probability falls when only the words that matter most are kept: lower "
        "is more faithful.",
    }[kind]
    what = "share of the words" if isinstance(shares, Sequence) else "step"
    yield line_figure(curves, f"{kind.capitalize()}, {rest}", words, what, "fall", zero=True)


def _numbers(values: Any) -> list[float | None]:
    if not isinstance(values, Sequence) or isinstance(values, str):
        return []
    return [float(value) if is_number(value) else None for value in values]
