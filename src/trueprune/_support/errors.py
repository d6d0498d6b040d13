"""The errors of trueprune: each names what is wrong, where it is, and what to do."""

from __future__ import annotations


class TruepruneError(Exception):
    """Base of every error that a user can mend; the command line prints it in one line and exits with code 2.

    **Arguments:**

    - `problem`: what is wrong, and where.
    - `remedy`: what to do about it.
    """

    def __init__(self, problem: str, remedy: str = ""):
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem}. {remedy}" if remedy else problem)


class ModelError(TruepruneError):
    """A checkpoint that is missing, damaged, or of an architecture that cannot be read by structure."""


class TextError(TruepruneError):
    """A corpus, statement file or data folder that is missing, empty, too short or lacks columns."""


class PlanError(TruepruneError):
    """A sparsity, pattern or plan that cannot be carried out."""


class AuditError(TruepruneError):
    """A measurement that is undefined on the given items, or two audits that cannot be paired."""


class OutputError(TruepruneError):
    """An output folder that exists, or a disk that is full."""


class RepairError(TruepruneError):
    """A repair of a pruned model that is undefined on the given items, or cannot be read back."""
