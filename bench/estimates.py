"""Estimates against runs: `python -m bench.estimates` prints the two tables of docs/estimate.md as Markdown.

The first runs scan, prune, drop and instruments on the demo model and on a random one of middle size, each model in a
process of its own, and sets what was predicted beside what was measured. The second is arithmetic alone.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import gc
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig

from bench.memory import _status
from trueprune import AuditOptions, AuditSettings, CalibrationOptions, ExplanationOptions, LoadedModel, TaskOptions
from trueprune.audits.context import AuditContext
from trueprune.audits.efficiency_costs import _formulas
from trueprune.audits.efficiency_runs import take_own_memory
from trueprune.audits.instruments import INSTRUMENTS
from trueprune.audits.subject import Subject
from trueprune.estimates.table import duration, quantity
from trueprune.jobs import drop, prune, scan
from trueprune.jobs.estimate import estimate
from trueprune.models import load
from trueprune.texts.qa import QaOptions
from trueprune.texts.tokens import TokenBatch


@dataclass(frozen=True)
class Size:
    """How much a run reads."""

    calibration: CalibrationOptions
    measuring: AuditOptions
    answering: TaskOptions
    explaining: ExplanationOptions
    asking: QaOptions

    @property
    def settings(self) -> AuditSettings:
        """What instruments are given."""
        return AuditSettings(self.measuring, answering=self.answering, explaining=self.explaining, asking=self.asking)


TIMED = Size(
    CalibrationOptions(nsamples=16, seqlen=512),
    AuditOptions(max_tokens=2048, per_dataset=16, cache=False),
    TaskOptions(tasks=("facts", "sentiment"), items=60),
    ExplanationOptions(explained=4, samples=64, naopc_words=6),
    QaOptions(qa_items=24),
)
# Operations are counted on less: the counter slows everything down, and their number is what it is.
COUNTED = Size(
    CalibrationOptions(nsamples=2, seqlen=128),
    AuditOptions(max_tokens=1024, per_dataset=16, protocols=("grouped",), repeats=1, cache=False),
    TaskOptions(tasks=("facts", "sentiment"), items=8),
    ExplanationOptions(explained=1, samples=32, naopc_words=0),
    QaOptions(qa_items=6),
)
METHODS = ("magnitude", "wanda", "sparsegpt", "tplo")
AUDITED = ("perplexity", "lie-detection", "accuracy", "faithfulness", "truthfulness", "open-qa")
# A product of 768 columns is slower than one of 16384; between these two lies what runs on a CPU.
MIDDLE: dict[str, Any] = {
    "vocab_size": 49152,
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 4,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
}
# Sizes as published; the last sends each token to 2 of 8 experts.
SIZES: dict[str, dict[str, Any]] = {
    "1B": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "tie_word_embeddings": True,
    },
    "8B": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
    "70B": {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64},
    "405B": {"hidden_size": 16384, "intermediate_size": 53248, "num_hidden_layers": 126, "num_attention_heads": 128},
    "8 experts of 7B": {
        "model_type": "mixtral",
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
}
SHARED: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 128256,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "dtype": "bfloat16",
}
PAPERS = CalibrationOptions(nsamples=128, seqlen=2048)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.estimates", description=__doc__)
    parser.add_argument("--only", choices=("runs", "sizes"), help="one of the two tables")
    parser.add_argument("--measure", choices=("demo", "middle"), help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=Path("runs/estimates.json"))
    options = parser.parse_args()
    if options.measure:
        for row in measured(options.measure):
            print(json.dumps(row), flush=True)
        return
    found: dict[str, Any] = {}
    if options.only != "sizes":
        found["runs"] = [row for name in ("demo", "middle") for row in in_child(name)]
        print(runs_table(found["runs"]))
    if options.only != "runs":
        found["sizes"] = sizes()
        print(sizes_table(found["sizes"]))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def in_child(name: str) -> list[dict[str, Any]]:
    """Measure a model in a process that does nothing else."""
    command = [sys.executable, "-m", "bench.estimates", "--measure", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def measured(name: str) -> Iterator[dict[str, Any]]:
    """What was predicted and what was measured, run by run."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        loaded, config = _model(name, Path(folder))
        # What is only mapped from a file would count when it is first used.
        take_own_memory(loaded.model)
        warm_up()
        predicted, counted = (_predictions(config, size) for size in (TIMED, COUNTED))
        for run, (key, ready) in _runs(loaded).items():
            seconds, cpu_seconds, memory = _timed(ready(TIMED))
            yield {
                "model": name,
                "run": run,
                "flops": counted[key]["flops"],
                "flops_measured": _counted(ready(COUNTED)),
                "seconds": predicted[key]["seconds"],
                "seconds_measured": seconds,
                "cpu_seconds": cpu_seconds,
                "memory": predicted[key]["memory"],
                "memory_measured": memory + _weights(loaded),
            }


def _model(name: str, folder: Path) -> tuple[LoadedModel, str]:
    """A model, and where its configuration lies."""
    demo = load("demo")
    if name == "demo":
        return demo, "demo"
    torch.manual_seed(0)
    config = LlamaConfig(**MIDDLE)
    config.save_pretrained(folder)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    return LoadedModel(model, demo.tokenizer, name), str(folder)


Ready = Callable[[Size], Callable[[], Any]]


