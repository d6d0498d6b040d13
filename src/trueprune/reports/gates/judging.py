"""Holding a gate against an audit: each bound on each metric of each pruned model, by its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trueprune._support.errors import AuditError
from trueprune.audits.measurement import Measurement
from trueprune.audits.metrics import matches
from trueprune.reports.audit import AuditedModel, AuditReport, Row
from trueprune.reports.gates.check import check_gate
from trueprune.reports.gates.contract import Check, Gate, Outcome, Status, Verdict
from trueprune.reports.gates.power import items_needed
from trueprune.reports.paired import RESAMPLES, Estimate, UndefinedRatioError, estimate, paired_change, paired_ratio
from trueprune.reports.significance import LEAST_ITEMS

# A share less a share is off by some 1e-16, which shall not decide what lies on the bound.
SLACK = 1e-9
NAMED = 12


def judge(gate: Gate, report: AuditReport) -> Verdict:
    """Judge every model but the first, or the first where it is alone.

    A bound is kept where the whole 95 % interval keeps it, and broken where none of it does; in between the items do
    not decide. What is counted rather than sampled (one item: bytes, parameters) has no interval and is decided by its
    value. A metric that a model leaves undefined breaks its bound; one that the dense model leaves undefined cannot be
    compared, and that is inconclusive.

    Passing all of several bounds needs no correction for their number: a model that breaks one passes by chance at
    most as often as it would pass that one (the intersection-union test of Berger 1982).

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
            return self._undefined(model, check, metric, "fail", "the model leaves it undefined")
        found, why = self._estimate(model.name, own, check)
        if found is None or not all(map(math.isfinite, (found.value, *found.interval))):
            status: Status = "fail" if found else "inconclusive"
            return self._undefined(model, check, metric, status, why or "it is no finite number")
        interval = found.interval if found.n > 1 else (found.value, found.value)
        status = status_of(interval, check)
        needed = items_needed(found.value, found.error, found.n, check) if status == "inconclusive" else None
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
            _few(own),
        )

    def _estimate(self, model: str, own: Measurement, check: Check) -> tuple[Estimate | None, str]:
        """The bounded quantity; or `None` and why there is none."""
        key = (own.instrument, own.metric)
        row = self.rows.get((model, *key))
        if check.quantity == "value":
            return _whole(row and row.estimate) or estimate(own, **self.draws), ""
        before = self.dense.get(key) if own.baseline is None else own.baseline
        if before is None:
            return None, "the dense model leaves it undefined: there is nothing to compare with"
        if check.quantity == "change":
            return _whole(row and row.change) or paired_change(before, own, **self.draws), ""
        try:
            return paired_ratio(before, own, **self.draws), ""
        except UndefinedRatioError as error:
            return None, error.problem

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


def _few(measurement: Measurement) -> str:
    independent = len(set(measurement.item_ids if measurement.clusters is None else measurement.clusters))
    if measurement.n == 1 or independent >= LEAST_ITEMS:
        return ""
    return f"it rests on {independent} independent items, so that its interval is itself a guess"
