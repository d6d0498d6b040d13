"""What all jobs share: loading on demand, the evidence of allocations, the names of runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trueprune.models.anatomy import Anatomy
from trueprune.models.load import LoadedModel, load, quiet_transformers
from trueprune.observe.dense import observe_outliers, observe_separation
from trueprune.plans.evidence import AllocationOptions, Evidence
from trueprune.texts.calibration import CalibrationOptions
from trueprune.texts.collections import load_statements
from trueprune.texts.selection import select
from trueprune.texts.tokens import TokenBatch


@dataclass(frozen=True)
class LoadOptions:
    """How a model is loaded.

    **Arguments:**

    - `dtype`: `auto` (that of the checkpoint; float32 for GGUF), `float32`, `bfloat16` or `float16`.
    - `device`: e.g. `cpu` or `cuda:0`.
    - `device_map`: passed to transformers, e.g. `auto` (needs accelerate).
    - `trust_remote_code`: whether code in the checkpoint may run.
    """

    dtype: str = "auto"
    device: str | None = None
    device_map: str | None = None
    trust_remote_code: bool = False


def as_loaded(model: str | Path | LoadedModel, options: LoadOptions) -> LoadedModel:
    """The model itself, or loaded as asked."""
    if isinstance(model, LoadedModel):
        return model
    with quiet_transformers():
        return load(
            model,
            dtype=options.dtype,
            device=options.device,
            device_map=options.device_map,
            trust_remote_code=options.trust_remote_code,
        )


def gather_evidence(
    loaded: LoadedModel,
    anatomy: Anatomy,
    needs: Iterable[str],
    tokens: TokenBatch | None,
    *,
    calibration: CalibrationOptions,
    allocation: AllocationOptions,
    batch_tokens: int | None = None,
) -> Evidence:
    """Observe on the dense model what an allocation needs, and nothing else.

    **Arguments:**

    - `loaded`, `anatomy`: the dense model.
    - `needs`: any of `"outliers"`, `"separation"`.
    - `tokens`: calibration tokens, for the outliers.
    - `calibration`: says which statements choose, for the separation.
    - `allocation`: OWL's M, for the outliers.
    - `batch_tokens`: tokens that go through a block in one call.
    """
    needs = set(needs)
    outliers = separation = None
    if "separation" in needs:
        chosen = select(load_statements(calibration.statements), "choose", calibration.selection)
        ratios = observe_separation(loaded, anatomy, chosen)
        separation = {name: tuple(ratio.tolist()) for name, ratio in ratios.items()}
    if "outliers" in needs:
        assert tokens is not None, "outliers are observed on calibration tokens"
        outliers = tuple(observe_outliers(anatomy, tokens, allocation.outlier_threshold, batch_tokens=batch_tokens))
    return Evidence(tuple(anatomy.weights), outliers, separation)
