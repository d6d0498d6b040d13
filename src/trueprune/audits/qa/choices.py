"""How likely a model finds each right and wrong answer to a question: a table, kept as Parquet.

Legend: C distinct answers of a question.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from trueprune._support.errors import AuditError
from trueprune._support.parquet import read_rows
from trueprune.audits.predict import encode_options
from trueprune.audits.qa.multiple_choice import mc0, mc1, mc2, mc3
from trueprune.models.load import LoadedModel
from trueprune.observe.continuations import BATCH_TOKENS, log_likelihoods
from trueprune.texts.qa.contract import AskedQuestion, Question
from trueprune.texts.tasks import ChoiceItem


@dataclass(frozen=True, eq=False)
class Choices:
    """The scores of the answers to one question.

    **Arguments:**

    - `item`, `cluster`, `sha256`: of the question.
    - `answers`: all that are right, wrong or a choice of MC1, each once.
    - `scores_C`: the log-likelihood of each, the sum over its tokens, in nats.
    - `tokens`: how many each has.
    - `right`, `wrong`, `one`: indices of answers as the set lists them (with repetitions); of `one` the first is right.
    - `best_wrong`: index of the one most tempting wrong answer, or -1 where the set does not say.
    """

    item: str
    cluster: str
    sha256: str
    answers: tuple[str, ...]
    scores_C: Float[np.ndarray, " C"]
    tokens: tuple[int, ...]
    right: tuple[int, ...]
    wrong: tuple[int, ...]
    one: tuple[int, ...]
    best_wrong: int = -1

    def metrics(self) -> dict[str, float]:
        """`mc0`, `mc1`, `mc2` and `mc3`."""
        right_R, wrong_W = self.scores_C[list(self.right)], self.scores_C[list(self.wrong)]
        rival_W = wrong_W if self.best_wrong < 0 else self.scores_C[[self.best_wrong]]
        return {
            "mc0": mc0(float(right_R[0]), rival_W),
            "mc1": mc1(self.scores_C[list(self.one)]),
            "mc2": mc2(right_R, wrong_W),
            "mc3": mc3(right_R, wrong_W),
        }


def score_choices(
    loaded: LoadedModel, questions: Sequence[AskedQuestion], *, set_name: str, batch_tokens: int = BATCH_TOKENS
) -> list[Choices]:
    """Score the answers that questions bring: prompts read once, and what they share once for all.

    **Arguments:**

    - `loaded`: model and tokenizer.
    - `questions`: those without wrong answers are left out.
    - `set_name`: what the progress bar says.
    - `batch_tokens`: tokens in a batch, padding included.

    **Raises:** `AuditError` for an answer longer than the model's context, or a model whose likelihoods are not finite.
    """
    asked = [one for one in questions if one.question.wrong]
    lists = [_answers(one.question) for one in asked]
    asks = []
    for one, answers in zip(asked, lists, strict=True):
        options = tuple(" " + answer for answer in answers)
        item = ChoiceItem(one.question.id, one.prompt, options, 0, one.question.id, special=one.special)
        try:
            asks.append(encode_options(loaded, item))
        except AuditError as error:
            remedy = f"Leave {set_name} out of --qa, shorten its answers, or take a shorter --primer"
            raise AuditError(error.problem, remedy) from error
    found = log_likelihoods(loaded.model, asks, batch_tokens=batch_tokens, description=f"choices ({set_name})")
    rows = []
    for one, answers, arrays in zip(asked, lists, found, strict=True):
        scores_C = np.array([float(array[0].sum()) for array in arrays])
        if not np.isfinite(scores_C).all():
            raise AuditError(
                f"the model gives no finite likelihood (question {one.question.id} of {set_name})",
                "Its weights or activations overflow; try --dtype float32",
            )
        rows.append(_row(one.question, answers, scores_C, tuple(array.shape[1] for array in arrays)))
    return rows


def _answers(question: Question) -> tuple[str, ...]:
    best = (question.best_wrong,) if question.best_wrong else ()
    return tuple(dict.fromkeys((*question.right, *question.wrong, *question.one, *best)))


def _row(question: Question, answers: tuple[str, ...], scores_C: np.ndarray, tokens: tuple[int, ...]) -> Choices:
    place = {answer: index for index, answer in enumerate(answers)}
    right, wrong, one = (tuple(map(place.__getitem__, side)) for side in (question.right, question.wrong, question.one))
    best = place.get(question.best_wrong, -1)
    cluster = question.cluster or question.id
    return Choices(question.id, cluster, question.sha256, answers, scores_C, tokens, right, wrong, one, best)


_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("model", "set", "item", "cluster", "sha256")),
        ("answers", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float64())),
        *((name, pa.list_(pa.int64())) for name in ("tokens", "right", "wrong", "one")),
        ("best_wrong", pa.int64()),
        *((name, pa.float64()) for name in ("mc0", "mc1", "mc2", "mc3")),
    ]
)


def write_choices(found: Iterable[tuple[str, str, Sequence[Choices]]], file: Path) -> None:
    """Write the scores of several models and sets as one Parquet table, one row a question.

    **Arguments:**

    - `found`: model, set, and its questions.
    - `file`: the file.
    """
    rows = [
        {"model": model, "set": name, "scores": one.scores_C.tolist(), **one.metrics(), **_plain(one)}
        for model, name, choices in found
        for one in choices
    ]
    pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), file)


def read_choices(file: str | Path) -> dict[tuple[str, str], list[Choices]]:
    """The scores in a Parquet file by model and set.

    **Raises:** `AuditError` if it is no such file.
    """
    groups: dict[tuple[str, str], list[Choices]] = {}
    for row in read_rows(file, _SCHEMA, "choices"):
        lists: dict[str, Any] = {name: tuple(row[name]) for name in ("answers", "tokens", "right", "wrong", "one")}
        plain = {name: row[name] for name in ("item", "cluster", "sha256", "best_wrong")}
        one = Choices(**plain, **lists, scores_C=np.array(row["scores"], dtype=np.float64))
        groups.setdefault((row["model"], row["set"]), []).append(one)
    return groups


def _plain(one: Choices) -> dict[str, Any]:
    return {name: value for name, value in vars(one).items() if name != "scores_C"}
