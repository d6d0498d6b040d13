"""The job `scan`: the profile of a model, block by block."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from trueprune._support.environment import versions
from trueprune._support.folders import check_output, whole_folder
from trueprune.jobs.common import LoadOptions, as_loaded, gather_evidence
from trueprune.jobs.hallucination import Comparison, HallucinationOptions
from trueprune.jobs.layer_scores import (
    hallucination_scores,
    layer_scores,
    plot_hallucination_scores,
    plot_layer_scores,
)
from trueprune.models.anatomy import Anatomy, read_anatomy
from trueprune.models.load import LoadedModel
from trueprune.observe.moments import NearZero
from trueprune.plans.avss import AvssOptions, check_site
from trueprune.plans.eavss import EavssOptions, EavssResult, prone_layers
from trueprune.plans.evidence import AllocationOptions, Evidence
from trueprune.plans.make import check_sparsity, make_plan
from trueprune.plans.registry import ALLOCATIONS
from trueprune.plans.swl import separation_share
from trueprune.reports.plots import plot_curves
from trueprune.texts.calibration import CalibrationOptions, calibration_tokens
from trueprune.texts.qa import QaOptions


def scan(
    model: str | Path | LoadedModel,
    output: str | Path | None = None,
    *,
    sparsity: float = 0.5,
    calibration: CalibrationOptions = CalibrationOptions(),
    allocation: AllocationOptions = AllocationOptions(),
    scoring: AvssOptions = AvssOptions(),
    zero: NearZero = NearZero(),
    hallucination: HallucinationOptions = HallucinationOptions(),
    asking: QaOptions = QaOptions(),
    contrast: EavssOptions = EavssOptions(),
    loading: LoadOptions = LoadOptions(),
    batch_tokens: int | None = None,
    overwrite: bool = False,
) -> Mapping[str, Any]:
    """Profile a model: outliers, separation of true and false, what each layer does to the residual stream, where
    hallucinated answers differ from true ones, and the density that each allocation would give. All calibration
    statistics come from one forward.

    **Arguments:**

    - `model`: `demo`, a checkpoint folder, a GGUF file, a hub id, or a loaded model.
    - `output`: the folder for `scan.json` and plots.
    - `sparsity`: for which the densities are computed.
    - `calibration`: what the model is calibrated on.
    - `allocation`: constants of OWL, SWL and TPLO.
    - `scoring`: how the AVSS of the table is taken.
    - `zero`: when an activation counts as zero (AVSS).
    - `hallucination`: which true and hallucinated answers EAVSS compares.
    - `asking`: which questions they answer.
    - `contrast`: how EAVSS is taken.
    - `loading`: how the model is loaded.
    - `batch_tokens`: tokens that go through a block in one call.
    - `overwrite`: replace the output folder if it exists.

    **Returns:** what `scan.json` holds: `blocks`, one entry a block; `hallucination_prone`, blocks of greatest EAVSS;
    and how it was observed.
    """
    check_sparsity(sparsity)
    if output is not None:
        check_output(Path(output), overwrite, [] if isinstance(model, LoadedModel) else [model])
    loaded = as_loaded(model, loading)
    anatomy = read_anatomy(loaded.model)
    check_site(anatomy, scoring)
    tokens = calibration_tokens(loaded, calibration)
    evidence, profile = gather_evidence(
        loaded,
        anatomy,
        ("outliers", "separation"),
        tokens,
        calibration=calibration,
        allocation=allocation,
        batch_tokens=batch_tokens,
        zero=zero,
    )
    assert profile is not None
    scores = layer_scores(profile, scoring)
    found: EavssResult | None = None
    compared: dict[str, Any] | None = None
    if hallucination.answers_from != "none":
        comparison = Comparison(loaded, hallucination, asking, contrast, batch_tokens=batch_tokens)
        found = comparison.score(anatomy)
        evidence = replace(evidence, eavss=tuple(found.score_L.tolist()))
        scores = [{**entry, **more} for entry, more in zip(scores, hallucination_scores(found), strict=True)]
        compared = {**comparison.record, "notes": list(found.notes)}
    report = {
        "schema": 2,
        "model": loaded.source,
        "sparsity": sparsity,
        "scoring": {**vars(scoring), **vars(zero)},
        "eavss": compared,
        "hallucination_prone": None if found is None else prone_layers(found, contrast.eavss_prone),
        **_profile(anatomy, evidence, sparsity, allocation, scores),
        "calibration": {**tokens.origin, "sha256": tokens.hash},
        "versions": versions(),
    }
    if output is not None:
        with whole_folder(Path(output), overwrite) as work:
            (work / "scan.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            _plot(report, work)
    return report


def _profile(
    anatomy: Anatomy,
    evidence: Evidence,
    sparsity: float,
    allocation: AllocationOptions,
    scores: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    plans = {
        name: make_plan(name, evidence, sparsity, options=allocation)
        for name, rule in ALLOCATIONS.items()
        if "eavss" not in rule.needs or evidence.eavss is not None
    }
    share_L = separation_share(evidence)
    assert evidence.outliers is not None and evidence.separation is not None
    blocks = [
        {
            "index": block.index,
            "path": block.path,
            "weights": block.numel,
            "matrices": {site.name: list(site.shape) for site in block.sites},
            "outlier_percentage": evidence.outliers[block.index],
            "separation": {name: ratios[block.index] for name, ratios in evidence.separation.items()},
            "separation_mean": float(np.mean([ratios[block.index] for ratios in evidence.separation.values()])),
            "separation_share": float(share_L[block.index]),
            "density": {name: plan.keep[block.index] for name, plan in plans.items()},
            **scores[block.index],
        }
        for block in anatomy.blocks
    ]
    return {"pivot": plans["tplo"].evidence["pivot"], "blocks": blocks}


def _plot(report: Mapping[str, Any], folder: Path) -> None:
    blocks = report["blocks"]
    names = list(blocks[0]["separation"])
    mean = {"mean of datasets": [block["separation_mean"] for block in blocks]}
    by_dataset = {name: [block["separation"][name] for block in blocks] for name in names}
    plot_curves({**mean, **by_dataset}, "Separation of true and false statements", "B / W", folder / "separation")
    outliers = {"outliers": [block["outlier_percentage"] for block in blocks]}
    plot_curves(outliers, "Outlier scores", "% of weights", folder / "outliers")
    density = {name: [block["density"][name] for block in blocks] for name in blocks[0]["density"]}
    title = f"Density at sparsity {report['sparsity']}"
    plot_curves(density, title, "density", folder / "density", mark=report["pivot"])
    plot_layer_scores(blocks, folder)
    if how := report["eavss"]:
        plot_hallucination_scores(blocks, how["eavss_variant"], how["eavss_level"], folder)
