"""A sweep in a terminal: a table for each dense model, what failed, and what to use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from trueprune.reports.audit import Row
from trueprune.reports.tables import metric_title
from trueprune.sweeps.fronts import REMOVED, by_configuration
from trueprune.sweeps.report import SweepReport
from trueprune.sweeps.results import FAILED, ModelResults

# More columns do not fit beside the name and the sparsity.
COLUMNS = 6
REASON = 100


def sweep_tables(report: SweepReport) -> list[RenderableType]:
    """A table a dense model: each cell with its headline metrics, and whether it keeps the gate.

    **Arguments:**

    - `report`: the sweep.
    """
    return [_table(report, model) for model in report.models]


def _table(report: SweepReport, model: ModelResults) -> Table:
    rows = [] if model.report is None else list(model.report.rows)
    headline = list(dict.fromkeys((row.instrument, row.metric) for row in rows if row.headline))
    shown, hidden = headline[:COLUMNS], len(headline) - COLUMNS
    caption = "~ no other configuration is as small and better in this metric"
    table = Table(title=f"Sweep of {model.name}", caption=caption + (f"; {hidden} more metrics" if hidden > 0 else ""))
    table.add_column("cell")
    table.add_column("removed", justify="right")
    for _, metric in shown:
        table.add_column(metric_title(metric), justify="right")
    if report.gate is not None:
        table.add_column("gate" if report.gate.name == "gate" else f"gate {report.gate.name}")
    table.add_column("seconds", justify="right")
    found = {(row.model, row.instrument, row.metric): row for row in rows}
    best = _best(report, model)
    gate = [] if report.gate is None else [""]
    if model.report is not None:
        values = [_value(found.get((model.name, *key)), "") for key in shown]
        removed = model.report.models[0].about.get("measured_sparsity", 0.0)
        table.add_row(Text("dense"), f"{removed:.3f}", *values, *gate, "")
    for label, cells in by_configuration(model.cells).items():
        for cell in cells:
            if cell.status == FAILED:
                blank = [""] * len(shown)
                table.add_row(Text(cell.name), "failed", *blank, *gate, "", style="red")
                continue
            marks = ["~" if label in best.get(key, ()) else "" for key in shown]
            values = [_value(found.get((cell.name, *key)), mark) for key, mark in zip(shown, marks, strict=True)]
            passed = [] if report.gate is None else [_passed(cell.passed)]
            seconds = f"{cell.data['seconds']['total']:.1f}"
            table.add_row(Text(cell.name), f"{cell.data['removed']:.3f}", *values, *passed, seconds)
    return table


def _best(report: SweepReport, model: ModelResults) -> dict[tuple[str, str], set[str]]:
    return {
        (front["instrument"], front["y"]): {point["name"] for point in front["points"] if point["front"]}
        for front in report.fronts[model.name]
        if front["x"] == REMOVED
    }


def _value(row: Row | None, mark: str) -> Text:
    if row is None:
        return Text("-")
    text = Text(f"{row.estimate.value:.4g}{mark}")
    if row.change is not None:
        low, high = row.change.interval
        certain = low > 0 or high < 0
        worse = row.change.value < 0 if row.higher_is_better else row.change.value > 0
        style = ("red" if worse else "green") if certain else "dim"
        text.append(f" ({low:+.3g} to {high:+.3g})" if row.estimate.n > 1 else f" ({row.change.value:+.3g})", style)
    return text


def _passed(passed: bool | None) -> Text:
    return Text("passes", "green") if passed else Text("fails", "red")


def sweep_lines(report: SweepReport) -> Iterator[str]:
    """What failed and why, and what to use, a line each.

    **Arguments:**

    - `report`: the sweep.
    """
    for model in report.models:
        for cell in (cell for cell in model.cells if cell.status == FAILED):
            reason = cell.error if len(cell.error) <= REASON else f"{cell.error[: REASON - 3]}..."
            yield f"failed: {model.name}, {cell.name}: {reason} (tried again at the next start)"
        if found := report.recommended.get(model.name):
            yield from _recommended(model.name, found)


def _recommended(name: str, found: Mapping[str, Any]) -> Iterator[str]:
    if found["passed"]:
        share = f"{found['removed']:.1%} of its weights removed"
        yield f"The sparsest {name} that passes: {found['name']}, {share}. Made by"
        for command in found["commands"]:
            yield f"  {command}"
        return
    yield f"No {name} passes. The nearest is {found['name']} ({found['removed']:.1%} removed); it breaks"
    for broken in found["broken"]:
        bounds = [f"at least {broken['at_least']:g}"] if broken["at_least"] is not None else []
        bounds += [f"at most {broken['at_most']:g}"] if broken["at_most"] is not None else []
        value = "undefined" if broken["value"] is None else f"{broken['value']:.4g}"
        if None not in broken["interval"]:
            value += " [{:.4g}, {:.4g}]".format(*broken["interval"])
        yield (
            f"  {broken['metric']} ({broken['instrument']}): {broken['quantity']} {value}, "
            f"to be {' and '.join(bounds)} ({broken['status']})"
        )
