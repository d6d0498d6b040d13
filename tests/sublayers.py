"""The obvious ways to hear what sublayers give, and to do without them: whole-model forwards with hooks, and for each
architecture a row that says what its parts are called and how they are joined.

Nothing here uses trueprune.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
import transformers as tf
from plain import stack_of
from torch import Tensor, nn
from zoo import ARCHITECTURES, COMMON, CONFIGS, GQA, tiny_model

# What the zoo has not: other ways to join attention and MLP.
VARIANTS = {
    "gpt_neox in sequence": lambda: tf.GPTNeoXConfig(**COMMON, intermediate_size=48, use_parallel_residual=False),
    "falcon new": lambda: tf.FalconConfig(**COMMON, new_decoder_architecture=True, num_kv_heads=2),
    "falcon in sequence": lambda: tf.FalconConfig(**COMMON, new_decoder_architecture=False, parallel_attn=False),
    "stablelm side by side": lambda: tf.StableLmConfig(**GQA, use_parallel_residual=True),
    "gemma2": lambda: tf.Gemma2Config(**GQA, head_dim=8, sliding_window=16),
    "granite": lambda: tf.GraniteConfig(**GQA, residual_multiplier=0.3),
    "phi": lambda: tf.PhiConfig(**GQA),
    "cohere": lambda: tf.CohereConfig(**GQA),
}


@dataclass(frozen=True)
class Parts:
    """The children of a block.

    **Arguments:**

    - `attention`, `mlp`: hold the weights; the MLP's last part where it has two.
    - `attention_gives`, `mlp_gives`: whose output goes into the stream, where not their own.
    - `attention_norms`, `mlp_norms`: norms that serve one of them alone, as (before, after).
    - `hidden`: the matrix from the MLP's inner width back to the stream.
    - `also_mlp`: the MLP's other parts.
    - `parallel`: whether both read the block's input.
    - `scale`: what they give is multiplied by.
    """

    attention: str = "self_attn"
    mlp: str = "mlp"
    attention_gives: str = ""
    mlp_gives: str = ""
    attention_norms: tuple[tuple[str, ...], tuple[str, ...]] = (("input_layernorm",), ())
    mlp_norms: tuple[tuple[str, ...], tuple[str, ...]] = (("post_attention_layernorm",), ())
    hidden: str = "mlp.down_proj"
    also_mlp: tuple[str, ...] = ()
    parallel: bool = False
    scale: float = 1.0


NONE = ((), ())
SANDWICH = Parts(
    attention_gives="post_attention_layernorm",
    mlp_gives="post_feedforward_layernorm",
    attention_norms=(("input_layernorm",), ("post_attention_layernorm",)),
    mlp_norms=(("pre_feedforward_layernorm",), ("post_feedforward_layernorm",)),
)
NEOX = Parts("attention", hidden="mlp.dense_4h_to_h", parallel=True)
FALCON = Parts("self_attention", hidden="mlp.dense_4h_to_h", parallel=True, attention_norms=NONE, mlp_norms=NONE)
PARTS = {
    **dict.fromkeys(ARCHITECTURES, Parts()),
    "gemma3": SANDWICH,
    "gemma2": SANDWICH,
    "olmo2": Parts(
        attention_gives="post_attention_layernorm",
        mlp_gives="post_feedforward_layernorm",
        attention_norms=((), ("post_attention_layernorm",)),
        mlp_norms=((), ("post_feedforward_layernorm",)),
    ),
    "gpt_neox": NEOX,
    "gpt_neox in sequence": Parts("attention", hidden="mlp.dense_4h_to_h"),
    "gpt2": Parts("attn", attention_norms=(("ln_1",), ()), mlp_norms=(("ln_2",), ()), hidden="mlp.c_proj"),
    "opt": Parts(
        mlp="fc2",
        attention_norms=(("self_attn_layer_norm",), ()),
        mlp_norms=(("final_layer_norm",), ()),
        hidden="fc2",
        also_mlp=("fc1",),
    ),
    "falcon": FALCON,
    "falcon new": Parts(
        "self_attention",
        attention_norms=(("ln_attn",), ()),
        mlp_norms=(("ln_mlp",), ()),
        hidden="mlp.dense_4h_to_h",
        parallel=True,
    ),
    "falcon in sequence": Parts("self_attention", hidden="mlp.dense_4h_to_h"),
    "mixtral": Parts(hidden=""),
    "qwen3_moe": Parts(hidden=""),
    "stablelm side by side": Parts(attention_norms=NONE, mlp_norms=NONE, parallel=True),
    "granite": Parts(scale=0.3),
    "phi": Parts(attention_norms=NONE, mlp_norms=NONE, hidden="mlp.fc2", parallel=True),
    "cohere": Parts(attention_norms=NONE, mlp_norms=NONE, parallel=True),
}
STACKS = {"gpt_neox in sequence": "gpt_neox", "falcon new": "falcon", "falcon in sequence": "falcon"}


def blocks_of(model: nn.Module, name: str) -> list[nn.Module]:
    return stack_of(model, STACKS.get(name, name))


def lively_model(name: str) -> nn.Module:
    """A tiny model of the zoo or of the variants, whose norms differ from each other."""
    if name in CONFIGS:
        model = tiny_model(name)
    else:
        torch.manual_seed(0)
        model = tf.AutoModelForCausalLM.from_config(VARIANTS[name](), dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.normal_(mean=1.0 if "norm" in key or "ln" in key else 0.0, std=0.2, generator=generator)
            else:
                parameter.normal_(std=0.2, generator=generator)
    return model


@dataclass
class Heard:
    """What one block did to one sequence, each of shape (tokens, width), float64."""

    x: Tensor
    y: Tensor
    attention: Tensor
    mlp: Tensor
    hidden: Tensor | None = None


@torch.no_grad()
def hear(model: nn.Module, name: str, ids_1T: Tensor) -> list[Heard]:
    """Every block's input and output and what its sublayers gave, in one whole-model forward of one sequence."""
    parts, heard = PARTS[name], [{} for _ in blocks_of(model, name)]
    with ExitStack() as stack:

        def listen(index: int, key: str, module: nn.Module, before: bool) -> None:
            def keep(_module, args, kwargs, output=None):
                value = (args[0] if args else kwargs["hidden_states"]) if before else first_of(output)
                heard[index][key] = value.detach().double().reshape(ids_1T.shape[1], -1).clone()

            register = module.register_forward_pre_hook if before else module.register_forward_hook
            stack.callback(register(keep, with_kwargs=True).remove)

        for index, block in enumerate(blocks_of(model, name)):
            listen(index, "x", block, True)
            listen(index, "y", block, False)
            listen(index, "attention", block.get_submodule(parts.attention_gives or parts.attention), False)
            listen(index, "mlp", block.get_submodule(parts.mlp_gives or parts.mlp), False)
            if parts.hidden:
                listen(index, "hidden", block.get_submodule(parts.hidden), True)
        model(ids_1T, use_cache=False)
    for found in heard:
        found["attention"] *= parts.scale
        found["mlp"] *= parts.scale
    return [Heard(**found) for found in heard]


