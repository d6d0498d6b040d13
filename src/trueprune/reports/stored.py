"""An audit kept so that its models can be compared again, beside others, without loading any."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trueprune._support.errors import AuditError
from trueprune.audits.stored import MEASUREMENTS, read_models, write_models
from trueprune.reports.audit import AuditedModel
from trueprune.reports.item_texts import ItemTexts
from trueprune.reports.stored_texts import read_texts, write_texts

AUDIT = "audit.json"


@dataclass(frozen=True, eq=False)
class StoredAudit:
    """An audit read from its folder.

    **Arguments:**

    - `folder`: where it lies.
    - `models`: the dense one first.
    - `settings`: how it was measured.
    - `resamples`, `seed`: of its bootstrap.
    - `items`: what items say and what was answered.
    """

    folder: Path
    models: Sequence[AuditedModel]
    settings: Mapping[str, Any]
    resamples: int
    seed: int
    items: ItemTexts = field(default_factory=ItemTexts)


def write_audited(
    models: Sequence[AuditedModel], folder: Path, *, resamples: int, seed: int, items: ItemTexts | None = None
) -> None:
    """Write `measurements.parquet`, and `texts.parquet` where texts are given, beside the `audit.json` of a report.

    **Arguments:**

    - `models`: of the report, the dense one first.
    - `folder`: an existing folder.
    - `resamples`, `seed`: of the bootstrap.
    - `items`: what items say and what was answered.
    """
    found = {model.name: model.measurements for model in models}
    write_models(found, folder / MEASUREMENTS, resamples=resamples, seed=seed)
    if items is not None:
        write_texts(items, folder)


def read_audited(folder: str | Path) -> list[AuditedModel]:
    """The models of an audit folder, the dense one first, as they were measured.

    **Raises:** `AuditError` if it is no audit folder, is damaged, or was written by a version that kept no
    measurements.
    """
    return list(read_audit(folder).models)


def read_audit(folder: str | Path) -> StoredAudit:
    """All of an audit folder that a report is made of.

    **Raises:** as `read_audited`.
    """
    folder = Path(folder)
    data = _read_json(folder)
    if not (folder / MEASUREMENTS).is_file():
        raise AuditError(
            f"{folder} has no {MEASUREMENTS}: its audit was made by a version that kept none",
            "Audit the models again",
        )
    stored = read_models(folder / MEASUREMENTS)
    models = []
    for entry in data["models"]:
        about = {key: value for key, value in entry.items() if key not in ("name", "curves")}
        measured = stored.models.get(entry["name"], [])
        models.append(AuditedModel(entry["name"], measured, about, entry.get("curves") or {}))
    names = [model.name for model in models]
    if len(set(names)) < len(names) or not names or not set(stored.models) <= set(names):
        raise AuditError(
            f"{AUDIT} and {MEASUREMENTS} in {folder} are not of one audit: they name other models",
            "Restore both from the run that wrote them",
        )
    return StoredAudit(folder, models, data["settings"], stored.resamples, stored.seed, read_texts(folder))


def _read_json(folder: Path) -> dict[str, Any]:
    file = folder / AUDIT
    if not folder.is_dir() or not file.is_file():
        raise AuditError(
            f"{folder} is no folder of an audit: it holds no {AUDIT}", "Give what trueprune audit -o wrote"
        )
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if not all(isinstance(one["name"], str) for one in data["models"]) or not isinstance(data["settings"], dict):
            raise ValueError("its models or settings are none")
    except (OSError, ValueError, KeyError, TypeError) as error:
        said = " ".join(str(error).split())
        raise AuditError(f"{file} is not what an audit writes ({said})", "Audit the models again") from error
    return data
