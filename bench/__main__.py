"""`make bench`: time and memory against the reference procedures, on the demo model, in one run."""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench import confidence, reference, truthfulness
from trueprune import (
    CalibrationOptions,
    DropOptions,
    NearZero,
    calibration_tokens,
    drop,
    last_token_activations,
    load,
    load_statements,
    observe_blocks,
    prune,
    read_anatomy,
    scan,
)
from trueprune.audits.efficiency import EfficiencyOptions, measure_efficiency
from trueprune.jobs.hallucination import HallucinationOptions
from trueprune.models import LoadedModel
from trueprune.observe.activations import encode
from trueprune.texts import select


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and result."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def same_zeros(a: LoadedModel, b: LoadedModel) -> tuple[int, int]:
    """How many weights are zero in one model only, and how many there are."""
    differ = total = 0
    for first, second in zip(read_anatomy(a.model).blocks, read_anatomy(b.model).blocks, strict=True):
        for x, y in zip(first.sites, second.sites, strict=True):
            differ += int(((x.weight_OI == 0) != (y.weight_OI == 0)).sum())
            total += x.numel
    return differ, total


def bench_wanda(dense: LoadedModel, tokens: Any) -> dict[str, Any]:
    """Pruning with Wanda: ours against the reference procedure."""
    ours, theirs = fresh(dense), fresh(dense)
    seconds, _ = timed(lambda: prune(ours, method="wanda", tokens=tokens))
    n_blocks = len(read_anatomy(theirs.model).blocks)
    base, _ = timed(lambda: reference.wanda(theirs.model, tokens.ids_NT, [0.5] * n_blocks))  # type: ignore[arg-type]
    differ, total = same_zeros(ours, theirs)
    return row("prune --method wanda", seconds, base, 0.85, masks_differ=differ, masks_total=total)


def bench_tplo(dense: LoadedModel, tokens: Any, statements: Any) -> dict[str, Any]:
    """Pruning with TPLO in all: dense pass, separation, pruning pass."""
    ours, theirs = fresh(dense), fresh(dense)
    datasets = [f"{t}/{p}" for t, p in zip(statements.topics, statements.polarities, strict=True)]
    encoded, labels = encode(dense, statements.texts), torch.from_numpy(statements.labels)
    seconds, _ = timed(lambda: prune(ours, method="tplo", tokens=tokens))
    base, _ = timed(
        lambda: reference.tplo(theirs.model, tokens.ids_NT, encoded, labels, datasets)  # type: ignore[arg-type]
    )
    differ, total = same_zeros(ours, theirs)
    return row("prune --method tplo", seconds, base, 0.5, masks_differ=differ, masks_total=total)


def bench_activations(dense: LoadedModel, statements: Any) -> dict[str, Any]:
    """Last-token activations: batched against one statement at a time."""
    encoded, anatomy = encode(dense, statements.texts), read_anatomy(dense.model)
    seconds, ours = timed(lambda: last_token_activations(anatomy, encoded))
    base, theirs = timed(lambda: reference.activations(dense.model, encoded))  # type: ignore[arg-type]
    error = float((ours - theirs).abs().max() / theirs.abs().max())
    return row("activations", seconds, base, 0.25, relative_error=error)


def bench_scan(dense: LoadedModel, tokens: Any) -> dict[str, Any]:
    """A scan of the same tokens and statements against plain forwards of them."""
    statements = select(load_statements(), "choose")
    encoded, anatomy = encode(dense, statements.texts), read_anatomy(dense.model)
    calibration = CalibrationOptions(nsamples=16, seqlen=512)
    # Answers are read beside what this compares.
    hallucination = HallucinationOptions(answers_from="none")
    seconds, _ = timed(lambda: scan(dense, calibration=calibration, hallucination=hallucination))
    calls = count_forwards(
        dense, tokens, lambda: observe_blocks(anatomy, tokens, outlier_threshold=5.0, zero=NearZero())
    )
    with torch.no_grad():
        base, _ = timed(lambda: [dense.model(rows, use_cache=False) for rows in tokens.ids_NT.split(2)])
        body, _ = timed(lambda: [dense.model.model(rows, use_cache=False) for rows in tokens.ids_NT.split(2)])  # type: ignore[operator,union-attr]
    statements_alone, _ = timed(lambda: last_token_activations(anatomy, encoded))
    return row(
        "scan",
        seconds,
        base + statements_alone,
        1.25,
        forwards_of_each_block=calls,
        ratio_without_head=seconds / (body + statements_alone),
        seconds_of_statements=statements_alone,
    )


