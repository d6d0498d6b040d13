"""Put an estimate together: steps, their time in each variant, what fits, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trueprune.estimates.device import Device
from trueprune.estimates.forward import Forwards
from trueprune.estimates.variants import PROJECTED, Fit, Variant, advice, fit_of
from trueprune.estimates.work import Number, Step, Work

# Ours: starting Python and importing what a command needs.
START_SECONDS = 5.0


@dataclass(frozen=True)
class Forecast:
    """What a run will cost.

    **Arguments:**

    - `forwards`: the model.
    - `device`: where it runs.
    - `steps`: what is done, in order.
    - `variants`: ways to do it; the first is what trueprune does.
    - `notes`: what was assumed or left out.
    """

    forwards: Forwards
    device: Device
    steps: Sequence[Step]
    variants: Sequence[Variant]
    notes: Sequence[str] = ()

    def seconds(self, variant: Variant, run: str | None = None) -> Number:
        """Seconds of all steps of a run, or of everything; each run is a command of its own."""
        steps = [step for step in self.steps if run in (None, step.run)]
        runs = len({step.run for step in steps})
        return runs * START_SECONDS + sum(variant.seconds(step, self.device, self.forwards) for step in steps)

    def fits(self) -> list[tuple[Variant, Fit]]:
        """Of each variant its peak memory and whether the device holds it."""
        return [(one, fit_of(one, self.steps, self.device, self.forwards)) for one in self.variants]

    def to_json(self) -> dict[str, Any]:
        """Everything as plain data."""
        fits = self.fits()
        runs = list(dict.fromkeys(step.run for step in self.steps))
        return {
            "schema": 1,
            "model": self._model(),
            "device": dict(vars(self.device)),
            "dtype": self.forwards.dtype,
            "steps": [self._step(step) for step in self.steps],
            "totals": {run: self._total(run) for run in runs},
            "variants": [self._variant(one, fit) for one, fit in fits],
            "advice": advice(fits, self.steps, self.device, self.forwards),
            "notes": [*self.forwards.shape.notes, *self.notes],
        }

    def _model(self) -> dict[str, Any]:
        shape = self.forwards.shape
        return {
            "name": shape.name,
            "blocks": len(shape.blocks),
            "width": shape.width,
            "vocabulary": shape.vocabulary,
            "parameters": shape.parameters,
            "prunable": shape.prunable,
            "active": shape.active,
            "bytes": self.forwards.weights,
        }

    def _step(self, step: Step) -> dict[str, Any]:
        return {
            "run": step.run,
            "name": step.name,
            **_numbers(step.work),
            "memory": self.variants[0].memory(step, self.forwards),
            "host_memory": step.host,
            "seconds": {one.name: one.seconds(step, self.device, self.forwards) for one in self.variants},
            "detail": step.detail,
        }

    def _total(self, run: str) -> dict[str, Any]:
        steps = [step for step in self.steps if step.run == run]
        return {
            **_numbers(sum((step.work for step in steps), Work())),
            "memory": max(self.variants[0].memory(step, self.forwards) for step in steps),
            "host_memory": max(step.host for step in steps),
            "seconds": {one.name: self.seconds(one, run) for one in self.variants},
        }

    def _variant(self, one: Variant, fit: Fit) -> dict[str, Any]:
        return {
            "name": one.name,
            "does": one.does,
            "note": "what trueprune does" if one.does else PROJECTED,
            "seconds": self.seconds(one),
            "memory": fit.bytes,
            "at": fit.step,
            "fits": fit.fits,
            "devices": fit.devices,
        }


def _numbers(work: Work) -> dict[str, Number]:
    return {"flops": work.all_flops, "bytes": work.all_bytes, **{f"work_{k}": v for k, v in vars(work).items() if v}}
