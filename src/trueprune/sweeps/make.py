"""The model of a cell: pruned or thinned from a copy of the dense one, then repaired."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from trueprune.jobs.common import PruneResult
from trueprune.jobs.drop import drop
from trueprune.jobs.prune import prune
from trueprune.jobs.repair import repair
from trueprune.models.load import LoadedModel
from trueprune.plans.plan import Plan
from trueprune.sweeps.bench import Bench
from trueprune.sweeps.commands import commands
from trueprune.sweeps.configs import NONE, Config
from trueprune.sweeps.keys import Known
from trueprune.sweeps.steps import repair_options, step_options

# Long lists that say which questions were seen, and what is kept elsewhere in a cell.
BULKY = ("fitted_on", "measured", "measured_sparsity_blocks", "plan", "curve")


@dataclass(frozen=True, eq=False)
class Made:
    """A model of a cell.

    **Arguments:**

    - `loaded`: the model.
    - `plan`: that it follows.
    - `record`: what its `trueprune.json` would hold.
    """

    loaded: LoadedModel
    plan: Plan
    record: Mapping[str, Any]


def make(bench: Bench, config: Config, known: Known) -> Made:
    """Make the model of a cell.

    **Arguments:**

    - `bench`: the dense model, which stays as it is.
    - `config`: what is made.
    - `known`: names the evidence.

    **Raises:** as `prune`, `drop` and `repair`.
    """
    grid = bench.job.grid
    said = commands(grid, config)
    options = {**step_options(grid, config), "command": said[0]}
    if "tokens" in config.needs:
        options["tokens"] = bench.tokens(config.seed)
    compared: Mapping[str, Any] = {}
    if config.drop is not None:
        result = drop(bench.fresh(), **options)
    else:
        evidence, compared = bench.evidence(config, known)
        result = prune(bench.fresh(), evidence=evidence, **options)
    result = _told(result, compared, known)
    if config.repair == NONE:
        return Made(result.loaded, result.plan, result.record)
    teacher = bench.loaded if config.repair == "distill" else None
    repaired = repair(result.loaded, teacher=teacher, command=said[1], **repair_options(grid, config))
    return Made(repaired.loaded, result.plan, repaired.record)


def _told(result: PruneResult, compared: Mapping[str, Any], known: Known) -> PruneResult:
    """Plan and record say what they would if this model had been made alone and saved."""
    sha256 = known.identity["weights"]
    plan = replace(result.plan, source_sha256=sha256)
    if compared:
        evidence = {**plan.evidence, "answers": compared["record"]}
        plan = replace(plan, evidence=evidence, notes=(*plan.notes, *compared["notes"]))
    record = {**result.record, "source_sha256": sha256, "plan": plan.to_json()}
    return replace(result, loaded=replace(result.loaded, record=record), plan=plan, record=record)


def slim(record: Any) -> Any:
    """A record without what is long or kept elsewhere."""
    if isinstance(record, Mapping):
        return {key: slim(value) for key, value in record.items() if key not in BULKY}
    return [slim(one) for one in record] if isinstance(record, (list, tuple)) else record
