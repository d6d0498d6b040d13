"""`trueprune study attention`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trueprune.cli.bind import bind
from trueprune.cli.show import show
from trueprune.jobs.study import study_attention
from trueprune.reports.study import StudyReport, study_table


def _show(report: StudyReport, arguments: Mapping[str, Any]) -> None:
    show(study_table(report), f"All metrics, the plots and the cells are in {arguments['output']}")


command = bind(
    study_attention,
    _show,
    required=("models", "output"),
    types={"models": tuple[str, ...], "output": Path},
)
