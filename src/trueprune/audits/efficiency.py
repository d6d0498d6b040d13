"""Efficiency: how large a model is, what a forward costs, and how fast it runs beside the dense model.

Legend: M models, R rounds, B sequences, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trueprune._support.errors import AuditError
from trueprune.audits.efficiency_costs import CACHE_PROBE, cache_bytes_per_token, forward_flops, peak_memory
from trueprune.audits.efficiency_runs import Runner, take_own_memory, time_rounds
from trueprune.audits.efficiency_size import checkpoint_bytes, count_parameters
from trueprune.audits.measurement import Measurement
from trueprune.models.load import LoadedModel

INSTRUMENT = "efficiency"


@dataclass(frozen=True)
class EfficiencyOptions:
    """How the instrument `efficiency` measures.

    **Arguments:**

    - `prompt_tokens`: tokens of the prompt of `efficiency`.
    - `decode_tokens`: tokens decoded one by one after it.
    - `timing_rounds`: rounds in which dense and pruned model are timed in turns.
    - `timing_batch`: sequences that are timed at once.
    - `seed`: of the random token ids.
    """

    prompt_tokens: int = 256
    decode_tokens: int = 24
    timing_rounds: int = 7
    timing_batch: int = 1
    seed: int = 0

    def __post_init__(self):
        least = {"prompt_tokens": 2 * CACHE_PROBE, "decode_tokens": 1, "timing_rounds": 2, "timing_batch": 1}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                flag = "--" + name.replace("_", "-")
                raise AuditError(f"{flag} {getattr(self, name)} is below {lowest}", f"Use {lowest} or more")


DEFAULT_OPTIONS = EfficiencyOptions()


def measure_efficiency(
    loaded: LoadedModel, dense: LoadedModel | None = None, options: EfficiencyOptions = DEFAULT_OPTIONS
) -> list[Measurement]:
    """Size, cost and speed of a model.

    Weights on the CPU are moved to fresh memory, so that no model gains by where its file was mapped.

    **Arguments:**

    - `loaded`: the model.
    - `dense`: the dense model, timed in turns with it; `None` if it is the dense model itself.
    - `options`: length of the prompt, number of rounds.

    **Returns:** one measurement a metric. Items of tokens per second and of speed-ups are the rounds, and the
    `baseline` is the dense model timed in the same rounds; everything else has a single item.

    **Raises:** `AuditError` for a prompt over a model's limit, models that share weights, or a model without a cache.
    """
    if dense is not None:
        refuse_shared(loaded, dense)
    models = [loaded] if dense is None else [dense, loaded]
    ids_BT = _token_ids(models, options)
    for model in models:
        take_own_memory(model.model)
    runners = [Runner(model, ids_BT, options.prompt_tokens) for model in models]
    return [*_sizes(loaded, runners[-1], options), *_speeds(runners, options)]


def refuse_shared(loaded: LoadedModel, dense: LoadedModel) -> None:
    """Refuse a model that was made from the dense one in place: there is then no dense model to compare with.

    **Raises:** `AuditError`.
    """
    held = {parameter.data_ptr() for parameter in dense.model.parameters() if parameter.numel()}
    if any(parameter.data_ptr() in held for parameter in loaded.model.parameters() if parameter.numel()):
        raise AuditError(
            f"{loaded.source} shares its weights with the dense model, so the two cannot be timed side by side",
            "Save it and audit the folder",
        )


def _token_ids(models: list[LoadedModel], options: EfficiencyOptions) -> Tensor:
    """Random ids, the same for all models; of shape `(B, T)`."""
    tokens = options.prompt_tokens + options.decode_tokens
    for model in models:
        if model.max_length and tokens > model.max_length:
            raise AuditError(
                f"--prompt-tokens {options.prompt_tokens} and --decode-tokens {options.decode_tokens} are over the "
                f"limit of {model.max_length} of {model.source}",
                "Lower one of them",
            )
    vocabulary = min(model.model.get_input_embeddings().weight.shape[0] for model in models)  # type: ignore[operator,union-attr]
    generator = torch.Generator().manual_seed(options.seed)
    return torch.randint(vocabulary, (options.timing_batch, tokens), generator=generator)


def _sizes(loaded: LoadedModel, runner: Runner, options: EfficiencyOptions) -> list[Measurement]:
    parameters, nonzero = count_parameters(loaded.model)
    prefill_flops, decode_flops = forward_flops(runner)
    weights, beside = peak_memory(runner)
    prompt = {"prompt_tokens": options.prompt_tokens, "dtype": str(next(loaded.model.parameters()).dtype)}
    memory = {**prompt, "batch": options.timing_batch, "weights": weights, "activations_and_cache": beside}
    return [
        _single("parameters", parameters, headline=True),
        _single("nonzero-parameters", nonzero),
        _single("disk-bytes", checkpoint_bytes(loaded)),
        _single("kv-cache-bytes-per-token", cache_bytes_per_token(runner), prompt, headline=True),
        _single("prefill-flops", prefill_flops, prompt),
        _single("decode-flops", decode_flops, prompt),
        _single("peak-memory-bytes", weights + beside, memory),
    ]


def _single(
    metric: str, value: int | float, details: Mapping[str, Any] | None = None, headline: bool = False
) -> Measurement:
    return Measurement(
        INSTRUMENT,
        metric,
        ["model"],
        np.array([value], dtype=np.float64),
        higher_is_better=False,
        headline=headline,
        details=details or {},
    )


def _speeds(runners: list[Runner], options: EfficiencyOptions) -> list[Measurement]:
    rounds = time_rounds(runners, options.timing_rounds)
    details = {
        "prompt_tokens": options.prompt_tokens,
        "decode_tokens": options.decode_tokens,
        "batch": options.timing_batch,
        "devices": [str(device) for device in runners[-1].devices],
        "threads": torch.get_num_threads(),
    }
    tokens = {"prefill": options.prompt_tokens * options.timing_batch, "decode": options.timing_batch}
    measurements = []
    for phase, seconds_MR in (("prefill", rounds.prefill_MR), ("decode", rounds.decode_MR)):
        dense_R, own_R = seconds_MR[0], seconds_MR[-1]
        beside = len(runners) > 1
        measurements += [
            _rounds(f"{phase}-tokens-per-second", tokens[phase] / own_R, tokens[phase] / dense_R, beside, details),
            replace(
                _rounds(f"{phase}-speedup", np.log(dense_R / own_R), np.zeros_like(own_R), beside, details),
                headline=True,
            ),
        ]
    return measurements


def _rounds(
    metric: str, values_R: np.ndarray, dense_R: np.ndarray, beside: bool, details: Mapping[str, Any]
) -> Measurement:
    """Rounds as items; speed-ups are means of logarithms of ratios, so that twice as fast and half as fast cancel."""
    own = Measurement(
        INSTRUMENT,
        metric,
        [f"round-{number}" for number in range(len(values_R))],
        values_R,
        reduction="exp-mean" if metric.endswith("speedup") else "mean",
        details=details,
    )
    return replace(own, baseline=replace(own, values=dense_R)) if beside else own
