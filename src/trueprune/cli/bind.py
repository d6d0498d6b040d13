"""Turn a job, a typed function whose options are dataclasses, into a command with one flag an option.

The help of a flag is the line on it in the docstring, so nothing is said twice.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from cyclopts import Parameter

# A flag that belongs to a dataclass but would be too general alone.
FLAG_NAMES = {
    "sources": "calibration",
    "format": "calibration-format",
    "text": "perplexity-text",
    "using": "with",
    "site": "avss-site",
    "estimator": "avss-estimator",
    "smoothing": "avss-smoothing",
    "relative": "near-zero-relative",
    "weight": "contrast-weight",
}
# Further spellings: those of the papers' scripts.
ALIASES = {
    "lam": ["--Lamda", "--lambda"],
    "outlier_threshold": ["--Hyper_m"],
    "scale": ["--scaling_factor"],
    "method": ["--prune_method"],
    "sparsity": ["--sparsity_ratio"],
    "pattern": ["--sparsity_type"],
    "sources": ["--calibration_datasets"],
    "format": ["--input_format"],
    "padding_side": ["--padding_side"],
    "variant": ["--use_variant"],
    "output": ["-o", "--save_model"],
    "trust_remote_code": ["--trust_remote_code"],
}


def documented_arguments(text: str | None) -> dict[str, str]:
    """The bullets under **Arguments:** of a docstring, by name."""
    section = re.search(r"\*\*Arguments:\*\*\n(.*?)(?=\n\s*\*\*\w+:\*\*|\Z)", inspect.cleandoc(text or ""), re.S)
    if not section:
        return {}
    bullets = re.findall(r"^- (`[^\n]*?`): (.*?)(?=^- `|\Z)", section[1], re.S | re.M)
    return {name: " ".join(line.split()) for names, line in bullets for name in re.findall(r"`(\w+)`", names)}


def bind(
    job: Callable[..., Any],
    show: Callable[[Any, Mapping[str, Any]], int | None],
    *,
    positional: tuple[str, ...] = (),
    required: tuple[str, ...] = (),
    hide: tuple[str, ...] = (),
    types: Mapping[str, Any] | None = None,
    fixed: Mapping[str, Callable[[], Any]] | None = None,
) -> Callable[..., int | None]:
    """A function for cyclopts that calls `job` and shows its result.

    **Arguments:**

    - `job`: a function whose defaults may be option dataclasses; each of their fields becomes a flag.
    - `show`: prints the result, given it and the arguments of the job; may return the exit code.
    - `positional`: parameters given without a flag.
    - `required`: parameters that must be given, though Python has a default.
    - `hide`: parameters for Python only.
    - `types`: narrower types of parameters on the command line.
    - `fixed`: arguments of every call, computed when it is made.

    **Returns:** a function with a flat signature.
    """
    fixed = fixed or {}
    hints = typing.get_type_hints(job, include_extras=True)
    helps = documented_arguments(job.__doc__)
    parameters: list[inspect.Parameter] = []
    origin: dict[str, tuple[str, str | None]] = {}
    for parameter in inspect.signature(job).parameters.values():
        if parameter.name in hide or parameter.name in fixed:
            continue
        if dataclasses.is_dataclass(parameter.default):
            for flat, where in _fields(parameter):
                if flat.name not in origin:
                    parameters.append(flat)
                origin[flat.name] = where
            continue
        annotation = (types or {}).get(parameter.name, hints[parameter.name])
        text = helps.get(parameter.name, "")
        annotation = _flag(parameter.name, annotation, text, parameter.name in positional, default=parameter.default)
        kind = parameter.POSITIONAL_OR_KEYWORD if parameter.name in positional else parameter.KEYWORD_ONLY
        default = inspect.Parameter.empty if parameter.name in required else parameter.default
        parameters.append(inspect.Parameter(parameter.name, kind, default=default, annotation=annotation))
        origin[parameter.name] = (parameter.name, None)
    shared = _shared_fields(job, origin)

    def command(*args: Any, **kwargs: Any) -> int | None:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = _assemble(job, bound.arguments, origin, shared)
        return show(job(**arguments, **{name: make() for name, make in fixed.items()}), arguments)

    order = sorted(parameters, key=lambda p: (p.kind, p.default is not inspect.Parameter.empty))
    signature = inspect.Signature(order)
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in order}
    command.__doc__ = (job.__doc__ or "").split("**Arguments:**")[0].strip()
    command.__name__ = job.__name__
    return command


def _fields(parameter: inspect.Parameter):
    """A flag for each field of an options dataclass, with the default that the job gives it."""
    options = parameter.default
    hints = typing.get_type_hints(type(options), include_extras=True)
    helps = documented_arguments(type(options).__doc__)
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        text, group = helps.get(field.name, ""), parameter.name.title()
        annotation = _flag(field.name, hints[field.name], text, group=group, default=value)
        flat = inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=annotation)
        yield flat, (parameter.name, field.name)


def _shared_fields(job: Callable[..., Any], origin: Mapping[str, tuple[str, str | None]]) -> dict[str, list[str]]:
    """Fields that several options dataclasses have (`seed`, `statements`): one flag sets them all."""
    shared: dict[str, list[str]] = {name: [] for name in origin}
    for parameter in inspect.signature(job).parameters.values():
        if dataclasses.is_dataclass(parameter.default):
            for field in dataclasses.fields(parameter.default):
                shared[field.name].append(parameter.name)
    return shared


def _flag(
    name: str, annotation: Any, text: str, positional: bool = False, group: str = "Parameters", default: Any = None
) -> Any:
    text = text.replace("`", "")
    if positional:
        return Annotated[annotation, Parameter(help=text, negative_iterable="")]
    flag = FLAG_NAMES.get(name, name.replace("_", "-"))
    many = typing.get_origin(annotation) in (tuple, list, Sequence)
    return Annotated[
        annotation,
        Parameter(
            name=[f"--{flag}", *ALIASES.get(name, [])],
            help=text,
            group=group,
            consume_multiple=many or None,
            negative_iterable="",
            negative=f"--no-{flag}" if annotation is bool else "",
            show_default=_spoken_default if default not in (None, ()) else False,
        ),
    ]


def _spoken_default(value: Any) -> str:
    return " ".join(str(v) for v in value) if isinstance(value, (tuple, list)) else str(value)


def _assemble(
    job: Callable[..., Any],
    values: Mapping[str, Any],
    origin: Mapping[str, tuple[str, str | None]],
    shared: Mapping[str, list[str]],
) -> dict[str, Any]:
    """Put flat values back into the job's dataclasses."""
    plain = {name: value for name, value in values.items() if origin[name][1] is None}
    defaults = {p.name: p.default for p in inspect.signature(job).parameters.values()}
    changes: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        for option in shared[name]:
            changes.setdefault(option, {})[name] = value
    return {**plain, **{option: dataclasses.replace(defaults[option], **new) for option, new in changes.items()}}
