"""The instruments of an audit by name: each measures one model, given the dense one, and returns measurements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from trueprune._support.errors import AuditError
from trueprune.audits.accuracy import AccuracyOptions, measure_accuracy
from trueprune.audits.efficiency import DEFAULT_OPTIONS, EfficiencyOptions, measure_efficiency
from trueprune.audits.lie_detection import PROTOCOLS, measure_lie_detection
from trueprune.audits.measurement import Measurement
from trueprune.audits.perplexity import measure_perplexity
from trueprune.audits.probes import ProbeOptions
from trueprune.audits.separation import measure_separation, separation_curve
from trueprune.audits.subject import Subject
from trueprune.texts.choices import ChoiceItem, choice_items
from trueprune.texts.collections import load_statements
from trueprune.texts.rows import embedded_file, hub_rows, read_documents
from trueprune.texts.selection import Selection, select
from trueprune.texts.sources import hub_column
from trueprune.texts.statements import StatementSet


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


DEFAULT_TASKS = AccuracyOptions()


class AuditContext:
    """The items that all models are measured on, read once, and the dense model that they are compared with.

    **Arguments:**

    - `options`: how perplexity, lie detection and separation measure.
    - `dense`: the dense model.
    - `timing`: how efficiency measures.
    - `answering`: what accuracy asks.
    """

    def __init__(
        self,
        options: AuditOptions,
        dense: Subject,
        timing: EfficiencyOptions = DEFAULT_OPTIONS,
        answering: AccuracyOptions = DEFAULT_TASKS,
    ):
        self.options = options
        self.dense = dense
        self.timing = timing
        self.answering = answering

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
    def choices(self) -> dict[str, list[ChoiceItem]]:
        """The questions of each task."""
        return {task: choice_items(task, self.answering.items) for task in self.answering.tasks}

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
    return measure_efficiency(subject.loaded, dense, context.timing)


def _accuracy(subject: Subject, context: AuditContext) -> list[Measurement]:
    return [m for task, items in context.choices.items() for m in measure_accuracy(subject.loaded, task, items)]


INSTRUMENTS: dict[str, Callable[[Subject, AuditContext], list[Measurement]]] = {
    "perplexity": _perplexity,
    "lie-detection": _lie_detection,
    "separation": _separation,
    "efficiency": _efficiency,
    "accuracy": _accuracy,
}
# These measure a model beside the dense one, which must then stay in memory.
BESIDE_DENSE = frozenset({"efficiency"})


def check_instruments(names: Sequence[str]) -> None:
    """Refuse an unknown instrument.

    **Raises:** `AuditError` that names the known ones.
    """
    if unknown := [name for name in names if name not in INSTRUMENTS]:
        raise AuditError(f"unknown instrument {unknown[0]!r}", f"Use one of {', '.join(INSTRUMENTS)}")
