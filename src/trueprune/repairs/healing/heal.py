"""Heal some blocks of a model in memory: train around their zeros, write the best state into the weights."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from trueprune._support.errors import RepairError
from trueprune.models.anatomy import Anatomy
from trueprune.models.load import LoadedModel
from trueprune.repairs.healing.adapters import installed, left_out, make_updates, trainable
from trueprune.repairs.healing.data import HealingData
from trueprune.repairs.healing.objective import Objective
from trueprune.repairs.healing.options import HealingOptions
from trueprune.repairs.healing.precision import DTYPES, checkpointed, prepared, resolve_precision
from trueprune.repairs.healing.state import Store
from trueprune.repairs.healing.train import Progress, Trainer


@dataclass(frozen=True, eq=False)
class Healed:
    """What a healing did.

    **Arguments:**

    - `progress`: losses, steps, and why it stopped.
    - `matrices`: how many were trained.
    - `trained`: how many numbers were trained.
    - `left_out`: stacked experts of the blocks, which were not.
    - `precision`: of the arithmetic.
    """

    progress: Progress
    matrices: int
    trained: int
    left_out: tuple[str, ...]
    precision: str


def heal_blocks(
    loaded: LoadedModel,
    anatomy: Anatomy,
    layers: Sequence[int],
    data: HealingData,
    way: str,
    options: HealingOptions,
    *,
    teacher: LoadedModel | None = None,
    store: Store | None = None,
) -> Healed:
    """Train the Linear matrices of some blocks, in place, with their zeros held.

    All else stays as it is to the bit: other blocks, norms, biases, embeddings, head, routers, stacked experts.

    **Arguments:**

    - `loaded`, `anatomy`: the model.
    - `layers`: the blocks, from 0.
    - `data`: what it is trained on.
    - `way`: `contrastive`, `lora` or `distill`.
    - `options`: see `HealingOptions`.
    - `teacher`: the model to learn from, for `distill`.
    - `store`: where states are kept and looked for.

    **Returns:** what was done. After a loss that diverged the last good state is in place, with a `UserWarning`.

    **Raises:** `RepairError`, `ModelError`; the model is then as it was.
    """
    blocks = [anatomy.blocks[index] for index in sorted(layers)]
    precision = resolve_precision(options.precision, anatomy.device)
    check_teacher(loaded, teacher)
    stacked = left_out(blocks)
    with ExitStack() as stack:
        stack.enter_context(prepared(loaded.model, precision))
        updates = make_updates(
            blocks,
            options.adapt,
            dtype=DTYPES[precision],
            keep=not options.checkpointing,
            rank=options.rank,
            seed=options.healing_seed,
        )
        if stacked:
            warnings.warn(f"stacked experts are not trained: {', '.join(stacked[:3])}", stacklevel=1)
        if teacher is not None:
            stack.enter_context(prepared(teacher.model, precision))
        stack.enter_context(installed(updates))
        stack.enter_context(checkpointed(anatomy.blocks[blocks[0].index :], options.checkpointing))
        objective = Objective(loaded.model, blocks, way, options, None if teacher is None else teacher.model)
        trainer = Trainer(objective, data, trainable(updates), options, precision, store)
        progress = trainer.run()
        _say(progress)
        if progress.gained:
            for update in updates:
                update.merge()
    trained = sum(parameter.numel() for parameter in trainable(updates).values())
    return Healed(progress, len(updates), trained, tuple(stacked), precision)


def _say(progress: Progress) -> None:
    if not progress.gained:
        warnings.warn(
            f"healing: {progress.stopped}, and no state is better than the start: the weights are as they were",
            stacklevel=1,
        )
    elif progress.stopped.startswith("diverged"):
        warnings.warn(f"healing: {progress.stopped}; the state of step {progress.best_step} is kept", stacklevel=1)


def check_teacher(loaded: LoadedModel, teacher: LoadedModel | None) -> None:
    """Refuse a teacher whose logits speak of other tokens.

    **Raises:** `RepairError`.
    """
    if teacher is None:
        return
    if teacher.model is loaded.model:
        raise RepairError("the teacher is the model itself", "Give the dense model with --teacher")
    rows = [int(m.model.get_input_embeddings().weight.shape[0]) for m in (loaded, teacher)]  # type: ignore[operator,union-attr]
    if rows[0] != rows[1] or _vocabulary(loaded) != _vocabulary(teacher):
        raise RepairError(
            f"the teacher {teacher.source} has another vocabulary than {loaded.source} ({rows[1]}, {rows[0]} tokens)",
            "Give the model that this one was pruned from",
        )


def _vocabulary(loaded: LoadedModel) -> Any:
    tokenizer: Any = loaded.tokenizer
    return None if tokenizer is None else tokenizer.get_vocab()
