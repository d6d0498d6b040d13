"""AVSS: the activation variance-sparsity score of a layer (arXiv 2411.02117).

Legend: L layers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from trueprune._support.errors import PlanError
from trueprune.models.anatomy import Anatomy
from trueprune.observe.moments import Estimator
from trueprune.observe.profile import LayerProfile, sites_of

Site = Literal["auto", "output", "update", "attention", "mlp", "hidden"]
# Where the score of a unit is taken unless another place is asked for.
OWN_SITE = {"block": "output", "attention": "attention", "mlp": "mlp"}


@dataclass(frozen=True)
class AvssOptions:
    """How AVSS is taken.

    **Arguments:**

    - `site`: `auto` (the block's output as in the paper; for an attention or MLP what it adds to the stream), `output`,
        `update` (output minus input), `attention`, `mlp`, or `hidden` (the MLP's activations before its last matrix).
    - `estimator`: `official` (the authors' scripts), `aifeducation` (the R port), `token` or `neuron`.
    - `smoothing`: Laplace's rule for the share of zeros, `(zeros + 1) / (entries + 2)`, so that it is never 0.
    """

    site: Site = "auto"
    estimator: Estimator = "official"
    smoothing: bool = True


def avss(variance_L: Float[np.ndarray, " L"], sparsity_L: Float[np.ndarray, " L"]) -> Float[np.ndarray, " L"]:
    """`AVSS = AV / AS`: layers whose activations vary little and are often zero score low (eq. 3).

    **Arguments:**

    - `variance_L`: activation variance, of shape `(L,)`.
    - `sparsity_L`: share of activations near zero, of shape `(L,)`.

    **Returns:** of shape `(L,)`.

    **Raises:** `PlanError` where a share is zero: the score would be infinite.
    """
    if (sparsity_L == 0).any():
        layer = int(np.flatnonzero(sparsity_L == 0)[0])
        raise PlanError(
            f"no activation of layer {layer} is near zero, so its AVSS is infinite",
            "Keep --avss-smoothing, or raise --near-zero (e.g. 0.01 with --near-zero-relative)",
        )
    return variance_L / sparsity_L


def normalised(score_L: Float[np.ndarray, " L"]) -> Float[np.ndarray, " L"]:
    """Each layer's share of the sum over layers (NAVSS); layers without a score (NaN) have none.

    **Arguments:**

    - `score_L`: non-negative, of shape `(L,)`.
    """
    return score_L / np.nansum(score_L)


def cumulative(share_L: Float[np.ndarray, " L"], order: Literal["layer", "rank"]) -> Float[np.ndarray, " L"]:
    """Cumulative AVSS of each layer, in the order of the layers (the paper's CAVSS) or from the lowest score up.

    The authors' scripts cumulate in layer order and then take those under a quarter, which is a prefix of the network
    and not its least important layers; the mass rule here cumulates from the lowest score up.

    **Arguments:**

    - `share_L`: normalised scores, of shape `(L,)`.
    - `order`: `"layer"` or `"rank"` (ties by depth).

    **Returns:** of shape `(L,)`, at each layer's own place.
    """
    if order == "layer":
        return np.cumsum(np.nan_to_num(share_L))
    rank = np.argsort(share_L, kind="stable")
    result = np.empty_like(share_L)
    result[rank] = np.cumsum(share_L[rank])
    return result


def check_site(anatomy: Anatomy, options: AvssOptions) -> None:
    """Refuse a place that no block of the model has, before anything is observed.

    **Raises:** `PlanError`.
    """
    if options.site not in ("auto", "output", "update"):
        _refuse_missing(options.site, sites_of(anatomy))


def _refuse_missing(site: str, sites: Iterable[str]) -> None:
    if site not in sites:
        remedy = f"Use --avss-site {' or '.join(sorted(sites))}"
        raise PlanError(f"no block of this model has the site {site!r}", remedy)


def profile_avss(profile: LayerProfile, unit: str, options: AvssOptions) -> np.ndarray:
    """AVSS of every layer from what was observed, of shape `(L,)`; NaN where a layer has no such place.

    **Arguments:**

    - `profile`: what was observed.
    - `unit`: `"block"`, `"attention"` or `"mlp"`.
    - `options`: place, estimator, smoothing.

    **Raises:** `PlanError` when the place was not observed in any layer.
    """
    site = OWN_SITE[unit] if options.site == "auto" else options.site
    _refuse_missing(site, profile.variance)
    zeros_L2 = profile.zeros[site][options.estimator]
    extra = (1, 2) if options.smoothing else (0, 0)
    sparsity_L = (zeros_L2[:, 0] + extra[0]) / (zeros_L2[:, 1] + extra[1])
    return avss(profile.variance[site][options.estimator], sparsity_L)
