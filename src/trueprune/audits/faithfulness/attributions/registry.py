"""The list of attribution methods, so that a new one needs one line here and nothing elsewhere."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from trueprune._support.errors import AuditError
from trueprune.audits.faithfulness.attributions.base import Attribution
from trueprune.audits.faithfulness.attributions.exact_shapley import exact_shapley
from trueprune.audits.faithfulness.attributions.gradients import gradient_x_input, integrated_gradients
from trueprune.audits.faithfulness.attributions.kernel_shap import kernel_shap
from trueprune.audits.faithfulness.attributions.leave_one_out import leave_one_out
from trueprune.audits.faithfulness.attributions.lime import lime
from trueprune.audits.faithfulness.attributions.random_control import random_control
from trueprune.audits.faithfulness.value import Value

ATTRIBUTIONS: dict[str, Attribution] = {
    "lime": lime,
    "kernel-shap": kernel_shap,
    "shapley": exact_shapley,
    "leave-one-out": leave_one_out,
    "gradient-x-input": gradient_x_input,
    "integrated-gradients": integrated_gradients,
    "random": random_control,
}


def attribute(
    name: str, value: Value, n_words: int, *, samples: int | None = None, seed: int = 0
) -> Float[np.ndarray, " D"]:
    """Explain one item by the method called `name`; see `Attribution` for arguments and errors."""
    return ATTRIBUTIONS[check_attribution(name)](value, n_words, samples=samples, seed=seed)


def check_attribution(name: str) -> str:
    """Return `name` if it is a key of `ATTRIBUTIONS`, raise `AuditError` if not."""
    if name not in ATTRIBUTIONS:
        raise AuditError(f"there is no attribution method {name!r}", f"Choose from {', '.join(ATTRIBUTIONS)}")
    return name
