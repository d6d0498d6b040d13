"""A grid refused before any model is loaded: whatever can be known to fail, in one line that names file and key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from trueprune._support.errors import PlanError, TruepruneError
from trueprune.audits.instruments import INSTRUMENTS, check_instruments
from trueprune.jobs.audit import DEFAULT_INSTRUMENTS
from trueprune.jobs.gating import wanted_instruments
from trueprune.jobs.hallucination import check_answers
from trueprune.jobs.layer_choice import DropOptions, ranking_of, refuse_idle
from trueprune.models.load import check_source
from trueprune.observe.moments import NearZero
from trueprune.plans.avss import AvssOptions
from trueprune.plans.choose import share_of
from trueprune.plans.make import check_sparsity
from trueprune.plans.plan import Pattern
from trueprune.plans.registry import METHODS
from trueprune.repairs.healing import WAYS, HealingOptions, check_way
from trueprune.repairs.registry import RECALIBRATIONS
from trueprune.reports.gates import PROFILES, profile, read_gate
from trueprune.reports.gates.contract import Gate
from trueprune.sweeps.coerce import nearest
from trueprune.sweeps.configs import NONE, canonical, split_method
from trueprune.sweeps.grid import Grid
from trueprune.sweeps.steps import healing_of
from trueprune.texts.tasks.pools import own_tasks


def check_grid(grid: Grid, where: str = "the grid") -> None:
    """Refuse a grid of which a cell would fail for what the grid says.

    **Arguments:**

    - `grid`: as it was read.
    - `where`: its file, for errors.

    **Raises:** `PlanError` that names the key.
    """
    for key in ("models", "patterns", "sparsities", "repairs", "seeds"):
        if not getattr(grid, key):
            raise PlanError(f"{where}: {key} is empty: there is no cell", "Name one or more")
    if not grid.methods and not grid.drop:
        raise PlanError(
            f"{where}: there is no method: nothing would be pruned", 'Write methods = ["wanda"], or [[drop]]'
        )
    for i, model in enumerate(grid.models):
        with _named(f"{where}: models[{i}]"):
            check_source(model)
    for i, method in enumerate(grid.methods):
        _check_method(method, f"{where}: methods[{i}]")
    for i, pattern in enumerate(grid.patterns):
        with _named(f"{where}: patterns[{i}]"):
            Pattern.parse(pattern)
    for i, sparsity in enumerate(grid.sparsities):
        with _named(f"{where}: sparsities[{i}]"):
            check_sparsity(sparsity)
    for i, seed in enumerate(grid.seeds):
        if seed < 0:
            raise PlanError(f"{where}: seeds[{i}] is {seed}", "Use 0 or more")
    for key in ("calibration", "contrast"):
        if getattr(grid, key).seed:
            raise PlanError(f"{where}: {key}.seed is set by the grid's seeds", "Write seeds = [0, 1]")
    for i, choice in enumerate(grid.drop):
        _check_drop(grid, choice, f"{where}: drop[{i}]")
    for i, repair in enumerate(grid.repairs):
        _check_repair(grid, repair, f"{where}: repairs[{i}]")
    _check_used(grid, where)
    instruments_of(grid, where)


def gate_of(grid: Grid, where: str = "the grid") -> Gate | None:
    """The gate that a grid names.

    **Raises:** `TruepruneError` if it cannot be read.
    """
    if grid.gate is not None and grid.profile is not None:
        raise PlanError(f"{where}: gate and profile both say what to hold", "Leave one of them out")
    if grid.profile is not None and grid.profile not in PROFILES:
        raise PlanError(f"{where}: unknown profile {grid.profile!r}", nearest(grid.profile, PROFILES))
    if isinstance(grid.gate, Gate):
        return grid.gate
    if grid.gate is not None:
        with _named(f"{where}: gate"):
            return read_gate(Path(grid.gate))
    return None if grid.profile is None else profile(grid.profile)


def instruments_of(grid: Grid, where: str = "the grid") -> tuple[str, ...]:
    """What is measured in each cell.

    **Raises:** `TruepruneError` for what cannot be measured, or a gate on what is not measured.
    """
    gate = gate_of(grid, where)
    for i, name in enumerate(grid.instruments):
        if name not in INSTRUMENTS:
            raise PlanError(f"{where}: instruments[{i}]: unknown instrument {name!r}", nearest(name, list(INSTRUMENTS)))
    with _named(f"{where}: instruments"):
        chosen = wanted_instruments(grid.instruments, DEFAULT_INSTRUMENTS, gate, grid.settings, pruned=True)
        check_instruments(chosen, grid.settings)
    return chosen


def _check_method(method: str, where: str) -> None:
    name, _ = split_method(method)
    with _named(where):
        try:
            canonical(method)
        except TruepruneError as error:
            if name in METHODS:
                raise
            raise PlanError(f"unknown method {name!r}", nearest(name, list(METHODS))) from error


def _check_drop(grid: Grid, choice: DropOptions, where: str) -> None:
    with _named(where):
        file, ranking = ranking_of(choice)
        refuse_idle(choice, file, ranking, AvssOptions(), NearZero())
        if ranking.answers:
            check_answers(grid.hallucination)
        if file is None or file.listed is None:
            share_of(choice.fraction)
            if choice.count is not None and (choice.count < 1 or choice.fraction is not None):
                raise PlanError(f"count is {choice.count}", "Give a count of 1 or more, or a fraction, not both")


def _check_repair(grid: Grid, repair: str, where: str) -> None:
    known = [NONE, *RECALIBRATIONS, *WAYS]
    if repair not in known:
        raise PlanError(f"{where}: unknown repair {repair!r}", nearest(repair, known))
    with _named(where):
        if repair in WAYS:
            check_way(repair, healing_of(grid, repair, 0), repair == "distill")
        if repair in RECALIBRATIONS and not own_tasks(grid.answering.tasks):
            raise PlanError(
                f"{repair} is fitted on tasks of trueprune's own, and answering.tasks has none",
                "Add one, e.g. facts",
            )


def _check_used(grid: Grid, where: str) -> None:
    """Refuse tables that no cell would look at."""
    scores = [ranking_of(choice)[1] for choice in grid.drop]
    eavss = any(ranking.answers for ranking in scores) or any(canonical(m).startswith("eavss") for m in grid.methods)
    ways = [repair for repair in grid.repairs if repair in WAYS]
    idle: list[tuple[str, bool, str]] = [
        ("scoring", any(ranking.scored for ranking in scores), 'a [[drop]] with by = "avss"'),
        ("zero", any(ranking.scored for ranking in scores), 'a [[drop]] with by = "avss"'),
        ("hallucination", eavss, "the method eavss, or a [[drop]] by it"),
        ("contrast", eavss, "the method eavss, or a [[drop]] by it"),
        ("healing", bool(ways), f"a repair that trains ({', '.join(WAYS)})"),
        ("edit", bool(grid.methods), "a method that prunes"),
    ]
    defaults = {field.name: field.default for field in fields(Grid)}
    for key, used, by in idle:
        if getattr(grid, key) != defaults[key] and not used:
            raise PlanError(f"{where}: {key} would not be looked at", f"Leave it out, or add {by}")
    if grid.edit.variant and grid.edit.group:
        raise PlanError(f"{where}: edit.group has no meaning with edit.variant", "Leave one of them out")
    plain = HealingOptions()
    for field in fields(HealingOptions) if ways else ():
        value = getattr(grid.healing, field.name)
        if value != getattr(plain, field.name) and all(
            getattr(healing_of(grid, way, plain.healing_seed), field.name) != value for way in ways
        ):
            raise PlanError(f"{where}: healing.{field.name} has no meaning for {', '.join(ways)}", "Leave it out")


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Errors that say which key of which file they are about."""
    try:
        yield
    except TruepruneError as error:
        raise PlanError(f"{where}: {error.problem}", error.remedy) from error
