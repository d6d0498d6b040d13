"""The job `estimate`: what scan, prune, drop and audit will cost, from a configuration alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trueprune._support.environment import versions
from trueprune._support.errors import PlanError
from trueprune._support.folders import check_output, whole_folder
from trueprune.audits.context import AuditOptions, AuditSettings
from trueprune.audits.efficiency import EfficiencyOptions
from trueprune.audits.faithfulness.explain import ExplanationOptions
from trueprune.audits.qa.options import TruthOptions
from trueprune.edits.rule import EditOptions
from trueprune.estimates.auditing import AuditCost
from trueprune.estimates.config import read_shape
from trueprune.estimates.device import Device, find_device
from trueprune.estimates.files import PROBE, check, load, save
from trueprune.estimates.forecast import Forecast
from trueprune.estimates.forward import Forwards
from trueprune.estimates.observing import Calibration, observe_layers, observe_outliers, read_texts
from trueprune.estimates.pruning import PruneCost
from trueprune.estimates.reading import count_tokens
from trueprune.estimates.variants import variants_of
from trueprune.estimates.work import Part, Step
from trueprune.jobs.audit import DEFAULT_INSTRUMENTS
from trueprune.jobs.layer_choice import DropOptions, ranking_of
from trueprune.jobs.prune import target_sparsity
from trueprune.plans.choose import how_many
from trueprune.plans.plan import Pattern
from trueprune.texts.calibration import CalibrationOptions
from trueprune.texts.collections import load_statements
from trueprune.texts.qa import answer_pairs
from trueprune.texts.qa.prompts import QaOptions
from trueprune.texts.selection import select
from trueprune.texts.tasks.questions import TaskOptions

DEFAULT_METHOD = "tplo"


def estimate(
    model: str | Path,
    output: str | Path | None = None,
    *,
    method: Sequence[str] = (),
    score: str | None = None,
    sparsity: float | None = None,
    pattern: str = "unstructured",
    scan: bool = False,
    drop: bool = False,
    choice: DropOptions = DropOptions(),
    audit: Sequence[str] = (),
    models: int = 2,
    device: str = "cpu",
    dtype: str = "auto",
    workers: int = 1,
    streamed: bool = False,
    batch_tokens: int | None = None,
    calibration: CalibrationOptions = CalibrationOptions(),
    edit: EditOptions = EditOptions(),
    measuring: AuditOptions = AuditOptions(),
    timing: EfficiencyOptions = EfficiencyOptions(),
    answering: TaskOptions = TaskOptions(),
    explaining: ExplanationOptions = ExplanationOptions(),
    asking: QaOptions = QaOptions(),
    truth: TruthOptions = TruthOptions(),
    overwrite: bool = False,
) -> Mapping[str, Any]:
    """Say what a run will cost before anything is spent: operations, bytes, peak memory and time of every step.

    Only the configuration of the model is read; no weights are needed. Time is a roofline: of each step the longer of
    its operations at the device's speed and its bytes at the device's bandwidth.

    **Arguments:**

    - `model`: `demo`, a `config.json` or a folder that holds one, or a hub id whose configuration is in the cache.
    - `output`: the folder for `estimate.json`.
    - `method`: pruning methods, each a run of its own. With none of `--method`, `--scan`, `--drop` and `--audit`:
        `tplo`, and an audit by its default instruments.
    - `score`: which weights go, as in `prune`.
    - `sparsity`: target share of zeros, as in `prune`; what a run costs hardly depends on it.
    - `pattern`: `unstructured` or `n:m`.
    - `scan`: estimate `trueprune scan`.
    - `drop`: estimate `trueprune drop`.
    - `choice`: what `drop` drops.
    - `audit`: instruments of `trueprune audit`.
    - `models`: how many models are audited, the dense one among them.
    - `device`: `cpu` (this machine, measured in two seconds), `a100` or `h100` (data sheets, 80 GB), or
        FLOPS,BANDWIDTH,MEMORY, e.g. 312e12,2.0e12,80e9.
    - `dtype`: `auto` (that of the configuration), `float32`, `bfloat16` or `float16`.
    - `workers`: also project how long so many devices would take that share the texts out.
    - `streamed`: also project what it takes to bring weights to the device block by block.
    - `batch_tokens`: tokens that go through a block in one call (1,024 on a CPU, 8,192 on an accelerator).
    - `calibration`: what the model is calibrated on.
    - `edit`: constants of the scores.
    - `measuring`: how audits measure.
    - `timing`: how efficiency measures.
    - `answering`: what accuracy, calibration and faithfulness ask.
    - `explaining`: how faithfulness explains.
    - `asking`: what open-qa, truthfulness and EAVSS ask.
    - `truth`: how answers in words are had.
    - `overwrite`: replace the output folder if it exists.

    **Returns:** what `estimate.json` holds: `model`, `device`, `steps`, `totals` by run, `variants`, `advice`, `notes`.

    **Raises:** `ModelError` for a configuration that is missing or cannot be read, `PlanError` for a device, method or
    number that makes no sense, `AuditError` and `TextError` for instruments and items, as in `audit`.
    """
    if not (method or scan or drop or audit):
        method, audit = (DEFAULT_METHOD,), DEFAULT_INSTRUMENTS
    variants = variants_of(workers, streamed)
    notes: list[str] = []
    if answering.chat or asking.qa_chat:
        notes.append("chat templates come with tokenizers, which are not read: prompts are counted without")
        answering, asking = replace(answering, chat=False), replace(asking, qa_chat=False)
    _check(models, batch_tokens, calibration)
    if output is not None:
        check_output(Path(output), overwrite, [model])
    shape = read_shape(model, dtype)
    if scan or drop or method:
        _refuse_long(calibration, shape.max_length)
    target = find_device(device, shape.dtype)
    forwards = Forwards(shape, shape.dtype)
    texts = Calibration(calibration.nsamples, calibration.seqlen, batch_tokens or target.batch_tokens)
    split = Pattern.parse(pattern)
    pruning = PruneCost(
        forwards,
        texts,
        _statements(calibration) if scan or method else [],
        _answers(asking) if scan or "eavss" in method or (drop and choice.by == "eavss") else [],
        split,
        edit,
    )
    steps: list[Step] = []
    if scan:
        steps += _scan(pruning, target)
    for name in dict.fromkeys(method):
        found = pruning.steps(name, score, target_sparsity(sparsity, split))
        steps += _saved(found, forwards, target, 1.0)
    if drop:
        steps += _drop(pruning, choice, target)
    auditing = AuditCost(
        forwards,
        AuditSettings(measuring, timing, answering, explaining=explaining, asking=asking, truth=truth),
        models,
    )
    if audit:
        found = auditing.steps(audit)
        steps += [load("audit", forwards, target, models), check("audit", forwards, saved=False, checked=False), *found]
        notes += auditing.notes
    report = {**Forecast(forwards, target, steps, variants, notes).to_json(), "versions": versions()}
    if output is not None:
        with whole_folder(Path(output), overwrite) as work:
            text = json.dumps(report, indent=1, ensure_ascii=False)
            (work / "estimate.json").write_text(text + "\n", encoding="utf-8")
    return report


def _check(models: int, batch_tokens: int | None, calibration: CalibrationOptions) -> None:
    numbers = {"--models": models, "--nsamples": calibration.nsamples, "--seqlen": calibration.seqlen}
    if batch_tokens is not None:
        numbers["--batch-tokens"] = batch_tokens
    for flag, value in numbers.items():
        if value < 1:
            raise PlanError(f"{flag} {value} is below 1", "Give a number above 0")


def _refuse_long(calibration: CalibrationOptions, longest: int | None) -> None:
    if longest and calibration.seqlen > longest:
        raise PlanError(f"--seqlen {calibration.seqlen} is over the model's limit of {longest}", "Lower --seqlen")


def _statements(calibration: CalibrationOptions) -> list[int]:
    """Tokens of each statement that chooses densities."""
    chosen = select(load_statements(calibration.statements), "choose", calibration.selection)
    return [max(1, count_tokens(text)) for text in chosen.texts]


def _answers(asking: QaOptions) -> list[int]:
    """Tokens of each answer that EAVSS reads, prompt included."""
    pairs = answer_pairs(asking.qa, asking.qa_items, asking)
    return [max(1, count_tokens(one.prompt + one.answer)) for one in pairs]


def _saved(found: list[Step], forwards: Forwards, device: Device, left: float) -> list[Step]:
    run = found[0].run
    return [load(run, forwards, device), check(run, forwards, saved=True), *found, save(run, forwards, left)]


def _scan(cost: PruneCost, device: Device) -> list[Step]:
    forwards = cost.forwards
    return [
        load("scan", forwards, device),
        read_texts("scan", "observe statements", forwards, cost.statements),
        observe_outliers("scan", forwards, cost.calibration, profiled=True),
        read_texts("scan", "observe answers", forwards, cost.answers, kept=False),
    ]


def _drop(cost: PruneCost, choice: DropOptions, device: Device) -> list[Step]:
    """The steps of a drop; sublayers that go take no part in saving."""
    forwards = cost.forwards
    file, ranking = ranking_of(choice)
    blocks = forwards.shape.blocks
    present = 2 * len(blocks) if choice.kind == "joint" else len(blocks)
    gone = 0 if file is not None else how_many(present, choice.fraction, choice.count, choice.kind)
    rounds = gone if choice.schedule == "iterative" else 1
    run = f"drop {choice.kind}"
    if file is None and ranking.profiled:
        found = [observe_layers(run, forwards, cost.calibration, rounds)]
    elif ranking.answers:
        one = read_texts(run, "observe answers", forwards, cost.answers, kept=False)
        found = [Step(run, one.name, one.parts * rounds, one.held, one.working, one.host, one.copies, one.detail)]
    else:
        found = [Step(run, "nothing is observed", ())]
    # What is left must compute what the bypassed model computes.
    found.append(
        Step(run, "take away, compare", (Part(forwards.whole(PROBE) * 2),), working=forwards.live(PROBE.tokens))
    )
    return _saved(found, forwards, device, 1 - gone / present * _share(forwards, choice.kind))


def _share(forwards: Forwards, kind: str) -> float:
    """The share of a model's weights that is in what can be dropped."""
    inside = sum(
        m.numel
        for block in forwards.shape.blocks
        for m in block.matrices
        if kind in ("block", "joint") or m.source.startswith(kind)
    )
    return inside / forwards.shape.parameters
