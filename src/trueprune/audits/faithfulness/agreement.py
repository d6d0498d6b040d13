"""How far the explanation of a pruned model is that of the dense one, on the same item.

Legend: D words.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from jaxtyping import Float

from trueprune._support.errors import AuditError
from trueprune.audits.faithfulness.value import check_scores


@dataclass(frozen=True)
class Agreement:
    """Agreement of two explanations of one item.

    **Arguments:**

    - `spearman`, `kendall`: rank correlations in [-1, 1].
    - `top_k`: overlap of the K most important words, in [0, 1].
    - `undefined`: why the correlations are 0 without having been measured; empty if they were.
    """

    spearman: float
    kendall: float
    top_k: float
    undefined: str = ""


def measure_agreement(first_D: Float[np.ndarray, " D"], second_D: Float[np.ndarray, " D"], *, k: int) -> Agreement:
    """Compare two explanations of one item.

    If all scores of an explanation are equal (as those of a single word are) it has no ranks to correlate: the
    correlations are set to 0, no agreement beyond chance, and `undefined` says why.

    **Arguments:**

    - `first_D`, `second_D`: attributions, of shape `(D,)`.
    - `k`: how many words count as the most important; more than D means all.

    **Returns:**

    The three agreements.

    **Raises:**

    - `AuditError`: no word, two lengths, a score that is not finite, or K below 1.
    """
    check_pair(first_D, second_D)
    flat = [name for name, x_D in (("first", first_D), ("second", second_D)) if bool((x_D == x_D[0]).all())]
    undefined = f"all scores of the {' and the '.join(flat)} explanation are equal" if flat else ""
    return Agreement(
        spearman(first_D, second_D), kendall(first_D, second_D), top_overlap(first_D, second_D, k), undefined
    )


def spearman(first_D: Float[np.ndarray, " D"], second_D: Float[np.ndarray, " D"]) -> float:
    """Pearson correlation of ranks, tied scores at their mean rank; 0 if all scores of one are equal."""
    check_pair(first_D, second_D)
    first_D, second_D = mean_ranks(first_D), mean_ranks(second_D)
    first_D, second_D = first_D - first_D.mean(), second_D - second_D.mean()
    scale = sqrt(first_D @ first_D) * sqrt(second_D @ second_D)
    return float(np.clip(first_D @ second_D / scale, -1.0, 1.0)) if scale > 0 else 0.0


def kendall(first_D: Float[np.ndarray, " D"], second_D: Float[np.ndarray, " D"]) -> float:
    """Kendall's tau-b: concordant less discordant pairs, over what ties leave; 0 if all scores of one are equal."""
    check_pair(first_D, second_D)
    signs = [np.greater.outer(x_D, x_D).astype(np.float64) - np.less.outer(x_D, x_D) for x_D in (first_D, second_D)]
    untied, other_untied = (np.abs(sign_DD).sum() for sign_DD in signs)
    if untied == 0 or other_untied == 0:
        return 0.0
    tau = (signs[0] * signs[1]).sum() / (sqrt(untied) * sqrt(other_untied))
    return float(np.clip(tau, -1.0, 1.0))


def top_overlap(first_D: Float[np.ndarray, " D"], second_D: Float[np.ndarray, " D"], k: int) -> float:
    """Expected share of common words among the top K of each, ties at the K-th word broken at random and independently.

    Without ties it is the plain overlap |A ∩ B|/K. Two explanations without any preference get K/D, which is chance;
    one with ties at its K-th word agrees with itself by less than 1.
    """
    check_pair(first_D, second_D)
    if k < 1:
        raise AuditError(f"an overlap of the top {k} words was asked for", "Give a K of at least 1")
    k = min(k, len(first_D))
    return float(top_odds(first_D, k) @ top_odds(second_D, k) / k)


def top_odds(scores_D: Float[np.ndarray, " D"], k: int) -> Float[np.ndarray, " D"]:
    """How likely each word is among the top K if ties are broken at random, of shape `(D,)`; the sum is K."""
    threshold = np.sort(scores_D)[-k]
    above_D, tied_D = scores_D > threshold, scores_D == threshold
    return above_D + tied_D * ((k - above_D.sum()) / tied_D.sum())


def mean_ranks(scores_D: Float[np.ndarray, " D"]) -> Float[np.ndarray, " D"]:
    """Ranks from 1 for the lowest score, tied scores at their mean, of shape `(D,)`."""
    _, group_D, counts = np.unique(scores_D, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[group_D]


def check_pair(first_D: np.ndarray, second_D: np.ndarray) -> None:
    """Raise `AuditError` unless two explanations are of as many words, and finite."""
    check_scores(first_D)
    check_scores(second_D)
    if len(first_D) != len(second_D):
        raise AuditError(f"two explanations of one item have {len(first_D)} and {len(second_D)} words")
