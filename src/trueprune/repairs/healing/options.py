"""How a model is healed by training: the options, and what they may be."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal

from trueprune._support.errors import RepairError

Way = Literal["contrastive", "lora", "distill"]
WAYS: tuple[Way, ...] = ("contrastive", "lora", "distill")
# The best held-out loss of short runs on the demo model with half of its weights gone.
LEARNING_RATES = {"lora": 2e-3, "full": 1e-4}


@dataclass(frozen=True)
class HealingOptions:
    """How a model is healed by training.

    **Arguments:**

    - `steps`: optimizer steps, at most.
    - `batch`: windows of text in a step.
    - `window`: tokens of a window.
    - `pairs`: questions in a step, each with a right and a wrong answer; 0 trains on text alone. All three ways draw
        the same, so that they differ in the loss alone.
    - `learning_rate`: of AdamW, at its peak; 0 for 2e-3 with LoRA and 1e-4 with `--adapt full`.
    - `adapt`: `lora` trains matrices of low rank beside the weights (needs peft), `full` the weights themselves. Both
        leave weights that are zero at zero.
    - `rank`: of LoRA's matrices; its update is scaled by 2 (alpha = 2 r).
    - `layers`: blocks that are trained: `prone` (the hallucination-prone ones by EAVSS), `random` (as many others, the
        control), `all`, or numbers from 0 such as `3,7,8`; `prone` for contrastive, `all` for the other ways.
    - `layer_share`: the share of the blocks that `prone` and `random` take.
    - `loss`: contrastive loss: `infonce` or `triplet`.
    - `weight`: of the contrastive loss beside the cross-entropy; with 0 it would be `--with lora`.
    - `tau`: temperature of InfoNCE: smaller minds the nearest wrong answers more.
    - `margin`: of the triplet loss: how much nearer a right answer shall be than a wrong one, in cosine.
    - `projection`: compare answers after a linear map to so many dimensions, which is thrown away afterwards; 0 to
        compare hidden states as they are.
    - `softness`: temperature by which `distill` divides both models' logits; above 1 it minds unlikely tokens more.
    - `precision`: of the arithmetic: `bfloat16`, `float16` (CUDA), `float32`, or `auto`: bfloat16 where the device
        computes it natively, else float32. What is trained is held in float32.
    - `checkpointing`: compute blocks again in the backward pass instead of keeping their activations and what their
        weights have become: less memory, a third more time.
    - `evaluate_every`: steps between evaluations on texts and questions set aside; each is a point to resume from.
    - `patience`: stop after so many evaluations without a better one; 0 never stops early.
    - `healing_seed`: of LoRA's start, the order of the questions, and `--layers random`.
    """

    steps: int = 200
    batch: int = 8
    window: int = 128
    pairs: int = 8
    learning_rate: float = 0.0
    adapt: str = "lora"
    rank: int = 8
    layers: str | None = None
    layer_share: float = 0.25
    loss: str = "infonce"
    weight: float = 0.1
    tau: float = 0.1
    margin: float = 0.5
    projection: int = 0
    softness: float = 1.0
    precision: str = "auto"
    checkpointing: bool = False
    evaluate_every: int = 25
    patience: int = 4
    healing_seed: int = 0

    def __post_init__(self):
        for name, least in LEAST.items():
            if not getattr(self, name) >= least:
                raise RepairError(f"{flag_of(name)} {getattr(self, name)} is below {least}", f"Use {least} or more")
        for name in ("tau", "softness", "weight"):
            if not (getattr(self, name) > 0 and isfinite(getattr(self, name))):
                raise RepairError(f"{flag_of(name)} {getattr(self, name)} is not above 0 and finite", "Use one that is")
        if not 0 < self.layer_share <= 1:
            raise RepairError(f"--layer-share {self.layer_share} is not in (0, 1]", "Use e.g. 0.25")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise RepairError(f"unknown {flag_of(name)} {getattr(self, name)!r}", f"Use one of {', '.join(known)}")

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate, by default that of what is trained."""
        return self.learning_rate or LEARNING_RATES[self.adapt]

    def chosen_by(self, way: str) -> str:
        """Which blocks are trained, by default those of the way."""
        return self.layers or ("prone" if way == "contrastive" else "all")


LEAST = {
    "steps": 1,
    "batch": 1,
    "window": 8,
    "pairs": 0,
    "learning_rate": 0,
    "rank": 1,
    "margin": 0,
    "projection": 0,
    "evaluate_every": 1,
    "patience": 0,
    "healing_seed": 0,
}
CHOICES = {
    "adapt": ("lora", "full"),
    "loss": ("infonce", "triplet"),
    "precision": ("auto", "float32", "bfloat16", "float16"),
}
ONLY_CONTRASTIVE = ("loss", "weight", "tau", "margin", "projection")


def flag_of(name: str) -> str:
    """The flag of an option."""
    return "--" + {"weight": "contrast-weight"}.get(name, name).replace("_", "-")


def check_way(way: str, options: HealingOptions, teacher: bool) -> None:
    """Refuse options that a way of healing does not look at, or that contradict each other.

    **Arguments:**

    - `way`: `contrastive`, `lora` or `distill`.
    - `options`: as given.
    - `teacher`: whether a teacher is given.

    **Raises:** `RepairError`.
    """
    plain = HealingOptions()

    def refuse(names: tuple[str, ...], where: str) -> None:
        for name in names:
            if getattr(options, name) != getattr(plain, name):
                raise RepairError(f"{flag_of(name)} has no meaning {where}", "Leave it out")

    if way != "contrastive":
        refuse(ONLY_CONTRASTIVE, f"for --with {way}: its loss is not contrastive")
    elif options.pairs < 2:
        raise RepairError(
            f"--pairs {options.pairs} gives no two right answers to compare", "Use 2 or more, or --with lora"
        )
    elif options.loss == "infonce":
        refuse(("margin",), "for --loss infonce")
    else:
        refuse(("tau",), "for --loss triplet")
    if way == "distill" and not teacher:
        raise RepairError("--with distill needs a model to learn from", "Name the dense one with --teacher")
    if way != "distill":
        refuse(("softness",), f"for --with {way}: nothing is distilled")
        if teacher:
            raise RepairError(f"--teacher has no meaning for --with {way}", "Leave it out, or use --with distill")
    if options.adapt == "full":
        refuse(("rank",), "for --adapt full")
    if (chosen_by := options.chosen_by(way)) not in ("prone", "random"):
        refuse(("layer_share",), f"for --layers {chosen_by}")
