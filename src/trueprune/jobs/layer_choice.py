"""Which layers a drop takes: its options, and the loop of observing, ranking and taking away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trueprune._support.errors import PlanError
from trueprune.edits.drop import apply_drop, complete, present
from trueprune.models.anatomy import Anatomy
from trueprune.observe.dense import observe_blocks
from trueprune.observe.moments import NearZero
from trueprune.plans.avss import AvssOptions
from trueprune.plans.choose import (
    KINDS,
    Unit,
    by_mass,
    by_rank,
    candidates,
    consecutive_blocks,
    how_many,
    importance_of,
    share_of,
    sparing,
)
from trueprune.plans.drop import Drop, Rule, Schedule, What
from trueprune.plans.drop_file import DropFile, read_drop_file
from trueprune.plans.eavss import EavssResult
from trueprune.plans.rankings import FIRSTS, RANKINGS, First, LayerEvidence, Ranking, find_ranking
from trueprune.texts.tokens import TokenBatch


@dataclass(frozen=True)
class DropOptions:
    """What goes, and in which way it is chosen.

    **Arguments:**

    - `what`: `block`, `attention`, `mlp`, or `joint` (attention and MLPs, compared with each other); `attention` unless
        a file says what goes.
    - `by`: what says how much a layer matters: `avss`, `block-influence` or `cosine` (one minus the cosine between the
        stream before and after, at all tokens), `angular` (the angle, at last tokens), `eavss` (how hallucinated
        answers differ from true ones; blocks only), `random`, `first`, `last`, or a JSON file (a plan, lists of blocks,
        or scores). What matters least goes.
    - `fraction`: drop this share of what there is, rounded down; 0.25 unless `--count` is given. Under `--rule mass`
        the share of all importance.
    - `count`: drop so many.
    - `schedule`: `one-shot`, or `iterative`: drop one, observe again, and so on.
    - `rule`: `rank` drops a share of the layers; `mass` the least important that hold a share of all importance.
    - `consecutive`: drop blocks that follow each other.
    - `eavss_first`: which blocks go first by `eavss`: `indifferent` (in which hallucinated answers differ least) or
        `prone` (in which they differ most).
    """

    what: What | None = None
    by: str = "cosine"
    fraction: float | None = None
    count: int | None = None
    schedule: Schedule = "one-shot"
    rule: Rule = "rank"
    consecutive: bool = False
    eavss_first: First = "indifferent"

    @property
    def kind(self) -> What:
        """What goes, `attention` by default."""
        return self.what or "attention"


@dataclass(frozen=True, eq=False)
class LayerChooser:
    """Observes, ranks and takes away.

    **Arguments:**

    - `choice`: what goes.
    - `ranking`: what says how much a layer matters.
    - `scoring`, `zero`: how AVSS is taken.
    - `tokens`: calibration tokens, for rankings that observe.
    - `seed`: of random rankings.
    - `batch_tokens`: tokens that go through a block in one call.
    - `eavss`: observes EAVSS of what is left, given that and what a progress bar says; for rankings by answers.
    """

    choice: DropOptions
    ranking: Ranking
    scoring: AvssOptions
    zero: NearZero
    tokens: TokenBatch | None
    seed: int
    batch_tokens: int | None
    eavss: Callable[[Anatomy, str], EavssResult] | None = None

    def run(self, anatomy: Anatomy) -> tuple[Anatomy, Drop]:
        """Choose and take away.

        **Returns:** the anatomy of what is left, and what went.

        **Raises:** `PlanError`, `ModelError`.
        """
        if self.choice.schedule == "iterative":
            return self._iterative(anatomy, self.count(anatomy))
        dropped = self._once(anatomy)
        return apply_drop(anatomy, dropped), dropped

    def count(self, anatomy: Anatomy) -> int:
        """How many go, by rank.

        **Raises:** `PlanError` if that is none, all, or more than there are.
        """
        units = candidates(self.choice.kind, present(anatomy))
        return how_many(len(units), self.choice.fraction, self.choice.count, self.choice.kind)

    def check(self, anatomy: Anatomy) -> None:
        """Refuse a number that cannot be met, before anything slow starts.

        **Raises:** `PlanError`.
        """
        share_of(self.choice.fraction)
        if self.choice.rule == "rank":
            self.count(anatomy)

    def _once(self, anatomy: Anatomy) -> Drop:
        units = candidates(self.choice.kind, present(anatomy))
        count = self.count(anatomy) if self.choice.rule == "rank" else 0
        gap = count if self.choice.consecutive and self.ranking.gap else None
        evidence = self._observe(anatomy, gap, "observe layers")
        importance_K = importance_of(units, self.ranking, evidence)
        if self.choice.consecutive:
            going = consecutive_blocks(self.ranking, evidence, count)
        elif self.choice.rule == "mass":
            going = by_mass(importance_K, share_of(self.choice.fraction))
            how_many(len(units), None, len(going), self.choice.kind)
        else:
            going = sparing(units, by_rank(importance_K, len(units)))[:count]
        return complete(anatomy, self._drop(anatomy, units, importance_K, going))

    def _iterative(self, anatomy: Anatomy, count: int) -> tuple[Anatomy, Drop]:
        """Drop one at a time, and observe what is left before the next."""
        total: Drop | None = None
        for number in range(count):
            units = candidates(self.choice.kind, present(anatomy))
            evidence = self._observe(anatomy, None, f"observe layers, round {number + 1} of {count}")
            importance_K = importance_of(units, self.ranking, evidence)
            going = sparing(units, by_rank(importance_K, len(units)))[:1]
            step = complete(anatomy, self._drop(anatomy, units, importance_K, going))
            anatomy = apply_drop(anatomy, step)
            total = step.after(total)
        assert total is not None
        return anatomy, total

    def _observe(self, anatomy: Anatomy, gap: int | None, description: str) -> LayerEvidence:
        profile = found = None
        if self.ranking.answers:
            assert self.eavss is not None
            found = self.eavss(anatomy, description)
        if self.ranking.profiled:
            assert self.tokens is not None
            _, profile = observe_blocks(
                anatomy,
                self.tokens,
                zero=self.zero,
                gap=gap,
                batch_tokens=self.batch_tokens,
                description=description,
            )
        return LayerEvidence(
            len(anatomy.blocks), profile, self.scoring, self.seed, eavss=found, eavss_first=self.choice.eavss_first
        )

    def _drop(self, anatomy: Anatomy, units: list[Unit], importance_K: np.ndarray, going: list[int]) -> Drop:
        gone = [units[i] for i in going]
        by_kind = {
            kind: tuple(sorted(index for k, index in gone if k == kind)) for kind in ("block", "attention", "mlp")
        }
        found = {
            "candidates": [f"{kind} {index}" for kind, index in units],
            "importance": [float(value) for value in importance_K],
            "dropped": [f"{kind} {index}" for kind, index in gone],
            "what": self.choice.kind,
            **{name: getattr(self.choice, name) for name in ("by", "schedule", "rule", "consecutive")},
        }
        return Drop(
            len(anatomy.blocks),
            blocks=by_kind["block"],
            attention=by_kind["attention"],
            mlp=by_kind["mlp"],
            what=self.choice.kind,
            by=str(self.choice.by),
            schedule=self.choice.schedule,
            rule=self.choice.rule,
            consecutive=self.choice.consecutive,
            rounds=(found,),
        )


def ranking_of(choice: DropOptions) -> tuple[DropFile | None, Ranking]:
    """The file that `by` names, if it names one, and the ranking.

    **Raises:** `PlanError`.
    """
    if choice.kind not in KINDS:
        raise PlanError(f"cannot drop {choice.kind!r}", f"Use one of {', '.join(KINDS)}")
    if str(choice.by) in RANKINGS or not (str(choice.by).endswith(".json") or Path(choice.by).is_file()):
        return None, find_ranking(str(choice.by))
    file = read_drop_file(choice.by)
    return file, file.ranking()


def refuse_idle(
    choice: DropOptions, file: DropFile | None, ranking: Ranking, scoring: AvssOptions, zero: NearZero
) -> None:
    """Refuse options that contradict each other, or that nothing would look at.

    **Raises:** `PlanError`.
    """
    if (scoring, zero) != (AvssOptions(), NearZero()) and not ranking.scored:
        raise PlanError(f"--by {choice.by} takes no AVSS", "Leave --avss-* and --near-zero out, or use --by avss")
    if file is not None and file.listed is not None:
        if choice != DropOptions(what=choice.what, by=choice.by):
            raise PlanError(
                f"{choice.by} says what to drop",
                "Leave out --fraction, --count, --schedule, --rule and --consecutive",
            )
        lists = {"block": "blocks", "attention": "attention", "mlp": "mlp"}
        others = {name for kind, name in lists.items() if choice.what and kind not in KINDS[choice.what]}
        if other := sorted(name for name in others if file.listed.get(name)):
            raise PlanError(f"{choice.by} lists {other[0]}, and --what is {choice.what}", "Leave --what out")
        return
    if ranking.answers and choice.kind != "block":
        raise PlanError(f"--by {choice.by} is taken at the output of whole blocks", "Use it with --what block")
    if choice.eavss_first not in FIRSTS:
        raise PlanError(f"unknown order {choice.eavss_first!r} of EAVSS", f"Use {' or '.join(FIRSTS)}")
    if choice.eavss_first != "indifferent" and not ranking.answers:
        raise PlanError(f"--by {choice.by} takes no EAVSS", "Leave --eavss-first out, or use --by eavss")
    if choice.schedule not in ("one-shot", "iterative"):
        raise PlanError(f"unknown schedule {choice.schedule!r}", "Use one-shot or iterative")
    if choice.rule not in ("rank", "mass"):
        raise PlanError(f"unknown rule {choice.rule!r}", "Use rank or mass")
    if choice.schedule == "iterative" and not ranking.observes:
        raise PlanError(f"--schedule iterative observes again, and --by {choice.by} observes nothing", "Leave it out")
    if choice.rule == "mass" and (choice.count is not None or choice.schedule == "iterative" or choice.consecutive):
        raise PlanError(
            "--rule mass takes a --fraction of the importance, at once",
            "Leave out --count, --schedule iterative and --consecutive",
        )
    if choice.rule == "mass" and not ranking.observes and file is None:
        raise PlanError(f"--rule mass needs scores, and --by {choice.by} only has an order", "Use --rule rank")
    if choice.consecutive and (choice.kind != "block" or choice.schedule == "iterative"):
        raise PlanError("--consecutive drops blocks, at once", "Use it with --what block --schedule one-shot")
