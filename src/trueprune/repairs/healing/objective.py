"""What a step of healing minimises: cross-entropy or distillation on texts and right answers, and contrast of answers.

`contrastive` is `L = CE(texts) + CE(right answers) + weight * mean over the chosen blocks of L_con`, `lora` the same
without `L_con`, and `distill` has in place of the cross-entropies, on the same tokens, the divergence from a teacher.
The sum with 0.1 as weight is our reading (see `losses`); the term on texts is ours, to heal what pruning took from
language as a whole. Each mean is over its own tokens: the answers are few, and must not be drowned by the texts.
Legend: B rows, T tokens, D residual width, P pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trueprune.models.anatomy import Block
from trueprune.observe.replay import stop_forward, stop_here
from trueprune.repairs.healing.data import Batch, Row, padded
from trueprune.repairs.healing.losses import answer_vectors, cross_entropy, distillation, info_nce, triplet
from trueprune.repairs.healing.options import HealingOptions


@dataclass(frozen=True, eq=False)
class Part:
    """A part of the loss that is propagated back alone, so that its activations are freed before the next.

    **Arguments:**

    - `total`: what is minimised.
    - `values`: what it consists of, before weighting.
    """

    total: Tensor
    values: dict[str, Tensor]


class Objective:
    """The loss of a way of healing.

    **Arguments:**

    - `model`: the model that is trained.
    - `blocks`: those that are trained; their outputs are compared by the contrastive loss.
    - `way`: `contrastive`, `lora` or `distill`.
    - `options`: constants of the losses.
    - `teacher`: the model to learn from, for `distill`.
    """

    def __init__(
        self, model: Any, blocks: Sequence[Block], way: str, options: HealingOptions, teacher: Any | None = None
    ):
        self.model = model
        self.blocks = sorted(blocks, key=lambda block: block.index)
        self.way = way
        self.options = options
        self.teacher = teacher
        self.device: torch.device = model.get_input_embeddings().weight.device
        self.projections = self._projections() if way == "contrastive" and options.projection else {}

    def _projections(self) -> dict[int, nn.Parameter]:
        """A random map for each block, trained along and then thrown away."""
        width = self.model.get_input_embeddings().weight.shape[1]
        generator = torch.Generator().manual_seed(self.options.healing_seed)
        maps: dict[int, nn.Parameter] = {}
        for block in self.blocks:
            start_DH = torch.randn(self.options.projection, width, generator=generator) / width**0.5
            maps[block.index] = nn.Parameter(start_DH.to(block.sites[0].weight_OI.device))
        return maps

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained beside the updates, by name."""
        return {f"projection.{index}": parameter for index, parameter in self.projections.items()}

    def factor(self, name: str) -> float:
        """What a value of a part is weighted with."""
        return self.options.weight if name == "contrastive" else 1.0

    def parts(self, batch: Batch) -> Iterator[Part]:
        """The loss on a batch, part by part."""
        if batch.windows:
            loss, _ = self._predict(batch.windows)
            yield Part(loss, {"text": loss})
        if batch.pairs:
            contrast = self.way == "contrastive"
            loss, true = self._predict([pair.right for pair in batch.pairs], contrast)
            values = {"answers": loss}
            if contrast:
                false = self._read([pair.wrong for pair in batch.pairs])
                values["contrastive"] = self._contrast(true, false).to(loss.device)
                loss = loss + self.factor("contrastive") * values["contrastive"]
            yield Part(loss, values)

    def _predict(self, rows: Sequence[Row], listen: bool = False) -> tuple[Tensor, dict[int, Tensor]]:
        """The loss on the counted tokens of rows, and vectors of what is counted after each block, if wanted."""
        ids_BT, counted_BT = padded(rows, self.device)
        with _listening(self.blocks if listen else ()) as heard:
            logits_BTV = self.model(input_ids=ids_BT, use_cache=False).logits
        counted_BT, ids_BT = counted_BT.to(logits_BTV.device), ids_BT.to(logits_BTV.device)
        if self.teacher is None:
            loss = cross_entropy(logits_BTV, ids_BT, counted_BT)
        else:
            loss = distillation(self._taught(ids_BT), logits_BTV, counted_BT, self.options.softness)
        return loss, _vectors(heard, counted_BT)

    @torch.no_grad()
    def _taught(self, ids_BT: Tensor) -> Tensor:
        assert self.teacher is not None
        where = self.teacher.get_input_embeddings().weight.device
        return self.teacher(input_ids=ids_BT.to(where), use_cache=False).logits.to(ids_BT.device)

    def _read(self, rows: Sequence[Row]) -> dict[int, Tensor]:
        """Vectors of what is counted after each block; the forward ends at the last block that is listened to."""
        ids_BT, counted_BT = padded(rows, self.device)
        with _listening(self.blocks, stop=True) as heard, stop_here():
            self.model(input_ids=ids_BT, use_cache=False)
        return _vectors(heard, counted_BT)

    def _contrast(self, true: dict[int, Tensor], false: dict[int, Tensor]) -> Tensor:
        """In float32 whatever the precision: answers lie near each other, and cosines near 1 are coarse in bfloat16."""
        losses = []
        with torch.autocast(self.device.type, enabled=False):
            for index, true_PD in true.items():
                false_PD = false[index]
                if (map_HD := self.projections.get(index)) is not None:
                    true_PD, false_PD = true_PD @ map_HD.T, false_PD @ map_HD.T
                if self.options.loss == "infonce":
                    losses.append(info_nce(true_PD, false_PD, self.options.tau))
                else:
                    losses.append(triplet(true_PD, false_PD, self.options.margin))
            return torch.stack([loss.to(self.device) for loss in losses]).mean()


@contextmanager
def _listening(blocks: Sequence[Block], stop: bool = False) -> Iterator[dict[int, Tensor]]:
    """The outputs of blocks in the forward that runs inside; with `stop` it ends after the last of them."""
    heard: dict[int, Tensor] = {}

    def hook(index: int, last: bool) -> Any:
        def listen(_module: nn.Module, _args: Any, output: Any) -> None:
            heard[index] = output[0] if isinstance(output, tuple) else output
            if stop and last:
                stop_forward()

        return listen

    handles = [
        block.module.register_forward_hook(hook(block.index, place == len(blocks) - 1))
        for place, block in enumerate(blocks)
    ]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def _vectors(heard: dict[int, Tensor], answer_BT: Tensor) -> dict[int, Tensor]:
    """The vector of each answer after each block, in float32 whatever the precision."""
    with torch.autocast(answer_BT.device.type, enabled=False):
        return {index: answer_vectors(h_BTD, answer_BT.to(h_BTD.device)) for index, h_BTD in heard.items()}
