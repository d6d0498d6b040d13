"""What docs/gates.md says of gates is what they do."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from trueprune.audits.metrics import CATALOGUE
from trueprune.reports.gates import PROFILES, Check, profile
from trueprune.reports.gates.power import items_needed
from trueprune.reports.gates.read import BOUNDS, CHECK_KEYS, GATE_KEYS, gate_from_text

TEXT = (Path(__file__).parent.parent / "docs" / "gates.md").read_text(encoding="utf-8")


def table_below(heading):
    """The rows of the first table after some words, without its head."""
    lines = TEXT[TEXT.index(heading) :].split("\n\n")
    rows = next(part for part in lines if part.startswith("|")).splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_example_is_a_gate_and_shows_every_kind_of_bound():
    (example,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    gate = gate_from_text(example, "gates.md", "gates")
    assert (gate.name, gate.inconclusive) == ("release", "fail")
    assert {check.quantity for check in gate.checks} == {"value", "change", "ratio"}
    assert [check.inconclusive for check in gate.checks] == [None, None, "pass"]


def test_every_key_is_told():
    missing = [key for key in (*GATE_KEYS, *CHECK_KEYS, *BOUNDS) if not re.search(rf"\b{key}\b", TEXT)]
    assert missing == []


def test_the_bounds_of_the_profiles():
    rows = table_below("## Profiles")
    gates = [profile(name) for name in PROFILES]
    assert len(rows) == len(gates[0].checks) + 1
    for row, *checks in zip(rows, *(gate.checks for gate in gates), strict=False):
        first = checks[0]
        assert row[:2] == [f"`{first.metric}`, {first.quantity}", first.instrument]
        assert row[2:] == [
            f"at most {check.at_most:g}" if check.at_least is None else f"at least {check.at_least:g}"
            for check in checks
        ]
    assert rows[-1][2:] == [{"fail": "fails", "pass": "passes"}[gate.inconclusive] for gate in gates]


@pytest.mark.parametrize("row", table_below("To plan ahead"), ids=lambda row: row[0])
def test_the_questions_that_bounds_need(row):
    share = float(row[0].removesuffix("%")) / 100
    for said, bound in zip(row[1:], (0.02, 0.03, 0.05, 0.1), strict=True):
        # Of 20 questions, so that no number is below what was asked.
        needed = items_needed(0.0, math.sqrt(share / 20), 20, Check("accuracy", "x", "change", -bound))
        assert said == f"{needed:,}"


def test_every_metric_is_listed():
    rows = {row[0].strip("`"): row[1] for row in table_below("## Metrics")}
    assert list(rows) == list(CATALOGUE)
    for instrument, forms in CATALOGUE.items():
        listed = re.findall(r"`([^`-][^`]*)`", re.sub(r"\([^()]*\)", "", rows[instrument]))
        assert sorted(listed) == sorted(form.pattern for form in forms)
        assert all(form.conditional in rows[instrument] for form in forms)
