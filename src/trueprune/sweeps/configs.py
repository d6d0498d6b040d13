"""A grid spread out: one configuration a cell, each of them once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from trueprune._support.hashing import hash_json
from trueprune.edits.registry import find_edit
from trueprune.jobs.layer_choice import DropOptions, ranking_of
from trueprune.plans.plan import Pattern
from trueprune.plans.registry import ALLOCATIONS, resolve_method
from trueprune.repairs.healing import WAYS
from trueprune.sweeps.grid import Grid

NONE = "none"


@dataclass(frozen=True)
class Config:
    """What is made in one cell.

    **Arguments:**

    - `model`: as the grid names it.
    - `method`: of the grid; for a drop a name made of its options.
    - `pattern`, `sparsity`: of what is pruned; `None` for a drop.
    - `repair`: `none`, or by what.
    - `seed`: of what is drawn.
    - `drop`: what goes, or `None` where weights are pruned.
    """

    model: str
    method: str
    pattern: str | None
    sparsity: float | None
    repair: str
    seed: int
    drop: DropOptions | None = None

    @property
    def label(self) -> str:
        """How tables call it within its model, without the seed."""
        share = [] if self.drop else [f"{self.sparsity:g}" if self.pattern == "unstructured" else str(self.pattern)]
        return " ".join([self.method, *share, *([] if self.repair == NONE else ["+", self.repair])])

    def name(self, seeds: Sequence[int]) -> str:
        """How tables call it, with the seed where there are several."""
        return f"{self.label} (seed {self.seed})" if len(seeds) > 1 and self.seeded else self.label

    @property
    def needs(self) -> frozenset[str]:
        """What must be observed on the dense model first: `tokens`, and what allocations need."""
        if self.drop is not None:
            return frozenset({"tokens"} if ranking_of(self.drop)[1].profiled else ())
        rule, score = self.rule
        needs: set[str] = set(ALLOCATIONS[rule].needs)
        if find_edit(score).statistic is not None or "outliers" in needs:
            needs.add("tokens")
        return frozenset(needs)

    @property
    def rule(self) -> tuple[str, str]:
        """Allocation and score of a method that prunes."""
        _, rule, score = resolve_method(*split_method(self.method))
        return rule, score

    @property
    def seeded(self) -> bool:
        """Whether anything in it is drawn."""
        if self.repair in WAYS or self.needs & {"tokens", "eavss"}:
            return True
        return self.drop is not None and (str(self.drop.by) == "random" or ranking_of(self.drop)[1].answers)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        drop = None if self.drop is None else {key: plain_path(value) for key, value in asdict(self.drop).items()}
        return {**asdict(self), "drop": drop}

    @property
    def hash(self) -> str:
        """Of what was asked for, whatever the model holds."""
        return hash_json(self.to_json())


def split_method(method: str) -> tuple[str, str | None]:
    """`tplo+sparsegpt` as method and score."""
    name, sign, score = method.partition("+")
    return name, score if sign else None


def canonical(method: str) -> str:
    """One name for what is the same: the papers' names, and a score that a method has anyway.

    **Raises:** `PlanError` for an unknown method or score.
    """
    given, score = split_method(method)
    name, _, used = resolve_method(given, score)
    find_edit(used)
    return name if used == resolve_method(name, None)[2] else f"{name}+{used}"


def plain_path(value: Any) -> Any:
    """A path as text."""
    return str(value) if isinstance(value, Path) else value


def drop_name(choice: DropOptions) -> str:
    """A drop in a few words, in which its options differ from each other's."""
    size = (
        f"{choice.count}" if choice.count is not None else f"{0.25 if choice.fraction is None else choice.fraction:g}"
    )
    by = Path(choice.by).name if str(choice.by).endswith(".json") else str(choice.by)
    parts = ["drop", choice.kind, size, "by", by]
    shown = {"what", "by", "fraction", "count"}
    plain = DropOptions()
    for field in fields(choice):
        value = getattr(choice, field.name)
        if field.name not in shown and value != getattr(plain, field.name):
            parts.append(field.name if value is True else str(value))
    return " ".join(parts)


def expand(grid: Grid) -> list[Config]:
    """All configurations, model by model; what is the same twice is there once.

    **Arguments:**

    - `grid`: what was checked by `check_grid`.
    """
    found: dict[Config, None] = {}
    for model in dict.fromkeys(grid.models):
        for method, pattern, sparsity, drop in _steps(grid):
            for repair in grid.repairs:
                for seed in grid.seeds:
                    config = Config(str(model), method, pattern, sparsity, repair, seed, drop)
                    if config.seeded or seed == grid.seeds[0]:
                        found[config] = None
    return list(found)


def _steps(grid: Grid) -> Iterator[tuple[str, str | None, float | None, DropOptions | None]]:
    for method in grid.methods:
        method = canonical(method)
        for pattern in grid.patterns:
            shape = Pattern.parse(pattern)
            if shape.structured:
                yield method, str(shape), shape.n / shape.m, None
                continue
            for sparsity in grid.sparsities:
                yield method, pattern, float(sparsity), None
    for choice in grid.drop:
        yield drop_name(choice), None, None, choice
