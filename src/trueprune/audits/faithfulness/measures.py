"""From explanations to measurements: faithfulness and plausibility of a model, and agreement with the dense one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trueprune.audits.faithfulness.agreement import measure_agreement
from trueprune.audits.faithfulness.explain import Explanation
from trueprune.audits.faithfulness.normalised import is_normalisable
from trueprune.audits.measurement import Measurement

INSTRUMENT = "faithfulness"
# Metric, field of an explanation, whether higher is better, whether tables show it.
METRICS = (
    ("comprehensiveness", "comprehensiveness", True, True),
    ("sufficiency", "sufficiency", False, True),
    ("normalised-comprehensiveness", "normalised_comprehensiveness", True, False),
    ("normalised-sufficiency", "normalised_sufficiency", True, False),
    ("naopc-comprehensiveness", "naopc_comprehensiveness", True, True),
    ("naopc-sufficiency", "naopc_sufficiency", False, False),
    ("soft-comprehensiveness", "soft_comprehensiveness", True, False),
    ("soft-sufficiency", "soft_sufficiency", True, False),
    ("plausibility-precision", "precision", True, False),
    ("plausibility-recall", "recall", True, False),
    ("plausibility-f1", "f1", True, False),
    ("plausibility-iou", "iou", True, False),
    ("plausibility-auprc", "auprc", True, True),
)
AGREEMENT = ("spearman", "kendall", "top_k")


def faithfulness_of(found: Sequence[Explanation]) -> list[Measurement]:
    """Faithfulness and plausibility, for each task and attribution.

    **Arguments:**

    - `found`: the explanations of one model.

    **Returns:** `METRIC/TASK/ATTRIBUTION` each. Plausibility is of the items with a rationale, normalised AOPC of those
    short enough; which items these are depends on the texts alone, so that models are paired.
    """
    measurements = []
    for (task, attribution), group in _grouped(found).items():
        first = attribution == found[0].attribution
        for metric, field, higher, headline in METRICS:
            known = [(one, getattr(one, field)) for one in group]
            known = [(one, value) for one, value in known if value is not None]
            if not known:
                continue
            name = f"{metric}/{task}/{attribution}"
            rows, values = [one for one, _ in known], [value for _, value in known]
            measurements.append(_measurement(name, rows, values, higher, headline and first, _details(metric, rows)))
    return measurements


def agreement_of(dense: Sequence[Explanation], found: Sequence[Explanation]) -> list[Measurement]:
    """How much the explanations of a pruned model are those of the dense one.

    Only items on which both prefer the same option: explanations of different options have nothing to agree about.
    Whether they do is itself an item's value, in `same-option`.

    **Arguments:**

    - `dense`, `found`: explanations of the same items by the dense and the pruned model.

    **Returns:** `spearman`, `kendall` and `top-k` (share of the fifth of the words that matter most, at least one) as
    `METRIC/TASK/ATTRIBUTION`, and `same-option/TASK`.
    """
    before = {(one.task, one.item, one.attribution): one for one in dense}
    measurements = []
    for (task, attribution), group in _grouped(found).items():
        pairs = [(before[key], one) for one in group if (key := (one.task, one.item, one.attribution)) in before]
        if not pairs:
            continue
        if attribution == found[0].attribution:
            same = [float(theirs.option == one.option) for theirs, one in pairs]
            measurements.append(_measurement(f"same-option/{task}", [one for _, one in pairs], same, True, False, {}))
        alike = [(theirs, one) for theirs, one in pairs if theirs.option == one.option]
        if not alike or attribution == "random":
            continue
        results = [
            measure_agreement(np.array(theirs.scores), np.array(one.scores), k=max(1, round(len(one.words) / 5)))
            for theirs, one in alike
        ]
        details = {"compared_with": "dense", "items": len(alike), "undefined": sum(bool(r.undefined) for r in results)}
        for name in AGREEMENT:
            values = [float(getattr(result, name)) for result in results]
            metric = f"{name.replace('_', '-')}/{task}/{attribution}"
            headline = name == "spearman" and attribution == found[0].attribution
            measurements.append(_measurement(metric, [one for _, one in alike], values, True, headline, details))
    return measurements


def _grouped(found: Sequence[Explanation]) -> dict[tuple[str, str], list[Explanation]]:
    groups: dict[tuple[str, str], list[Explanation]] = {}
    for one in found:
        groups.setdefault((one.task, one.attribution), []).append(one)
    return groups


def _details(metric: str, rows: Sequence[Explanation]) -> dict[str, Any]:
    if metric in ("comprehensiveness", "sufficiency"):
        by_bin = np.mean([getattr(one, f"{metric}_bins") for one in rows], axis=0)
        return {"by_bin": by_bin.tolist()}
    if metric.startswith("normalised"):
        # There the floor of the denominator decides, and the value is close to 0 or 1.
        return {"without_evidence": sum(not is_normalisable(one.full, one.empty) for one in rows)}
    if metric.startswith("naopc"):
        return {"exact": sum(bool(one.naopc_exact) for one in rows)}
    return {}


def _measurement(
    metric: str,
    rows: Sequence[Explanation],
    values: Sequence[float],
    higher_is_better: bool,
    headline: bool,
    details: dict[str, Any],
) -> Measurement:
    return Measurement(
        INSTRUMENT,
        metric,
        [one.item for one in rows],
        np.array(values, dtype=np.float64),
        clusters=[one.cluster for one in rows],
        higher_is_better=higher_is_better,
        headline=headline,
        details=details,
    )
