"""What a drop made, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from trueprune.reports.tables import run_table


def drop_table(record: Mapping[str, Any], output: str) -> RenderableType:
    """What went, what is left, how it was chosen.

    **Arguments:**

    - `record`: what `trueprune.json` holds.
    - `output`: where the model was saved.
    """
    found = record["plan"]["drop"]
    away = {*found["blocks"], *(set(found["attention"]) & set(found["mlp"]))}
    sublayers = {kind: [i for i in found[kind] if i not in away] for kind in ("attention", "mlp")}
    before, after = record["parameters"]["before"], record["parameters"]["after"]
    earlier = any((step.get("plan") or {}).get("drop") for step in record.get("history", []))
    all_of = " in all" if earlier else ""
    lines = {
        "chosen": f"{found['what']} by {found['by']}, {found['schedule']}" + (", consecutive" * found["consecutive"])
        if found["what"]
        else f"as listed in {found['by']}",
        "this step": _step(record["step"]) if earlier else None,
        f"blocks{all_of}": _numbers(sorted(away), found["n_blocks"]),
        f"attention{all_of}": _numbers(sublayers["attention"], found["n_blocks"]),
        f"MLP{all_of}": _numbers(sublayers["mlp"], found["n_blocks"]),
        "parameters": f"{before:,} to {after:,} ({after / before - 1:+.1%})",
    }
    table = run_table(f"Dropped from {record['source']}", lines, record, output)
    return Group(table, *(Text(f"note: {note}") for note in record["plan"]["notes"]))


def _step(step: Mapping[str, Sequence[int]]) -> str:
    """What this step took, counted in the blocks that it found."""
    names = {"blocks": "blocks", "attention": "attention of", "mlp": "MLP of"}
    return "; ".join(f"{name} {', '.join(map(str, step[kind]))}" for kind, name in names.items() if step[kind])


def _numbers(indices: Sequence[int], n_blocks: int) -> str | None:
    return f"{len(indices)} of {n_blocks} gone: {', '.join(map(str, indices))}" if indices else None
