"""The papers' own regression, kept so that their numbers can be made again: scikit-learn, no penalty, raw features."""

from __future__ import annotations

import warnings

import numpy as np
import torch

from trueprune._support.errors import AuditError
from trueprune.audits.probes.base import require_both_classes


def fit_reference(x_ND: torch.Tensor, y_N: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Unpenalised logistic regression as the code of arXiv 2407.12831 solves it: lbfgs, at most 100 iterations.

    **Arguments:**

    - `x_ND`: raw features, of shape `(N, D)`.
    - `y_N`: 0 or 1, of shape `(N,)`, both present.

    **Returns:**

    Coefficients, of shape `(D,)`, float64, and the intercept.
    """
    require_both_classes(y_N)
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise AuditError(
            "the reference probes need scikit-learn, which is not installed", "pip install trueprune[reference]"
        ) from error
    with warnings.catch_warnings():
        # The papers' fits stop at the iteration limit too; going on would be another probe.
        warnings.simplefilter("ignore", ConvergenceWarning)
        # C = inf is `penalty=None` in every scikit-learn release; the word itself is deprecated since 1.8.
        model = LogisticRegression(C=np.inf, max_iter=100).fit(x_ND.cpu().numpy(), y_N.cpu().numpy())
    return torch.from_numpy(model.coef_[0].astype(np.float64)), float(model.intercept_[0])
