"""What each block and sublayer does to the residual stream: moments of what it adds, how far it turns the stream.

Everything comes from one pass: the listeners only watch a forward that runs anyway.
Legend: B sequences, T tokens, N tokens that are not padding, S sequences in all, L blocks, D residual width.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trueprune._support.errors import ModelError
from trueprune.models.anatomy import Anatomy, Block
from trueprune.models.sites import WeightSite, has_experts
from trueprune.observe.moments import ESTIMATORS, LayerMoments, NearZero
from trueprune.observe.replay import MicroBatch
from trueprune.observe.turns import TurnSum, angles_by_gap, dot_of, ends_of, last_positions, pick
from trueprune.observe.wiring import Branch, Wiring, read_wirings

# Places in a block: the stream after it, what it adds, what its sublayers add, the MLP's inner activations.
SITES = ("output", "update", "attention", "mlp", "hidden")
UNITS = ("block", "attention", "mlp")


@dataclass(frozen=True, eq=False)
class LayerProfile:
    """What layers do to the residual stream, block by block; NaN where a block has no such part.

    **Arguments:**

    - `variance`: by site and estimator, of shape `(L,)`.
    - `zeros`: by site and estimator, entries near zero and entries, of shape `(L, 2)`.
    - `cosine`: by unit (`block`, `attention`, `mlp`), the mean over tokens of the cosine between the stream before and
        after it, of shape `(L,)`.
    - `angle`: by unit, the mean of `arccos(cos) / pi` at the last token of each sequence, of shape `(L,)`.
    - `angle_gap`: the same between the stream before block l and before block l + n, of shape `(L, L)`, entry
        `[l, n - 1]`; NaN where `l + n > L`.
    - `gap_cosine`: for a gap n that was asked for, the mean over all tokens of the cosine between the stream before
        block l and before block l + n, of shape `(L - n + 1,)`.
    """

    variance: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    zeros: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    cosine: Mapping[str, np.ndarray] = field(default_factory=dict)
    angle: Mapping[str, np.ndarray] = field(default_factory=dict)
    angle_gap: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    gap_cosine: Mapping[int, np.ndarray] = field(default_factory=dict)


class ProfileWatch:
    """Watches a dense pass of a `BlockStream`, block after block.

    **Arguments:**

    - `anatomy`: the model's parts.
    - `wirings`: how sublayers hang in each block.
    - `zero`: when an activation counts as zero.
    - `gap`: also compare streams so many blocks apart at every token (keeps as many activation buffers).
    """

    def __init__(self, anatomy: Anatomy, wirings: list[Wiring], zero: NearZero, *, gap: int | None = None):
        self.n_blocks = len(anatomy.blocks)
        self._paths = [block.path for block in anatomy.blocks]
        self._wirings, self._zero, self._gap = wirings, zero, gap
        self._moments: dict[tuple[str, int], LayerMoments] = {}
        self._turns: dict[tuple[str, int], TurnSum] = {}
        # The stream before block 0, 1, ... L at the last token of each sequence.
        self._last_SD: list[list[Tensor]] = [[] for _ in range(self.n_blocks + 1)]
        self._gap_turns = [TurnSum() for _ in range(max(0, self.n_blocks + 1 - gap))] if gap else []
        self._history: dict[int, deque[Tensor]] = {}
        self._square_N: dict[int, Tensor] = {}
        self._seen: dict[str, Tensor] = {}

    @contextmanager
    def listening(self, block: Block) -> Iterator[None]:
        """Hooks on the modules through which the parts of a block's update pass, for one micro-batch."""
        wiring = self._wirings[block.index]
        with ExitStack() as stack:
            for kind, branch in _branches(wiring):
                stack.enter_context(
                    self._output_of(block.module.get_submodule(branch.last), kind, copy=wiring.parallel)
                )
            if site := _last_mlp_matrix(block):
                stack.enter_context(self._input_of(site.module, "hidden"))
            yield

    @contextmanager
    def _input_of(self, module: nn.Module, key: str) -> Iterator[None]:
        def keep(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._seen[key] = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]

        handle = module.register_forward_pre_hook(keep, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def _output_of(self, module: nn.Module, key: str, copy: bool) -> Iterator[None]:
        def keep(_module: nn.Module, _args: Any, output: Any) -> None:
            given = output[0] if isinstance(output, tuple) else output
            # A block with branches side by side may add one into the other.
            self._seen[key] = given.clone() if copy else given

        handle = module.register_forward_hook(keep)
        try:
            yield
        finally:
            handle.remove()

    def add(self, block: Block, number: int, batch: MicroBatch, output_BTD: Tensor) -> None:
        """Take in one micro-batch that has gone through a block; `batch` still holds the stream before it.

        **Arguments:**

        - `block`: the block.
        - `number`: which micro-batch this is.
        - `batch`: the micro-batch.
        - `output_BTD`: the block's output.
        """
        mask_BT = batch.mask_BT
        x_BTD = batch.hidden_BTD.float()
        # On a model that lies on several devices, a block's output is not where its input was.
        y_BTD = output_BTD.to(x_BTD.device).float()
        last = last_positions(x_BTD, mask_BT)
        if block.index == 0:
            self._square_N[number] = pick(x_BTD, mask_BT).square().sum(1)
            self._last_SD[0].append(x_BTD[last].cpu())
        self._last_SD[block.index + 1].append(y_BTD[last].cpu())
        parts = self._parts(block, x_BTD, y_BTD)
        squares = {
            site: self._moments_of(site, block.index, part_BTC).add(part_BTC, mask_BT)
            for site, part_BTC in {**parts, "output": y_BTD, **self._hidden(x_BTD)}.items()
        }
        exact = batch.hidden_BTD.dtype == torch.float32
        self._add_turns(block.index, number, parts, squares, x_BTD, mask_BT, exact)
        self._square_N[number] = squares["output"]
        if self._gap:
            self._add_gap(block.index, number, x_BTD, y_BTD, mask_BT)
        self._seen.clear()

    def _parts(self, block: Block, x_BTD: Tensor, y_BTD: Tensor) -> dict[str, Tensor]:
        """What was added to the stream: in all, and by each sublayer."""
        wiring = self._wirings[block.index]
        parts: dict[str, Tensor] = {}
        # What the sublayers gave, and not a difference of streams, whose rounding would drown it in bfloat16.
        for kind, branch in _branches(wiring):
            given_BTD = self._seen[kind].to(x_BTD.device).float().reshape(x_BTD.shape)
            parts[kind] = given_BTD if branch.scale == 1 else given_BTD * branch.scale
        return {**parts, "update": y_BTD - x_BTD}

    def _hidden(self, x_BTD: Tensor) -> dict[str, Tensor]:
        hidden = self._seen.get("hidden")
        # Some blocks flatten sequences before their MLP.
        return {} if hidden is None else {"hidden": hidden.to(x_BTD.device).reshape(*x_BTD.shape[:2], -1)}

    def _moments_of(self, site: str, index: int, like_BTC: Tensor) -> LayerMoments:
        if (site, index) not in self._moments:
            self._moments[site, index] = LayerMoments(like_BTC.shape[-1], like_BTC.device, self._zero)
        return self._moments[site, index]

    def _add_turns(
        self,
        index: int,
        number: int,
        parts: Mapping[str, Tensor],
        squares: Mapping[str, Tensor],
        x_BTD: Tensor,
        mask_BT: Tensor | None,
        exact: bool,
    ) -> None:
        """Cosines between `x` and `x + part`, from squared norms that are there anyway and few products.

        Where the stream is float32 (`exact`), the update is the sum of the parts, which saves two products.
        """
        wiring = self._wirings[index]
        x_NN = self._square_N[number].double()
        square = {name: value.double() for name, value in squares.items()}
        both = "attention" in parts and "mlp" in parts
        saved = ("update",) if both and exact else ()
        dot = {name: dot_of(x_BTD, part, mask_BT) for name, part in parts.items() if name not in saved}
        if saved:
            dot["update"] = dot["attention"] + dot["mlp"]
        ends = ends_of(x_BTD, mask_BT)
        self._turn("block", index).add(x_NN, dot["update"], square["update"], ends)
        if "attention" in parts:
            self._turn("attention", index).add(x_NN, dot["attention"], square["attention"], ends)
        if "mlp" in parts:
            stream_NN, along_N = x_NN, dot["mlp"]
            if both and not wiring.parallel:
                # The stream between the sublayers: |x + a|^2, and (x + a) m.
                stream_NN = x_NN + 2 * dot["attention"] + square["attention"]
                if exact:
                    along_N = dot["mlp"] + (square["update"] - square["attention"] - square["mlp"]) / 2
                else:
                    along_N = dot["mlp"] + dot_of(parts["attention"], parts["mlp"], mask_BT)
            self._turn("mlp", index).add(stream_NN, along_N, square["mlp"], ends)

    def _turn(self, unit: str, index: int) -> TurnSum:
        return self._turns.setdefault((unit, index), TurnSum())

    def _add_gap(self, index: int, number: int, x_BTD: Tensor, y_BTD: Tensor, mask_BT: Tensor | None) -> None:
        assert self._gap
        past = self._history.setdefault(number, deque(maxlen=self._gap))
        past.append(x_BTD.clone())
        if len(past) == self._gap:
            change_BTD = y_BTD - past[0]
            before_NN = pick(past[0], mask_BT).double().square().sum(1)
            change_NN = pick(change_BTD, mask_BT).double().square().sum(1)
            dot_N = dot_of(past[0], change_BTD, mask_BT)
            self._gap_turns[index + 1 - self._gap].add(before_NN, dot_N, change_NN, ends_of(x_BTD, mask_BT))

    def result(self) -> LayerProfile:
        """Everything as arrays over the blocks.

        **Raises:** `ModelError` where activations were not finite.
        """
        for (site, index), moments in self._moments.items():
            if not moments.is_finite():
                raise ModelError(
                    f"activations of {self._paths[index]} ({site}) are not finite: they overflow", "Use --dtype float32"
                )
        sites = [site for site in SITES if any(key[0] == site for key in self._moments)]
        variance = {site: {e: self._each(site, e, lambda m, e: m.variance(e)) for e in ESTIMATORS} for site in sites}
        zeros = {
            site: {
                e: np.stack([self._each(site, e, lambda m, e, i=i: m.zeros(e)[i]) for i in range(2)], axis=1)
                for e in ESTIMATORS
            }
            for site in sites
        }
        units = [unit for unit in UNITS if any(key[0] == unit for key in self._turns)]
        gap_cosine = [turn.cosine / turn.tokens for turn in self._gap_turns]
        return LayerProfile(
            variance=variance,
            zeros=zeros,
            cosine={unit: self._turned(unit, lambda t: t.cosine / t.tokens) for unit in units},
            angle={unit: self._turned(unit, lambda t: t.angle / t.sequences) for unit in units},
            angle_gap=angles_by_gap(torch.stack([torch.cat(rows) for rows in self._last_SD])),
            gap_cosine={self._gap: np.array(gap_cosine)} if self._gap else {},
        )

    def _each(self, site: str, estimator: str, value: Callable[[LayerMoments, str], float]) -> np.ndarray:
        found = [self._moments.get((site, index)) for index in range(self.n_blocks)]
        return np.array([math.nan if moments is None else value(moments, estimator) for moments in found])

    def _turned(self, unit: str, value: Callable[[TurnSum], float]) -> np.ndarray:
        found = [self._turns.get((unit, index)) for index in range(self.n_blocks)]
        return np.array([math.nan if turn is None else value(turn) for turn in found])


def sites_of(anatomy: Anatomy) -> set[str]:
    """The places that at least one block of a model has."""
    sites = {"output", "update"} | {"hidden" for block in anatomy.blocks if _last_mlp_matrix(block)}
    return sites | {kind for wiring in read_wirings(anatomy) for kind, _ in _branches(wiring)}


def _branches(wiring: Wiring) -> list[tuple[str, Branch]]:
    """The sublayers whose outputs are what the block adds to the stream."""
    found = {"attention": wiring.attention, "mlp": wiring.mlp} if wiring.residual else {}
    return [(kind, branch) for kind, branch in found.items() if branch is not None]


def _last_mlp_matrix(block: Block) -> WeightSite | None:
    """The matrix from the MLP's inner width back to the stream; none where experts each see some tokens only."""
    if block.mlp is None or has_experts(block.module):
        return None
    back = [site for site in block.sites if site.name.split(".")[0] in block.mlp.names]
    return back[-1] if back else None
