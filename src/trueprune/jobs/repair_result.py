"""What all repairs give back, and how they measure before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trueprune.audits.context import AuditSettings, perplexity_text
from trueprune.audits.measurement import Measurement
from trueprune.audits.perplexity import measure_perplexity
from trueprune.models.load import LoadedModel
from trueprune.reports.audit import AuditedModel, AuditReport, compare


@dataclass(frozen=True, eq=False)
class RepairResult:
    """A repaired model.

    **Arguments:**

    - `loaded`: the model in memory.
    - `record`: what its `trueprune.json` holds; `recalibration` or `healing` says what was fitted or trained.
    - `report`: before and after, on items that nothing was fitted on, paired.
    - `output`: the folder, if one was asked for.
    """

    loaded: LoadedModel
    record: Mapping[str, Any]
    report: AuditReport
    output: Path | None


def measure_prose(loaded: LoadedModel, max_tokens: int) -> Measurement:
    """Perplexity on held-out prose, as an audit would measure it on its first tokens."""
    own = AuditSettings().measuring
    window = min(own.window, loaded.max_length or own.window)
    return measure_perplexity(loaded, perplexity_text(own.text), window=window, max_tokens=max_tokens)


def before_and_after(before: list[Measurement], after: list[Measurement], source: str, resamples: int) -> AuditReport:
    """The report of a repair."""
    models = [AuditedModel("before", before), AuditedModel("after", after)]
    return compare(models, {"source": source}, resamples=resamples, seed=0)
