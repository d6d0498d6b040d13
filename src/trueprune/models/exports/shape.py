"""Is a model Llama-shaped, and what are its dimensions, block by block? Found by structure, never by model name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trueprune._support.errors import ModelError
from trueprune.models.anatomy import Anatomy, Block, Sublayer, read_anatomy
from trueprune.models.sites import has_experts
from trueprune.models.stubs import ZeroOutput

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
NORMS = ("input_layernorm", "post_attention_layernorm")
ROPE_TYPES = ("default", "llama3")
REMEDY = "Engines know this layout for Llama-shaped models only; save it as an ordinary checkpoint instead"
# Configuration keys that change what a Llama computes, with the value that changes nothing.
MULTIPLIERS: dict[str, Any] = {
    "embedding_multiplier": 1,
    "residual_multiplier": 1,
    "logits_scaling": 1,
    "logit_scale": 1,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "attention_chunk_size": None,
}


@dataclass(frozen=True, eq=False)
class LlamaBlock:
    """One block of a Llama-shaped model.

    **Arguments:**

    - `attention`, `mlp`: the modules, or `None` where dropped.
    - `attention_norm`, `mlp_norm`: the norms before them, or `None` where those are dropped.
    - `heads`, `kv_heads`: of the attention, 0 where dropped.
    - `width`: intermediate size of the MLP, 0 where dropped.
    """

    attention: nn.Module | None
    mlp: nn.Module | None
    attention_norm: nn.Module | None
    mlp_norm: nn.Module | None
    heads: int
    kv_heads: int
    width: int


@dataclass(frozen=True, eq=False)
class LlamaShape:
    """A Llama-shaped model and its dimensions.

    **Arguments:**

    - `model`: the model.
    - `blocks`: its blocks, in order.
    - `embeddings`, `norm`, `head`: the modules before and after them.
    - `tied`: whether the head is the embeddings.
    - `hidden`, `vocab`, `head_dim`, `heads`: dimensions that all blocks share.
    - `context`: the most positions.
    - `eps`: of the norms.
    - `rope`: `rope_type`, `rope_theta` and, for llama3, its factors.
    """

    model: Any
    blocks: tuple[LlamaBlock, ...]
    embeddings: Any
    norm: Any
    head: Any
    tied: bool
    hidden: int
    vocab: int
    head_dim: int
    heads: int
    context: int
    eps: float
    rope: dict[str, Any]

    def has_bias(self, *names: str) -> bool:
        """Whether any Linear of one of these names has a bias."""
        parts = [part for block in self.blocks for part in (block.attention, block.mlp) if part is not None]
        linears = [getattr(part, name, None) for part in parts for name in names]
        return any(getattr(linear, "bias", None) is not None for linear in linears)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All weights under a Llama's names; the head only if it is not the embeddings."""
        yield "model.embed_tokens.weight", self.embeddings.weight.detach()
        for index, block in enumerate(self.blocks):
            for name, part in zip(("self_attn", "mlp", *NORMS), _parts(block), strict=True):
                for inner, parameter in part.named_parameters() if part is not None else ():
                    yield f"model.layers.{index}.{name}.{inner}", parameter.detach()
        yield "model.norm.weight", self.norm.weight.detach()
        if not self.tied:
            yield "lm_head.weight", self.head.weight.detach()


