"""`trueprune repair`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trueprune.cli.bind import bind
from trueprune.cli.show import current_command, show
from trueprune.jobs.repair import RepairResult, repair
from trueprune.reports.repair_table import repair_table


def _show(result: RepairResult, arguments: Mapping[str, Any]) -> None:
    show(*repair_table(result.record, result.report, str(result.output)))


command = bind(
    repair,
    _show,
    positional=("model",),
    required=("output",),
    types={"model": str, "output": Path, "teacher": str | None},
    fixed={"free_memory": lambda: True, "command": current_command.get},
)
