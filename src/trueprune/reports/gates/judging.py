"""Holding a gate against an audit: each bound on each metric of each pruned model, by its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trueprune._support.errors import AuditError
from trueprune.audits.measurement import Measurement
from trueprune.audits.metrics import matches, metrics_meant
from trueprune.reports.audit import AuditedModel, AuditReport, Row
from trueprune.reports.gates.check import check_gate
from trueprune.reports.gates.contract import Check, Gate, Outcome, Status, Verdict
from trueprune.reports.gates.power import items_needed
from trueprune.reports.gates.unvaried import counted, independent, items_to_see, widened
from trueprune.reports.paired import RESAMPLES, Estimate, UndefinedRatioError, estimate, paired_change, paired_ratio
from trueprune.reports.significance import LEAST_ITEMS

# A share less a share is off by some 1e-16, which shall not decide what lies on the bound.
SLACK = 1e-9
NAMED = 12


def judge(gate: Gate, report: AuditReport) -> Verdict:
    """Judge every model but the first, or the first where it is alone.

    A bound is kept where the whole 95 % interval keeps it, and broken where none of it does; in between the items do
    not decide. What is counted rather than sampled (bytes, parameters) has no interval and is decided by its value;
    where all items of a sample say the same, the bootstrap has no width and that of a binomial stands in its place. A
    metric that a model leaves undefined, or that was not measured on it, breaks its bound; one that the dense model
    lacks cannot be compared, and that is inconclusive.

    Passing all of several bounds needs no correction for their number: a model that breaks one passes by chance at
    most as often as it would pass that one (the intersection-union test of Berger 1982). That is so where what is
    inconclusive fails.

    **Arguments:**

    - `gate`: the bounds.
    - `report`: the audit; intervals are taken as it takes them (`resamples` and `seed` of its settings).

    **Raises:** `AuditError` for an instrument that was not run, a metric that no model has, or a change or ratio where
    there is no pruned model.
    """
    judged = report.models[1:] or report.models
    check_gate(gate, _instruments(report), pruned=len(report.models) > 1)
    wanted = [_metrics(check, f"gate {gate.name}, check {n}", report) for n, check in enumerate(gate.checks, 1)]
    held = _Held(gate, report)
    return Verdict(
        gate,
        tuple(
            held.outcome(model, check, metric)
            for model in judged
            for check, metrics in zip(gate.checks, wanted, strict=True)
            for metric in metrics
        ),
    )


def _instruments(report: AuditReport) -> tuple[str, ...]:
    return tuple(dict.fromkeys(m.instrument for model in report.models for m in model.measurements))


def _metrics(check: Check, place: str, report: AuditReport) -> list[str]:
    """The metrics that a check means, of any model: what one of them leaves undefined must not go unseen."""
    measured = [m.metric for model in report.models for m in model.measurements if m.instrument == check.instrument]
    known = list(dict.fromkeys(measured))
    found = [metric for metric in known if matches(check.metric, metric)]
    if not found:
        more = f" and {len(known) - NAMED} more" if len(known) > NAMED else ""
        raise AuditError(
            f"{place}: no metric of {check.instrument} that was measured is called {check.metric!r}",
            f"Measured were {', '.join(known[:NAMED])}{more}",
        )
    return found


class _Held:
    """A report with a gate held against it: what was measured and estimated, by model and metric."""

    def __init__(self, gate: Gate, report: AuditReport):
        self.gate = gate
        self.draws = {
            "resamples": int(report.settings.get("resamples", RESAMPLES)),
            "seed": int(report.settings.get("seed", 0)),
        }
        self.dense = _by_metric(report.models[0].measurements)
        self.rows: dict[tuple[str, str, str], Row] = {
            (row.model, row.instrument, row.metric): row for row in report.rows
        }

    def outcome(self, model: AuditedModel, check: Check, metric: str) -> Outcome:
        """What becomes of one bound on one metric of one model."""
        own = _by_metric(model.measurements).get((check.instrument, metric))
        if own is None:
            return self._undefined(model, check, metric, "fail", f"{_lacking(check.instrument, metric)} on this model")
        if not math.isfinite(own.value):
            return self._undefined(model, check, metric, "fail", "it is no finite number")
        before = self.dense.get((own.instrument, own.metric)) if own.baseline is None else own.baseline
        if check.quantity != "value" and (before is None or not math.isfinite(before.value)):
            why = "it is undefined" if before is not None else _lacking(check.instrument, metric)
            why += " on the dense model: there is nothing to compare with"
            return self._undefined(model, check, metric, "inconclusive", why)
        try:
            found = self._estimate(model.name, before, own, check)
        except UndefinedRatioError as error:
            return self._undefined(model, check, metric, "inconclusive", error.problem)
        if not all(map(math.isfinite, (found.value, *found.interval))):
            return self._undefined(model, check, metric, "fail", "it is no finite number")
        bounded, alike = widened(found, own, check)
        exact = counted(own)
        interval = (found.value, found.value) if exact else bounded.interval
        status = status_of(interval, check)
        needed, note = None, "" if exact else _few(own)
        if status == "inconclusive":
            seen = (found.value, found.error, found.n, check)
            needed = items_to_see(found, own, check) if alike else items_needed(*seen)
            note = alike or note
        return Outcome(
            model.name,
            metric,
            check,
            status,
            self._passed(check, status),
            found.value,
            interval,
            found.n,
            needed,
            note,
        )

    def _estimate(self, model: str, before: Measurement | None, own: Measurement, check: Check) -> Estimate:
        """The bounded quantity."""
        row = self.rows.get((model, own.instrument, own.metric))
        if check.quantity == "value" or before is None:
            return _whole(row and row.estimate) or estimate(own, **self.draws)
        if check.quantity == "change":
            return _whole(row and row.change) or paired_change(before, own, **self.draws)
        return paired_ratio(before, own, **self.draws)

    def _undefined(self, model: AuditedModel, check: Check, metric: str, status: Status, why: str) -> Outcome:
        nan = float("nan")
        passed = self._passed(check, status)
        return Outcome(model.name, metric, check, status, passed, nan, (nan, nan), 0, None, why)

    def _passed(self, check: Check, status: Status) -> bool:
        counts = check.inconclusive or self.gate.inconclusive
        return status == "pass" or (status == "inconclusive" and counts == "pass")


def status_of(interval: tuple[float, float], check: Check) -> Status:
    """Whether an interval keeps a bound, breaks it, or straddles it; what lies on the bound keeps it.

    **Arguments:**

    - `interval`: its two ends.
    - `check`: the bound.
    """
    low, high = interval
    least = -math.inf if check.at_least is None else check.at_least - SLACK * max(1.0, abs(check.at_least))
    most = math.inf if check.at_most is None else check.at_most + SLACK * max(1.0, abs(check.at_most))
    if least <= low and high <= most:
        return "pass"
    return "fail" if high < least or low > most else "inconclusive"


def _whole(found: Estimate | None) -> Estimate | None:
    """What the report has estimated, if it says how precisely."""
    return None if found is None or math.isnan(found.error) else found


def _by_metric(measurements: Sequence[Measurement]) -> dict[tuple[str, str], Measurement]:
    return {(m.instrument, m.metric): m for m in measurements}


def _lacking(instrument: str, metric: str) -> str:
    """Why a model may lack a metric: only some can be undefined."""
    undefined = any(form.conditional for form in metrics_meant(instrument, metric))
    return "it is undefined or was not measured" if undefined else "it was not measured"


def _few(measurement: Measurement) -> str:
    items = independent(measurement)
    if items >= LEAST_ITEMS:
        return ""
    return f"it rests on {items} independent items, so that its interval is itself a guess"
