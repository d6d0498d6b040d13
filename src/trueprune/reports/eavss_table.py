"""Where hallucinated answers differ from true ones, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table

COLUMNS = {"hsav": "HSAV", "hss": "HSS", "eavss": "EAVSS", "neavss": "NEAVSS"}


def eavss_table(blocks: Sequence[Mapping[str, Any]], how: Mapping[str, Any], prone: Sequence[int]) -> RenderableType:
    """EAVSS, a line a block; a star stands where it is more than chance.

    **Arguments:**

    - `blocks`: as `scan.json` has them.
    - `how`: how it was taken (`eavss` of `scan.json`).
    - `prone`: the hallucination-prone blocks.
    """
    wrong, right = how["compared"]["hallucinated"], how["compared"]["true"]
    said = f"{wrong} hallucinated and {right} true answers ({how['answers_from']})"
    stars = f"* p < {how['eavss_level']} after Benjamini and Hochberg's correction for {len(blocks)} blocks"
    table = Table(title=f"EAVSS ({how['eavss_variant']}), block by block", caption=f"{said}; {stars}")
    for column in ("block", *COLUMNS.values(), "p", "adjusted p", "prone", "density"):
        table.add_column(column, justify="right")
    for block in blocks:
        adjusted = block["eavss_p_adjusted"]
        table.add_row(
            str(block["index"]),
            *(f"{block[name]:.3g}" for name in COLUMNS),
            f"{block['eavss_p']:.4f}",
            f"{adjusted:.4f}{' *' if adjusted < how['eavss_level'] else ''}",
            "prone" if block["index"] in prone else "",
            f"{block['density']['eavss']:.4f}",
        )
    return table
