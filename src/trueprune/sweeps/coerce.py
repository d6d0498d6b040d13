"""Values of a grid file brought to the types that options have, or refused by name."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal, Union

from trueprune._support.errors import PlanError, TruepruneError

WORDS = {int: "a whole number", float: "a number", str: "a text in quotes", bool: "true or false"}


def options_from(kind: type[Any], table: Any, where: str, default: Any = None) -> Any:
    """An options dataclass from a table.

    **Arguments:**

    - `kind`: the dataclass.
    - `table`: field names (hyphens count as underscores) and values.
    - `where`: file and table, for errors.
    - `default`: what has the fields that the table lacks; the defaults of the dataclass without it.

    **Raises:** `PlanError` for an unknown field, a value of another type, or one that the dataclass refuses.
    """
    if not isinstance(table, Mapping):
        raise PlanError(f"{where} is {spoken(table)}, not a table", f"Write [{where.rsplit(': ', 1)[-1]}]")
    hints = typing.get_type_hints(kind)
    known = [field.name for field in dataclasses.fields(kind) if speakable(hints[field.name])]
    given: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            raise PlanError(f"{where}.{key} is unknown", nearest(name, known))
        given[name] = coerce(value, hints[name], f"{where}.{key}")
    try:
        return kind(**given) if default is None else dataclasses.replace(default, **given)
    except TruepruneError as error:
        raise PlanError(f"{where}: {error.problem}", error.remedy) from error


def coerce(value: Any, hint: Any, where: str) -> Any:
    """A value brought to a type: lists to tuples, whole numbers to floats.

    **Arguments:**

    - `value`: what a file holds.
    - `hint`: the type.
    - `where`: file and key, for errors.

    **Raises:** `PlanError`.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        kinds = [kind for kind in inner if kind is not type(None)]
        if len(kinds) == 1:
            return coerce(value, kinds[0], where)
        for kind in kinds:
            try:
                return coerce(value, kind, where)
            except PlanError:
                continue
        raise PlanError(f"{where} is {spoken(value)}", f"Give {words(hint)}")
    if origin is Literal:
        if value in inner and not isinstance(value, bool):
            return value
        raise PlanError(f"{where} is {spoken(value)}", nearest(str(value), [str(one) for one in inner]))
    if origin in (tuple, list, Sequence):
        if not isinstance(value, list):
            raise PlanError(f"{where} is {spoken(value)}, not a list", f"Write it in brackets: [{spoken(value)}]")
        kinds = [inner[0]] * len(value) if inner[-1:] == (...,) or origin is not tuple else list(inner)
        if len(kinds) != len(value):
            raise PlanError(f"{where} has {len(value)} entries", f"Give {len(kinds)}")
        return tuple(coerce(one, kind, f"{where}[{i}]") for i, (one, kind) in enumerate(zip(value, kinds, strict=True)))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint in WORDS and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise PlanError(f"{where} is {spoken(value)}", f"Give {words(hint)}")


def speakable(hint: Any) -> bool:
    """Whether a file can hold values of a type: options that are Python objects are for Python alone."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return True
    if origin in (Union, types.UnionType):
        return any(speakable(one) for one in inner if one is not type(None))
    return hint in WORDS or origin in (tuple, list, Sequence)


def words(hint: Any) -> str:
    """A type in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(words(one) for one in inner if one is not type(None))
    if origin is Literal:
        return " or ".join(map(str, inner))
    return WORDS.get(hint, "a list")


def nearest(name: str, known: Sequence[str]) -> str:
    """What was meant, perhaps, and what there is."""
    near = get_close_matches(name, known, 1)
    return (f"Did you mean {near[0]}? " if near else "") + f"Use one of {', '.join(known)}"


def spoken(value: Any) -> str:
    """A value as an error says it."""
    text = repr(value) if not isinstance(value, bool) else str(value).lower()
    return text if len(text) <= 60 else f"{text[:57]}..."
