"""The job `demo`: prune a small real model by five methods and see what each did."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from trueprune._support.folders import check_output
from trueprune.audits.instruments import AuditOptions
from trueprune.jobs.audit import DEFAULT_INSTRUMENTS, audit_models
from trueprune.jobs.common import LoadOptions, as_loaded, gather_evidence
from trueprune.jobs.prune import prune
from trueprune.models.anatomy import read_anatomy
from trueprune.models.load import LoadedModel
from trueprune.plans.evidence import AllocationOptions, Evidence
from trueprune.reports.audit import AuditReport
from trueprune.texts.calibration import CalibrationOptions, calibration_tokens
from trueprune.texts.tokens import TokenBatch

METHODS = ("magnitude", "wanda", "sparsegpt", "owl", "tplo")


def demo(
    output: str | Path | None = "trueprune-demo",
    *,
    model: str = "demo",
    methods: Sequence[str] = METHODS,
    sparsity: float = 0.5,
    calibration: CalibrationOptions = CalibrationOptions(),
    allocation: AllocationOptions = AllocationOptions(),
    measuring: AuditOptions = AuditOptions(per_dataset=64, protocols=("grouped", "leave-one-topic-out")),
    overwrite: bool = True,
) -> AuditReport:
    """Prune SmolLM2-135M-Instruct by five methods and audit them all against the dense model.

    Everything is in the package: calibration text, held-out text and statements. The dense model is observed once for
    all methods. Pruned weights are not saved; `trueprune prune` saves.

    **Arguments:**

    - `output`: the folder for `audit.json`, the plans and the plots.
    - `model`: another model than the demo model.
    - `methods`: what to compare.
    - `sparsity`: target share of zeros.
    - `calibration`: what the model is calibrated on.
    - `allocation`: constants of OWL, SWL and TPLO.
    - `measuring`: how the audit measures.
    - `overwrite`: replace the output folder if it exists.

    **Returns:** an `AuditReport`.
    """
    if output is not None:
        check_output(Path(output), overwrite)
    loaded = as_loaded(model, LoadOptions())
    anatomy = read_anatomy(loaded.model)
    tokens = calibration_tokens(loaded, calibration)
    evidence = gather_evidence(
        loaded,
        anatomy,
        ("outliers", "separation"),
        tokens,
        outlier_threshold=allocation.outlier_threshold,
        statements=calibration.statements,
        selection=calibration.selection,
    )
    plans: dict[str, object] = {}
    models = _models(loaded, methods, sparsity, tokens, evidence, calibration, allocation, plans)
    report = audit_models(models, output, instruments=DEFAULT_INSTRUMENTS, measuring=measuring, overwrite=overwrite)
    if output is not None:
        for method, plan in plans.items():
            file = Path(output) / f"plan-{method}.json"
            file.write_text(json.dumps(plan, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return report


def _models(
    loaded: LoadedModel,
    methods: Sequence[str],
    sparsity: float,
    tokens: TokenBatch,
    evidence: Evidence,
    calibration: CalibrationOptions,
    allocation: AllocationOptions,
    plans: dict[str, object],
) -> Iterator[tuple[str, Callable[[], LoadedModel]]]:
    """The dense model, then the same model pruned by each method from the dense weights."""
    yield loaded.source, lambda: loaded
    weights = [site.weight_OI for block in read_anatomy(loaded.model).blocks for site in block.sites]
    dense = [weight.clone() for weight in weights]
    for method in methods:

        def pruned(method: str = method) -> LoadedModel:
            with torch.no_grad():
                for weight, original in zip(weights, dense, strict=True):
                    weight.copy_(original)
            result = prune(
                loaded,
                method=method,
                sparsity=sparsity,
                calibration=calibration,
                allocation=allocation,
                tokens=tokens,
                evidence=evidence,
            )
            plans[method] = result.plan.to_json()
            return result.loaded

        yield method, pruned
