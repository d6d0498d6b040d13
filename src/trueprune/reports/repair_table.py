"""What a repair made, for people: what was fitted, and each metric before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType

from trueprune.reports.audit import AuditReport
from trueprune.reports.tables import audit_table, run_table


def repair_table(record: Mapping[str, Any], report: AuditReport, output: str) -> list[RenderableType]:
    """Two tables: the run, and the metrics on items that nothing was fitted on.

    **Arguments:**

    - `record`: what `trueprune.json` holds.
    - `report`: before and after.
    - `output`: where the model was saved.
    """
    found = record["recalibration"]
    fitted = ", ".join(f"{len(items)} items of {task}" for task, items in found["fitted_on"].items())
    lines = {
        "method": found["method"],
        "temperature": f"{found['temperature']:.4f}, folded into the weights" if found["folded"] else None,
        "at bound": found.get("at_bound"),
        "for tasks": None if found["folded"] else ", ".join(found["tasks"]),
        "fitted on": fitted,
    }
    title = "Before and after, on items that nothing was fitted on (95 % intervals, paired by item)"
    return [run_table(f"Repaired {record['source']}", lines, record, output), audit_table(report, title)]
