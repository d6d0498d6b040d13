"""Attributions from gradients: gradient x input, and integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365).

Legend: D words, S steps.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from trueprune._support.errors import AuditError
from trueprune.audits.faithfulness.value import Value, check_words

STEPS = 20


def gradient_x_input(
    value: Value, n_words: int, *, samples: int | None = None, seed: int = 0
) -> Float[np.ndarray, " D"]:
    """The derivative of the explained probability along each word's embeddings, summed over its tokens.

    **Arguments:** as `Attribution`; `samples` and `seed` change nothing.

    **Raises:** `AuditError` if `value` is no model that gives gradients (`faithfulness.Question`).
    """
    check_words(n_words)
    return _gradients(value, [1.0])[0]


def integrated_gradients(
    value: Value, n_words: int, *, samples: int | None = None, seed: int = 0
) -> Float[np.ndarray, " D"]:
    """The mean of these derivatives on the way from zero embeddings of all words to the text, by the midpoint rule.

    The sum over the words approaches p(full) - p(zero embeddings) as steps grow. Template and options keep their
    embeddings.

    **Arguments:** as `Attribution`; 20 steps, whatever the budget of masks.

    **Raises:** as `gradient_x_input`.
    """
    check_words(n_words)
    return _gradients(value, ((np.arange(STEPS) + 0.5) / STEPS).tolist()).mean(0)


def _gradients(value: Value, scales_S: list[float]) -> Float[np.ndarray, "S D"]:
    word_gradients = getattr(value, "word_gradients", None)
    if word_gradients is None:
        raise AuditError("this value function has no gradients", "Explain a faithfulness.Question")
    return word_gradients(scales_S)
