"""What a checkpoint and the files of a grid hold, told cheaply: so that a finished sweep loads no model to say so."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from trueprune._support.environment import versions
from trueprune._support.hashing import hash_file, hash_json
from trueprune.models.demo import SHA256
from trueprune.models.record import RECORD
from trueprune.sweeps.grid import Grid
from trueprune.texts.rows import embedded_file
from trueprune.texts.tasks.pools import HARNESS, harness_tasks

# Files up to this are hashed whole, of larger ones the head and samples.
WHOLE = 1 << 20
SAMPLES, SAMPLE = 64, 4096


def fingerprint(source: str) -> str | None:
    """What a model's files look like: names, sizes, times, heads and samples of the weights, everything else whole.

    A copy of a checkpoint has other times, and so another fingerprint: it is then loaded and its weights are hashed,
    which finds the cells that are there. Weights that were changed in place have other times, and nearly always other
    samples.

    **Arguments:**

    - `source`: a folder, a GGUF file, `demo`, or a hub id, of which the copy in the local cache counts.

    **Returns:** a hash, or `None` if the files are not on this machine.
    """
    if source == "demo":
        # Converted from a packaged file of this hash.
        return hash_json(["demo", SHA256])
    path = Path(source)
    if not path.exists():
        found = try_to_load_from_cache(source, "config.json")
        if not isinstance(found, str):
            return None
        path = Path(found).parent
    if path.is_file():
        record = path.parent / RECORD
        files = [path, record] if record.is_file() else [path]
    else:
        files = sorted(file for file in path.rglob("*") if file.is_file() and not _hidden(file.relative_to(path)))
    root = path.parent if path.is_file() else path
    return hash_json([[file.relative_to(root).as_posix(), *_look(file)] for file in files])


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _look(file: Path) -> list[Any]:
    status = file.stat()
    if status.st_size <= WHOLE:
        return [hash_file(file)]
    digest = hashlib.sha256()
    with file.open("rb") as handle:
        # The head holds the names and shapes of tensors, in safetensors and in GGUF.
        digest.update(handle.read(WHOLE // 4))
        for i in range(SAMPLES):
            handle.seek((status.st_size - SAMPLE) * i // (SAMPLES - 1))
            digest.update(handle.read(SAMPLE))
    return [status.st_size, status.st_mtime_ns, digest.hexdigest()]


def inputs_of(grid: Grid) -> dict[str, str]:
    """Hashes of the files and folders that a grid's options name, and of the texts in the package."""
    found: dict[str, str] = {}
    for text in _strings([getattr(grid, field.name) for field in fields(Grid) if field.name not in ("models", "gate")]):
        # A source of calibration may have a weight: `corpus.txt=3`.
        for name in {text, text.removeprefix(HARNESS), text.rpartition("=")[0]}:
            if name and _exists(Path(name)):
                found[name] = _content(Path(name))
    return found


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        # A text that no file could be called: too long, or with characters that names cannot have.
        return False


def program() -> dict[str, str]:
    """What computed: versions, and the texts in the package."""
    return {**versions(), "texts": _packaged()}


def harness_version(grid: Grid) -> str | None:
    """The version of lm-eval, where tasks of it are asked."""
    return importlib.metadata.version("lm-eval") if harness_tasks(grid.answering.tasks) else None


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, (str, Path)):
        yield str(value)
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from _strings(one)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _strings(getattr(value, field.name))


def _content(path: Path) -> str:
    # Folders are read for the tables in them.
    return hash_file(path) if path.is_file() else hash_json([hash_file(file) for file in sorted(path.glob("*.csv"))])


@cache
def _packaged() -> str:
    folder = Path(str(embedded_file("heldout.jsonl"))).parent
    return hash_json([[file.name, hash_file(file)] for file in sorted(folder.iterdir()) if file.is_file()])
