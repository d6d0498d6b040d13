"""The allocations by name: each says what evidence it needs and which densities it wants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from trueprune._support.errors import PlanError
from trueprune.plans.eavss import want_eavss
from trueprune.plans.evidence import AllocationOptions, Evidence, Wanted
from trueprune.plans.owl import want_owl
from trueprune.plans.swl import want_swl
from trueprune.plans.tplo import want_tplo
from trueprune.plans.uniform import want_uniform

Need = Literal["outliers", "separation", "eavss"]


@dataclass(frozen=True)
class Allocation:
    """A rule for how sparse each block gets.

    **Arguments:**

    - `want`: `(evidence, sparsity, options) -> Wanted`.
    - `needs`: what must be observed on the dense model first.
    """

    want: Callable[[Evidence, float, AllocationOptions], Wanted]
    needs: tuple[Need, ...] = ()


ALLOCATIONS: dict[str, Allocation] = {
    "uniform": Allocation(want_uniform),
    "owl": Allocation(want_owl, ("outliers",)),
    "swl": Allocation(want_swl, ("separation",)),
    "tplo": Allocation(want_tplo, ("outliers", "separation")),
    "eavss": Allocation(want_eavss, ("eavss",)),
}

# What each method of the command line means: (allocation, score). The papers' names lead to the same methods.
METHODS: dict[str, tuple[str, str]] = {
    "magnitude": ("uniform", "magnitude"),
    "wanda": ("uniform", "wanda"),
    "sparsegpt": ("uniform", "sparsegpt"),
    "owl": ("owl", "wanda"),
    "swl": ("swl", "wanda"),
    "tplo": ("tplo", "wanda"),
    "eavss": ("eavss", "wanda"),
}
PAPER_NAMES = {"wanda_option1": "swl", "owl_option2": "tplo"}


def resolve_method(method: str, score: str | None) -> tuple[str, str, str]:
    """The canonical method name, its allocation and its score.

    **Raises:** `PlanError` for an unknown method, or a score that contradicts a method that is itself a score.
    """
    name = PAPER_NAMES.get(method, method)
    if name not in METHODS:
        raise PlanError(f"unknown method {method!r}", f"Use one of {', '.join([*METHODS, *PAPER_NAMES])}")
    allocation, default = METHODS[name]
    if score is not None and allocation == "uniform" and score != default:
        raise PlanError(f"--method {name} and --score {score} contradict each other", f"Use --method {score}")
    return name, allocation, score or default
