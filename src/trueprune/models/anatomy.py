"""Find the parts of a decoder by structure, never by model name."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from trueprune._support.errors import ModelError
from trueprune.models.sites import WeightSite, has_weights, sites_in


@dataclass(frozen=True, eq=False)
class Sublayer:
    """The modules of a block that hold one sublayer's weights: one module mostly, two for OPT's bare `fc1`, `fc2`."""

    names: tuple[str, ...]
    modules: tuple[nn.Module, ...]


@dataclass(frozen=True, eq=False)
class Block:
    """One decoder block.

    **Arguments:**

    - `index`: 0-based depth.
    - `path`: dotted path from the model, e.g. `"model.layers.3"`.
    - `module`: the block.
    - `attention`: the sublayer that mixes tokens, or `None`.
    - `mlp`: the sublayer that acts on each token alone, or `None`.
    - `sites`: the prunable matrices, in registration order.
    """

    index: int
    path: str
    module: nn.Module
    attention: Sublayer | None
    mlp: Sublayer | None
    sites: tuple[WeightSite, ...]

    @property
    def numel(self) -> int:
        """The number of prunable weights."""
        return sum(site.numel for site in self.sites)


@dataclass(frozen=True, eq=False)
class Anatomy:
    """The parts of a causal language model.

    **Arguments:**

    - `model`: the model itself.
    - `blocks`: the decoder stack, in order.
    - `embeddings`: token embeddings.
    - `final_norm`: the norm after the last block, or `None`.
    - `head`: the output projection, or `None`.
    """

    model: nn.Module
    blocks: tuple[Block, ...]
    embeddings: nn.Module
    final_norm: nn.Module | None
    head: nn.Module | None

    @property
    def device(self) -> torch.device:
        """Where token ids go: the device of the embeddings."""
        return next(self.embeddings.parameters()).device

    @property
    def weights(self) -> list[int]:
        """Prunable weights of each block, of length L."""
        return [block.numel for block in self.blocks]


def read_anatomy(model: nn.Module) -> Anatomy:
    """Find decoder stack, sublayers, prunable matrices, embeddings, final norm and head.

    The decoder stack is the largest `ModuleList` (by parameters, not nested in another) whose every child owns a
    matrix. In a block, the attention sublayer is the child whose `forward` takes an attention mask; the other children
    that own matrices are the MLP sublayer.

    **Arguments:**

    - `model`: a causal language model, wrapped by PEFT or not.

    **Raises:** `ModelError` that lists what was found, when there is no such stack or blocks share weights.
    """
    path, stack = _decoder_stack(model)
    blocks = tuple(_read_block(i, f"{path}.{i}", module) for i, module in enumerate(stack))
    _refuse_shared_weights(blocks)
    return Anatomy(
        model=model,
        blocks=blocks,
        embeddings=_embeddings(model),
        final_norm=_final_norm(model.get_submodule(path.rpartition(".")[0]), _residual_width(model)),
        head=_head(model),
    )


def _decoder_stack(model: nn.Module) -> tuple[str, Sequence[nn.Module]]:
    found: dict[str, nn.ModuleList] = {}
    for path, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or not len(module):
            continue
        nested = any(path.startswith(outer + ".") for outer in found)
        if not nested and all(has_weights(child) for child in module):
            found[path] = module
    if not found:
        raise ModelError(
            f"no decoder stack found in {type(model).__name__}: no list of modules that all hold Linear weights; "
            f"found {_outline(model)}",
            "trueprune reads decoder-only transformers; open an issue with this message for another architecture",
        )
    path = max(found, key=lambda p: sum(parameter.numel() for parameter in found[p].parameters()))
    return path, list(found[path])


def _outline(model: nn.Module) -> str:
    parts = [f"{name}: {type(child).__name__}" for name, child in model.named_modules() if 0 < len(name.split(".")) < 3]
    return "; ".join(parts[1:13]) + ("; ..." if len(parts) > 13 else "")


def _read_block(index: int, path: str, module: nn.Module) -> Block:
    attention, mlp = [], []
    for name, child in module.named_children():
        if has_weights(child):
            (attention if _takes_attention_mask(child) else mlp).append((name, child))
    sites = tuple(sites_in(module))
    if any(site.weight_OI.device.type == "meta" for site in sites):
        raise ModelError(f"the weights of {path} are offloaded", "Use a --device-map that keeps every block in memory")
    if not sites:
        raise ModelError(f"block {path} ({type(module).__name__}) holds no prunable matrix", "Nothing can be pruned")
    return Block(index, path, module, _sublayer(attention), _sublayer(mlp), sites)


def _sublayer(parts: list[tuple[str, nn.Module]]) -> Sublayer | None:
    if not parts:
        return None
    return Sublayer(tuple(name for name, _ in parts), tuple(child for _, child in parts))


def _takes_attention_mask(module: nn.Module) -> bool:
    # A sublayer that acts on each token alone has no use for a mask; one that mixes tokens cannot do without.
    return "attention_mask" in inspect.signature(module.forward).parameters


def _refuse_shared_weights(blocks: tuple[Block, ...]) -> None:
    seen: dict[int, str] = {}
    for block in blocks:
        for site in block.sites:
            owner = seen.setdefault(site.weight_OI.data_ptr(), block.path)
            if owner != block.path and site.weight_OI.device.type != "meta":
                raise ModelError(
                    f"{block.path}.{site.name} shares its weight with {owner}",
                    "A model whose blocks share weights cannot have a sparsity of its own for each block",
                )


def _embeddings(model: nn.Module) -> nn.Module:
    getter = getattr(model, "get_input_embeddings", None)
    embeddings = getter() if getter else None
    if embeddings is None:
        raise ModelError(f"{type(model).__name__} has no input embeddings", "Pass a transformers causal language model")
    return embeddings


def _head(model: nn.Module) -> nn.Module | None:
    getter = getattr(model, "get_output_embeddings", None)
    return getter() if getter else None


def _final_norm(parent: nn.Module, width: int) -> nn.Module | None:
    """The last leaf beside the stack that owns only vectors of the residual width."""
    norm = None
    for child in parent.children():
        vectors = list(child.parameters())
        leaf = not any(True for _ in child.children())
        if leaf and vectors and all(p.dim() == 1 and p.shape[0] == width for p in vectors):
            norm = child
    return norm


def _residual_width(model: nn.Module) -> int:
    config = getattr(model, "config", None)
    return getattr(config, "hidden_size", None) or _embeddings(model).weight.shape[-1]  # type: ignore[union-attr]
