"""Blocks leave a model: the list of modules, the numbers by which the rest find their cache, the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from trueprune._support.errors import ModelError
from trueprune.models.anatomy import Anatomy

# Lists that may have as many entries as there are blocks, and say nothing of blocks.
NOT_PER_LAYER = ("architectures", "token_id", "mrope_section", "suppress_tokens", "labels")


def remove_blocks(anatomy: Anatomy, gone: Sequence[int]) -> None:
    """Take blocks out of a model in place, and let the configuration know.

    **Arguments:**

    - `anatomy`: the model's parts; not valid afterwards.
    - `gone`: indices of the blocks.

    **Raises:** `ModelError` if the configuration does not say how many blocks there are.
    """
    kept = [block.index for block in anatomy.blocks if block.index not in set(gone)]
    config = text_config(anatomy.model)
    if getattr(config, "num_hidden_layers", None) != len(anatomy.blocks):
        raise ModelError(
            f"the configuration of {type(anatomy.model).__name__} does not name its {len(anatomy.blocks)} blocks",
            "Its blocks cannot be dropped; drop attention or MLP sublayers instead",
        )
    path = anatomy.blocks[0].path.rpartition(".")[0]
    stack = anatomy.model.get_submodule(path)
    assert isinstance(stack, nn.ModuleList)
    blocks = [stack[i] for i in kept]
    del stack[len(kept) :]
    for index, block in enumerate(blocks):
        stack[index] = block
        for module in block.modules():
            if isinstance(getattr(module, "layer_idx", None), int):
                module.layer_idx = index  # type: ignore[assignment]
    for key, value in trimmed(config.to_dict(), len(anatomy.blocks), kept).items():
        setattr(config, key, value)
    config.num_hidden_layers = len(kept)


def trimmed(config: dict[str, Any], n_blocks: int, kept: Sequence[int]) -> dict[str, Any]:
    """The entries of a configuration that must change when only some blocks are kept.

    A list with one entry a block keeps the entries of the kept ones (`layer_types`); a list of block numbers, known by
    its name and values (`mlp_only_layers`), is renumbered.

    **Arguments:**

    - `config`: as a dictionary.
    - `n_blocks`: before.
    - `kept`: block numbers, ascending.
    """
    new: dict[str, Any] = {}
    for key, value in config.items():
        if not isinstance(value, (list, tuple)) or any(word in key for word in NOT_PER_LAYER):
            continue
        numbers = all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v < n_blocks for v in value)
        if len(value) == n_blocks:
            new[key] = [value[i] for i in kept]
        elif key.endswith("_layers") and value and numbers and len(set(value)) == len(value):
            new[key] = [kept.index(v) for v in value if v in kept]
    return new


def text_config(model: Any) -> Any:
    """The configuration of the decoder, also where a model has several parts."""
    config = model.config
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def refuse_shared_cache(model: Any) -> None:
    """Refuse a model in which layers read keys and values of other layers.

    **Raises:** `ModelError`.
    """
    config = text_config(model)
    modes = getattr(config, "kv_sharing_modes", None) or ()
    if getattr(config, "num_kv_shared_layers", 0) or "reuse" in modes:
        raise ModelError(
            f"layers of {type(model).__name__} share keys and values: dropping one would take them from others",
            "Prune its weights instead (trueprune prune)",
        )
