"""Comprehensiveness and sufficiency relative to what the empty text leaves, and their soft forms.

Without it a model whose probability hardly depends on the text seems to be explained better than one that reads.
Sources: Carton et al. 2020 (arXiv 2010.04736), Zhao & Aletras 2023 (arXiv 2305.10496).

Legend: A orders, B bins, D words, R draws.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from trueprune._support.errors import AuditError
from trueprune.audits.faithfulness.value import check_scores

FLOOR = 1e-4  # the constant that the code of Zhao & Aletras takes from S0 against divisions by 0


def evidence(full: float, empty: float) -> float:
    """1 - S0 = max(0, p(full) - p(empty)): what the words of the text add to the probability of the class."""
    return max(0.0, full - empty)


def is_normalisable(full: float, empty: float) -> bool:
    """Whether the words add at least 1e-4, below which normalised values say little; count the items where not."""
    return evidence(full, empty) >= FLOOR


def normalised_sufficiency(full: float, empty: float, only_AB: Float[np.ndarray, "A B"]) -> Float[np.ndarray, "A B"]:
    """NS = (S - S0)/(1 - S0) clipped to [0, 1], S = 1 - max(0, p(full) - p(only)), S0 = S of the empty text.

    1 - S0 is taken as at least 1e-4, so that the value is defined where the empty text has the full one's probability
    (or more): there NS is 1 if the words alone keep that probability, and 0 if they lose 1e-4 of it or more. The
    authors' code shifts S0 by 1e-4 on every item instead.

    **Arguments:**

    - `full`, `empty`: p(full) and p(empty) of the explained class.
    - `only_AB`: p on the top words alone, of shape `(A, B)`.

    **Returns:**

    Of shape `(A, B)`; higher is more faithful, unlike plain sufficiency.
    """
    lost_AB = np.maximum(0.0, full - only_AB)
    return np.clip(1 - lost_AB / max(evidence(full, empty), FLOOR), 0.0, 1.0)


def normalised_comprehensiveness(
    full: float, empty: float, without_AB: Float[np.ndarray, "A B"]
) -> Float[np.ndarray, "A B"]:
    """NC = max(0, p(full) - p(without))/(1 - S0) clipped to [0, 1].

    1 - S0 is taken as at least 1e-4, as in `normalised_sufficiency`: where the empty text has the full one's
    probability, NC is 0 if removing the words loses nothing, and 1 if it loses 1e-4 or more.

    **Arguments:**

    - `full`, `empty`: p(full) and p(empty) of the explained class.
    - `without_AB`: p without the top words, of shape `(A, B)`.

    **Returns:**

    Of shape `(A, B)`; higher is more faithful.
    """
    lost_AB = np.maximum(0.0, full - without_AB)
    return np.clip(lost_AB / max(evidence(full, empty), FLOOR), 0.0, 1.0)


def keep_probabilities(scores_D: Float[np.ndarray, " D"], retained: float | None = None) -> Float[np.ndarray, " D"]:
    """How likely each element of a word's embedding is kept by the soft metrics: importance scaled to [0, 1].

    Elements of the embedding of word i are kept independently with probability q_i for Soft-NS, 1 - q_i for Soft-NC
    (Zhao & Aletras 2023). Min-max scaling keeps the order but lets one outlying score decide how much of the
    text remains; `retained` fixes that: q is stretched linearly towards 0 or towards 1 until its mean is `retained`
    (ours; for Soft-NC the share kept is then 1 - `retained`).

    **Arguments:**

    - `scores_D`: attributions, of shape `(D,)`. If all are equal there is no importance to scale: every q_i is 1/2.
    - `retained`: the expected share of embedding elements that Soft-NS keeps, in (0, 1); as it comes by default.

    **Returns:**

    q, of shape `(D,)`.

    **Raises:**

    - `AuditError`: no word, a score that is not finite, or a share outside (0, 1).
    """
    check_scores(scores_D)
    lowest, highest = scores_D.min(), scores_D.max()
    if highest > lowest:
        # halved, for the span of two finite numbers need not be finite
        keep_D = (scores_D / 2 - lowest / 2) / (highest / 2 - lowest / 2)
    else:
        keep_D = np.full(len(scores_D), 0.5)
    if retained is None:
        return keep_D
    if not 0 < retained < 1:
        raise AuditError(f"the share to retain is {retained}", "Give a share between 0 and 1")
    mean = keep_D.mean()
    return keep_D * (retained / mean) if mean >= retained else 1 - (1 - keep_D) * ((1 - retained) / (1 - mean))


def soft_sufficiency(full: float, zeroed: float, kept_R: Float[np.ndarray, " R"]) -> float:
    """Soft-NS: `normalised_sufficiency` of the mean over draws (Zhao & Aletras 2023).

    Probabilities are averaged before the formula, not its values after: the clipping would bias noisy draws.

    **Arguments:**

    - `full`: p(full).
    - `zeroed`: p where all embeddings of the text are zero, from which S0 comes.
    - `kept_R`: p with elements kept with probability q, one a draw, of shape `(R,)`.

    **Returns:**

    In [0, 1]; higher is more faithful.
    """
    return float(normalised_sufficiency(full, zeroed, kept_R.mean(keepdims=True)[None])[0, 0])


def soft_comprehensiveness(full: float, zeroed: float, dropped_R: Float[np.ndarray, " R"]) -> float:
    """Soft-NC: `normalised_comprehensiveness` of the mean over draws (Zhao & Aletras 2023).

    **Arguments:**

    - `full`, `zeroed`: as in `soft_sufficiency`.
    - `dropped_R`: p with elements kept with probability 1 - q, one a draw, of shape `(R,)`.

    **Returns:**

    In [0, 1]; higher is more faithful.
    """
    return float(normalised_comprehensiveness(full, zeroed, dropped_R.mean(keepdims=True)[None])[0, 0])
