"""Finding tasks of lm-evaluation-harness, and keeping what it prints, draws and seeds to itself."""

from __future__ import annotations

import contextlib
import difflib
import functools
import io
import logging
import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trueprune._support.errors import AuditError
from trueprune.texts.tasks.pools import HARNESS

# The harness's own, of Python, NumPy and torch: set before a task is loaded, as some shuffle while they load.
SEEDS = (0, 1234, 1234)


def find(name: str) -> tuple[Any, list[str]]:
    """The harness's index with a task in it, and what of the index is meant.

    **Arguments:**

    - `name`: of a task, group or tag, or the path of a YAML file or, with a slash in it, of a folder with some.

    **Raises:** `AuditError` that names the nearest task, the missing package, or the missing file.
    """
    try:
        from lm_eval.models import huggingface  # noqa: F401  # needs packages that the harness can do without
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise AuditError(
            f"{HARNESS}{name} needs lm-evaluation-harness ({error.name} is missing)", "pip install 'trueprune[lm-eval]'"
        ) from error
    path = Path(name).expanduser()
    # A folder that happens to be called like a task is not meant.
    if "/" in name and path.is_dir():
        manager = TaskManager(include_path=path, include_defaults=False)
        if not manager.all_subtasks:
            raise AuditError(f"no YAML file in {path} describes a task", "Give a file or folder of lm-eval tasks")
        return manager, manager.all_subtasks
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise AuditError(f"the task file {path} does not exist", "Check the path")
        # Only a group refers to others, those beside it and the package's; the harness takes it by its name alone.
        group = _group_of(path)
        return (_index(path.parent), [group]) if group else (TaskManager(include_defaults=False), [str(path)])
    manager = _index(None)
    if name not in manager.task_index:
        near = difflib.get_close_matches(name, manager.all_tasks, 1, 0.5)
        meant = f"Did you mean {HARNESS}{near[0]}?" if near else "lm-eval ls tasks lists them"
        raise AuditError(f"lm-eval has no task {name!r}", meant)
    return manager, [name]


@functools.cache
def _index(beside: Path | None) -> Any:
    """Some seconds' work: thousands of files are read."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=beside)


def _group_of(path: Path) -> str | None:
    """The name of the group that a file describes, or `None` if it describes a task."""
    from lm_eval.tasks._yaml_loader import load_yaml

    try:
        return load_yaml(path, resolve_func=False).get("group")
    except Exception as error:
        raise AuditError(f"the task file {path} cannot be read ({first_line(error)})", "Mend it") from error


def load(manager: Any, specs: Any, name: str) -> dict[str, Any]:
    """The harness's tasks and groups with their rows.

    **Arguments:**

    - `manager`, `specs`: as `find` gave them.
    - `name`: for errors.

    **Raises:** `AuditError` if the rows cannot be had or the task's own code fails.
    """
    try:
        return type(manager).load(manager, specs)
    except OSError as error:
        raise AuditError(
            f"the rows of {HARNESS}{name} cannot be had ({first_line(error)})",
            "Connect to the hub once, or give a YAML file of the task with another dataset_path",
        ) from error
    # What a task's own code may raise is not known.
    except Exception as error:
        raise AuditError(
            f"lm-eval cannot load {HARNESS}{name} ({type(error).__name__}: {first_line(error)})", "Leave the task away"
        ) from error


def first_line(error: Exception) -> str:
    """What a foreign error says, short enough for one line of ours."""
    return str(error).strip().partition("\n")[0][:200]


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """Let the harness print, warn, draw bars and seed without a trace outside."""
    from tqdm import tqdm

    bars: Any = tqdm
    python, numpy, disabled = random.getstate(), np.random.get_state(), logging.root.manager.disable
    begin = bars.__init__

    def unseen(bar: Any, *args: Any, **settings: Any) -> None:
        begin(bar, *args, **{**settings, "disable": True})

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        bars.__init__ = unseen
        random.seed(SEEDS[0])
        np.random.seed(SEEDS[1])
        try:
            with torch.random.fork_rng():
                yield
        finally:
            bars.__init__ = begin
            logging.disable(disabled)
            random.setstate(python)
            np.random.set_state(numpy)


@contextlib.contextmanager
def incurious() -> Iterator[None]:
    """Keep the harness from asking git and the machine about themselves: it takes seconds, and git prints past us."""
    from lm_eval import evaluator

    asking = [name for name in ("get_git_commit_hash", "add_env_info") if hasattr(evaluator, name)]
    kept = {name: getattr(evaluator, name) for name in asking}
    try:
        for name in asking:
            setattr(evaluator, name, lambda *_: None)
        yield
    finally:
        for name, function in kept.items():
            setattr(evaluator, name, function)
