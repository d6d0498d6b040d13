"""Plans: pure functions from evidence to what is dropped and how sparse each block gets."""

from trueprune.plans.avss import AvssOptions, avss
from trueprune.plans.drop import Drop
from trueprune.plans.eavss import EavssOptions, EavssResult, eavss_of, prone_layers
from trueprune.plans.evidence import AllocationOptions, Evidence
from trueprune.plans.make import make_plan, nm_zeros
from trueprune.plans.owl import owl_keep
from trueprune.plans.plan import BlockPlan, Pattern, Plan, read_plan
from trueprune.plans.project import project_keep
from trueprune.plans.rankings import RANKINGS, LayerEvidence, Ranking
from trueprune.plans.registry import ALLOCATIONS, METHODS, resolve_method
from trueprune.plans.swl import swl_keep
from trueprune.plans.tplo import auto_pivot, tplo_keep

__all__ = [
    "ALLOCATIONS",
    "METHODS",
    "RANKINGS",
    "AllocationOptions",
    "AvssOptions",
    "BlockPlan",
    "Drop",
    "EavssOptions",
    "EavssResult",
    "Evidence",
    "LayerEvidence",
    "Pattern",
    "Plan",
    "Ranking",
    "auto_pivot",
    "avss",
    "eavss_of",
    "make_plan",
    "nm_zeros",
    "owl_keep",
    "project_keep",
    "prone_layers",
    "read_plan",
    "resolve_method",
    "swl_keep",
    "tplo_keep",
]
