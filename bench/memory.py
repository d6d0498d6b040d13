"""Peak memory of pruning beyond the model and one activation buffer (Linux: reads and resets VmHWM)."""

from __future__ import annotations

import json
from pathlib import Path

from trueprune import CalibrationOptions, calibration_tokens, load, load_statements, prune, read_anatomy
from trueprune.texts import select


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def main() -> None:
    """Print one JSON line."""
    statements = select(load_statements(), "choose")
    before = _status("VmRSS")
    loaded = load("demo")
    tokens = calibration_tokens(loaded, CalibrationOptions(nsamples=16, seqlen=512))
    model = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
    width = read_anatomy(loaded.model).embeddings.weight.shape[1]  # type: ignore[index,union-attr]
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
