"""The job `audit`: the same instruments on dense and pruned models, compared item by item."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trueprune._support.environment import versions
from trueprune._support.errors import AuditError
from trueprune._support.folders import check_output, whole_folder
from trueprune.audits.calibration import ConfidenceOptions
from trueprune.audits.context import AuditContext, AuditOptions, AuditSettings
from trueprune.audits.efficiency import EfficiencyOptions
from trueprune.audits.efficiency_size import Structure, read_structure
from trueprune.audits.faithfulness.explain import ExplanationOptions
from trueprune.audits.instruments import BESIDE_DENSE, check_instruments
from trueprune.audits.qa.options import TruthOptions
from trueprune.audits.subject import Subject
from trueprune.jobs.audit_files import write_audit
from trueprune.jobs.common import LoadOptions, as_loaded
from trueprune.jobs.gating import GateOptions, announce, judged, wanted_instruments
from trueprune.jobs.measuring import measure_model
from trueprune.models.load import LoadedModel, check_source
from trueprune.plans.plan import Plan
from trueprune.reports.audit import AuditedModel, AuditReport, compare, settings_of
from trueprune.reports.effect import check_cards, local_folders, write_effect
from trueprune.reports.gates import Gate
from trueprune.reports.items import gather
from trueprune.reports.join import numbered
from trueprune.reports.plain import plain
from trueprune.reports.usable import usable_by
from trueprune.texts.qa.prompts import QaOptions
from trueprune.texts.tasks.questions import TaskOptions

# The others are slow (accuracy), or need both models in memory (efficiency).
DEFAULT_INSTRUMENTS = ("perplexity", "lie-detection", "separation")


def audit(
    dense: str | Path | LoadedModel,
    pruned: Sequence[str | Path | LoadedModel] = (),
    output: str | Path | None = None,
    *,
    instruments: Sequence[str] = (),
    gating: GateOptions = GateOptions(),
    measuring: AuditOptions = AuditOptions(),
    timing: EfficiencyOptions = EfficiencyOptions(),
    answering: TaskOptions = TaskOptions(),
    confidence: ConfidenceOptions = ConfidenceOptions(),
    explaining: ExplanationOptions = ExplanationOptions(),
    asking: QaOptions = QaOptions(),
    truth: TruthOptions = TruthOptions(),
    loading: LoadOptions = LoadOptions(),
    card: bool = False,
    overwrite: bool = False,
    command: str | None = None,
) -> AuditReport:
    """Measure what pruning changed: every instrument on every model, on the same items.

    With `--gate` or `--profile` the audit ends in a verdict: exit code 0 if every pruned model keeps all bounds, 1 if
    one does not, 2 if it could not be judged.

    **Arguments:**

    - `dense`: the model that the others are compared with.
    - `pruned`: any number of pruned versions of it.
    - `output`: the folder for `report.html`, `audit.json`, every item's values and answers, and plots; with a gate also
        `junit.xml` and `summary.md`.
    - `instruments`: by default `perplexity`, `lie-detection`, `separation`, and what a gate bounds. When asked for,
        `accuracy`, `calibration` and `faithfulness` on the `--tasks`; on the `--qa` sets `open-qa` (what the model
        says: right, hallucinated, declined), `truthfulness` (right answers against wrong ones: MC0, MC1, MC2) and
        `truthful-generation` (BLEU, ROUGE, a judge); and `efficiency` (which keeps the dense model in memory beside
        each other one).
    - `gating`: what the pruned models must keep.
    - `measuring`: how they measure.
    - `timing`: how efficiency measures.
    - `answering`: what accuracy, calibration and faithfulness ask.
    - `confidence`: what calibration reports.
    - `explaining`: how faithfulness explains.
    - `asking`: what open-qa and truthfulness ask.
    - `truth`: how answers in words are had and judged.
    - `loading`: how models are loaded.
    - `card`: write what was found into the README.md of each pruned folder, with metadata that the hub shows.
    - `overwrite`: replace the output folder if it exists.
    - `command`: recorded in the report.

    **Returns:** an `AuditReport`; with a gate, `report.verdict.passed()` says whether all is kept.

    **Raises:** `TruepruneError`; nothing is then written, but for what was measured already where only the gate cannot
    be held against it.
    """
    check_instruments(instruments)
    settings = AuditSettings(measuring, timing, answering, confidence, explaining, asking, truth)
    gate = gating.read()
    instruments = wanted_instruments(instruments, DEFAULT_INSTRUMENTS, gate, settings, pruned=bool(pruned))
    if card:
        if not pruned:
            raise AuditError("--card: there is no pruned model whose card could be written", "Leave out --card")
        check_cards({_source(model): _source(model) for model in pruned})
    if output is not None:
        read = [m for m in (dense, *pruned, gating.gate) if m is not None and not isinstance(m, LoadedModel)]
        check_output(Path(output), overwrite, read)
    for model in (dense, *pruned):
        if not isinstance(model, LoadedModel):
            check_source(model)
    # Each model is loaded when its turn comes and let go before the next.
    named = [(name, _loader(model, loading)) for name, model in _names([dense, *pruned])]
    report = audit_models(
        named, output, instruments=instruments, settings=settings, overwrite=overwrite, gate=gate, command=command
    )
    if card:
        write_effect(report, local_folders(report))
    return report


def audit_models(
    models: Iterable[tuple[str, Callable[[], LoadedModel]]],
    output: str | Path | None,
    *,
    instruments: Sequence[str],
    settings: AuditSettings,
    overwrite: bool = False,
    plans: Mapping[str, Plan] | None = None,
    gate: Gate | None = None,
    command: str | None = None,
) -> AuditReport:
    """`audit` of models that are made on demand, one in memory at a time; the first is the dense one.

    An instrument that measures models side by side keeps the dense one in memory, too.

    **Arguments:**

    - `models`: names, and functions that load or make the model.
    - `settings`: how they measure.
    - `plans`: written beside the report, by model; read after the models were made.
    - `gate`: what the models must keep.
    - `command`: recorded in the report.
    - the rest as for `audit`.
    """
    check_instruments(instruments, settings)
    audited: list[AuditedModel] = []
    context: AuditContext | None = None
    dense: Structure | None = None
    measuring = settings.measuring
    subjects: list[Subject] = []
    beside_dense = bool(BESIDE_DENSE & set(instruments))
    for name, make in models:
        subject = Subject(name, make(), use_cache=measuring.cache)
        if context is None:
            context = AuditContext(settings, subject)
        model = measure_model(subject, context, instruments)
        if "efficiency" in instruments:
            structure = read_structure(subject.anatomy)
            dense = dense or structure
            if subject is not context.dense:
                model.about["usable_by"] = usable_by(dense, structure)
        audited.append(model)
        subjects.append(subject)
        # The dense model's activations stay, for probes to be frozen on; its weights only where they are needed again.
        if subject is not context.dense or not beside_dense:
            subject.release()
        gc.collect()
    if context is None:
        raise AuditError("there is no model to audit", "Give the dense model first")
    how = {**how_measured(settings, instruments), "command": command, "versions": versions()}
    report = compare(audited, how, resamples=measuring.resamples, seed=measuring.seed)
    report = replace(report, items=gather(subjects, context))
    refused: AuditError | None = None
    try:
        report = judged(report, gate)
    except AuditError as error:
        # What was measured may have taken hours: it is kept, and can be judged again.
        refused = error
    if output is not None:
        with whole_folder(Path(output), overwrite) as work:
            write_audit(report, subjects, plans or {}, work)
    if refused is not None:
        kept = f" The audit itself is in {output}: trueprune report judges it again" if output is not None else ""
        raise AuditError(refused.problem, f"{refused.remedy}.{kept}") from refused
    announce(report)
    return report


def how_measured(settings: AuditSettings, instruments: Sequence[str]) -> dict[str, Any]:
    """The options of the instruments that measure, as plain data: what a report says of how it was measured."""
    chosen = set(instruments)
    found = {**settings_of(settings.measuring), "instruments": list(instruments)}
    groups = {
        "efficiency": (settings.timing, {"efficiency"}),
        "tasks": (settings.answering, {"accuracy", "calibration", "faithfulness"}),
        "calibration": (settings.confidence, {"calibration"}),
        "faithfulness": (settings.explaining, {"faithfulness"}),
        "qa": (settings.asking, {"open-qa", "truthfulness", "truthful-generation"}),
        "truth": (settings.truth.plain(), {"open-qa", "truthful-generation"}),
    }
    return found | {name: settings_of(options) for name, (options, used_by) in groups.items() if used_by & chosen}


def _loader(model: str | Path | LoadedModel, loading: LoadOptions) -> Callable[[], LoadedModel]:
    return lambda: as_loaded(model, loading)


def _names(models: Sequence[str | Path | LoadedModel]) -> list[tuple[str, str | Path | LoadedModel]]:
    """A short name each: the folder's, numbered where two are the same."""
    sources = [_source(model) for model in models]
    # A folder's name may hold bytes that are no text, which no file of an audit could hold.
    short = [plain(Path(source.rstrip("/")).name or source) for source in sources]
    return list(zip(numbered(short), models, strict=True))


def _source(model: str | Path | LoadedModel) -> str:
    return model.source if isinstance(model, LoadedModel) else str(model)
