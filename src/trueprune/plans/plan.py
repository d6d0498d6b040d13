"""A plan: what is taken away whole, and how sparse each block gets. Plain data, saved beside the checkpoint, editable,
accepted back."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trueprune._support.errors import PlanError
from trueprune.plans.drop import Drop

SCHEMA = 2


@dataclass(frozen=True)
class Pattern:
    """Where zeros may lie: anywhere (`n = m = 0`), or exactly `n` zeros in each group of `m` consecutive inputs."""

    n: int = 0
    m: int = 0

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Read `"unstructured"` or `"n:m"` (`"2:4"` zeroes 2 of 4).

        **Raises:** `PlanError`.
        """
        if text == "unstructured":
            return cls()
        match = re.fullmatch(r"(\d+):(\d+)", text)
        if not match or not 0 < int(match[1]) < int(match[2]):
            raise PlanError(f"unknown pattern {text!r}", "Use 'unstructured', or n:m with 0 < n < m, e.g. 2:4")
        return cls(int(match[1]), int(match[2]))

    @property
    def structured(self) -> bool:
        """Whether the pattern is n:m."""
        return self.m > 0

    def __str__(self) -> str:
        return f"{self.n}:{self.m}" if self.structured else "unstructured"


@dataclass(frozen=True)
class BlockPlan:
    """What one block loses.

    **Arguments:**

    - `sparsity`: share of its weights that become zero; under n:m it is n/m.
    - `matrices`: exceptions by matrix name, e.g. `{"self_attn.q_proj": 0.3}`.
    """

    sparsity: float
    matrices: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What a model loses: layers taken away whole, and zeros in the weights of what is left.

    **Arguments:**

    - `method`: the allocation, `"uniform"`, `"owl"`, `"swl"`, `"tplo"`, `"eavss"`, or `"file"`.
    - `sparsity`: the target over all prunable weights.
    - `blocks`: one entry a block of the model whose weights are pruned; none if no weight is.
    - `pattern`: see `Pattern`.
    - `score`: which weights go (`"magnitude"`, `"wanda"`, `"sparsegpt"`); may be empty in a user's file.
    - `options`: the constants of the allocation.
    - `evidence`: what the allocation was computed from, per block.
    - `notes`: sentences that a user should read.
    - `drop`: what is taken away whole, or `None`.
    - `order`: which came first where there are both, e.g. `("drop", "prune")`.
    - `source_sha256`: hash of the weights that the plan was made for; empty for a plan that fits any model.
    """

    method: str
    sparsity: float
    blocks: tuple[BlockPlan, ...] = ()
    pattern: Pattern = field(default_factory=Pattern)
    score: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    drop: Drop | None = None
    order: tuple[str, ...] = ()
    source_sha256: str = ""

    def __post_init__(self):
        for index, block in enumerate(self.blocks):
            for where, value in {"": block.sparsity, **block.matrices}.items():
                if not 0 <= value < 1:
                    name = f"blocks[{index}]" + (f" {where}" if where else "")
                    raise PlanError(f"the sparsity of {name} is {value}, outside [0, 1)", "Mend the plan")
                if self.pattern.structured and abs(value * self.pattern.m - round(value * self.pattern.m)) > 1e-6:
                    raise PlanError(
                        f"the sparsity {value} of block {index} is no n:{self.pattern.m}",
                        f"Use a multiple of 1/{self.pattern.m}",
                    )

    @property
    def keep(self) -> list[float]:
        """Density (1 - sparsity) of each block."""
        return [1 - block.sparsity for block in self.blocks]

    def to_json(self) -> dict[str, Any]:
        """Plain data, read back by `from_json`."""
        return {
            "schema": SCHEMA,
            **asdict(self),
            "pattern": str(self.pattern),
            "notes": list(self.notes),
            "drop": None if self.drop is None else self.drop.to_json(),
            "order": list(self.order),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """Read a plan. A user's file needs `blocks` (numbers, or objects with `sparsity` and `matrices`) or `drop`.

        **Raises:** `PlanError`.
        """
        try:
            blocks = tuple(
                BlockPlan(float(block["sparsity"]), {k: float(v) for k, v in (block.get("matrices") or {}).items()})
                if isinstance(block, Mapping)
                else BlockPlan(float(block))
                for block in (data["blocks"] if "drop" not in data else data.get("blocks") or ())
            )
            drop = Drop.from_json(data["drop"]) if data.get("drop") else None
            pattern = Pattern.parse(str(data.get("pattern", "unstructured")))
            mean = sum(block.sparsity for block in blocks) / max(len(blocks), 1)
            return cls(
                method=str(data.get("method", "file")),
                sparsity=float(data.get("sparsity", mean)),
                blocks=blocks,
                pattern=pattern,
                score=str(data.get("score", "")),
                options=dict(data.get("options") or {}),
                evidence=dict(data.get("evidence") or {}),
                notes=tuple(data.get("notes") or ()),
                drop=drop,
                order=tuple(data.get("order") or ()),
                source_sha256=str(data.get("source_sha256") or ""),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PlanError(
                f"the plan cannot be read ({type(error).__name__}: {error})",
                'Write {"blocks": [0.5, {"sparsity": 0.4, "matrices": {"mlp.down_proj": 0.3}}, ...]}',
            ) from error


def read_plan(path: str | Path) -> Plan:
    """Read a plan file, or the plan inside a checkpoint's `trueprune.json`.

    **Raises:** `PlanError`.
    """
    return Plan.from_json(plan_in(path, "plan file", "See docs/methods.md for the format of a plan"))


def plan_in(path: str | Path, what: str, remedy: str) -> dict[str, Any]:
    """The JSON object of a plan file, or the plan inside a checkpoint's `trueprune.json`.

    **Arguments:**

    - `path`: the file.
    - `what`: what it is, for errors.
    - `remedy`: what to do when it cannot be read.

    **Raises:** `PlanError`.
    """
    file = Path(path)
    if not file.is_file():
        raise PlanError(f"no {what} at {file}", "Check the path")
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PlanError(f"{file} is not JSON ({error})", remedy) from error
    if not isinstance(data, dict):
        raise PlanError(f"{file} holds no JSON object", remedy)
    plan = data.get("plan") or data
    if not isinstance(plan, dict):
        raise PlanError(f"the plan in {file} is no JSON object", remedy)
    return plan


def check_made_for(plan: Plan, model_hash: str) -> None:
    """Refuse a plan that was made for other weights.

    **Raises:** `PlanError`.
    """
    if plan.source_sha256 and plan.source_sha256 != model_hash:
        raise PlanError(
            f"the plan was made for a model with other weights (hash {plan.source_sha256[:12]}, not {model_hash[:12]})",
            "Use a plan made for this model, with the --dtype of then, or take source_sha256 out of the plan",
        )
