"""`make results-layers`: the tables of layer dropping in docs/results.md, on real rows (needs TRUEPRUNE_DATA)."""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from trueprune import (
    AuditOptions,
    CalibrationOptions,
    Drop,
    DropOptions,
    NearZero,
    Plan,
    TaskOptions,
    TokenBatch,
    apply_drop,
    calibration_tokens,
    drop,
    load,
    observe_blocks,
    read_anatomy,
    show_progress,
)
from trueprune.audits.context import AuditSettings
from trueprune.edits.drop import present
from trueprune.jobs.audit import audit_models
from trueprune.models import LoadedModel
from trueprune.plans.choose import by_rank, candidates, importance_of
from trueprune.plans.rankings import RANKINGS, LayerEvidence

SHARES = (0.10, 0.20, 1 / 3, 0.50)
BLOCKS = ("avss", "block-influence", "angular", "random", "first", "last")
ATTENTION = ("avss", "cosine", "random", "first", "last")
GROUPS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "blocks, one-shot": ("block", "one-shot", BLOCKS),
    "blocks, iterative": ("block", "iterative", BLOCKS[:3]),
    "attention, one-shot": ("attention", "one-shot", ATTENTION),
    "attention, iterative": ("attention", "iterative", ATTENTION[:2]),
}
INSTRUMENTS = ("perplexity", "lie-detection", "accuracy")
COLUMNS = {
    "perplexity": "perplexity",
    "accuracy, facts": "accuracy/facts",
    "accuracy, ARC-Easy": "accuracy/arc_easy",
    "lie detection, retrained": "grouped/logistic/retrained",
    "lie detection, dense probe": "grouped/logistic/frozen",
}


def main() -> None:
    """Drop and audit, group by group; a group that was finished before is not run again."""
    parser = argparse.ArgumentParser(prog="python -m bench.layers", description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--only", nargs="*", choices=list(GROUPS))
    options = parser.parse_args()
    dense = load("demo")
    tokens = calibration_tokens(dense, CalibrationOptions(sources=("c4",), nsamples=16))
    measuring = AuditOptions(
        text="wikitext2", max_tokens=8192, statements="truth-is-universal", per_dataset=82, protocols=("grouped",)
    )
    answering = TaskOptions(tasks=("facts", "arc_easy"), items=150)
    with show_progress():
        for group in options.only or GROUPS:
            folder = options.output / group.replace(", ", "-")
            if (folder / "audit.json").is_file():
                continue
            print(group, file=sys.stderr, flush=True)
            audit_models(
                models_of(dense, tokens, group),
                folder,
                instruments=INSTRUMENTS,
                settings=AuditSettings(measuring, answering=answering),
                overwrite=True,
            )
    for group in options.only or GROUPS:
        print(f"\n### {group}\n\n{markdown(options.output / group.replace(', ', '-') / 'audit.json')}")


def models_of(dense: LoadedModel, tokens: TokenBatch, group: str) -> Iterator[tuple[str, Callable[[], LoadedModel]]]:
    """The dense model, then a copy of it for each ranking and share."""
    what, schedule, rankings = GROUPS[group]
    yield "dense", lambda: dense
    for ranking in rankings:
        order = orders(dense, tokens, what, ranking, schedule)
        for share in SHARES:
            count = int(share * len(read_anatomy(dense.model).blocks) + 1e-9)
            yield f"{ranking} {share:.0%}", lambda gone=order[:count]: without(dense, what, gone)


def orders(dense: LoadedModel, tokens: TokenBatch, what: str, by: str, schedule: str) -> list[int]:
    """Which layers go, in the order in which they go, up to the largest share."""
    anatomy = read_anatomy(dense.model)
    count = int(max(SHARES) * len(anatomy.blocks))
    if schedule == "one-shot":
        ranking = RANKINGS[by]
        profile = observe_blocks(anatomy, tokens, zero=NearZero())[1] if ranking.observes else None
        units = candidates(what, present(anatomy))
        importance_K = importance_of(units, ranking, LayerEvidence(len(anatomy.blocks), profile))
        return [units[i][1] for i in by_rank(importance_K, count)]
    choice = DropOptions(what=what, by=by, count=count, schedule="iterative")  # type: ignore[arg-type]
    dropped = drop(copied(dense), choice=choice, tokens=tokens).plan.drop
    assert dropped is not None
    # Rounds count in the blocks of the whole model.
    return [int(found["dropped"][0].split()[1]) for found in dropped.rounds]


def without(dense: LoadedModel, what: str, gone: list[int]) -> LoadedModel:
    """A copy of the model without some layers."""
    model = copied(dense)
    anatomy = read_anatomy(model.model)
    kind = "blocks" if what == "block" else what
    going = Drop.from_json({kind: gone}, len(anatomy.blocks))
    apply_drop(anatomy, going)
    return replace(model, record={"plan": Plan("drop", 0.0, drop=going).to_json()})


def copied(dense: LoadedModel) -> LoadedModel:
    """A copy to change."""
    return replace(dense, model=copy.deepcopy(dense.model))


def markdown(file: Path) -> str:
    """A table of one group: value, and in brackets the interval of the paired change."""
    report = json.loads(file.read_text(encoding="utf-8"))
    rows: dict[str, dict[str, Any]] = {}
    for row in report["measurements"]:
        rows.setdefault(row["model"], {})[row["metric"]] = row
    lines = ["| dropped | " + " | ".join(COLUMNS) + " |", "|---|" + "---|" * len(COLUMNS)]
    for name, found in rows.items():
        lines.append(f"| {name} | " + " | ".join(cell(found[metric]) for metric in COLUMNS.values()) + " |")
    return "\n".join(lines)


def cell(row: dict[str, Any]) -> str:
    """A value, and the interval of its change; of a perplexity beyond ten thousand only the size."""
    if row["value"] > 1e4:
        return f"{row['value']:.0e}"
    digits = 1 if row["metric"] == "perplexity" else 3
    change = row["change"]
    interval = "" if change is None else " ({:+.{d}f} to {:+.{d}f})".format(*change["interval"], d=digits)
    return f"{row['value']:.{digits}f}{interval}"


if __name__ == "__main__":
    main()
