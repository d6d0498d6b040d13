"""Plans: pure functions from evidence to how sparse each block gets."""

from trueprune.plans.evidence import AllocationOptions, Evidence
from trueprune.plans.make import make_plan, nm_zeros
from trueprune.plans.owl import owl_keep
from trueprune.plans.plan import BlockPlan, Pattern, Plan, read_plan
from trueprune.plans.project import project_keep
from trueprune.plans.registry import ALLOCATIONS, METHODS, resolve_method
from trueprune.plans.swl import swl_keep
from trueprune.plans.tplo import auto_pivot, tplo_keep

__all__ = [
    "ALLOCATIONS",
    "METHODS",
    "AllocationOptions",
    "BlockPlan",
    "Evidence",
    "Pattern",
    "Plan",
    "auto_pivot",
    "make_plan",
    "nm_zeros",
    "owl_keep",
    "project_keep",
    "read_plan",
    "resolve_method",
    "swl_keep",
    "tplo_keep",
]
