"""The gate of an audit: read before anything is measured, held against what was measured, written for pipelines."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from trueprune._support.errors import AuditError
from trueprune.audits.context import AuditSettings
from trueprune.reports.audit import AuditReport
from trueprune.reports.gates import Gate, check_gate, judge, junit, markdown, profile, read_gate


@dataclass(frozen=True)
class GateOptions:
    """What a pruned model must keep.

    **Arguments:**

    - `gate`: a TOML file of bounds on metrics; exit code 0 if every pruned model keeps them, else 1.
    - `profile`: bounds that come with the package instead: `strict`, `balanced` or `lenient`.
    """

    gate: str | None = None
    profile: Literal["strict", "balanced", "lenient"] | None = None

    def __post_init__(self):
        if self.gate is not None and self.profile is not None:
            raise AuditError(
                "--gate and --profile both say what to hold", "Give one; a profile can be copied to a file"
            )

    def read(self) -> Gate | None:
        """The gate, or `None` if none was asked for."""
        if self.gate is not None:
            return read_gate(Path(self.gate))
        return None if self.profile is None else profile(self.profile)


def wanted_instruments(
    asked: Sequence[str], default: Sequence[str], gate: Gate | None, settings: AuditSettings, *, pruned: bool
) -> tuple[str, ...]:
    """What to measure: what was asked for, else the default and what the gate bounds.

    **Arguments:**

    - `asked`: by the user; empty for nothing in particular.
    - `default`: what is measured otherwise.
    - `gate`: refused if it bounds what will not be measured.
    - `settings`: how instruments will measure.
    - `pruned`: whether there is a pruned model.

    **Raises:** `AuditError`.
    """
    chosen = tuple(dict.fromkeys(asked or (*default, *(gate.instruments if gate else ()))))
    if gate is not None:
        check_gate(gate, chosen, settings=settings, pruned=pruned)
    return chosen


def judged(report: AuditReport, gate: Gate | None) -> AuditReport:
    """The report with the verdict of a gate, if there is one."""
    return report if gate is None else replace(report, verdict=judge(gate, report))


def write_verdict(report: AuditReport, folder: Path) -> None:
    """Write `junit.xml` and `summary.md` where there is a verdict."""
    if report.verdict is None:
        return
    (folder / "junit.xml").write_text(junit(report.verdict), encoding="utf-8")
    (folder / "summary.md").write_text(markdown(report.verdict, report), encoding="utf-8")


def announce(report: AuditReport) -> None:
    """Append the summary to the file that GitHub's runners show on the page of a run, where there is one."""
    file = os.environ.get("GITHUB_STEP_SUMMARY")
    if not file or report.verdict is None:
        return
    try:
        with Path(file).open("a", encoding="utf-8") as stream:
            stream.write(markdown(report.verdict, report) + "\n")
    except OSError as error:
        # A page that cannot be written to does not change the verdict.
        warnings.warn(f"the summary is not appended to GITHUB_STEP_SUMMARY {file} ({error.strerror})", stacklevel=2)
