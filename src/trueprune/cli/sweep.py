"""`trueprune sweep`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from trueprune.cli.bind import bind
from trueprune.cli.show import show
from trueprune.sweeps import SweepReport, sweep
from trueprune.sweeps.show import sweep_lines, sweep_tables

# A flag that may stand alone.
Ray = Annotated[list[str] | None, Parameter(consume_multiple=(0, 1))]


def _sweep(grid: Path, output: Path, *, ray: list[str] | None = None) -> SweepReport:
    return sweep(grid, output, ray=None if ray is None else ray[0] if ray else True)


_sweep.__doc__ = sweep.__doc__
_sweep.__name__ = "sweep"


def _show(report: SweepReport, arguments: Mapping[str, Any]) -> int:
    show(*sweep_tables(report), *sweep_lines(report), f"Table, report and cells are in {arguments['output']}")
    return report.exit_code


command = bind(_sweep, _show, positional=("grid",), required=("output",), types={"ray": Ray})
