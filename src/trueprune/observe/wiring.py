"""How attention and MLP hang in a block, found by running it once: what comes before and after each, one after the
other or side by side. No architecture is known by name.

Legend: B sequences, T tokens, D residual width.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from trueprune.models.anatomy import Anatomy, Block, Sublayer
from trueprune.observe.replay import MicroBatch, capture

PROBE_TOKENS = 6


@dataclass(frozen=True)
class Branch:
    """One sublayer and the modules that serve it alone.

    **Arguments:**

    - `core`: child names of the modules that hold its weights, in call order.
    - `before`: children that only prepare its input, or stand between two modules of `core`: norms, activations.
    - `after`: children that only see its output: sandwich norms, dropout.
    - `returns`: what the last of `core` returns: 0 for a tensor, n for a tuple of n.
    - `scale`: by what the block multiplies the branch's output before it adds it to the stream.
    """

    core: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]
    returns: int
    scale: float = 1.0

    @property
    def last(self) -> str:
        """The child whose output is the branch's."""
        return (*self.core, *self.after)[-1]


@dataclass(frozen=True)
class Wiring:
    """How the sublayers of a block are joined.

    **Arguments:**

    - `attention`, `mlp`: the branches, `None` where there is none (or its weights were never used).
    - `parallel`: whether both read the block's input (GPT-NeoX, Falcon) instead of one the other's result.
    - `residual`: whether the block adds what its branches give to the stream and does nothing else; false for
        norms on the stream itself (OPT-350M).
    """

    attention: Branch | None
    mlp: Branch | None
    parallel: bool
    residual: bool


@dataclass(eq=False)
class _Call:
    name: str
    x: Tensor
    y: Tensor
    kept_BTD: Tensor  # a copy: some blocks add in place
    returns: int


@torch.no_grad()
def read_wirings(anatomy: Anatomy) -> list[Wiring]:
    """The wiring of every block, from one forward of a few tokens.

    **Arguments:**

    - `anatomy`: the model's parts.

    **Returns:** one entry a block.
    """
    table = anatomy.embeddings.weight
    ids_BT = (torch.arange(PROBE_TOKENS, device=anatomy.device)[None] * 7919 + 11) % table.shape[0]  # type: ignore[index]
    batch = capture(anatomy, ids_BT, None)
    wirings = []
    for block in anatomy.blocks:
        x_BTD = batch.hidden_BTD
        calls, y_BTD = _record(block, batch)
        wirings.append(_wire(block, calls, x_BTD, y_BTD))
        batch.hidden_BTD = y_BTD
    return wirings


def _record(block: Block, batch: MicroBatch) -> tuple[list[_Call], Tensor]:
    """Run a block; what each of its children was given and gave, in call order."""
    calls: list[_Call] = []

    def listen(name: str):
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            x = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
            y = output[0] if isinstance(output, tuple) else output
            calls.append(_Call(name, x, y, y.clone(), len(output) if isinstance(output, tuple) else 0))

        return hook

    handles = [
        child.register_forward_hook(listen(name), with_kwargs=True) for name, child in block.module.named_children()
    ]
    try:
        return calls, batch.run(block.index, block.module).clone()
    finally:
        for handle in handles:
            handle.remove()


def _wire(block: Block, calls: list[_Call], x_BTD: Tensor, y_BTD: Tensor) -> Wiring:
    attention, mlp = _core(block.attention, calls), _core(block.mlp, calls)
    source = _source(mlp, calls, x_BTD)
    # Side by side: the MLP's way back leads to the block's own input.
    parallel = bool(attention) and source is not None and _same(source.x, x_BTD)
    a_branch, a_BTD = _branch(attention, calls, mlp, x_BTD)
    m_branch, m_BTD = _branch(mlp, calls, attention, x_BTD)
    if a_BTD is not None and m_BTD is not None and parallel:
        both = _scale(x_BTD, y_BTD, a_BTD.double() + m_BTD.double(), a_BTD.abs() + m_BTD.abs())
        scales = [both, both]
    else:
        middle_BTD = y_BTD if source is None else x_BTD if a_BTD is None else source.x.reshape(x_BTD.shape)
        scales = [_scale(x_BTD, middle_BTD, a_BTD), _scale(middle_BTD, y_BTD, m_BTD)]
    return Wiring(
        attention=a_branch and replace(a_branch, scale=scales[0] or 1.0),
        mlp=m_branch and replace(m_branch, scale=scales[1] or 1.0),
        parallel=parallel,
        residual=None not in scales,
    )


