"""What pruning costs: scores and thresholds of every matrix, or SparseGPT's factorisations and its column-wise solver.

Legend: N tokens, C input columns, R rows of all matrices with one input, K columns of a solver's block.
"""

from __future__ import annotations

from dataclasses import dataclass

from trueprune._support.errors import PlanError
from trueprune.edits.registry import find_edit
from trueprune.edits.rule import EditOptions
from trueprune.estimates.forward import Forwards
from trueprune.estimates.observing import (
    Calibration,
    column_norms,
    gram_bytes,
    grams,
    observe_outliers,
    observed,
    observing_memory,
    read_texts,
)
from trueprune.estimates.shape import Matrix
from trueprune.estimates.work import Number, Part, Step, Work
from trueprune.plans.plan import Pattern
from trueprune.plans.registry import ALLOCATIONS, resolve_method

# Bytes a weight that scores and masks take while a matrix is edited: float32 score and its copies, a mask.
SCORED = 17


@dataclass(frozen=True)
class PruneCost:
    """What a pruning run would do.

    **Arguments:**

    - `forwards`: the model.
    - `calibration`: its calibration texts.
    - `statements`: tokens of each statement that chooses densities (SWL, TPLO).
    - `answers`: tokens of each answer that EAVSS compares.
    - `pattern`: what each group of weights loses.
    - `edit`: constants of the edit.
    """

    forwards: Forwards
    calibration: Calibration
    statements: list[int]
    answers: list[int]
    pattern: Pattern
    edit: EditOptions

    def steps(self, method: str, score: str | None, sparsity: Number) -> list[Step]:
        """The steps between loading and saving.

        **Raises:** `PlanError` for an unknown method or score, or one that contradicts the other.
        """
        name, rule, score = resolve_method(method, score)
        find_edit(score)
        run = f"prune {name}" if score in (name, "wanda") else f"prune {name} ({score})"
        needs = ALLOCATIONS[rule].needs
        found: list[Step] = []
        if "separation" in needs:
            found.append(read_texts(run, "observe statements", self.forwards, self.statements))
        if "outliers" in needs:
            found.append(observe_outliers(run, self.forwards, self.calibration))
        if "eavss" in needs:
            found.append(read_texts(run, "observe answers", self.forwards, self.answers, kept=False))
        return [*found, self._edit(run, score, sparsity)]

    def _edit(self, run: str, score: str, sparsity: Number) -> Step:
        if sparsity == 0:
            raise PlanError("there is nothing to estimate at sparsity 0", "Give --sparsity a share above 0")
        if score == "magnitude":
            return self._by_magnitude(run)
        return self._by_activations(run, solved=score == "sparsegpt")

    def _by_magnitude(self, run: str) -> Step:
        size = self.forwards.size
        work = sum((self._masked(m, size) for b in self.forwards.shape.blocks for m in b.matrices), Work())
        return Step(run, "edit", (Part(work, passes=1),), working=SCORED * self._largest())

    def _by_activations(self, run: str, *, solved: bool) -> Step:
        forwards, reading = self.forwards, self.calibration.reading
        blocks, size = forwards.shape.blocks, forwards.size
        statistic = grams if solved else column_norms
        passing, editing, by_column = Work(), Work(), Work()
        for index, block in enumerate(blocks):
            passing += observed(forwards, index, self.calibration) + statistic(block, reading, size)
            if index < len(blocks) - 1:
                passing += forwards.block(block, reading)
            for group in block.inputs():
                if solved:
                    editing += self._solved(group)
                    by_column += self._columns(group)
                else:
                    editing += sum((self._masked(m, size) for m in group), Work())
        observing = observing_memory(forwards, self.calibration)
        if solved:
            sums = sum(map(gram_bytes, blocks))
            held = max(map(gram_bytes, blocks))
            working = held + max(observing, max(_solver_bytes(g) for b in blocks for g in b.inputs()))
        else:
            sums = sum(8 * g[0].columns * g[0].count for b in blocks for g in b.inputs())
            working = max(observing, SCORED * self._largest())
        return Step(
            run,
            "observe and edit",
            # A streamed block is changed, and goes back.
            (Part(passing, split=True, passes=1, sums=sums), Part(editing, passes=1), Part(by_column)),
            held=self.calibration.buffer(forwards),
            working=working,
            detail={"tokens": reading.tokens},
        )

    def _largest(self) -> int:
        return max(m.rows * m.columns for block in self.forwards.shape.blocks for m in block.matrices)

    def _masked(self, matrix: Matrix, size: int) -> Work:
        """Scores of a matrix, a threshold for each row (or the matrix), zeros."""
        numel = matrix.numel
        if self.pattern.structured:
            # All pairs of a group are compared; each comparison reads two scores and counts into two ranks.
            pairs = self.pattern.m * (self.pattern.m - 1) / 2
            return Work(plain=numel * (5 * size + 14 + 22 * pairs / self.pattern.m), calls=12 * pairs * matrix.count)
        return Work(plain=numel * (5 * size + 22), selected=numel, calls=14 * matrix.count)

    def _solved(self, group: list[Matrix]) -> Work:
        """SparseGPT on matrices with one input: factor, invert, factor again; then column by column.

        Cholesky takes C^3 / 3, the inverse from it 2 C^3 / 3. The columns after a block of K are updated once a block,
        R C^2 operations in all.
        """
        columns, count, size = group[0].columns, group[0].count, self.forwards.size
        rows = sum(matrix.rows for matrix in group)
        width = min(self.edit.block_size, columns)
        numel = rows * columns
        one = Work(
            factored=4 / 3 * columns**3,
            flops32=rows * columns**2,
            bytes=4 * rows * columns**2 / width,
            plain=24 * columns**2 + numel * (2 * size + 40),
            ordered=0 if self.pattern.structured else numel,
            calls=12 * columns / width,
        )
        return one * count

    def _columns(self, group: list[Matrix]) -> Work:
        """The updates of a block after each of its columns: as many bytes as operations, and four each."""
        columns, rows = group[0].columns, sum(matrix.rows for matrix in group)
        width = min(self.edit.block_size, columns)
        # Half of the block is left on average, read and written in float32.
        return Work(bytes=4 * rows * columns * width, calls=7 * columns) * group[0].count


def _solver_bytes(group: list[Matrix]) -> Number:
    """Bytes while a group is solved: Gram matrix, factor, inverse and factor; weights in float32, three times."""
    columns, rows = group[0].columns, sum(matrix.rows for matrix in group)
    return 4 * (4 * columns**2 + 3 * rows * columns)
