"""Models without some of their sublayers: their classes in memory, their code in a checkpoint, and loading them.

A checkpoint of such a model has a `model_type` of its own, so that nothing loads it as a whole model and fills what is
missing with random numbers. `trueprune.load` reads it with the code of the package; plain transformers with the small
file that lies in the folder.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
from pathlib import Path
from typing import Any

import transformers
from transformers import PretrainedConfig, PreTrainedModel

from trueprune._support.errors import ModelError
from trueprune.models import stubs

CODE = "modeling_trueprune.py"
MODEL_TYPE = "trueprune"
# Keys of config.json: which sublayers are gone, and the classes that the model had before.
DROPPED, BASE = "trueprune_dropped", "trueprune_base"


def is_dropped(model: Any) -> bool:
    """Whether sublayers of a model were dropped, and so its checkpoint needs code of its own."""
    return getattr(getattr(model, "config", None), DROPPED, None) is not None


def make_dropped(model: Any, dropped: dict[str, Any]) -> None:
    """Take sublayers away in place, and let model and configuration know it.

    **Arguments:**

    - `model`: a transformers model.
    - `dropped`: see `stubs.take_away`; in a model that was dropped from before it replaces what is there.

    **Raises:** `ModelError` for a model with code of its own: a checkpoint of it could not be loaded.
    """
    stubs.take_away(model, dropped)
    if not is_dropped(model):
        base = _base_names(model)
        model.config.__class__ = dropped_config_class(type(model.config))
        setattr(model.config, BASE, base)
        model.__class__ = dropped_model_class(type(model), type(model.config))
    # transformers would write the tensors under the names of the file that the model came from, and only turns these
    # back for types of model that it knows.
    model._weight_conversions = []
    setattr(model.config, DROPPED, dropped)
    module = CODE.removesuffix(".py")
    model.config.auto_map = {
        "AutoConfig": f"{module}.TruepruneConfig",
        "AutoModelForCausalLM": f"{module}.TruepruneForCausalLM",
    }


def make_ordinary(model: Any) -> None:
    """Give a model its own class and configuration back: no stand-in is left in it."""
    base = getattr(model.config, BASE)
    model.__class__ = getattr(transformers, base["model"])
    model.config.__class__ = getattr(transformers, base["config"])
    for key in (DROPPED, BASE, "auto_map"):
        delattr(model.config, key)
    del model._weight_conversions


def check_can_drop(model: Any) -> None:
    """Refuse a model whose sublayers could be dropped but not saved.

    **Raises:** `ModelError`.
    """
    if not is_dropped(model):
        _base_names(model)


def _base_names(model: Any) -> dict[str, str]:
    names = {"config": type(model.config).__name__, "model": type(model).__name__}
    for what, cls in (("config", type(model.config)), ("model", type(model))):
        if getattr(transformers, names[what], None) is not cls:
            raise ModelError(
                f"{names['model']} is no class of transformers, on which a checkpoint without some sublayers is built",
                "Drop whole blocks (--what block), or use a model that transformers has",
            )
    return names


@functools.cache
def dropped_config_class(base: type[PretrainedConfig]) -> type[PretrainedConfig]:
    """The configuration of a model with sublayers dropped: the base's, under another `model_type`."""
    return type("TruepruneConfig", (base,), {"model_type": MODEL_TYPE, "__module__": __name__})


@functools.cache
def dropped_model_class(base: type[PreTrainedModel], config: type[PretrainedConfig]) -> type[PreTrainedModel]:
    """The base's model, with sublayers taken away once it is built."""

    def build(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        base.__init__(self, config, *args, **kwargs)
        stubs.take_away(self, getattr(config, DROPPED))

    return type("TruepruneForCausalLM", (base,), {"__init__": build, "config_class": config, "__module__": __name__})


def write_code(model: Any, folder: Path) -> None:
    """Put the modelling file of a dropped model beside its weights."""
    base = getattr(model.config, BASE)
    # What stands after the docstring of the module.
    source = inspect.getsource(stubs).split('"""', 2)[2].lstrip()
    (folder / CODE).write_text(_CODE.format(**base, stubs=source), encoding="utf-8")


def read_dropped(folder: Path) -> tuple[type[PreTrainedModel], PretrainedConfig] | None:
    """Class and configuration of a checkpoint with sublayers dropped, or `None` for any other.

    Nothing in the folder is executed: the base class must be one of transformers.

    **Raises:** `ModelError` if the base class is unknown here.
    """
    file = folder / "config.json"
    if not file.is_file():
        return None
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        # Not ours to tell: whoever reads the whole configuration does.
        return None
    if not isinstance(data, dict) or data.get("model_type") != MODEL_TYPE or DROPPED not in data:
        return None
    base_config = _class_of(data, "config", PretrainedConfig, file)
    base_model = _class_of(data, "model", PreTrainedModel, file)
    config_class = dropped_config_class(base_config)
    return dropped_model_class(base_model, config_class), config_class.from_pretrained(folder)


def _class_of(data: dict[str, Any], what: str, parent: type, file: Path) -> Any:
    name = str(data.get(BASE, {}).get(what, ""))
    found = getattr(transformers, name, None) if re.fullmatch(r"\w+", name) else None
    if not (isinstance(found, type) and issubclass(found, parent)):
        raise ModelError(
            f"{file} builds on {name!r}, which transformers {transformers.__version__} has not",
            "Install the version of transformers that trueprune.json names",
        )
    return found


_CODE = '''"""A {model} without some of its sublayers: no weights, no products and no cache for what was dropped.

Written by trueprune beside the weights. `AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)` loads
it; so does `trueprune.load(folder)`, without running this file. `trueprune_dropped` in config.json says what is gone.
"""

{stubs}

from transformers import {config}, {model}  # noqa: E402


class TruepruneConfig({config}):
    """The configuration of the whole model, and what was dropped."""

    model_type = "trueprune"


class TruepruneForCausalLM({model}):
    """The whole model, built and then freed of what was dropped, before weights are loaded."""

    config_class = TruepruneConfig

    def __init__(self, config):
        super().__init__(config)
        take_away(self, config.trueprune_dropped)
'''
