"""The training loop: resumable, stopped early, and never left worse than it began."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from trueprune._support.errors import RepairError
from trueprune._support.progress import track
from trueprune.repairs.healing.data import HealingData
from trueprune.repairs.healing.objective import Objective
from trueprune.repairs.healing.options import HealingOptions
from trueprune.repairs.healing.precision import computing
from trueprune.repairs.healing.state import Store

# Usual constants of fine-tuning, ours.
WEIGHT_DECAY, CLIP, WARMUP, LAST_RATE = 0.01, 1.0, 0.05, 0.1
# A held-out loss so many times that of the start, in so many evaluations on end, is a run that went astray.
ASTRAY, ASTRAY_EVALUATIONS = 2.0, 2


@dataclass
class Progress:
    """Where the training stands; plain data.

    **Arguments:**

    - `step`: steps done.
    - `best_step`, `best`: the step whose state is the best so far, and its held-out loss; step 0 is the start.
    - `curve`: an entry an evaluation: `step`, `loss` (mean of the training loss since the last), `held_out`, its parts.
    - `waiting`, `astray`: evaluations without a better one, and with a much worse one, on end.
    - `stopped`: why it ended; empty while it runs.
    - `seconds`: spent in training and evaluation.
    """

    step: int = 0
    best_step: int = 0
    best: float = math.inf
    curve: list[dict[str, Any]] = field(default_factory=list)
    waiting: int = 0
    astray: int = 0
    stopped: str = ""
    seconds: float = 0.0

    @property
    def gained(self) -> bool:
        """Whether any state was better than the start."""
        return self.best_step > 0


class _Said(str):
    """The description of a progress bar that says the latest numbers whenever it is drawn."""

    def __new__(cls, say: Callable[[], str]) -> _Said:
        text = super().__new__(cls, say())
        text.say = say
        return text

    say: Callable[[], str]

    def __format__(self, spec: str) -> str:
        return format(self.say(), spec)


def learning_rate(step: int, options: HealingOptions) -> float:
    """The rate of a step: a linear rise over the first twentieth, then half a cosine down to a tenth of the peak."""
    rise = max(1, round(WARMUP * options.steps))
    if step < rise:
        return options.peak_learning_rate * (step + 1) / rise
    done = (step - rise) / max(1, options.steps - rise)
    return options.peak_learning_rate * (LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * done)))


class Trainer:
    """Trains parameters by an objective.

    **Arguments:**

    - `objective`, `data`: what is minimised, and on what.
    - `parameters`: what is trained, by name; the objective's own are added.
    - `options`: steps, rates, evaluations.
    - `precision`: resolved.
    - `store`: where states are kept, or `None`.
    """

    def __init__(
        self,
        objective: Objective,
        data: HealingData,
        parameters: Mapping[str, nn.Parameter],
        options: HealingOptions,
        precision: str,
        store: Store | None = None,
    ):
        self.objective = objective
        self.data = data
        self.options = options
        self.precision = precision
        self.store = store
        self.parameters = {**parameters, **objective.parameters}
        self.progress = Progress()
        self.optimizer = torch.optim.AdamW(self.parameters.values(), weight_decay=WEIGHT_DECAY)
        self.scaler = torch.amp.GradScaler("cuda", enabled=precision == "float16")  # type: ignore[attr-defined]
        self.best: dict[str, Tensor] = {}
        self.latest = math.nan

    def run(self) -> Progress:
        """Train until the steps are done, nothing gets better, or the loss diverges; the best state is then in place.

        **Returns:** where it ended. Where no state was better than the start, the start is in place.

        **Raises:** `RepairError` if a state to go on from has other settings or cannot be read.
        """
        progress = self._resumed() or self._started()
        try:
            self._train(progress)
        except KeyboardInterrupt:
            if self.store is not None and self.store.begun:
                warnings.warn(f"{self.store.folder} keeps the last evaluation: run again to go on", stacklevel=1)
            raise
        self._put(self.best)
        return progress

    def _train(self, progress: Progress) -> None:
        losses: list[float] = []
        began = time.perf_counter()
        # A run that had ended before its model was saved has nothing left to do.
        left = range(progress.step, self.options.steps if not progress.stopped else progress.step)
        for step in track(left, _Said(lambda: self._said(progress))):
            self.latest = self._step(step)
            losses.append(self.latest)
            progress.step = step + 1
            if not math.isfinite(self.latest):
                progress.stopped = f"diverged at step {progress.step}"
                break
            if progress.step % self.options.evaluate_every == 0 or progress.step == self.options.steps:
                self._evaluate(progress, sum(losses) / len(losses))
                progress.seconds += time.perf_counter() - began
                losses, began = [], time.perf_counter()
                self._keep(progress)
            if progress.stopped:
                break

    def _step(self, number: int) -> float:
        """One step of the optimizer; the loss before it, not finite if loss or gradients are not."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(number, self.options)
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        parts = self.objective.parts(self.data.step(number))
        while True:
            with computing(self.precision, self.objective.device):
                part = next(parts, None)
            if part is None:
                break
            self.scaler.scale(part.total).backward()
            total += float(part.total.detach())
        self.scaler.unscale_(self.optimizer)
        norm = float(nn.utils.clip_grad_norm_(self.parameters.values(), CLIP))
        if not math.isfinite(norm) and not self.scaler.is_enabled():
            # Half-precision gradients may overflow: the scaler then skips the step and scales them less.
            return math.nan
        if math.isfinite(total):
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return total

    @torch.no_grad()
    def held_out(self) -> dict[str, float]:
        """The parts of the loss on what is held out, each a mean over batches, and their weighted sum `held_out`."""
        found: dict[str, list[float]] = {}
        with computing(self.precision, self.objective.device):
            for batch in self.data.held_out:
                for part in self.objective.parts(batch):
                    for name, value in part.values.items():
                        found.setdefault(name, []).append(float(value))
        means = {name: sum(values) / len(values) for name, values in found.items()}
        return {"held_out": sum(self.objective.factor(name) * value for name, value in means.items()), **means}

    def _evaluate(self, progress: Progress, loss: float) -> None:
        found = self.held_out()
        progress.curve.append({"step": progress.step, "loss": loss, **{k: _plain(v) for k, v in found.items()}})
        held_out = found["held_out"]
        if held_out < progress.best:
            progress.best, progress.best_step, progress.waiting = held_out, progress.step, 0
            self.best = self._now()
        else:
            progress.waiting += 1
        # Not a number is not below anything.
        gone = not held_out < ASTRAY * progress.curve[0]["held_out"]
        progress.astray = progress.astray + 1 if gone else 0
        if progress.astray == ASTRAY_EVALUATIONS or not math.isfinite(held_out):
            progress.stopped = f"diverged at step {progress.step}"
        elif self.options.patience and progress.waiting == self.options.patience:
            progress.stopped = f"nothing better in {progress.waiting} evaluations, at step {progress.step}"
        elif progress.step == self.options.steps:
            progress.stopped = "all steps done"

    def _started(self) -> Progress:
        began = time.perf_counter()
        found = self.held_out()
        if not math.isfinite(found["held_out"]):
            raise RepairError(
                "the model gives no finite loss before it is trained",
                "Its activations overflow; try another --precision",
            )
        self.best = self._now()
        start = {"step": 0, "loss": None, **found}
        self.progress = Progress(best=found["held_out"], curve=[start], seconds=time.perf_counter() - began)
        return self.progress

    def _keep(self, progress: Progress) -> None:
        if self.store is None:
            return
        tensors = {f"now/{name}": tensor for name, tensor in self._now().items()}
        tensors |= {f"best/{name}": tensor for name, tensor in self.best.items()}
        for name, parameter in self.parameters.items():
            moments = self.optimizer.state[parameter]
            tensors |= {f"{key}/{name}": moments[key] for key in ("exp_avg", "exp_avg_sq", "step") if key in moments}
        state = {"step": progress.step, "progress": asdict(progress), "scaler": self.scaler.state_dict()}
        self.store.write(state, tensors)

    def _resumed(self) -> Progress | None:
        state = None if self.store is None else self.store.read()
        if state is None or self.store is None:
            return None
        tensors = self.store.tensors(state)
        self._put({name: tensors[f"now/{name}"] for name in self.parameters})
        self.best = {name: tensors[f"best/{name}"] for name in self.parameters}
        for name, parameter in self.parameters.items():
            moments = {key: tensors.get(f"{key}/{name}") for key in ("exp_avg", "exp_avg_sq", "step")}
            self.optimizer.state[parameter] = {
                # The optimizer counts its steps on the CPU.
                key: moment if key == "step" else moment.to(parameter.device)
                for key, moment in moments.items()
                if moment is not None
            }
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.progress = Progress(**state["progress"])
        return self.progress

    @torch.no_grad()
    def _put(self, tensors: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(tensors[name])

    def _now(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    def _said(self, progress: Progress) -> str:
        held_out = progress.curve[-1]["held_out"] if progress.curve else None
        known = [("loss", self.latest), ("held out", held_out)]
        return ", ".join(["heal", *(f"{name} {value:.3f}" for name, value in known if value is not None)])


def _plain(value: float) -> float | None:
    """A number that JSON knows."""
    return value if math.isfinite(value) else None
