"""What an explanation may ask of a model: the probability of one class on texts with some words left out.

Legend: S masks, D words; in a mask True means that the word is kept.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float

from trueprune._support.errors import AuditError

Value = Callable[[Bool[np.ndarray, "S D"]], Float[np.ndarray, " S"]]


def evaluate(value: Value, masks_SD: Bool[np.ndarray, "S D"]) -> Float[np.ndarray, " S"]:
    """Ask the model once, for all masks.

    **Arguments:**

    - `value`: masks of shape `(S, D)` to the probability of the explained class (the one that the model predicts on the
        full text), of shape `(S,)`. It may be asked for the same mask again.
    - `masks_SD`: the masks, of shape `(S, D)`.

    **Returns:**

    Of shape `(S,)`, float64.

    **Raises:**

    - `AuditError`: a value is not finite, or there is not one a mask.
    """
    values_S = np.asarray(value(masks_SD), dtype=np.float64)
    if values_S.shape != (len(masks_SD),):
        raise AuditError(f"the value function gave shape {values_S.shape} for {len(masks_SD)} masks")
    if not np.isfinite(values_S).all():
        bad = int((~np.isfinite(values_S)).sum())
        raise AuditError(
            f"the model's probability is not finite on {bad} of {len(masks_SD)} texts with words left out",
            "Load the model in float32 or bfloat16: float16 overflows in some models",
        )
    return values_S


def check_words(n_words: int) -> int:
    """Return `n_words` if there is a word to explain, raise `AuditError` if not."""
    if n_words < 1:
        raise AuditError("there is no word to explain: the text of an item is empty", "Leave items without words out")
    return n_words


def check_samples(samples: int) -> int:
    """Return `samples` if a regression can be fitted to as many masks, raise `AuditError` if not."""
    if samples < 2:
        raise AuditError(f"an explanation from {samples} masks was asked for", "Give at least 2 samples")
    return samples


def check_scores(scores_D: np.ndarray) -> np.ndarray:
    """Return attributions of shape `(D,)` if there are some and all are finite, raise `AuditError` if not."""
    check_words(len(scores_D))
    if not np.isfinite(scores_D).all():
        raise AuditError("an attribution is not finite", "Check the method that made it")
    return scores_D


def every_mask(n_words: int) -> Bool[np.ndarray, "S D"]:
    """All 2^D masks; row number r keeps word i where bit i of r is set: row 0 is the empty text, the last the full."""
    return (np.arange(2**n_words)[:, None] >> np.arange(n_words)) & 1 == 1