def read_llama_shape(model: Any) -> LlamaShape:
    """Read a Llama-shaped model: two RMS norms, separate projections, rotary positions, SwiGLU, and nothing else.

    **Arguments:**

    - `model`: a causal language model, perhaps with blocks or sublayers dropped.

    **Raises:** `ModelError` that names the feature in the way.
    """
    _refuse_empty_block(model)
    anatomy = read_anatomy(model)
    embeddings: Any = anatomy.embeddings
    vocab, hidden = embeddings.weight.shape
    head_dim = getattr(model.config, "head_dim", None) or hidden // model.config.num_attention_heads
    blocks = tuple(_read_block(block, head_dim) for block in anatomy.blocks)
    heads = {block.heads for block in blocks if block.attention is not None}
    if len(heads) != 1:
        found = f"{sorted(heads)} attention heads" if heads else "no attention"
        raise ModelError(f"the blocks have {found}, where a Llama has one number of heads", REMEDY)
    if not isinstance(anatomy.head, nn.Linear) or anatomy.head.bias is not None or anatomy.final_norm is None:
        raise ModelError("the model has no final norm, or no head without a bias, as Llama has", REMEDY)
    _refuse_more_parameters(anatomy, blocks)
    _refuse_settings(model.config)
    shape = LlamaShape(
        model=model,
        blocks=blocks,
        embeddings=embeddings,
        norm=anatomy.final_norm,
        head=anatomy.head,
        tied=anatomy.head.weight is embeddings.weight,
        hidden=hidden,
        vocab=vocab,
        head_dim=head_dim,
        heads=heads.pop(),
        context=model.config.max_position_embeddings,
        eps=model.config.rms_norm_eps,
        rope=dict(model.config.rope_parameters),
    )
    _refuse_other_norms(anatomy, shape)
    return shape


def _parts(block: LlamaBlock) -> tuple[nn.Module | None, ...]:
    return block.attention, block.mlp, block.attention_norm, block.mlp_norm


def _refuse_empty_block(model: Any) -> None:
    for path, module in model.named_modules():
        if sum(isinstance(child, ZeroOutput) for child in module.children()) > 1:
            raise ModelError(f"both sublayers of {path} were dropped", "Drop the block whole instead: that is smaller")


def _read_block(block: Block, head_dim: int) -> LlamaBlock:
    if has_experts(block.module):
        raise ModelError(f"{block.path} is a mixture of experts", REMEDY)
    attention = _one_module(block, block.attention, ATTENTION, "attention with separate projections")
    mlp = _one_module(block, block.mlp, MLP, "gated MLP")
    if mlp is not None:
        _refuse_other_activation(f"{block.path}.{block.mlp.names[0]}", mlp)  # type: ignore[union-attr]
    norms: list[Any] = [getattr(block.module, name, None) for name in NORMS]
    for name, norm, sublayer in zip(NORMS, norms, (attention, mlp), strict=True):
        if sublayer is not None and getattr(norm, "weight", None) is None:
            found = [n for n, child in block.module.named_children() if "norm" in n or "ln" in n]
            raise ModelError(f"{block.path} has no {name} before its sublayer (its norms: {', '.join(found)})", REMEDY)
    outputs = {name: getattr(attention, name).weight.shape[0] for name in ATTENTION[:3]} if attention else {}
    return LlamaBlock(
        attention=attention,
        mlp=mlp,
        attention_norm=norms[0] if attention is not None else None,
        mlp_norm=norms[1] if mlp is not None else None,
        heads=outputs.get("q_proj", 0) // head_dim,
        kv_heads=outputs.get("k_proj", 0) // head_dim,
        width=mlp.gate_proj.weight.shape[0] if mlp is not None else 0,  # type: ignore[union-attr]
    )


def _one_module(block: Block, sublayer: Sublayer | None, names: tuple[str, ...], what: str) -> nn.Module | None:
    if sublayer is None:
        return None
    module = sublayer.modules[0]
    missing = [name for name in names if not isinstance(getattr(module, name, None), nn.Linear)]
    if missing or len(sublayer.modules) > 1:
        place = f"{block.path}.{', '.join(sublayer.names)}"
        if any(hasattr(getattr(module, name, None), "base_layer") for name in missing):
            raise ModelError(f"{place} is wrapped by an adapter", "Merge the adapter first (merge_and_unload)")
        linears = [name for name, child in module.named_children() if getattr(child, "weight", None) is not None]
        raise ModelError(
            f"{place} is no {what} ({', '.join(names)}): it holds {', '.join(linears) or 'others'}", REMEDY
        )
    return module


def _refuse_other_activation(path: str, mlp: Any) -> None:
    probe = torch.linspace(-4, 4, 17)
    act = getattr(mlp, "act_fn", None)
    if act is None or not torch.allclose(act(probe), F.silu(probe), atol=1e-5):
        raise ModelError(f"the activation of {path} is not SiLU ({type(act).__name__})", REMEDY)


