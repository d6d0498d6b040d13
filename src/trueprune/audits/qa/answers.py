"""What a model says when it is asked: one greedy line a question, graded; kept as Parquet and read by every metric.

Legend: N questions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float

from trueprune._support.errors import AuditError
from trueprune._support.parquet import read_rows
from trueprune.audits.qa.grading import Graded, graded
from trueprune.audits.qa.options import Grade
from trueprune.models.load import LoadedModel
from trueprune.observe.generate import BATCH_TOKENS, Generated, greedy
from trueprune.texts.encode import encode_texts
from trueprune.texts.qa.contract import AskedQuestion, JudgedAnswer


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers of one model to the questions of one set.

    **Arguments:**

    - `set_name`: of the set.
    - `item_ids`, `clusters`, `sha256`, `questions`: of each question: name, what it is resampled with, hash, text.
    - `texts`: the answers, one line each; empty where nothing was said.
    - `log_probs`: of each answer the log-probabilities of its tokens, with the one that ended it.
    - `grades`: what is to be said of each.
    """

    set_name: str
    item_ids: tuple[str, ...]
    clusters: tuple[str, ...]
    sha256: tuple[str, ...]
    questions: tuple[str, ...]
    texts: tuple[str, ...]
    log_probs: tuple[np.ndarray, ...]
    grades: tuple[Graded, ...]

    def __len__(self) -> int:
        return len(self.item_ids)

    def column(self, name: str) -> Float[np.ndarray, " N"]:
        """One grade of all answers (`correct`, `exact`, `contained`, `f1`, `abstained`, `hallucinated`) as numbers."""
        return np.array([getattr(grade, name) for grade in self.grades], dtype=np.float64)

    @cached_property
    def answered_N(self) -> Bool[np.ndarray, " N"]:
        """Whether each question was answered at all."""
        return self.column("abstained") == 0

    @cached_property
    def sum_N(self) -> Float[np.ndarray, " N"]:
        """The log-probability of each answer: the sum over its tokens, with what ended it, in nats."""
        # Rounding may put a certain token a little above zero.
        return np.minimum([float(array.sum()) for array in self.log_probs], 0.0)

    @cached_property
    def mean_N(self) -> Float[np.ndarray, " N"]:
        """The mean log-probability of the tokens of each answer."""
        return np.minimum([float(array.mean()) for array in self.log_probs], 0.0)


def answer(
    loaded: LoadedModel,
    questions: Sequence[AskedQuestion],
    *,
    set_name: str,
    new_tokens: int = 32,
    batch_tokens: int = BATCH_TOKENS,
    sentences: bool = False,
    grade: Grade = "contains",
) -> Answers:
    """Ask questions, and take the likeliest token after token until the line, the text or the patience ends.

    **Arguments:**

    - `loaded`: model and tokenizer.
    - `questions`: at least one.
    - `set_name`: their set.
    - `new_tokens`: at most so many tokens an answer.
    - `batch_tokens`: tokens in a batch, padding and new ones included.
    - `sentences`, `grade`: as for `graded`.

    **Raises:** `AuditError` for no questions, one over the model's limit, or a model whose likelihoods are not finite.
    """
    if not questions:
        raise AuditError(f"the question set {set_name} has no questions", "Give some")
    tokenizer: Any = loaded.tokenizer
    prompts = [_encoded(loaded, one, new_tokens, set_name) for one in questions]
    found = greedy(
        loaded.model,
        prompts,
        end_ids=end_ids(loaded),
        stops=lambda new: "\n" in tokenizer.decode(new),
        new_tokens=new_tokens,
        batch_tokens=batch_tokens,
        description=f"answers ({set_name})",
    )
    for one, new in zip(questions, found, strict=True):
        if not np.isfinite(new.log_probs).all():
            raise AuditError(
                f"the model gives no finite likelihood (question {one.question.id} of {set_name})",
                "Its weights or activations overflow; try --dtype float32",
            )
    texts = [_line(tokenizer, new) for new in found]
    asked = [one.question for one in questions]
    return Answers(
        set_name,
        tuple(question.id for question in asked),
        tuple(question.cluster or question.id for question in asked),
        tuple(question.sha256 for question in asked),
        tuple(question.text for question in asked),
        tuple(texts),
        tuple(new.log_probs for new in found),
        tuple(graded(text, q, grade=grade, sentences=sentences) for text, q in zip(texts, asked, strict=True)),
    )


