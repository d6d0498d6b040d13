"""Tasks of lm-evaluation-harness as an instrument: its prompts, its scores, our pairing of two models by document."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

from trueprune._support.errors import AuditError
from trueprune._support.progress import track
from trueprune.audits.lm_eval_samples import measurements_of
from trueprune.audits.lm_eval_tasks import SEEDS, contained, find, first_line, incurious, load
from trueprune.audits.measurement import Measurement
from trueprune.models.load import LoadedModel
from trueprune.texts.tasks.pools import HARNESS, harness_tasks
from trueprune.texts.tasks.questions import TaskOptions

BATCH_SIZE = 4


def measure_lm_eval(loaded: LoadedModel, options: TaskOptions, *, batch_size: int = BATCH_SIZE) -> list[Measurement]:
    """Measure a model on tasks of lm-evaluation-harness, as its command line does.

    The model is given as it is; the harness's seeds, prompts, filters and scores are used. Of `options` only `items`
    (the first so many documents, not a sample), `shots` and `chat` apply: how answers are scored is the task's own.

    **Arguments:**

    - `loaded`: the model; it is left as it was.
    - `options`: its `tasks` that begin with `lm-eval:`. With `shots=0` a task keeps its own number of examples; another
        number replaces it, except where the task says that it has none (its prompt then holds them; a warning says so).
    - `batch_size`: sequences in a forward.

    **Returns:** see `measurements_of`; the value of each is the harness's own number. A recalibration that is not
    folded into the weights has no part in it.

    **Raises:** `AuditError` for an unknown task, rows that cannot be had, a package that is missing, or whatever the
    harness refuses.
    """
    names = harness_tasks(options.tasks)
    if loaded.tokenizer is None and names:
        raise AuditError(f"{loaded.source} has no tokenizer, and {HARNESS} tasks are texts", "Save one with the model")
    found: dict[str, Measurement] = {}
    for name in track(names, "lm-eval tasks"):
        # A task that is also part of a group is measured once.
        for measurement in _measure(loaded, name, options, batch_size):
            found.setdefault(measurement.metric, measurement)
    return list(found.values())


def check_lm_eval(names: Sequence[str]) -> None:
    """Load each task once, so that what cannot be had is known before a model is.

    **Arguments:**

    - `names`: tasks; those that do not begin with `lm-eval:` are passed over.

    **Raises:** `AuditError` as `measure_lm_eval`.
    """
    for name in harness_tasks(names):
        with contained():
            manager, specs = find(name)
            load(manager, specs, name)


def _measure(loaded: LoadedModel, name: str, options: TaskOptions, batch_size: int) -> list[Measurement]:
    with contained():
        manager, specs = find(name)
        taken: dict[str, Any] = {}

        def load_and_keep(wanted: Any) -> Any:
            taken.update(load(manager, wanted, name))
            return taken

        # The harness loads tasks between seeding and asking; its result does not hold them, nor how they aggregate.
        watched = copy.copy(manager)
        watched.load = load_and_keep
        with incurious():
            results = _run(loaded, watched, specs, name, options, batch_size)
    if options.shots:
        _warn_of_own_shots(taken["tasks"], options.shots)
    return measurements_of(results, taken["tasks"], taken.get("groups", {}))


def _run(
    loaded: LoadedModel, manager: Any, specs: list[str], name: str, options: TaskOptions, batch_size: int
) -> dict[str, Any]:
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    # Both are typed too narrowly for what they accept.
    wrap: Any = HFLM
    evaluate: Any = simple_evaluate
    model: Any = loaded.model
    # Weights that a pruned or repaired copy holds apart shall stay apart.
    model.tie_weights = lambda *_args, **_settings: None
    try:
        # A copy: where there is none, a padding token is added.
        tokenizer: Any = copy.deepcopy(loaded.tokenizer)
        asked = wrap(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=batch_size)
        return evaluate(
            model=asked,
            tasks=specs,
            task_manager=manager,
            num_fewshot=options.shots or None,
            limit=options.items or None,
            bootstrap_iters=0,
            log_samples=True,
            apply_chat_template=options.chat,
            random_seed=SEEDS[0],
            numpy_random_seed=SEEDS[1],
            torch_random_seed=SEEDS[2],
        )
    except AuditError:
        raise
    # Prompts are made here, by templates and code of the task, for all documents but the first.
    except Exception as error:
        problem = f"lm-eval refuses {HARNESS}{name} ({type(error).__name__}: {first_line(error)})"
        raise AuditError(problem, "Leave the task away") from error
    finally:
        del model.tie_weights


def _warn_of_own_shots(tasks: dict[str, Any], shots: int) -> None:
    fixed = [name for name, task in tasks.items() if task.config.num_fewshot != shots]
    if fixed:
        warnings.warn(
            f"--shots {shots} has no part in {', '.join(HARNESS + name for name in fixed)}: a task may fix its own",
            stacklevel=2,
        )
