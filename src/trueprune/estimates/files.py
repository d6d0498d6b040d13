"""What it costs to have a model and to keep it: loading, checking, hashing, saving, loading again."""

from __future__ import annotations

from trueprune.estimates.device import Device
from trueprune.estimates.forward import Forwards
from trueprune.estimates.reading import Reading
from trueprune.estimates.work import Number, Part, Step, Work

# Two sequences of twelve tokens tell whether a saved model still gives the same logits.
PROBE = Reading(24, 2 * 12**2, 1, 24)


def load(run: str, forwards: Forwards, device: Device, models: int = 1) -> Step:
    """Read the weights, and bring them to the device."""
    moved = forwards.weights if device.ahead else 0.0
    work = Work(read=forwards.weights, plain=forwards.weights + moved) * models
    return Step(run, "load", (Part(work),), detail={"models": models})


def check(run: str, forwards: Forwards, *, saved: bool, checked: bool = True) -> Step:
    """Look for NaN in every prunable matrix, hash all weights, count zeros.

    **Arguments:**

    - `run`: what it belongs to.
    - `forwards`: the model.
    - `saved`: whether the result is saved, and so its source is hashed.
    - `checked`: whether matrices are searched for NaN, once before anything is observed and once before the edit.
    """
    shape, size = forwards.shape, forwards.size
    # Ours: what torch.isfinite reads and writes for a number.
    searched = 2 * 10 * size if checked else 0
    return Step(
        run,
        "check, hash, count",
        (
            Part(
                Work(
                    plain=shape.prunable * (searched + size + 1),
                    hashed=forwards.weights if saved else 0,
                    calls=12 * sum(m.count for b in shape.blocks for m in b.matrices),
                )
            ),
        ),
        working=3 * max(m.rows * m.columns for b in shape.blocks for m in b.matrices),
    )


def save(run: str, forwards: Forwards, left: Number = 1.0) -> Step:
    """Write the weights, read them again, compare logits.

    **Arguments:**

    - `run`: what it belongs to.
    - `forwards`: the model.
    - `left`: the share of its weights that is left.
    """
    written = forwards.weights * left
    work = Work(read=written, written=written, plain=2 * written) + forwards.whole(PROBE) * (2 * left)
    return Step(run, "save, load again, compare", (Part(work, passes=2),), working=forwards.live(PROBE.tokens))
