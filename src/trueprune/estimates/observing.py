"""What observing costs: calibration texts through the blocks one after the other, statements through all of them.

Legend: N tokens, C input columns, R rows of all matrices with one input, K columns of a solver's block.
"""

from __future__ import annotations

from dataclasses import dataclass

from trueprune.estimates.forward import Forwards, inner_width
from trueprune.estimates.reading import Reading, sequences, texts
from trueprune.estimates.shape import BlockShape, Matrix
from trueprune.estimates.work import Number, Part, Step, Work

# Statements go through in batches of so many tokens, whatever the device (`observe.last_token_activations`).
STATEMENT_TOKENS = 1024
# Ours, by counting the operations of the layer profile: float32 numbers of width D and of the MLP's inner width that
# are read and written for a token in a block.
PROFILE_D, PROFILE_INNER = 90, 8


@dataclass(frozen=True)
class Calibration:
    """Calibration texts as the engine cuts them.

    **Arguments:**

    - `sequences`, `length`: how many, and tokens of each.
    - `batch_tokens`: tokens that go through a block in one call.
    """

    sequences: int
    length: int
    batch_tokens: int

    @property
    def reading(self) -> Reading:
        """All of them, once."""
        return sequences(self.sequences, self.length, self.batch_tokens)

    @property
    def batch(self) -> int:
        """Tokens of a micro-batch."""
        return min(self.sequences, max(1, self.batch_tokens // self.length)) * self.length

    def buffer(self, forwards: Forwards) -> Number:
        """Bytes of the residual stream of all tokens, which is kept from block to block."""
        return self.sequences * self.length * forwards.shape.width * forwards.size


def observed(forwards: Forwards, index: int, calibration: Calibration) -> Work:
    """Tokens through a block as far as its last input.

    Which that is, the first micro-batch of the first block of its kind tells: that runs to its end.
    """
    block = forwards.shape.blocks[index]
    reading = calibration.reading
    if index and _kind(block) == _kind(forwards.shape.blocks[index - 1]):
        return forwards.block(block, reading, whole=False)
    first = reading * (1 / reading.forwards)
    return forwards.block(block, first) + forwards.block(block, reading * (1 - 1 / reading.forwards), whole=False)


def _kind(block: BlockShape) -> tuple[str, ...]:
    return tuple(matrix.name for matrix in block.matrices)


def column_norms(block: BlockShape, reading: Reading, size: int) -> Work:
    """Squared norms of the columns of each distinct input (Wanda, OWL)."""
    columns = sum(group[0].columns * group[0].count * group[0].share for group in block.inputs())
    # To float32 where it is not, squared into a new tensor, summed in float64.
    moved = 20 + (0 if size == 4 else size + 4)
    return Work(
        plain=reading.tokens * columns * moved,
        calls=6 * reading.forwards * sum(group[0].count for group in block.inputs()),
    )


def grams(block: BlockShape, reading: Reading, size: int) -> Work:
    """Gram matrix of each distinct input, in float32 (SparseGPT): two N C^2 operations."""
    found = Work()
    for group in block.inputs():
        one = group[0]
        tokens = reading.tokens * one.share
        found += (
            Work(
                flops32=2 * tokens * one.columns**2,
                bytes=tokens * one.columns * (size + 8) + 8 * one.columns**2 * reading.forwards,
                calls=4 * reading.forwards,
            )
            * one.count
        )
    return found


def gram_bytes(block: BlockShape) -> Number:
    """Bytes of the Gram matrices of a block, which are held together."""
    return sum(4 * group[0].columns ** 2 * group[0].count for group in block.inputs())


def outlier_count(matrices: tuple[Matrix, ...], size: int) -> Work:
    """Two passes over the scores of a block: their mean, and how many exceed it M times."""
    numel = sum(matrix.numel for matrix in matrices)
    count = sum(matrix.count for matrix in matrices)
    return Work(plain=numel * (5 * size + 25), calls=12 * count)


def profile(block: BlockShape, forwards: Forwards, reading: Reading) -> Work:
    """What the layer profile takes of what goes through a block: moments at five places, how far the stream turns."""
    numbers = PROFILE_D * forwards.shape.width + PROFILE_INNER * inner_width(block)
    return Work(plain=reading.tokens * 4 * numbers, calls=120 * reading.forwards)


def observing_memory(forwards: Forwards, calibration: Calibration) -> Number:
    """Bytes that come and go while inputs are observed: activations, distinct inputs kept alive, float32 copies."""
    shape, size, batch = forwards.shape, forwards.size, calibration.batch
    kept = max(sum(g[0].columns * g[0].share * g[0].count for g in block.inputs()) for block in shape.blocks)
    widest = max(m.columns * m.share * m.count for block in shape.blocks for m in block.matrices)
    copies = widest * (4 if size == 4 else 8)
    return max(forwards.live(batch), batch * (size * (kept + 2 * shape.width) + copies))


def observe_outliers(run: str, forwards: Forwards, calibration: Calibration, *, profiled: bool = False) -> Step:
    """One dense pass for OWL's outliers, and with `profiled` the layer profile in the same pass (`scan`)."""
    reading, blocks = calibration.reading, forwards.shape.blocks
    passing, weights = Work(), Work()
    for index, block in enumerate(blocks):
        last = not profiled and index == len(blocks) - 1
        through = observed(forwards, index, calibration) if last else forwards.block(block, reading)
        passing += through + column_norms(block, reading, forwards.size)
        weights += outlier_count(block.matrices, forwards.size)
        if profiled:
            passing += profile(block, forwards, reading)
    columns = sum(group[0].columns * group[0].count for block in blocks for group in block.inputs())
    working = observing_memory(forwards, calibration)
    if profiled:
        working += 24 * calibration.batch * forwards.shape.width
    largest = max(matrix.rows * matrix.columns for block in blocks for matrix in block.matrices)
    return Step(
        run,
        "observe blocks" if profiled else "observe outliers",
        (Part(passing, split=True, passes=1, sums=8 * columns), Part(weights)),
        held=calibration.buffer(forwards),
        working=max(working, 13 * largest),
        detail={"tokens": reading.tokens},
    )


def observe_layers(run: str, forwards: Forwards, calibration: Calibration, rounds: int) -> Step:
    """Dense passes for the layer profile alone, as `drop` takes it: once, or once a round."""
    reading = calibration.reading
    work = sum((forwards.block(b, reading) + profile(b, forwards, reading) for b in forwards.shape.blocks), Work())
    return Step(
        run,
        "observe layers",
        (Part(work * rounds, split=True, passes=rounds),),
        held=calibration.buffer(forwards),
        working=forwards.live(calibration.batch) + 24 * calibration.batch * forwards.shape.width,
        detail={"tokens": reading.tokens * rounds},
    )


def read_texts(run: str, name: str, forwards: Forwards, lengths: list[int], *, kept: bool = True) -> Step:
    """Texts through all blocks, without logits.

    **Arguments:**

    - `run`, `name`: of the step.
    - `forwards`: the model.
    - `lengths`: tokens of each text.
    - `kept`: whether the stream at their last tokens is kept (statements), and not a few numbers each (answers).
    """
    reading = texts(lengths, STATEMENT_TOKENS)
    shape = forwards.shape
    held = len(lengths) * len(shape.blocks) * shape.width * 4 if kept else 0
    return Step(
        run,
        name,
        (Part(forwards.stack(reading), split=True, passes=reading.forwards), separation(held)),
        working=forwards.live(STATEMENT_TOKENS),
        host=held,
        detail={"texts": len(lengths), "tokens": reading.tokens},
    )


def separation(held: Number) -> Part:
    """Variances inside and between the classes, of activations of so many bytes: some passes on the host."""
    return Part(Work(host=held * 6))
