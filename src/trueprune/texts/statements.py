"""True/false statements: the contract (text, label, topic, polarity, language, group) and its collections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

POLARITIES = ("affirmative", "negated", "conjunction", "disjunction", "scenario")


@dataclass(frozen=True)
class Statement:
    """One statement.

    **Arguments:**

    - `text`: the statement as the model reads it.
    - `label`: 1 true, 0 false.
    - `topic`: what it is about, shared by affirmative and negated forms (`"cities"`).
    - `polarity`: one of `POLARITIES`.
    - `language`: ISO 639-1 code.
    - `group`: ties the variants of one fact together; parts joined by `|` where a statement combines several facts.
        Whatever is split is split by group, so that no fact is on both sides.
    """

    text: str
    label: int
    topic: str
    polarity: str = "affirmative"
    language: str = "en"
    group: str = ""

    @property
    def is_probing(self) -> bool:
        """Whether probes are trained on it: English, affirmative or negated."""
        return self.language == "en" and self.polarity in ("affirmative", "negated")


class StatementSet(Sequence[Statement]):
    """An immutable sequence of statements with columns as arrays.

    `labels` is an int array of shape `(n,)`; `topics`, `polarities`, `languages`, `groups` are string arrays of shape
    `(n,)`; `texts` is a list of strings.
    """

    def __init__(self, statements: Sequence[Statement], name: str = "statements"):
        self.rows = tuple(statements)
        self.name = name

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Statement]:
        return iter(self.rows)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return StatementSet(self.rows[index], self.name)
        return self.rows[index]

    def where(self, keep: Callable[[Statement], bool]) -> StatementSet:
        """The statements for which `keep` holds, in order."""
        return StatementSet([row for row in self.rows if keep(row)], self.name)

    def take(self, indices: Sequence[int] | np.ndarray) -> StatementSet:
        """The statements at `indices`, in that order."""
        return StatementSet([self.rows[int(i)] for i in indices], self.name)

    @property
    def texts(self) -> list[str]:
        """The statements as the model reads them."""
        return [row.text for row in self.rows]

    @property
    def labels(self) -> np.ndarray:
        """1 for true, 0 for false; of shape `(n,)`."""
        return np.array([row.label for row in self.rows], dtype=np.int64)

    @property
    def topics(self) -> np.ndarray:
        """Topics, of shape `(n,)`."""
        return np.array([row.topic for row in self.rows], dtype=object)

    @property
    def polarities(self) -> np.ndarray:
        """Polarities, of shape `(n,)`."""
        return np.array([row.polarity for row in self.rows], dtype=object)

    @property
    def languages(self) -> np.ndarray:
        """Language codes, of shape `(n,)`."""
        return np.array([row.language for row in self.rows], dtype=object)

    @property
    def groups(self) -> np.ndarray:
        """Group keys, of shape `(n,)`."""
        return np.array([row.group for row in self.rows], dtype=object)
