"""Who computes what: sweeps that share a folder share out its cells, and a killed one holds nothing back."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

WAIT = 0.2


@contextmanager
def claim(file: Path, *, wait: bool = False) -> Iterator[bool]:
    """Claim a piece of work while this context lasts; the system takes the claim back from a process that dies.

    Where the file system knows no locks everybody gets every claim: work is then done twice, and its result, which is
    the same, kept once.

    **Arguments:**

    - `file`: says who works on it: process, machine, and since when. Removed at the end.
    - `wait`: until nobody else has it.

    **Returns:** whether it was had.
    """
    while True:
        handle = file.open("a+")
        if _locked(handle) and _same(handle, file):
            break
        handle.close()
        if not wait:
            yield False
            return
        time.sleep(WAIT)
    with handle:
        handle.seek(0)
        handle.truncate()
        about = {"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        handle.write(json.dumps(about) + "\n")
        handle.flush()
        try:
            yield True
        finally:
            # While it is still locked: who waits for it sees that it is gone, and asks for a new one.
            file.unlink(missing_ok=True)


@contextmanager
def presence(file: Path, clean: Callable[[], None]) -> Iterator[None]:
    """Be known to work in a folder while this context lasts.

    **Arguments:**

    - `file`: one that all share.
    - `clean`: called first if nobody else is there, so that what lies about is nobody's.
    """
    with file.open("a+") as handle:
        # Without locks nobody knows who else is there: what lies about may be somebody's.
        if _locked(handle, unknown=False):
            clean()
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_SH)
        yield


def _locked(handle: IO[str], *, unknown: bool = True) -> bool:
    """Whether the lock was had; `unknown` where the file system has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return unknown
    return True


def _same(handle: IO[str], file: Path) -> bool:
    """Whether the file that was opened is still the one of that name."""
    try:
        there, own = file.stat(), os.fstat(handle.fileno())
    except FileNotFoundError:
        return False
    return (there.st_ino, there.st_dev) == (own.st_ino, own.st_dev)
