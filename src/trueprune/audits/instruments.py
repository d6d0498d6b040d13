"""The instruments of an audit by name: each measures one model, given the dense one, and returns measurements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from trueprune._support.errors import AuditError
from trueprune.audits.accuracy import accuracy_of
from trueprune.audits.calibration import calibration_of
from trueprune.audits.context import AuditContext, AuditSettings
from trueprune.audits.efficiency import measure_efficiency
from trueprune.audits.faithfulness.measures import agreement_of, faithfulness_of
from trueprune.audits.lie_detection import measure_lie_detection
from trueprune.audits.lm_eval import check_lm_eval, measure_lm_eval
from trueprune.audits.measurement import Measurement
from trueprune.audits.perplexity import measure_perplexity
from trueprune.audits.probes import ProbeOptions
from trueprune.audits.qa.generation import check_generation, generation_of
from trueprune.audits.qa.open_qa import open_qa_of
from trueprune.audits.qa.truthfulness import truthfulness_of
from trueprune.audits.recalibrated import warn_of_fitted
from trueprune.audits.separation import measure_separation
from trueprune.audits.subject import Subject
from trueprune.texts.tasks.pools import harness_tasks, own_tasks
from trueprune.texts.tasks.questions import TaskOptions


def _perplexity(subject: Subject, context: AuditContext) -> list[Measurement]:
    o = context.options
    return [
        measure_perplexity(
            subject.loaded, context.text, window=o.window, stride=o.stride or None, max_tokens=o.max_tokens or None
        )
    ]


def _lie_detection(subject: Subject, context: AuditContext) -> list[Measurement]:
    o = context.options
    dense = context.dense.activations(context.statements)
    own = None if subject is context.dense else subject.activations(context.statements)
    return measure_lie_detection(
        context.statements,
        dense,
        own,
        probes=o.probes,
        protocols=o.protocols,
        layer=_layer(str(o.layer)),
        repeats=o.repeats,
        options=ProbeOptions(penalty=o.penalty, reference=o.reference, seed=o.seed),
        seed=o.seed,
        balance=o.balance,
    )


def _layer(text: str) -> int | Literal["dense", "own", "sweep"]:
    if text in ("dense", "own", "sweep"):
        return text  # type: ignore[return-value]
    if text.isdigit():
        return int(text)
    raise AuditError(f"unknown layer {text!r}", "Use dense, own, sweep, or the number of a block")


def _separation(subject: Subject, context: AuditContext) -> list[Measurement]:
    theirs, ours = (s.activations(context.statements).shape[1] for s in (context.dense, subject))
    if theirs != ours:
        raise AuditError(
            f"{subject.name} has {ours} blocks and the dense model {theirs}, and no record says which are gone",
            "Audit the folder that trueprune drop wrote, with its trueprune.json",
        )
    return [measure_separation(context.statements, subject.activations(context.statements), context.dense_peak)]


def _efficiency(subject: Subject, context: AuditContext) -> list[Measurement]:
    dense = None if subject is context.dense else context.dense.loaded
    return measure_efficiency(subject.loaded, dense, context.settings.timing)


def _accuracy(subject: Subject, context: AuditContext) -> list[Measurement]:
    own = [m for found in context.predictions(subject).values() for m in accuracy_of(found)]
    answering = context.settings.answering
    warn_of_fitted(subject.name, subject.loaded.record, harness_tasks(answering.tasks))
    return own + measure_lm_eval(subject.loaded, answering)


def _calibration(subject: Subject, context: AuditContext) -> list[Measurement]:
    _refuse_foreign("calibration", context.settings.answering)
    found = context.predictions(subject).values()
    return [m for predictions in found for m in calibration_of(predictions, context.settings.confidence)]


def _faithfulness(subject: Subject, context: AuditContext) -> list[Measurement]:
    _refuse_foreign("faithfulness", context.settings.answering)
    dense = context.explanations(context.dense)
    own = context.explanations(subject)
    return faithfulness_of(own) + ([] if subject is context.dense else agreement_of(dense, own))


def _refuse_foreign(instrument: str, answering: TaskOptions) -> None:
    if not own_tasks(answering.tasks):
        raise AuditError(
            f"{instrument} has no task: those of lm-eval are measured by accuracy alone",
            "Add one of trueprune's own to --tasks, e.g. facts",
        )


def _open_qa(subject: Subject, context: AuditContext) -> list[Measurement]:
    return [m for answers in context.answers(subject).values() for m in open_qa_of(answers)]


def _truthfulness(subject: Subject, context: AuditContext) -> list[Measurement]:
    return [m for name, found in context.choices(subject).items() for m in truthfulness_of(name, found)]


def _truthful_generation(subject: Subject, context: AuditContext) -> list[Measurement]:
    judge = context.settings.truth.judge
    found = context.answers(subject, context.sets_with_wrong(sentences=True))
    return [
        m
        for name, answers in found.items()
        for m in generation_of(answers, [one.question for one in context.asked[name]], judge)
    ]


INSTRUMENTS: dict[str, Callable[[Subject, AuditContext], list[Measurement]]] = {
    "perplexity": _perplexity,
    "lie-detection": _lie_detection,
    "separation": _separation,
    "efficiency": _efficiency,
    "accuracy": _accuracy,
    "calibration": _calibration,
    "faithfulness": _faithfulness,
    "open-qa": _open_qa,
    "truthfulness": _truthfulness,
    "truthful-generation": _truthful_generation,
}
# These measure a model beside the dense one, which must then stay in memory.
BESIDE_DENSE = frozenset({"efficiency"})


def check_instruments(names: Sequence[str], settings: AuditSettings | None = None) -> None:
    """Refuse an unknown instrument, and with `settings` what one cannot measure: before any model is asked.

    **Raises:** `AuditError` that names the known ones, or the task, package or judge that is missing.
    """
    if unknown := [name for name in names if name not in INSTRUMENTS]:
        raise AuditError(f"unknown instrument {unknown[0]!r}", f"Use one of {', '.join(INSTRUMENTS)}")
    if settings is None:
        return
    for name in sorted({"calibration", "faithfulness"} & set(names)):
        _refuse_foreign(name, settings.answering)
    if "truthful-generation" in names:
        check_generation(settings.truth.judge)
    if "accuracy" in names:
        check_lm_eval(settings.answering.tasks)
