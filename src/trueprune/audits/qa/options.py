"""How answers in words are had and judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from trueprune._support.errors import AuditError

Grade = Literal["contains", "exact"]
Judge = Callable[[str, str], float]


@dataclass(frozen=True)
class TruthOptions:
    """How answers in words are had and judged.

    **Arguments:**

    - `grade`: what makes a short answer right: `contains` (an accepted answer stands in it as whole words) or `exact`
        (it is one, but for case, punctuation and articles).
    - `new_tokens`: at most so many tokens an answer; it ends before that at the end of its line.
    - `judge`: for `truthful-generation`, as `module:function` (in Python the function itself will do), what is called
        with a question and the model's answer and gives the probability, or yes or no, that the answer is true.
    """

    grade: Grade = "contains"
    new_tokens: int = 32
    judge: Any = None

    def __post_init__(self):
        if self.grade not in ("contains", "exact"):
            raise AuditError(f"--grade {self.grade} is unknown", "Use contains or exact")
        if self.new_tokens < 1:
            raise AuditError(f"--new-tokens {self.new_tokens} is below 1", "Use 1 or more")
        named = isinstance(self.judge, str) and all(self.judge.partition(":"))
        if not (self.judge is None or named or callable(self.judge)):
            raise AuditError(f"--judge {self.judge} names no function", "Give it as module:function")

    def plain(self) -> TruthOptions:
        """The same with the name of a judge that was given as a function, for what is written down."""
        judge = self.judge
        if judge is None or isinstance(judge, str):
            return self
        named = judge if hasattr(judge, "__qualname__") else type(judge)
        return replace(self, judge=f"{named.__module__}:{named.__qualname__}")
