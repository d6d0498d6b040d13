"""The job `drop`: observe, rank, take layers away, save."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trueprune._support.environment import peak_memory_bytes, versions
from trueprune._support.errors import PlanError
from trueprune._support.folders import check_output
from trueprune._support.hashing import hash_model
from trueprune.edits.drop import apply_drop, check_can_lose, complete, present
from trueprune.edits.prune import measured_sparsity
from trueprune.jobs.common import LoadOptions, PruneResult, as_loaded, calibration_record, plan_before
from trueprune.models.anatomy import Anatomy, read_anatomy
from trueprune.models.load import LoadedModel
from trueprune.models.record import history_of
from trueprune.models.save import save
from trueprune.observe.dense import observe_blocks
from trueprune.observe.moments import NearZero
from trueprune.plans.avss import AvssOptions
from trueprune.plans.choose import (
    KINDS,
    Unit,
    by_mass,
    by_rank,
    candidates,
    consecutive_blocks,
    how_many,
    importance_of,
)
from trueprune.plans.drop import Drop, Rule, Schedule, What
from trueprune.plans.drop_file import DropFile, read_drop_file
from trueprune.plans.join import joined
from trueprune.plans.plan import Plan, check_made_for
from trueprune.plans.rankings import LayerEvidence, Ranking, find_ranking
from trueprune.texts.calibration import CalibrationOptions, calibration_tokens
from trueprune.texts.tokens import TokenBatch


@dataclass(frozen=True)
class DropOptions:
    """What goes, and in which way it is chosen.

    **Arguments:**

    - `what`: `block`, `attention`, `mlp`, or `joint` (attention and MLPs, compared with each other).
    - `by`: what says how much a layer matters: `avss`, `block-influence` or `cosine` (one minus the cosine between the
        stream before and after, at all tokens), `angular` (the angle, at last tokens), `random`, `first`, `last`, or a
        JSON file (a plan, lists of blocks, or scores). What matters least goes.
    - `fraction`: drop this share of what there is, rounded down; 0.25 unless `--count` is given.
    - `count`: drop so many.
    - `schedule`: `one-shot`, or `iterative`: drop one, observe again, and so on.
    - `rule`: `rank` drops a share of the layers; `mass` the least important that hold a share of all importance.
    - `consecutive`: drop blocks that follow each other.
    """

    what: What = "attention"
    by: str = "cosine"
    fraction: float | None = None
    count: int | None = None
    schedule: Schedule = "one-shot"
    rule: Rule = "rank"
    consecutive: bool = False


def drop(
    model: str | Path | LoadedModel,
    output: str | Path | None = None,
    *,
    choice: DropOptions = DropOptions(),
    scoring: AvssOptions = AvssOptions(),
    zero: NearZero = NearZero(),
    calibration: CalibrationOptions = CalibrationOptions(),
    loading: LoadOptions = LoadOptions(),
    batch_tokens: int | None = None,
    overwrite: bool = False,
    tokens: TokenBatch | None = None,
    free_memory: bool = False,
    command: str | None = None,
) -> PruneResult:
    """Take whole layers away and save what is left.

    A model without some blocks is an ordinary checkpoint that any engine runs faster. A model without some attention or
    MLP sublayers loads with `trueprune.load`, and with transformers through the small file in its folder;
    `trueprune export` writes it for other engines.

    **Arguments:**

    - `model`: `demo`, a checkpoint folder, a GGUF file or a hub id (in Python also a loaded model, changed in place).
    - `output`: the folder to make.
    - `choice`: what goes.
    - `scoring`: how AVSS is taken.
    - `zero`: when an activation counts as zero (AVSS).
    - `calibration`: the texts on which layers are observed.
    - `loading`: how the model is loaded.
    - `batch_tokens`: tokens that go through a block in one call (1,024 on a CPU, 8,192 on an accelerator).
    - `overwrite`: replace the output folder if it exists.
    - `tokens`: calibration token ids instead of `calibration`.
    - `free_memory`: give up the model in memory once it is saved, so that checking the saved one needs no second copy.
    - `command`: recorded in `trueprune.json`.

    **Returns:** a `PruneResult`.

    **Raises:** `TruepruneError` (see its subclasses); nothing is then written. A loaded model is unchanged if the
    options are refused; an iterative drop that fails later leaves it with some layers gone.
    """
    started = time.perf_counter()
    file, ranking = _ranking(choice)
    _refuse_idle(choice, file, ranking)
    if output is not None:
        check_output(Path(output), overwrite, [] if isinstance(model, LoadedModel) else [model])
    loaded = as_loaded(model, loading)
    anatomy = read_anatomy(loaded.model)
    check_can_lose(anatomy, KINDS[choice.what] if file is None or file.listed is None else ())
    before = plan_before(loaded, anatomy)
    source_hash = hash_model(loaded.model) if output is not None or (file and file.source_sha256) else ""
    if file is not None:
        check_made_for(Plan("file", 0.0, source_sha256=file.source_sha256), source_hash)
    parameters = sum(p.numel() for p in loaded.model.parameters())
    if file is not None and file.listed is not None:
        dropped = complete(anatomy, Drop.from_json(file.listed, len(anatomy.blocks)))
        left = apply_drop(anatomy, dropped)
    else:
        count = how_many(len(candidates(choice.what, present(anatomy))), choice.fraction, choice.count, choice.what)
        if tokens is None and ranking.observes:
            tokens = calibration_tokens(loaded, calibration)
        chooser = _Chooser(choice, ranking, scoring, zero, tokens, calibration.seed, batch_tokens)
        left, dropped = (
            chooser.iterative(anatomy, count) if choice.schedule == "iterative" else chooser.once(anatomy, count)
        )
    plan = joined(before, "drop", Plan("drop", 0.0, drop=dropped, source_sha256=source_hash))
    total, per_block = measured_sparsity(left)
    record = {
        "schema": 1,
        "command": command,
        "source": loaded.source,
        "source_sha256": source_hash,
        "method": f"drop-{dropped.what or 'file'}",
        "plan": plan.to_json(),
        "scoring": {**vars(scoring), **vars(zero)},
        "seed": calibration.seed,
        "calibration": calibration_record(tokens, calibration),
        "parameters": {"before": parameters, "after": sum(p.numel() for p in loaded.model.parameters())},
        "measured_sparsity": total,
        "measured_sparsity_blocks": per_block,
        "versions": versions(),
        "wall_seconds": {"total": round(time.perf_counter() - started, 3)},
        "peak_memory_bytes": peak_memory_bytes(),
        "history": history_of(loaded.record),
    }
    loaded = replace(loaded, record=record)
    if output is not None:
        output = save(loaded, output, record=record, overwrite=overwrite, free_memory=free_memory)
    return PruneResult(loaded, plan, record, output)


@dataclass(frozen=True, eq=False)
class _Chooser:
    choice: DropOptions
    ranking: Ranking
    scoring: AvssOptions
    zero: NearZero
    tokens: TokenBatch | None
    seed: int
    batch_tokens: int | None

    def once(self, anatomy: Anatomy, count: int) -> tuple[Anatomy, Drop]:
        """Observe once, drop all at once."""
        units = candidates(self.choice.what, present(anatomy))
        gap = count if self.choice.consecutive and self.ranking.gap else None
        evidence = self._observe(anatomy, gap, "observe layers")
        importance_K = importance_of(units, self.ranking, evidence)
        if self.choice.consecutive:
            going = consecutive_blocks(self.ranking, evidence, count)
        elif self.choice.rule == "mass":
            going = by_mass(importance_K, 0.25 if self.choice.fraction is None else self.choice.fraction)
            how_many(len(units), None, len(going), self.choice.what)
        else:
            going = by_rank(importance_K, count)
        dropped = complete(anatomy, self._drop(anatomy, units, importance_K, going))
        return apply_drop(anatomy, dropped), dropped

    def iterative(self, anatomy: Anatomy, count: int) -> tuple[Anatomy, Drop]:
        """Drop one at a time, and observe what is left before the next."""
        total: Drop | None = None
        for number in range(count):
            units = candidates(self.choice.what, present(anatomy))
            evidence = self._observe(anatomy, None, f"observe layers, round {number + 1} of {count}")
            importance_K = importance_of(units, self.ranking, evidence)
            # With attention and MLPs together, the last attention is left alone.
            order = [i for i in by_rank(importance_K, len(units)) if not _last_of_its_kind(units, i)]
            step = complete(anatomy, self._drop(anatomy, units, importance_K, order[:1]))
            anatomy = apply_drop(anatomy, step)
            total = step.after(total)
        assert total is not None
        return anatomy, total

    def _observe(self, anatomy: Anatomy, gap: int | None, description: str) -> LayerEvidence:
        profile = None
        if self.ranking.observes:
            assert self.tokens is not None
            _, profile = observe_blocks(
                anatomy,
                self.tokens,
                zero=self.zero,
                gap=gap,
                batch_tokens=self.batch_tokens,
                description=description,
            )
        return LayerEvidence(len(anatomy.blocks), profile, self.scoring, self.seed)

    def _drop(self, anatomy: Anatomy, units: list[Unit], importance_K: np.ndarray, going: list[int]) -> Drop:
        gone = [units[i] for i in going]
        by_kind = {
            kind: tuple(sorted(index for k, index in gone if k == kind)) for kind in ("block", "attention", "mlp")
        }
        found = {
            "candidates": [f"{kind} {index}" for kind, index in units],
            "importance": [float(value) for value in importance_K],
            "dropped": [f"{kind} {index}" for kind, index in gone],
        }
        return Drop(
            len(anatomy.blocks),
            blocks=by_kind["block"],
            attention=by_kind["attention"],
            mlp=by_kind["mlp"],
            what=self.choice.what,
            by=str(self.choice.by),
            schedule=self.choice.schedule,
            rule=self.choice.rule,
            consecutive=self.choice.consecutive,
            rounds=(found,),
        )


def _last_of_its_kind(units: list[Unit], i: int) -> bool:
    return sum(kind == units[i][0] for kind, _ in units) == 1


def _ranking(choice: DropOptions) -> tuple[DropFile | None, Ranking]:
    """The file that `by` names, if it names one, and the ranking."""
    if choice.what not in KINDS:
        raise PlanError(f"cannot drop {choice.what!r}", f"Use one of {', '.join(KINDS)}")
    if not (str(choice.by).endswith(".json") or Path(choice.by).is_file()):
        return None, find_ranking(str(choice.by))
    file = read_drop_file(choice.by)
    return file, file.ranking()


def _refuse_idle(choice: DropOptions, file: DropFile | None, ranking: Ranking) -> None:
    """Refuse options that contradict each other, or that nothing would look at."""
    if file is not None and file.listed is not None:
        if choice != DropOptions(what=choice.what, by=choice.by):
            raise PlanError(f"{choice.by} says what to drop", "Leave out what else you gave")
        return
    if choice.schedule not in ("one-shot", "iterative"):
        raise PlanError(f"unknown schedule {choice.schedule!r}", "Use one-shot or iterative")
    if choice.rule not in ("rank", "mass"):
        raise PlanError(f"unknown rule {choice.rule!r}", "Use rank or mass")
    if choice.schedule == "iterative" and not ranking.observes:
        raise PlanError(f"--schedule iterative observes again, and --by {choice.by} observes nothing", "Leave it out")
    if choice.rule == "mass" and (choice.count is not None or choice.schedule == "iterative" or choice.consecutive):
        raise PlanError("--rule mass takes a --fraction of the importance, at once", "Leave out what else you gave")
    if choice.rule == "mass" and not ranking.observes and file is None:
        raise PlanError(f"--rule mass needs scores, and --by {choice.by} only has an order", "Use --rule rank")
    if choice.consecutive and (choice.what != "block" or choice.schedule == "iterative"):
        raise PlanError("--consecutive drops blocks, at once", "Use it with --what block --schedule one-shot")
