"""Take layers away: whole blocks leave the stack, sublayers get stand-ins without weights, work or cache."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from trueprune._support.errors import ModelError, PlanError
from trueprune.models.anatomy import Anatomy, Block, read_anatomy
from trueprune.models.dropped import DROPPED, check_can_drop, is_dropped, make_dropped, make_ordinary
from trueprune.models.probe import logit_error, probe_logits
from trueprune.models.trim import refuse_shared_cache, remove_blocks, text_config
from trueprune.observe.replay import bypassed
from trueprune.observe.wiring import Branch, Wiring, read_wirings
from trueprune.plans.drop import Drop


def present(anatomy: Anatomy) -> dict[str, list[int]]:
    """For each kind of unit, the blocks that have one."""
    return {
        "block": [block.index for block in anatomy.blocks],
        "attention": [block.index for block in anatomy.blocks if block.attention is not None],
        "mlp": [block.index for block in anatomy.blocks if block.mlp is not None],
    }


def check_drop(anatomy: Anatomy, drop: Drop) -> list[Wiring]:
    """Refuse a drop that does not fit the model, before anything is changed.

    **Returns:** the wiring of every block.

    **Raises:** `PlanError` (other number of blocks, a sublayer that is not there, nothing left), `ModelError` (a model
    that cannot lose what is asked).
    """
    if drop.n_blocks != len(anatomy.blocks):
        raise PlanError(
            f"the plan is for {drop.n_blocks} blocks, the model has {len(anatomy.blocks)}",
            "Use a plan made for this model",
        )
    there = present(anatomy)
    for kind, indices in (("attention", drop.attention), ("mlp", drop.mlp)):
        if missing := sorted(set(indices) - set(there[kind])):
            raise PlanError(f"block {missing[0]} has no {kind} to drop", "Drop it from the plan")
        left = set(there[kind]) - set(indices) - set(drop.gone_blocks)
        if indices and not left:
            raise PlanError(f"all {kind} sublayers that are left would be dropped", "Keep at least one")
    if not set(there["attention"]) - set(drop.attention) - set(drop.gone_blocks):
        raise PlanError("no attention would be left", "Keep at least one")
    check_can_lose(anatomy, [kind for kind in ("attention", "mlp") if getattr(drop, kind)])
    wirings = read_wirings(anatomy)
    _check_wirings(anatomy, drop, wirings)
    return wirings


def check_can_lose(anatomy: Anatomy, kinds: Iterable[str]) -> None:
    """Refuse a model that cannot lose any layer of some kinds, before anything slow starts.

    **Arguments:**

    - `anatomy`: the model's parts.
    - `kinds`: any of `"block"`, `"attention"`, `"mlp"`.

    **Raises:** `ModelError`.
    """
    kinds = set(kinds)
    if hasattr(anatomy.model, "get_base_model"):
        raise ModelError("layers under an adapter cannot be dropped", "Merge the adapter first (merge_and_unload)")
    refuse_shared_cache(anatomy.model)
    if "attention" in kinds:
        _check_cache(anatomy)
    if kinds & {"attention", "mlp"}:
        check_can_drop(anatomy.model)


def complete(anatomy: Anatomy, drop: Drop) -> Drop:
    """The same drop, in which a block that loses the last it had counts as gone."""
    return replace(drop, blocks=tuple(sorted({*drop.blocks, *(_emptied(anatomy, drop) - set(drop.gone_blocks))})))


def _check_wirings(anatomy: Anatomy, drop: Drop, wirings: Sequence[Wiring]) -> None:
    for index in sorted({*drop.attention, *drop.mlp} - set(drop.gone_blocks)):
        if not wirings[index].residual:
            raise ModelError(
                f"{anatomy.blocks[index].path} ({type(anatomy.blocks[index].module).__name__}) does more than add its "
                "attention and MLP to the residual stream",
                "Drop whole blocks (--what block)",
            )


def apply_drop(anatomy: Anatomy, drop: Drop) -> Anatomy:
    """Take layers away in place.

    A block that loses all it has leaves the stack. Where a block's attention goes, the attention that is left gets
    dense cache slots, so that generation with a cache works also when the first block has no attention.

    **Arguments:**

    - `anatomy`: the model's parts.
    - `drop`: what goes, counted in the blocks of this model.

    **Returns:** the anatomy of what is left.

    **Raises:** as `check_drop`; the model is then unchanged. `ModelError` if what is left does not compute what the
    whole model computes when the same layers are bypassed.
    """
    wirings = check_drop(anatomy, drop)
    model: Any = anatomy.model
    gone = set(drop.gone_blocks) | _emptied(anatomy, drop)
    zero: dict[str, int] = {}
    passing: list[str] = []
    for block, wiring in zip(anatomy.blocks, wirings, strict=True):
        if block.index in gone:
            continue
        for kind, indices in (("attention", drop.attention), ("mlp", drop.mlp)):
            branch = getattr(wiring, kind)
            if block.index in indices and branch is not None:
                zero |= {f"{block.path}.{branch.core[-1]}": branch.returns}
                passing += [f"{block.path}.{name}" for name in _passing(branch)]
    with bypassed(anatomy, gone, zero, passing):
        expected_BTV = probe_logits(model)
    if not bool(torch.isfinite(expected_BTV).all()):
        raise ModelError("without these layers the model gives NaN or infinite logits", "Use --dtype float32")
    if is_dropped(model):
        earlier = getattr(model.config, DROPPED)
        zero, passing = {**earlier["zero"], **zero}, [*earlier["pass"], *passing]
    if gone:
        prefix = anatomy.blocks[0].path.rpartition(".")[0]
        kept = [block.index for block in anatomy.blocks if block.index not in gone]
        remove_blocks(anatomy, sorted(gone))
        zero = {new: zero[old] for old in zero if (new := _renumbered(old, prefix, kept))}
        passing = [new for old in passing if (new := _renumbered(old, prefix, kept))]
    if zero:
        slots = _slots(read_anatomy(model), zero)
        make_dropped(model, {"zero": zero, "pass": sorted(set(passing)), "slots": slots})
    elif is_dropped(model):
        make_ordinary(model)
    error, tolerance = logit_error(expected_BTV, probe_logits(model))
    if not error <= tolerance:
        raise ModelError(
            f"without these layers {type(model).__name__} computes something else (relative error {error:.1e}): "
            "its other layers depend on their numbers",
            "This architecture cannot lose them; prune its weights instead (trueprune prune)",
        )
    return read_anatomy(model)


def _emptied(anatomy: Anatomy, drop: Drop) -> set[int]:
    """Blocks of which nothing is left, because the other sublayer went earlier."""
    return {
        block.index
        for block in anatomy.blocks
        if (block.attention is None or block.index in drop.attention) and (block.mlp is None or block.index in drop.mlp)
    }


def _passing(branch: Branch) -> Iterable[str]:
    return (*branch.core[:-1], *branch.before, *branch.after)


def _renumbered(path: str, prefix: str, kept: list[int]) -> str | None:
    """The path of a module after blocks left the stack, or `None` if it left with one of them."""
    index, _, rest = path.removeprefix(prefix + ".").partition(".")
    return f"{prefix}.{kept.index(int(index))}.{rest}" if int(index) in kept else None


def _slots(anatomy: Anatomy, zero: Mapping[str, int]) -> dict[str, int]:
    """A cache slot for every attention that is left, and layer types in the configuration that fit the slots.

    Slots have the types of the layers at their place. A block without attention has no use for its type: it takes that
    of the first block with attention, and every attention takes the first free slot of its own type. Then slot 0 and
    the first slot of each type are filled, where transformers reads how long the cache is.
    """
    config = text_config(anatomy.model)
    left = [
        block
        for block in anatomy.blocks
        if block.attention is not None and f"{block.path}.{block.attention.names[-1]}" not in zero
    ]
    types = list(getattr(config, "layer_types", None) or ["attention"] * len(anatomy.blocks))
    for index in set(range(len(types))) - {block.index for block in left}:
        types[index] = types[left[0].index]
    if getattr(config, "layer_types", None):
        config.layer_types = types
    free = dict(enumerate(types))
    slots: dict[str, int] = {}
    for block in left:
        slot = next(place for place, kind in free.items() if kind == types[block.index])
        del free[slot]
        slots |= dict.fromkeys(_cached_modules(block), slot)
    return slots


def _cached_modules(block: Block) -> list[str]:
    assert block.attention is not None
    return [
        f"{block.path}.{name}.{inner}".rstrip(".")
        for name, module in zip(block.attention.names, block.attention.modules, strict=True)
        for inner, child in module.named_modules()
        if isinstance(getattr(child, "layer_idx", None), int)
    ]


def _check_cache(anatomy: Anatomy) -> None:
    """Refuse a model whose attention does not say which cache slot it uses."""
    for block in anatomy.blocks:
        if block.attention is not None and not _cached_modules(block):
            raise ModelError(
                f"the attention of {block.path} has no layer_idx: its cache cannot be renumbered",
                "Drop whole blocks (--what block)",
            )
