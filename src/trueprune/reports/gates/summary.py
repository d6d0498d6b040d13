"""A verdict as Markdown, as the page of a pipeline's run on GitHub or a comment shows it."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence

from trueprune._support.lines import one_line
from trueprune.reports.audit import AuditReport
from trueprune.reports.gates.contract import Outcome, Verdict
from trueprune.reports.gates.words import amount, bound, decides, figure, sentence, title

BADGES = {"pass": "✅ pass", "fail": "❌ **fail**", "inconclusive": "⚠️ undecided"}
# Each begins or ends something in Markdown; a backslash makes it a letter. The colon ends what would be a link.
_SIGNS = re.compile(r"([\\`*_{}\[\]#!|~$:])")


def markdown(verdict: Verdict, report: AuditReport) -> str:
    """A summary: the verdict in a sentence, a table a model, and why what is broken matters.

    **Arguments:**

    - `verdict`: of a gate.
    - `report`: the audit that was judged.
    """
    badge = "✅ passed" if verdict.passed() else "❌ failed"
    dense = report.models[0].name
    # No line begins with a name: it might look like an item of a list.
    parts = [f"## Gate {escape(verdict.gate.name)}: {badge}", f"**Verdict:** {escape(sentence(verdict))}"]
    for model in verdict.models:
        outcomes = verdict.of(model)
        parts += [f"### {escape(model)}: {'passed' if verdict.passed(model) else 'failed'}"]
        parts += ["\n".join(_table(outcomes, dense, report)), *_told(outcomes)]
    how = f"95 % intervals, {report.settings.get('resamples', 'some')} resamples of whole clusters"
    beside = f", paired by item with {escape(dense)}" if len(report.models) > 1 else ""
    parts.append(f"<sub>{how}{beside}. A bound is kept where the whole interval keeps it.</sub>")
    return "\n\n".join(parts) + "\n"


def _table(outcomes: Sequence[Outcome], dense: str, report: AuditReport) -> Iterator[str]:
    values = {(row.model, row.instrument, row.metric): row.estimate.value for row in report.rows}
    # A dense model that is judged itself stands beside nothing.
    shown = list(dict.fromkeys((dense, outcomes[0].model)))
    heads = [escape(dense), "this model"][: len(shown)]
    yield f"| bound on | {' | '.join(heads)} | bounded | must be | verdict |"
    yield f"|---|{'--:|' * len(shown)}--:|--:|---|"
    for one in outcomes:
        found = [values.get((name, one.check.instrument, one.metric)) for name in shown]
        cells = [escape(title(one)), *("" if value is None else figure(value) for value in found)]
        cells += [escape(amount(one)), bound(one.check), _badge(one)]
        yield f"| {' | '.join(cells)} |"


def _badge(outcome: Outcome) -> str:
    if outcome.status != "inconclusive":
        return BADGES[outcome.status]
    return f"{BADGES['inconclusive']}, counts as {'passed' if outcome.passed else '**failed**'}"


def _told(outcomes: Sequence[Outcome]) -> list[str]:
    """What to know of each bound that is not simply kept, as a list; empty where there is none."""
    lines = []
    for one in outcomes:
        reason = one.check.reason if one.status == "fail" else ""
        power = decides(one) if one.status == "inconclusive" and not one.undefined else ""
        if said := [text for text in (reason, power, one.note) if text]:
            lines.append(f"- {escape(title(one))}: {'. '.join(escape(text.rstrip('.')) for text in said)}.")
    return ["\n".join(lines)] if lines else []


def escape(text: str) -> str:
    """A name from anywhere as plain text in Markdown: no tag, table cell, link, mention or emphasis comes of it."""
    escaped = html.escape(_SIGNS.sub(r"\\\1", one_line(text)), quote=False)
    # An empty comment parts what a renderer would join to a link: of a user, a page or an issue.
    return re.sub(r"(?<=@)(?=\w)|(?<=\bwww)(?=\.)|(?<=\bgh)(?=-)", "<!-- -->", escaped, flags=re.IGNORECASE)
