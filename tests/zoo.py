"""Tiny random models: one row of the test matrix for each architecture."""

from __future__ import annotations

import torch
import transformers as tf

SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
COMMON = {
    "vocab_size": 320,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    **SPECIAL,
}
GQA = {**COMMON, "num_key_value_heads": 2, "intermediate_size": 48}

CONFIGS = {
    "llama": lambda: tf.LlamaConfig(**GQA),
    "mistral": lambda: tf.MistralConfig(**GQA, sliding_window=16),
    "qwen2": lambda: tf.Qwen2Config(**GQA),
    "qwen3": lambda: tf.Qwen3Config(**GQA, head_dim=8),
    "gemma3": lambda: tf.Gemma3TextConfig(
        **GQA,
        head_dim=8,
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        query_pre_attn_scalar=8,
    ),
    "phi3": lambda: tf.Phi3Config(**GQA),
    "gpt_neox": lambda: tf.GPTNeoXConfig(**COMMON, intermediate_size=48),
    "gpt2": lambda: tf.GPT2Config(vocab_size=320, n_embd=32, n_layer=3, n_head=4, n_positions=256, **SPECIAL),
    "opt": lambda: tf.OPTConfig(**COMMON, ffn_dim=48, word_embed_proj_dim=32),
    "falcon": lambda: tf.FalconConfig(
        **COMMON,
        new_decoder_architecture=False,
    ),
    "olmo2": lambda: tf.Olmo2Config(**GQA),
    "stablelm": lambda: tf.StableLmConfig(**GQA),
    "mixtral": lambda: tf.MixtralConfig(**GQA, num_local_experts=4, num_experts_per_tok=2),
    "qwen3_moe": lambda: tf.Qwen3MoeConfig(
        **GQA, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24, decoder_sparse_step=1
    ),
}
ARCHITECTURES = list(CONFIGS)


def tiny_model(name: str, seed: int = 0) -> torch.nn.Module:
    """A random model of the named architecture, in evaluation mode."""
    torch.manual_seed(seed)
    model = tf.AutoModelForCausalLM.from_config(CONFIGS[name](), dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                # The default initialisation is so small that logits hardly depend on the weights.
                parameter.normal_(std=0.2)
    return model
