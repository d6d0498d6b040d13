"""Which blocks a healing trains, and the answers that it looks at for that and trains on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trueprune._support.errors import RepairError
from trueprune.jobs.hallucination import Comparison, HallucinationOptions, collect_answers
from trueprune.models.anatomy import Anatomy
from trueprune.models.load import LoadedModel
from trueprune.plans.eavss import EavssOptions, prone_layers
from trueprune.repairs.healing import HealingOptions
from trueprune.texts.qa import JudgedAnswer, QaOptions


@dataclass(frozen=True, eq=False)
class Chosen:
    """The blocks that are trained.

    **Arguments:**

    - `layers`: from 0.
    - `by`: `prone`, `random`, `all` or `listed`.
    - `answers`: right and wrong ones to questions that no audit asks; empty where nothing looks at any.
    - `fitted_on`: hashes of these questions by set.
    - `found`: EAVSS of all blocks and the prone ones, where they were observed.
    """

    layers: tuple[int, ...]
    by: str
    answers: tuple[JudgedAnswer, ...] = ()
    fitted_on: Mapping[str, list[str]] = field(default_factory=dict)
    found: Mapping[str, Any] = field(default_factory=dict)


def wanted_layers(way: str, options: HealingOptions, n_blocks: int) -> tuple[str, tuple[int, ...]]:
    """How blocks are chosen, and which, where that is known before anything is observed.

    **Raises:** `RepairError` for a list that is none, or names a block that is not there.
    """
    wanted = options.chosen_by(way)
    if wanted in ("prone", "random"):
        return wanted, ()
    if wanted == "all":
        return wanted, tuple(range(n_blocks))
    try:
        layers = sorted({int(part) for part in wanted.replace(",", " ").split()})
    except ValueError:
        layers = []
    if not layers or not 0 <= layers[0] <= layers[-1] < n_blocks:
        raise RepairError(
            f"--layers {wanted} names no blocks of this model, which has {n_blocks}",
            f"Use prone, random, all, or numbers from 0 to {n_blocks - 1} such as 0,1",
        )
    return "listed", tuple(layers)


def choose_layers(
    loaded: LoadedModel,
    anatomy: Anatomy,
    way: str,
    options: HealingOptions,
    asking: QaOptions,
    known: Mapping[str, Any] | None = None,
) -> Chosen:
    """Choose the blocks, by EAVSS on right and wrong answers if that is asked for.

    The random ones are drawn from those that are not prone, as long as there are enough: a control that trains the same
    blocks would show nothing.

    **Arguments:**

    - `loaded`, `anatomy`: the model.
    - `way`, `options`: of the healing.
    - `asking`: the questions.
    - `known`: what was chosen before a run was cut off, as `{"layers", "found"}`; nothing is then observed.

    **Raises:** `RepairError`; `PlanError`, `TextError` where EAVSS is undefined.
    """
    by, layers = wanted_layers(way, options, len(anatomy.blocks))
    if layers or known:
        found: Mapping[str, Any] = known["found"] if known else {}
        layers = tuple(known["layers"]) if known else layers
        if not options.pairs:
            fitted_on = found.get("fitted_on", {})
            return Chosen(layers, by, (), fitted_on, found)
        collected = collect_answers(loaded, HallucinationOptions(), asking)
        return Chosen(layers, by, collected.answers, collected.record["fitted_on"], found)
    comparison = Comparison(loaded, HallucinationOptions(), asking, EavssOptions())
    result = comparison.score(anatomy)
    prone = prone_layers(result, options.layer_share)
    fitted_on = comparison.record["fitted_on"]
    found = {"eavss": result.score_L.tolist(), "prone": list(prone), "fitted_on": fitted_on}
    layers = tuple(prone) if by == "prone" else _others(prone, len(anatomy.blocks), options.healing_seed)
    answers = comparison.collected.answers if options.pairs else ()
    return Chosen(layers, by, answers, fitted_on, found)


def _others(prone: list[int], n_blocks: int, seed: int) -> tuple[int, ...]:
    """As many random blocks, none of them prone if that leaves enough."""
    others = [index for index in range(n_blocks) if index not in prone]
    pool = others if len(others) >= len(prone) else list(range(n_blocks))
    picked = np.random.default_rng(seed).choice(len(pool), size=len(prone), replace=False)
    return tuple(sorted(pool[i] for i in picked))
