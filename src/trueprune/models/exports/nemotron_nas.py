"""`nemotron-nas`: the layout with `block_configs` that vLLM, SGLang, mlx-lm and llama.cpp's converter read."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

from trueprune._support.errors import ModelError
from trueprune.models.exports.decilm import configuration_decilm, modeling_decilm
from trueprune.models.exports.options import ExportOptions
from trueprune.models.exports.shape import LlamaShape
from trueprune.models.exports.twin import check_twin, plain_blocks, probe_length, twin_of
from trueprune.models.load import LoadedModel, errors_named
from trueprune.models.probe import logit_error, probe_logits

CODE = (configuration_decilm, modeling_decilm)
AUTO_MAP = {
    "AutoConfig": "configuration_decilm.DeciLMConfig",
    "AutoModel": "modeling_decilm.DeciLMModel",
    "AutoModelForCausalLM": "modeling_decilm.DeciLMForCausalLM",
}


def block_configs(shape: LlamaShape) -> list[dict[str, Any]]:
    """One `block_configs` entry a block, as the engines read them.

    **Raises:** `ModelError` for what one of the engines would read as something else.
    """
    if shape.blocks[0].attention is None:
        raise ModelError(
            "the attention of the first block was dropped: vLLM, SGLang and mlx-lm need it there",
            "Drop the attention of later blocks only, or drop the first block whole",
        )
    if shape.head_dim * shape.heads != shape.hidden:
        raise ModelError(
            f"{shape.heads} heads of {shape.head_dim} make no hidden size of {shape.hidden}, from which mlx-lm takes "
            "the size of a head",
            "Export with --to gguf, which says the size of a head",
        )
    if shape.has_bias("gate_proj", "up_proj", "down_proj"):
        raise ModelError("the MLP has biases, which SGLang leaves out", "Export with --to gguf")
    blocks = plain_blocks(shape)
    for index, (entry, block) in enumerate(zip(blocks, shape.blocks, strict=True)):
        del entry["ffn"]["intermediate_size"]
        entry["ffn"]["ffn_mult"] = _ffn_mult(index, block.width, shape.hidden) if block.width else None
    return blocks


def _ffn_mult(index: int, width: int, hidden: int) -> float:
    # Rounded down at the sixth decimal, to which mlx-lm rounds: engines then round the width up to a multiple of 256.
    ffn_mult = math.floor(1.5e6 * width / hidden) / 1e6
    for found in (ffn_mult, round(ffn_mult, 6)):
        if configuration_decilm.ffn_width({"ffn_mult": found}, hidden) != width:
            raise ModelError(
                f"the MLP of block {index} is {width} wide, which engines that read ffn_mult round up to "
                f"{-(-width // 256) * 256}",
                "Export with --to gguf, which says the width",
            )
    return ffn_mult


def write_nemotron_nas(loaded: LoadedModel, shape: LlamaShape, work: Path, options: ExportOptions) -> dict[str, Any]:
    """Write a checkpoint with `block_configs`, and the code with which transformers loads it.

    **Arguments:**

    - `loaded`: model and tokenizer.
    - `shape`: what was read from the model.
    - `work`: an empty folder.
    - `options`: `free_memory` is looked at.

    **Returns:** plain data about what was written.

    **Raises:** `ModelError` for what the layout cannot say, or when the checkpoint does not give the model's logits.
    """
    twin = twin_of(shape, block_configs(shape))
    expected_BTV = check_twin(shape, twin)
    twin.config.auto_map = AUTO_MAP
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        twin.save_pretrained(work)
    for module in CODE:
        source = Path(str(module.__file__))
        (work / source.name).write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    _say_rope_scaling(work / "config.json", shape.rope)
    if loaded.tokenizer is not None:
        loaded.tokenizer.save_pretrained(work)
    weights = shape.embeddings.weight
    dtype, device = weights.dtype, weights.device
    if options.free_memory:
        shape.model.to("meta")
        del twin, weights
    with errors_named(str(work)):
        # By the classes whose files were written: transformers would leave copies of a temporary folder's in its cache.
        again = modeling_decilm.DeciLMForCausalLM.from_pretrained(work, dtype=dtype)
    error, tolerance = logit_error(expected_BTV, probe_logits(again.eval().to(device), probe_length(shape)))  # type: ignore[arg-type]
    if not error <= tolerance:
        raise ModelError(
            f"the export gives other logits (relative error {error:.1e})", "Nothing was written; report it"
        )
    return {"architecture": "DeciLMForCausalLM", "logit_error": error}


def _say_rope_scaling(file: Path, rope: dict[str, Any]) -> None:
    """Say it also where transformers before 5.0, and engines, look for it."""
    config = json.loads(file.read_text(encoding="utf-8"))
    scaled = rope["rope_type"] != "default"
    config["rope_scaling"] = {k: v for k, v in rope.items() if k != "rope_theta"} if scaled else None
    file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
