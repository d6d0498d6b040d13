"""The job `sweep`: every cell of a grid made and measured once, whatever happens in between."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from trueprune._support.environment import versions
from trueprune._support.errors import AuditError
from trueprune._support.progress import track
from trueprune.jobs.audit import how_measured
from trueprune.sweeps.bench import Job
from trueprune.sweeps.check import check_grid, gate_of, instruments_of
from trueprune.sweeps.claims import presence
from trueprune.sweeps.configs import Config, expand
from trueprune.sweeps.grid import Grid
from trueprune.sweeps.here import run_here
from trueprune.sweeps.keys import Keys, Known
from trueprune.sweeps.read import read_grid
from trueprune.sweeps.report import SweepReport, write_sweep
from trueprune.sweeps.results import gather


def sweep(grid: Grid | str | Path, output: str | Path, *, ray: str | bool | None = None) -> SweepReport:
    """Prune, drop and repair by a whole grid of methods, audit each result, and say which to use.

    Each cell of the grid is written whole or not at all, under a hash of everything that determines it. The same
    command again makes what is missing and tries again what failed; a grid that was extended makes what is new.
    Several sweeps in one folder share out the cells.

    With a gate the exit code is 0 if of every dense model some configuration keeps it and no cell failed, else 1.

    **Arguments:**

    - `grid`: a TOML file (see docs/sweeps.md), or a `Grid`.
    - `output`: the folder for `sweep.parquet`, `sweep.json`, `report.html` and the cells.
    - `ray`: run cells as Ray tasks: `local` starts Ray on this machine, `auto` joins the cluster that this machine
        belongs to, an address joins that one; without a value joins one if there is one, else starts one here.

    **Returns:** a `SweepReport`.

    **Raises:** `TruepruneError` for a grid that cannot be, before any model is loaded; a cell that fails is recorded,
    and the rest goes on.
    """
    where = "the grid" if isinstance(grid, Grid) else str(grid)
    if not isinstance(grid, Grid):
        grid = read_grid(grid)
    check_grid(grid, where)
    gate, instruments = gate_of(grid, where), instruments_of(grid, where)
    audit = how_measured(grid.settings, instruments)
    keys = Keys(grid, instruments, {**audit, "cache": None})
    job = Job(grid, keys, Path(output).absolute(), Path.cwd())
    models: dict[str, list[Config]] = {}
    for config in expand(grid):
        models.setdefault(config.model, []).append(config)
    job.store.prepare(grid.models)
    known: dict[str, Known] = {}
    errors: dict[Config, str] = {}
    with presence(job.output / ".lock", job.store.clean):
        total = sum(map(len, models.values()))
        for config, error in track(_run(job, models, known, ray), "cells", total=total):
            if error:
                errors[config] = error
                warnings.warn(f"{config.model}, {config.name(grid.seeds)}: {error}", stacklevel=2)
        found = gather(job, models, known, errors, gate, {**audit, "versions": versions()})
        report = SweepReport.of(grid, gate, found, job.output)
        write_sweep(report)
    for model in found:
        if model.refused is not None:
            remedy = f"{model.refused.remedy}. All cells are in {output}: start the sweep again with another gate"
            raise AuditError(model.refused.problem, remedy) from model.refused
    return report


def _run(
    job: Job, models: Mapping[str, Sequence[Config]], known: dict[str, Known], ray: str | bool | None
) -> Iterator[tuple[Config, str]]:
    if ray is None or ray is False:
        return run_here(job, models, known)
    from trueprune.sweeps.on_ray import run_on_ray

    return run_on_ray(job, models, known, "" if ray is True else ray)
