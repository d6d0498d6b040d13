"""The targets of `export`, one line each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trueprune._support.errors import ModelError
from trueprune.models.exports.gguf_file import write_gguf
from trueprune.models.exports.nemotron_nas import write_nemotron_nas
from trueprune.models.exports.options import ExportOptions
from trueprune.models.exports.shape import LlamaShape
from trueprune.models.load import LoadedModel


@dataclass(frozen=True)
class Export:
    """A target.

    **Arguments:**

    - `write`: given the loaded model, its shape, the folder to fill and options, fills the folder, checks what it
        wrote, and returns plain data about it.
    - `engines`: what reads it.
    """

    write: Callable[[LoadedModel, LlamaShape, Path, ExportOptions], dict[str, Any]]
    engines: str


EXPORTS = {
    "nemotron-nas": Export(write_nemotron_nas, "vLLM, SGLang, mlx-lm, llama.cpp's converter, transformers"),
    "gguf": Export(write_gguf, "llama.cpp and what is built on it"),
}


def find_export(name: str) -> Export:
    """A target by name.

    **Raises:** `ModelError` that lists the names.
    """
    if name not in EXPORTS:
        raise ModelError(f"unknown export target {name!r}", f"Use --to {' or --to '.join(EXPORTS)}")
    return EXPORTS[name]
