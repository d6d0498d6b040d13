"""What a forward costs whatever the machine: floating-point operations, key-value cache, memory.

Legend: B sequences, H heads, S positions, D head width.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from trueprune.audits.efficiency_runs import Runner

# Short enough to lie in any sliding window, where every token takes its full place.
CACHE_PROBE = 4


def forward_flops(runner: Runner) -> tuple[int, int]:
    """Floating-point operations of prefill and of the decode step after it, for one sequence.

    Products only, a multiplication and an addition each; attention counts all pairs of positions, masked or not.
    A zero weight costs as much as any other.
    """
    ids_1T = runner.ids_BT[:1, : runner.prompt_tokens]
    with FlopCounterMode(display=False, custom_mapping=_formulas()) as prefill:
        cache = runner.forward(ids_1T)
    with FlopCounterMode(display=False, custom_mapping=_formulas()) as decode:
        runner.forward(next(runner.steps())[:1], cache)
    return prefill.get_total_flops(), decode.get_total_flops()


def _formulas() -> dict[Any, Callable[..., int]]:
    """Formulas of fused operations that the counter of torch lacks: attention on the CPU, products by expert."""
    attention = (
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
    )
    named = {**dict.fromkeys(attention, _attention_flops), "_grouped_mm": _grouped_flops}
    return {getattr(torch.ops.aten, name): flops for name, flops in named.items() if hasattr(torch.ops.aten, name)}


def _attention_flops(
    query_BHSD: tuple[int, ...], key_BHSD: tuple[int, ...], value_BHSD: tuple[int, ...], *_args: Any, **_kwargs: Any
) -> int:
    """Scores and their product with the values; key heads may be fewer than query heads."""
    *outer, positions, width = query_BHSD
    return 2 * math.prod(outer) * positions * key_BHSD[-2] * (width + value_BHSD[-1])


def _grouped_flops(left: tuple[int, ...], *_args: Any, out_shape: tuple[int, ...], **_kwargs: Any) -> int:
    """Each row meets the matrix of its expert alone."""
    return 2 * math.prod(out_shape) * left[-1]


def cache_bytes_per_token(runner: Runner) -> float:
    """Bytes by which the key-value cache of one sequence grows with a token.

    Measured on the returned cache: the difference between two short prompts, so that whatever has a fixed size counts
    nothing. Inside a sliding window a token counts in full.
    """
    short, long = (cache_bytes(runner.forward(runner.ids_BT[:1, :n]), n) for n in (CACHE_PROBE, 2 * CACHE_PROBE))
    return (long - short) / CACHE_PROBE


def cache_bytes(cache: Any, tokens: int) -> int:
    """Bytes that the cache holds for `tokens` positions; of slots allocated ahead only those in use.

    **Arguments:**

    - `cache`: what a forward returned: a cache of transformers, some of whose slots may be empty, or nested tuples.
    - `tokens`: positions that were run.
    """
    # Single numbers are counters of positions, no keys or values.
    distinct = {(tensor.data_ptr(), tensor.shape): tensor for tensor in _cache_tensors(cache) if tensor.numel() > 1}
    return sum(_bytes_in_use(tensor, tokens) for tensor in distinct.values())


def _cache_tensors(cache: Any) -> Iterator[Tensor]:
    if isinstance(cache, Tensor):
        yield cache
    elif isinstance(cache, dict):
        for value in cache.values():
            yield from _cache_tensors(value)
    elif isinstance(cache, (list, tuple)):
        for value in cache:
            yield from _cache_tensors(value)
    elif hasattr(cache, "layers"):
        yield from _cache_tensors([vars(layer) for layer in cache.layers])
    elif hasattr(cache, "__dict__") and "cache" in type(cache).__name__.lower():
        yield from _cache_tensors(vars(cache))


def _bytes_in_use(tensor_BHSD: Tensor, tokens: int) -> int:
    size = tensor_BHSD.numel() * tensor_BHSD.element_size()
    if tensor_BHSD.dim() == 4 and tensor_BHSD.shape[-2] > tokens:
        return size // tensor_BHSD.shape[-2] * tokens
    return size


def peak_memory(runner: Runner) -> tuple[int, int]:
    """Bytes of the weights, and the most that one prefill and one decode step hold beside them.

    On CUDA the allocator's own peak. On the CPU the bytes of all tensors alive after any operation: what an operation
    takes and gives back inside itself is not seen.
    """
    weights = tensor_bytes(runner.model)
    devices = [device for device in runner.devices if device.type == "cuda"]
    if devices:
        before = {device: torch.cuda.memory_allocated(device) for device in devices}
        for device in devices:
            torch.cuda.reset_peak_memory_stats(device)
        _prefill_and_step(runner)
        peak = sum(torch.cuda.max_memory_allocated(device) - held for device, held in before.items())
        return weights, peak
    with LiveMemory() as memory:
        _prefill_and_step(runner)
    return weights, memory.peak


def _prefill_and_step(runner: Runner) -> None:
    cache = runner.forward(runner.ids_BT[:, : runner.prompt_tokens])
    runner.forward(next(runner.steps()), cache)


def tensor_bytes(model: nn.Module) -> int:
    """Bytes of a model's distinct parameters and buffers."""
    tensors = [*model.parameters(), *model.buffers()]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


class LiveMemory(TorchDispatchMode):
    """While active, adds up the storages that operations make and takes off those that are freed.

    `live` and `peak` are bytes. Storages from before do not count.
    """

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for given in tree_leaves((args, kwargs)):
            self._meet(given, is_new=False)
        result = func(*args, **kwargs)
        for made in tree_leaves(result):
            self._meet(made, is_new=True)
        self.peak = max(self.peak, self.live)
        return result

    def _meet(self, value: Any, is_new: bool) -> None:
        if not isinstance(value, Tensor):
            return
        storage = value.untyped_storage()
        if storage._cdata in self._known:
            return
        size = storage.nbytes() if is_new else 0
        self._known.add(storage._cdata)
        self.live += size
        # A storage's Python object lives as long as its memory does.
        weakref.finalize(storage, self._forget, storage._cdata, size).atexit = False

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size