@contextmanager
def without(
    model: nn.Module,
    name: str,
    *,
    attention: Iterable[int] = (),
    mlp: Iterable[int] = (),
    blocks: Iterable[int] = (),
) -> Iterator[nn.Module]:
    """The whole model while some of its sublayers give zeros, and some of its blocks return their input."""
    parts = PARTS[name]
    with ExitStack() as stack:

        def silence(module: nn.Module, output_of) -> None:
            def hook(_module, args, kwargs, output):
                value = output_of(first_of(output), args[0] if args else kwargs["hidden_states"])
                return (value, *output[1:]) if isinstance(output, tuple) else value

            stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)

        for index, block in enumerate(blocks_of(model, name)):
            if index in attention:
                gives = block.get_submodule(parts.attention_gives or parts.attention)
                silence(gives, lambda y, _x: torch.zeros_like(y))
            if index in mlp:
                gives = block.get_submodule(parts.mlp_gives or parts.mlp)
                silence(gives, lambda y, _x: torch.zeros_like(y))
            if index in blocks:
                silence(block, lambda _y, x: x)
        yield model


def first_of(output) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def deep_model(name: str = "llama", layers: int = 6, **changes) -> nn.Module:
    """A tiny model of more blocks than the zoo's."""
    config = CONFIGS[name]()
    for key, value in {"num_hidden_layers": layers, **changes}.items():
        setattr(config, key, value)
    torch.manual_seed(0)
    model = tf.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.2)
    return model
