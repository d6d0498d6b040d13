"""Shapley values by their definition: the oracle for the estimates, and affordable for short texts.

Legend: S = 2^D masks, D words.
"""

from __future__ import annotations

from math import comb

import numpy as np
from jaxtyping import Float

from trueprune._support.errors import AuditError
from trueprune.audits.faithfulness.value import Value, check_words, evaluate, every_mask

MAX_WORDS = 12


def exact_shapley(value: Value, n_words: int, *, samples: int | None = None, seed: int = 0) -> Float[np.ndarray, " D"]:
    """phi_i = sum over T without i of |T|! (D-|T|-1)!/D! (v(T + i) - v(T)) (Shapley 1953; Lundberg & Lee 2017, eq. 4).

    **Arguments:**

    - `value`, `n_words`: see `Attribution`; the 2^D masks are asked for in one call.
    - `samples`, `seed`: not read.

    **Returns:**

    Of shape `(D,)`; the sum is v(full) - v(empty).

    **Raises:**

    - `AuditError`: no word, or more than 12.
    """
    del samples, seed
    if check_words(n_words) > MAX_WORDS:
        raise AuditError(
            f"exact Shapley values of {n_words} words need 2^{n_words} texts",
            f"Choose kernel-shap, or items of at most {MAX_WORDS} words",
        )
    masks_SD = every_mask(n_words)
    values_S = evaluate(value, masks_SD)
    sizes_S = masks_SD.sum(1)
    # |T|! (D-|T|-1)!/D! = 1/(D C(D-1, |T|)); T is the mask without the word
    odds = np.array([1 / (n_words * comb(n_words - 1, size)) for size in range(n_words)])
    joins_S = odds[(sizes_S - 1).clip(0)]
    lacks_S = odds[sizes_S.clip(max=n_words - 1)]
    return np.where(masks_SD, joins_S[:, None], -lacks_S[:, None]).T @ values_S
