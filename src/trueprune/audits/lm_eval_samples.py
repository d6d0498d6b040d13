"""From what lm-evaluation-harness logs of each document to measurements that two models can be paired by."""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trueprune.audits.accuracy import INSTRUMENT
from trueprune.audits.measurement import Measurement
from trueprune.texts.tasks.pools import HARNESS

# Of the harness's filters the one that does nothing; its name is left away.
PLAIN = "none"


def measurements_of(
    results: Mapping[str, Any], tasks: Mapping[str, Any], groups: Mapping[str, Any]
) -> list[Measurement]:
    """Every metric of a run that is a mean of documents.

    **Arguments:**

    - `results`: of `lm_eval.simple_evaluate` with `log_samples`.
    - `tasks`, `groups`: the harness's own objects by name; they say how metrics are aggregated.

    **Returns:** `lm-eval:TASK/METRIC` for each task and for each group that has a mean of its own; a filter other than
    `none` follows the metric after a comma. Headlines are the groups that are in no other group, and the tasks that
    are in none. The others are left out with a warning.
    """
    by_task = {name: _task(name, task, results) for name, task in tasks.items()}
    found = [m for name, group in groups.items() for m in _group(name, group, by_task, groups)]
    for name, metrics in by_task.items():
        alone = not any(group.aggregate_metric_list and name in _leaves(group) for group in groups.values())
        found += [_measurement(name, key, *values, headline=alone) for key, values in metrics.items()]
    return found


# Of one metric: item names, values, weights, direction, details.
_Values = tuple[list[str], np.ndarray, np.ndarray | None, bool, dict[str, Any]]


def _task(name: str, task: Any, results: Mapping[str, Any]) -> dict[str, _Values]:
    """Metrics of one task that are means, by `METRIC,FILTER`."""
    from lm_eval.api.metrics import mean, nanmean

    rows: dict[str, list[tuple[str, Any]]] = {}
    for sample in results["samples"].get(name, ()):
        item = f"{sample['doc_id']}-{sample['doc_hash'][:16]}"
        for metric in sample["metrics"]:
            rows.setdefault(f"{metric},{sample['filter']}", []).append((item, sample[metric]))
    found, left_out = {}, []
    for key, pairs in rows.items():
        metric = key.split(",", 1)[0]
        values = [value for _, value in pairs]
        # The harness takes the mean where a task does not say.
        if task.aggregation().get(metric, mean) not in (mean, nanmean, np.mean) or not all(map(_is_number, values)):
            left_out.append(metric)
            continue
        better = results["higher_is_better"].get(name, {}).get(metric) is not False
        details = {"version": results["versions"].get(name), "shots": results["n-shot"].get(name)}
        found[key] = ([item for item, _ in pairs], np.array(values, dtype=np.float64), None, better, details)
    if left_out:
        warnings.warn(
            f"{HARNESS}{name}: left out, being no means of documents that two models could be paired by: "
            f"{', '.join(dict.fromkeys(left_out))}",
            stacklevel=2,
        )
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real | np.bool_) and math.isfinite(float(value))


def _group(
    name: str, group: Any, by_task: Mapping[str, dict[str, _Values]], groups: Mapping[str, Any]
) -> list[Measurement]:
    """The means of a group over the documents of its tasks, weighted as the harness weights the tasks' own means."""
    found = []
    top = not any(name != other.name and name in {g.name for g in other.get_all_groups()} for other in groups.values())
    members = {leaf: by_task[leaf] for leaf in _leaves(group)}
    for wanted in group.aggregate_metric_list or ():
        keys = dict.fromkeys(key for metrics in members.values() for key in metrics)
        for key in keys:
            metric, filtered = key.split(",", 1)
            if metric != wanted.metric or (wanted.filter_list and filtered not in wanted.filter_list):
                continue
            parts = {leaf: metrics[key] for leaf, metrics in members.items() if key in metrics}
            items = [f"{leaf}/{item}" for leaf, part in parts.items() for item in part[0]]
            values = np.concatenate([part[1] for part in parts.values()])
            weights = None
            if not wanted.weight_by_size:
                weights = np.concatenate([np.full(len(part[1]), 1 / len(part[1])) for part in parts.values()])
            better = all(part[3] for part in parts.values())
            details = {"tasks": list(parts), "by_size": bool(wanted.weight_by_size)}
            found.append(_measurement(name, key, items, values, weights, better, details, headline=top))
    return found


def _leaves(group: Any) -> Sequence[str]:
    return [task.task_name for task in group.get_all_tasks()]


def _measurement(
    name: str,
    key: str,
    items: list[str],
    values: np.ndarray,
    weights: np.ndarray | None,
    better: bool,
    details: dict[str, Any],
    *,
    headline: bool,
) -> Measurement:
    metric, filtered = key.split(",", 1)
    shown = metric if filtered == PLAIN else key
    return Measurement(
        INSTRUMENT,
        # Tables read a metric's name by its slashes.
        f"{HARNESS}{name.replace('/', '-')}/{shown}",
        items,
        values,
        weights,
        higher_is_better=better,
        headline=headline,
        details=details,
    )
