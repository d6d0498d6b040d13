"""Stand-ins for sublayers that were taken away: no weights, no products, no cache.

This file is also copied into checkpoints (see `dropped.py`), so it imports torch alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class ZeroOutput(nn.Module):
    """In place of a dropped attention or MLP: adds nothing to the residual stream.

    **Arguments:**

    - `returns`: what the block expects: 0 for a tensor, n for a tuple of n whose first is the tensor.
    """

    def __init__(self, returns: int = 0):
        super().__init__()
        self.returns = returns

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Zeros of the input's shape, whatever else is passed."""
        zeros = torch.zeros_like(hidden_states)
        return (zeros, *[None] * (self.returns - 1)) if self.returns else zeros


class PassThrough(nn.Module):
    """In place of a norm (or the first of two bare Linears) that only served a dropped sublayer."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The input itself."""
        return hidden_states


def take_away(model: nn.Module, dropped: Mapping[str, Any]) -> None:
    """Put stand-ins where a model's configuration says, and renumber the attention that is left.

    Cached attention finds its keys by `layer_idx`, and the length of the cache is read from slot 0: slots must be
    filled from the first on.

    **Arguments:**

    - `model`: as built from the configuration, with all its sublayers.
    - `dropped`: `"zero"` maps module paths to what they return (see `ZeroOutput`), `"pass"` lists paths of modules that
        pass their input on, `"slots"` maps paths of modules to their cache slot.
    """
    for path, returns in dropped["zero"].items():
        _replace(model, path, ZeroOutput(returns))
    for path in dropped["pass"]:
        _replace(model, path, PassThrough())
    for path, slot in dropped["slots"].items():
        model.get_submodule(path).layer_idx = slot


def _replace(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
