"""What a repair made, for people: what was fitted or trained, and each metric before and after."""

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
    lines = _recalibrated(record["recalibration"]) if "recalibration" in record else _healed(record["healing"])
    title = "Before and after, on items that nothing was fitted on (95 % intervals, paired by item)"
    return [run_table(f"Repaired {record['source']}", lines, record, output), audit_table(report, title)]


def _recalibrated(found: Mapping[str, Any]) -> dict[str, str | None]:
    fitted = ", ".join(f"{len(items)} items of {task}" for task, items in found["fitted_on"].items())
    return {
        "method": found["method"],
        "temperature": f"{found['temperature']:.4f}, folded into the weights" if found["folded"] else None,
        "at bound": found.get("at_bound"),
        "for tasks": None if found["folded"] else ", ".join(found["tasks"]),
        "fitted on": fitted,
    }


def _healed(found: Mapping[str, Any]) -> dict[str, str | None]:
    first, best = (next(row for row in found["curve"] if row["step"] == step) for step in (0, found["best_step"]))
    parts = [name for name in ("held_out", "text", "answers", "contrastive") if name in first]
    losses = ", ".join(f"{name.replace('_', '-')} {first[name]:.3f} to {best[name]:.3f}" for name in parts)
    options = found["options"]
    rate = f"learning rate {options['learning_rate']:g}, {options['precision']}"
    return {
        "method": f"{found['method']}, {options['adapt']}, {rate}",
        "teacher": found["teacher"],
        "blocks": f"{', '.join(map(str, found['layers']))} of {found['blocks']} ({found['chosen_by']})",
        "trained": f"{found['matrices']} matrices, {found['trained_parameters']:,} numbers",
        "not trained": ", ".join(found["left_out"]) or None,
        "steps": f"{found['steps']} of {options['steps']} in {found['seconds']:.0f} s: {found['stopped']}; "
        f"kept: step {found['best_step']}",
        "losses": losses,
        "questions": ", ".join(f"{len(items)} of {name}" for name, items in found["fitted_on"].items()) or None,
    }
