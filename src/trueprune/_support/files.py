"""Single files that are whole or absent."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trueprune._support.errors import OutputError

LONGEST_NAME = 100


def file_name(name: str) -> str:
    """A name from anywhere as a part of a file's name: no path, not too long, and different for different names.

    **Arguments:**

    - `name`: of a model, or of a file of the user's.
    """
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:LONGEST_NAME]
    if safe == name:
        return name
    return f"{safe}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; on success flush it and rename it to `path`, else remove it.

    A file at `path` stays as it was until the new one is complete, and gives the new one its permissions.

    **Arguments:**

    - `path`: the file to make; its folder is there.

    **Raises:** `OutputError` when nothing can be written there.
    """
    # Through links, so that a linked file is written where it lies.
    path = Path(path).resolve()
    work: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        os.close(handle)
        work = Path(name)
        work.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
        yield work
        with work.open("rb") as file:
            os.fsync(file.fileno())
        work.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path} ({error})", "Free some space, or choose another place") from error
    finally:
        if work is not None:
            work.unlink(missing_ok=True)
