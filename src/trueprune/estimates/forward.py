"""What a forward costs: products of every matrix with every token, attention, what is read and written on the way.

Legend: N tokens, D residual width, I inner width of the MLP.
"""

from __future__ import annotations

from dataclasses import dataclass

from trueprune.estimates.reading import Reading
from trueprune.estimates.shape import BlockShape, Matrix, ModelShape
from trueprune.estimates.work import Number, Work

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Ours, by counting the operations of a usual block: numbers of width D that norms, positions and sums read and write
# for a token, and of width I for activation and gate; and how many operations a block starts.
AROUND, INSIDE, CALLS = 30, 5, 45
# Operations outside the blocks: masks, positions, hooks.
OUTSIDE = 150
# Logits are read and written so often as float32 on their way to log-probabilities.
LOGITS = 4


@dataclass(frozen=True)
class Forwards:
    """Forwards of one model in one dtype.

    **Arguments:**

    - `shape`: the model.
    - `dtype`: `float32`, `bfloat16` or `float16`.
    """

    shape: ModelShape
    dtype: str

    @property
    def size(self) -> int:
        """Bytes of a number."""
        return BYTES[self.dtype]

    @property
    def weights(self) -> int:
        """Bytes of all parameters."""
        return self.shape.parameters * self.size

    @property
    def largest_block(self) -> int:
        """Bytes of the parameters of the largest block."""
        return max(block.parameters for block in self.shape.blocks) * self.size

    @property
    def ends(self) -> int:
        """Bytes of what is outside the blocks: embeddings, head."""
        return self.weights - sum(block.parameters for block in self.shape.blocks) * self.size

    def block(self, block: BlockShape, reading: Reading, *, whole: bool = True) -> Work:
        """Tokens through a block.

        **Arguments:**

        - `block`: the block.
        - `reading`: what goes through it.
        - `whole`: whether the last matrix is multiplied: not where only inputs are observed, unless tokens part ways
            between experts.
        """
        matrices = list(block.matrices)
        if not whole and not block.has_experts:
            matrices = matrices[:-1]
        n, b = reading.tokens, self.size
        met = sum(m.numel * m.share for m in matrices) + block.other
        passed = sum(m.count * m.share * (m.rows + m.columns) for m in matrices)
        touched = reading.forwards * self._touched(matrices, block, reading.batch)
        return Work(
            flops=2 * n * met,
            packed=touched,
            attended=4 * reading.pairs * block.attention,
            bytes=reading.forwards * self._touched(matrices, block, reading.batch) * b + n * b * passed,
            plain=n * b * (AROUND * self.shape.width + INSIDE * inner_width(block)),
            calls=reading.forwards * (CALLS + sum(4 * m.count for m in matrices if m.count > 1)),
        )

    def stack(self, reading: Reading) -> Work:
        """Tokens through all blocks."""
        return sum((self.block(block, reading) for block in self.shape.blocks), Work(calls=OUTSIDE * reading.forwards))

    def logits(self, reading: Reading) -> Work:
        """The residual stream at some positions through the head, and on to log-probabilities."""
        vocabulary, head = self.shape.vocabulary, self.shape.head
        return Work(
            flops=2 * reading.positions * head,
            packed=reading.forwards * head,
            bytes=reading.forwards * head * self.size + reading.positions * vocabulary * self.size,
            plain=reading.positions * vocabulary * 4 * LOGITS,
            calls=10 * reading.forwards,
        )

    def whole(self, reading: Reading) -> Work:
        """Tokens through the model, logits at the positions of `reading`, and what of the cache is copied for it."""
        # Rows are chosen, and what is new is put behind: both read and write.
        return self.stack(reading) + self.logits(reading) + Work(plain=4 * self.cache(reading.copied))

    def decode(self, rows: Number, context: Number, steps: Number) -> Work:
        """Steps of one token a row, with all earlier ones in the cache.

        Each step reads all weights that it meets and the whole cache: it is bound by memory.

        **Arguments:**

        - `rows`: texts at once.
        - `context`: tokens of each in the cache, on average.
        - `steps`: how many.
        """
        reading = Reading(rows * steps, rows * steps * context, steps, rows * steps)
        cache = self.cache(rows * steps * context)
        # Looked at, and copied to a place where there is room for one more token.
        return self.whole(reading) + Work(bytes=cache, plain=2 * cache)

    def cache(self, tokens: Number) -> Number:
        """Bytes of the key-value cache of so many tokens."""
        return tokens * sum(block.cache for block in self.shape.blocks) * self.size

    def live(self, tokens: Number) -> Number:
        """Bytes of activations that are alive at once while so many tokens go through a block."""
        inner = max(inner_width(block) for block in self.shape.blocks)
        return tokens * self.size * (5 * self.shape.width + 3 * inner)

    def _touched(self, matrices: list[Matrix], block: BlockShape, batch: Number) -> Number:
        """Weights that a forward reads: of experts those that some token goes to."""
        return sum(m.numel * (1 - (1 - m.share) ** max(batch, 1.0)) for m in matrices) + block.other


def inner_width(block: BlockShape) -> Number:
    """The inner width of the MLP that a token meets."""
    back = [m for m in block.matrices if m.source.endswith("/back") and not m.source.startswith("attention")]
    return sum(m.columns * m.count * m.share for m in back) or max(m.rows for m in block.matrices)
