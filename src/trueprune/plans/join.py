"""Plans of a model that was changed in several steps: one plan that says them all, and in which order."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from trueprune._support.errors import PlanError
from trueprune.plans.plan import Plan

Step = Literal["drop", "prune"]
REPEATABLE = ((), ("drop",), ("prune",), ("drop", "prune"), ("prune", "drop"))


def joined(before: Plan | None, step: Step, plan: Plan) -> Plan:
    """The plan of a model after one more step.

    What is dropped is counted in the blocks of the whole model. Sparsities have one entry for each block that was there
    when weights were pruned.

    **Arguments:**

    - `before`: the plan of the model that the step started from, or `None`.
    - `step`: what was done.
    - `plan`: the step's own plan, counted in the blocks that the step found.
    """
    if before is None:
        return replace(plan, order=(step,))
    order = before.order or (("prune",) if before.blocks else ())
    # Two drops in a row are one drop of both.
    order = order if order[-1:] == ("drop",) == (step,) else (*order, step)
    if step == "prune":
        return replace(plan, drop=before.drop, order=order, source_sha256=before.source_sha256)
    assert plan.drop is not None
    return replace(
        before,
        drop=plan.drop.after(before.drop),
        order=order,
        evidence={**before.evidence, **plan.evidence},
        notes=(*before.notes, *plan.notes),
    )


def steps_of(plan: Plan) -> tuple[str, ...]:
    """The order in which a plan is carried out on a whole model.

    **Raises:** `PlanError` if it was made in steps that cannot be told from the plan alone.
    """
    if plan.order not in REPEATABLE:
        raise PlanError(
            f"the plan was made in {len(plan.order)} steps ({', '.join(plan.order)})",
            "Carry out the plans of its history one after the other",
        )
    present = tuple(step for step, there in (("drop", plan.drop is not None), ("prune", bool(plan.blocks))) if there)
    if plan.order and set(plan.order) != set(present):
        raise PlanError(
            f"the plan's order is {', '.join(plan.order)}, and it says what to {' and '.join(present) or 'do nothing'}",
            "Mend its order, or take it out",
        )
    return plan.order or present
