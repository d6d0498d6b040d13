"""Peak memory of pruning beyond the model and one activation buffer (Linux: reads and resets VmHWM)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from trueprune import (
    CalibrationOptions,
    LoadedModel,
    TokenBatch,
    calibration_tokens,
    load,
    load_statements,
    prune,
)
from trueprune.texts import select


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def main() -> None:
    """Print one JSON line."""
    statements = select(load_statements(), "choose")
    # Code that is loaded on first use is no part of a pruning run: use everything once, on a model of no size.
    config = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2
    )
    toy = LoadedModel(LlamaForCausalLM(config), None, "toy")
    prune(toy, method="wanda", tokens=TokenBatch(torch.zeros(1, 8, dtype=torch.long)))
    before = _status("VmRSS")
    loaded = load("demo")
    tokens = calibration_tokens(loaded, CalibrationOptions(nsamples=16, seqlen=512))
    model = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
    dense: Any = loaded.model
    width = dense.config.hidden_size
    buffer = tokens.ids_NT.numel() * width * 4
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    prune(loaded, method="tplo", tokens=tokens)
    used = _status("VmHWM") - before
    found = {
        "what": "peak memory of prune --method tplo",
        "peak_bytes": used,
        "model_bytes": model,
        "buffer_bytes": buffer,
        "statements": len(statements),
        "ratio": (used - buffer) / model,
        "bound": 1.3,
    }
    print(json.dumps(found))
