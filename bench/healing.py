"""`make results-healing`: what pruning does to truth, and what healing gives back (needs TRUEPRUNE_DATA)."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.layers import cell, copied
from trueprune import (
    AuditOptions,
    AuditReport,
    CalibrationOptions,
    DropOptions,
    HealingOptions,
    QaOptions,
    TruthOptions,
    drop,
    load,
    prune,
    repair,
    show_progress,
)
from trueprune.audits.context import AuditSettings
from trueprune.jobs.audit import audit_models
from trueprune.models import LoadedModel
from trueprune.reports.audit import AuditedModel, compare

C4 = CalibrationOptions(sources=("c4",), nsamples=16)
Make = Callable[[LoadedModel], LoadedModel]
BASES: dict[str, Make] = {
    "dense": lambda dense: dense,
    "avss 25 %": lambda dense: (
        drop(dense, choice=DropOptions(what="block", by="avss", fraction=0.25), calibration=C4).loaded
    ),
    "wanda 50 %": lambda dense: prune(dense, method="wanda", calibration=C4).loaded,
    "tplo 50 %": lambda dense: prune(dense, method="tplo", calibration=C4).loaded,
    "attention 33 %": lambda dense: (
        drop(dense, choice=DropOptions(what="attention", by="cosine", count=10), calibration=C4).loaded
    ),
}
# Contrastive healing, and what it must beat: the same blocks and texts without the contrast, and other blocks with it.
HEALED: dict[str, tuple[str, str]] = {
    "contrastive": ("contrastive", "prone"),
    "cross-entropy": ("lora", "prone"),
    "random blocks": ("contrastive", "random"),
}
TRAINED = QaOptions(qa=("truthfulqa", "general", "misconceptions", "triviaqa"), qa_items=120)
INSTRUMENTS = ("perplexity", "lie-detection", "truthfulness", "open-qa")
COLUMNS = {
    "MC1": "mc1/truthfulqa",
    "MC2": "mc2/truthfulqa",
    "answers right": "correct/general",
    "hallucinated": "hallucination/general",
    "ECE": "ece/general",
    "lie detection, retrained": "grouped/logistic/retrained",
    "lie detection, dense probe": "grouped/logistic/frozen",
    "perplexity": "perplexity",
}


def main() -> None:
    """Prune, heal and audit, base by base; a base that was finished before is not run again."""
    parser = argparse.ArgumentParser(prog="python -m bench.healing", description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--only", nargs="*", choices=list(BASES))
    parser.add_argument("--steps", type=int, default=24)
    options = parser.parse_args()
    dense = load("demo")
    settings = AuditSettings(
        AuditOptions(
            text="wikitext2",
            max_tokens=8192,
            statements="truth-is-universal",
            per_dataset=82,
            protocols=("grouped",),
            probes=("logistic",),
        ),
        asking=QaOptions(qa=("truthfulqa", "general"), qa_items=120),
        truth=TruthOptions(new_tokens=16),
    )
    bases = options.only or list(BASES)
    with show_progress():
        for base in bases:
            folder = _folder(options.output, base)
            if (folder / "controls.json").is_file():
                continue
            print(base, file=sys.stderr, flush=True)
            models = models_of(dense, base, options.steps)
            report = audit_models(models, folder, instruments=INSTRUMENTS, settings=settings, overwrite=True)
            text = json.dumps(against_controls(report), indent=1)
            (folder / "controls.json").write_text(text + "\n", encoding="utf-8")
    for base in bases:
        folder = _folder(options.output, base)
        print(f"\n### {base}\n\n{markdown(folder / 'audit.json')}\n\n{controls(folder / 'controls.json')}")


def _folder(output: Path, base: str) -> Path:
    return output / base.replace(" %", "").replace(" ", "-")


def models_of(dense: LoadedModel, base: str, steps: int) -> Iterator[tuple[str, Callable[[], LoadedModel]]]:
    """The dense model, the pruned one, and copies of it that were healed."""
    yield "dense", lambda: dense
    pruned = BASES[base](copied(dense))
    if base != "dense":
        yield base, lambda: pruned
    for name, (way, layers) in HEALED.items():
        yield name, lambda way=way, layers=layers: healed(pruned, way, layers, steps)


def healed(pruned: LoadedModel, way: str, layers: str, steps: int) -> LoadedModel:
    """A copy that was trained."""
    print(f"healing: {way}, {layers}", file=sys.stderr, flush=True)
    # Held-out windows end the training, as they would for a user.
    healing = HealingOptions(steps=steps, batch=4, layers=layers, evaluate_every=12)
    calibration = replace(C4, nsamples=CalibrationOptions().nsamples)
    found = repair(copied(pruned), using=way, healing=healing, asking=TRAINED, calibration=calibration)
    print(json.dumps({k: found.record["healing"][k] for k in ("layers", "stopped", "seconds")}), file=sys.stderr)
    return found.loaded


def against_controls(report: AuditReport) -> list[dict[str, Any]]:
    """The paired change from each control to contrastive healing."""
    models = {model.name: model for model in report.models}
    rows = []
    for control in list(HEALED)[1:]:
        pair = [AuditedModel(name, models[name].measurements) for name in (control, "contrastive")]
        found = compare(pair, {}, resamples=2000, seed=0)
        rows += [
            {"control": control, **row.to_json()}
            for row in found.rows
            if row.model == "contrastive" and row.metric in COLUMNS.values()
        ]
    return rows


def markdown(file: Path) -> str:
    """A table of one base: value, and in brackets the interval of the paired change against the dense model."""
    report = json.loads(file.read_text(encoding="utf-8"))
    rows: dict[str, dict[str, Any]] = {}
    for row in report["measurements"]:
        rows.setdefault(row["model"], {})[row["metric"]] = row
    lines = ["| model | " + " | ".join(COLUMNS) + " |", "|---|" + "---|" * len(COLUMNS)]
    for name, found in rows.items():
        cells = [cell(found[metric]) if metric in found else "" for metric in COLUMNS.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def controls(file: Path) -> str:
    """Contrastive healing less each control: the change, and its interval."""
    rows = {(row["control"], row["metric"]): row["change"] for row in json.loads(file.read_text(encoding="utf-8"))}
    lines = ["| contrastive less | " + " | ".join(COLUMNS) + " |", "|---|" + "---|" * len(COLUMNS)]
    for control in dict.fromkeys(control for control, _ in rows):
        cells = [_change(rows.get((control, metric)), metric) for metric in COLUMNS.values()]
        lines.append(f"| {control} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _change(change: dict[str, Any] | None, metric: str) -> str:
    if change is None:
        return ""
    digits = 1 if metric == "perplexity" else 3
    low, high = change["interval"]
    return f"{change['value']:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


if __name__ == "__main__":
    main()
