"""A dense model at hand, with all that its cells share: copies of it, tokens, evidence, and what it measured."""

from __future__ import annotations

import copy
import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from trueprune._support.environment import peak_memory_bytes
from trueprune.audits.context import AuditContext
from trueprune.audits.faithfulness.explain import read_explanations, write_explanations
from trueprune.audits.subject import Subject
from trueprune.jobs.common import as_loaded, gather_evidence
from trueprune.jobs.hallucination import Comparison
from trueprune.jobs.measuring import measure_model
from trueprune.models.anatomy import Anatomy, read_anatomy
from trueprune.models.load import LoadedModel
from trueprune.plans.evidence import Evidence
from trueprune.sweeps.claims import claim
from trueprune.sweeps.configs import Config
from trueprune.sweeps.grid import Grid
from trueprune.sweeps.keys import Keys, Known, identity_of, name_of, needs_evidence
from trueprune.sweeps.steps import calibration_of
from trueprune.sweeps.store import DENSE, Store, read_json, write_audited, write_json
from trueprune.texts.calibration import calibration_tokens
from trueprune.texts.tokens import TokenBatch

EXPLANATIONS = "explanations.parquet"
# What these instruments read of the dense model beside its measurements.
BY_STATEMENTS = frozenset({"lie-detection", "separation"})


@dataclass(frozen=True)
class Job:
    """A sweep, as whoever runs its cells must know it.

    **Arguments:**

    - `grid`, `keys`: what is made, and how it is named.
    - `output`: where, as an absolute path.
    - `folder`: the working folder, in which relative paths are meant.
    """

    grid: Grid
    keys: Keys
    output: Path
    folder: Path

    @property
    def store(self) -> Store:
        """The folder of the results."""
        return Store(self.output)


