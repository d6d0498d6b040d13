"""The arithmetic of training: what a device computes natively, mixed precision, and activations computed again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from trueprune._support.errors import RepairError
from trueprune.models.anatomy import Block

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_precision(name: str, device: torch.device) -> str:
    """The precision that `auto` means on a device: bfloat16 where it is computed natively, else float32.

    **Raises:** `RepairError` for float16 elsewhere than on CUDA, where its gradients underflow or are emulated.
    """
    if name == "auto":
        return "bfloat16" if _native_bfloat16(device) else "float32"
    if name == "float16" and device.type != "cuda":
        raise RepairError(f"--precision float16 is for CUDA, the model is on {device}", "Use auto or bfloat16")
    return name


def _native_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # Not public in torch; where they are gone, float32 is right, only slower.
        asked = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("amx_tile", "avx512_bf16"))
        return any(supported() for supported in asked if supported is not None)
    return False


def computing(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Autocast to a precision; nothing for float32."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[precision])


@contextmanager
def prepared(model: nn.Module, precision: str) -> Iterator[None]:
    """Make a model ready to be trained around: frozen, in evaluation mode, in float32 if that is asked for.

    Dropout stays off: healing is short, and a resumed run must see what an uninterrupted one sees. Afterwards every
    tensor has the dtype that it had; what was not trained comes back to the bit, as float32 holds all smaller floats.
    """
    parameters = list(model.parameters())
    wanted = [parameter.requires_grad for parameter in parameters]
    dtypes = [parameter.dtype for parameter in parameters]
    was_training = model.training
    try:
        model.eval()
        for parameter in parameters:
            parameter.requires_grad_(False)
            if precision == "float32" and parameter.is_floating_point():
                parameter.data = parameter.data.float()
        yield
    finally:
        for parameter, wants, dtype in zip(parameters, wanted, dtypes, strict=True):
            parameter.data = parameter.data.to(dtype)
            parameter.grad = None
            parameter.requires_grad_(wants)
        model.train(was_training)


@contextmanager
def checkpointed(blocks: Sequence[Block], enabled: bool) -> Iterator[None]:
    """Keep only the inputs of blocks for the backward pass, which computes each block again when it needs it.

    Structural, and not by the model's own switch: that one works in training mode alone, which turns dropout on.

    **Arguments:**

    - `blocks`: from the first that is trained on; what comes before needs no backward pass.
    - `enabled`: whether to do so.
    """
    if not enabled:
        yield
        return
    before = [block.module.__dict__.get("forward") for block in blocks]
    try:
        for block in blocks:
            block.module.forward = _again(block.module.forward)
        yield
    finally:
        for block, old in zip(blocks, before, strict=True):
            if old is None:
                block.module.__dict__.pop("forward", None)
            else:
                block.module.forward = old


def _again(forward: Any) -> Any:
    def computed_again(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return computed_again
