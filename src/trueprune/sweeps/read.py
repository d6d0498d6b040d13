"""A grid from its TOML file: every key known, every value of the right type, before any model is loaded."""

from __future__ import annotations

import sys
import typing
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from trueprune._support.errors import PlanError
from trueprune.jobs.layer_choice import DropOptions
from trueprune.sweeps.coerce import coerce, nearest, options_from, spoken
from trueprune.sweeps.grid import Grid

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

# The singular is a natural slip, and means the same.
SINGULAR = {"model": "models", "method": "methods", "pattern": "patterns", "sparsity": "sparsities"}
SINGULAR |= {"repair": "repairs", "seed": "seeds", "instrument": "instruments"}
# The seeds of the grid are for these.
SEEDED = {("calibration", "seed"), ("contrast", "seed"), ("healing", "healing_seed")}


def read_grid(path: str | Path) -> Grid:
    """Read a grid.

    **Arguments:**

    - `path`: a TOML file; its keys are the fields of `Grid`, its tables those of the options.

    **Returns:** a `Grid`.

    **Raises:** `PlanError` that names the file and the key.
    """
    file = Path(path)
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"cannot read the grid {file} ({error.strerror})", "Check the path") from error
    except UnicodeDecodeError as error:
        raise PlanError(f"{file} is no text in UTF-8", "Save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise PlanError(f"{file} is no TOML ({error})", 'Write e.g. methods = ["wanda", "tplo"]') from error
    hints = typing.get_type_hints(Grid)
    defaults = {field.name: field.default for field in fields(Grid)}
    given: dict[str, Any] = {}
    for key, value in data.items():
        name = key.replace("-", "_")
        if name not in defaults:
            remedy = f"Write {SINGULAR[name]} = [...]" if name in SINGULAR else nearest(name, list(defaults))
            raise PlanError(f"{file}: {key} is unknown", remedy)
        where = f"{file}: {key}"
        if name == "drop":
            given[name] = _drops(value, where)
        elif is_dataclass(defaults[name]):
            _refuse_misplaced(name, value, where, hints)
            given[name] = options_from(hints[name], value, where, defaults[name])
        elif name == "gate":
            given[name] = _gate(coerce(value, str, where), file)
        else:
            given[name] = coerce(value, hints[name], where)
    if "models" not in given:
        raise PlanError(f"{file}: there is no models", 'Write e.g. models = ["demo"]')
    return Grid(**given)


def _drops(value: Any, where: str) -> tuple[DropOptions, ...]:
    if not isinstance(value, list):
        raise PlanError(f"{where} is {spoken(value)}", "Write [[drop]], once for each")
    return tuple(options_from(DropOptions, table, f"{where}[{i}]") for i, table in enumerate(value))


def _refuse_misplaced(name: str, table: Any, where: str, hints: dict[str, Any]) -> None:
    """Refuse what belongs to the whole grid."""
    own = {field.name for field in fields(hints[name])}
    for key in table if isinstance(table, dict) else ():
        plain = key.replace("-", "_")
        if (name, plain) in SEEDED:
            raise PlanError(f"{where}.{key} is set by the grid's seeds", "Write seeds = [0, 1]")
        if plain in hints and plain not in own:
            raise PlanError(f"{where}.{key} belongs to the whole grid", f"Write {key} above the first [table]")


def _gate(name: str, file: Path) -> str:
    beside = file.parent / name
    return str(beside) if beside.is_file() else name
