"""The job `audit`: the same instruments on dense and pruned models, compared item by item."""

from __future__ import annotations

import gc
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trueprune._support.environment import versions
from trueprune._support.errors import AuditError
from trueprune._support.folders import check_output, whole_folder
from trueprune.audits.calibration import ConfidenceOptions
from trueprune.audits.context import AuditContext, AuditOptions, AuditSettings
from trueprune.audits.efficiency import EfficiencyOptions
from trueprune.audits.efficiency_size import Structure, read_structure
from trueprune.audits.faithfulness.explain import ExplanationOptions, write_explanations
from trueprune.audits.instruments import BESIDE_DENSE, check_instruments
from trueprune.audits.predictions import write_predictions
from trueprune.audits.qa.answers import write_answers
from trueprune.audits.qa.choices import write_choices
from trueprune.audits.qa.open_qa import INSTRUMENT as OPEN_QA
from trueprune.audits.qa.options import TruthOptions
from trueprune.audits.subject import Subject
from trueprune.jobs.common import LoadOptions, as_loaded
from trueprune.jobs.measuring import measure_model
from trueprune.models.load import LoadedModel, check_source
from trueprune.plans.plan import Plan
from trueprune.reports.audit import AuditedModel, AuditReport, compare, settings_of, write_report
from trueprune.reports.confidence_plots import plot_reliability, plot_risk_coverage
from trueprune.reports.plots import plot_curves
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
    instruments: Sequence[str] = DEFAULT_INSTRUMENTS,
    measuring: AuditOptions = AuditOptions(),
    timing: EfficiencyOptions = EfficiencyOptions(),
    answering: TaskOptions = TaskOptions(),
    confidence: ConfidenceOptions = ConfidenceOptions(),
    explaining: ExplanationOptions = ExplanationOptions(),
    asking: QaOptions = QaOptions(),
    truth: TruthOptions = TruthOptions(),
    loading: LoadOptions = LoadOptions(),
    overwrite: bool = False,
) -> AuditReport:
    """Measure what pruning changed: every instrument on every model, on the same items.

    **Arguments:**

    - `dense`: the model that the others are compared with.
    - `pruned`: any number of pruned versions of it.
    - `output`: the folder for `audit.json`, `items.jsonl` and plots.
    - `instruments`: `perplexity`, `lie-detection`, `separation`; and when asked for, `accuracy`, `calibration` and
        `faithfulness` on the `--tasks`; on the `--qa` sets `open-qa` (what the model says: right, hallucinated,
        declined), `truthfulness` (right answers against wrong ones: MC0, MC1, MC2) and `truthful-generation` (BLEU,
        ROUGE, a judge); and `efficiency` (which keeps the dense model in memory beside each other one).
    - `measuring`: how they measure.
    - `timing`: how efficiency measures.
    - `answering`: what accuracy, calibration and faithfulness ask.
    - `confidence`: what calibration reports.
    - `explaining`: how faithfulness explains.
    - `asking`: what open-qa and truthfulness ask.
    - `truth`: how answers in words are had and judged.
    - `loading`: how models are loaded.
    - `overwrite`: replace the output folder if it exists.

    **Returns:** an `AuditReport`.

    **Raises:** `TruepruneError`; nothing is then written.
    """
    check_instruments(instruments)
    if output is not None:
        check_output(Path(output), overwrite, [m for m in (dense, *pruned) if not isinstance(m, LoadedModel)])
    for model in (dense, *pruned):
        if not isinstance(model, LoadedModel):
            check_source(model)
    # Each model is loaded when its turn comes and let go before the next.
    named = [(name, _loader(model, loading)) for name, model in _names([dense, *pruned])]
    return audit_models(
        named,
        output,
        instruments=instruments,
        settings=AuditSettings(measuring, timing, answering, confidence, explaining, asking, truth),
        overwrite=overwrite,
    )


