"""A random explanation: what the faithfulness metrics say when nothing is explained.

Legend: D words.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from trueprune.audits.faithfulness.value import Value, check_words


def random_control(value: Value, n_words: int, *, samples: int | None = None, seed: int = 0) -> Float[np.ndarray, " D"]:
    """Standard normal scores; the model is not asked.

    **Arguments:**

    - `n_words`: D.
    - `seed`: what is drawn; one an item, or the same positions lead in all of them.
    - `value`, `samples`: not read.

    **Returns:**

    Of shape `(D,)`.

    **Raises:**

    - `AuditError`: no word.
    """
    del value, samples
    return np.random.default_rng(seed).standard_normal(check_words(n_words))
