"""`trueprune scan`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from trueprune.cli.bind import bind
from trueprune.cli.show import show
from trueprune.jobs.scan import scan
from trueprune.reports.eavss_table import eavss_table
from trueprune.reports.tables import scan_table


def _show(report: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    compared: list[RenderableType] = []
    if how := report["eavss"]:
        compared = [eavss_table(report["blocks"], how, report["hallucination_prone"])]
        compared += [f"note: {note}" for note in how["notes"]]
    show(scan_table(report["blocks"]), *compared, f"TPLO's pivot: {report['pivot']}. Saved in {arguments['output']}")


command = bind(scan, _show, positional=("model",), required=("output",), types={"model": str, "output": Path})
