"""What a drop made, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from trueprune.reports.tables import calibration_line


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
    table = Table(title=f"Dropped from {record['source']}", show_header=False)
    lines = {
        "chosen": f"{found['what'] or 'as listed'} by {found['by']}, {found['schedule']}"
        + (", consecutive" if found["consecutive"] else ""),
        "blocks": _numbers(sorted(away), found["n_blocks"]),
        "attention": _numbers(sublayers["attention"], found["n_blocks"]),
        "MLP": _numbers(sublayers["mlp"], found["n_blocks"]),
        "parameters": f"{before:,} to {after:,} ({after / before - 1:+.1%})",
        "calibration": calibration_line(record.get("calibration")),
        "time": f"{record['wall_seconds']['total']:.1f} s, peak memory {record['peak_memory_bytes'] / 1e9:.2f} GB",
        "saved": output,
    }
    for name, value in lines.items():
        if value is not None:
            table.add_row(name, value)
    return table


def _numbers(indices: Sequence[int], n_blocks: int) -> str | None:
    return f"{len(indices)} of {n_blocks} gone: {', '.join(map(str, indices))}" if indices else None
