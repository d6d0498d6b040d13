"""Classification tasks: contract, rows, sides, prompts."""

from trueprune.texts.tasks.contract import ChoiceItem, Task, TaskItem, masked_prompt, words_of
from trueprune.texts.tasks.pools import check_tasks, find_task, task_items
from trueprune.texts.tasks.prompts import PromptOptions, render
from trueprune.texts.tasks.questions import TaskOptions, questions
from trueprune.texts.tasks.registry import TASKS

__all__ = [
    "TASKS",
    "ChoiceItem",
    "PromptOptions",
    "Task",
    "TaskItem",
    "TaskOptions",
    "check_tasks",
    "find_task",
    "masked_prompt",
    "questions",
    "render",
    "task_items",
    "words_of",
]
