"""Jobs: what the command line and Python both call, one typed function each."""

from trueprune.jobs.audit import audit
from trueprune.jobs.common import LoadOptions
from trueprune.jobs.demo import demo
from trueprune.jobs.prune import PruneResult, prune
from trueprune.jobs.scan import scan

__all__ = ["LoadOptions", "PruneResult", "audit", "demo", "prune", "scan"]
