"""What an audit says in a sentence when no gate was set: what changed beyond chance, and what was not found to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from trueprune.reports.glossary import PROPERTIES, property_of

if TYPE_CHECKING:
    from trueprune.reports.audit import AuditReport, Row

Reading = Literal["worse", "better", "maybe worse", "maybe better", "no change found", "same"]
GROUPS = {
    "worse": "got worse",
    "mixed": "got worse in part and better in part",
    "better": "got better",
    "maybe worse": "may have got worse",
    "maybe better": "may have got better",
}
# No verdict on trust rests on what a model costs.
COST = "efficiency"


def reading(row: Row) -> Reading | None:
    """What the change of a metric comes to.

    `worse` and `better` stand after correction for all metrics of their kind (or are exact: a count has no chance in
    it); `maybe` where the interval excludes zero and the corrected test does not stand, or there is none;
    `no change found` is no proof that there is none.

    **Arguments:**

    - `row`: one metric of one model; the dense model's has no change, and `None` is returned.
    """
    change = row.change
    if change is None:
        return None
    gain = change.value if row.higher_is_better else -change.value
    # Of sampled items, one proves nothing; sizes are counted.
    exact = row.instrument == COST and row.estimate.n == 1
    if row.estimate.n == 1 and not exact:
        return "no change found"
    if exact and gain == 0:
        return "same"
    low, high = change.interval
    if exact or (row.test is not None and row.test.significant):
        return "better" if gain > 0 else "worse"
    if low > 0 or high < 0:
        return "maybe better" if gain > 0 else "maybe worse"
    return "no change found"


def summary(report: AuditReport) -> dict[str, Any]:
    """What changed, model by model and in all, from the headline metrics and their tests.

    **Arguments:**

    - `report`: the audit.

    **Returns:** plain data: a `sentence`, and for each pruned model a `sentence` and the instruments that got `worse`,
    `better`, `mixed`, `maybe worse`, `maybe better`, or were `not found` to change. An instrument got worse if a
    headline metric did beyond chance and none got better; it is `mixed` if one of each did.
    """
    models = {model.name: _of_model(report.rows, model.name) for model in report.models[1:]}
    return {"sentence": _overall(models, report.models[0].name), "models": models}


def _of_model(rows: Sequence[Row], name: str) -> dict[str, Any]:
    found: dict[str, set[str]] = {instrument: set() for instrument in PROPERTIES}
    for row in rows:
        if row.model == name and row.headline and row.instrument != COST and (what := reading(row)) is not None:
            found.setdefault(row.instrument, set()).add(what)
    groups: dict[str, list[str]] = {name: [] for name in (*GROUPS, "not found")}
    for instrument, what in found.items():
        if not what:
            continue
        groups[_group(what)].append(instrument)
    return {"sentence": _sentence(name, groups), **groups}


def _group(what: set[str]) -> str:
    """What the readings of one instrument's headline metrics come to; what is sure goes before what may be."""
    if {"worse", "better"} <= what:
        return "mixed"
    return next((name for name in ("worse", "better", "maybe worse", "maybe better") if name in what), "not found")


def _sentence(name: str, groups: Mapping[str, Sequence[str]]) -> str:
    parts = [f"{_titles(groups[key])} {words}" for key, words in GROUPS.items() if groups[key]]
    if not any(groups.values()):
        return f"{name}: nothing was compared with the dense model."
    if groups["not found"]:
        was = "was" if len(groups["not found"]) == 1 else "were"
        parts.append(f"{_titles(groups['not found'])} {was} not found to change")
    return f"{name}: {'; '.join(parts)}."


def _overall(models: Mapping[str, Mapping[str, Any]], dense: str) -> str:
    if not models:
        return f"Only {dense} was measured: there is no pruned model to compare it with."
    if len(models) == 1:
        name, groups = next(iter(models.items()))
        lost = [*groups["worse"], *groups["mixed"]]
        maybe = groups["maybe worse"]
        if lost:
            more = f", and may have in {_titles(maybe)}" if maybe else ""
            return f"Compared with {dense}, {name} got worse beyond chance in {_titles(lost)}{more}."
        if maybe:
            return (
                f"Compared with {dense}, {name} got worse beyond chance in nothing, and may have in {_titles(maybe)}."
            )
        return f"Compared with {dense}, {name} was not found to get worse in anything that was measured."
    worse = [name for name, groups in models.items() if groups["worse"] or groups["mixed"]]
    if not worse:
        unsure = sum(bool(groups["maybe worse"]) for groups in models.values())
        more = f"; {unsure} may have" if unsure else ""
        return f"Compared with {dense}, none of {len(models)} pruned models was found to get worse{more}."
    lost = [name for groups in models.values() for name in (*groups["worse"], *groups["mixed"])]
    counts = sorted(Counter(lost).items(), key=lambda pair: -pair[1])
    where = [f"{_title(name)} ({count})" for name, count in counts]
    many = "all" if len(worse) == len(models) else f"{len(worse)} of"
    return f"Compared with {dense}, {many} {len(models)} pruned models got worse beyond chance in: {_joined(where)}."


def _title(instrument: str) -> str:
    title = property_of(instrument).title
    return title[0].lower() + title[1:]


def _titles(instruments: Sequence[str]) -> str:
    return _joined([_title(name) for name in instruments])


def _joined(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
