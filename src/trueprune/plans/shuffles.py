"""Labels shuffled many times over, and p-values that count how many tests were made.

Legend: N examples, P shuffles, K tests.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float


def shuffled_labels(
    labels_N: Bool[np.ndarray, " N"], clusters: Sequence[str], shuffles: int, seed: int = 0
) -> Bool[np.ndarray, "P N"]:
    """Labels as they might have fallen if they meant nothing.

    Where a cluster holds both labels (a right and a wrong answer to one question), they are shuffled within it.
    Clusters of one label (answers to one question that are all right, or all wrong) are shuffled as wholes, among each
    other.

    **Arguments:**

    - `labels_N`: of shape `(N,)`.
    - `clusters`: of each example.
    - `shuffles`: P.
    - `seed`: of the shuffles.

    **Returns:** of shape `(P, N)`.
    """
    rng = np.random.default_rng(seed)
    _, cluster_N = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    mixed_N = in_mixed_clusters(labels_N, clusters)
    result_PN = np.broadcast_to(labels_N, (shuffles, len(labels_N))).copy()
    within = np.flatnonzero(mixed_N)
    # Random keys below 1 put the examples of a cluster in random order, and clusters stay where they are.
    order_PW = np.argsort(cluster_N[within] + rng.random((shuffles, len(within))), axis=1)
    by_cluster_W = labels_N[within][np.argsort(cluster_N[within], kind="stable")]
    np.put_along_axis(result_PN, within[order_PW], np.broadcast_to(by_cluster_W, order_PW.shape), axis=1)
    whole = np.flatnonzero(~mixed_N)
    _, first_C, place_W = np.unique(cluster_N[whole], return_index=True, return_inverse=True)
    order_PC = np.argsort(rng.random((shuffles, len(first_C))), axis=1)
    result_PN[:, whole] = labels_N[whole][first_C][order_PC][:, place_W]
    return result_PN


def in_mixed_clusters(labels_N: Bool[np.ndarray, " N"], clusters: Sequence[str]) -> Bool[np.ndarray, " N"]:
    """Which examples belong to a cluster that holds both labels, of shape `(N,)`."""
    _, cluster_N = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    size_C, true_C = np.bincount(cluster_N), np.bincount(cluster_N, weights=labels_N)
    return ((true_C > 0) & (true_C < size_C))[cluster_N]


def benjamini_hochberg(p_K: Float[np.ndarray, " K"]) -> Float[np.ndarray, " K"]:
    """Adjusted p-values (Benjamini and Hochberg 1995): those below q are at most a share q of false alarms.

    `q_(i) = min_{j >= i} min(1, p_(j) K / j)`, in the order given.
    """
    order = np.argsort(p_K, kind="stable")
    scaled = p_K[order] * len(p_K) / np.arange(1, len(p_K) + 1)
    result = np.empty(len(p_K))
    result[order] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    return result
