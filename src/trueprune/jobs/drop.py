"""The job `drop`: observe, rank, take layers away, save."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from trueprune._support.environment import peak_memory_bytes, versions
from trueprune._support.folders import check_output
from trueprune._support.hashing import hash_model
from trueprune.edits.drop import apply_drop, check_can_lose, complete
from trueprune.edits.prune import measured_sparsity
from trueprune.jobs.common import LoadOptions, PruneResult, as_loaded, calibration_record, plan_before
from trueprune.jobs.hallucination import Comparison, HallucinationOptions, check_answers, refuse_idle_answers
from trueprune.jobs.layer_choice import DropOptions, LayerChooser, ranking_of, refuse_idle
from trueprune.models.anatomy import read_anatomy
from trueprune.models.load import LoadedModel
from trueprune.models.record import history_of
from trueprune.models.save import save
from trueprune.observe.moments import NearZero
from trueprune.plans.avss import AvssOptions, check_site
from trueprune.plans.choose import KINDS
from trueprune.plans.drop import Drop
from trueprune.plans.eavss import EavssOptions
from trueprune.plans.join import joined
from trueprune.plans.plan import Plan, check_made_for
from trueprune.texts.calibration import CalibrationOptions, calibration_tokens
from trueprune.texts.qa import QaOptions
from trueprune.texts.tokens import TokenBatch


def drop(
    model: str | Path | LoadedModel,
    output: str | Path | None = None,
    *,
    choice: DropOptions = DropOptions(),
    scoring: AvssOptions = AvssOptions(),
    zero: NearZero = NearZero(),
    hallucination: HallucinationOptions = HallucinationOptions(),
    asking: QaOptions = QaOptions(),
    contrast: EavssOptions = EavssOptions(),
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
    - `choice`: what goes, a `DropOptions`.
    - `scoring`: how AVSS is taken.
    - `zero`: when an activation counts as zero (AVSS).
    - `hallucination`: which true and hallucinated answers EAVSS compares; under `--schedule iterative` the same answers
        are read again each round.
    - `asking`: which questions they answer.
    - `contrast`: how EAVSS is taken.
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
    file, ranking = ranking_of(choice)
    refuse_idle(choice, file, ranking, scoring, zero)
    if ranking.answers:
        check_answers(hallucination)
    else:
        refuse_idle_answers(f"--by {choice.by}", hallucination, asking, contrast)
    if output is not None:
        check_output(Path(output), overwrite, [] if isinstance(model, LoadedModel) else [model])
    loaded = as_loaded(model, loading)
    anatomy = read_anatomy(loaded.model)
    check_can_lose(anatomy, KINDS[choice.kind] if file is None or file.listed is None else ())
    before = plan_before(loaded, anatomy)
    source_hash = hash_model(loaded.model) if output is not None or (file and file.source_sha256) else ""
    if file is not None:
        check_made_for(Plan("file", 0.0, source_sha256=file.source_sha256), source_hash)
    parameters = sum(p.numel() for p in loaded.model.parameters())
    comparison: Comparison | None = None
    if file is not None and file.listed is not None:
        listed = Drop.from_json(file.listed, len(anatomy.blocks))
        dropped = complete(anatomy, replace(listed, by=Path(choice.by).name if listed.by == "file" else listed.by))
        left = apply_drop(anatomy, dropped)
    else:
        chooser = LayerChooser(choice, ranking, scoring, zero, tokens, calibration.seed, batch_tokens)
        chooser.check(anatomy)
        if ranking.scored:
            check_site(anatomy, scoring)
        if tokens is None and ranking.profiled:
            tokens = calibration_tokens(loaded, calibration)
        if ranking.answers:
            comparison = Comparison(loaded, hallucination, asking, contrast, batch_tokens=batch_tokens)
            chooser = replace(chooser, eavss=comparison.score)
        left, dropped = replace(chooser, tokens=tokens).run(anatomy)
    step = Plan("drop", 0.0, drop=dropped, source_sha256=source_hash)
    if comparison is not None:
        how = {**comparison.record, "first": choice.eavss_first}
        step = replace(step, evidence={"answers": how}, notes=comparison.notes)
    plan = joined(before, "drop", step)
    total, per_block = measured_sparsity(left)
    record = {
        "schema": 1,
        "command": command,
        "source": loaded.source,
        "source_sha256": source_hash,
        "method": f"drop-{dropped.what or 'file'}",
        "plan": plan.to_json(),
        "step": {"blocks": dropped.blocks, "attention": dropped.attention, "mlp": dropped.mlp},
        "scoring": {**vars(scoring), **vars(zero)} if ranking.scored else None,
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
