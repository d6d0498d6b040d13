"""Find the configuration of a model, and build what it describes without weights."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING
from transformers.utils.hub import cached_file

from trueprune._support.errors import ModelError
from trueprune.estimates.shape import ModelShape, shape_of
from trueprune.models.demo import demo_folder
from trueprune.models.dropped import BASE, read_dropped
from trueprune.models.load import AUTO_MODEL, DTYPES, check_source, errors_named, quiet_transformers

CONFIG = "config.json"


def read_shape(model: str | Path, dtype: str = "auto") -> ModelShape:
    """The shape of a model from its configuration.

    **Arguments:**

    - `model`: `demo`, a `config.json`, a folder that holds one (weights are not needed), or a hub id whose
        configuration is in the cache of transformers.
    - `dtype`: `auto` (what the configuration says, else float32), `float32`, `bfloat16` or `float16`.

    **Raises:** `ModelError` for a configuration that is missing, damaged, or of an architecture that is unknown or
    cannot be read by structure.
    """
    if dtype not in DTYPES:
        raise ModelError(f"unknown dtype {dtype!r}", f"Use one of {', '.join(DTYPES)}")
    file = _config_file(model)
    with quiet_transformers(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _shape(file, str(model), dtype)


def _shape(file: Path, name: str, dtype: str) -> ModelShape:
    data = _read(file)
    with errors_named(name):
        if dropped := read_dropped(file.parent) if BASE in data else None:
            model_class, config = dropped
        else:
            model_class, config = None, _config(data, file)
        said = str(data.get("dtype") or data.get("torch_dtype") or getattr(config, "dtype", None) or "float32")
        dtype = said.removeprefix("torch.") if dtype == "auto" else dtype
        if dtype not in DTYPES or dtype == "auto":
            raise ModelError(f"{file} names the dtype {dtype!r}", "Give --dtype bfloat16, float16 or float32")
        return _built(model_class, config, name, dtype, file)


def _config(data: dict[str, Any], file: Path) -> Any:
    kind = data.get("model_type")
    if not kind:
        raise ModelError(f"{file} names no model_type", "Give the config.json of a transformers checkpoint")
    if kind not in CONFIG_MAPPING:
        raise ModelError(
            f"{file} is of the model_type {kind!r}, which this version of transformers does not know",
            "Estimate a known architecture of the same sizes; code of a checkpoint is not run for an estimate",
        )
    _refuse_impossible(data, file)
    with _impossible(file):
        return CONFIG_MAPPING[kind].from_dict(data)


def _built(model_class: Any, config: Any, name: str, dtype: str, file: Path) -> ModelShape:
    with _impossible(file), torch.device("meta"):
        kind: Any = DTYPES[dtype]
        model = AUTO_MODEL.from_config(config, dtype=kind) if model_class is None else model_class(config).to(kind)
    return shape_of(model, name, dtype)


@contextlib.contextmanager
def _impossible(file: Path) -> Iterator[None]:
    """Whatever an architecture has against its configuration, in one line."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(
            f"no model can be built from {file} ({reason[:240]})", "Give the config.json of a decoder that it describes"
        ) from error


def _refuse_impossible(data: dict[str, Any], file: Path) -> None:
    for key in ("hidden_size", "n_embd", "num_hidden_layers", "n_layer", "num_attention_heads", "vocab_size"):
        value = data.get(key)
        if isinstance(value, (int, float)) and value < 1:
            raise ModelError(f"{file} has {key} {value}", "Give a configuration with positive sizes")


def _read(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read as JSON ({error})", "Give a config.json of transformers") from error
    if not isinstance(data, dict):
        raise ModelError(f"{file} holds no JSON object", "Give a config.json of transformers")
    return data


def _config_file(model: str | Path) -> Path:
    """Where the configuration lies.

    **Raises:** `ModelError` if it is nowhere.
    """
    if str(model) == "demo":
        return demo_folder() / CONFIG
    path = Path(model)
    if path.is_file():
        if path.suffix == ".gguf":
            raise ModelError(f"{path} is a GGUF file", "Give the config.json of the model that it was made from")
        return path
    if path.is_dir():
        if not (path / CONFIG).is_file():
            raise ModelError(f"{path} holds no {CONFIG}", "Give a folder with the config.json of a model")
        return path / CONFIG
    if path.suffix == ".json":
        raise ModelError(f"there is no file {path}", "Check the path")
    check_source(model)
    found = cached_file(
        str(model),
        CONFIG,
        local_files_only=True,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if found is None:
        raise ModelError(
            f"the configuration of {model} is not in the cache of transformers",
            "Download its config.json (a few kB) and give the path",
        )
    return Path(found)
