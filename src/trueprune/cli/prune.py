"""`trueprune prune`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trueprune.cli.bind import bind
from trueprune.cli.show import current_command, show
from trueprune.jobs.prune import PruneResult, prune
from trueprune.reports.tables import prune_table


def _show(result: PruneResult, arguments: Mapping[str, Any]) -> None:
    show(prune_table(result.record, str(result.output)))


command = bind(
    prune,
    _show,
    positional=("model",),
    required=("output",),
    hide=("tokens", "evidence"),
    types={"model": str, "output": Path, "plan": Path | None},
    fixed={"free_memory": lambda: True, "command": current_command.get},
)
