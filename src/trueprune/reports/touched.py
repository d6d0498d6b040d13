"""What the steps that made a checkpoint did to it and what they left alone, what they cost, and how to take them again.

Legend: L blocks of the whole model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# What a reader needs to take a step again; the plan, which may be long, is in `trueprune.json`.
STEP = ("command", "method", "source", "source_sha256", "seed", "versions")
# Longer lists (hashes of questions) are counted.
LONGEST = 32


def about_record(record: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a report says of a model by its `trueprune.json`.

    **Arguments:**

    - `record`: the content of that file; `None` for a model without one.

    **Returns:** plain data: `method`, `command`, `steps` (oldest first: command, method, source and its hash, seed,
    calibration, versions), `touched` (see `touched`) and `cost` (`wall_seconds`, `peak_memory_bytes`); nothing without
    a record.
    """
    if not record:
        return {}
    steps = [_step(step) for step in (*record.get("history", []), record)]
    cost = {key: record[key] for key in ("wall_seconds", "peak_memory_bytes") if key in record}
    found = {"method": record.get("method"), "command": record.get("command"), "steps": steps}
    return {**found, "touched": touched(record), "cost": cost}


def _step(step: Mapping[str, Any]) -> dict[str, Any]:
    calibration = {key: _short(value) for key, value in (step.get("calibration") or {}).items()}
    return {**{key: step[key] for key in STEP if step.get(key) is not None}, "calibration": calibration}


def _short(value: Any) -> Any:
    long = isinstance(value, Sequence) and not isinstance(value, str) and len(value) > LONGEST
    if isinstance(value, Mapping):
        return {key: _short(one) for key, one in value.items()}
    return f"{len(value)} entries" if long else value


def touched(record: Mapping[str, Any]) -> dict[str, Any]:
    """What all steps together did to a model, block by block, and what they left alone.

    **Arguments:**

    - `record`: the content of `trueprune.json`.

    **Returns:** plain data, all blocks counted in the whole model:

    - `blocks`: L;
    - `sparsity`: the share of zeros in each block's matrices, `null` where the block is gone;
    - `dropped`: numbers of `blocks`, and of blocks that lost `attention` or `mlp` alone;
    - `pruned`, `healed`, `recalibrated`: how, or `null`;
    - `did`, `left`: sentences on what was and what was not touched.
    """
    plan = record.get("plan") or {}
    drop = plan.get("drop") or {}
    gone = _gone(drop)
    measured = list(record.get("measured_sparsity_blocks") or [])
    total = drop.get("n_blocks") or len(measured)
    kept = [i for i in range(total) if i not in set(gone["blocks"])]
    if len(measured) != len(kept):
        # The record and the model disagree: a map would be of the wrong blocks.
        measured = []
    by_block = dict(zip(kept, measured, strict=False))
    steps = [*record.get("history", []), record]
    found: dict[str, Any] = {
        "blocks": total,
        "sparsity": [by_block.get(i) for i in range(total)] if measured else [],
        "dropped": gone,
        "pruned": _pruned(plan, record),
        "healed": _healed(steps, kept),
        "recalibrated": _recalibrated(steps),
    }
    return {**found, "did": _did(found), "left": _left(found)}


def _gone(drop: Mapping[str, Any]) -> dict[str, list[int]]:
    attention, mlp = set(drop.get("attention") or ()), set(drop.get("mlp") or ())
    away = set(drop.get("blocks") or ()) | (attention & mlp)
    return {"blocks": sorted(away), "attention": sorted(attention - away), "mlp": sorted(mlp - away)}


def _pruned(plan: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any] | None:
    blocks = plan.get("blocks") or []
    if not blocks:
        return None
    matrices = {name for block in blocks if isinstance(block, Mapping) for name in block.get("matrices") or {}}
    return {
        "allocation": plan.get("method"),
        "score": plan.get("score"),
        "pattern": plan.get("pattern"),
        "target": plan.get("sparsity"),
        "measured": record.get("measured_sparsity"),
        "matrices": sorted(matrices),
        "notes": list(plan.get("notes") or []),
    }


def _healed(steps: Sequence[Mapping[str, Any]], kept: Sequence[int]) -> dict[str, Any] | None:
    for step in reversed(steps):
        if found := step.get("healing"):
            layers = found.get("layers") or []
            # Counted in the blocks that were left, which a later drop may have changed.
            known = found.get("blocks") == len(kept)
            whole = [kept[i] for i in layers if i < len(kept)] if known else []
            keys = ("method", "trained_parameters", "steps", "best_step", "teacher", "left_out")
            return {**{key: found.get(key) for key in keys}, "blocks": whole, "count": len(layers)}
    return None


def _recalibrated(steps: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    for step in reversed(steps):
        found = step.get("recalibration") or {}
        if found and (found.get("folded") or step is steps[-1]):
            return {key: found.get(key) for key in ("method", "folded", "temperature")}
    return None


def _did(found: Mapping[str, Any]) -> list[str]:
    lines = []
    pruned, healed, calm = found["pruned"], found["healed"], found["recalibrated"]
    for kind, noun in (("blocks", "Whole blocks"), ("attention", "Attention"), ("mlp", "MLPs")):
        if numbers := found["dropped"][kind]:
            place = "" if kind == "blocks" else "of blocks "
            lines.append(f"{noun} {place}{runs(numbers)} of {found['blocks']} taken away ({len(numbers)}).")
    if pruned:
        share = "" if pruned["measured"] is None else f"{100 * pruned['measured']:.1f} % of the weights in "
        lines.append(
            f"{share}the matrices of the decoder blocks set to zero: score {pruned['score'] or 'unknown'}, "
            f"shares by block as {pruned['allocation']}, pattern {pruned['pattern']}."
        )
        if pruned["score"] == "sparsegpt":
            lines.append("The weights that stay were adjusted to make up for those that went.")
    if healed:
        place = f"blocks {runs(healed['blocks'])}" if healed["blocks"] else f"{healed['count']} blocks"
        lines.append(
            f"{place[0].upper()}{place[1:]} trained around their zeros ({healed['method']}, {healed['steps']} steps)."
        )
    if calm and calm["folded"]:
        lines.append("Logits divided by a fitted temperature, which is part of the weights.")
    elif calm:
        lines.append(f"Probabilities recalibrated ({calm['method']}) beside the weights, which are as before.")
    return lines or ["The record names no change."]


def _left(found: Mapping[str, Any]) -> list[str]:
    lines = []
    calm, healed = found["recalibrated"], found["healed"]
    if calm and calm["folded"]:
        lines.append("Token embeddings, the norms inside blocks, biases and routers: as in the dense model.")
    else:
        lines.append("Token embeddings, norms, biases, routers and the output head: as in the dense model.")
    full = [i for i, share in enumerate(found["sparsity"]) if share is not None and share == 0]
    if full and found["pruned"]:
        lines.append(f"Blocks {runs(full)}: no weight set to zero.")
    if not any(found["dropped"].values()):
        lines.append(f"All {found['blocks']} blocks are there, with attention and MLP.")
    if not healed:
        lines.append("No weight was trained.")
    lines.append("Tokenizer and vocabulary.")
    return lines


def runs(numbers: Sequence[int]) -> str:
    """Numbers in words: `0, 3 to 7, 9`."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]} to {part[-1]}" if len(part) > 2 else ", ".join(map(str, part)) for part in parts)
