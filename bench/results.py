"""`make results`: the tables of docs/results.md, on real rows (needs TRUEPRUNE_DATA)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trueprune import AuditOptions, CalibrationOptions, Plan, load, prune, show_progress
from trueprune.audits.context import AuditSettings
from trueprune.cli.show import show
from trueprune.jobs.audit import DEFAULT_INSTRUMENTS, audit_models
from trueprune.jobs.demo import each_from_dense
from trueprune.jobs.prune import PruneResult
from trueprune.models import LoadedModel
from trueprune.reports.tables import audit_table

TIU = "truth-is-universal"
C4 = ("c4",)
# C4's 16 windows stay the same when others join them.
MIXED = ("c4=2", "statements=1")
ENRICHED = ("c4=2", "enriched-truthfulqa=1")
RUNS: dict[str, dict[str, Any]] = {
    "magnitude": {"method": "magnitude"},
    "wanda": {"method": "wanda"},
    "sparsegpt": {"method": "sparsegpt"},
    "owl": {"method": "owl"},
    "swl": {"method": "swl"},
    "tplo": {"method": "tplo"},
    "tplo (enriched)": {"method": "tplo", "sources": ENRICHED},
    "tplo (statements)": {"method": "tplo", "sources": MIXED},
    "tplo + sparsegpt": {"method": "tplo", "score": "sparsegpt"},
    "sparsegpt (statements)": {"method": "sparsegpt", "sources": MIXED},
    "tplo + sparsegpt (statements)": {"method": "tplo", "score": "sparsegpt", "sources": MIXED},
}


def main() -> None:
    """Prune and audit; prints a Markdown table and writes everything to the output folder."""
    parser = argparse.ArgumentParser(prog="python -m bench.results", description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--only", nargs="*", choices=list(RUNS))
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--per-dataset", type=int, default=164)
    parser.add_argument("--protocols", nargs="*", default=["grouped", "leave-one-topic-out"])
    parser.add_argument("--selection", default="leak-free", choices=("leak-free", "paper"))
    options = parser.parse_args()
    runs = {name: _run(name, options.sparsity, options.selection) for name in options.only or RUNS}
    loaded = load("demo")
    measuring = AuditOptions(
        text="wikitext2",
        max_tokens=16384,
        statements=TIU,
        selection=options.selection,
        per_dataset=options.per_dataset,
        protocols=tuple(options.protocols),
    )
    with show_progress():
        plans: dict[str, Plan] = {}
        report = audit_models(
            each_from_dense(loaded, runs, plans),
            options.output,
            instruments=DEFAULT_INSTRUMENTS,
            settings=AuditSettings(measuring),
            overwrite=True,
            plans=plans,
        )
    show(audit_table(report))
    print(markdown(report))


def _run(name: str, sparsity: float, selection: str) -> Callable[[LoadedModel], PruneResult]:
    options = dict(RUNS[name])
    sources = options.pop("sources", C4)
    calibration = CalibrationOptions(
        sources=sources,
        nsamples=16 if sources == C4 else 24,
        statements=TIU,
        selection=selection,  # type: ignore[arg-type]
    )

    def run(dense: LoadedModel) -> PruneResult:
        print(f"pruning: {name}", file=sys.stderr, flush=True)
        return prune(dense, sparsity=sparsity, calibration=calibration, **options)

    return run


COLUMNS = {
    "perplexity": "perplexity",
    "retrained, affirmative": "grouped/logistic/retrained/affirmative",
    "retrained, all": "grouped/logistic/retrained",
    "frozen, all": "grouped/logistic/frozen",
    "unseen topic": "leave-one-topic-out/logistic/retrained",
    "conjunction": "transfer-conjunction/logistic/retrained",
    "disjunction": "transfer-disjunction/logistic/retrained",
    "scenario": "transfer-scenario/logistic/retrained",
}


def markdown(report: Any) -> str:
    """Models by the columns that the docs show: value, and the interval of the paired change."""
    measured = {row.metric for row in report.rows}
    columns = {title: metric for title, metric in COLUMNS.items() if metric in measured}
    lines = ["| model | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for model in report.models:
        cells = []
        for metric in columns.values():
            found, change = report.value(model.name, metric), report.change(model.name, metric)
            digits = 1 if metric == "perplexity" else 3
            interval = (
                "" if change is None else f" ({change.interval[0]:+.{digits}f} to {change.interval[1]:+.{digits}f})"
            )
            cells.append(f"{found.value:.{digits}f}{interval}")
        lines.append(f"| {model.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
