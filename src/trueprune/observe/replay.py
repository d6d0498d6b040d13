"""Learn what every block is called with, by running a model whose blocks only pass their input on.

The model itself then prepares masks, positions and rotary embeddings, so no architecture needs code of its own.
Legend: B sequences of a micro-batch, T tokens, D residual width.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trueprune.models.anatomy import Anatomy
from trueprune.models.stubs import ZeroOutput


class _Stop(Exception):  # noqa: N818 - a signal, not an error
    """Raised in the middle of a forward whose rest nobody needs."""


@contextmanager
def stop_here() -> Iterator[None]:
    """Swallow the signal that ends a forward early."""
    with suppress(_Stop):
        yield


def stop_forward() -> None:
    """End the running forward; must be called inside `stop_here`."""
    raise _Stop


@dataclass(eq=False)
class MicroBatch:
    """The activations of some sequences on their way through the blocks, and the arguments of every block.

    **Arguments:**

    - `hidden_BTD`: the residual stream before the block whose turn it is; overwritten block after block.
    - `mask_BT`: which tokens are real, or `None` if all are.
    - `calls`: for each block, what it gets besides the residual stream, as (positional, keyword).
    """

    hidden_BTD: Tensor
    mask_BT: Tensor | None
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]]

    def run(self, index: int, block: nn.Module) -> Tensor:
        """The output of block `index` on the current residual stream, of shape `(B, T, D)`."""
        args, kwargs = self.calls[index]
        if "hidden_states" in kwargs:
            output = block(*args, **{**kwargs, "hidden_states": self.hidden_BTD})
        else:
            output = block(self.hidden_BTD, *args, **kwargs)
        return output[0] if isinstance(output, tuple) else output


def capture(anatomy: Anatomy, ids_BT: Tensor, mask_BT: Tensor | None) -> MicroBatch:
    """Run embeddings and everything between the blocks, but not the blocks, and keep what each block is given."""
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    first: list[Tensor] = []

    def passing(block_index: int, as_tuple: bool):
        def forward(*args: Any, **kwargs: Any) -> Any:
            hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
            rest = args if "hidden_states" in kwargs else args[1:]
            keep = {name: (None if name == "hidden_states" else value) for name, value in kwargs.items()}
            first.append(hidden) if block_index == 0 else None
            seen.append((rest, keep))
            if block_index == len(anatomy.blocks) - 1:
                stop_forward()
            return (hidden,) if as_tuple else hidden

        return forward

    as_tuple = _returns_tuple(anatomy)
    with _forwards_replaced([(b.module, passing(b.index, as_tuple)) for b in anatomy.blocks]), stop_here():
        anatomy.model(**model_inputs(anatomy.model, ids_BT, mask_BT))
    return MicroBatch(first[0], mask_BT, seen)


def model_inputs(model: nn.Module, ids_BT: Tensor, mask_BT: Tensor | None) -> dict[str, Any]:
    """Keyword arguments of a whole-model forward, with positions that do not count padding on the left."""
    inputs: dict[str, Any] = {"input_ids": ids_BT, "use_cache": False}
    if mask_BT is not None:
        inputs["attention_mask"] = mask_BT.long()
        padded_left = not bool(mask_BT[:, 0].all())
        # PEFT's forward hands on keywords that its signature does not name.
        unwrapped = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
        if padded_left and "position_ids" in inspect.signature(unwrapped.forward).parameters:  # type: ignore[union-attr]
            inputs["position_ids"] = (mask_BT.long().cumsum(1) - 1).clamp_min(0)
    return inputs


def _returns_tuple(anatomy: Anatomy) -> bool:
    """Whether blocks return a tuple: most return a tensor, and taking `[0]` of that would drop all but one row."""
    kinds: list[bool] = []
    block = anatomy.blocks[0].module

    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        kinds.append(isinstance(output, tuple))
        stop_forward()

    handle = block.register_forward_hook(hook)
    ids_BT = torch.zeros(1, 1, dtype=torch.long, device=anatomy.device)
    try:
        with stop_here():
            anatomy.model(input_ids=ids_BT, use_cache=False)
    finally:
        handle.remove()
    return kinds[0]


@contextmanager
def _forwards_replaced(pairs: list[tuple[nn.Module, Any]]) -> Iterator[None]:
    """Give modules another `forward` for a while. Wrappers (accelerate's hooks) that set one of their own come back."""
    before = [module.__dict__.get("forward") for module, _ in pairs]
    try:
        for module, forward in pairs:
            module.forward = forward
        yield
    finally:
        for (module, _), old in zip(pairs, before, strict=True):
            if old is None:
                module.__dict__.pop("forward", None)
            else:
                module.forward = old


@contextmanager
def bypassed(
    anatomy: Anatomy, gone: Collection[int], zero: Mapping[str, int], passing: Iterable[str]
) -> Iterator[None]:
    """Run a model for a while as if some of its layers were not there, without changing it.

    **Arguments:**

    - `anatomy`: the model's parts.
    - `gone`: blocks that pass their input on.
    - `zero`: modules that give zeros, by path, and how they return them (see `stubs.ZeroOutput`).
    - `passing`: modules that pass their input on, by path.
    """
    as_tuple = _returns_tuple(anatomy)

    def passes(hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> Any:
        return hidden_states

    def passes_block(hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> Any:
        return (hidden_states, None) if as_tuple else hidden_states

    pairs = [(block.module, passes_block) for block in anatomy.blocks if block.index in gone]
    pairs += [(anatomy.model.get_submodule(path), ZeroOutput(returns).forward) for path, returns in zero.items()]
    pairs += [(anatomy.model.get_submodule(path), passes) for path in passing]
    with _forwards_replaced(pairs):
        yield


def share_equal(new: Any, old: Any) -> Any:
    """`new` with each tensor that equals its counterpart in `old` replaced by it, so that equal masks are kept once."""
    if isinstance(new, Tensor) and isinstance(old, Tensor):
        same = new is old or (new.shape == old.shape and new.dtype == old.dtype and torch.equal(new, old))
        return old if same else new
    if isinstance(new, (tuple, list)) and isinstance(old, (tuple, list)) and len(new) == len(old):
        return type(new)(share_equal(a, b) for a, b in zip(new, old, strict=True))
    if isinstance(new, dict) and isinstance(old, dict) and new.keys() == old.keys():
        return {key: share_equal(value, old[key]) for key, value in new.items()}
    return new
