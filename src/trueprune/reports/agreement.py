"""Whether two audits measured alike: the same settings where they matter, the same items, the same dense model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from trueprune._support.errors import AuditError
from trueprune.audits.measurement import Measurement
from trueprune.reports.audit import AuditedModel
from trueprune.reports.stored import StoredAudit

_STATEMENTS = ("lie-detection", "separation")
# Which instruments a setting of the audit itself matters to; what is not named matters to none.
USED_BY: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("text", "window", "stride", "max_tokens"), ("perplexity",)),
    **dict.fromkeys(("statements", "selection", "per_dataset"), _STATEMENTS),
    **dict.fromkeys(("layer", "repeats", "penalty", "reference", "balance"), ("lie-detection",)),
}
# Groups of settings with the instruments that they matter to.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "efficiency": ("efficiency",),
    "tasks": ("accuracy", "calibration", "faithfulness"),
    "calibration": ("calibration",),
    "faithfulness": ("faithfulness",),
    "qa": ("open-qa", "truthfulness", "truthful-generation"),
    "truth": ("open-qa", "truthful-generation"),
}
# These only list what is measured, each under a name of its own: two audits may have some in common.
LISTS = ("probes", "protocols", "tasks.tasks", "calibration.metrics", "faithfulness.attributions", "qa.qa")
# Tables with the hash of what each item says, and the column that names its task or set.
HASHED = {"predictions.parquet": "task", "answers.parquet": "set", "choices.parquet": "set"}
EXAMPLES = 3


def check_settings(first: StoredAudit, other: StoredAudit) -> None:
    """Refuse audits that measured what both measured in different ways.

    **Raises:** `AuditError` that names the setting and both values.
    """
    draws = [("resamples", first.resamples, other.resamples), ("seed", first.seed, other.seed)]
    for name, ours, theirs in (*draws, *_settings_of_both(first.settings, other.settings)):
        if ours != theirs:
            raise AuditError(
                f"{first.folder} was audited with {name} {_say(ours)}, {other.folder} with {_say(theirs)}",
                "Audit both with the same",
            )


def _settings_of_both(first: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    both = set(first.get("instruments") or ()) & set(other.get("instruments") or ())
    for name, users in USED_BY.items():
        if both & set(users):
            yield name, first.get(name), other.get(name)
    for group, users in GROUPS.items():
        if both & set(users):
            ours, theirs = first.get(group) or {}, other.get(group) or {}
            for key in sorted({*ours, *theirs}):
                if f"{group}.{key}" not in LISTS:
                    yield key, ours.get(key), theirs.get(key)


def _say(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else "none" if value is None else str(value)


def check_items(first: StoredAudit, other: StoredAudit) -> None:
    """Refuse audits that asked different items, by name or by what the items say.

    **Raises:** `AuditError` that names instrument, metric, folders and how many items are in only one of them.
    """
    ours = by_metric(first.models[0])
    for model in other.models:
        for name, theirs in by_metric(model).items():
            # What brings its own baseline was measured beside it.
            if theirs.baseline is None and name in ours:
                _check_items_of(ours[name], theirs, first.folder, other.folder)
    _check_hashes(first.folder, other.folder)


def _check_items_of(ours: Measurement, theirs: Measurement, folder: Path, other: Path) -> None:
    if list(ours.item_ids) == list(theirs.item_ids):
        return
    what = f"{ours.instrument} {ours.metric} was measured on different items in {folder} and in {other}"
    only = [sorted(set(a.item_ids) - set(b.item_ids)) for a, b in ((ours, theirs), (theirs, ours))]
    if not any(only):
        raise AuditError(f"{what}: the same {ours.n} in another order", "Audit the models again, in one version")
    said = [
        f"{len(names)} only in {place} (e.g. {', '.join(names[:EXAMPLES])})"
        for names, place in zip(only, (folder, other), strict=True)
        if names
    ]
    raise AuditError(f"{what}: {', '.join(said)}", "Give both audits the same items, or audit the models in one run")


def _check_hashes(folder: Path, other: Path) -> None:
    for file, column in HASHED.items():
        ours, theirs = (_hashes(place / file, column) for place in (folder, other))
        differ = sorted(key for key in ours.keys() & theirs.keys() if ours[key] != theirs[key])
        if differ:
            task, item = differ[0]
            raise AuditError(
                f"{len(differ)} items of {task} do not say the same in {folder} and in {other}, e.g. {item}",
                "Audit both with the same version of the task",
            )


def _hashes(file: Path, column: str) -> dict[tuple[str, str], str]:
    if not file.is_file():
        return {}
    try:
        table = pq.read_table(file, columns=[column, "item", "sha256"]).to_pydict()
    except (OSError, ValueError) as error:
        raise AuditError(f"{file} cannot be read ({error})", "Audit the models again") from error
    return {(t, i): s for t, i, s in zip(table[column], table["item"], table["sha256"], strict=True)}


def difference(ours: AuditedModel, theirs: AuditedModel) -> str:
    """Why two audited models are not the same; empty if they are.

    By the hash of their weights where both are known, and by the recalibration beside them; else by name or source and
    by measurements that are equal to the bit, timings aside.
    """
    hashes, curves = ([model.about.get(key) for model in (ours, theirs)] for key in ("sha256", "recalibration"))
    if curves[0] != curves[1]:
        return "their answers are recalibrated differently"
    if all(hashes):
        return "" if hashes[0] == hashes[1] else "their weights differ"
    if ours.name != theirs.name and ours.about.get("source") != theirs.about.get("source"):
        return "they have neither name nor source in common"
    found = by_metric(theirs)
    shared = [(m, found[name]) for name, m in by_metric(ours).items() if name in found and m.instrument != "efficiency"]
    for one, two in shared:
        if not _equal(one, two):
            return f"{one.instrument} {one.metric} was {one.value:.6g} and {two.value:.6g}"
    return "" if shared else "nothing was measured on both that tells"


def _equal(one: Measurement, two: Measurement) -> bool:
    # A statistic may see more of the items than their values.
    return one.value == two.value and np.array_equal(one.values, two.values)


def by_metric(model: AuditedModel) -> dict[tuple[str, str], Measurement]:
    """The measurements of a model by instrument and metric."""
    return {(m.instrument, m.metric): m for m in model.measurements}
