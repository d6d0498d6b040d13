"""The job `repair`: give a model back what pruning took, and show what that did on items it was not fitted on."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from trueprune._support.environment import peak_memory_bytes, versions
from trueprune._support.errors import RepairError
from trueprune._support.folders import check_output
from trueprune._support.hashing import hash_model
from trueprune.audits.accuracy import accuracy_of
from trueprune.audits.calibration import calibration_of
from trueprune.audits.measurement import Measurement
from trueprune.audits.predict import predict
from trueprune.audits.recalibrated import KEY, other_way, recalibrated, refuse_fitted
from trueprune.edits.prune import measured_sparsity
from trueprune.jobs.common import LoadOptions, as_loaded, plan_before
from trueprune.jobs.fit_recalibration import fit_tasks
from trueprune.jobs.heal import heal
from trueprune.jobs.repair_result import RepairResult, before_and_after, measure_prose
from trueprune.models.anatomy import read_anatomy
from trueprune.models.load import LoadedModel
from trueprune.models.record import history_of
from trueprune.models.save import save
from trueprune.repairs.fold import fold_temperature
from trueprune.repairs.healing import WAYS, HealingOptions
from trueprune.repairs.registry import RECALIBRATIONS
from trueprune.texts.calibration import CalibrationOptions
from trueprune.texts.qa import QaOptions
from trueprune.texts.tasks import ChoiceItem, find_task, questions
from trueprune.texts.tasks.questions import TaskOptions

# Enough to see how a temperature moves perplexity.
PERPLEXITY_TOKENS = 4096
RESAMPLES = 1000


QUESTIONS = TaskOptions(tasks=("facts", "sentiment", "commonsense"))


def repair(
    model: str | Path | LoadedModel,
    output: str | Path | None = None,
    *,
    using: str = "temperature",
    answering: TaskOptions = QUESTIONS,
    teacher: str | Path | LoadedModel | None = None,
    healing: HealingOptions = HealingOptions(),
    asking: QaOptions = QaOptions(),
    calibration: CalibrationOptions = CalibrationOptions(),
    loading: LoadOptions = LoadOptions(),
    overwrite: bool = False,
    free_memory: bool = False,
    command: str | None = None,
) -> RepairResult:
    """Give a model back what pruning took: recalibrate it, or heal it by training.

    A recalibration makes its confidence match how often it is right. It is fitted on items that audits never ask and
    judged on items that audits do. A temperature becomes part of the weights, so that any engine serves it; the others
    are written as `recalibration.json`, which `trueprune audit` applies and `trueprune.read_recalibration` reads.

    Healing trains some blocks on texts and on answers to questions that audits never ask. Weights that are zero stay
    zero. While it runs, `OUT.healing` keeps the last evaluation: the same command goes on there after a run that was
    cut off.

    **Arguments:**

    - `model`: a checkpoint folder, `demo`, a GGUF file or a hub id (in Python also a loaded model, which a temperature
        or a healing changes in place).
    - `output`: the folder to make.
    - `using`: recalibrations: `temperature` (one number, divides all logits), `vector` (one factor and offset a class),
        `platt` (a logistic curve of the confidence) or `isotonic` (a rising step curve; wants 1,000 items). Healing:
        `contrastive` (cross-entropy, and right answers are kept apart from wrong ones inside the blocks that are
        hallucination-prone), `lora` (cross-entropy alone, the control) or `distill` (the logits of `--teacher`).
    - `answering`: the tasks that a recalibration is fitted on, and how they are asked.
    - `teacher`: the dense model that `distill` learns from: a folder, `demo`, or a hub id.
    - `healing`: what is trained, and how.
    - `asking`: the questions whose answers are trained on, from the side that audits do not ask.
    - `calibration`: the texts that are trained on.
    - `loading`: how models are loaded.
    - `overwrite`: replace the output folder if it exists.
    - `free_memory`: give up the model in memory once it is saved; it is unusable afterwards.
    - `command`: recorded in `trueprune.json`.

    **Returns:** a `RepairResult`.

    **Raises:** `TruepruneError`; no model is then written.
    """
    if using in WAYS:
        _refuse_tasks(using, answering)
        return heal(
            model,
            output,
            way=using,
            teacher=teacher,
            healing=healing,
            calibration=calibration,
            asking=asking,
            loading=loading,
            overwrite=overwrite,
            free_memory=free_memory,
            command=command,
        )
    started = time.perf_counter()
    if using not in RECALIBRATIONS:
        raise RepairError(f"there is no repair {using!r}", f"Use one of {', '.join([*RECALIBRATIONS, *WAYS])}")
    _refuse_training(using, healing, asking, calibration, teacher is not None)
    if output is not None:
        check_output(Path(output), overwrite, [] if isinstance(model, LoadedModel) else [model])
    loaded = as_loaded(model, loading)
    anatomy = read_anatomy(loaded.model)
    plan = plan_before(loaded, anatomy)
    source_hash = hash_model(loaded.model) if output is not None else ""
    judged = _questions(loaded, answering, "audit")
    for task, items in judged.items():
        refuse_fitted(loaded.source, loaded.record, task, items)
    fitted_on = _questions(loaded, answering, "fit")
    before = _measure(loaded, judged, answering)
    fitted = fit_tasks(loaded, fitted_on, using, answering)
    if (temperature := fitted.get("temperature")) is not None:
        fold_temperature(loaded.model, temperature)
    total, per_block = measured_sparsity(anatomy)
    record: dict[str, Any] = {
        "schema": 1,
        "command": command,
        "source": loaded.source,
        "source_sha256": source_hash,
        "method": f"repair-{using}",
        "plan": None if plan is None else plan.to_json(),
        KEY: {
            "method": using,
            "folded": temperature is not None,
            **fitted,
            "scoring": answering.scoring,
            "answers": answering.answers,
            "correct": answering.correct,
            "chat": answering.chat,
            "shots": answering.shots,
            "fitted_on": {task: [item.sha256 for item in items] for task, items in fitted_on.items()},
        },
        "measured_sparsity": total,
        "measured_sparsity_blocks": per_block,
        "versions": versions(),
        "history": history_of(loaded.record),
    }
    loaded = replace(loaded, record=record)
    report = before_and_after(before, _measure(loaded, judged, answering), loaded.source, RESAMPLES)
    record[KEY]["measured"] = [row.to_json() for row in report.rows if row.headline]
    record["wall_seconds"] = {"total": round(time.perf_counter() - started, 3)}
    record["peak_memory_bytes"] = peak_memory_bytes()
    if output is not None:
        beside = {} if temperature is not None else {"recalibration.json": _text(record[KEY])}
        output = save(loaded, output, record=record, overwrite=overwrite, free_memory=free_memory, beside=beside)
    return RepairResult(loaded, record, report, output)


def _refuse_tasks(using: str, answering: TaskOptions) -> None:
    """Refuse options of recalibrations where a model is trained.

    **Raises:** `RepairError`.
    """
    if answering not in (QUESTIONS, TaskOptions()):
        raise RepairError(
            f"--with {using} is fitted on no task",
            "Leave out --tasks, --items, --scoring and the like; --qa names the questions",
        )


def _refuse_training(
    using: str, healing: HealingOptions, asking: QaOptions, calibration: CalibrationOptions, teacher: bool
) -> None:
    """Refuse options of healing where nothing is trained.

    **Raises:** `RepairError`.
    """
    for what, given in (
        ("--teacher", teacher),
        ("options of healing (--steps, --layers ...)", healing != HealingOptions()),
        ("--qa, --qa-items, --primer and --qa-chat", asking != QaOptions()),
        ("--calibration and its options", calibration != CalibrationOptions()),
    ):
        if given:
            raise RepairError(
                f"--with {using} trains nothing: {what} would not be looked at",
                f"Leave them out, or use --with {', '.join(WAYS)}",
            )


def _questions(loaded: LoadedModel, answering: TaskOptions, side: Any) -> dict[str, list[ChoiceItem]]:
    return {
        find_task(name).name: questions(name, answering.items, answering, tokenizer=loaded.tokenizer, side=side)
        for name in answering.tasks
    }


def _measure(loaded: LoadedModel, judged: dict[str, list[ChoiceItem]], answering: TaskOptions) -> list[Measurement]:
    """Accuracy, confidence and perplexity as an audit would measure them."""
    labels = {task.name: answering.by_labels(task) for task in map(find_task, answering.tasks)}
    measurements: list[Measurement] = []
    for task, items in judged.items():
        found = predict(loaded, items, task=task, scoring=answering.scoring, labels=labels[task])
        # An earlier fit to answers to questions put in another way has nothing to say here: it is made again.
        if not other_way((loaded.record or {}).get(KEY) or {}, answering):
            found = recalibrated(found, loaded.record, answering)
        measurements += [*accuracy_of(found), *calibration_of(found)]
    return [*measurements, measure_prose(loaded, PERPLEXITY_TOKENS)]


def _text(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"
