"""What the items of an audit say and what each model answered, gathered while questions and answers are at hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from trueprune.audits.context import AuditContext
from trueprune.audits.faithfulness.explain import Explanation
from trueprune.audits.lie_detection import statement_ids
from trueprune.audits.predictions import Predictions
from trueprune.audits.qa.answers import Answers
from trueprune.audits.qa.choices import Choices
from trueprune.audits.subject import Subject
from trueprune.texts.tasks import ChoiceItem

# So many words of an explanation are named.
WORDS = 4


@dataclass(frozen=True)
class ItemText:
    """What an item says.

    **Arguments:**

    - `text`: the statement, the question or the text of the task.
    - `right`: the right answer; empty where there is none.
    """

    text: str
    right: str = ""


@dataclass(frozen=True)
class Said:
    """What a model answered.

    **Arguments:**

    - `words`: the answer.
    - `probability`: of the answer among those to choose from; `None` for answers in the model's own words.
    """

    words: str
    probability: float | None = None


Texts = Mapping[str, Mapping[str, ItemText]]
Answered = Mapping[str, Mapping[str, Mapping[str, Said]]]


@dataclass(frozen=True)
class ItemTexts:
    """What the items of an audit say and what was answered.

    **Arguments:**

    - `items`: by pool (`statements`, `accuracy/TASK`, `calibration/TASK`, `truthfulness/SET` ...) and item.
    - `said`: by model, pool and item.
    """

    items: Texts = field(default_factory=dict)
    said: Answered = field(default_factory=dict)


def pool_of(instrument: str, metric: str) -> str:
    """Where the items of a metric are found: lie detection and separation share their statements."""
    if instrument in ("lie-detection", "separation"):
        return "statements"
    parts = metric.split("/")
    # An attribution explains in its own words.
    name = "/".join(parts[1:3]) if instrument == "faithfulness" else "".join(parts[1:2])
    return f"{instrument}/{name}"


def gather(subjects: Sequence[Subject], context: AuditContext) -> ItemTexts:
    """What was asked and answered in an audit, from what its subjects and context hold; no model is asked again.

    **Arguments:**

    - `subjects`: the models; their weights may have been released.
    - `context`: the items. What no instrument has read is not read now.
    """
    # Reading a cached property would load what nothing measured, and ask a tokenizer that may be gone.
    read = vars(context)
    items: dict[str, dict[str, ItemText]] = {}
    if statements := read.get("statements"):
        rows = zip(statement_ids(statements), statements, strict=True)
        items["statements"] = {name: ItemText(row.text, "true" if row.label else "false") for name, row in rows}
    for task, questions in read.get("questions", {}).items():
        texts = {item.id: ItemText(_task_text(item), item.options[item.gold].strip()) for item in questions}
        items |= {f"{instrument}/{task}": texts for instrument in ("accuracy", "calibration")}
        items |= {pool: texts for subject in subjects for pool in _explained(subject, task)}
    for name, asked in read.get("asked", {}).items():
        texts = {one.question.id: ItemText(one.question.text, one.question.right[0]) for one in asked}
        items |= {f"{kind}/{name}": texts for kind in ("open-qa", "truthfulness", "truthful-generation")}
    said = {subject.name: _said(subject, read.get("questions", {})) for subject in subjects}
    return ItemTexts(items, said)


def _task_text(item: ChoiceItem) -> str:
    """The text of the task without instruction and examples, or the whole prompt where it has no words."""
    spans = [span for field in item.words for span in field]
    return item.prompt[spans[0][0] : spans[-1][1]] if spans else item.prompt


def _explained(subject: Subject, task: str) -> set[str]:
    return {f"faithfulness/{task}/{one.attribution}" for one in subject.explanations or () if one.task == task}


def _said(subject: Subject, questions: Mapping[str, Sequence[ChoiceItem]]) -> dict[str, dict[str, Said]]:
    found: dict[str, dict[str, Said]] = {}
    for task, predictions in subject.predictions.items():
        options = {item.id: item.options for item in questions.get(task, ())}
        found[f"calibration/{task}"] = dict(_chosen(predictions, predictions.logits_NC, options))
        found[f"accuracy/{task}"] = dict(_chosen(predictions, _compared(predictions), options))
    for one in subject.explanations or ():
        found.setdefault(f"faithfulness/{one.task}/{one.attribution}", {})[one.item] = _decisive(one)
    for name, answers in subject.answers.items():
        told = dict(_told(answers))
        found |= {f"open-qa/{name}": told, f"truthful-generation/{name}": told}
    for name, choices in subject.choices.items():
        found[f"truthfulness/{name}"] = {one.item: _likeliest(one) for one in choices}
    return found


def _compared(predictions: Predictions) -> np.ndarray:
    """What accuracy compares: likelihoods per byte where options are texts of their own."""
    if predictions.labels or predictions.scoring != "sum":
        return predictions.logits_NC
    with np.errstate(divide="ignore", invalid="ignore"):
        per_byte_NC = predictions.own_logits_NC / predictions.bytes_NC
    return np.where(predictions.bytes_NC > 0, per_byte_NC, -np.inf)


def _chosen(
    predictions: Predictions, scores_NC: np.ndarray, options: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, Said]]:
    for row, name in enumerate(predictions.item_ids):
        best = int(scores_NC[row].argmax())
        if name in options:
            yield name, Said(options[name][best].strip(), float(predictions.probabilities_NC[row, best]))


def _decisive(one: Explanation) -> Said:
    order = np.argsort(-np.asarray(one.scores), kind="stable")[:WORDS]
    return Said(", ".join(one.words[i] for i in order))


def _told(answers: Answers) -> Iterator[tuple[str, Said]]:
    for name, text in zip(answers.item_ids, answers.texts, strict=True):
        yield name, Said(text)


def _likeliest(one: Choices) -> Said:
    scores = one.scores_C[list(one.one)]
    share = np.exp(scores - scores.max())
    best = int(scores.argmax())
    return Said(one.answers[one.one[best]], float(share[best] / share.sum()))
