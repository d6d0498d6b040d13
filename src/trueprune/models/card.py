"""A short model card for a pruned checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def model_card(record: Mapping[str, Any], source: str) -> str:
    """Markdown that says what was done to the model and how to do it again.

    **Arguments:**

    - `record`: the content of `trueprune.json`.
    - `source`: the model that was pruned.
    """
    plan = record.get("plan") or {}
    lines = ["---", "tags:", "- trueprune", "- pruning", "---", "", f"# {source}, pruned", ""]
    if plan:
        blocks = plan.get("blocks", [])
        lines += [
            f"Pruned with trueprune: method `{record.get('method')}`, "
            f"score `{plan.get('score')}`, "
            f"pattern `{plan.get('pattern')}`, target sparsity {plan.get('sparsity')}, "
            f"{len(blocks)} blocks, measured sparsity of the pruned matrices {record.get('measured_sparsity', 0):.4f}.",
            "",
            "The zeros are stored in ordinary dense tensors: any engine loads the checkpoint, and none runs it faster "
            "or in less memory for unstructured zeros.",
            "",
        ]
        lines += [f"Note: {note}.\n" for note in plan.get("notes", [])]
    if command := record.get("command"):
        lines += ["Made by:", "", "```", str(command), "```", ""]
    lines += ["`trueprune.json` holds the plan, the seed, the hash of the calibration tokens and the versions.", ""]
    return "\n".join(lines)
