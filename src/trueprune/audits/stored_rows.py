"""A measurement as a row of a table, and back: numbers to the bit, what is no mean of items by its draws.

Legend: n items, R resamples.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa

from trueprune._support.lines import whole_text
from trueprune.audits.draws import counts_of, fingerprint, resampled
from trueprune.audits.measurement import Measurement, Reduction
from trueprune.audits.stored_draws import StoredDraws

_STRINGS, _NUMBERS = pa.list_(pa.string()), pa.list_(pa.float64())
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("model", "instrument", "metric")),
        ("baseline_of", pa.int32()),
        ("items", _STRINGS),
        ("values", _NUMBERS),
        ("weights", _NUMBERS),
        ("clusters", _STRINGS),
        ("reduction", pa.string()),
        ("higher_is_better", pa.bool_()),
        ("headline", pa.bool_()),
        ("details", pa.string()),
        ("value", pa.float64()),
        ("draws", _NUMBERS),
        ("counts", pa.string()),
    ]
)
_AS_THEY_ARE = ("instrument", "metric", "reduction", "higher_is_better", "headline")
_MAY_BE_NULL = ("baseline_of", "weights", "clusters", "draws", "counts")


def rows_of(models: Mapping[str, Sequence[Measurement]], resamples: int, seed: int) -> list[dict[str, Any]]:
    """A row a measurement, each baseline after what it is the baseline of.

    **Arguments:**

    - `models`: measurements by model.
    - `resamples`, `seed`: of the draws of metrics that are no mean of items.

    **Raises:** `AuditError` for such a metric without items.
    """
    rows: list[dict[str, Any]] = []
    for name, measurements in models.items():
        for measurement in measurements:
            of, found = None, measurement
            while found is not None:
                rows.append({"model": whole_text(name), "baseline_of": of, **_row(found, resamples, seed)})
                of, found = len(rows) - 1, found.baseline
    return rows


def _row(measurement: Measurement, resamples: int, seed: int) -> dict[str, Any]:
    # A subclass with a resample of its own is no mean of items either.
    of_items = measurement.statistic is None and type(measurement).resample is Measurement.resample
    draws: dict[str, Any] = {"draws": None, "counts": None}
    if not of_items:
        counts = fingerprint(counts_of(measurement, resamples, seed))
        draws = {"draws": resampled(measurement, resamples, seed), "counts": counts}
    weights, clusters = measurement.weights, measurement.clusters
    # For whoever queries the table: the metric itself is made of the items again, or of the draws.
    with np.errstate(all="ignore"):
        value = measurement.value if measurement.n else float("nan")
    return {
        "instrument": measurement.instrument,
        "metric": whole_text(measurement.metric),
        "items": [whole_text(str(item)) for item in measurement.item_ids],
        "values": np.asarray(measurement.values, dtype=np.float64),
        "weights": None if weights is None else np.asarray(weights, dtype=np.float64),
        "clusters": None if clusters is None else [whole_text(str(cluster)) for cluster in clusters],
        "reduction": measurement.reduction,
        "higher_is_better": bool(measurement.higher_is_better),
        "headline": bool(measurement.headline),
        "details": json.dumps(plain(measurement.details)),
        "value": value,
        **draws,
    }


def stored_measurements(table: pa.Table, path: Path, how: Mapping[str, Any]) -> Iterator[tuple[str, Measurement]]:
    """The measurements of a table with the names of their models, in the order in which they were written.

    **Arguments:**

    - `table`: with the columns of `SCHEMA`.
    - `path`: where it lies, for errors of a metric that is asked for other draws.
    - `how`: the table's `resamples`, `seed` and `numpy`.

    **Raises:** `ValueError` and its like for rows that contradict themselves.
    """
    column = {name: table.column(name).combine_chunks() for name in SCHEMA.names}
    for name in SCHEMA.names:
        if name not in _MAY_BE_NULL and column[name].null_count:
            raise ValueError(f"a row has no {name!r}")
    if unknown := set(column["reduction"].to_pylist()) - set(get_args(Reduction)):
        raise ValueError(f"there is no reduction {min(unknown)!r}")

    def numbers(name: str, row: int) -> np.ndarray | None:
        found = column[name][row]
        return np.array(found.values.to_numpy(zero_copy_only=False)) if found.is_valid else None

    def statistic(row: int) -> StoredDraws | None:
        draws_R = numbers("draws", row)
        if draws_R is None:
            return None
        if len(draws_R) != how["resamples"]:
            raise ValueError(f"{len(draws_R)} draws where {how['resamples']} were stored")
        origin = f"--resamples {how['resamples']} --seed {how['seed']} (numpy {how['numpy']}) in {path}"
        return StoredDraws(column["value"][row].as_py(), draws_R, column["counts"][row].as_py(), origin)

    def one(row: int, baseline: Measurement | None) -> Measurement:
        read = {name: column[name][row].as_py() for name in _AS_THEY_ARE}
        items, clusters = (column[name][row].as_py() for name in ("items", "clusters"))
        values, weights = numbers("values", row), numbers("weights", row)
        assert values is not None
        for what, given in (("clusters", clusters), ("weights", weights)):
            if given is not None and len(given) != len(items):
                raise ValueError(f"a row has {len(given)} {what} for {len(items)} items")
        return Measurement(
            **read,
            item_ids=tuple(items),
            values=values,
            weights=weights,
            clusters=None if clusters is None else tuple(clusters),
            details=dict(json.loads(column["details"][row].as_py())),
            baseline=baseline,
            statistic=statistic(row),
        )

    # Backwards: a baseline lies after what it is the baseline of.
    found: list[tuple[str, Measurement]] = []
    baselines: dict[int, Measurement] = {}
    for row in reversed(range(table.num_rows)):
        measurement, of = one(row, baselines.pop(row, None)), column["baseline_of"][row].as_py()
        if of is None:
            found.append((column["model"][row].as_py(), measurement))
        else:
            baselines[of] = measurement
    if baselines:
        raise ValueError("a baseline belongs to no measurement")
    return reversed(found)


def plain(value: Any) -> Any:
    """Data that JSON can hold, from data that may hold arrays: what is neither is written as text.

    **Arguments:**

    - `value`: e.g. the details of a measurement.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(found) for key, found in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(found) for found in value]
    return value if value is None or isinstance(value, (str, int, float)) else str(value)
