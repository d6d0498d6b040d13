"""Gates from TOML files: every mistake is one line that names the file, the check and the key."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn, get_args

from trueprune._support.errors import AuditError
from trueprune._support.lines import one_line
from trueprune.reports.gates.check import refuse, shown
from trueprune.reports.gates.contract import Check, Counts, Gate, Quantity

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

GATE_KEYS = ("name", "inconclusive", "check")
SIDES = ("at_least", "at_most")
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)
BOUNDS = tuple(f"{quantity}_{side}" for quantity in QUANTITIES for side in SIDES)
LARGEST = sys.float_info.max
CHECK_KEYS = ("instrument", "metric", "reason", "inconclusive", *BOUNDS)


def read_gate(path: str | Path) -> Gate:
    """Read a gate from a TOML file.

    **Arguments:**

    - `path`: the file: `name` and `inconclusive`, and a table `[[check]]` for each bound.

    **Raises:** `AuditError` that names the file, the check and the key.
    """
    file = Path(path)
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise AuditError(f"the gate {file} {what}", "Give a TOML file; gates of the package are had by --profile")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise AuditError(f"{file} is not UTF-8 ({error.reason} at byte {error.start})", "Save it as UTF-8") from error
    except OSError as error:
        raise AuditError(f"{file} cannot be read ({error.strerror})", "Check its permissions") from error
    return gate_from_text(text, str(file), file.stem)


def gate_from_text(text: str, file: str, name: str) -> Gate:
    """Read a gate.

    **Arguments:**

    - `text`: TOML.
    - `file`: what errors call it.
    - `name`: of the gate, if it does not say.

    **Raises:** `AuditError` as `read_gate`.
    """
    try:
        data = tomllib.loads(text)
    # Beside its own error, which is a ValueError, Python's for a number of too many digits.
    except (ValueError, RecursionError) as error:
        raise AuditError(f"{file} is no TOML ({one_line(str(error))})", "See docs/gates.md for an example") from error
    _known(data, GATE_KEYS, file)
    checks = data.get("check", [])
    if isinstance(checks, Mapping) or not isinstance(checks, list) or not all(isinstance(c, Mapping) for c in checks):
        _refuse(file, "check", "each bound is a table of its own", "Write [[check]] above it, in double brackets")
    if not checks:
        raise AuditError(
            f"{file} holds no check", "Add a bound: [[check]] with instrument, metric and e.g. value_at_least"
        )
    return Gate(
        _text(data, "name", file) or name,
        tuple(_check(check, f"{file}, check {number}") for number, check in enumerate(checks, 1)),
        _counts(data, file) or "fail",
    )


def _check(data: Mapping[str, Any], place: str) -> Check:
    _known(data, CHECK_KEYS, place)
    for key in ("instrument", "metric"):
        if not _text(data, key, place):
            _refuse(place, key, "is missing", f'Add {key} = "perplexity" or the like')
    given = [key for key in BOUNDS if key in data]
    quantities: dict[str, Quantity] = {
        key: quantity for quantity in QUANTITIES for key in given if key.startswith(f"{quantity}_")
    }
    if not given:
        raise AuditError(f"{place}: there is no bound", f"Add one of {', '.join(BOUNDS)}")
    quantity = quantities[given[0]]
    if others := [key for key in given if quantities[key] != quantity]:
        _refuse(
            place, others[0], f"{given[0]} and {others[0]} bound two quantities", "Make two checks of it, one for each"
        )
    check = Check(
        _text(data, "instrument", place),
        _text(data, "metric", place),
        quantity,
        *(_number(data, f"{quantity}_{side}", place) for side in SIDES),
        reason=_text(data, "reason", place),
        inconclusive=_counts(data, place),
    )
    refuse(check, place)
    return check


def _known(data: Mapping[str, Any], keys: Collection[str], place: str) -> None:
    for key in data:
        if key not in keys:
            near = difflib.get_close_matches(key, keys, 1, 0.5)
            _refuse(place, key, "unknown key", f"Did you mean {near[0]}?" if near else f"Known are {', '.join(keys)}")


def _text(data: Mapping[str, Any], key: str, place: str) -> str:
    found = data.get(key, "")
    if not isinstance(found, str):
        _refuse(place, key, f"{shown(found)} is no text", "Put it in quotes")
    return one_line(found)


def _number(data: Mapping[str, Any], key: str, place: str) -> float | None:
    found = data.get(key)
    if found is None:
        return None
    # In Python a truth value is a number, in a bound it is a slip; and a whole number may be too large for a float.
    if isinstance(found, bool) or not isinstance(found, int | float) or not -LARGEST <= found <= LARGEST:
        _refuse(place, key, f"{shown(found)} is no finite number", f"Write e.g. {key} = 0.05")
    return float(found)


def _counts(data: Mapping[str, Any], place: str) -> Counts | None:
    found = data.get("inconclusive")
    if found not in (None, *get_args(Counts)):
        _refuse(place, "inconclusive", f"{shown(found)} is unknown", 'Use "fail" or "pass"')
    return found


def _refuse(place: str, key: str, problem: str, remedy: str) -> NoReturn:
    raise AuditError(f"{place}, {shown(key)[1:-1]}: {problem}", remedy)
