"""The document's measurements by model, instrument and metric, and how one of them is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trueprune.reports.html.numbers import interval, number, p_value, signed

# Of each reading its sign, its words and its class.
READINGS: Mapping[str | None, tuple[str, str, str]] = {
    "worse": ("▼", "worse", "worse"),
    "better": ("▲", "better", "better"),
    "maybe worse": ("▽", "maybe worse", "maybe-worse"),
    "maybe better": ("△", "maybe better", "maybe-better"),
    "no change found": ("≈", "no change found", "unclear"),
    "same": ("=", "the same", "unclear"),
    None: ("", "", "unclear"),
}


@dataclass(frozen=True)
class Cell:
    """One metric of one model as it is written.

    **Arguments:**

    - `value`, `interval`, `n`: the metric.
    - `change`, `change_interval`: against the dense model; empty for that one.
    - `sign`, `words`, `kind`: what the change comes to; `kind` is a class.
    - `star`: whether it stands after correction.
    - `p`: the corrected p-value.
    """

    value: str
    interval: str
    n: str
    change: str = ""
    change_interval: str = ""
    sign: str = ""
    words: str = ""
    kind: str = "unclear"
    star: bool = False
    p: str = ""


@dataclass(frozen=True)
class Measured:
    """The document by its parts.

    **Arguments:**

    - `document`: cleaned.
    - `names`: of the models, the dense one first.
    - `by_metric`: for each instrument and metric the rows by model.
    """

    document: Mapping[str, Any]
    names: Sequence[str] = field(init=False)
    by_metric: Mapping[tuple[str, str], Mapping[str, Mapping[str, Any]]] = field(init=False)

    def __post_init__(self):
        found: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
        for row in self.document["measurements"]:
            found.setdefault((row["instrument"], row["metric"]), {})[row["model"]] = row
        object.__setattr__(self, "names", [model["name"] for model in self.document["models"]])
        object.__setattr__(self, "by_metric", found)

    @property
    def instruments(self) -> list[Mapping[str, Any]]:
        """What measured, in the document's order."""
        return [one for one in self.document["instruments"] if one["measured"]]

    def metrics(
        self, instrument: str, *, headline: bool = False
    ) -> Iterator[tuple[str, Mapping[str, Mapping[str, Any]]]]:
        """The metrics of an instrument with their rows by model."""
        for (name, metric), rows in self.by_metric.items():
            if name == instrument and (not headline or any(row["headline"] for row in rows.values())):
                yield metric, rows


def cell(row: Mapping[str, Any] | None) -> Cell | None:
    """A row as it is written; `None` where the model lacks the metric."""
    if row is None:
        return None
    unit, change = row["unit"], row["change"]
    # What has a single item is a count, and has no interval.
    counted = row["n"] == 1
    found = Cell(number(row["value"], unit), "" if counted else interval(row["interval"], unit), f"{row['n']:,}")
    if change is None:
        return found
    sign, words, kind = READINGS.get(change.get("reading"), READINGS[None])
    return Cell(
        found.value,
        found.interval,
        found.n,
        signed(change["value"], unit),
        "" if counted else interval(change["interval"], unit, change=True),
        sign,
        words,
        kind,
        bool(change.get("significant")),
        p_value((change.get("test") or {}).get("p_adjusted")) if change.get("test") else "",
    )


def better_words(row: Mapping[str, Any]) -> str:
    """Which direction is good."""
    return "higher is better" if row["higher_is_better"] else "lower is better"