def count_forwards(dense: LoadedModel, tokens: Any, function: Callable[[], Any]) -> float:
    """How many calibration tokens go through a block in the middle, over how many there are."""
    seen: list[int] = []
    blocks = read_anatomy(dense.model).blocks
    # Inside the block: what prepares a pass goes past it.
    mlp = blocks[len(blocks) // 2].mlp
    assert mlp is not None
    handle = mlp.modules[0].register_forward_hook(lambda _m, args, _out: seen.append(args[0].shape[:-1].numel()))
    try:
        function()
    finally:
        handle.remove()
    # Less a few tokens that tell how the block is wired.
    return sum(n for n in seen if n > 100) / tokens.ids_NT.numel()


def bench_attention(dense: LoadedModel) -> list[dict[str, Any]]:
    """A third of the attention gone: time against the share of FLOPs that is left (ratio of the two, bound 1.1)."""
    dropped = drop(fresh(dense), choice=DropOptions(what="attention", fraction=1 / 3))
    options = EfficiencyOptions(prompt_tokens=512, decode_tokens=32, timing_rounds=9)
    found = {m.metric: m for m in measure_efficiency(dropped.loaded, dense, options)}
    whole = {m.metric: m for m in measure_efficiency(dense, None, replace(options, timing_rounds=2))}
    rows = []
    for phase in ("prefill", "decode"):
        left = found[f"{phase}-flops"].value / whole[f"{phase}-flops"].value
        speedup = found[f"{phase}-speedup"].value
        rows.append(row(f"{phase} without a third of attention", 1 / speedup, left, 1.1, speedup=speedup))
    return rows


def row(name: str, seconds: float, base: float, bound: float, **more: Any) -> dict[str, Any]:
    """One line of the table."""
    ratio = seconds / base
    return {"what": name, "seconds": seconds, "reference": base, "ratio": ratio, "bound": bound, **more}


def fresh(loaded: LoadedModel) -> LoadedModel:
    """A copy to prune."""
    return LoadedModel(copy.deepcopy(loaded.model), loaded.tokenizer, loaded.source)


def memory_in_child() -> dict[str, Any]:
    """Peak memory of pruning, measured in a process that does nothing else."""
    code = "from bench.memory import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Run all, print a line each, write JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/bench.json"))
    parser.add_argument("--repeats", type=int, default=1, help="runs of each comparison; the best ratio is not chosen")
    parser.add_argument(
        "--only",
        nargs="*",
        help="wanda, tplo, activations, scan, attention, memory, explanations, agreement, prediction, "
        "calibration-metrics, truthful-mc",
    )
    options = parser.parse_args()
    dense = load("demo")
    tokens = calibration_tokens(dense, CalibrationOptions(nsamples=16, seqlen=512))
    statements = select(load_statements(), "choose")
    last_token_activations(read_anatomy(dense.model), encode(dense, statements.texts[:32]))  # warm up
    benches: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "wanda": lambda: [bench_wanda(dense, tokens)],
        "tplo": lambda: [bench_tplo(dense, tokens, statements)],
        "activations": lambda: [bench_activations(dense, statements)],
        "scan": lambda: [bench_scan(dense, tokens)],
        "attention": lambda: bench_attention(dense),
        "memory": lambda: [memory_in_child()],
        "explanations": lambda: confidence.bench_explanations(dense),
        "agreement": lambda: confidence.bench_agreement(dense),
        "prediction": lambda: confidence.bench_prediction(dense),
        "calibration-metrics": confidence.bench_metrics,
        "truthful-mc": lambda: truthfulness.bench_choices(dense),
    }
    rows = []
    for name in options.only or benches:
        for _ in range(1 if name == "memory" else options.repeats):
            rows += benches[name]()
    for found in rows:
        print(
            "  ".join(
                f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in found.items()
            )
        )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
