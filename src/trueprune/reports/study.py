"""The table of a study: models by tasks by numbers of dropped layers, as JSON, Markdown, plots and for the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from trueprune.audits.accuracy import accuracy_of
from trueprune.audits.calibration import calibration_of
from trueprune.audits.faithfulness.explain import Explanation
from trueprune.audits.faithfulness.measures import agreement_of, faithfulness_of
from trueprune.audits.predictions import Predictions
from trueprune.reports.audit import AuditedModel, Row, adjusted, compare
from trueprune.reports.plots import plot_steps

SCHEMA = 1
LEGEND = (
    "Value with its 95 % interval, without any layer dropped; then value and, in brackets, the interval of its change. "
    "* p < 0.05 after Holm's correction for the whole study."
)
# Column, metric with {task} and {attribution}.
COLUMNS = {
    "accuracy": "accuracy/{task}",
    "ECE": "ece-15/{task}",
    "Brier": "brier/{task}",
    "comprehensiveness": "comprehensiveness/{task}/{attribution}",
    "sufficiency": "sufficiency/{task}/{attribution}",
}


@dataclass(frozen=True, eq=False)
class Cell:
    """One model without some attention layers on one task.

    **Arguments:**

    - `model`, `task`, `dropped`: what this is.
    - `layers`: which layers are gone.
    - `predictions`, `explanations`: what was measured.
    """

    model: str
    task: str
    dropped: int
    layers: Sequence[int]
    predictions: Predictions
    explanations: Sequence[Explanation]


@dataclass(frozen=True, eq=False)
class StudyReport:
    """A study, evaluated.

    **Arguments:**

    - `rows`: for each model, task and number of dropped layers all metrics, with the paired change against the model
        with none dropped; `{"model", "task", "dropped", "layers", "metrics": {name: Row}}`.
    - `attribution`: the one that the table shows.
    - `settings`: how it was measured.
    """

    rows: Sequence[Mapping[str, Any]]
    attribution: str
    settings: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        cells: Sequence[Cell],
        settings: Mapping[str, Any],
        *,
        resamples: int = 2000,
        seed: int = 0,
    ) -> StudyReport:
        """Evaluate cells: every model and task against its own whole model.

        **Arguments:**

        - `cells`: those of one model and task in ascending order of what is gone, the whole model first.
        - `settings`: kept in the report.
        - `resamples`, `seed`: of the bootstrap.
        """
        groups: dict[tuple[str, str], list[Cell]] = {}
        for cell in cells:
            groups.setdefault((cell.model, cell.task), []).append(cell)
        rows: list[dict[str, Any]] = []
        for (model, task), group in groups.items():
            audited = [AuditedModel(str(cell.dropped), _measurements(cell, group[0])) for cell in group]
            found = compare(audited, {}, resamples=resamples, seed=seed)
            for cell in group:
                metrics = {row.metric: row for row in found.rows if row.model == str(cell.dropped)}
                about = {"model": model, "task": task, "dropped": cell.dropped, "layers": list(cell.layers)}
                rows.append({**about, "metrics": metrics})
        # What is compared is the whole study, not one model and task.
        every = adjusted([metric for row in rows for metric in row["metrics"].values()])
        corrected = iter(every)
        for row in rows:
            row["metrics"] = {name: next(corrected) for name in row["metrics"]}
        return cls(rows, cells[0].explanations[0].attribution, settings)

    def row(self, model: str, task: str, dropped: int) -> Mapping[str, Row]:
        """All metrics of one cell by name."""
        for row in self.rows:
            if (row["model"], row["task"], row["dropped"]) == (model, task, dropped):
                return row["metrics"]
        raise KeyError(f"no cell of {model}, {task}, {dropped}")

    def columns(self, row: Mapping[str, Any]) -> dict[str, Row]:
        """What the table shows of a row, by column."""
        names = {c: m.format(task=row["task"], attribution=self.attribution) for c, m in COLUMNS.items()}
        return {column: row["metrics"][metric] for column, metric in names.items()}

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        rows = [{**row, "metrics": [_plain(metric) for metric in row["metrics"].values()]} for row in self.rows]
        return {"schema": SCHEMA, "attribution": self.attribution, "rows": rows, "settings": dict(self.settings)}


def _plain(row: Row) -> dict[str, Any]:
    return {key: value for key, value in row.to_json().items() if key != "model"}


def _measurements(cell: Cell, whole: Cell) -> list[Any]:
    agreement = [] if cell is whole else agreement_of(whole.explanations, cell.explanations)
    return [
        *accuracy_of(cell.predictions),
        *calibration_of(cell.predictions),
        *faithfulness_of(cell.explanations),
        *agreement,
    ]


def study_table(report: StudyReport) -> RenderableType:
    """The table for a terminal: value with interval, and the paired change with its interval."""
    title = f"Attention layers dropped (95 % intervals; changes paired by item; explanations by {report.attribution})"
    table = Table(title=title, caption=LEGEND, show_lines=True)
    for name in ("model", "task", "dropped"):
        table.add_column(name)
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for row in report.rows:
        cells = [_words(metric) for metric in report.columns(row).values()]
        table.add_row(row["model"], row["task"], str(row["dropped"]), *cells)
    return table


def study_markdown(report: StudyReport) -> str:
    """The same table as Markdown: value, and in brackets the interval of the change."""
    lines = [f"| model | task | dropped | {' | '.join(COLUMNS)} |", "|---" * (3 + len(COLUMNS)) + "|"]
    for row in report.rows:
        cells = [_words(metric, " ") for metric in report.columns(row).values()]
        lines.append(f"| {row['model']} | {row['task']} | {row['dropped']} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", LEGEND]) + "\n"


def _words(row: Row, joint: str = "\n") -> str:
    low, high = row.estimate.interval
    if row.change is None:
        return f"{row.estimate.value:.3f}{joint}[{low:.3f}, {high:.3f}]"
    low, high = row.change.interval
    star = "*" if row.test is not None and row.test.significant else ""
    return f"{row.estimate.value:.3f}{joint}({low:+.3f} to {high:+.3f}){star}"


def write_study(report: StudyReport, folder: Path) -> None:
    """Write `study.json`, `study.md` and a plot for each model.

    **Arguments:**

    - `report`: the study.
    - `folder`: where its cells lie.
    """
    files = {
        "study.json": json.dumps(report.to_json(), indent=1, ensure_ascii=False) + "\n",
        "study.md": study_markdown(report),
    }
    for name, text in files.items():
        # Whole or absent, in a folder that keeps its cells.
        partial = folder / f"{name}.partial"
        partial.write_text(text, encoding="utf-8")
        partial.replace(folder / name)
    for model in dict.fromkeys(row["model"] for row in report.rows):
        panels: dict[str, dict[str, list[tuple[int, float, float, float]]]] = {name: {} for name in COLUMNS}
        for row in report.rows:
            if row["model"] == model:
                for column, metric in report.columns(row).items():
                    low, high = metric.estimate.interval
                    point = (row["dropped"], metric.estimate.value, low, high)
                    panels[column].setdefault(row["task"], []).append(point)
        safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in model)
        plot_steps(panels, f"{model}: attention layers dropped", folder / f"study-{safe}")
