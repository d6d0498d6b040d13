"""`trueprune estimate`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trueprune.cli.bind import bind
from trueprune.cli.show import show
from trueprune.estimates.table import estimate_parts
from trueprune.jobs.estimate import estimate


def _show(report: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    saved = [f"Saved in {arguments['output']}"] if arguments["output"] else []
    show(*estimate_parts(report), *saved)


command = bind(
    estimate,
    _show,
    positional=("model",),
    types={"model": str, "output": Path | None, "method": tuple[str, ...], "audit": tuple[str, ...]},
)
