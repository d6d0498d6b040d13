"""A verdict for the terminal: a table a model, in words and not in colours alone."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from trueprune._support.lines import one_line
from trueprune.reports.gates.contract import Outcome, Verdict
from trueprune.reports.gates.words import amount, bound, decides, title

STYLES = {"pass": "green", "fail": "red", "inconclusive": "yellow"}


def verdict_table(verdict: Verdict) -> RenderableType:
    """What became of every bound, model by model.

    **Arguments:**

    - `verdict`: of a gate.
    """
    return Group(*(_table(verdict, model) for model in verdict.models))


def _table(verdict: Verdict, model: str) -> Table:
    # Text, not strings: what stands in brackets in a name is no markup.
    table = Table(title=Text(f"{one_line(model)} against the gate {one_line(verdict.gate.name)}"))
    for column in ("bound on", "must be", "is"):
        table.add_column(column, justify="left" if column == "bound on" else "right")
    table.add_column("verdict")
    for outcome in verdict.of(model):
        cells = (title(outcome), bound(outcome.check), amount(outcome))
        table.add_row(*map(Text, cells), _verdict(outcome))
    return table


def _verdict(outcome: Outcome) -> Text:
    text = Text(outcome.status, style=STYLES[outcome.status])
    if outcome.status == "inconclusive":
        text.append(f", counts as {'passed' if outcome.passed else 'failed'}")
        if not outcome.undefined:
            text.append(f"\n{decides(outcome)}", style="dim")
    if outcome.note:
        text.append(f"\n{one_line(outcome.note)}", style="dim")
    return text
