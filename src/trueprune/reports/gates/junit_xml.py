"""A verdict as JUnit XML, which every pipeline draws: a suite a model, a test case a bound and metric."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from trueprune._support.lines import one_line
from trueprune.reports.gates.contract import Outcome, Verdict
from trueprune.reports.gates.words import bound, explained, title

DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'


def junit(verdict: Verdict) -> str:
    """JUnit XML.

    A bound that is broken, or undecided where that counts as failed, is a `failure` of that type; one that is undecided
    and counts as passed is `skipped`. Characters that XML cannot hold become U+FFFD.

    **Arguments:**

    - `verdict`: of a gate.
    """
    root = ElementTree.Element("testsuites", _counts(f"trueprune gate {verdict.gate.name}", verdict.outcomes))
    for model in verdict.models:
        outcomes = verdict.of(model)
        suite = ElementTree.SubElement(root, "testsuite", _counts(model, outcomes))
        for outcome in outcomes:
            suite.append(_case(outcome))
    # The schema that Jenkins publishes knows it of suites alone.
    del root.attrib["skipped"]
    ElementTree.indent(root)
    return DECLARATION + ElementTree.tostring(root, encoding="unicode") + "\n"


def _counts(name: str, outcomes: Sequence[Outcome]) -> dict[str, str]:
    failures, skipped = sum(not o.passed for o in outcomes), sum(_let_pass(o) for o in outcomes)
    counts = {"tests": len(outcomes), "failures": failures, "errors": 0, "skipped": skipped}
    return {"name": one_line(name), **{key: str(count) for key, count in counts.items()}, "time": "0"}


def _case(outcome: Outcome) -> ElementTree.Element:
    case = ElementTree.Element(
        "testcase",
        {
            "classname": one_line(outcome.check.instrument),
            "name": f"{title(outcome)}: {bound(outcome.check)}",
            "time": "0",
        },
    )
    said, reason = explained(outcome), one_line(outcome.check.reason)
    if not outcome.passed:
        found = ElementTree.SubElement(case, "failure", {"message": said, "type": outcome.status})
        found.text = "\n".join(filter(None, (said, reason)))
    elif _let_pass(outcome):
        ElementTree.SubElement(case, "skipped", {"message": said})
    else:
        ElementTree.SubElement(case, "system-out").text = said
    return case


def _let_pass(outcome: Outcome) -> bool:
    return outcome.passed and outcome.status == "inconclusive"
