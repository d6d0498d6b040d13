"""Options of exports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ExportOptions:
    """What the targets may be asked for.

    **Arguments:**

    - `gguf_type`: how a GGUF file stores matrices: `f32`, `f16` or `q8_0` (8 bits, rows that are no multiple of 32 as
        f16). Norms and biases stay f32.
    - `gguf_tokenizer`: write the tokenizer into the GGUF file; without it the file takes and gives token ids only.
    - `free_memory`: give up the model in memory once it is written, so that checking needs no second copy.
    """

    gguf_type: str = "f16"
    gguf_tokenizer: bool = True
    free_memory: bool = False
