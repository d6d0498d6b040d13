"""Save an export whole or not at all, with its record and a model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trueprune._support.environment import versions
from trueprune._support.folders import whole_folder
from trueprune.models.exports.options import ExportOptions
from trueprune.models.exports.registry import find_export
from trueprune.models.exports.shape import LlamaShape, read_llama_shape
from trueprune.models.load import LoadedModel, quiet_transformers
from trueprune.models.record import RECORD


def save_export(
    loaded: LoadedModel,
    path: str | Path,
    to: str,
    *,
    options: ExportOptions,
    overwrite: bool = False,
    command: str | None = None,
) -> dict[str, Any]:
    """Write a model in the layout of a target.

    **Arguments:**

    - `loaded`: model and tokenizer.
    - `path`: the folder to make.
    - `to`: a key of `EXPORTS`.
    - `options`: what the targets may be asked for.
    - `overwrite`: whether an existing folder may be replaced.
    - `command`: recorded.

    **Returns:** the content of `trueprune.json`: that of the source, if it has one, with an entry `export`.

    **Raises:** `ModelError` for a model that the target cannot say, `OutputError` when the folder exists or the disk is
    full. Nothing is then written.
    """
    target = find_export(to)
    with quiet_transformers():
        shape = read_llama_shape(loaded.model)
        size = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
        if to == "gguf":
            width = {"f32": 4, "f16": 2, "q8_0": 34 / 32}.get(options.gguf_type, 4)
            size = sum(p.numel() for p in loaded.model.parameters()) * width
        with whole_folder(Path(path), overwrite, need_bytes=int(size * 1.02)) as work:
            about = {"to": to, "command": command, "source": loaded.source, **_dropped(shape)}
            about |= target.write(loaded, shape, work, options)
            about["versions"] = versions()
            record = {"schema": 1, "source": loaded.source, **(loaded.record or {}), "export": about}
            (work / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            (work / "README.md").write_text(export_card(about, target.engines), encoding="utf-8")
    return record


def _dropped(shape: LlamaShape) -> dict[str, Any]:
    return {
        "blocks": len(shape.blocks),
        "without_attention": [i for i, block in enumerate(shape.blocks) if block.attention is None],
        "without_mlp": [i for i, block in enumerate(shape.blocks) if block.mlp is None],
    }


def export_card(about: Mapping[str, Any], engines: str) -> str:
    """Markdown that says what was exported, what reads it, and how to do it again."""
    lines = ["---", "tags:", "- trueprune", "- pruning", "---", "", f"# {about['source']} as {about['to']}", ""]
    missing = [
        f"{len(about[key])} of them {key.replace('_', ' ')}"
        for key in ("without_attention", "without_mlp")
        if about[key]
    ]
    blocks = ", ".join([f"{about['blocks']} blocks", *missing])
    lines += [f"Exported with trueprune: architecture `{about['architecture']}`, {blocks}. For {engines}.", ""]
    lines += [f"Note: {note}.\n" for note in about.get("notes", [])]
    if command := about.get("command"):
        lines += ["Made by:", "", "```", str(command), "```", ""]
    lines += [f"`{RECORD}` holds the versions, and what was recorded of the model that was exported.", ""]
    return "\n".join(lines)