def _core(sublayer: Sublayer | None, calls: list[_Call]) -> list[_Call]:
    return [call for call in calls if sublayer is not None and call.name in sublayer.names]


def _source(core: list[_Call], calls: list[_Call], x_BTD: Tensor) -> _Call | None:
    """The call that reads the stream on behalf of a sublayer: its norm, or itself."""
    if not core:
        return None
    source = core[0]
    for call in reversed(calls[: calls.index(source)]):
        if _same(call.y, source.x) and not _same(source.x, x_BTD):
            source = call
    return source


def _branch(
    core: list[_Call], calls: list[_Call], others: list[_Call], like_BTD: Tensor
) -> tuple[Branch | None, Tensor | None]:
    """A branch, and what it gave to the stream."""
    if not core:
        return None, None
    first, last = calls.index(core[0]), calls.index(core[-1])
    before = _before(core, calls, first) + [call for call in calls[first:last] if call not in core]
    after: list[_Call] = []
    for call in calls[last + 1 :]:
        if call not in others and _same(call.x, (core + after)[-1].y):
            after.append(call)
    branch = Branch(
        core=_names(core),
        # A module that is called elsewhere too (one dropout for both sublayers) does not serve this one alone.
        before=_names(call for call in before if _once(call, calls)),
        after=_names(call for call in after if _once(call, calls)),
        returns=core[-1].returns,
    )
    given = [call for call in core + after if call.name == branch.last][-1]
    return branch, given.kept_BTD.reshape(like_BTD.shape)


def _before(core: list[_Call], calls: list[_Call], first: int) -> list[_Call]:
    """The calls that lead from the stream to a sublayer, as far back as nobody else reads their output."""
    found: list[_Call] = []
    x = core[0].x
    for call in reversed(calls[:first]):
        if not _same(call.y, x):
            continue
        if any(_same(other.x, call.y) and other not in core and other not in found for other in calls):
            break
        found.insert(0, call)
        x = call.x
    return found


def _names(calls: Iterable[_Call]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(call.name for call in calls))


def _once(call: _Call, calls: list[_Call]) -> bool:
    return sum(other.name == call.name for other in calls) == 1


def _same(a: Tensor, b: Tensor) -> bool:
    return a is b or (a.data_ptr() == b.data_ptr() and a.numel() == b.numel())


def _scale(x_BTD: Tensor, y_BTD: Tensor, part_BTD: Tensor | None, size_BTD: Tensor | None = None) -> float | None:
    """The number k with `y = x + k part` (some models scale what they add), or `None` if there is none.

    Fitted and judged by the rounding of each entry, since one massive activation would hide everything else.

    **Arguments:**

    - `x_BTD`, `y_BTD`: the stream before and after.
    - `part_BTD`: what was added.
    - `size_BTD`: how large the summands of `part_BTD` were, where it is a sum.
    """
    if part_BTD is None:
        return 1.0 if torch.equal(x_BTD, y_BTD) else None
    x, y, part = x_BTD.double(), y_BTD.double(), part_BTD.double()
    size = part.abs() if size_BTD is None else size_BTD.double()
    noise = torch.finfo(x_BTD.dtype).eps * (x.abs() + y.abs() + size).clamp_min(1e-30)
    weight = noise.reciprocal().square()
    information = (weight * part.square()).sum().clamp_min(1e-300)
    k = float((weight * (y - x) * part).sum() / information)
    if not bool(((y - x - k * part).abs() <= 8 * noise).all()):
        return None
    # As near to one as the rounding lets us see is one.
    return 1.0 if abs(k - 1) <= 1e-3 + 4 * float(information.rsqrt()) else k
