"""The commands that make the model of a cell anew and save it."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from trueprune._support.files import LONGEST_NAME
from trueprune.jobs.drop import drop
from trueprune.jobs.prune import prune
from trueprune.jobs.repair import repair
from trueprune.sweeps.configs import NONE, Config
from trueprune.sweeps.grid import Grid
from trueprune.sweeps.steps import repair_options, step_options

# Flags that are not called as their option is.
FLAGS = {
    "sources": "calibration",
    "format": "calibration-format",
    "using": "with",
    "site": "avss-site",
    "estimator": "avss-estimator",
    "smoothing": "avss-smoothing",
    "relative": "near-zero-relative",
    "weight": "contrast-weight",
}
# What a reader looks for, also where it is the default.
ALWAYS = ("method", "using", "sparsity")


def commands(grid: Grid, config: Config) -> list[str]:
    """The command that prunes or drops, and that which repairs, if one does.

    **Arguments:**

    - `grid`, `config`: one cell of the grid.
    """
    job: Callable[..., Any] = prune if config.drop is None else drop
    output = "-".join([safe(Path(config.model.rstrip("/")).name), safe(_slug(config))])
    step = {**step_options(grid, config), "loading": grid.loading}
    # A folder whose name begins as a flag does.
    model = f"./{config.model}" if config.model.startswith("-") else config.model
    found = [_command(job.__name__, model, output, job, step)]
    if config.repair != NONE:
        teacher = {"teacher": model} if config.repair == "distill" else {}
        options = {**repair_options(grid, config), **teacher, "loading": grid.loading}
        found.append(_command("repair", output, f"{output}-{config.repair}", repair, options))
    return found


def safe(name: str) -> str:
    """A name that is one part of a path, whatever a model is called."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:LONGEST_NAME].strip("-.") or "model"


def _slug(config: Config) -> str:
    share = "" if config.drop else f"{config.sparsity:g}" if config.pattern == "unstructured" else str(config.pattern)
    return "-".join(part for part in (config.method, share.replace(":", "of")) if part)


def _command(name: str, model: str, output: str, job: Callable[..., Any], options: Mapping[str, Any]) -> str:
    defaults = {p.name: p.default for p in inspect.signature(job).parameters.values()}
    flags: dict[str, list[str]] = {}
    for key, value in options.items():
        if is_dataclass(value):
            for field in fields(value):
                given = getattr(value, field.name)
                if given != getattr(defaults[key], field.name):
                    flags[field.name] = _words(field.name, given)
        elif value is not None and (value != defaults[key] or key in ALWAYS):
            flags[key] = _words(key, value)
    return shlex.join(["trueprune", name, model, "-o", output, *(word for words in flags.values() for word in words)])


def _words(name: str, value: Any) -> list[str]:
    flag = FLAGS.get(name, name.replace("_", "-"))
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    if isinstance(value, (tuple, list)):
        return [f"--{flag}", *map(str, value)]
    return [f"--{flag}", f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)]
