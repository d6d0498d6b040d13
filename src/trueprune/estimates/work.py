"""What a step does, as numbers that add up, and how long a device takes for them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trueprune.estimates.device import Device

# Counts are whole numbers until shares and means come in.
Number = int | float


@dataclass(frozen=True)
class Work:
    """Work, of whatever is done.

    **Arguments:**

    - `flops`: floating-point operations of matrix products in the model's dtype, two a multiplication and addition.
    - `attended`: the same of attention: scores, and their product with the values.
    - `flops32`: the same in float32 (Gram matrices, the solver of SparseGPT).
    - `factored`: the same of factorisations in float32 (Cholesky, and the inverse from it), which are slower.
    - `flops64`: the same in float64 on the host (probes, resamples).
    - `packed`: weights that products lay out anew before they use them, as they do on a CPU, whatever the batch.
    - `bytes`: moved between the device's memory and its processors for products: weights, inputs, outputs.
    - `plain`: the same for operations that hardly compute and make a new tensor (norms, sums, scores, masks).
    - `host`: bytes moved in the memory of the host.
    - `selected`: numbers among which the threshold of each row is sought.
    - `ordered`: numbers among which one threshold for a whole block of columns is sought.
    - `hashed`: bytes that go through SHA-256, on the host.
    - `read`, `written`: bytes of files.
    - `calls`: operations that are started one after the other.
    """

    flops: Number = 0.0
    attended: Number = 0.0
    flops32: Number = 0.0
    factored: Number = 0.0
    flops64: Number = 0.0
    packed: Number = 0.0
    bytes: Number = 0.0
    plain: Number = 0.0
    host: Number = 0.0
    selected: Number = 0.0
    ordered: Number = 0.0
    hashed: Number = 0.0
    read: Number = 0.0
    written: Number = 0.0
    calls: Number = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __mul__(self, times: Number) -> Work:
        return Work(*(getattr(self, f.name) * times for f in fields(self)))

    __rmul__ = __mul__

    @property
    def all_flops(self) -> Number:
        """Floating-point operations of every kind."""
        return self.flops + self.attended + self.flops32 + self.factored + self.flops64

    @property
    def all_bytes(self) -> Number:
        """Bytes moved in memory and to and from files."""
        return self.bytes + self.plain + self.host + self.read + self.written

    def seconds(self, device: Device) -> Number:
        """How long it takes: the roofline `max(FLOPs / FLOPS, bytes / bandwidth)` of the products, the same of what
        hardly computes, and beside them what overlaps with nothing.

        On an accelerator operations are started while others run.
        """
        products = self.flops / device.rate + self.attended / device.attention + self.flops32 / device.rate32
        products += self.packed * device.pack
        roof = max(products, self.bytes / device.moved) + self.plain / device.made
        started = self.calls * device.call
        roof = max(roof, started) if device.ahead else roof + started
        alone = self.selected / device.select + self.ordered / device.order + self.hashed / device.hash
        alone += self.factored / device.factor
        alone += max(self.flops64 / device.host64, self.host / device.host_moved)
        return roof + alone + self.read / device.read + self.written / device.write


@dataclass(frozen=True)
class Part:
    """A part of a step that is done in one way.

    **Arguments:**

    - `work`: what is done.
    - `split`: whether workers can share it out: what they find are sums, or items of their own.
    - `passes`: how often all blocks go by while it is done: a streamed model moves its weights so often.
    - `sums`: bytes that workers add up between them afterwards.
    - `head`: whether embeddings and head go by in each pass, too.
    """

    work: Work
    split: bool = False
    passes: Number = 0.0
    sums: Number = 0.0
    head: bool = False


@dataclass(frozen=True)
class Step:
    """A step of a run.

    **Arguments:**

    - `run`: what it belongs to: `prune wanda`, `audit`.
    - `name`: what it is.
    - `parts`: what is done, one after the other.
    - `held`: bytes that stay during the whole step beside the weights, and that workers share out (activations of the
        calibration texts).
    - `working`: bytes that come and go.
    - `host`: bytes in the memory of the host that are not on the device (activations of statements).
    - `copies`: how often the weights are in memory.
    - `detail`: items and tokens, for whoever wants to check.
    """

    run: str
    name: str
    parts: tuple[Part, ...]
    held: Number = 0.0
    working: Number = 0.0
    host: Number = 0.0
    copies: Number = 1.0
    detail: dict[str, Number] = field(default_factory=dict)

    @property
    def work(self) -> Work:
        """All of its work."""
        return sum((part.work for part in self.parts), Work())