def _runs(loaded: LoadedModel) -> dict[str, tuple[tuple[str, ...], Ready]]:
    """Each run: where it stands in an estimate, and what makes it ready to be called."""

    def fresh() -> LoadedModel:
        return LoadedModel(copy.deepcopy(loaded.model), loaded.tokenizer, loaded.source)

    def pruning(method: str) -> Ready:
        def ready(size: Size) -> Callable[[], Any]:
            one = fresh()
            return lambda: prune(one, method=method, calibration=size.calibration)

        return ready

    def dropping(size: Size) -> Callable[[], Any]:
        one = fresh()
        return lambda: drop(one, calibration=size.calibration)

    def measuring(instrument: str) -> Ready:
        def ready(size: Size) -> Callable[[], Any]:
            subject = Subject("dense", loaded, use_cache=False)
            context = AuditContext(size.settings, subject)
            return lambda: INSTRUMENTS[instrument](subject, context)

        return ready

    return {
        "scan": (("scan",), lambda size: lambda: scan(loaded, calibration=size.calibration, asking=size.asking)),
        **{f"prune {method}": ((f"prune {method}",), pruning(method)) for method in METHODS},
        "drop attention": (("drop attention",), dropping),
        **{f"audit {name}": (("audit", name), measuring(name)) for name in AUDITED},
    }


def _predictions(config: str, size: Size) -> dict[tuple[str, ...], dict[str, float]]:
    """Of each run, and of each instrument, what is predicted for a model in memory whose result is not saved."""
    report = estimate(
        config,
        method=METHODS,
        scan=True,
        drop=True,
        audit=AUDITED,
        models=1,
        dtype="float32",
        **vars(size),
    )
    found: dict[tuple[str, ...], dict[str, float]] = {}
    for step in report["steps"]:
        if step["name"] in ("load", "save, load again, compare"):
            continue
        key = ("audit", step["name"]) if step["run"] == "audit" else (step["run"],)
        into = found.setdefault(key, {"flops": 0.0, "seconds": 0.0, "memory": 0.0})
        # torch counts no operations of a factorisation, and none of the host.
        into["flops"] += step["flops"] - step.get("work_flops64", 0.0) - step.get("work_factored", 0.0)
        into["seconds"] += step["seconds"]["resident"] - step.get("work_hashed", 0.0) / report["device"]["hash"]
        into["memory"] = max(into["memory"], step["memory"] + step["host_memory"])
    return found


def _timed(function: Callable[[], Any]) -> tuple[float, float, float]:
    """Seconds, those of the processors, and the most memory beyond what was there before (Linux: resets VmHWM)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = _status("VmRSS")
    start, busy = perf_counter(), process_time()
    kept = function()
    seconds, busy = perf_counter() - start, process_time() - busy
    del kept
    return seconds, busy, _status("VmHWM") - before


def _counted(function: Callable[[], Any]) -> float:
    # Sums into a matrix that is there: Gram matrices, SparseGPT's updates.
    in_place = {torch.ops.aten.addmm_: _addmm_flops}
    with FlopCounterMode(display=False, custom_mapping={**_formulas(), **in_place}) as counter:
        function()
    return float(counter.get_total_flops())


def _addmm_flops(
    _sum: tuple[int, ...], left: tuple[int, int], right: tuple[int, int], *_args: Any, **_kwargs: Any
) -> int:
    return 2 * left[0] * left[1] * right[1]


def _weights(loaded: LoadedModel) -> int:
    return sum(p.numel() * p.element_size() for p in loaded.model.parameters())


def warm_up() -> None:
    """Use everything once, on a model of no size: code that is loaded on first use is no part of a run."""
    config = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2
    )
    for method in ("wanda", "sparsegpt"):
        toy = LoadedModel(AutoModelForCausalLM.from_config(config), None, "toy")
        prune(toy, method=method, tokens=TokenBatch(torch.zeros(1, 8, dtype=torch.long)))


def runs_table(rows: list[dict[str, Any]]) -> str:
    """Predicted over measured."""
    lines = [
        "| model | run | FLOPs | time, measured | time | memory, measured | memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratios = {
            what: f"{row[what] / row[f'{what}_measured']:.{digits}f}" if row[f"{what}_measured"] else "-"
            for what, digits in (("flops", 3), ("seconds", 2), ("memory", 2))
        }
        lines.append(
            f"| {row['model']} | {row['run']} | {ratios['flops']} | {duration(row['seconds_measured'])} "
            f"| {ratios['seconds']} | {row['memory_measured'] / 1e9:.2f} GB | {ratios['memory']} |"
        )
    return "\n".join(lines)


def sizes() -> list[dict[str, Any]]:
    """Estimates of published sizes, at the calibration of the papers."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, own in SIZES.items():
            file = Path(folder) / "config.json"
            file.write_text(json.dumps({**SHARED, **own}), encoding="utf-8")
            for device in ("cpu", "a100", "h100"):
                report = estimate(
                    file,
                    method=("wanda", "sparsegpt", "tplo"),
                    scan=True,
                    audit=("perplexity", "lie-detection", "separation"),
                    device=device,
                    calibration=PAPERS,
                )
                # A machine that cannot hold the model has no time to be told.
                if device != "cpu" or report["variants"][0]["fits"]:
                    rows.append({"size": name, "device": device, **_brief(report)})
    return rows


def _brief(report: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "weights": report["model"]["bytes"],
        "parameters": report["model"]["parameters"],
        "runs": {
            run: {"seconds": t["seconds"]["resident"], "memory": t["memory"]} for run, t in report["totals"].items()
        },
        "devices": report["variants"][0]["devices"],
    }


def sizes_table(rows: list[dict[str, Any]]) -> str:
    """Time and peak memory of each run, for each size and device."""
    runs = list(rows[0]["runs"])
    lines = [f"| model | weights | device | {' | '.join(runs)} |", "|" + "---|" * (len(runs) + 3)]
    for row in rows:
        cells = [f"{duration(run['seconds'])}, {quantity(run['memory'])}B" for run in row["runs"].values()]
        lines.append(f"| {row['size']} | {quantity(row['weights'])}B | {row['device']} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
