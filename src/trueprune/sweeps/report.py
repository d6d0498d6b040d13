"""What a sweep gives back, and the files that it writes beside its cells."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trueprune._support.files import whole_file
from trueprune.reports.audit import AuditReport
from trueprune.reports.gates import Gate, sentence
from trueprune.reports.html import render
from trueprune.reports.plain import plain
from trueprune.sweeps.commands import safe
from trueprune.sweeps.fronts import fronts
from trueprune.sweeps.grid import Grid
from trueprune.sweeps.recommend import recommend
from trueprune.sweeps.results import FAILED, ModelResults, Result, numbered
from trueprune.sweeps.store import read_json, write_json
from trueprune.sweeps.table import table_rows, write_table

SCHEMA = 1
TABLE, SUMMARY, PLAN = "sweep.parquet", "sweep.json", "recommended-plan"


@dataclass(frozen=True, eq=False)
class SweepReport:
    """What a sweep found.

    **Arguments:**

    - `grid`: what it went through.
    - `gate`: what models must keep, or `None`.
    - `models`: what was found on each dense model.
    - `rows`: the table, as in `sweep.parquet`.
    - `fronts`: Pareto fronts by model.
    - `recommended`: by model what to use under the gate, or what came nearest.
    - `output`: the folder.
    """

    grid: Grid
    gate: Gate | None
    models: Sequence[ModelResults]
    rows: Sequence[Mapping[str, Any]]
    fronts: Mapping[str, Sequence[Mapping[str, Any]]]
    recommended: Mapping[str, Mapping[str, Any]]
    output: Path

    @classmethod
    def of(cls, grid: Grid, gate: Gate | None, models: Sequence[ModelResults], output: Path) -> SweepReport:
        """The report of what was gathered."""
        found = {model.name: recommend(grid, model) for model in models}
        return cls(
            grid,
            gate,
            models,
            table_rows(models),
            {model.name: fronts(model) for model in models},
            {name: one for name, one in found.items() if one is not None},
            output,
        )

    @property
    def failed(self) -> list[Result]:
        """The cells that could not be made or measured."""
        return [cell for model in self.models for cell in model.cells if cell.status == FAILED]

    @property
    def passed(self) -> bool | None:
        """Whether of every dense model some configuration keeps the gate; `None` without a gate."""
        if self.gate is None:
            return None
        return all(self.recommended.get(model.name, {}).get("passed", False) for model in self.models)

    @property
    def exit_code(self) -> int:
        """1 if a cell failed, or no model keeps the gate; else 0."""
        return 1 if self.failed or self.passed is False else 0

    def report(self, model: str | None = None) -> AuditReport | None:
        """The comparison of a dense model with its cells; of the first without a name."""
        for found in self.models:
            if model in (None, found.name, found.source):
                return found.report
        raise KeyError(f"no model {model!r}")

    def to_json(self) -> dict[str, Any]:
        """Plain data, as in `sweep.json`."""
        verdicts = {
            model.name: sentence(model.report.verdict)
            for model in self.models
            if model.report is not None and model.report.verdict is not None
        }
        found = {
            "schema": SCHEMA,
            "exit_code": self.exit_code,
            "gate": None if self.gate is None else {"name": self.gate.name, "verdict": verdicts},
            "cells": [
                {
                    "model": model.name,
                    "name": cell.name,
                    "cell": cell.cell,
                    "status": cell.status,
                    "error": cell.error or None,
                    "passed": cell.passed,
                    **cell.config.to_json(),
                    "model_source": model.source,
                    "measured_sparsity": cell.data.get("about", {}).get("measured_sparsity"),
                    "removed": cell.data.get("removed"),
                    "usable_by": cell.data.get("about", {}).get("usable_by"),
                    "seconds": cell.data.get("seconds"),
                }
                | {"model": model.name}
                for model in self.models
                for cell in model.cells
            ],
            "fronts": self.fronts,
            "recommended": self.recommended,
            "grid": asdict(self.grid),
        }
        return plain(found)


def write_sweep(report: SweepReport) -> None:
    """Write table, summary, comparison reports and recommended plans; those of an earlier run that are not written
    anew are removed.

    **Arguments:**

    - `report`: what the sweep found.
    """
    folder = report.output
    write_table(report.rows, folder / TABLE)
    written: set[str] = set()
    names = numbered([safe(model.name) for model in report.models])
    for name, model in zip(names, report.models, strict=True):
        suffix = f"-{name}" if len(report.models) > 1 else ""
        if model.report is not None:
            written |= _write_comparison(model.report, folder, suffix)
        found = report.recommended.get(model.name)
        if found is not None and found["passed"]:
            file = folder / f"{PLAN}{suffix}.json"
            write_json(file, found["plan"])
            written.add(file.name)
    earlier = (read_json(folder / SUMMARY) or {}).get("files", [])
    write_json(folder / SUMMARY, {**report.to_json(), "files": sorted(written)})
    for pattern in ("report*.html", "report*.json", f"{PLAN}*.json"):
        for old in folder.glob(pattern):
            # Whoever reads a report may have put a file of a like name beside it.
            if old.name in earlier and old.name not in written:
                old.unlink()


def _write_comparison(report: AuditReport, folder: Path, suffix: str) -> set[str]:
    """The page and its document; values of items stay in the cells."""
    page, data = folder / f"report{suffix}.html", folder / f"report{suffix}.json"
    document = report.to_json()
    write_json(data, document)
    with whole_file(page) as work:
        work.write_text(render(document), encoding="utf-8")
    return {page.name, data.name}


def read_summary(folder: Path) -> dict[str, Any]:
    """What `sweep.json` holds."""
    return json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
