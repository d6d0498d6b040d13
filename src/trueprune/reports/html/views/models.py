"""What was done to each model, what that cost, and how to do it again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from trueprune.reports.html.charts import block_map
from trueprune.reports.html.numbers import DASH, is_number, number, percent, seconds


def touched_view(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each pruned model: sentences on what was and was not touched, and the map of its blocks."""
    found = []
    for model in document["models"][1:]:
        touched = model.get("touched") or _from_sparsity(model)
        figure = block_map(model["name"], touched)
        pruned = touched.get("pruned") or {}
        found.append(
            {
                "name": model["name"],
                "did": touched.get("did") or [],
                "left": touched.get("left") or [],
                "notes": pruned.get("notes") or [],
                "matrices": pruned.get("matrices") or [],
                "figure": figure,
            }
        )
    return found


def _from_sparsity(model: Mapping[str, Any]) -> dict[str, Any]:
    """What can be said of a model without a record: the zeros that were counted."""
    shares = model.get("measured_sparsity_blocks") or []
    return {"blocks": len(shares), "sparsity": shares} if shares else {}


def cost_view(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each model: how much of it is zero, what making it took, who runs it faster."""
    found = []
    for model in document["models"]:
        cost = model.get("cost") or {}
        wall = cost.get("wall_seconds")
        total = wall.get("total") if isinstance(wall, Mapping) else wall
        found.append(
            {
                "name": model["name"],
                "sparsity": percent(model.get("measured_sparsity"), 1),
                "wall": seconds(total),
                "memory": number(cost.get("peak_memory_bytes"), "bytes"),
                "usable_by": model.get("usable_by"),
            }
        )
    return found


def reproduce_view(document: Mapping[str, Any]) -> dict[str, Any]:
    """Commands, seeds, hashes and versions."""
    settings = dict(document.get("settings") or {})
    versions = settings.pop("versions", None) or {}
    command = settings.pop("command", None)
    models = [_steps(model) for model in document["models"]]
    return {
        "command": command,
        "models": [model for model in models if model["steps"] or model["source"]],
        "seed": settings.get("seed", DASH),
        "resamples": settings.get("resamples", DASH),
        "versions": [(name, str(version)) for name, version in versions.items()],
        "settings": json.dumps(settings, indent=2, ensure_ascii=False),
    }


def _steps(model: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": model["name"],
        "source": model.get("source"),
        "sha256": model.get("sha256"),
        "steps": [_step(step) for step in model.get("steps") or []],
    }


def _step(step: Mapping[str, Any]) -> dict[str, Any]:
    calibration = step.get("calibration") or {}
    facts: list[tuple[str, str]] = [
        (words, str(step[key]))
        for key, words in (("method", "method"), ("source", "source"), ("source_sha256", "weights before, SHA-256"))
        if step.get(key)
    ]
    if "seed" in step:
        facts.append(("seed", str(step["seed"])))
    if calibration.get("sha256"):
        drawn = f"{_plain(calibration.get('nsamples'))} × {_plain(calibration.get('seqlen'))} tokens"
        facts += [("calibration", drawn), ("calibration tokens, SHA-256", str(calibration["sha256"]))]
    versions = step.get("versions") or {}
    if versions:
        facts.append(("versions", ", ".join(f"{name} {version}" for name, version in versions.items())))
    return {"command": step.get("command"), "facts": facts}


def _plain(value: Any) -> str:
    return f"{value:g}" if is_number(value) else "?"


def not_measured(document: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The instruments that were not run."""
    return [one for one in document["instruments"] if not one["measured"]]
