"""The job `export`: write a model in the layout that an inference engine reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trueprune._support.folders import check_output
from trueprune.jobs.common import LoadOptions, as_loaded
from trueprune.models.exports.options import ExportOptions
from trueprune.models.exports.registry import find_export
from trueprune.models.exports.save import save_export
from trueprune.models.load import LoadedModel


@dataclass(frozen=True, eq=False)
class ExportResult:
    """An exported model.

    **Arguments:**

    - `output`: the folder.
    - `record`: what its `trueprune.json` holds; the entry `export` says what was written.
    """

    output: Path
    record: Mapping[str, Any]


def export(
    model: str | Path | LoadedModel,
    output: str | Path,
    *,
    to: str,
    gguf_type: str = "f16",
    gguf_tokenizer: bool = True,
    loading: LoadOptions = LoadOptions(),
    overwrite: bool = False,
    free_memory: bool = False,
    command: str | None = None,
) -> ExportResult:
    """Write a model for engines that skip dropped sublayers.

    Llama-shaped models only. What is written is read again and compared with the model before it takes its name.

    **Arguments:**

    - `model`: a checkpoint folder, `demo`, a GGUF file or a hub id (in Python also a loaded model).
    - `output`: the folder to make.
    - `to`: `nemotron-nas` (vLLM, SGLang, mlx-lm, transformers) or `gguf` (llama.cpp).
    - `gguf_type`: how a GGUF file stores matrices: `f32`, `f16` or `q8_0`; norms and biases stay f32.
    - `gguf_tokenizer`: write the tokenizer into the GGUF file; without it the file takes and gives token ids.
    - `loading`: how the model is loaded.
    - `overwrite`: replace the output folder if it exists.
    - `free_memory`: give up the model in memory once it is saved, so that checking the saved one needs no second copy.
    - `command`: recorded in `trueprune.json`.

    **Returns:** an `ExportResult`.

    **Raises:** `TruepruneError` that names what the target cannot say; nothing is then written.
    """
    find_export(to)
    check_output(Path(output), overwrite, [] if isinstance(model, LoadedModel) else [model])
    options = ExportOptions(gguf_type=gguf_type, gguf_tokenizer=gguf_tokenizer, free_memory=free_memory)
    loaded = as_loaded(model, loading)
    record = save_export(loaded, output, to, options=options, overwrite=overwrite, command=command)
    return ExportResult(Path(output), record)