class Bench:
    """A dense model in memory. It stays as it is: cells change copies.

    **Arguments:**

    - `job`: the sweep.
    - `source`: the model, as the grid names it.
    """

    def __init__(self, job: Job, source: str):
        self.job, self.source = job, source
        self.loaded: LoadedModel = as_loaded(source, job.grid.loading)
        self.identity = identity_of(self.loaded)
        self._tokens: dict[int, TokenBatch] = {}
        self._copy: nn.Module | None = None

    @cached_property
    def anatomy(self) -> Anatomy:
        """The parts of the dense model."""
        return read_anatomy(self.loaded.model)

    def fresh(self) -> LoadedModel:
        """A copy of the dense model, to be changed."""
        if getattr(self.loaded.model, "hf_device_map", None):
            # Hooks that move its parts between devices are bound to the first copy.
            fresh = as_loaded(self.source, self.job.grid.loading)
        else:
            fresh = replace(self.loaded, model=copy.deepcopy(self.loaded.model))
        self._copy = fresh.model
        return fresh

    def discard(self) -> None:
        """Give up the memory of the last copy."""
        if self._copy is not None:
            _empty(self._copy)
        self._copy = None

    def close(self) -> None:
        """Give up the memory of the dense model, too."""
        self.discard()
        _empty(self.loaded.model)

    def tokens(self, seed: int) -> TokenBatch:
        """The calibration tokens of a seed, drawn once."""
        if seed not in self._tokens:
            self._tokens[seed] = calibration_tokens(self.loaded, calibration_of(self.job.grid, seed))
        return self._tokens[seed]

    def known(self, configs: Sequence[Config]) -> Known:
        """What names the cells of this model."""
        seeds = sorted({config.seed for config in configs if "tokens" in config.needs})
        return Known(self.identity, {seed: self.tokens(seed).hash for seed in seeds})

    def evidence(self, config: Config, known: Known) -> tuple[Evidence | None, Mapping[str, Any]]:
        """What the allocation of a cell looks at, observed by whoever needs it first.

        **Returns:** the evidence (`None` if it needs none), and how answers were compared, where they were.
        """
        needs = needs_evidence(config)
        if not needs:
            return None, {}
        found = {need: self._observed(need, config.seed, known) for need in needs}
        compared = found.get("eavss", {})
        separation = found.get("separation", {}).get("value")
        outliers = found.get("outliers", {}).get("value")
        evidence = Evidence(
            tuple(self.anatomy.weights),
            None if outliers is None else tuple(outliers),
            None if separation is None else {name: tuple(ratio) for name, ratio in separation.items()},
            tuple(compared["value"]) if compared else None,
        )
        return evidence, compared

    def _observed(self, need: str, seed: int, known: Known) -> dict[str, Any]:
        determined = self.job.keys.evidence(need, seed, known)
        folder = self._made(determined, lambda work: write_json(work / DENSE, self._observe(need, seed, determined)))
        return read_json(folder / DENSE)

    def _observe(self, need: str, seed: int, determined: Mapping[str, Any]) -> dict[str, Any]:
        grid = self.job.grid
        about = {"schema": 1, "model": self.source, "what": need, "determined_by": determined}
        if need == "eavss":
            contrast = replace(grid.contrast, seed=seed)
            comparison = Comparison(
                self.loaded, grid.hallucination, grid.asking, contrast, batch_tokens=grid.batch_tokens
            )
            score_L = comparison.score(self.anatomy).score_L.tolist()
            return {**about, "value": score_L, "record": comparison.record, "notes": list(comparison.notes)}
        evidence, _ = gather_evidence(
            self.loaded,
            self.anatomy,
            (need,),
            self.tokens(seed) if need == "outliers" else None,
            calibration=calibration_of(grid, seed),
            allocation=grid.allocation,
            batch_tokens=grid.batch_tokens,
        )
        return {**about, "value": evidence.outliers if need == "outliers" else dict(evidence.separation or {})}

    def measure(self, known: Known) -> Path:
        """Measure the dense model, unless that was done; the folder that holds the result."""
        return self._made(self.job.keys.measured(known), self._measure)

    def _measure(self, work: Path) -> None:
        job, measuring = self.job, self.job.grid.measuring
        context = self._new_context()
        audited = measure_model(context.dense, context, job.keys.instruments)
        if context.dense.explanations:
            write_explanations([(self.source, context.dense.explanations)], work / EXPLANATIONS)
        about = {
            "file": DENSE,
            "schema": 1,
            "model": self.source,
            "what": "measurements",
            "parameters": sum(p.numel() for p in self.loaded.model.parameters()),
            "prunable": sum(self.anatomy.weights),
            "peak_memory_bytes": peak_memory_bytes(),
            "determined_by": job.keys.measured(Known(self.identity, {})),
        }
        write_audited(audited, work, about, resamples=measuring.resamples, seed=measuring.seed)
        self.__dict__["context"] = context

    @cached_property
    def context(self) -> AuditContext:
        """The items of the audit, and what the dense model says to them, for cells to be compared with."""
        context = self._new_context()
        file = self.job.store.dense(name_of(self.job.keys.measured(Known(self.identity, {})))) / EXPLANATIONS
        if file.is_file():
            (context.dense.explanations,) = read_explanations(file).values()
        return context

    def _new_context(self) -> AuditContext:
        settings = self.job.grid.settings
        return AuditContext(settings, Subject(self.source, self.loaded, use_cache=settings.measuring.cache))

    def _made(self, determined: Mapping[str, Any], write: Any) -> Path:
        """A folder of what was found on the dense model, made by one sweep while others wait."""
        store, name = self.job.store, name_of(determined)
        folder = store.dense(name)
        if not (folder / DENSE).is_file():
            with claim(store.folder / "running" / f"dense-{name}.json", wait=True):
                if not (folder / DENSE).is_file():
                    store.publish(folder, write)
        return folder


def _empty(model: nn.Module) -> None:
    """Let go of a model's weights at once, whoever refers to it: a full collection takes longer than a small cell."""
    try:
        model.to("meta")
    except (RuntimeError, NotImplementedError):
        gc.collect()
