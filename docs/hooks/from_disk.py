"""Let the search work on a site that is opened from a folder: its index as a script, beside the one for servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def on_post_build(config: Any, **_: object) -> None:
    """Called by mkdocs when all files are written."""
    index = Path(config["site_dir"]) / "search" / "search_index.json"
    index.with_suffix(".js").write_text(f"var __index = {index.read_text(encoding='utf-8')}", encoding="utf-8")
