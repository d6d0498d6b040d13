"""Measure one model of an audit: what `audit` does to each model, and a sweep to each cell."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from trueprune._support.hashing import hash_json
from trueprune.audits.context import AuditContext, AuditOptions
from trueprune.audits.instruments import INSTRUMENTS
from trueprune.audits.separation import separation_curve
from trueprune.audits.subject import Subject
from trueprune.edits.prune import measured_sparsity
from trueprune.reports.audit import AuditedModel
from trueprune.reports.touched import about_record


def measure_model(subject: Subject, context: AuditContext, instruments: Sequence[str]) -> AuditedModel:
    """Run instruments on a model and say where it comes from.

    **Arguments:**

    - `subject`: the model; the dense one is `context.dense` itself.
    - `context`: the items, read once for all models.
    - `instruments`: names of `INSTRUMENTS`.
    """
    measurements = [m for name in instruments for m in INSTRUMENTS[name](subject, context)]
    total, per_block = measured_sparsity(subject.anatomy)
    about: dict[str, Any] = {
        "source": subject.loaded.source,
        "sha256": subject.sha256,
        "dtype": str(next(subject.loaded.model.parameters()).dtype).removeprefix("torch."),
        "measured_sparsity": total,
        "measured_sparsity_blocks": per_block,
    }
    if record := subject.loaded.record:
        if (curve := record.get("recalibration")) and not curve.get("folded"):
            # Two models of the same weights that answer differently.
            about["recalibration"] = hash_json(curve)
        about |= about_record(record)
        for step in (*record.get("history", []), record):
            _warn_of_leaks(subject.name, step, context.options)
    curves = {}
    if {"separation", "lie-detection"} & set(instruments):
        curve_L = separation_curve(context.statements, subject.activations(context.statements))
        curves["separation"] = curve_L.tolist()
    return AuditedModel(subject.name, measurements, about, curves)


def _warn_of_leaks(name: str, record: Mapping[str, Any], options: AuditOptions) -> None:
    """Say so when the audited statements may have chosen the model's sparsities or calibrated it."""
    calibration = record.get("calibration") or {}
    plan = record.get("plan") or {}
    used_labels = plan.get("method") in ("swl", "tplo")
    used = used_labels or "statements" in (calibration.get("drawn") or {})
    for key, ours in (("selection", options.selection), ("statements", options.statements)):
        theirs = (plan.get("evidence") or {}).get(key, calibration.get(key, ours))
        if used and theirs != ours:
            warnings.warn(
                f"{name} was pruned with --{key} {theirs} and is audited with --{key} {ours}: "
                "statements that made it may test it. Audit with the same one",
                stacklevel=2,
            )
