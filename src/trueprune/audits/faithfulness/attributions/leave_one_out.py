"""Leave-one-out: the cheapest explanation, which the others should beat.

Legend: D words.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from trueprune.audits.faithfulness.value import Value, check_words, evaluate


def leave_one_out(value: Value, n_words: int, *, samples: int | None = None, seed: int = 0) -> Float[np.ndarray, " D"]:
    """v(full) - v(full without i): by how much the probability falls when one word goes.

    **Arguments:**

    - `value`, `n_words`: see `Attribution`; D + 1 masks are asked for in one call.
    - `samples`, `seed`: not read.

    **Returns:**

    Of shape `(D,)`.

    **Raises:**

    - `AuditError`: no word.
    """
    del samples, seed
    check_words(n_words)
    values_S = evaluate(value, np.concatenate([np.ones((1, n_words), dtype=bool), ~np.eye(n_words, dtype=bool)]))
    return values_S[0] - values_S[1:]
