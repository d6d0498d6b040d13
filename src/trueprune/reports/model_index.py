"""What an audit found as metadata of a model card: results that the hub shows, and the model that was pruned."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, try_to_load_from_cache
from huggingface_hub.repocard_data import eval_results_to_model_index

from trueprune._support.errors import AuditError
from trueprune.reports.audit import AuditReport, Row
from trueprune.reports.datasets import dataset_of
from trueprune.reports.glossary import metric_words, property_of
from trueprune.reports.plain import plain

TASK = "text-generation"
# In a metric's arguments, so that the next audit knows its own results from those of others.
OURS = {"measured_with": "trueprune"}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def eval_results(report: AuditReport, model: str) -> list[EvalResult]:
    """Each headline metric of a model as a result: its value, and beside it interval, items and paired change.

    Sizes and speeds are left out: the hub counts parameters itself, and a speed is one machine's. So is what is not
    finite, which JSON cannot hold.

    **Arguments:**

    - `report`: the audit.
    - `model`: its name in the report.
    """
    rows = [row for row in report.rows if row.model == model and row.headline and row.instrument != "efficiency"]
    return [_result(row, report) for row in rows if math.isfinite(row.estimate.value)]


def _result(row: Row, report: AuditReport) -> EvalResult:
    data = dataset_of(row.instrument, row.metric, report.settings)
    first, *rest = row.metric.split("/")
    kind = rest[-1] if first.startswith("lm-eval:") and rest else first
    arguments: dict[str, Any] = {
        **OURS,
        "instrument": row.instrument,
        "metric": row.metric,
        "items": row.estimate.n,
        "interval_95": [short(bound) for bound in row.estimate.interval],
    }
    if row.change is not None:
        arguments["change_from_dense"] = short(row.change.value)
        arguments["change_interval_95"] = [short(bound) for bound in row.change.interval]
    title = property_of(row.instrument).title
    words = metric_words(row.instrument, row.metric)
    name = words if words.lower().startswith(title.lower()) else f"{title}: {words}"
    return EvalResult(
        task_type=TASK,
        task_name="Text generation",
        dataset_type=plain(data.type),
        dataset_name=plain(data.name),
        dataset_config=data.config,
        dataset_split=data.split,
        metric_type="accuracy" if row.instrument == "lie-detection" else plain(kind),
        metric_name=plain(name[0].upper() + name[1:]),
        metric_value=short(row.estimate.value),
        metric_args=plain(arguments),
    )


def short(value: float) -> float:
    """A number to six digits: what is beyond them is rounding."""
    return float(f"{value:.6g}")


def with_results(index: Any, results: Sequence[EvalResult], name: str, file: Path) -> list[dict[str, Any]] | None:
    """A `model-index` with our results in the place of those of an earlier audit; all others stay.

    **Arguments:**

    - `index`: what the card holds; `None` for nothing.
    - `results`: ours.
    - `name`: of the model, where the index has none.
    - `file`: the card, for the error.

    **Returns:** the index, or `None` if nothing is left to say.

    **Raises:** `AuditError` for an index that the hub would refuse.
    """
    kept = _kept(index, file)
    ours = eval_results_to_model_index(name, list(results))[0]["results"] if results else []
    # The hub reads one entry a card.
    first, rest = (kept[0], kept[1:]) if kept else ({"name": name, "results": []}, [])
    found = [{**first, "results": [*first["results"], *ours]}, *rest]
    return [entry for entry in found if entry["results"]] or None


def _kept(index: Any, file: Path) -> list[dict[str, Any]]:
    try:
        return [
            {**entry, "results": [kept for result in entry["results"] if (kept := _others(result)) is not None]}
            for entry in index or []
        ]
    except (TypeError, KeyError, AttributeError) as error:
        raise AuditError(
            f"the model-index of {file} is no list of entries with name and results", "Mend it, or remove it"
        ) from error


def _others(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """A result without our metrics, or nothing where all were ours."""
    metrics = [one for one in result["metrics"] if not OURS.items() <= (one.get("args") or {}).items()]
    return {**result, "metrics": metrics} if metrics or not result["metrics"] else None


def hub_id(source: Any) -> str | None:
    """The id of a model on the hub, if that is where it came from; a folder's path may look like one.

    **Arguments:**

    - `source`: what the model was loaded from.
    """
    if not isinstance(source, str) or not _HUB_ID.fullmatch(source) or Path(source).exists():
        return None
    try:
        # A model that was loaded from the hub is in its cache; nothing is asked of the network.
        return source if isinstance(try_to_load_from_cache(source, "config.json"), str) else None
    except ValueError:
        return None
