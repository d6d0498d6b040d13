"""`trueprune report`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trueprune.cli.bind import bind
from trueprune.cli.show import current_command, show, show_verdict
from trueprune.jobs.report import report
from trueprune.reports.audit import AuditReport
from trueprune.reports.tables import audit_table, usable_lines


def _show(found: AuditReport, arguments: Mapping[str, Any]) -> int:
    show(audit_table(found), *usable_lines(found))
    code = show_verdict(found.verdict)
    show(f"The report is {arguments['output'] / 'report.html'}; all metrics and per-item values are beside it")
    return code


command = bind(
    report,
    _show,
    positional=("audits",),
    required=("output",),
    types={"audits": list[str], "output": Path},
    fixed={"command": current_command.get},
)
