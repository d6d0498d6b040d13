"""Audits made apart, joined to one report: a dense model is audited once and compared with whatever comes later."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trueprune._support.errors import AuditError
from trueprune.audits.measurement import Measurement
from trueprune.reports.agreement import GROUPS, LISTS, by_metric, check_items, check_settings, difference
from trueprune.reports.audit import AuditedModel, AuditReport, compare
from trueprune.reports.stored import StoredAudit, read_audit
from trueprune.reports.stored_texts import joined_texts

# What decides the bits of a result; another Python does not.
VERSIONS = ("trueprune", "torch", "transformers", "numpy")


def join_audits(folders: Sequence[str | Path]) -> AuditReport:
    """One report of several audits; no model is loaded.

    The first model of the first audit is the dense one, and the others follow in the order given. A later audit may
    begin with the same dense model, which is then listed once, or hold a single other model that was audited alone. Of
    such a model, what can only be measured beside the dense one is left out: frozen probes, probes in another block
    than the dense model's, timings. Names that clash are numbered.

    **Arguments:**

    - `folders`: of audits, one or more.

    **Returns:** the report, the same to the bit as one audit of all models would have made of these measurements.

    **Raises:** `AuditError` for folders that are none, settings or items that differ, or models that were measured
    against another dense model.
    """
    if not folders:
        raise AuditError("there is no audit to report", "Give the folders that trueprune audit wrote")
    if twice := next((name for i, name in enumerate(folders) if _same_path(name, folders[:i])), None):
        raise AuditError(f"the audit {twice} is given twice", "Give each once")
    audits = [read_audit(folder) for folder in folders]
    first = audits[0]
    parts: list[tuple[StoredAudit, AuditedModel]] = [(first, model) for model in first.models]
    for audit in audits[1:]:
        check_settings(first, audit)
        check_items(first, audit)
        _note_versions(first, audit)
        parts += [(audit, model) for model in _later(first, audit)]
    names = numbered([model.name for _, model in parts])
    models = [replace(model, name=name) for (_, model), name in zip(parts, names, strict=True)]
    called: dict[str, dict[str, str]] = {str(audit.folder): {} for audit in audits}
    for (audit, model), name in zip(parts, names, strict=True):
        called[str(audit.folder)][model.name] = name
    report = compare(models, _settings(audits, called), resamples=first.resamples, seed=first.seed)
    return replace(report, items=joined_texts({str(audit.folder): audit.items for audit in audits}, called))


def _same_path(folder: str | Path, earlier: Sequence[str | Path]) -> bool:
    return Path(folder).resolve() in {Path(one).resolve() for one in earlier}


def _later(first: StoredAudit, audit: StoredAudit) -> list[AuditedModel]:
    """The models of a later audit that are not the dense one."""
    dense, theirs = first.models[0], audit.models[0]
    differ = difference(dense, theirs)
    if not differ:
        return list(audit.models[1:])
    if len(audit.models) > 1:
        raise AuditError(
            f"the models of {audit.folder} were compared with {theirs.name}, which is not the dense model "
            f"{dense.name} of {first.folder}: {differ}",
            f"Audit them beside {dense.name}",
        )
    one, other = (model.about.get("dtype") for model in (dense, theirs))
    if one != other:
        warnings.warn(
            f"{theirs.name} of {audit.folder} was audited in {other}, {dense.name} in {one}: "
            "small changes may be theirs",
            stacklevel=3,
        )
    kept, left = [], []
    ours = by_metric(dense)
    for measurement in theirs.measurements:
        before = ours.get((measurement.instrument, measurement.metric))
        (left if _needs_dense(measurement, before, audit.settings) else kept).append(measurement)
    if left:
        examples = ", ".join(f"{m.instrument} {m.metric}" for m in left[:2])
        warnings.warn(
            f"{theirs.name} of {audit.folder} was audited alone: {len(left)} metrics that need the dense model beside "
            f"it are left out, e.g. {examples}",
            stacklevel=3,
        )
    return [replace(theirs, measurements=kept)]


def _needs_dense(measurement: Measurement, before: Measurement | None, settings: Mapping[str, Any]) -> bool:
    """Whether a metric of a model that was audited alone says something else than beside the dense model."""
    details, theirs = measurement.details, {} if before is None else before.details
    if details.get("training") == "frozen":
        return True
    if measurement.instrument == "efficiency":
        # Timed in rounds: what else the machine did then is not what it did when the dense model was timed.
        return measurement.n > 1
    if measurement.instrument == "lie-detection" and settings.get("layer") == "own":
        return False
    return any(key in details and key in theirs and details[key] != theirs[key] for key in ("layer", "layers"))


def numbered(names: Sequence[str]) -> list[str]:
    """Names that are all different: what occurs again gets the next number that is free.

    **Arguments:**

    - `names`: of models.
    """
    found: list[str] = []
    for name in names:
        number, free = 1, name
        while free in found or (free != name and free in names):
            number += 1
            free = f"{name} ({number})"
        found.append(free)
    return found


def _settings(audits: Sequence[StoredAudit], called: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """The settings of the first audit with what the others measured besides."""
    found: dict[str, Any] = {}
    for audit in reversed(audits):
        found |= audit.settings
    measured = [name for audit in audits for name in audit.settings.get("instruments") or ()]
    found["instruments"] = list(dict.fromkeys(measured))
    for group in GROUPS:
        parts = [audit.settings[group] for audit in audits if audit.settings.get(group)]
        if parts:
            found[group] = dict(parts[0])
    for path in LISTS:
        group, _, key = path.rpartition(".")
        values = list(dict.fromkeys(value for audit in audits for value in _listed(audit.settings, group, key)))
        if values:
            (found[group] if group else found)[key] = values
    if len(audits) > 1:
        found["joined"] = [
            {"folder": folder, "models": list(models.values()), "command": audit.settings.get("command")}
            for audit, (folder, models) in zip(audits, called.items(), strict=True)
        ]
    return found


def _listed(settings: Mapping[str, Any], group: str, key: str) -> Iterator[Any]:
    where = (settings.get(group) or {}) if group else settings
    yield from where.get(key) or ()


def _note_versions(first: StoredAudit, audit: StoredAudit) -> None:
    ours, theirs = first.settings.get("versions") or {}, audit.settings.get("versions") or {}
    differ = [name for name in VERSIONS if ours.get(name) != theirs.get(name)]
    if differ:
        said = ", ".join(f"{name} {ours.get(name)} and {theirs.get(name)}" for name in differ)
        warnings.warn(
            f"{first.folder} and {audit.folder} were audited by other versions ({said}): small changes may be theirs",
            stacklevel=3,
        )
