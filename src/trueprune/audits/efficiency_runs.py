"""A model made ready to be timed: prefill of a prompt, decoding with its key-value cache; models timed in turns.

Legend: M models, R rounds, B sequences, T tokens.
"""

from __future__ import annotations

import gc
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from trueprune._support.errors import AuditError
from trueprune._support.progress import track
from trueprune.models.load import LoadedModel

WARM_UP = 1


@runtime_checkable
class Timed(Protocol):
    """What takes part in the rounds: `prefill` and then `decode`, each returning seconds."""

    def prefill(self) -> float:
        """Seconds of one prefill."""
        ...

    def decode(self) -> float:
        """Median seconds of a decode step that follows it."""
        ...


class Runner:
    """Runs one model as generation does: the logits of the last position only, and a key-value cache.

    **Arguments:**

    - `loaded`: the model.
    - `ids_BT`: token ids of prompt and of what is decoded after it, of shape `(B, T)`.
    - `prompt_tokens`: how many of them are the prompt.
    """

    def __init__(self, loaded: LoadedModel, ids_BT: Int[Tensor, "B T"], prompt_tokens: int):
        self.model: Any = loaded.model
        self.prompt_tokens = prompt_tokens
        self.ids_BT = ids_BT.to(loaded.device)
        self.devices = sorted({parameter.device for parameter in loaded.model.parameters()}, key=str)
        self._last_only = last_position_only(loaded.model)
        self._cache: Any = None

    @torch.no_grad()
    def forward(self, ids_BT: Tensor, cache: Any = None) -> Any:
        """Run tokens after those in the cache and return the cache.

        **Raises:** `AuditError` for a model that keeps none.
        """
        output = self.model(ids_BT, past_key_values=cache, use_cache=True, **self._last_only)
        cache = getattr(output, "past_key_values", None)
        if cache is None:
            raise AuditError(
                f"{type(self.model).__name__} returns no key-value cache", "Leave efficiency out of --instruments"
            )
        return cache

    def steps(self) -> Iterator[Tensor]:
        """The tokens of each decode step, of shape `(B, 1)`."""
        return iter(self.ids_BT[:, self.prompt_tokens :].split(1, dim=1))

    def prefill(self) -> float:
        """Seconds of one prefill; its cache is kept for `decode`."""
        self._cache = None
        self._synchronise()
        start = perf_counter()
        self._cache = self.forward(self.ids_BT[:, : self.prompt_tokens])
        self._synchronise()
        return perf_counter() - start

    def decode(self) -> float:
        """Median seconds of a decode step after the last `prefill`, whose cache is then given up."""
        seconds = []
        for ids_B1 in self.steps():
            self._synchronise()
            start = perf_counter()
            self._cache = self.forward(ids_B1, self._cache)
            self._synchronise()
            seconds.append(perf_counter() - start)
        self._cache = None
        return float(np.median(seconds))

    def _synchronise(self) -> None:
        for device in self.devices:
            if device.type != "cpu":
                torch.accelerator.synchronize(device)


@torch.no_grad()
def take_own_memory(model: nn.Module) -> None:
    """Copy the weights that lie on the CPU to fresh memory, in place; what was tied stays tied.

    Checkpoints are read by mapping their files, and how a file's pages happen to lie in memory makes one of two equal
    models faster than the other by more than the noise. Fresh copies lie alike.
    """
    copies: dict[tuple[Any, ...], Tensor] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu" and tensor.numel():
            key = (tensor.data_ptr(), tensor.shape, tensor.stride())
            if key not in copies:
                copies[key] = tensor.data.clone()
            tensor.data = copies[key]


def last_position_only(model: nn.Module) -> dict[str, int]:
    """The argument by which a forward gives the logits of the last position only, or nothing if it has none."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    parameters = inspect.signature(base.forward).parameters
    return {name: 1 for name in ("logits_to_keep", "num_logits_to_keep") if name in parameters}


@dataclass(frozen=True, eq=False)
class Rounds:
    """What each round took.

    **Arguments:**

    - `prefill_MR`: seconds of a prefill, of shape `(M, R)`.
    - `decode_MR`: median seconds of a decode step, of shape `(M, R)`.
    """

    prefill_MR: Float[np.ndarray, "M R"]
    decode_MR: Float[np.ndarray, "M R"]


def time_rounds(models: Sequence[Timed], rounds: int) -> Rounds:
    """Time models in turns, so that whatever slows the machine down slows all of them.

    A round is every model's prefill, then every model's decoding; odd rounds go through the models backwards. One
    round before the first is not counted.

    **Arguments:**

    - `models`: M of them, all in memory.
    - `rounds`: R.
    """
    prefill_MR, decode_MR = np.empty((len(models), rounds)), np.empty((len(models), rounds))
    with _no_garbage_collection():
        for number in track(range(-WARM_UP, rounds), "timing"):
            order = range(len(models)) if number % 2 == 0 else reversed(range(len(models)))
            order = list(order)
            prefill = {index: models[index].prefill() for index in order}
            decode = {index: models[index].decode() for index in order}
            if number >= 0:
                for index in order:
                    prefill_MR[index, number], decode_MR[index, number] = prefill[index], decode[index]
    return Rounds(prefill_MR, decode_MR)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """As in `timeit`: a collection that falls into one model's turn says nothing about it."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
