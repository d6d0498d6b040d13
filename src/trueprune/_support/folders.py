"""Output folders that are whole or absent."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trueprune._support.errors import OutputError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def check_output(path: Path, overwrite: bool, inputs: Iterable[str | Path] = ()) -> None:
    """Refuse an output that cannot or must not be made; called before long work starts.

    **Arguments:**

    - `path`: the folder to make.
    - `overwrite`: whether a folder that exists may be replaced, with all that is in it.
    - `inputs`: models that are read. The output must not be one of their folders or hold one, nor the home or working
        folder: nobody means to replace these.

    **Raises:** `OutputError`.
    """
    path = path.absolute()
    read = [("input", Path(name)) for name in inputs]
    for what, kept in (*read, ("working folder", Path.cwd()), ("home folder", Path.home())):
        kept = kept.absolute()
        # As written and as it really is: `..` and links must not hide a folder.
        pairs = ((path, kept), (path.resolve(), kept.resolve()))
        if kept.exists() and any(folder == held or folder in held.parents for folder, held in pairs):
            raise OutputError(f"the output {path} is or holds the {what} {kept}", "Choose another folder with -o")
    if path.is_file():
        raise OutputError(f"the output {path} is a file, not a folder", "Choose another folder with -o")
    if path.exists() and any(path.iterdir()) and not overwrite:
        raise OutputError(f"the output folder {path} exists and is not empty", "Choose another, or pass --overwrite")
    parent = next(folder for folder in path.parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"nothing can be written in {parent}", "Choose another folder with -o")


@contextmanager
def whole_folder(path: Path, overwrite: bool = False, need_bytes: int = 0) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; on success flush it and rename it to `path`, else remove it.

    An existing folder at `path` stays as it was until the new one is complete.

    **Arguments:**

    - `path`: the folder to make.
    - `overwrite`: whether `path` may exist.
    - `need_bytes`: free space that the content will need, checked at the start.

    **Raises:** `OutputError` when `path` exists or the disk is full.
    """
    path = path.absolute()
    check_output(path, overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the folder {path.parent} ({error.strerror})", "Choose another with -o"
        ) from error
    free = shutil.disk_usage(path.parent).free
    if free < need_bytes:
        raise OutputError(
            f"{path.parent} has {free / 1e9:.2f} GB free and the output needs {need_bytes / 1e9:.2f} GB",
            "Free some space, or choose another disk with -o",
        )
    work = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    work.chmod(0o755)
    try:
        yield work
        _flush(work)
        _swap(work, path)
    except OSError as error:
        if error.errno in _FULL:
            raise _full_disk(path, error) from error
        raise
    except Exception as error:
        # safetensors reports a failed write as its own error type with the system's message in the text.
        if any(code in str(error) for code in ("os error 28", "os error 27", "os error 122")):
            raise _full_disk(path, error) from error
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _full_disk(path: Path, error: Exception) -> OutputError:
    return OutputError(f"the disk is full while writing {path} ({error})", "Free some space; nothing was left behind")


def _flush(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())


def _swap(work: Path, path: Path) -> None:
    if not path.exists():
        work.rename(path)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
    try:
        path.rename(aside / "old")
        work.rename(path)
    except BaseException:
        # Also when interrupted: the old folder must not go before the new one stands.
        if not path.exists():
            (aside / "old").rename(path)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
