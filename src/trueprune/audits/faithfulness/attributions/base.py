"""What every attribution method is given and gives back, so that a new one is one file and one registration line.

Legend: D words.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from trueprune.audits.faithfulness.value import Value


@runtime_checkable
class Attribution(Protocol):
    """A method that says how much each word speaks for the explained class."""

    def __call__(
        self, value: Value, n_words: int, *, samples: int | None = None, seed: int = 0
    ) -> Float[np.ndarray, " D"]:
        """Explain one item.

        **Arguments:**

        - `value`: the model, see `faithfulness.value`.
        - `n_words`: D, the number of words of the item, at least 1.
        - `samples`: the budget of masks of a method that samples, the method's own default if `None`.
        - `seed`: seed of everything random. Give every item a seed of its own, or the same positions are drawn in all.

        **Returns:**

        Signed importance for the explained class, of shape `(D,)`, float64.

        **Raises:**

        - `AuditError`: there is no word, or the method cannot deal with so many words or so few samples.
        """
        ...