def audit_models(
    models: Iterable[tuple[str, Callable[[], LoadedModel]]],
    output: str | Path | None,
    *,
    instruments: Sequence[str],
    settings: AuditSettings,
    overwrite: bool = False,
    plans: Mapping[str, Plan] | None = None,
) -> AuditReport:
    """`audit` of models that are made on demand, one in memory at a time; the first is the dense one.

    An instrument that measures models side by side keeps the dense one in memory, too.

    **Arguments:**

    - `models`: names, and functions that load or make the model.
    - `settings`: how they measure.
    - `plans`: written beside the report, by model; read after the models were made.
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
    how = {**_how(settings, instruments), "versions": versions()}
    report = compare(audited, how, resamples=measuring.resamples, seed=measuring.seed)
    if output is not None:
        with whole_folder(Path(output), overwrite) as work:
            write_report(report, work)
            _write_tables(subjects, work)
            for name, plan in (plans or {}).items():
                data = json.dumps(plan.to_json(), indent=1, ensure_ascii=False)
                (work / f"plan-{name.replace(' ', '-')}.json").write_text(data + "\n", encoding="utf-8")
            _plot(report, work)
    return report


def _how(settings: AuditSettings, instruments: Sequence[str]) -> dict[str, Any]:
    """The options of the instruments that measured, as plain data."""
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


def _write_tables(subjects: Sequence[Subject], folder: Path) -> None:
    """What each model answered and how that was explained, item by item."""
    predictions = [(subject.name, found) for subject in subjects for found in subject.predictions.values()]
    if predictions:
        write_predictions(predictions, folder / "predictions.parquet")
    explanations = [(subject.name, subject.explanations) for subject in subjects if subject.explanations]
    if explanations:
        write_explanations(explanations, folder / "explanations.parquet")
    answers = [(subject.name, found) for subject in subjects for found in subject.answers.values()]
    if answers:
        write_answers(answers, folder / "answers.parquet")
    choices = [(subject.name, name, found) for subject in subjects for name, found in subject.choices.items()]
    if choices:
        write_choices(choices, folder / "choices.parquet")


def _loader(model: str | Path | LoadedModel, loading: LoadOptions) -> Callable[[], LoadedModel]:
    return lambda: as_loaded(model, loading)


def _names(models: Sequence[str | Path | LoadedModel]) -> list[tuple[str, str | Path | LoadedModel]]:
    """A short name each: the folder's, numbered where two are the same."""
    sources = [m.source if isinstance(m, LoadedModel) else str(m) for m in models]
    short = [Path(source.rstrip("/")).name or source for source in sources]
    seen: Counter[str] = Counter()
    names = []
    for name in short:
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return list(zip(names, models, strict=True))


def _plot(report: AuditReport, folder: Path) -> None:
    curves = {m.name: m.curves["separation"] for m in report.models if "separation" in m.curves}
    if curves:
        plot_curves(curves, "Separation of true and false statements", "B / W", folder / "separation")
    _plot_confidence(report, folder, "calibration", "ece-15", "aurc")
    _plot_confidence(report, folder, OPEN_QA, "ece", "ece", "answers-")


def _plot_confidence(
    report: AuditReport, folder: Path, instrument: str, error: str, risk: str, prefix: str = ""
) -> None:
    """The reliability table and the risk-coverage curve in the details of two metrics, task by task."""
    rows = [row for row in report.rows if row.instrument == instrument]
    for task in dict.fromkeys(row.metric.split("/", 1)[1] for row in rows):
        # The task may be a file of the user's; its name is made a part of a path.
        safe = prefix + re.sub(r"[^A-Za-z0-9._-]+", "_", task)
        tables = {
            row.model: {
                **row.details["reliability"],
                "ece": row.estimate.value,
                "null_ece": row.details["null_mean"],
            }
            for row in rows
            if row.metric == f"{error}/{task}"
        }
        if tables:
            plot_reliability(tables, f"Confidence and accuracy: {task}", folder / f"reliability-{safe}")
        risks = {row.model: row.details["risk_coverage"] for row in rows if row.metric == f"{risk}/{task}"}
        if risks:
            plot_risk_coverage(risks, f"Errors among the most confident: {task}", folder / f"risk-coverage-{safe}")