def judged(questions: Sequence[AskedQuestion], answers: Answers) -> list[JudgedAnswer]:
    """A model's own answers as examples of truth and error; where it abstained there is none.

    **Arguments:**

    - `questions`: that were asked.
    - `answers`: to them.
    """
    return [
        JudgedAnswer(
            one.question.id,
            one.prompt,
            " " + text,
            grade.hallucinated,
            one.question.cluster or one.question.id,
            one.special,
        )
        for one, text, grade in zip(questions, answers.texts, answers.grades, strict=True)
        if not grade.abstained
    ]


def end_ids(loaded: LoadedModel) -> frozenset[int]:
    """The tokens with which a model ends a text, by its tokenizer and its configurations."""
    found: set[int] = set()
    for holder in (loaded.tokenizer, *(getattr(loaded.model, name, None) for name in ("config", "generation_config"))):
        value = getattr(holder, "eos_token_id", None)
        found.update([value] if isinstance(value, int) else value or [])
    return frozenset(found)


def _encoded(loaded: LoadedModel, one: AskedQuestion, new_tokens: int, set_name: str) -> list[int]:
    ids = encode_texts(loaded, [one.prompt], one.special)[0]
    if not ids:
        raise AuditError(f"the question {one.question.id} of {set_name} has no tokens", "Give it a prompt")
    # The last new token is not read.
    if loaded.max_length and len(ids) + new_tokens - 1 > loaded.max_length:
        raise AuditError(
            f"the question {one.question.id} of {set_name} has {len(ids)} tokens, and with {new_tokens} new ones it is "
            f"over the model's limit of {loaded.max_length}",
            "Lower --new-tokens, take a shorter --primer, or leave the set out of --qa",
        )
    return ids


def _line(tokenizer: Any, new: Generated) -> str:
    text = tokenizer.decode(list(new.tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text.split("\n")[0].strip()


_GRADES = ("correct", "exact", "contained", "f1", "abstained")
_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("model", "set", "item", "cluster", "sha256", "question", "answer")),
        ("log_probs", pa.list_(pa.float64())),
        *((name, pa.float64() if name == "f1" else pa.bool_()) for name in _GRADES),
    ]
)
_COLUMNS = {"item": "item_ids", "cluster": "clusters", "sha256": "sha256", "question": "questions", "answer": "texts"}


def write_answers(found: Iterable[tuple[str, Answers]], file: Path) -> None:
    """Write the answers of several models to several sets as one Parquet table, one row a question.

    **Arguments:**

    - `found`: model names with their answers.
    - `file`: the file.
    """
    rows = [
        {
            "model": model,
            "set": answers.set_name,
            **{name: getattr(answers, attribute)[i] for name, attribute in _COLUMNS.items()},
            "log_probs": answers.log_probs[i].tolist(),
            **vars(answers.grades[i]),
        }
        for model, answers in found
        for i in range(len(answers))
    ]
    pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), file)


def read_answers(file: str | Path) -> dict[tuple[str, str], Answers]:
    """The answers in a Parquet file by model and set.

    **Raises:** `AuditError` if it is no such file.
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in read_rows(file, _SCHEMA, "answers"):
        groups.setdefault((row["model"], row["set"]), []).append(row)
    return {key: _from_rows(key[1], rows) for key, rows in groups.items()}


def _from_rows(set_name: str, rows: list[dict[str, Any]]) -> Answers:
    columns = {attribute: tuple(row[name] for row in rows) for name, attribute in _COLUMNS.items()}
    return Answers(
        set_name,
        **columns,
        log_probs=tuple(np.array(row["log_probs"], dtype=np.float64) for row in rows),
        grades=tuple(Graded(**{name: row[name] for name in _GRADES}) for row in rows),
    )
