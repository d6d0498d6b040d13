"""Zero-shot accuracy: of several continuations of a prompt, is the right one the most likely?"""

from __future__ import annotations

import numpy as np

from trueprune.audits.measurement import Measurement
from trueprune.audits.predictions import Predictions

INSTRUMENT = "accuracy"


def accuracy_of(predictions: Predictions) -> list[Measurement]:
    """Accuracy on one task.

    **Arguments:**

    - `predictions`: of one model.

    **Returns:** `accuracy/TASK` by the logits of the options; where options are an item's own texts and differ in
    length, by log-likelihood per byte, and then also `accuracy/TASK/sum` by the logits, which confidence is taken of.
    An item is 1 or 0; where k options tie for the first place and the right one is among them, 1/k.
    """
    name = f"{INSTRUMENT}/{predictions.task}"
    own = _measurement(predictions, name, predictions.logits_NC)
    longest_N = predictions.bytes_NC.max(1)
    alike = bool(((predictions.bytes_NC == longest_N[:, None]) | (predictions.tokens_NC == 0)).all())
    if predictions.labels or predictions.scoring != "sum" or alike:
        return [own]
    with np.errstate(divide="ignore", invalid="ignore"):
        # Log-likelihoods of texts are what lengths go with; a recalibration is of the probabilities.
        per_byte_NC = np.where(predictions.bytes_NC > 0, predictions.own_logits_NC / predictions.bytes_NC, -np.inf)
    by_sum = _measurement(predictions, f"{name}/sum", predictions.logits_NC, headline=False)
    return [_measurement(predictions, name, per_byte_NC), by_sum]


def _measurement(predictions: Predictions, metric: str, scores_NC: np.ndarray, headline: bool = True) -> Measurement:
    values = np.array([credit(row, int(gold)) for row, gold in zip(scores_NC, predictions.gold_N, strict=True)])
    return Measurement(
        INSTRUMENT,
        metric,
        predictions.item_ids,
        values,
        clusters=predictions.clusters,
        headline=headline,
        details={"chance": float(np.mean(1 / predictions.n_options))},
    )


def credit(scores: np.ndarray, gold: int) -> float:
    """1 if the right option alone has the highest score, 1/k if it is one of k, else 0: no position is preferred."""
    best = scores == scores.max()
    return float(best[gold] / best.sum())
