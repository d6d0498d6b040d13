"""The one streaming engine: calibration tokens go through the blocks one block at a time.

For each block in turn: observe the inputs of its matrices, (perhaps) edit it, advance the residual stream through it.
The engine holds one activation buffer, updated in place, and asks for a block only when its turn comes.
Legend: N sequences, B sequences of a micro-batch, T tokens, C input columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, TypeVar

import torch
from torch import Tensor

from trueprune._support.errors import ModelError
from trueprune._support.progress import track
from trueprune.models.anatomy import Anatomy, Block
from trueprune.models.sites import WeightSite, has_experts
from trueprune.observe.profile import ProfileWatch
from trueprune.observe.replay import MicroBatch, capture, share_equal, stop_forward, stop_here
from trueprune.observe.statistics import Statistic
from trueprune.observe.taps import tapped
from trueprune.texts.tokens import TokenBatch

S = TypeVar("S", bound=Statistic)
# A CPU is busy with one sequence, and more only costs memory; an accelerator wants more at once.
CPU_BATCH_TOKENS, ACCELERATOR_BATCH_TOKENS = 1024, 8192


class BlockStream:
    """Calibration tokens on their way through a model.

    **Arguments:**

    - `anatomy`: the model's parts.
    - `tokens`: calibration tokens.
    - `batch_tokens`: tokens that go through a block in one call (at least one sequence); by default 1,024 on a CPU and
        8,192 on an accelerator.
    """

    def __init__(self, anatomy: Anatomy, tokens: TokenBatch, *, batch_tokens: int | None = None):
        self.anatomy = anatomy
        self._last_input: dict[tuple[str, ...], str] = {}
        self._batches: list[MicroBatch] = []
        one_length = any(has_experts(block.module) for block in anatomy.blocks)
        device = anatomy.device
        if batch_tokens is None:
            batch_tokens = CPU_BATCH_TOKENS if device.type == "cpu" else ACCELERATOR_BATCH_TOKENS
        with torch.no_grad():
            for ids_BT, mask_BT in _micro_batches(tokens, batch_tokens, one_length):
                mask_BT = None if mask_BT is None else mask_BT.to(device)
                batch = capture(anatomy, ids_BT.to(device), mask_BT)
                if self._batches:
                    batch.calls = share_equal(batch.calls, self._batches[0].calls)
                self._batches.append(batch)

    def blocks(self, description: str) -> Iterator[Block]:
        """The blocks in order, with a progress bar."""
        yield from track(self.anatomy.blocks, description)

    @torch.no_grad()
    def observe(
        self, block: Block, statistic: type[S], *, advance: bool = False, watch: ProfileWatch | None = None
    ) -> dict[str, S]:
        """Run the tokens through a block and sum a statistic of each matrix's input.

        Matrices that read the same tensor (q, k, v) share one statistic. Unless the output is wanted, the forward ends
        at the last input that differs, so that the last matrix is never multiplied.

        **Arguments:**

        - `block`: the block whose turn it is.
        - `statistic`: the class to sum.
        - `advance`: whether the block's output becomes the next block's input (a dense pass); otherwise the residual
            stream stays where it is.
        - `watch`: sees what goes through the block as well; the forward then runs to its end.

        **Returns:** a statistic for the name of each matrix that was used; matrices with one input share one object.

        **Raises:** `ModelError` if no expert of a stack could be listened to.
        """
        collector = _Collector(statistic, len(block.sites), self._last_input.get(_shape_key(block)))
        for number, batch in enumerate(self._batches):
            collector.start(batch, stop_early=not advance and watch is None)
            with stop_here(), tapped(block, collector.listen), _watched(watch, block):
                output_BTD = batch.run(block.index, block.module)
                if watch is not None:
                    watch.add(block, number, batch, output_BTD)
                if advance:
                    batch.hidden_BTD.copy_(output_BTD)
        collector.finish()
        _refuse_unheard_experts(block, collector.result)
        for name, seen in collector.result.items():
            if not seen.is_finite():
                raise ModelError(
                    f"the inputs of {block.path}.{name} are not finite: activations overflow", "Use --dtype float32"
                )
        if collector.last_leader is not None:
            self._last_input[_shape_key(block)] = collector.last_leader
        return collector.result

    @torch.no_grad()
    def advance(self, block: Block, *, watch: ProfileWatch | None = None) -> None:
        """Replace the residual stream before a block by the one after it.

        The last block's output is not needed, unless somebody watches.
        """
        if watch is None and block.index == len(self.anatomy.blocks) - 1:
            return
        for number, batch in enumerate(self._batches):
            with _watched(watch, block):
                output_BTD = batch.run(block.index, block.module)
            if watch is not None:
                watch.add(block, number, batch, output_BTD)
            batch.hidden_BTD.copy_(output_BTD)


def _watched(watch: ProfileWatch | None, block: Block) -> AbstractContextManager[None]:
    return nullcontext() if watch is None else watch.listening(block)


def _shape_key(block: Block) -> tuple[str, ...]:
    # Blocks made of the same matrices call them in the same order.
    return (type(block.module).__name__, *(site.name for site in block.sites))


def _refuse_unheard_experts(block: Block, heard: Mapping[str, object]) -> None:
    """Some experts may be idle, but not all of a stack: then its products are computed in a way we do not see."""
    stacks = {(id(site.module), site.parameter): site for site in block.sites if site.expert is not None}
    for site in block.sites:
        if site.name in heard:
            stacks.pop((id(site.module), site.parameter), None)
    for site in stacks.values():
        raise ModelError(
            f"the inputs of the stacked experts {block.path}.{site.name.partition('[')[0]} cannot be observed",
            "Merge or unload an adapter on experts first; without one, please report the architecture",
        )


class _Collector(Generic[S]):
    """Sums a statistic for every distinct input of a block's matrices.

    Which input comes last is known after a micro-batch that used every matrix; where experts are idle, one that was
    not heard may come after those that were.
    """

    def __init__(self, statistic: type[S], matrices: int, last_leader: str | None):
        self.statistic = statistic
        self.matrices = matrices
        self.result: dict[str, S] = {}
        self.followers: dict[str, str] = {}
        self.last_leader = last_leader
        self._heard: set[str] = set()
        self._end = ""
        self._seen: list[tuple[str, Tensor]] = []
        self._mask_BT: Tensor | None = None
        self._stop_early = False

    def start(self, batch: MicroBatch, stop_early: bool) -> None:
        """A micro-batch begins."""
        self.finish()
        self._mask_BT = batch.mask_BT
        self._stop_early = stop_early and self.last_leader is not None

    def finish(self) -> None:
        """A micro-batch ended; let its inputs go."""
        if self.last_leader is None and len(self._heard) == self.matrices:
            self.last_leader = self._end
        self._heard.clear()
        self._seen.clear()

    def listen(self, site: WeightSite, x: Tensor) -> None:
        """One matrix is about to be multiplied with `x`."""
        if x.numel() == 0:
            # An idle expert that is called all the same; empty tensors of different experts would look alike.
            return
        self._heard.add(site.name)
        if site.name in self.followers:
            return
        leader = self._leader_of(site.name, x)
        if leader != site.name:
            self.followers[site.name] = leader
            self.result[site.name] = self.result[leader]
            return
        if site.name not in self.result:
            self.result[site.name] = self.statistic(x.shape[-1], x.device)
        self._end = site.name
        x_NC = x.reshape(-1, x.shape[-1])
        if self._mask_BT is not None:
            x_NC = x_NC[self._mask_BT.reshape(-1).to(x_NC.device)]
        self.result[site.name].add(x_NC)
        if self._stop_early and site.name == self.last_leader:
            stop_forward()

    def _leader_of(self, name: str, x: Tensor) -> str:
        # Inputs of the running micro-batch are kept alive until it ends, so equal memory means the same tensor.
        for other, seen in self._seen:
            if seen is x or (seen.data_ptr() == x.data_ptr() and seen.shape == x.shape and seen.stride() == x.stride()):
                return other if other in self.result else name
        self._seen.append((name, x))
        return name


def _micro_batches(tokens: TokenBatch, batch_tokens: int, one_length: bool) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Cut sequences into micro-batches; padded rows are sorted by length, and padding common to all is cut off.

    With stacked experts (`one_length`) a micro-batch holds rows of one length only, padded on one side: inside an
    expert nothing tells a padding token from a real one.
    """
    ids_NT, mask_NT = tokens.ids_NT, tokens.mask_NT
    if mask_NT is None:
        rows = max(1, batch_tokens // ids_NT.shape[1])
        for start in range(0, ids_NT.shape[0], rows):
            yield ids_NT[start : start + rows], None
        return
    lengths = tokens.lengths
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    while order:
        # Fill from the shortest: the longest row of the batch decides its width.
        take = 1
        while take < len(order) and lengths[order[take]] * (take + 1) <= batch_tokens:
            if one_length and not torch.equal(mask_NT[order[take]], mask_NT[order[0]]):
                break
            take += 1
        chosen, order = order[:take], order[take:]
        ids_BT, mask_BT = ids_NT[chosen], mask_NT[chosen]
        used = mask_BT.any(0)
        ids_BT, mask_BT = ids_BT[:, used], mask_BT[:, used]
        yield ids_BT, None if bool(mask_BT.all()) else mask_BT
