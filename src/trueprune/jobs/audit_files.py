"""What an audit writes: the report, measurements to compare again, tables item by item, plots, the verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from trueprune._support.files import file_name
from trueprune.audits.faithfulness.explain import write_explanations
from trueprune.audits.predictions import write_predictions
from trueprune.audits.qa.answers import write_answers
from trueprune.audits.qa.choices import write_choices
from trueprune.audits.qa.open_qa import INSTRUMENT as OPEN_QA
from trueprune.audits.subject import Subject
from trueprune.jobs.gating import write_verdict
from trueprune.plans.plan import Plan
from trueprune.reports.audit import AuditReport, write_report
from trueprune.reports.confidence_plots import plot_reliability, plot_risk_coverage
from trueprune.reports.plots import plot_curves
from trueprune.reports.stored import write_audited


def write_audit(report: AuditReport, subjects: Sequence[Subject], plans: Mapping[str, Plan], folder: Path) -> None:
    """Write all files of an audit.

    **Arguments:**

    - `report`: the audit.
    - `subjects`: the models, with what they answered.
    - `plans`: by model.
    - `folder`: an existing folder.
    """
    write_report(report, folder)
    settings = report.settings
    write_audited(report.models, folder, resamples=settings["resamples"], seed=settings["seed"], items=report.items)
    write_verdict(report, folder)
    _write_tables(subjects, folder)
    for name, plan in plans.items():
        data = json.dumps(plan.to_json(), indent=1, ensure_ascii=False)
        (folder / f"plan-{file_name(name)}.json").write_text(data + "\n", encoding="utf-8")
    _plot(report, folder)


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
        safe = prefix + file_name(task)
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
