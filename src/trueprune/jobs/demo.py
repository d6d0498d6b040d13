"""The job `demo`: prune a small real model by five methods and see what each did."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from trueprune._support.folders import check_output
from trueprune.audits.context import AuditOptions, AuditSettings
from trueprune.jobs.audit import DEFAULT_INSTRUMENTS, audit_models
from trueprune.jobs.common import LoadOptions, as_loaded, gather_evidence
from trueprune.jobs.prune import PruneResult, prune
from trueprune.models.anatomy import read_anatomy
from trueprune.models.load import LoadedModel
from trueprune.plans.evidence import AllocationOptions
from trueprune.plans.plan import Plan
from trueprune.reports.audit import AuditReport
from trueprune.texts.calibration import CalibrationOptions, calibration_tokens
from trueprune.texts.tasks.questions import TaskOptions

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
    answering: TaskOptions = TaskOptions(tasks=("sentiment", "commonsense"), items=100),
    overwrite: bool = False,
) -> AuditReport:
    """Prune SmolLM2-135M-Instruct by five methods and audit them all against the dense model.

    Everything is in the package: calibration text, held-out text, statements and questions. The dense model is observed
    once for all methods. Pruned weights are not saved; `trueprune prune` saves.

    **Arguments:**

    - `output`: the folder for `audit.json`, the plans and the plots.
    - `model`: another model than the demo model.
    - `methods`: what to compare.
    - `sparsity`: target share of zeros.
    - `calibration`: what the model is calibrated on.
    - `allocation`: constants of OWL, SWL and TPLO.
    - `measuring`: how the audit measures.
    - `answering`: what accuracy and calibration ask.
    - `overwrite`: replace the output folder if it exists.

    **Returns:** an `AuditReport`.
    """
    if output is not None:
        check_output(Path(output), overwrite, [model])
    loaded = as_loaded(model, LoadOptions())
    anatomy = read_anatomy(loaded.model)
    tokens = calibration_tokens(loaded, calibration)
    evidence, _ = gather_evidence(
        loaded,
        anatomy,
        ("outliers", "separation"),
        tokens,
        calibration=calibration,
        allocation=allocation,
    )

    def run(method: str) -> Callable[[LoadedModel], PruneResult]:
        return lambda dense: prune(
            dense,
            method=method,
            sparsity=sparsity,
            calibration=calibration,
            allocation=allocation,
            tokens=tokens,
            evidence=evidence,
        )

    plans: dict[str, Plan] = {}
    return audit_models(
        each_from_dense(loaded, {method: run(method) for method in methods}, plans),
        output,
        instruments=(*DEFAULT_INSTRUMENTS, "accuracy", "calibration"),
        settings=AuditSettings(measuring, answering=answering),
        overwrite=overwrite,
        plans=plans,
    )


def each_from_dense(
    loaded: LoadedModel, runs: Mapping[str, Callable[[LoadedModel], PruneResult]], plans: dict[str, Plan]
) -> Iterator[tuple[str, Callable[[], LoadedModel]]]:
    """The dense model, then the same model pruned in each way from the dense weights, one after the other.

    **Arguments:**

    - `loaded`: the dense model; pruned in place, again and again.
    - `runs`: by name, a function that prunes it.
    - `plans`: gets each plan when its model is made.

    **Returns:** names, and functions that make the model.
    """
    weights = [site.weight_OI for block in read_anatomy(loaded.model).blocks for site in block.sites]
    dense = [weight.clone() for weight in weights]
    yield loaded.source, lambda: loaded
    for name, run in runs.items():

        def make(name: str = name, run: Callable[[LoadedModel], PruneResult] = run) -> LoadedModel:
            with torch.no_grad():
                for weight, original in zip(weights, dense, strict=True):
                    weight.copy_(original)
            result = run(loaded)
            plans[name] = result.plan
            return result.loaded

        yield name, make
