"""`trueprune scan`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trueprune.cli.bind import bind
from trueprune.cli.show import show
from trueprune.jobs.scan import scan
from trueprune.reports.tables import scan_table


def _show(report: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    show(scan_table(report["blocks"]), f"TPLO's pivot: {report['pivot']}. Saved in {arguments['output']}")


command = bind(scan, _show, positional=("model",), required=("output",), types={"model": str, "output": Path})
