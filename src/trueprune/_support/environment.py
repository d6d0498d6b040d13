"""What a run ran on: versions, memory, cache folder."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import sys
from pathlib import Path

import torch


def versions() -> dict[str, str]:
    """Versions of everything that decides the bits of a result."""
    packages = ("trueprune", "torch", "transformers", "safetensors", "numpy")
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version(), **found}


def peak_memory_bytes() -> int:
    """Peak resident memory of this process, or peak CUDA memory where that was used."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def cache_folder() -> Path:
    """Where converted models and activations are kept: `TRUEPRUNE_CACHE`, or `~/.cache/trueprune`."""
    return Path(os.environ.get("TRUEPRUNE_CACHE") or Path.home() / ".cache" / "trueprune")
