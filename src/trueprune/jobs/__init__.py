"""Jobs: what the command line and Python both call, one typed function each."""

from trueprune.jobs.audit import audit
from trueprune.jobs.common import LoadOptions, PruneResult
from trueprune.jobs.demo import demo
from trueprune.jobs.drop import drop
from trueprune.jobs.estimate import estimate
from trueprune.jobs.export import ExportResult, export
from trueprune.jobs.gating import GateOptions
from trueprune.jobs.hallucination import HallucinationOptions
from trueprune.jobs.layer_choice import DropOptions
from trueprune.jobs.prune import prune
from trueprune.jobs.repair import RepairResult, repair
from trueprune.jobs.report import report
from trueprune.jobs.scan import scan
from trueprune.jobs.study import StudyOptions, study_attention

__all__ = [
    "DropOptions",
    "ExportResult",
    "GateOptions",
    "HallucinationOptions",
    "LoadOptions",
    "PruneResult",
    "RepairResult",
    "StudyOptions",
    "audit",
    "demo",
    "drop",
    "estimate",
    "export",
    "prune",
    "repair",
    "report",
    "scan",
    "study_attention",
]
