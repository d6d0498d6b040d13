"""Listen to the inputs of a block's matrices: hooks on Linears, interception of matrix products for stacked experts.

Legend: B sequences, T tokens, N tokens of all sequences, C input columns, E experts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from trueprune._support.errors import ModelError
from trueprune.models.anatomy import Block
from trueprune.models.sites import WeightSite

Listener = Callable[[WeightSite, Tensor], None]


@contextmanager
def tapped(block: Block, listener: Listener) -> Iterator[None]:
    """Call `listener(site, x)` with the input of each matrix of `block`, in call order, before it is used.

    `x` has the shape in which the module got it, `(B, T, C)` or `(N, C)`. A listener may end the forward.
    """
    stacked = [site for site in block.sites if site.expert is not None]
    with ExitStack() as stack:
        for site in block.sites:
            if site.expert is None:
                stack.enter_context(_hooked(site, listener))
        if stacked:
            stack.enter_context(_eager_experts(stacked))
            stack.enter_context(_ExpertTap(stacked, listener))
        yield


@contextmanager
def _hooked(site: WeightSite, listener: Listener) -> Iterator[None]:
    def hook(_module: nn.Module, args: tuple[Any, ...]) -> None:
        listener(site, args[0])

    handle = site.module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _eager_experts(sites: list[WeightSite]) -> Iterator[None]:
    """Have transformers run experts one after the other: fused kernels do not show which token goes to which expert."""
    configs = {id(c): c for site in sites if (c := getattr(site.module, "config", None)) is not None}
    before = {key: getattr(config, "_experts_implementation", None) for key, config in configs.items()}
    try:
        for config in configs.values():
            config._experts_implementation = "eager"
        yield
    finally:
        for key, config in configs.items():
            config._experts_implementation = before[key]


class _ExpertTap(TorchFunctionMode):
    """Recognise products with a slice of a stacked expert parameter by the memory that the slice lies in."""

    _PRODUCTS = (F.linear, torch.matmul, torch.mm, torch.bmm, Tensor.matmul, Tensor.__matmul__, Tensor.mm, Tensor.bmm)

    def __init__(self, sites: list[WeightSite], listener: Listener):
        super().__init__()
        self.listener = listener
        self.by_memory: dict[int, dict[int, WeightSite]] = {}
        for site in sites:
            parameter = getattr(site.module, site.parameter)
            self.by_memory.setdefault(parameter.data_ptr(), {})[site.expert or 0] = site

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self._PRODUCTS and len(args) > 1 and isinstance(args[1], Tensor):
            self._recognise(args[0], args[1])
        return func(*args, **(kwargs or {}))

    def _recognise(self, x: Tensor, weight: Tensor) -> None:
        itemsize = weight.element_size()
        base = weight.data_ptr() - weight.storage_offset() * itemsize
        for start, sites in self.by_memory.items():
            first = sites[0].weight_OI
            size = first.numel()
            offset = (weight.data_ptr() - start) // itemsize
            inside = weight.untyped_storage().data_ptr() == base and 0 <= offset < size * len(sites)
            if not inside:
                continue
            if weight.dim() == 3 and x.dim() == 3:
                for expert, site in sites.items():
                    self._emit(site, x[expert])
            elif weight.dim() == 2:
                self._emit(sites[offset // size], x)
            return

    def _emit(self, site: WeightSite, x: Tensor) -> None:
        if x.shape[-1] != site.shape[1]:
            raise ModelError(
                f"the stacked experts {site.name} have {site.shape[1]} input columns and get {x.shape[-1]}",
                "Their storage is laid out in a way that trueprune does not know; please report the architecture",
            )
        self.listener(site, x)
