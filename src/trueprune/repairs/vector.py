"""A scale and a shift for each class, because pruning can also favour one class over another (Guo et al. 2017).

Legend: N items, C classes, K = 2 C parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from trueprune._support.errors import RepairError
from trueprune.repairs.base import REFIT, check_items, check_scores, log_probabilities, mean_nll, read_numbers

# Keeps the fit finite where a class is never gold or perfectly told apart.
PENALTY = 1e-3


@dataclass(frozen=True)
class Vector:
    """softmax(w * ln p + b) with w and b per class: vector scaling, Guo et al. 2017 (arXiv 1706.04599), section 4.2.

    Guo et al. scale logits. These are scores of options, where what is common to an item's options means nothing, so we
    scale ln p, which is one normalisation of them; w = 1, b = 0 is the model itself. Answers may change.

    **Arguments:**

    - `weight`: w of each class.
    - `bias`: b of each class.
    """

    weight: tuple[float, ...]
    bias: tuple[float, ...]

    def __post_init__(self):
        if len(self.weight) != len(self.bias):
            raise RepairError(f"vector scaling has {len(self.weight)} weights and {len(self.bias)} shifts", REFIT)

    def probabilities(self, scores_NC: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "N C"]:
        """softmax(w * ln p + b); see `Recalibration`. Every item must have all C classes."""
        log_p_NC = _log_p_of_classes(check_scores(scores_NC))
        if log_p_NC.shape[1] != len(self.weight):
            raise RepairError(
                f"vector scaling was fitted on {len(self.weight)} classes, the items have {log_p_NC.shape[1]}", REFIT
            )
        return np.exp(log_probabilities(log_p_NC * np.array(self.weight) + np.array(self.bias)))

    def to_json(self) -> dict[str, Any]:
        """Plain data; see `Recalibration`."""
        return {"schema": 1, "method": "vector", "weight": list(self.weight), "bias": list(self.bias)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Vector:
        """Read `to_json` back.

        **Raises:** `RepairError`.
        """
        return cls(read_numbers(data, "weight"), read_numbers(data, "bias"))


def fit_vector(
    scores_NC: Float[np.ndarray, "N C"], gold_N: Int[np.ndarray, " M"], *, penalty: float = PENALTY
) -> Vector:
    """Vector scaling by Newton's method with a line search: Guo et al. 2017, section 4.2.

    Minimises mean NLL + penalty/2 (‖w - 1‖² + ‖b‖²), which is convex, from w = 1, b = 0: the likelihood of the items
    cannot get worse. The penalty is ours.

    **Arguments:**

    - `scores_NC`: log-scores on held-out items; column c must mean the same class in every item.
    - `gold_N`: the right classes, counted from 0.
    - `penalty`: above 0.

    **Returns:** the fit.

    **Raises:** `RepairError` for bad items (see `check_items`), items that lack a class, or gold answers of one class
    only, for which the best shift is infinite.
    """
    log_p_NC = _log_p_of_classes(check_items(scores_NC, gold_N))
    if len(np.unique(gold_N)) == 1:
        raise RepairError(f"all {len(gold_N)} gold answers are class {gold_N[0]}", "Hold out items of several classes")
    if not penalty > 0:
        raise RepairError(f"the penalty of vector scaling is {penalty}", "Give one above 0")
    c = log_p_NC.shape[1]
    is_gold_NC = (np.arange(c) == gold_N[:, None]).astype(np.float64)
    identity_K = np.concatenate([np.ones(c), np.zeros(c)])

    def objective(u_K: np.ndarray) -> float:
        return mean_nll(log_p_NC * u_K[:c] + u_K[c:], gold_N) + penalty / 2 * float(((u_K - identity_K) ** 2).sum())

    u_K, value = identity_K, objective(identity_K)
    for _ in range(100):
        p_NC = np.exp(log_probabilities(log_p_NC * u_K[:c] + u_K[c:]))
        gradient_K = _gradient(p_NC - is_gold_NC, log_p_NC) + penalty * (u_K - identity_K)
        step_K = -np.linalg.solve(_hessian(p_NC, log_p_NC) + penalty * np.eye(2 * c), gradient_K)
        slope, size = float(gradient_K @ step_K), 1.0
        while size > 1e-10 and not objective(u_K + size * step_K) <= value + 1e-4 * size * slope:
            size /= 2
        if size <= 1e-10 or -slope <= 1e-20:
            break
        u_K = u_K + size * step_K
        value = objective(u_K)
    return Vector(tuple(u_K[:c].tolist()), tuple(u_K[c:].tolist()))


def _gradient(residual_NC: Float[np.ndarray, "N C"], x_NC: Float[np.ndarray, "N C"]) -> Float[np.ndarray, " K"]:
    return np.concatenate([(residual_NC * x_NC).mean(0), residual_NC.mean(0)])


def _hessian(p_NC: Float[np.ndarray, "N C"], x_NC: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "K K"]:
    n = len(p_NC)
    px_NC = p_NC * x_NC
    rows_NK = np.concatenate([px_NC, p_NC], 1)
    diagonal_KK = np.block(
        [
            [np.diag((px_NC * x_NC).mean(0)), np.diag(px_NC.mean(0))],
            [np.diag(px_NC.mean(0)), np.diag(p_NC.mean(0))],
        ]
    )
    return diagonal_KK - rows_NK.T @ rows_NK / n


def _log_p_of_classes(scores_NC: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "N C"]:
    if (lacking_N := ~np.isfinite(scores_NC).all(1)).any():
        raise RepairError(
            f"item {lacking_N.argmax()} lacks an option that others have, and vector scaling has one weight a class",
            "Use temperature scaling for items with options of their own",
        )
    return log_probabilities(scores_NC)
