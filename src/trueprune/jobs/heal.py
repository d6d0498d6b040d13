"""Repair by training: choose blocks, train them around their zeros, measure, record, save."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from trueprune._support.environment import peak_memory_bytes, versions
from trueprune._support.errors import RepairError
from trueprune._support.folders import check_output
from trueprune._support.hashing import hash_model
from trueprune.edits.prune import measured_sparsity
from trueprune.jobs.common import LoadOptions, as_loaded, plan_before
from trueprune.jobs.heal_layers import Chosen, choose_layers, wanted_layers
from trueprune.jobs.repair_result import RepairResult, before_and_after, measure_prose
from trueprune.models.anatomy import Anatomy, read_anatomy
from trueprune.models.load import LoadedModel, check_source
from trueprune.models.record import history_of
from trueprune.models.save import save
from trueprune.repairs.healing import (
    Healed,
    HealingData,
    HealingOptions,
    Store,
    check_teacher,
    check_way,
    heal_blocks,
    healing_data,
    resolve_precision,
)
from trueprune.texts.calibration import CalibrationOptions
from trueprune.texts.qa import QaOptions
from trueprune.texts.sources import PAPER_NAMES

KEY = "healing"
PERPLEXITY_TOKENS = 4096
RESAMPLES = 1000


def heal(
    model: str | Path | LoadedModel,
    output: str | Path | None = None,
    *,
    way: str,
    teacher: str | Path | LoadedModel | None = None,
    healing: HealingOptions | None = None,
    calibration: CalibrationOptions | None = None,
    asking: QaOptions | None = None,
    loading: LoadOptions | None = None,
    overwrite: bool = False,
    free_memory: bool = False,
    command: str | None = None,
) -> RepairResult:
    """Train some blocks of a model, with the zeros of its weights held; see `repair`.

    While it runs, `OUT.healing` beside the output keeps the last evaluation: the same call goes on there after a run
    that was cut off, to the bit. It is removed once the model is saved.

    **Arguments:**

    - `way`: `contrastive`, `lora` or `distill`.
    - the rest: as of `repair`.

    **Raises:** `TruepruneError`; no model is then written.
    """
    started = time.perf_counter()
    healing, calibration = healing or HealingOptions(), calibration or CalibrationOptions()
    asking, loading = asking or QaOptions(), loading or LoadOptions()
    check_way(way, healing, teacher is not None)
    _refuse_idle(healing, calibration, asking, way)
    _refuse_audited(calibration)
    inputs = [m for m in (model, teacher) if m is not None and not isinstance(m, LoadedModel)]
    for source in inputs:
        check_source(source)
    if output is not None:
        check_output(Path(output), overwrite, inputs)
    loaded = as_loaded(model, loading)
    anatomy = read_anatomy(loaded.model)
    plan = plan_before(loaded, anatomy)
    wanted_layers(way, healing, len(anatomy.blocks))
    precision = resolve_precision(healing.precision, anatomy.device)
    taught_by = None if teacher is None else as_loaded(teacher, loading)
    check_teacher(loaded, taught_by)
    source_hash = hash_model(loaded.model) if output is not None else ""
    store = state = None
    if output is not None:
        settings = {
            "with": way,
            **asdict(healing),
            "precision": precision,
            "device": anatomy.device.type,
            **asdict(calibration),
            **asdict(asking),
            "source_sha256": source_hash,
            "teacher_sha256": None if taught_by is None else hash_model(taught_by.model),
        }
        store = Store(Path(str(Path(output).absolute()) + ".healing"), settings)
        state = store.read()
    chosen = choose_layers(loaded, anatomy, way, healing, asking, known=state["notes"] if state else None)
    if store is not None:
        store.notes.update(layers=list(chosen.layers), found=dict(chosen.found))
    _say_recalibrated(loaded.record)
    before = measure_prose(loaded, PERPLEXITY_TOKENS)
    data = healing_data(
        loaded,
        chosen.answers,
        calibration,
        steps=healing.steps,
        batch=healing.batch,
        window=healing.window,
        pairs=healing.pairs,
        seed=healing.healing_seed,
    )
    if store is not None:
        # Texts and questions in files may have changed while a run stood still.
        store = replace(store, settings={**store.settings, "data_sha256": data.sha256})
    healed = heal_blocks(loaded, anatomy, chosen.layers, data, way, healing, teacher=taught_by, store=store)
    total, per_block = measured_sparsity(anatomy)
    record: dict[str, Any] = {
        "schema": 1,
        "command": command,
        "source": loaded.source,
        "source_sha256": source_hash,
        "method": f"repair-{way}",
        "plan": None if plan is None else plan.to_json(),
        "calibration": dict(data.origin or {}),
        KEY: {
            **_about(way, healing, asking, chosen, healed, data, anatomy),
            "teacher": None if taught_by is None else taught_by.source,
        },
        "measured_sparsity": total,
        "measured_sparsity_blocks": per_block,
        "versions": versions(),
        "history": history_of(loaded.record),
    }
    loaded = replace(loaded, record=record)
    report = before_and_after([before], [measure_prose(loaded, PERPLEXITY_TOKENS)], loaded.source, RESAMPLES)
    record[KEY]["measured"] = [row.to_json() for row in report.rows if row.headline]
    record["wall_seconds"] = {"total": round(time.perf_counter() - started, 3)}
    record["peak_memory_bytes"] = peak_memory_bytes()
    del taught_by
    if output is not None:
        output = save(loaded, output, record=record, overwrite=overwrite, free_memory=free_memory)
    if store is not None:
        store.remove()
    return RepairResult(loaded, record, report, output)


def _refuse_idle(healing: HealingOptions, calibration: CalibrationOptions, asking: QaOptions, way: str) -> None:
    """Refuse options that nothing would look at.

    **Raises:** `RepairError`.
    """
    plain = CalibrationOptions()
    if calibration.nsamples != plain.nsamples or calibration.seqlen != plain.seqlen:
        raise RepairError(
            "--nsamples and --seqlen have no meaning for a healing", "Use --steps, --batch and --window instead"
        )
    observed = healing.chosen_by(way) in ("prone", "random")
    if not healing.pairs and not observed and asking != QaOptions():
        raise RepairError("--pairs 0 trains on no answers", "Leave --qa, --qa-items, --primer and --qa-chat out")


def _refuse_audited(calibration: CalibrationOptions) -> None:
    """Refuse texts that are made of the questions and answers of an audit.

    **Raises:** `RepairError`.
    """
    for source in calibration.sources:
        name = source.partition("=")[0]
        if PAPER_NAMES.get(name, name) == "enriched-truthfulqa":
            raise RepairError(
                f"--calibration {name} is made of the questions by which audits judge truth: it would be trained on",
                "Name other texts; --qa truthfulqa trains on those questions that no audit asks",
            )


def _about(
    way: str,
    healing: HealingOptions,
    asking: QaOptions,
    chosen: Chosen,
    healed: Healed,
    data: HealingData,
    anatomy: Anatomy,
) -> dict[str, Any]:
    progress = healed.progress
    return {
        "method": way,
        "layers": list(chosen.layers),
        "blocks": len(anatomy.blocks),
        "chosen_by": chosen.by,
        **{key: value for key, value in chosen.found.items() if key != "fitted_on"},
        "options": {**asdict(healing), "learning_rate": healing.peak_learning_rate, "precision": healed.precision},
        "asking": asdict(asking),
        "matrices": healed.matrices,
        "trained_parameters": healed.trained,
        "left_out": list(healed.left_out),
        "pairs": len(data.pairs),
        "curve": progress.curve,
        "steps": progress.step,
        "best_step": progress.best_step,
        "stopped": progress.stopped,
        "seconds": round(progress.seconds, 3),
        "fitted_on": {name: list(shas) for name, shas in chosen.fitted_on.items()},
    }


def _say_recalibrated(record: Mapping[str, Any] | None) -> None:
    """Say what was fitted to the weights that are about to change."""
    record = record or {}
    own = record.get("recalibration") or {}
    earlier = [step.get("recalibration") or {} for step in record.get("history", [])]
    if own and not own.get("folded"):
        warnings.warn(
            f"the recalibration by {own.get('method')} was fitted to the weights before and is not kept: "
            "fit another to the healed model",
            stacklevel=1,
        )
    elif any(found.get("folded") for found in (own, *earlier)):
        warnings.warn(
            "the temperature in the weights was fitted before healing: fit another to the healed model", stacklevel=1
        )
