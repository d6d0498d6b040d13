"""The draws of the bootstrap: which items each resample holds, the same for all metrics of the same items.

Legend: n items, G clusters, R resamples.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int

from trueprune._support.errors import AuditError
from trueprune.audits.measurement import Measurement

# An audit asks for the same few draws hundreds of times. Larger ones are made anew: kept, they would fill the memory.
KEPT, KEPT_NUMBERS = 12, 1 << 22
_resampled: weakref.WeakKeyDictionary[Measurement, tuple[int, int, np.ndarray]] = weakref.WeakKeyDictionary()


def resampled(measurement: Measurement, resamples: int, seed: int) -> Float[np.ndarray, " R"]:
    """A metric on its resamples, taken once: its interval, its changes and its file ask for the same.

    **Arguments:**

    - as for `counts_of`.

    **Returns:** of shape `(R,)`, not to be written to.
    """
    known = _resampled.get(measurement)
    if known is not None and known[:2] == (resamples, seed):
        return known[2]
    values_R = np.asarray(measurement.resample(counts_of(measurement, resamples, seed)), dtype=np.float64)
    values_R.setflags(write=False)
    _resampled[measurement] = resamples, seed, values_R
    return values_R


def paired_resamples(
    before: Measurement, after: Measurement, resamples: int, seed: int
) -> tuple[Float[np.ndarray, " R"], Float[np.ndarray, " R"]]:
    """A metric of two models on the same resamples of the same items.

    **Arguments:**

    - `before`, `after`: of the dense and of the pruned model.
    - `resamples`, `seed`: as for `counts_of`.
    """
    if list(cluster_labels(before)) == list(cluster_labels(after)):
        return resampled(before, resamples, seed), resampled(after, resamples, seed)
    counts_Rn = counts_of(before, resamples, seed)
    return before.resample(counts_Rn), after.resample(counts_Rn)


def counts_of(measurement: Measurement, resamples: int, seed: int) -> Float[np.ndarray, "R n"]:
    """How often each item of a measurement occurs in each resample; not to be written to.

    **Arguments:**

    - `measurement`: its items, or their clusters where they have some, are drawn with replacement.
    - `resamples`: R.
    - `seed`: the same items and seed give the same draws, whatever the metric.

    **Raises:** `AuditError` if there are no items.
    """
    if measurement.n == 0:
        raise AuditError(f"{measurement.instrument} {measurement.metric} has no items", "Give more items")
    labels = tuple(cluster_labels(measurement))
    draw = _kept_counts if resamples * len(labels) <= KEPT_NUMBERS else _counts
    return draw(labels, resamples, seed)


def _counts(labels: tuple[str, ...], resamples: int, seed: int) -> np.ndarray:
    clusters = np.unique(np.array(labels, dtype=str), return_inverse=True)[1].reshape(-1)
    counts_Rn = cluster_counts(clusters, resamples, seed)
    counts_Rn.setflags(write=False)
    return counts_Rn


_kept_counts = lru_cache(maxsize=KEPT)(_counts)


def cluster_counts(clusters: Int[np.ndarray, " n"], resamples: int, seed: int) -> Float[np.ndarray, "R n"]:
    """How often each item occurs when clusters are drawn with replacement.

    **Arguments:**

    - `clusters`: integer cluster of each item, `0 .. G-1`, of shape `(n,)`.
    - `resamples`, `seed`: as for `counts_of`.

    **Returns:** of shape `(R, n)`.
    """
    groups = int(clusters.max()) + 1
    rng = np.random.default_rng(seed)
    counts_RG = rng.multinomial(groups, np.full(groups, 1 / groups), size=resamples)
    return counts_RG[:, clusters].astype(np.float64)


def cluster_labels(measurement: Measurement) -> Sequence[str]:
    """What the items of a measurement are drawn with: the label of the cluster, or the item alone."""
    return measurement.item_ids if measurement.clusters is None else measurement.clusters


_prints: dict[int, tuple[weakref.ref[np.ndarray], str]] = {}


def fingerprint(counts_Rn: Float[np.ndarray, "R n"]) -> str:
    """A hash of how often each item occurs in each resample; empty for what is no count."""
    known = _prints.get(id(counts_Rn))
    if known is not None and known[0]() is counts_Rn:
        return known[1]
    whole_Rn = counts_Rn.astype(np.uint32)
    if not (whole_Rn == counts_Rn).all():
        return ""
    found = hashlib.blake2b(whole_Rn.tobytes() + str(whole_Rn.shape).encode(), digest_size=16).hexdigest()
    if not counts_Rn.flags.writeable:
        # What nobody can write to keeps its hash.
        for key in [key for key, (array, _) in list(_prints.items()) if array() is None]:
            _prints.pop(key, None)
        _prints[id(counts_Rn)] = weakref.ref(counts_Rn), found
    return found
