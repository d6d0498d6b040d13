"""What a gate asks and what it answers: plain data, read by pipelines, reports and sweeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["pass", "fail", "inconclusive"]
Counts = Literal["fail", "pass"]
Quantity = Literal["value", "change", "ratio"]


@dataclass(frozen=True)
class Check:
    """One bound.

    **Arguments:**

    - `instrument`: e.g. `lie-detection`.
    - `metric`: a metric of it; `*` stands for anything (`accuracy/*`), and every metric that matches is held.
    - `quantity`: what is bounded: the pruned model's `value`, its paired `change` (pruned minus dense), or its paired
        `ratio` (pruned over dense).
    - `at_least`, `at_most`: the bounds; one may be `None`.
    - `reason`: why, in a sentence.
    - `inconclusive`: how an interval that straddles the bound counts; `None`: as the gate says.
    """

    instrument: str
    metric: str
    quantity: Quantity
    at_least: float | None = None
    at_most: float | None = None
    reason: str = ""
    inconclusive: Counts | None = None


@dataclass(frozen=True)
class Gate:
    """Bounds that a pruned model must keep.

    **Arguments:**

    - `name`: of the file or the profile.
    - `checks`: at least one.
    - `inconclusive`: how an interval that straddles a bound counts.
    """

    name: str
    checks: Sequence[Check]
    inconclusive: Counts = "fail"

    @property
    def instruments(self) -> tuple[str, ...]:
        """What must be measured."""
        return tuple(dict.fromkeys(check.instrument for check in self.checks))


@dataclass(frozen=True)
class Outcome:
    """What became of one bound on one metric of one model.

    **Arguments:**

    - `model`, `metric`: of what.
    - `check`: the bound.
    - `status`: `pass` where the whole interval keeps the bound, `fail` where none of it does, else `inconclusive`.
    - `passed`: how it counts.
    - `value`, `interval`, `n`: of the quantity that is bounded; NaN and 0 items where it is undefined.
    - `needed`: where inconclusive, about how many items would decide it if the value stays; `None` if none could.
    - `note`: what else there is to know, in a sentence: why it is undefined, or that it rests on very few items.
    """

    model: str
    metric: str
    check: Check
    status: Status
    passed: bool
    value: float
    interval: tuple[float, float]
    n: int
    needed: int | None = None
    note: str = ""

    @property
    def undefined(self) -> bool:
        """Whether there is no number to hold against the bound."""
        return not math.isfinite(self.value)

    def to_json(self) -> dict[str, Any]:
        """Plain data; `None` for what is undefined."""
        value, low, high = (x if math.isfinite(x) else None for x in (self.value, *self.interval))
        return {**asdict(self), "value": value, "interval": [low, high]}


@dataclass(frozen=True)
class Verdict:
    """What a gate says of an audit.

    **Arguments:**

    - `gate`: the gate.
    - `outcomes`: one a model, check and metric.
    """

    gate: Gate
    outcomes: Sequence[Outcome]

    @property
    def models(self) -> tuple[str, ...]:
        """The models that were judged."""
        return tuple(dict.fromkeys(outcome.model for outcome in self.outcomes))

    def of(self, model: str) -> list[Outcome]:
        """What became of the bounds on one model."""
        return [outcome for outcome in self.outcomes if outcome.model == model]

    def passed(self, model: str | None = None) -> bool:
        """Whether one model keeps every bound, or all models do."""
        if model is not None and model not in self.models:
            raise KeyError(f"the gate {self.gate.name} did not judge {model!r}")
        return all(outcome.passed for outcome in (self.outcomes if model is None else self.of(model)))

    def to_json(self) -> dict[str, Any]:
        """Plain data: the gate's name, whether all models pass, a sentence, and by model what became of each bound."""
        # Its words are about verdicts, and this file is what they import.
        from trueprune.reports.gates.words import sentence

        models = {
            name: {"passed": self.passed(name), "outcomes": [outcome.to_json() for outcome in self.of(name)]}
            for name in self.models
        }
        return {"gate": self.gate.name, "passed": self.passed(), "sentence": sentence(self), "models": models}
