"""Truthfulness by multiple choice: does the model find right answers likelier than tempting wrong ones?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trueprune.audits.measurement import Measurement
from trueprune.audits.qa.choices import Choices

INSTRUMENT = "truthfulness"
HEADLINE = ("mc1", "mc2")


def truthfulness_of(set_name: str, choices: Sequence[Choices]) -> list[Measurement]:
    """Metrics of one model on one set.

    **Arguments:**

    - `set_name`: of the set.
    - `choices`: the scores of its answers.

    **Returns:** `mc0/SET`, `mc1/SET`, `mc2/SET` and `mc3/SET`, as `multiple_choice` defines them, each with what
    ignorance would give (`chance`) in its `details`.
    """
    values = [one.metrics() for one in choices]
    indifferent = [_indifferent(one) for one in choices]
    return [
        Measurement(
            INSTRUMENT,
            f"{name}/{set_name}",
            tuple(one.item for one in choices),
            np.array([row[name] for row in values]),
            clusters=tuple(one.cluster for one in choices),
            headline=name in HEADLINE,
            details={"chance": float(np.mean([row[name] for row in indifferent]))},
        )
        for name in ("mc0", "mc1", "mc2", "mc3")
    ]


def _indifferent(one: Choices) -> dict[str, float]:
    """Each metric where scores say nothing: all orders of the answers are equally likely, for MC2 the answers are."""
    right, wrong = len(one.right), len(one.wrong)
    return {"mc0": 0.5, "mc1": 1 / len(one.one), "mc2": right / (right + wrong), "mc3": 1 / (1 + wrong)}
