"""The obvious ways to do it, that the package is measured against: slow, plain, whole-model forwards with hooks.

Nothing here uses trueprune.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

STACKS = {
    "gpt2": "transformer.h",
    "falcon": "transformer.h",
    "gpt_neox": "gpt_neox.layers",
    "opt": "model.decoder.layers",
}
NORMS = {
    "gpt2": "transformer.ln_f",
    "falcon": "transformer.ln_f",
    "gpt_neox": "gpt_neox.final_layer_norm",
    "opt": "model.decoder.final_layer_norm",
}


def stack_path(name: str) -> str:
    return STACKS.get(name, "model.layers")


def stack_of(model: nn.Module, name: str) -> list[nn.Module]:
    return list(model.get_submodule(stack_path(name)))


def token_rows(rows: int = 4, length: int = 24, seed: int = 0) -> Tensor:
    return torch.randint(3, 320, (rows, length), generator=torch.Generator().manual_seed(seed))


def experts_in(block: nn.Module) -> dict[str, nn.Module]:
    return {
        name: module for name, module in block.named_modules() if hasattr(module, "gate_up_proj") and "expert" in name
    }


def matrices(block: nn.Module) -> dict[str, Tensor]:
    """Every prunable matrix of a block as a view (out, in)."""
    found = {}
    for name, module in block.named_modules():
        if isinstance(module, nn.Linear):
            found[name] = module.weight.data
        if isinstance(module, Conv1D):
            found[name] = module.weight.data.t()
    for name, module in experts_in(block).items():
        for parameter in ("gate_up_proj", "down_proj"):
            for expert, weight in enumerate(getattr(module, parameter).data):
                found[f"{name}.{parameter}[{expert}]"] = weight
    return found


@torch.no_grad()
def inputs_of(model: nn.Module, block: nn.Module, batches: list[Tensor]) -> dict[str, Tensor]:
    """What each matrix of a block is multiplied with, of shape (tokens, in), in whole-model forwards over batches."""
    heard: dict[str, list[Tensor]] = {}
    with _listening(block, heard):
        for ids_BT in batches:
            model(ids_BT, use_cache=False)
    return {name: torch.cat(parts) for name, parts in heard.items()}


@contextmanager
def _listening(block: nn.Module, heard: dict[str, list[Tensor]]) -> Iterator[None]:
    def hook(name):
        def keep(_module, args):
            heard.setdefault(name, []).append(args[0].detach().reshape(-1, args[0].shape[-1]).clone())

        return keep

    linears = {n: m for n, m in block.named_modules() if isinstance(m, (nn.Linear, Conv1D))}
    handles = [module.register_forward_pre_hook(hook(name)) for name, module in linears.items()]
    experts = experts_in(block)
    for name, module in experts.items():
        module.forward = _plain_experts(name, module, heard)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module in experts.values():
            del module.forward


def _plain_experts(name: str, module: nn.Module, heard: dict[str, list[Tensor]]):
    """Gated experts one after the other, as in the Mixtral paper."""

    def forward(x_NC, chosen_NK, gate_NK):
        out_NC = torch.zeros_like(x_NC)
        for expert in range(len(module.gate_up_proj)):
            slot, token = torch.where((chosen_NK == expert).t())
            if len(token) == 0:
                continue
            x = x_NC[token]
            heard.setdefault(f"{name}.gate_up_proj[{expert}]", []).append(x)
            gate, up = (x @ module.gate_up_proj[expert].t()).chunk(2, dim=-1)
            hidden = nn.functional.silu(gate) * up
            heard.setdefault(f"{name}.down_proj[{expert}]", []).append(hidden)
            out = (hidden @ module.down_proj[expert].t()) * gate_NK[token, slot, None]
            out_NC.index_add_(0, token, out.to(out_NC.dtype))
        return out_NC

    return forward
