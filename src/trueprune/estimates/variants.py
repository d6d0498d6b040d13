"""Ways to run the same steps: all weights on the device, streamed block by block, shared out over workers.

Only the first is what trueprune does. The others are what its statistics would allow: they are sums that add up over
workers (`observe.statistics`), and the engine asks for a block only when its turn comes (`observe.engine`); but models
are loaded whole, and no job starts workers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trueprune._support.errors import PlanError
from trueprune.estimates.device import Device
from trueprune.estimates.forward import Forwards
from trueprune.estimates.work import Number, Part, Step

PROJECTED = "projected: not something trueprune does yet"
# Ours: of the device's memory so much is for runs; the rest is the system's, the allocator's and the libraries'.
USABLE = 0.92


@dataclass(frozen=True)
class Variant:
    """A way to run.

    **Arguments:**

    - `name`: `resident`, `streamed`, `4 workers`, `streamed, 4 workers`.
    - `streamed`: whether weights come block by block, from the host to an accelerator, from files to a CPU.
    - `workers`: devices that each have the model, and share the texts out.
    - `does`: whether trueprune does this.
    """

    name: str
    streamed: bool = False
    workers: int = 1

    @property
    def does(self) -> bool:
        """Whether trueprune does this today."""
        return not self.streamed and self.workers == 1

    def seconds(self, step: Step, device: Device, forwards: Forwards) -> Number:
        """How long a step takes."""
        return sum(self._part(part, device, forwards) for part in step.parts)

    def _part(self, part: Part, device: Device, forwards: Forwards) -> Number:
        share = self.workers if part.split else 1
        found = part.work.seconds(device) / share
        if self.streamed and part.passes:
            weights = forwards.weights if part.head else forwards.weights - forwards.ends
            # While a block is worked on, the next one comes. Batches are dealt out, and so are their passes; the one
            # pass of a calibration is everybody's.
            passes = part.passes / share if part.passes > 1 else part.passes
            found = max(found, passes * weights / device.link)
        if part.split and self.workers > 1:
            # Everybody gets everybody's sums, around a ring.
            found += 2 * part.sums * (1 - 1 / self.workers) / device.link
        return found

    def memory(self, step: Step, forwards: Forwards) -> Number:
        """Bytes that a step takes on a device at most."""
        weights = forwards.weights * step.copies
        if self.streamed and step.parts:
            # The block whose turn it is and the one that comes; embeddings and head lie still.
            weights = forwards.ends + 2 * forwards.largest_block
        return weights + step.held / self.workers + step.working


def variants_of(workers: int, streamed: bool) -> list[Variant]:
    """What today's run is compared with.

    **Raises:** `PlanError` for less than one worker.
    """
    if workers < 1:
        raise PlanError(f"--workers {workers} is below 1", "Use 1 or more")
    found = [Variant("resident")]
    if streamed:
        found.append(Variant("streamed", streamed=True))
    if workers > 1:
        found.append(Variant(f"{workers} workers", workers=workers))
    if streamed and workers > 1:
        found.append(Variant(f"streamed, {workers} workers", streamed=True, workers=workers))
    return found


@dataclass(frozen=True)
class Fit:
    """Whether a run fits.

    **Arguments:**

    - `bytes`: its peak on a device.
    - `step`: at which step.
    - `fits`: whether the device holds as much.
    - `devices`: over how many devices of the kind its blocks would have to be spread.
    """

    bytes: Number
    step: str
    fits: bool
    devices: int


def fit_of(variant: Variant, steps: Sequence[Step], device: Device, forwards: Forwards) -> Fit:
    """The peak of all steps and whether the device holds it."""
    peaks = [(variant.memory(step, forwards) + (0 if device.ahead else step.host), step) for step in steps]
    most, step = max(peaks, key=lambda peak: peak[0])
    room = device.memory * USABLE
    alone = variant.memory(step, forwards) - forwards.weights * step.copies
    # Blocks are dealt out whole, and what comes and goes is needed wherever a block's turn is.
    left = max(room - alone, 0.0)
    devices = math.ceil(forwards.weights * step.copies / left) if left > forwards.largest_block else 0
    return Fit(most, f"{step.run}: {step.name}", most <= room, devices)


def advice(fits: Sequence[tuple[Variant, Fit]], steps: Sequence[Step], device: Device, forwards: Forwards) -> list[str]:
    """What to do where today's run does not fit."""
    today = fits[0][1]
    if today.fits:
        return []
    found = [
        f"{today.bytes / 1e9:,.1f} GB at {today.step} do not fit into {device.memory * USABLE / 1e9:,.1f} GB "
        f"({USABLE:.0%} of {device.name})"
    ]
    worst = max(steps, key=lambda step: fits[0][0].memory(step, forwards))
    if device.ahead and today.devices > 1:
        found.append(
            f"spread the blocks over {today.devices} such devices of one machine with --device-map auto: trueprune does"
            " that today; they work one after the other, so that the time stays the same"
        )
    if worst.held > 0.1 * today.bytes:
        found.append("fewer or shorter calibration texts (--nsamples, --seqlen) take less room between the blocks")
    if worst.working > 0.1 * today.bytes:
        found.append(
            "lower --batch-tokens, or --window of the perplexity; SparseGPT's solver needs its room whatever the batch"
        )
    if worst.copies > 1:
        found.append("leave efficiency out: it holds the dense model beside the pruned one")
    if forwards.size == 4:
        found.append("--dtype bfloat16 halves the weights")
    return found
