"""Reports: paired statistics, tables, plots, plain data."""

from trueprune.reports.audit import AuditedModel, AuditReport, compare
from trueprune.reports.paired import Estimate, estimate, paired_change

__all__ = ["AuditReport", "AuditedModel", "Estimate", "compare", "estimate", "paired_change"]
