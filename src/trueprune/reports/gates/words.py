"""A verdict in plain words: one sentence for whoever decides, one for each bound."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trueprune._support.lines import one_line
from trueprune.reports.gates.contract import Check, Outcome, Verdict
from trueprune.reports.gates.power import ITEMS
from trueprune.reports.tables import OF_TASKS, TITLES, metric_title

NAMED = 3


def sentence(verdict: Verdict) -> str:
    """The verdict in one plain sentence."""
    gate, models = one_line(verdict.gate.name), verdict.models
    if not models:
        return f"The gate {gate} held no model against its bounds."
    if len(models) == 1:
        verb = "passes" if verdict.passed() else "fails"
        return f"{one_line(models[0])} {verb} the gate {gate}: {_why(verdict.of(models[0]))}."
    passing = [one_line(model) for model in models if verdict.passed(model)]
    failing = [f"{one_line(model)} {_why(verdict.of(model))}" for model in models if not verdict.passed(model)]
    if not failing:
        return f"All {len(models)} models pass the gate {gate}."
    found = f"{len(passing)} of {len(models)} models {'passes' if len(passing) == 1 else 'pass'} the gate {gate}"
    named = f" ({', '.join(passing)})" if passing else ""
    return f"{found}{named}; {'; '.join(failing)}."


def _why(outcomes: Sequence[Outcome]) -> str:
    broken = [outcome for outcome in outcomes if outcome.status == "fail"]
    undecided = [outcome for outcome in outcomes if outcome.status == "inconclusive"]
    total = f"{len(outcomes)} bounds"
    if not undecided and not broken:
        return "keeps its one bound" if len(outcomes) == 1 else f"keeps all {total}"
    parts = []
    if broken:
        how_many = "its one bound" if len(outcomes) == 1 else f"{len(broken)} of {total}"
        parts.append(f"breaks {how_many} ({_few([spoken(outcome) for outcome in broken])})")
    else:
        parts.append("does not break its one bound" if len(outcomes) == 1 else f"breaks none of {total}")
    for passed, counts in ((False, "failed"), (True, "passed")):
        if those := [outcome for outcome in undecided if outcome.passed == passed]:
            which = "" if broken else f" ({_few([subject(outcome) for outcome in those])})"
            verbs = ("is", "counts") if len(those) == 1 else ("are", "count")
            parts.append(f"{len(those)} {verbs[0]} undecided{which} and {verbs[1]} as {counts}")
    return ", ".join(parts)


def _few(names: Sequence[str]) -> str:
    return "; ".join(names[:NAMED]) + (f"; and {len(names) - NAMED} more" if len(names) > NAMED else "")


def spoken(outcome: Outcome) -> str:
    """One broken bound as somebody would say it: `accuracy (facts) fell by 0.07, allowed is 0.02`."""
    name, check, value = subject(outcome), outcome.check, outcome.value
    if outcome.undefined:
        return f"{name} is undefined"
    if check.quantity == "ratio":
        return f"{name} is {figure(value)} times the dense model's, {bound(check)} is asked"
    if check.quantity == "value":
        return f"{name} is {figure(value)}, {bound(check)} is asked"
    allowed = check.at_least if value < 0 else check.at_most
    moved = f"{name} {'fell' if value < 0 else 'rose'} by {figure(abs(value))}"
    # A change that must be an improvement, or stay within two bounds, has no loss that is allowed.
    plain = allowed is not None and (allowed <= 0 if value < 0 else allowed >= 0)
    return (
        f"{moved}, allowed is {figure(abs(allowed))}"
        if plain and allowed is not None
        else f"{moved}, {bound(check)} is asked"
    )


def subject(outcome: Outcome) -> str:
    """A metric as tables head it, where that is clear: `lie detection (dense probe)`."""
    metric = outcome.metric
    parts = metric.split("/")
    probe = outcome.check.instrument == "lie-detection" and len(parts) == 3
    clear = metric in TITLES or probe or (len(parts) > 1 and parts[0] in OF_TASKS)
    return one_line(metric_title(metric) if clear else metric)


def explained(outcome: Outcome) -> str:
    """What became of one bound: the number, its interval, the bound, and where undecided what would decide it."""
    verb = {"pass": "keeps", "fail": "breaks", "inconclusive": "does not decide"}[outcome.status]
    parts = [f"{title(outcome)} is {amount(outcome)}, which {verb} the bound ({bound(outcome.check)})"]
    if outcome.undefined:
        parts = [f"{title(outcome)} is undefined, the bound is {bound(outcome.check)}"]
    if outcome.status == "inconclusive":
        parts.append(f"It counts as {'passed' if outcome.passed else 'failed'}")
        parts += [] if outcome.undefined else [decides(outcome)]
    if outcome.note:
        parts.append(f"Note: {one_line(outcome.note)}")
    return ". ".join(parts) + "."


def decides(outcome: Outcome) -> str:
    """How many items would decide a bound that the interval straddles, and which way."""
    unit, flags = ITEMS.get(outcome.check.instrument, ("items", ""))
    more = f" ({flags})" if flags else ""
    if outcome.needed is None and math.inf in outcome.interval:
        return f"More {unit}{more} would decide it"
    if outcome.needed is None:
        return "The value lies on the bound: no number of items would decide it"
    verb = "pass" if within(outcome.value, outcome.check) else "fail"
    return (
        f"About {outcome.needed:,} {unit}{more} instead of {outcome.n:,} would decide it; if the value stays, it would "
        f"then {verb}"
    )


def within(value: float, check: Check) -> bool:
    """Whether a value keeps a bound."""
    return (check.at_least is None or value >= check.at_least) and (check.at_most is None or value <= check.at_most)


def title(outcome: Outcome) -> str:
    """The metric by its name and what of it is bounded: `accuracy/facts change`."""
    quantity = "" if outcome.check.quantity == "value" else f" {outcome.check.quantity}"
    return one_line(outcome.metric) + quantity


def bound(check: Check) -> str:
    """The bound: `at least -0.02`, `between 0.7 and 0.9`."""
    least, most = (None if b is None else figure(b) for b in (check.at_least, check.at_most))
    if least is not None and most is not None:
        return f"between {least} and {most}"
    return f"at most {most}" if least is None else f"at least {least}"


def amount(outcome: Outcome) -> str:
    """The bounded number with its interval, a change with its sign; a count has no interval."""
    if outcome.undefined:
        return "undefined"
    sign = "+" if outcome.check.quantity == "change" and outcome.value >= 0 else ""
    low, high = outcome.interval
    interval = f" [{figure(low)}, {figure(high)}]" if low < high < math.inf else ""
    return f"{sign}{figure(outcome.value)}{interval}"


def figure(value: float) -> str:
    """A number to three digits after the point where it is small, to one where it is large; a count whole."""
    size = abs(value)
    if not math.isfinite(value):
        return "undefined"
    if size >= 1e15 or 0 < size < 5e-5:
        return f"{value:.3g}"
    if size >= 1e4:
        return f"{value:,.0f}"
    return f"{round(value, 4) + 0.0:.4g}"
