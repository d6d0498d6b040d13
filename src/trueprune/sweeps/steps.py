"""What each step of a cell is given: the options of the grid that it looks at, and no others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from trueprune.jobs.layer_choice import ranking_of
from trueprune.plans.plan import Pattern
from trueprune.repairs.healing import WAYS, HealingOptions
from trueprune.repairs.healing.options import ONLY_CONTRASTIVE
from trueprune.sweeps.configs import Config, split_method
from trueprune.sweeps.grid import Grid
from trueprune.texts.calibration import CalibrationOptions
from trueprune.texts.tasks.pools import own_tasks


def calibration_of(grid: Grid, seed: int) -> CalibrationOptions:
    """What is drawn with a seed."""
    return replace(grid.calibration, seed=seed)


def healing_of(grid: Grid, way: str, seed: int) -> HealingOptions:
    """The options of healing that a way looks at: several ways in one grid share a table."""
    plain = HealingOptions()
    names = () if way == "contrastive" else ONLY_CONTRASTIVE
    if way == "contrastive":
        names += ("margin",) if grid.healing.loss == "infonce" else ("tau",)
    if way != "distill":
        names += ("softness",)
    if grid.healing.adapt == "full":
        names += ("rank",)
    if grid.healing.chosen_by(way) not in ("prone", "random"):
        names += ("layer_share",)
    return replace(grid.healing, healing_seed=seed, **{name: getattr(plain, name) for name in names})


def step_options(grid: Grid, config: Config) -> dict[str, Any]:
    """The arguments of `prune` or `drop` beside the model, its tokens and evidence.

    **Arguments:**

    - `grid`, `config`: one cell of the grid.
    """
    common: dict[str, Any] = {"calibration": calibration_of(grid, config.seed), "batch_tokens": grid.batch_tokens}
    answers = {
        "hallucination": grid.hallucination,
        "asking": grid.asking,
        "contrast": replace(grid.contrast, seed=config.seed),
    }
    if config.drop is not None:
        _, ranking = ranking_of(config.drop)
        scored = {"scoring": grid.scoring, "zero": grid.zero} if ranking.scored else {}
        return {"choice": config.drop, **scored, **(answers if ranking.answers else {}), **common}
    method, score = split_method(config.method)
    shape = Pattern.parse(str(config.pattern))
    _, used = config.rule
    edit = grid.edit
    if used == "sparsegpt" or shape.structured:
        edit = replace(edit, variant=False, group=None)
    return {
        "method": method,
        "score": score,
        "pattern": str(config.pattern),
        "sparsity": None if shape.structured else config.sparsity,
        "allocation": grid.allocation,
        "edit": edit,
        **(answers if "eavss" in config.needs else {}),
        **common,
    }


def repair_options(grid: Grid, config: Config) -> dict[str, Any]:
    """The arguments of `repair` beside the models."""
    if config.repair in WAYS:
        plain = CalibrationOptions()
        # Healing has sizes of its own.
        texts = replace(calibration_of(grid, config.seed), nsamples=plain.nsamples, seqlen=plain.seqlen)
        healing = healing_of(grid, config.repair, config.seed)
        observed = healing.chosen_by(config.repair) in ("prone", "random")
        asking = {"asking": grid.asking} if healing.pairs or observed else {}
        return {"using": config.repair, "healing": healing, "calibration": texts, **asking}
    tasks = tuple(own_tasks(grid.answering.tasks))
    return {"using": config.repair, "answering": replace(grid.answering, tasks=tasks)}
