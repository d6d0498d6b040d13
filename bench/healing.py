"""`make results-healing`: what pruning does to truth, and what healing gives back (needs TRUEPRUNE_DATA)."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.layers import cell, copied
from trueprune import (
    AuditOptions,
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
from trueprune.audits.context import AuditContext, AuditSettings
from trueprune.audits.instruments import INSTRUMENTS
from trueprune.audits.subject import Subject
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
MEASURING = AuditOptions(
    text="wikitext2",
    max_tokens=8192,
    statements="truth-is-universal",
    per_dataset=82,
    protocols=("grouped",),
    probes=("logistic",),
)
# What is asked, by the instruments that ask it.
ASKED = {
    ("perplexity", "lie-detection", "truthfulness"): QaOptions(qa=("truthfulqa",), qa_items=150),
    ("open-qa",): QaOptions(qa=("general",), qa_items=150),
}


def main() -> None:
    """Prune, heal and audit, base by base; a base that was finished before is not run again."""
    parser = argparse.ArgumentParser(prog="python -m bench.healing", description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--only", nargs="*", choices=list(BASES))
    parser.add_argument("--steps", type=int, default=24)
    options = parser.parse_args()
    bases = options.only or list(BASES)
    missing = [base for base in bases if not _file(options.output, base).is_file()]
    if missing:
        dense = load("demo")
        with show_progress():
            audit = Audit(dense)
            for base in missing:
                _say(base)
                report = run(audit, dense, base, options.steps)
                file = _file(options.output, base)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for base in bases:
        found = json.loads(_file(options.output, base).read_text(encoding="utf-8"))
        print(f"\n### {base}\n\n{markdown(found)}\n\n{controls(found['controls'])}")


def _file(output: Path, base: str) -> Path:
    return output / f"{base.replace(' %', '').replace(' ', '-')}.json"


def _say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


class Audit:
    """The same instruments on every model; the dense one is measured once."""

    def __init__(self, dense: LoadedModel):
        self.dense = Subject("dense", dense)
        truth = TruthOptions(new_tokens=16)
        self.contexts = {
            names: AuditContext(AuditSettings(MEASURING, asking=asking, truth=truth), self.dense)
            for names, asking in ASKED.items()
        }
        self.measured = self._of(self.dense)

    def of(self, name: str, model: LoadedModel) -> AuditedModel:
        """What a model shows."""
        return self._of(Subject(name, model))

    def _of(self, subject: Subject) -> AuditedModel:
        _say(f"audit: {subject.name}")
        found = [m for names, context in self.contexts.items() for n in names for m in INSTRUMENTS[n](subject, context)]
        return AuditedModel(subject.name, found)


def run(audit: Audit, dense: LoadedModel, base: str, steps: int) -> dict[str, Any]:
    """One base before and after healing, against the dense model, and contrastive healing against its controls."""
    pruned = BASES[base](copied(dense))
    models = [audit.measured] + ([audit.of(base, pruned)] if base != "dense" else [])
    healings = {}
    for name, (way, layers) in HEALED.items():
        _say(f"heal: {name}")
        if layers == "prone" and "contrastive" in healings:
            # Chosen once.
            layers = ",".join(map(str, healings["contrastive"]["layers"]))
        healed, healings[name] = heal(pruned, way, layers, steps)
        models.append(audit.of(name, healed))
    rows = compare(models, {}, resamples=2000, seed=0).rows
    return {
        "healings": healings,
        "measurements": [row.to_json() for row in rows if row.metric in COLUMNS.values()],
        "controls": against_controls(models),
    }


def heal(pruned: LoadedModel, way: str, layers: str, steps: int) -> tuple[LoadedModel, dict[str, Any]]:
    """A copy that was trained, and how that went."""
    healing = HealingOptions(steps=steps, batch=4, layers=layers, evaluate_every=12)
    # How many windows and of what length, the healing says itself.
    calibration = CalibrationOptions(sources=C4.sources)
    found = repair(copied(pruned), using=way, healing=healing, asking=TRAINED, calibration=calibration)
    names = ("layers", "stopped", "best_step", "curve", "seconds")
    return found.loaded, {name: found.record["healing"][name] for name in names}


def against_controls(models: Sequence[AuditedModel]) -> list[dict[str, Any]]:
    """The paired change from each control to contrastive healing."""
    by_name = {model.name: model for model in models}
    rows = []
    for control in list(HEALED)[1:]:
        pair = [AuditedModel(name, by_name[name].measurements) for name in (control, "contrastive")]
        found = compare(pair, {}, resamples=2000, seed=0)
        rows += [
            {"control": control, **row.to_json()}
            for row in found.rows
            if row.model == "contrastive" and row.metric in COLUMNS.values()
        ]
    return rows


def markdown(report: dict[str, Any]) -> str:
    """A table of one base: value, and in brackets the interval of the paired change against the dense model."""
    rows: dict[str, dict[str, Any]] = {}
    for row in report["measurements"]:
        rows.setdefault(row["model"], {})[row["metric"]] = row
    lines = ["| model | " + " | ".join(COLUMNS) + " |", "|---|" + "---|" * len(COLUMNS)]
    for name, found in rows.items():
        cells = [cell(found[metric]) if metric in found else "" for metric in COLUMNS.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def controls(found: list[dict[str, Any]]) -> str:
    """Contrastive healing less each control: the change, and its interval."""
    rows = {(row["control"], row["metric"]): row["change"] for row in found}
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
