"""Carry out a plan: block after block, observe what the score needs, zero weights, go on with the pruned block."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trueprune._support.errors import PlanError
from trueprune._support.progress import track
from trueprune.edits.masks import check_divides
from trueprune.edits.registry import find_edit
from trueprune.edits.rule import EditOptions, EditRule, Target
from trueprune.models.anatomy import Anatomy, Block
from trueprune.models.sites import WeightSite, check_finite
from trueprune.observe.engine import BlockStream
from trueprune.plans.plan import BlockPlan, Pattern, Plan
from trueprune.texts.tokens import TokenBatch


def check_plan(anatomy: Anatomy, plan: Plan) -> None:
    """Refuse a plan that does not fit the model, before anything is changed.

    **Raises:** `PlanError` (other number of blocks, unknown matrix, n:m that does not divide), `ModelError` (NaN).
    """
    if len(plan.blocks) != len(anatomy.blocks):
        raise PlanError(
            f"the plan has {len(plan.blocks)} blocks, the model {len(anatomy.blocks)}", "Use a plan made for this model"
        )
    for block, block_plan in zip(anatomy.blocks, plan.blocks, strict=True):
        names = {site.name for site in block.sites}
        if unknown := set(block_plan.matrices) - names:
            raise PlanError(
                f"the plan names {block.path}.{min(unknown)}, which the model has not",
                f"Its matrices are {', '.join(sorted(names)[:8])}",
            )
        for site in block.sites:
            if plan.pattern.structured:
                check_divides(site.shape[1], plan.pattern, f"{block.path}.{site.name}")
            check_finite(site, block.path)


@torch.no_grad()
def apply_plan(
    anatomy: Anatomy,
    plan: Plan,
    score: str,
    tokens: TokenBatch | None,
    *,
    options: EditOptions | None = None,
    batch_tokens: int | None = None,
) -> None:
    """Prune a model in place.

    Statistics of a block are taken with the blocks before it already pruned, as Wanda and SparseGPT do.

    **Arguments:**

    - `anatomy`: the model's parts.
    - `plan`: how sparse each block gets.
    - `score`: which weights go: `"magnitude"`, `"wanda"` or `"sparsegpt"`.
    - `tokens`: calibration tokens; not needed for magnitude.
    - `options`: constants of the edit.
    - `batch_tokens`: tokens that go through a block in one call.

    **Raises:** `PlanError`, `ModelError`. The model is unchanged if the plan does not fit it; an error in the middle
    (activations that overflow) leaves the blocks before it pruned.
    """
    rule = find_edit(score)
    options = options or EditOptions()
    check_plan(anatomy, plan)
    if rule.statistic is None:
        for block in track(anatomy.blocks, f"prune ({score})"):
            edit_block(block, plan.blocks[block.index], plan.pattern, rule, {}, options)
        return
    if tokens is None:
        raise PlanError(f"the score {score} needs calibration tokens", "Give some, or use the score magnitude")
    stream = BlockStream(anatomy, tokens, batch_tokens=batch_tokens)
    for block in stream.blocks(f"prune ({score})"):
        statistics = stream.observe(block, rule.statistic)
        edit_block(block, plan.blocks[block.index], plan.pattern, rule, statistics, options)
        stream.advance(block)


def edit_block(
    block: Block,
    block_plan: BlockPlan,
    pattern: Pattern,
    rule: EditRule,
    statistics: Mapping[str, object],
    options: EditOptions,
) -> None:
    """Apply a rule to every matrix of a block, those with one input together."""
    for sites in _by_input(block, statistics):
        targets = [_target(block_plan, site, pattern) for site in sites]
        rule.apply([site.weight_OI for site in sites], statistics.get(sites[0].name), targets, options)


def _target(block_plan: BlockPlan, site: WeightSite, pattern: Pattern) -> Target:
    sparsity = block_plan.matrices.get(site.name, block_plan.sparsity)
    if pattern.structured:
        pattern = Pattern(round(sparsity * pattern.m), pattern.m)
    return Target(sparsity, pattern)


def _by_input(block: Block, statistics: Mapping[str, object]) -> list[list[WeightSite]]:
    groups: dict[int, list[WeightSite]] = {}
    for site in block.sites:
        statistic = statistics.get(site.name)
        groups.setdefault(id(site) if statistic is None else id(statistic), []).append(site)
    return list(groups.values())


def measured_sparsity(anatomy: Anatomy) -> tuple[float, list[float]]:
    """The share of zeros in all prunable matrices, and in those of each block."""
    zeros = [sum(_zeros(site.weight_OI) for site in block.sites) for block in anatomy.blocks]
    weights = anatomy.weights
    return sum(zeros) / sum(weights), [z / w for z, w in zip(zeros, weights, strict=True)]


def _zeros(weight_OI: Tensor) -> int:
    return weight_OI.numel() - int(torch.count_nonzero(weight_OI))
