"""`trueprune drop`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trueprune.cli.bind import bind
from trueprune.cli.show import current_command, show
from trueprune.jobs.common import PruneResult
from trueprune.jobs.drop import drop
from trueprune.reports.drop_table import drop_table


def _show(result: PruneResult, arguments: Mapping[str, Any]) -> None:
    show(drop_table(result.record, str(result.output)))


command = bind(
    drop,
    _show,
    positional=("model",),
    required=("output",),
    hide=("tokens",),
    types={"model": str, "output": Path},
    fixed={"free_memory": lambda: True, "command": current_command.get},
)
