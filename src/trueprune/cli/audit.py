"""`trueprune audit`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trueprune.cli.bind import bind
from trueprune.cli.show import current_command, show, show_verdict
from trueprune.jobs.audit import audit
from trueprune.reports.audit import AuditReport
from trueprune.reports.tables import audit_table, usable_lines


def _show(report: AuditReport, arguments: Mapping[str, Any]) -> int:
    show(audit_table(report), *usable_lines(report))
    code = show_verdict(report.verdict)
    folder = arguments["output"]
    show(f"The report is {folder / 'report.html'}; all metrics and per-item values are beside it")
    return code


command = bind(
    audit,
    _show,
    positional=("dense", "pruned"),
    required=("output",),
    types={"dense": str, "pruned": list[str] | None, "output": Path, "instruments": tuple[str, ...]},
    fixed={"command": current_command.get},
)
