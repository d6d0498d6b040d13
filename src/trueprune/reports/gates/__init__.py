"""Gates: bounds on what pruning may change, and the verdict on a model.

Names are had when they are asked for: a report holds a verdict, and judging reads reports.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trueprune.reports.gates.check import check_gate as check_gate
    from trueprune.reports.gates.contract import Check as Check
    from trueprune.reports.gates.contract import Gate as Gate
    from trueprune.reports.gates.contract import Outcome as Outcome
    from trueprune.reports.gates.contract import Verdict as Verdict
    from trueprune.reports.gates.judging import judge as judge
    from trueprune.reports.gates.junit_xml import junit as junit
    from trueprune.reports.gates.profiles import PROFILES as PROFILES
    from trueprune.reports.gates.profiles import profile as profile
    from trueprune.reports.gates.profiles import profile_text as profile_text
    from trueprune.reports.gates.read import read_gate as read_gate
    from trueprune.reports.gates.summary import markdown as markdown
    from trueprune.reports.gates.table import verdict_table as verdict_table
    from trueprune.reports.gates.words import sentence as sentence

_FILES = {
    "check": "check_gate",
    "contract": "Check Gate Outcome Verdict",
    "judging": "judge",
    "junit_xml": "junit",
    "summary": "markdown",
    "profiles": "PROFILES profile profile_text",
    "read": "read_gate",
    "table": "verdict_table",
    "words": "sentence",
}
_FILE_OF = {name: file for file, names in _FILES.items() for name in names.split()}
__all__ = [*_FILE_OF]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _FILE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_FILE_OF[name]}"), name)
    globals()[name] = value
    return value
