"""A Llama whose blocks may lack attention or MLP: what is missing has no weights, no products and no cache.

Written by trueprune. Load it with `AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)`.
"""

import copy

import torch
from torch import nn
from transformers import DynamicCache
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaForCausalLM, LlamaMLP, LlamaModel

from .configuration_decilm import DeciLMConfig, ffn_width


class ZeroOutput(nn.Module):
    """In place of a missing attention (which returns a pair) or MLP: adds nothing to the residual stream."""

    def __init__(self, pair):
        super().__init__()
        self.pair = pair

    def forward(self, hidden_states, **kwargs):
        """Zeros of the input's shape."""
        zeros = torch.zeros_like(hidden_states)
        return (zeros, None) if self.pair else zeros


class PassThrough(nn.Module):
    """In place of the norm before a missing sublayer."""

    def forward(self, hidden_states):
        """The input itself."""
        return hidden_states


class DeciLMModel(LlamaModel):
    """Llama's decoder, with the sublayers that `block_configs` names."""

    config_class = DeciLMConfig

    def __init__(self, config):
        super().__init__(config)
        # The length of the cache is read from its first slot, so only attention that is there has one.
        self.cache_slots = 0
        for layer, block in zip(self.layers, config.block_configs, strict=True):
            if block["attention"]["no_op"]:
                layer.self_attn, layer.input_layernorm = ZeroOutput(pair=True), PassThrough()
            else:
                kv_heads = config.num_attention_heads // block["attention"]["n_heads_in_group"]
                layer.self_attn = LlamaAttention(_with(config, num_key_value_heads=kv_heads), self.cache_slots)
                layer.self_attn.config = config
                self.cache_slots += 1
            if block["ffn"]["no_op"]:
                layer.mlp, layer.post_attention_layernorm = ZeroOutput(pair=False), PassThrough()
            else:
                layer.mlp = LlamaMLP(_with(config, intermediate_size=ffn_width(block["ffn"], config.hidden_size)))
        self.post_init()

    def forward(self, input_ids=None, past_key_values=None, use_cache=None, **kwargs):
        """As Llama's, with a cache that has a slot for each attention that is there and no other."""
        use_cache = self.config.use_cache if use_cache is None else use_cache
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        elif past_key_values is not None:
            # `generate` makes one slot for each block.
            del past_key_values.layers[self.cache_slots :]
        return super().forward(input_ids, past_key_values=past_key_values, use_cache=use_cache, **kwargs)


class DeciLMForCausalLM(LlamaForCausalLM):
    """`DeciLMModel` with a language modelling head."""

    config_class = DeciLMConfig

    def __init__(self, config):
        super(LlamaForCausalLM, self).__init__(config)
        self.model = DeciLMModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()


def _with(config, **changes):
    changed = copy.copy(config)
    for name, value in changes.items():
        setattr(changed, name, value)
    return changed
