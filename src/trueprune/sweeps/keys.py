"""What determines a result, and the hash by which it is found again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from trueprune._support.hashing import hash_json, hash_model, hash_tensors
from trueprune.audits.qa.answers import end_ids
from trueprune.jobs.layer_choice import ranking_of
from trueprune.models.load import LoadedModel
from trueprune.plans.registry import ALLOCATIONS
from trueprune.sweeps.configs import NONE, Config
from trueprune.sweeps.grid import Grid
from trueprune.sweeps.sources import harness_version, inputs_of, program
from trueprune.sweeps.steps import repair_options, step_options

SCHEMA = 1
LENGTH = 32


@dataclass(frozen=True)
class Known:
    """What must be known of a model to name its cells.

    **Arguments:**

    - `identity`: hashes of weights, buffers, configuration, end tokens, tokenizer and record, and the device.
    - `tokens`: hash of the calibration tokens by seed.
    """

    identity: Mapping[str, str]
    tokens: Mapping[int, str]


@dataclass(frozen=True)
class Keys:
    """The hashes of a grid's results.

    **Arguments:**

    - `grid`: the grid.
    - `instruments`: what is measured.
    - `audit`: how it is measured, as plain data.
    """

    grid: Grid
    instruments: tuple[str, ...]
    audit: Mapping[str, Any]
    inputs: Mapping[str, str] = field(init=False)
    program: Mapping[str, str] = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "inputs", inputs_of(self.grid))
        object.__setattr__(self, "program", program())

    def measured(self, known: Known) -> dict[str, Any]:
        """What determines the measurements of a dense model."""
        return {
            "schema": SCHEMA,
            "what": "dense",
            "model": dict(known.identity),
            "audit": dict(self.audit),
            "instruments": list(self.instruments),
            "lm-eval": harness_version(self.grid),
            "inputs": dict(self.inputs),
            "program": dict(self.program),
        }

    def cell(self, config: Config, known: Known) -> dict[str, Any]:
        """What determines a cell: the dense model, the audit, and the options that its steps look at."""
        step = _plain(step_options(self.grid, config))
        calibration = step.pop("calibration")
        used: dict[str, Any] = {}
        if "tokens" in config.needs:
            used["tokens"] = known.tokens[config.seed]
        if "separation" in config.needs:
            used |= {name: calibration[name] for name in ("statements", "selection")}
        if config.drop is None:
            if config.rule[0] == "uniform":
                step.pop("allocation")
        elif not ranking_of(config.drop)[1].answers and config.seeded:
            used["seed"] = config.seed
        repair = None if config.repair == NONE else _plain(repair_options(self.grid, config))
        return {
            **self.measured(known),
            "what": {"pattern": config.pattern, "sparsity": config.sparsity},
            "step": {**step, **used},
            "repair": repair,
        }

    def evidence(self, need: str, seed: int, known: Known) -> dict[str, Any]:
        """What determines what was observed on a dense model."""
        grid = self.grid
        by: dict[str, Any] = {"batch_tokens": grid.batch_tokens}
        if need == "outliers":
            by |= {"tokens": known.tokens[seed], "threshold": grid.allocation.outlier_threshold}
        elif need == "separation":
            by |= {name: getattr(grid.calibration, name) for name in ("statements", "selection")}
        else:
            by |= _plain(
                {"answers": grid.hallucination, "asking": grid.asking, "contrast": grid.contrast, "seed": seed}
            )
        return {
            "schema": SCHEMA,
            "what": need,
            "model": dict(known.identity),
            **by,
            "inputs": dict(self.inputs),
            "program": dict(self.program),
        }


def name_of(determined: Mapping[str, Any]) -> str:
    """The folder of a result."""
    return hash_json(determined)[:LENGTH]


def needs_evidence(config: Config) -> tuple[str, ...]:
    """What allocations of a cell want to be observed on the dense model."""
    return () if config.drop is not None else ALLOCATIONS[config.rule[0]].needs


def identity_of(loaded: LoadedModel) -> dict[str, str]:
    """Hashes of all that a result may depend on in a model, wherever it lies."""
    config = getattr(loaded.model, "config", None)
    settings = config.to_dict() if config is not None else {}
    kept = {key: str(value) for key, value in settings.items() if not key.startswith("_")}
    parameters = {name for name, _ in loaded.model.named_parameters(remove_duplicate=False)}
    buffers = {name: tensor for name, tensor in loaded.model.state_dict().items() if name not in parameters}
    return {
        "weights": hash_model(loaded.model),
        "buffers": hash_tensors({name: tensor for name, tensor in buffers.items() if tensor.numel()}),
        "config": hash_json(kept),
        # Answers end with the tokens that either names.
        "ends": hash_json(sorted(end_ids(loaded))),
        "tokenizer": _tokenizer(loaded.tokenizer),
        "record": hash_json(loaded.record),
        "device": loaded.device.type,
    }


def _tokenizer(tokenizer: Any) -> str:
    if tokenizer is None:
        return ""
    words = sorted(tokenizer.get_vocab().items(), key=lambda pair: (pair[1], pair[0]))
    rules = ""
    if (backend := getattr(tokenizer, "backend_tokenizer", None)) is not None:
        rules = backend.to_str()
    special = {key: str(value) for key, value in tokenizer.special_tokens_map.items()}
    return hash_json([words, rules, special, str(tokenizer.chat_template)])


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if hasattr(value, "__dataclass_fields__"):
            return {key: plain(one) for key, one in asdict(value).items()}
        return value if value is None or isinstance(value, (bool, int, float)) else _listed(value)

    return {name: plain(value) for name, value in options.items()}


def _listed(value: Any) -> Any:
    return [_listed(one) for one in value] if isinstance(value, (tuple, list)) else str(value)
