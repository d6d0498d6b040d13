"""A Llama with a model's weights: if it gives the model's logits, then the model is what engines take it for.

Legend: B batch, T positions, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from trueprune._support.errors import ModelError
from trueprune.models.exports.decilm.configuration_decilm import DeciLMConfig
from trueprune.models.exports.decilm.modeling_decilm import DeciLMForCausalLM
from trueprune.models.exports.shape import ATTENTION, REMEDY, LlamaShape
from trueprune.models.probe import logit_error, probe_logits

KEPT = ("initializer_range", "use_cache", "pad_token_id", "bos_token_id", "eos_token_id")


def plain_blocks(shape: LlamaShape) -> list[dict[str, Any]]:
    """One `block_configs` entry a block, with the width of its MLP as it is."""
    return [
        {
            "attention": {
                "n_heads_in_group": block.heads // block.kv_heads if block.attention is not None else None,
                "no_op": block.attention is None,
                "replace_with_linear": False,
            },
            "ffn": {"intermediate_size": block.width or None, "no_op": block.mlp is None, "replace_with_linear": False},
        }
        for block in shape.blocks
    ]


def twin_of(shape: LlamaShape, blocks: Sequence[Mapping[str, Any]]) -> DeciLMForCausalLM:
    """A Llama of this shape that shares the model's weights.

    **Arguments:**

    - `shape`: what was read from the model.
    - `blocks`: `block_configs`.

    **Raises:** `ModelError` if the model lies on several devices.
    """
    devices = {parameter.device for parameter in shape.model.parameters()}
    if len(devices) > 1:
        raise ModelError("the model lies on several devices", "Load it without --device-map")
    source = shape.model.config
    attention_bias = shape.has_bias(*ATTENTION)
    config = DeciLMConfig(
        **{name: getattr(source, name) for name in KEPT if hasattr(source, name)},
        block_configs=blocks,
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=max(block.width for block in shape.blocks) or shape.hidden,
        num_hidden_layers=len(shape.blocks),
        num_attention_heads=shape.heads,
        num_key_value_heads=next(block.kv_heads for block in shape.blocks if block.attention is not None),
        head_dim=shape.head_dim,
        hidden_act="silu",
        max_position_embeddings=shape.context,
        rms_norm_eps=shape.eps,
        rope_parameters=copy.deepcopy(shape.rope),
        attention_bias=attention_bias,
        mlp_bias=shape.has_bias("gate_proj", "up_proj", "down_proj"),
        tie_word_embeddings=shape.tied,
        attn_implementation=getattr(source, "_attn_implementation", None),
        dtype=shape.embeddings.weight.dtype,
        architectures=["DeciLMForCausalLM"],
    )
    with torch.device("meta"):
        twin = DeciLMForCausalLM(config)
    state = dict(shape.tensors())
    if shape.tied:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    for name, empty in twin.state_dict().items():
        if name.endswith("_proj.bias") and name not in state:
            # One setting says whether all four projections have a bias; a zero bias is none.
            state[name] = torch.zeros_like(empty, device=devices.copy().pop(), dtype=shape.embeddings.weight.dtype)
    twin.load_state_dict(state, strict=True, assign=True)
    twin.tie_weights()
    # Not part of the state, so still without values.
    twin.model.rotary_emb = LlamaRotaryEmbedding(config).to(devices.pop())
    if (generation := getattr(shape.model, "generation_config", None)) is not None:
        twin.generation_config = copy.deepcopy(generation)
    return twin.eval()


def probe_length(shape: LlamaShape) -> int:
    """How many tokens tell a model from its twin: enough for positions to matter."""
    return min(64, shape.context)


def check_twin(shape: LlamaShape, twin: DeciLMForCausalLM) -> Tensor:
    """Refuse a model that computes something else than its twin.

    **Returns:** the logits of the model, of shape `(B, T, V)`.

    **Raises:** `ModelError`.
    """
    expected_BTV = probe_logits(shape.model, probe_length(shape))
    error, tolerance = logit_error(expected_BTV, probe_logits(twin, probe_length(shape)))
    if not error <= tolerance:
        raise ModelError(
            f"the model computes something else than a Llama of its weights and dimensions (relative error {error:.1e} "
            "of the logits)",
            REMEDY,
        )
    return expected_BTV
