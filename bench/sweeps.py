"""What a sweep adds to making and measuring its cells: `python -m bench.sweeps`.

A tiny random model, so that cells take next to no time themselves. Printed are the seconds a cell beyond those that the
cells say they took (loading, the dense model's own measurements, comparison, report), and those of a second start.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import trueprune
from trueprune.models.load import load
from trueprune.sweeps import Grid, sweep

CELLS = 12


def tiny_model(folder: Path) -> Path:
    """A random model of three blocks with the demo model's tokenizer."""
    tokenizer: Any = load("demo").tokenizer
    shape: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
    }
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def main() -> None:
    """Print the time around a cell with one metric and with those of the default instruments."""
    warnings.simplefilter("ignore")
    calibration = trueprune.CalibrationOptions(nsamples=4, seqlen=64)
    measuring = trueprune.AuditOptions(window=64, max_tokens=1024)
    with tempfile.TemporaryDirectory() as name:
        model = tiny_model(Path(name) / "model")
        print("| metrics | around a cell | a cell of a second start |\n|---|---|---|")
        for instruments in (("perplexity",), ()):
            grid = Grid(
                models=(str(model),),
                methods=("magnitude",),
                sparsities=tuple(i / CELLS for i in range(CELLS)),
                instruments=instruments,
                calibration=calibration,
                measuring=measuring,
            )
            output = Path(name) / f"sweep-{len(instruments)}"
            started = time.perf_counter()
            report = sweep(grid, output)
            took = time.perf_counter() - started
            cells = report.models[0].cells
            around = (took - sum(cell.data["seconds"]["total"] for cell in cells)) / CELLS
            started = time.perf_counter()
            sweep(grid, output)
            again = (time.perf_counter() - started) / CELLS
            print(f"| {len(report.rows) // (CELLS + 1)} | {around:.2f} s | {again:.2f} s |", flush=True)


if __name__ == "__main__":
    main()
