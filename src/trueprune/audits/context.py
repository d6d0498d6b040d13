"""What all models of an audit are measured on, read once, and the dense model that they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from trueprune._support.errors import AuditError
from trueprune.audits.calibration import ConfidenceOptions
from trueprune.audits.efficiency import EfficiencyOptions
from trueprune.audits.faithfulness.explain import Explanation, ExplanationOptions, explain
from trueprune.audits.lie_detection import PROTOCOLS
from trueprune.audits.predict import predict
from trueprune.audits.predictions import Predictions
from trueprune.audits.probes import ProbeOptions
from trueprune.audits.qa.answers import Answers, answer
from trueprune.audits.qa.choices import Choices, score_choices
from trueprune.audits.qa.options import TruthOptions
from trueprune.audits.recalibrated import recalibrated, refuse_fitted
from trueprune.audits.separation import separation_curve
from trueprune.audits.subject import Subject
from trueprune.texts.collections import load_statements
from trueprune.texts.qa import AskedQuestion, QuestionSet, asked, find_set
from trueprune.texts.qa.prompts import QaOptions
from trueprune.texts.rows import embedded_file, hub_rows, read_documents
from trueprune.texts.selection import Selection, select
from trueprune.texts.sources import hub_column
from trueprune.texts.statements import StatementSet
from trueprune.texts.tasks import ChoiceItem, find_task, questions
from trueprune.texts.tasks.pools import own_tasks
from trueprune.texts.tasks.questions import TaskOptions


@dataclass(frozen=True)
class AuditOptions:
    """How an audit measures.

    **Arguments:**

    - `text`: text of the perplexity: `embedded` (held-out prose of the package), `wikitext2` (test split),
        `hf:ORG/NAME/CONFIG:SPLIT:COLUMN`, or a path.
    - `window`: tokens of a perplexity window.
    - `stride`: tokens between window starts; the window by default, so that windows are disjoint.
    - `max_tokens`: at most so many tokens of the text; 0 for all.
    - `statements`: `embedded`, `truth-is-universal`, or the path of a CSV file or folder.
    - `selection`: `leak-free` audits statements that chose no sparsity; `paper` audits all.
    - `per_dataset`: at most so many statements of each topic, polarity and language, whole groups; 0 for all.
    - `probes`: `logistic`, `mass-mean`, `ttpd`, `ccs`.
    - `protocols`: `grouped`, `leave-one-topic-out`, `transfer`.
    - `layer`: where probes read: `dense` (the dense model's best separation), `own`, `sweep`, or a block from 0.
    - `repeats`: grouped 70/30 splits.
    - `penalty`: L2 penalty of the logistic probes, on standardised activations.
    - `reference`: solve the probes as the papers do, unpenalised (needs scikit-learn).
    - `balance`: train probes on equally many statements of every topic and polarity.
    - `seed`: of splits and resamples.
    - `resamples`: bootstrap resamples of the intervals.
    - `cache`: keep activations for the next audit.
    """

    text: str = "embedded"
    window: int = 512
    stride: int = 0
    max_tokens: int = 16384
    statements: str = "embedded"
    selection: Selection = "leak-free"
    per_dataset: int = 0
    probes: tuple[str, ...] = ("logistic", "mass-mean", "ttpd")
    protocols: tuple[str, ...] = PROTOCOLS
    layer: str | int = "dense"
    repeats: int = 5
    penalty: float = ProbeOptions().penalty
    reference: bool = False
    balance: bool = True
    seed: int = 0
    resamples: int = 2000
    cache: bool = True

    def __post_init__(self):
        for name, least in (("resamples", 10), ("repeats", 1), ("seed", 0), ("per_dataset", 0), ("max_tokens", 0)):
            if getattr(self, name) < least:
                flag = "--" + name.replace("_", "-")
                raise AuditError(f"{flag} {getattr(self, name)} is below {least}", f"Use {least} or more")


@dataclass(frozen=True)
class AuditSettings:
    """How every instrument measures.

    **Arguments:**

    - `measuring`: perplexity, lie detection and separation; seed and resamples of all.
    - `timing`: efficiency.
    - `answering`: what accuracy, calibration and faithfulness ask.
    - `confidence`: calibration.
    - `explaining`: faithfulness.
    - `asking`: what open question answering and truthfulness ask.
    - `truth`: how their answers are had and judged.
    """

    measuring: AuditOptions = AuditOptions()
    timing: EfficiencyOptions = EfficiencyOptions()
    answering: TaskOptions = TaskOptions()
    confidence: ConfidenceOptions = ConfidenceOptions()
    explaining: ExplanationOptions = ExplanationOptions()
    asking: QaOptions = QaOptions()
    truth: TruthOptions = TruthOptions()


class AuditContext:
    """The items that all models are measured on, read once, and the dense model that they are compared with.

    **Arguments:**

    - `settings`: how every instrument measures.
    - `dense`: the dense model.
    """

    def __init__(self, settings: AuditSettings, dense: Subject):
        self.settings = settings
        self.options = settings.measuring
        self.dense = dense

    @cached_property
    def text(self) -> str:
        """The text of the perplexity."""
        return perplexity_text(self.options.text)

    @cached_property
    def statements(self) -> StatementSet:
        """The audited statements."""
        chosen = select(load_statements(self.options.statements), "audit", self.options.selection)
        if "transfer" not in self.options.protocols:
            # The rest is only there to be transferred to: no need to run it through the models.
            chosen = chosen.where(lambda row: row.is_probing)
        return limit_datasets(chosen, self.options.per_dataset)

    @cached_property
    def questions(self) -> dict[str, list[ChoiceItem]]:
        """The questions of each task by its name."""
        o = self.settings.answering
        # All models are asked in the dense model's words, chat template included.
        tokenizer = self.dense.loaded.tokenizer
        return {find_task(name).name: questions(name, o.items, o, tokenizer=tokenizer) for name in own_tasks(o.tasks)}

    @cached_property
    def labels(self) -> dict[str, bool]:
        """Of each task whether its options are the same words in every item."""
        o = self.settings.answering
        return {task.name: o.by_labels(task) for task in map(find_task, own_tasks(o.tasks))}

    def predictions(self, subject: Subject) -> dict[str, Predictions]:
        """What a model answers in each task: asked once, read by every instrument."""
        for task, items in self.questions.items():
            if task not in subject.predictions:
                refuse_fitted(subject.name, subject.loaded.record, task, items)
                found = predict(
                    subject.loaded,
                    items,
                    task=task,
                    scoring=self.settings.answering.scoring,
                    labels=self.labels[task],
                )
                subject.predictions[task] = recalibrated(found, subject.loaded.record, self.settings.answering)
        return subject.predictions

    def explanations(self, subject: Subject) -> list[Explanation]:
        """How a model's answers are explained: once, for whoever compares with them."""
        if subject.explanations is None:
            subject.explanations = []
            for task, items in self.questions.items():
                refuse_fitted(subject.name, subject.loaded.record, task, items)
                scoring = self.settings.answering.scoring
                subject.explanations += explain(
                    subject.loaded, items, self.settings.explaining, task=task, scoring=scoring
                )
        return subject.explanations

    @cached_property
    def question_sets(self) -> dict[str, QuestionSet]:
        """The question sets by name."""
        return {found.name: found for found in map(find_set, self.settings.asking.qa)}

    @cached_property
    def asked(self) -> dict[str, list[AskedQuestion]]:
        """The questions of each set, in the dense model's words."""
        o, tokenizer = self.settings.asking, self.dense.loaded.tokenizer
        return {find_set(name).name: asked(name, o.qa_items, o, tokenizer=tokenizer) for name in o.qa}

    def sets_with_wrong(self, *, sentences: bool = False) -> list[str]:
        """The sets of which some question has wrong answers; with `sentences`, only those answered in sentences.

        **Raises:** `AuditError` if there is none.
        """
        found = [
            name
            for name, questions in self.asked.items()
            if any(one.question.wrong for one in questions) and (self.question_sets[name].sentences or not sentences)
        ]
        if not found:
            kind = " in sentences" if sentences else ""
            raise AuditError(
                f"no question set of --qa {' '.join(self.asked)} has wrong answers{kind}",
                "Add one that has, e.g. --qa misconceptions",
            )
        return found

    def answers(self, subject: Subject, names: Sequence[str] | None = None) -> dict[str, Answers]:
        """What a model says to the questions of some sets, by default of all: asked once, read by every instrument."""
        names = list(self.asked) if names is None else names
        for name in names:
            if name not in subject.answers:
                self._refuse_fitted(subject, name)
                subject.answers[name] = answer(
                    subject.loaded,
                    self.asked[name],
                    set_name=name,
                    new_tokens=self.settings.truth.new_tokens,
                    sentences=self.question_sets[name].sentences,
                    grade=self.settings.truth.grade,
                )
        return {name: subject.answers[name] for name in names}

    def choices(self, subject: Subject) -> dict[str, list[Choices]]:
        """How likely a model finds the right and wrong answers of each set that has both."""
        for name in self.sets_with_wrong():
            if name not in subject.choices:
                self._refuse_fitted(subject, name)
                subject.choices[name] = score_choices(subject.loaded, self.asked[name], set_name=name)
        return subject.choices

    def _refuse_fitted(self, subject: Subject, name: str) -> None:
        refuse_fitted(subject.name, subject.loaded.record, name, [one.question for one in self.asked[name]])

    @cached_property
    def dense_peak(self) -> int:
        """The block in which the dense model separates true from false best."""
        return int(separation_curve(self.statements, self.dense.activations(self.statements)).argmax())


def perplexity_text(name: str) -> str:
    """The text that perplexity is measured on; WikiText-2 is joined by blank lines, as the pruning papers do."""
    if name == "embedded":
        return "\n\n".join(read_documents(embedded_file("heldout.jsonl")))
    if name == "wikitext2":
        rows = hub_rows("Salesforce/wikitext", "wikitext-2-raw-v1", "test")
        return "\n\n".join(row["text"] for row in rows)
    if name.startswith("hf:"):
        return "\n\n".join(hub_column(name))
    return "\n\n".join(read_documents(Path(name)))


def limit_datasets(statements: StatementSet, per_dataset: int) -> StatementSet:
    """At most so many statements of each topic, polarity and language, taken by whole groups in order; 0 for all."""
    if per_dataset <= 0:
        return statements
    groups: dict[tuple[str, str, str], dict[str, int]] = {}
    for row in statements:
        sizes = groups.setdefault((row.topic, row.polarity, row.language), {})
        sizes[row.group] = sizes.get(row.group, 0) + 1
    kept = {}
    for dataset, sizes in groups.items():
        within = np.cumsum(list(sizes.values())) <= per_dataset
        kept[dataset] = {group for group, keep in zip(sizes, within, strict=True) if keep}
    return statements.where(lambda row: row.group in kept[row.topic, row.polarity, row.language])
