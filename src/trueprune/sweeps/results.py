"""What a sweep found: its cells read back from their files, compared with the dense models, and judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trueprune._support.errors import AuditError
from trueprune.jobs.gating import judged
from trueprune.reports.audit import AuditedModel, AuditReport, Row, compare
from trueprune.reports.gates.contract import Gate
from trueprune.sweeps.bench import Job
from trueprune.sweeps.configs import Config
from trueprune.sweeps.keys import Known, name_of
from trueprune.sweeps.store import read_audited

COMPLETE, FAILED = "complete", "failed"


@dataclass(frozen=True, eq=False)
class Result:
    """What became of one cell.

    **Arguments:**

    - `name`: how tables call it, within its model.
    - `config`: what was made.
    - `cell`: the hash of all that determines it, the name of its folder; empty if its model could not be loaded.
    - `status`: `complete` or `failed`.
    - `error`: why it failed.
    - `data`: what its `cell.json` holds.
    - `passed`: whether it keeps the gate; `None` without a gate, or if it failed.
    """

    name: str
    config: Config
    cell: str
    status: str
    error: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    passed: bool | None = None


@dataclass(frozen=True, eq=False)
class ModelResults:
    """All cells of one dense model.

    **Arguments:**

    - `source`: the model, as the grid names it.
    - `name`: how tables call it.
    - `dense`: what its `dense.json` holds.
    - `cells`: in the order of the grid.
    - `report`: of the dense model and the complete cells; `None` if the dense model could not be measured.
    - `refused`: why the gate could not be held against them, if it could not.
    """

    source: str
    name: str
    dense: Mapping[str, Any]
    cells: Sequence[Result]
    report: AuditReport | None
    refused: AuditError | None = None

    def rows(self, name: str) -> list[Row]:
        """The metrics of one model of the report."""
        return [] if self.report is None else [row for row in self.report.rows if row.model == name]


def gather(
    job: Job,
    models: Mapping[str, Sequence[Config]],
    known: Mapping[str, Known],
    errors: Mapping[Config, str],
    gate: Gate | None,
    settings: dict[str, Any],
) -> list[ModelResults]:
    """Read what is in the files, whoever wrote them, so that a sweep that was cut off ends in the same table.

    **Arguments:**

    - `job`: the sweep.
    - `models`: the cells of each model.
    - `known`: what names the cells of each model that could be read.
    - `errors`: of cells that failed.
    - `gate`: what models must keep, if anything.
    - `settings`: kept in the reports.
    """
    names = numbered([Path(source.rstrip("/")).name or source for source in models])
    return [
        _gather(job, source, name, configs, known.get(source), errors, gate, settings)
        for name, (source, configs) in zip(names, models.items(), strict=True)
    ]


def _gather(
    job: Job,
    source: str,
    name: str,
    configs: Sequence[Config],
    known: Known | None,
    errors: Mapping[Config, str],
    gate: Gate | None,
    settings: dict[str, Any],
) -> ModelResults:
    names = numbered([name, *(config.name(job.grid.seeds) for config in configs)])[1:]
    results: list[Result] = []
    audited: list[AuditedModel] = []
    for label, config in zip(names, configs, strict=True):
        cell = "" if known is None else name_of(job.keys.cell(config, known))
        if not cell or not job.store.has(cell):
            results.append(Result(label, config, cell, FAILED, errors.get(config, "it was not made")))
            continue
        # Also where it was there all along, and its model was not when it was last asked for.
        job.store.succeed(config.hash[:32])
        found, data = read_audited(job.store.cell(cell), label)
        results.append(Result(label, config, cell, COMPLETE, data=data))
        audited.append(found)
    if known is None:
        return ModelResults(source, name, {}, results, None)
    dense, about = read_audited(job.store.dense(name_of(job.keys.measured(known))), name)
    measuring = job.grid.measuring
    report = compare([dense, *audited], settings, resamples=measuring.resamples, seed=measuring.seed)
    refused: AuditError | None = None
    try:
        report = judged(report, gate if audited else None)
    except AuditError as error:
        # What was measured stays, and can be judged again by the same command with another gate.
        refused = error
    if report.verdict is not None:
        verdict = report.verdict
        results = [
            replace(result, passed=verdict.passed(result.name)) if result.status == COMPLETE else result
            for result in results
        ]
    return ModelResults(source, name, about, results, report, refused)


def numbered(names: Sequence[str]) -> list[str]:
    """Names of which no two are the same: later ones get a number."""
    found: list[str] = []
    for name in names:
        number, fresh = 1, name
        while fresh in found:
            number += 1
            fresh = f"{name} ({number})"
        found.append(fresh)
    return found
