"""The questions of a task as a model gets them: rows, their side, examples and prompt in one call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from trueprune._support.errors import TextError
from trueprune.texts.tasks.contract import ChoiceItem, Task, TaskItem
from trueprune.texts.tasks.pools import Side, check_tasks, find_task, task_items
from trueprune.texts.tasks.prompts import PromptOptions, render

Scoring = Literal["sum", "mean", "first"]


@dataclass(frozen=True)
class TaskOptions(PromptOptions):
    """What a model is asked.

    **Arguments:**

    - `tasks`: in the package: `facts`, `sentiment`, `commonsense`; hub rows: `arc_easy`, `arc_challenge`, `openbookqa`,
        `commonsense_qa`, `sciq`, `boolq`, `rte`, `sst2`, `rotten_tomatoes`, `tweet_eval` (sentiment; also
        `tweet_eval_emotion`, `_irony`, `_hate`, `_offensive`); or the path of a `.jsonl` file. For accuracy also
        `lm-eval:` and a task, group or YAML file of lm-evaluation-harness (`lm-eval:hellaswag`), with its own prompts
        and scores: of these options only `items`, `shots` and `chat` apply to it.
    - `items`: at most so many questions of each task (of an lm-eval task the first so many); 0 for all.
    - `answers`: `texts` (the words of the options themselves) or `letters` (listed in the prompt; A, B, C ... scored).
    - `scoring`: an option's score: `sum` of its tokens' log-probabilities, their `mean`, or that of its `first` token.
    - `correct`: taken off an option's score: `none`, `contextual` (its score after N/A for the task text) or `pmi`
        (its score after the answer cue alone).
    - `chat`: put the question through the tokenizer's chat template.
    - `shots`: solved examples in front, from items that are never audited; an lm-eval task keeps its own number at 0.
    """

    tasks: tuple[str, ...] = ("facts",)
    items: int = 200
    scoring: Scoring = "sum"

    def __post_init__(self):
        super().__post_init__()
        check_tasks(self.tasks)
        if self.items < 0:
            raise TextError(f"--items {self.items} is below 0", "Use 0 for all, or a number")
        if self.scoring not in ("sum", "mean", "first"):
            raise TextError(f"--scoring {self.scoring} is unknown", "Use sum, mean or first")


def questions(
    name: str, limit: int = 0, options: PromptOptions = PromptOptions(), *, tokenizer: Any = None, side: Side = "audit"
) -> list[ChoiceItem]:
    """The questions of a task as a model gets them.

    **Arguments:**

    - `name`: a task or the path of a `.jsonl` file.
    - `limit`: at most so many; 0 for all.
    - `options`: how they are put.
    - `tokenizer`: needed for a chat template.
    - `side`: `audit`, or `fit` for those that no audit asks.

    **Raises:** `TextError` as `task_items` and `render`.
    """
    task = find_task(name)
    items = task_items(task, 0, side)
    shots = _shots(task, options.shots, items if side == "fit" else None)
    if side == "fit":
        # What is shown as an example cannot be fitted on, too.
        shown = {shot.id for shot in shots}
        items = [item for item in items if item.id not in shown]
    chosen = items[:limit] if limit else items
    return [render(task, item, options, tokenizer=tokenizer, shots=shots) for item in chosen]


def _shots(task: Task, count: int, pool: list[TaskItem] | None) -> list[TaskItem]:
    """Examples from the fitting side, each right option's position in turn."""
    if not count:
        return []
    pool = task_items(task, 0, "fit") if pool is None else pool
    if len(pool) < count:
        raise TextError(f"the task {task.name} has {len(pool)} examples, --shots asks for {count}", "Lower --shots")
    turns: dict[int, list[TaskItem]] = {}
    for item in pool:
        turns.setdefault(item.gold, []).append(item)
    chosen: list[TaskItem] = []
    while len(chosen) < count:
        chosen += [turns[gold].pop(0) for gold in sorted(turns) if turns[gold]]
    return chosen[:count]
