"""A map of the blocks: how many weights of each are zero, which blocks or sublayers are gone, which were trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trueprune.reports.html.figure import Figure, Panel
from trueprune.reports.html.numbers import is_number, percent
from trueprune.reports.html.svg import label, line, nice_ticks, picture, tag

HEIGHT, LEFT, TOP, BASE = 150.0, 44.0, 10.0, 112.0


def block_map(name: str, touched: Mapping[str, Any]) -> Figure | None:
    """The blocks of one model from left to right.

    **Arguments:**

    - `name`: the model.
    - `touched`: as in the document.

    **Returns:** `None` where the record does not say.
    """
    total = touched.get("blocks")
    sparsity = touched.get("sparsity") or []
    gone = touched.get("dropped") or {}
    dropped: dict[str, set[int]] = {kind: set(gone.get(kind) or ()) for kind in ("blocks", "attention", "mlp")}
    if not isinstance(total, int) or not 0 < total <= 1000 or not (any(dropped.values()) or any(sparsity)):
        return None
    healed: set[int] = set((touched.get("healed") or {}).get("blocks") or ())
    untouched = _untouched(touched)
    width = 660.0
    step = (width - LEFT - 8) / total
    wide = max(step - (2 if step > 6 else 0.5), 1.0)
    parts = []
    for tick in (0, 0.5, 1):
        y = BASE - tick * (BASE - TOP)
        parts += [line(LEFT, y, width - 8, y, "grid"), label(LEFT - 6, y + 4, percent(tick), "end")]
    rows = []
    for block in range(total):
        share = sparsity[block] if block < len(sparsity) and is_number(sparsity[block]) else None
        away = block in dropped["blocks"]
        x = LEFT + block * step + (step - wide) / 2
        state = _state(block, share, dropped, healed) or (untouched if share is not None else _unknown(touched))
        rows.append([str(block), percent(share, 1) if not away else "gone", state])
        inside = tag("title", f"block {block}: {state}")
        if away:
            parts.append(tag("rect", inside, x=x, y=TOP, width=wide, height=BASE - TOP, class_="gone"))
            continue
        size = (BASE - TOP) * float(share or 0)
        parts.append(tag("rect", inside, x=x, y=BASE - size, width=wide, height=max(size, 0.01), class_="bar zeros"))
        for kind, y in (("attention", BASE + 4), ("mlp", BASE + 11)):
            class_ = "gone" if block in dropped[kind] else "kept"
            parts.append(tag("rect", x=x, y=y, width=wide, height=5, class_=class_))
        if block in healed:
            parts.append(tag("circle", cx=x + wide / 2, cy=TOP - 4, r=2.5, class_="mark accent"))
    parts += [label(LEFT + (t + 0.5) * step, BASE + 31, f"{t:g}") for t in nice_ticks(0, total - 1, 10) if t == int(t)]
    counts = f"{len(dropped['blocks'])} blocks, {len(dropped['attention'])} attention and {len(dropped['mlp'])} MLP"
    described = f"{total} blocks from left to right; {counts} sublayers gone. The numbers are in the table below."
    drawn = picture(width, HEIGHT, f"Blocks of {name}", described, parts, "chart wide")
    caption = (
        "Share of zeros in each block (bars). Below them attention and, under it, MLP: coloured where gone. A dashed "
        "frame is a block that is gone; a dot above is a block that was trained."
    )
    return Figure(
        "Blocks, from the first to the last", caption, [Panel(drawn)], ["block", "zeros", "state"], rows, wide=True
    )


def _state(block: int, share: Any, dropped: Mapping[str, set[int]], healed: set[int]) -> str:
    """What was done to a block; empty if nothing is known to have been."""
    if block in dropped["blocks"]:
        return "gone"
    words = [f"{kind} gone" for kind, key in (("attention", "attention"), ("MLP", "mlp")) if block in dropped[key]]
    if is_number(share) and share > 0:
        words.append(f"{percent(share, 1)} zeros")
    if block in healed:
        words.append("trained")
    return ", ".join(words)


def _untouched(touched: Mapping[str, Any]) -> str:
    """What a block without zeros is, as far as the record says."""
    healed = touched.get("healed") or {}
    elsewhere = bool(healed.get("count")) and not healed.get("blocks")
    return "as in the dense model" if touched.get("did") and not elsewhere else "no zeros"


def _unknown(touched: Mapping[str, Any]) -> str:
    """What a block is of which no share is known: of a model that was never pruned, there is none to know."""
    return "zeros not known" if touched.get("pruned") or not touched.get("did") else _untouched(touched)