def _refuse_settings(config: Any) -> None:
    """Refuse what a configuration says and the structure of modules does not show."""
    if not hasattr(config, "rms_norm_eps"):
        raise ModelError("the model has no RMS norms (its configuration has no rms_norm_eps)", REMEDY)
    rope = getattr(config, "rope_parameters", None) or {}
    kind = rope.get("rope_type")
    if kind not in ROPE_TYPES or "rope_theta" not in rope:
        found = f"are of type {kind}" if kind else "differ by layer" if rope else "are absent"
        raise ModelError(f"the rotary position embeddings {found}; {' and '.join(ROPE_TYPES)} can be exported", REMEDY)
    if rope.get("partial_rotary_factor", 1) != 1:
        raise ModelError("the rotary position embeddings turn only a part of each head", REMEDY)
    window, kinds = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
    slides = kinds is None or "sliding_attention" in kinds
    if window is not None and slides and window < config.max_position_embeddings:
        raise ModelError(
            f"attention is limited to a sliding window of {window} of {config.max_position_embeddings} positions",
            "Set sliding_window to null in config.json if the model may see them all, and measure what that changes",
        )
    for name, neutral in MULTIPLIERS.items():
        if (value := getattr(config, name, neutral)) is not None and value != neutral:
            raise ModelError(f"the model has {name} = {value}, which a Llama has not", REMEDY)


def _refuse_more_parameters(anatomy: Anatomy, blocks: tuple[LlamaBlock, ...]) -> None:
    """Every parameter must be one of a Llama's: whatever else there is, takes part in what the model computes."""
    owners = [(anatomy.embeddings, ""), (anatomy.final_norm, ""), (anatomy.head, "")]
    owners += [(block.module, name) for block in anatomy.blocks for name in NORMS]
    owners += [(block.attention, name) for block in blocks for name in ATTENTION]
    owners += [(block.mlp, name) for block in blocks for name in MLP]
    known = {id(parameter) for owner, name in owners for parameter in _parameters(owner, name)}
    more = [name for name, parameter in anatomy.model.named_parameters() if id(parameter) not in known]
    if not more:
        return
    attention = {name for block in anatomy.blocks if block.attention for name in block.attention.names}
    if any(anatomy.model.get_parameter(name).dim() > 1 for name in more):
        what = "more weights than a Llama"
    elif attention & set(more[0].split(".")):
        what = "norms of queries and keys (QK-norm)"
    else:
        what = "more norms in a block than a Llama"
    raise ModelError(f"the model has {what}: {', '.join(more[:2])}", REMEDY)


def _parameters(owner: nn.Module | None, name: str) -> list[nn.Parameter]:
    part = getattr(owner, name, None) if name else owner
    return list(part.parameters()) if isinstance(part, nn.Module) else []


def _refuse_other_norms(anatomy: Anatomy, shape: LlamaShape) -> None:
    norms = {
        f"{b.path}.{n}": m
        for b, own in zip(anatomy.blocks, shape.blocks, strict=True)
        for n, m in zip(NORMS, _parts(own)[2:], strict=True)
    }
    for path, norm in {**norms, "the final norm": shape.norm}.items():
        if norm is None:
            continue
        weight: Any = norm.weight
        # The second row is so small that eps decides.
        x = torch.randn(2, shape.hidden, generator=torch.Generator().manual_seed(0)) + 0.5
        x = (x * torch.tensor([[1.0], [shape.eps**0.5]])).to(weight)
        unit = (x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + shape.eps)).to(weight.dtype)
        with torch.no_grad():
            found = norm(x)
        if torch.allclose(found.float(), (unit * weight).float(), rtol=2e-2, atol=1e-4):
            continue
        if torch.allclose(found.float(), (unit * (1 + weight)).float(), rtol=2e-2, atol=1e-4):
            raise ModelError(f"{path} scales by 1 + weight", REMEDY)
        raise ModelError(f"{path} is no RMS norm with eps {shape.eps} ({type(norm).__name__})", REMEDY)
