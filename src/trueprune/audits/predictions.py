"""What a model answered: one row an item with the scores of its options, kept as Parquet and read by every metric.

Legend: N items, C options of the item with most.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from trueprune._support.parquet import read_rows


@dataclass(frozen=True, eq=False)
class Predictions:
    """The answers of one model on one task.

    Items may differ in how many options they have: rows are filled up with scores of `-inf`, whose probability is 0.

    **Arguments:**

    - `task`: its name.
    - `item_ids`, `clusters`, `sha256`: of each item: name, what it is resampled with, hash of its text and options.
    - `gold_N`: index of the right option.
    - `scores_NC`: log-likelihood of each option, the sum over its tokens, in nats.
    - `first_NC`: log-probability of each option's first token.
    - `tokens_NC`, `bytes_NC`: how long each option is; 0 where there is none.
    - `prior_NC`: the score after a prompt without content; 0 where none was asked for.
    - `mass_N`: the probability that the model gives to the options' first tokens together.
    - `scoring`: how scores make the logits: `sum`, `mean`, `first`.
    - `labels`: the options are the same words in every item.
    - `recalibrated_NC`: log-probabilities of the options after a recalibration, in the place of the logits.
    """

    task: str
    item_ids: tuple[str, ...]
    clusters: tuple[str, ...]
    sha256: tuple[str, ...]
    gold_N: Int[np.ndarray, " N"]
    scores_NC: Float[np.ndarray, "N C"]
    first_NC: Float[np.ndarray, "N C"]
    tokens_NC: Int[np.ndarray, "N C"]
    bytes_NC: Int[np.ndarray, "N C"]
    prior_NC: Float[np.ndarray, "N C"]
    mass_N: Float[np.ndarray, " N"]
    scoring: str = "sum"
    labels: bool = False
    recalibrated_NC: Float[np.ndarray, "N C"] | None = None

    def __len__(self) -> int:
        return len(self.item_ids)

    @cached_property
    def logits_NC(self) -> Float[np.ndarray, "N C"]:
        """What the softmax over the options is taken of; `-inf` where an item has no such option."""
        return self.own_logits_NC if self.recalibrated_NC is None else self.recalibrated_NC

    @cached_property
    def own_logits_NC(self) -> Float[np.ndarray, "N C"]:
        """The model's own logits, before any recalibration."""
        own = self.first_NC if self.scoring == "first" else self.scores_NC
        logits_NC = own - self.prior_NC
        if self.scoring == "mean":
            logits_NC = logits_NC / np.maximum(self.tokens_NC, 1)
        return np.where(self.tokens_NC > 0, logits_NC, -np.inf)

    @cached_property
    def probabilities_NC(self) -> Float[np.ndarray, "N C"]:
        """Probabilities of the options, among the options only; each row sums to one."""
        shifted_NC = np.exp(self.logits_NC - self.logits_NC.max(1, keepdims=True))
        return shifted_NC / shifted_NC.sum(1, keepdims=True)

    @property
    def n_options(self) -> Int[np.ndarray, " N"]:
        """How many options each item has."""
        return (self.tokens_NC > 0).sum(1)

    def take(self, rows: Sequence[int]) -> Predictions:
        """Some of the items."""
        picked = {name: tuple(getattr(self, name)[i] for i in rows) for name in ("item_ids", "clusters", "sha256")}
        arrays = {name: getattr(self, name)[list(rows)] for name in (*_MATRICES, "gold_N", "mass_N")}
        after_NC = None if self.recalibrated_NC is None else self.recalibrated_NC[list(rows)]
        return replace(self, **picked, **arrays, recalibrated_NC=after_NC)

    @property
    def recalibrated(self) -> bool:
        """Whether the logits are those of a recalibration."""
        return self.recalibrated_NC is not None

    def with_probabilities(self, probabilities_NC: Float[np.ndarray, "N C"]) -> Predictions:
        """The same answers with the probabilities of a recalibration."""
        with np.errstate(divide="ignore"):
            return replace(self, recalibrated_NC=np.log(probabilities_NC))

    def rows(self, model: str = "") -> list[dict[str, Any]]:
        """Plain rows: what the Parquet file holds."""
        rows = []
        for i, name in enumerate(self.item_ids):
            n = int(self.n_options[i])
            lists = {key.removesuffix("_NC"): getattr(self, key)[i, :n].tolist() for key in _MATRICES}
            rows.append(
                {
                    "model": model,
                    "task": self.task,
                    "item": name,
                    "cluster": self.clusters[i],
                    "sha256": self.sha256[i],
                    "gold": int(self.gold_N[i]),
                    **lists,
                    "logits": self.logits_NC[i, :n].tolist(),
                    "probabilities": self.probabilities_NC[i, :n].tolist(),
                    "mass": float(self.mass_N[i]),
                    "scoring": self.scoring,
                    "labels": self.labels,
                    "recalibrated": self.recalibrated,
                }
            )
        return rows


_MATRICES = ("scores_NC", "first_NC", "tokens_NC", "bytes_NC", "prior_NC")
_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("model", "task", "item", "cluster", "sha256")),
        ("gold", pa.int64()),
        *((name, pa.list_(pa.float64())) for name in ("scores", "first")),
        *((name, pa.list_(pa.int64())) for name in ("tokens", "bytes")),
        *((name, pa.list_(pa.float64())) for name in ("prior", "logits", "probabilities")),
        ("mass", pa.float64()),
        ("scoring", pa.string()),
        ("labels", pa.bool_()),
        ("recalibrated", pa.bool_()),
    ]
)


def write_predictions(found: Iterable[tuple[str, Predictions]], file: Path) -> None:
    """Write the predictions of several models and tasks as one Parquet table, one row an item.

    **Arguments:**

    - `found`: model names with their predictions.
    - `file`: the file.
    """
    rows = [row for model, predictions in found for row in predictions.rows(model)]
    pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), file)


def read_predictions(file: str | Path) -> dict[tuple[str, str], Predictions]:
    """The predictions in a Parquet file by model and task.

    **Raises:** `AuditError` if it is no such file.
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in read_rows(file, _SCHEMA, "predictions"):
        groups.setdefault((row["model"], row["task"]), []).append(row)
    return {key: _from_rows(group) for key, group in groups.items()}


def _from_rows(rows: list[dict[str, Any]]) -> Predictions:
    def column(name: str) -> tuple[Any, ...]:
        return tuple(row[name] for row in rows)

    return Predictions(
        rows[0]["task"],
        column("item"),
        column("cluster"),
        column("sha256"),
        np.array(column("gold"), dtype=np.int64),
        filled(column("scores"), -np.inf),
        filled(column("first"), -np.inf),
        filled(column("tokens"), 0).astype(np.int64),
        filled(column("bytes"), 0).astype(np.int64),
        filled(column("prior"), 0.0),
        np.array(column("mass"), dtype=np.float64),
        rows[0]["scoring"],
        rows[0]["labels"],
        filled(column("logits"), -np.inf) if rows[0]["recalibrated"] else None,
    )


def filled(rows: Sequence[Sequence[float | int]], fill: float | int) -> np.ndarray:
    """Rows of different length as one float64 array, filled up at the end."""
    result = np.full((len(rows), max(map(len, rows))), fill, dtype=np.float64)
    for i, row in enumerate(rows):
        result[i, : len(row)] = row
    return result
