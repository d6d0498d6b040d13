"""`trueprune demo`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trueprune.cli.bind import bind
from trueprune.cli.show import show
from trueprune.jobs.demo import demo
from trueprune.reports.audit import AuditReport
from trueprune.reports.tables import audit_table


def _show(report: AuditReport, arguments: Mapping[str, Any]) -> None:
    show(
        audit_table(report),
        f"The report is {arguments['output'] / 'report.html'}; curves, plans and per-item values are beside it",
        "Next: trueprune prune demo -o pruned --method tplo; trueprune audit demo pruned -o audit",
    )


command = bind(demo, _show, types={"output": Path, "methods": tuple[str, ...]})
