"""What all jobs share: loading on demand, the evidence of allocations, the names of runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trueprune._support.errors import PlanError
from trueprune.models.anatomy import Anatomy
from trueprune.models.load import LoadedModel, load, quiet_transformers
from trueprune.observe.dense import observe_blocks, observe_separation
from trueprune.observe.moments import NearZero
from trueprune.observe.profile import LayerProfile
from trueprune.plans.evidence import AllocationOptions, Evidence
from trueprune.plans.plan import Plan
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


@dataclass(frozen=True, eq=False)
class PruneResult:
    """A pruned model.

    **Arguments:**

    - `loaded`: the model, pruned in place (emptied if it was saved with `free_memory`).
    - `plan`: the plan that the model now follows, earlier steps included.
    - `record`: what `trueprune.json` holds.
    - `output`: the folder, or `None` if nothing was saved.
    """

    loaded: LoadedModel
    plan: Plan
    record: Mapping[str, Any]
    output: Path | None


def plan_before(loaded: LoadedModel, anatomy: Anatomy) -> Plan | None:
    """The plan of what was done to a model before, or `None`.

    **Raises:** `PlanError` if the record and the model do not belong together.
    """
    data = (loaded.record or {}).get("plan")
    if not data:
        return None
    plan = Plan.from_json(data)
    if plan.drop is not None and len(plan.drop.kept) != len(anatomy.blocks):
        raise PlanError(
            f"the record of {loaded.source} says that {len(plan.drop.kept)} blocks are left, "
            f"the model has {len(anatomy.blocks)}",
            "Restore its trueprune.json, or remove it",
        )
    return plan


def calibration_record(tokens: TokenBatch | None, options: CalibrationOptions) -> dict[str, Any]:
    """The tokens' origin, shape and hash; without tokens only which statements chose, if any did."""
    base = {"statements": options.statements, "selection": options.selection}
    if tokens is None:
        return base
    nsamples, seqlen = tokens.ids_NT.shape
    return {**base, **tokens.origin, "nsamples": nsamples, "seqlen": seqlen, "sha256": tokens.hash}


def gather_evidence(
    loaded: LoadedModel,
    anatomy: Anatomy,
    needs: Iterable[str],
    tokens: TokenBatch | None,
    *,
    calibration: CalibrationOptions,
    allocation: AllocationOptions,
    batch_tokens: int | None = None,
    zero: NearZero | None = None,
) -> tuple[Evidence, LayerProfile | None]:
    """Observe on the dense model what an allocation needs, and nothing else.

    **Arguments:**

    - `loaded`, `anatomy`: the dense model.
    - `needs`: any of `"outliers"`, `"separation"`.
    - `tokens`: calibration tokens, for the outliers.
    - `calibration`: says which statements choose, for the separation.
    - `allocation`: OWL's M, for the outliers.
    - `batch_tokens`: tokens that go through a block in one call.
    - `zero`: take the layer profile as well, in the same pass; when an activation counts as zero in it.

    **Returns:** the evidence, and the layer profile if it was asked for.
    """
    needs = set(needs)
    outliers = separation = None
    if "separation" in needs:
        chosen = select(load_statements(calibration.statements), "choose", calibration.selection)
        ratios = observe_separation(loaded, anatomy, chosen)
        separation = {name: tuple(ratio.tolist()) for name, ratio in ratios.items()}
    profile = None
    if "outliers" in needs or zero is not None:
        assert tokens is not None, "blocks are observed on calibration tokens"
        threshold = allocation.outlier_threshold if "outliers" in needs else None
        outliers, profile = observe_blocks(
            anatomy, tokens, outlier_threshold=threshold, zero=zero, batch_tokens=batch_tokens
        )
    return Evidence(tuple(anatomy.weights), None if outliers is None else tuple(outliers), separation), profile
