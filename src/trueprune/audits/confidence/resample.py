"""Every metric of confidence by name, with its value on resampled items: what paired intervals need.

Legend: N items, C options, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from trueprune.audits.confidence.binned import classwise_of
from trueprune.audits.confidence.bins import row_chunks
from trueprune.audits.confidence.check import check_probabilities, top_label
from trueprune.audits.confidence.kinds import TOP_LABEL_ERRORS
from trueprune.audits.confidence.scores import brier_items, nll_items
from trueprune.audits.confidence.selective import aurc_of, auroc, auroc_of

Arrays = tuple[Any, Any]
Prepare = Callable[[np.ndarray, np.ndarray], Arrays]
OnResamples = Callable[[Any, Any, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Metric:
    """One metric of probabilities against right options.

    **Arguments:**

    - `name`: e.g. `"ece-15"`, the number being that of the bins.
    - `value`: `(probabilities_NC, gold_N)` to a number.
    - `resampled`: `(probabilities_NC, gold_N, counts_RN)` to `(R,)`, where `counts_RN` of shape `(R, N)` says how often
        each item occurs in each resample, in whole numbers; NaN where the metric is undefined.
    - `per_item`: `(probabilities_NC, gold_N)` to `(N,)`, a plain value of each item to write beside the metric: its own
        score where the metric is a mean (Brier, NLL, overconfidence), the confidence where the metric is about its
        order (AUROC, AURC), else confidence less correctness.
    - `higher_is_better`: the direction in which the metric is good. Overconfidence is signed, and best at zero.
    """

    name: str
    value: Callable[[np.ndarray, np.ndarray], float]
    resampled: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    per_item: Callable[[np.ndarray, np.ndarray], np.ndarray]
    higher_is_better: bool = False


def _resampled(prepare: Prepare, on_resamples: OnResamples, probabilities_NC, gold_N, counts_RN) -> np.ndarray:
    first, second = prepare(probabilities_NC, gold_N)
    value_R = np.empty(len(counts_RN))
    for chunk in row_chunks(len(counts_RN), np.size(first)):
        value_R[chunk] = on_resamples(first, second, counts_RN[chunk])
    return value_R


def _value(prepare: Prepare, on_resamples: OnResamples, probabilities_NC, gold_N) -> float:
    first, second = prepare(probabilities_NC, gold_N)
    return float(on_resamples(first, second, np.ones((1, len(second))))[0])


def _top_label_error(kind: str, bins: int, confidence_N, correct_N, counts_RN) -> np.ndarray:
    return TOP_LABEL_ERRORS[kind](confidence_N, counts_RN, counts_RN * correct_N, bins)


def _classwise(bins: int, probabilities_NC, gold_N, counts_RN) -> np.ndarray:
    return classwise_of(probabilities_NC, gold_N, counts_RN, bins)


def _mean(items: Callable[[Any, Any], np.ndarray], first, second, counts_RN) -> np.ndarray:
    return (counts_RN @ items(first, second)) / counts_RN.sum(1)


def _excess(confidence_N, correct_N, counts_RN) -> np.ndarray:
    return aurc_of(confidence_N, correct_N, counts_RN) - aurc_of(correct_N, correct_N, counts_RN)


def _gap(probabilities_NC, gold_N) -> np.ndarray:
    confidence_N, correct_N = top_label(probabilities_NC, gold_N)
    return confidence_N - correct_N


def _confidence(probabilities_NC, gold_N) -> np.ndarray:
    return top_label(probabilities_NC, gold_N)[0]


def _metric(name: str, prepare: Prepare, on_resamples: OnResamples, per_item=_gap, **options: Any) -> Metric:
    settings = {"value": partial(_value, prepare, on_resamples), **options}
    return Metric(name, resampled=partial(_resampled, prepare, on_resamples), per_item=per_item, **settings)


def _checked(items: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[[Any, Any], np.ndarray]:
    return lambda probabilities_NC, gold_N: items(*check_probabilities(probabilities_NC, gold_N))


_ALL = [
    *(
        _metric(f"{kind}-{bins}", top_label, partial(_top_label_error, kind, bins))
        for kind, bins in (("ece", 10), ("ece", 15), ("ace", 15), ("mce", 15), ("rmsce", 15), ("debiased", 15))
    ),
    _metric("classwise-15", check_probabilities, partial(_classwise, 15)),
    _metric("smece", top_label, partial(_top_label_error, "smece", 0)),
    _metric("brier", check_probabilities, partial(_mean, brier_items), _checked(brier_items)),
    _metric("nll", check_probabilities, partial(_mean, nll_items), _checked(nll_items)),
    # Undefined on all items is an error, on some resample is not.
    _metric(
        "auroc",
        top_label,
        auroc_of,
        _confidence,
        value=lambda probabilities_NC, gold_N: auroc(*top_label(probabilities_NC, gold_N)),
        higher_is_better=True,
    ),
    _metric("aurc", top_label, aurc_of, _confidence),
    _metric("e-aurc", top_label, _excess, _confidence),
    _metric("overconfidence", top_label, partial(_mean, np.subtract)),
]

METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
