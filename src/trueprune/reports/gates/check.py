"""Refuse a gate that cannot be held, before any model is loaded: typos, bounds of nothing, what will not run."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection

from trueprune._support.errors import AuditError
from trueprune.audits.context import AuditSettings
from trueprune.audits.metrics import CATALOGUE, MetricName, metrics_meant, nearest_metric, places_of
from trueprune.reports.gates.contract import Check, Gate

LONGEST_NAME = 200


def check_gate(
    gate: Gate, instruments: Collection[str], *, settings: AuditSettings | None = None, pruned: bool = True
) -> None:
    """Refuse a gate that an audit cannot answer.

    **Arguments:**

    - `gate`: the gate.
    - `instruments`: those that will run.
    - `settings`: how they will measure, if that is known: metrics of a task, set or probe that is not asked for are
        then refused, too.
    - `pruned`: whether there will be a pruned model; without one only values can be bounded.

    **Raises:** `AuditError` that names the check.
    """
    if not gate.checks:
        raise AuditError(f"the gate {gate.name} has no check", "Add a bound")
    for number, check in enumerate(gate.checks, 1):
        place = f"gate {gate.name}, check {number}"
        refuse(check, place)
        if check.instrument not in instruments:
            raise AuditError(
                f"{place}, instrument: {check.instrument} is not measured",
                f"Audit with --instruments {' '.join((*instruments, check.instrument))}",
            )
        if settings is not None and not metrics_meant(check.instrument, check.metric, places := places_of(settings)):
            near = nearest_metric(check.instrument, check.metric, places)
            raise AuditError(
                f"{place}, metric: {check.metric!r} will not be measured with these options",
                f"Ask for it (--tasks, --qa, --probes, --protocols ...){f', or bound {near}' if near else ''}",
            )
        if not pruned and check.quantity != "value":
            raise AuditError(
                f"{place}: a {check.quantity} is of a pruned model beside the dense one, and there is no pruned model",
                "Audit both, or bound the value",
            )


def refuse(check: Check, place: str) -> None:
    """Refuse a check that makes no sense whatever is measured.

    **Arguments:**

    - `check`: the check.
    - `place`: where it stands, for the error.

    **Raises:** `AuditError`.
    """
    if check.instrument not in CATALOGUE:
        near = difflib.get_close_matches(check.instrument, CATALOGUE, 1, 0.5)
        meant = f"Did you mean {near[0]}? " if near else ""
        raise AuditError(
            f"{place}, instrument: unknown instrument {shown(check.instrument)}",
            f"{meant}Use one of {', '.join(CATALOGUE)}",
        )
    if len(check.metric) > LONGEST_NAME:
        raise AuditError(f"{place}, metric: a name of {len(check.metric)} letters", "Shorten it")
    meant = metrics_meant(check.instrument, check.metric)
    if not meant:
        raise AuditError(
            f"{place}, metric: {check.instrument} yields no metric {shown(check.metric)}",
            _meant_instead(check.instrument, check.metric),
        )
    _refuse_bounds(check, place)
    for form in meant:
        _refuse_range(check, form, place)


def _meant_instead(instrument: str, metric: str) -> str:
    elsewhere = [name for name in CATALOGUE if name != instrument and metrics_meant(name, metric)]
    if elsewhere:
        return f"It is one of {elsewhere[0]}"
    near = nearest_metric(instrument, metric)
    return f"Did you mean {near}?" if near else f"It yields {', '.join(form.pattern for form in CATALOGUE[instrument])}"


def _refuse_bounds(check: Check, place: str) -> None:
    bounds = {"at_least": check.at_least, "at_most": check.at_most}
    given = {f"{check.quantity}_{side}": bound for side, bound in bounds.items() if bound is not None}
    if not given:
        raise AuditError(f"{place}: there is no bound", f"Add e.g. {check.quantity}_at_least = 0")
    for key, bound in given.items():
        if not math.isfinite(bound):
            raise AuditError(f"{place}, {key}: {bound} is no finite number", f"Write e.g. {key} = 0.05")
    if check.at_least is not None and check.at_most is not None and check.at_least > check.at_most:
        raise AuditError(
            f"{place}, {check.quantity}_at_least: {check.at_least:g} is above {check.quantity}_at_most = "
            f"{check.at_most:g}",
            "Exchange the two",
        )


def _refuse_range(check: Check, form: MetricName, place: str) -> None:
    """Bounds that every model keeps, or none: most often a percentage where a share is meant."""
    if check.quantity == "ratio" and not form.may_be_a_ratio:
        raise AuditError(
            f"{place}: {form.pattern} may be negative, so that its ratio says nothing", "Bound its change or its value"
        )
    if check.quantity != "value" and form.beside_dense:
        raise AuditError(
            f"{place}: {form.pattern} compares the pruned model with the dense one, which has none itself",
            "Bound its value",
        )
    low, high = form.low, form.high
    if check.quantity == "change":
        low, high = low - high, high - low
    elif check.quantity == "ratio":
        low, high = 0.0, math.inf
    for side, bound in (("at_least", check.at_least), ("at_most", check.at_most)):
        if bound is not None and not low <= bound <= high:
            lies = f"lies between {low:g} and {high:g}" if math.isfinite(high) else f"is never below {low:g}"
            raise AuditError(
                f"{place}, {check.quantity}_{side}: {bound:g} bounds nothing, as the {check.quantity} of "
                f"{form.pattern} {lies}",
                "Shares are fractions: 2 % is 0.02" if high <= 2 else "Give a bound within",
            )


def shown(value: object) -> str:
    """What somebody wrote, short enough for one line."""
    try:
        text = repr(value)
    except ValueError:
        return "a number of more digits than Python writes"
    return text if len(text) <= 60 else f"{text[:56]}...{text[-1]}"
