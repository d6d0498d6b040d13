"""What is taken away whole: blocks, attention or MLP sublayers. A part of the `Plan`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from trueprune._support.errors import PlanError

What = Literal["block", "attention", "mlp", "joint"]
Schedule = Literal["one-shot", "iterative"]
Rule = Literal["rank", "mass"]
WHATS: tuple[str, ...] = get_args(What)


@dataclass(frozen=True)
class Drop:
    """What is taken away, counted in the blocks of the model that the plan was made for.

    **Arguments:**

    - `n_blocks`: how many blocks that model has.
    - `blocks`: blocks that are gone, with all that is in them.
    - `attention`: blocks whose attention is gone.
    - `mlp`: blocks whose MLP is gone.
    - `what`, `by`, `schedule`, `rule`, `consecutive`: how they were chosen.
    - `rounds`: for each round of scoring, the importance of every candidate and what went.
    """

    n_blocks: int
    blocks: tuple[int, ...] = ()
    attention: tuple[int, ...] = ()
    mlp: tuple[int, ...] = ()
    what: str = ""
    by: str = "file"
    schedule: str = "one-shot"
    rule: str = "rank"
    consecutive: bool = False
    rounds: tuple[Mapping[str, Any], ...] = field(default=())

    def __post_init__(self):
        for kind in ("blocks", "attention", "mlp"):
            indices = getattr(self, kind)
            if outside := [i for i in indices if not 0 <= i < self.n_blocks]:
                raise PlanError(
                    f"{kind} names {outside[0]}, and the model has blocks 0 to {self.n_blocks - 1}", "Mend the plan"
                )
            if len(set(indices)) != len(indices):
                raise PlanError(f"{kind} names {_repeated(indices)} twice", "Mend the plan")
        if not (self.blocks or self.attention or self.mlp):
            raise PlanError("nothing would be dropped", "Give a larger --fraction or --count")
        if len(self.gone_blocks) >= self.n_blocks:
            raise PlanError(f"all {self.n_blocks} blocks would be dropped", "Keep at least one")

    @property
    def gone_blocks(self) -> tuple[int, ...]:
        """Blocks of which nothing is left."""
        both = set(self.attention) & set(self.mlp)
        return tuple(sorted(set(self.blocks) | both))

    @property
    def kept(self) -> list[int]:
        """Blocks of which something is left."""
        gone = set(self.gone_blocks)
        return [i for i in range(self.n_blocks) if i not in gone]

    def to_json(self) -> dict[str, Any]:
        """Plain data, read back by `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any], n_blocks: int | None = None) -> Drop:
        """Read what a file says.

        **Arguments:**

        - `data`: needs one of `blocks`, `attention`, `mlp`: lists of block numbers.
        - `n_blocks`: of the model, where the file does not say.

        **Raises:** `PlanError`.
        """
        try:
            lists = {kind: _indices(data.get(kind) or ()) for kind in ("blocks", "attention", "mlp")}
            of = data.get("n_blocks", n_blocks)
            if of is None:
                raise ValueError("it lacks n_blocks, the number of blocks of the model")
            texts = {key: str(data[key]) for key in ("what", "by", "schedule", "rule") if key in data}
            rounds = tuple(dict(found) for found in data.get("rounds") or ())
            return cls(int(of), **lists, **texts, consecutive=bool(data.get("consecutive")), rounds=rounds)  # type: ignore[arg-type]
        except (TypeError, ValueError, AttributeError) as error:
            raise PlanError(
                f"the dropped layers cannot be read ({type(error).__name__}: {error})",
                'Write {"drop": {"n_blocks": 30, "attention": [21, 22], "mlp": [], "blocks": []}}',
            ) from error

    def after(self, before: Drop | None) -> Drop:
        """This drop, made on a model from which `before` had been dropped, counted in the blocks of the whole model.

        **Raises:** `PlanError` if the two do not fit.
        """
        if before is None:
            return self
        kept = before.kept
        if len(kept) != self.n_blocks:
            raise PlanError(
                f"the plan is for {self.n_blocks} blocks, the model has {len(kept)} of {before.n_blocks}",
                "Use a plan made for this model",
            )

        def joined(kind: str) -> tuple[int, ...]:
            return tuple(sorted({*getattr(before, kind), *(kept[i] for i in getattr(self, kind))}))

        return Drop(
            before.n_blocks,
            blocks=joined("blocks"),
            attention=joined("attention"),
            mlp=joined("mlp"),
            # How each step was chosen stands in its rounds.
            **{name: _both(getattr(before, name), getattr(self, name)) for name in ("what", "by", "schedule", "rule")},
            consecutive=before.consecutive or self.consecutive,
            rounds=(*before.rounds, *(_renumbered(found, kept) for found in self.rounds)),
        )


def _renumbered(found: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """A round of scoring, its "attention 3" counted in the blocks of the whole model."""

    def whole(name: str) -> str:
        kind, _, index = name.partition(" ")
        return f"{kind} {kept[int(index)]}"

    try:
        return {key: [whole(v) for v in value] if key in _NAMED else value for key, value in found.items()}
    except (ValueError, IndexError, TypeError) as error:
        raise PlanError(f"the rounds of the plan cannot be read ({error})", "Mend them, or take them out") from error


# The entries of a round that name layers, as "attention 3".
_NAMED = ("candidates", "dropped")


def _both(before: str, after: str) -> str:
    return ", ".join(dict.fromkeys(name for name in (*before.split(", "), *after.split(", ")) if name))


def _indices(values: Iterable[Any]) -> tuple[int, ...]:
    if isinstance(values, (str, Mapping)) or any(isinstance(v, (bool, float)) for v in values):
        raise ValueError(f"{values!r} is no list of block numbers")
    return tuple(sorted(int(value) for value in values))


def _repeated(indices: Sequence[int]) -> int:
    return next(i for i in indices if list(indices).count(i) > 1)
