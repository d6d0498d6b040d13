"""The job `prune`: observe, plan, edit, save."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from trueprune._support.environment import peak_memory_bytes, versions
from trueprune._support.errors import PlanError
from trueprune._support.folders import check_output
from trueprune._support.hashing import hash_model
from trueprune.edits.drop import apply_drop, check_drop
from trueprune.edits.prune import apply_plan, check_plan, measured_sparsity
from trueprune.edits.registry import find_edit
from trueprune.edits.rule import EditOptions
from trueprune.jobs.common import (
    LoadOptions,
    PruneResult,
    as_loaded,
    calibration_record,
    gather_evidence,
    plan_before,
)
from trueprune.jobs.hallucination import Comparison, HallucinationOptions, check_answers, refuse_idle_answers
from trueprune.models.anatomy import Anatomy, read_anatomy
from trueprune.models.load import LoadedModel
from trueprune.models.record import history_of
from trueprune.models.save import save
from trueprune.plans.eavss import EavssOptions
from trueprune.plans.evidence import AllocationOptions, Evidence
from trueprune.plans.join import joined, steps_of
from trueprune.plans.make import check_sparsity, make_plan
from trueprune.plans.plan import Pattern, Plan, check_made_for, read_plan
from trueprune.plans.registry import ALLOCATIONS, resolve_method
from trueprune.plans.tplo import check_pivot
from trueprune.texts.calibration import CalibrationOptions, calibration_tokens
from trueprune.texts.qa import QaOptions
from trueprune.texts.tokens import TokenBatch


def prune(
    model: str | Path | LoadedModel,
    output: str | Path | None = None,
    *,
    method: str = "tplo",
    score: str | None = None,
    sparsity: float | None = None,
    pattern: str = "unstructured",
    plan: str | Path | Plan | None = None,
    calibration: CalibrationOptions = CalibrationOptions(),
    allocation: AllocationOptions = AllocationOptions(),
    hallucination: HallucinationOptions = HallucinationOptions(),
    asking: QaOptions = QaOptions(),
    contrast: EavssOptions = EavssOptions(),
    edit: EditOptions = EditOptions(),
    loading: LoadOptions = LoadOptions(),
    batch_tokens: int | None = None,
    overwrite: bool = False,
    tokens: TokenBatch | None = None,
    evidence: Evidence | None = None,
    free_memory: bool = False,
    command: str | None = None,
) -> PruneResult:
    """Prune a causal language model and save it.

    **Arguments:**

    - `model`: `demo`, a checkpoint folder, a GGUF file or a hub id (in Python also a loaded model, pruned in place).
    - `output`: the folder to make.
    - `method`: `magnitude`, `wanda`, `sparsegpt` (uniform), `owl`, `swl`, `tplo`, `eavss` (Wanda's score by default).
    - `score`: which weights go, for any method that says how many: `magnitude`, `wanda` or `sparsegpt`.
    - `sparsity`: target share of zeros, in [0, 1); 0.5 by default, n/m under n:m.
    - `pattern`: `unstructured`, or `n:m` with n zeros in every m weights of a row, e.g. `2:4`. OWL, SWL and TPLO then
        give blocks different n.
    - `plan`: a plan file (or a `trueprune.json`) that says how sparse each block gets, instead of the method's rule;
        layers that it drops go as well, in its order.
    - `calibration`: what the model is calibrated on.
    - `allocation`: constants of OWL, SWL, TPLO and `eavss`.
    - `hallucination`: which true and hallucinated answers `eavss` compares.
    - `asking`: which questions they answer.
    - `contrast`: how EAVSS is taken.
    - `edit`: constants of the scores.
    - `loading`: how the model is loaded.
    - `batch_tokens`: tokens that go through a block in one call (1,024 on a CPU, 8,192 on an accelerator).
    - `overwrite`: replace the output folder if it exists.
    - `tokens`: calibration token ids instead of `calibration`.
    - `evidence`: what an earlier run observed on the same dense model, instead of observing it again.
    - `free_memory`: give up the model in memory once it is saved, so that checking the saved one needs no second copy.
    - `command`: recorded in `trueprune.json`.

    **Returns:** a `PruneResult`.

    **Raises:** `TruepruneError` (see its subclasses); nothing is then written. A loaded model is unchanged if the plan,
    the options or the texts are refused, and partly pruned after a later error.
    """
    started = time.perf_counter()
    ready = _read_plan(plan)
    asked = score
    method, rule, score = resolve_method(method, score)
    shape = Pattern.parse(pattern)
    target = target_sparsity(sparsity, shape)
    if ready is not None and ready.score:
        if asked is not None and asked != ready.score:
            raise PlanError(
                f"--score {asked} contradicts the plan, whose score is {ready.score}",
                "Leave --score out, or edit the plan",
            )
        score = ready.score
    if ready is not None:
        _refuse_contradiction(ready, sparsity, pattern)
        # The plan says how sparse each block gets, whatever the method's own rule would say.
        method = score if ready.method == "uniform" else ready.method
    find_edit(score)
    _refuse_idle_options(score, ready.pattern if ready else shape, edit)
    if ready is not None or "eavss" not in ALLOCATIONS[rule].needs:
        refuse_idle_answers("--plan" if ready else f"--method {method}", hallucination, asking, contrast)
    if output is not None:
        check_output(Path(output), overwrite, [] if isinstance(model, LoadedModel) else [model])
    loaded = as_loaded(model, loading)
    anatomy = read_anatomy(loaded.model)
    before = plan_before(loaded, anatomy)
    source_hash = hash_model(loaded.model) if output is not None or (ready and ready.source_sha256) else ""
    steps = ("prune",)
    if ready is not None:
        steps = _check_ready(ready, anatomy, before, source_hash)
    else:
        check_plan(anatomy, make_plan("uniform", Evidence(tuple(anatomy.weights)), target, pattern=shape))
    # Before anything slow is observed.
    check_pivot(allocation, len(anatomy.blocks))
    needs = () if ready else ALLOCATIONS[rule].needs
    if "eavss" in needs and evidence is None:
        check_answers(hallucination)
    if tokens is None and (find_edit(score).statistic is not None or "outliers" in needs):
        tokens = calibration_tokens(loaded, calibration)
    at_start = time.perf_counter()
    if ready is None:
        comparison: Comparison | None = None
        if evidence is None:
            evidence, _ = gather_evidence(
                loaded,
                anatomy,
                needs,
                tokens,
                calibration=calibration,
                allocation=allocation,
                batch_tokens=batch_tokens,
            )
            if "eavss" in needs:
                comparison = Comparison(loaded, hallucination, asking, contrast, batch_tokens=batch_tokens)
                evidence = replace(evidence, eavss=tuple(comparison.score(anatomy).score_L.tolist()))
        ready = make_plan(rule, evidence, target, pattern=shape, options=allocation, score=score)
        if "separation" in needs:
            # Kept in the plan, which may be carried out again: an audit must know which statements chose it.
            chosen = {"statements": calibration.statements, "selection": calibration.selection}
            ready = replace(ready, evidence={**ready.evidence, **chosen})
        if comparison is not None:
            answers = {"answers": comparison.record}
            ready = replace(ready, evidence={**ready.evidence, **answers}, notes=(*ready.notes, *comparison.notes))
    observed = time.perf_counter()
    for step in steps:
        if step == "drop" and ready.drop is not None:
            anatomy = apply_drop(anatomy, ready.drop)
        else:
            apply_plan(anatomy, ready, score, tokens, options=edit, batch_tokens=batch_tokens)
    edited = time.perf_counter()
    made = replace(ready, score=score, source_sha256=source_hash)
    made = replace(made, order=steps) if made.drop is not None else joined(before, "prune", made)
    total, per_block = measured_sparsity(anatomy)
    record = {
        "schema": 1,
        "command": command,
        "source": loaded.source,
        "source_sha256": source_hash,
        "method": method,
        "plan": made.to_json(),
        "edit": vars(edit),
        "seed": calibration.seed,
        "calibration": calibration_record(tokens, calibration),
        "measured_sparsity": total,
        "measured_sparsity_blocks": per_block,
        "versions": versions(),
        "wall_seconds": {
            "observe": round(observed - at_start, 3),
            "edit": round(edited - observed, 3),
            "total": round(time.perf_counter() - started, 3),
        },
        "peak_memory_bytes": peak_memory_bytes(),
        "history": history_of(loaded.record),
    }
    loaded = replace(loaded, record=record)
    if output is not None:
        output = save(loaded, output, record=record, overwrite=overwrite, free_memory=free_memory)
    return PruneResult(loaded, made, record, output)


def _check_ready(plan: Plan, anatomy: Anatomy, before: Plan | None, source_hash: str) -> tuple[str, ...]:
    """Refuse a plan file that does not fit the model; its steps in order."""
    check_made_for(plan, source_hash)
    steps = steps_of(plan)
    if "prune" not in steps:
        raise PlanError("the plan prunes no weights", "Give it blocks, or use it with trueprune drop --by FILE")
    if plan.drop is None:
        check_plan(anatomy, plan)
        return steps
    if before is not None:
        raise PlanError("the plan drops layers, and this model was changed before", "Use it on the whole model")
    check_drop(anatomy, plan.drop)
    left = anatomy
    if steps[0] == "drop":
        left = replace(anatomy, blocks=tuple(anatomy.blocks[i] for i in plan.drop.kept))
    check_plan(left, plan)
    return steps


def target_sparsity(sparsity: float | None, pattern: Pattern) -> float:
    """The target: as given, n/m under n:m, 0.5 otherwise.

    **Raises:** `PlanError` outside [0, 1), or if the sparsity contradicts n:m.
    """
    implied = pattern.n / pattern.m if pattern.structured else None
    if sparsity is None:
        return 0.5 if implied is None else implied
    check_sparsity(sparsity)
    if implied is not None and abs(sparsity - implied) > 1e-9:
        raise PlanError(
            f"--sparsity {sparsity} contradicts --pattern {pattern}, which zeroes {implied}", "Leave --sparsity out"
        )
    return sparsity


def _refuse_idle_options(score: str, pattern: Pattern, edit: EditOptions) -> None:
    """Refuse an option that this score and pattern would not look at."""
    if edit.variant and (score == "sparsegpt" or pattern.structured):
        raise PlanError(f"--variant has no meaning for {score} with {pattern}", "Use it with wanda, unstructured")
    if edit.group and (score == "sparsegpt" or pattern.structured or edit.variant):
        raise PlanError(f"--group has no meaning for {score} with {pattern}", "Leave it out")


def _refuse_contradiction(plan: Plan, sparsity: float | None, pattern: str) -> None:
    """A plan has a sparsity and a pattern of its own: other ones beside it would be ignored."""
    if sparsity is not None and abs(sparsity - plan.sparsity) > 1e-9:
        raise PlanError(f"--sparsity {sparsity} contradicts the plan, whose target is {plan.sparsity}", "Leave it out")
    if pattern not in ("unstructured", str(plan.pattern)):
        raise PlanError(f"--pattern {pattern} contradicts the plan, whose pattern is {plan.pattern}", "Leave it out")


def _read_plan(plan: str | Path | Plan | None) -> Plan | None:
    return plan if plan is None or isinstance(plan, Plan) else read_plan(plan)
