"""`trueprune export`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from trueprune.cli.bind import bind
from trueprune.cli.show import current_command, show
from trueprune.jobs.export import ExportResult, export


def _show(result: ExportResult, arguments: Mapping[str, Any]) -> None:
    about = result.record["export"]
    without = [f"{len(about[k])} {k.replace('_', ' ')}" for k in ("without_attention", "without_mlp") if about[k]]
    blocks = ", ".join([f"{about['blocks']} blocks", *without])
    where = result.output / about["file"] if "file" in about else result.output
    show(f"{where}: {about['architecture']}, {blocks}", *(f"Note: {note}" for note in about.get("notes", ())))


command = bind(
    export,
    _show,
    positional=("model",),
    types={
        "model": str,
        "output": Path,
        "to": Literal["nemotron-nas", "gguf"],
        "gguf_type": Literal["f32", "f16", "q8_0"],
    },
    fixed={"free_memory": lambda: True, "command": current_command.get},
)
