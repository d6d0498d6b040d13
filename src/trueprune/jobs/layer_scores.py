"""The layer scores of a scan: AVSS, block influence, angular distance, cosines, as plain data and plots."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from trueprune._support.errors import PlanError
from trueprune.observe.moments import ESTIMATORS
from trueprune.observe.profile import LayerProfile
from trueprune.plans.avss import AvssOptions, cumulative, normalised, profile_avss
from trueprune.plans.eavss import EavssResult
from trueprune.reports.plots import plot_curves, plot_map, plot_marked


def layer_scores(profile: LayerProfile, scoring: AvssOptions) -> list[dict[str, Any]]:
    """What a scan says of each block beside outliers and separation; `None` where a block has no such part.

    **Arguments:**

    - `profile`: what was observed.
    - `scoring`: how the AVSS of the table is taken; all other ways stand beside it.

    **Returns:** one entry a block.
    """
    score_L = profile_avss(profile, "block", scoring)
    share_L = normalised(score_L)
    by_layer_L, by_rank_L = (cumulative(share_L, order) for order in ("layer", "rank"))
    every = {
        site: {estimator: _score(profile, replace(scoring, site=site, estimator=estimator)) for estimator in ESTIMATORS}
        for site in profile.variance
    }
    return [
        {
            "avss": _plain(score_L[index]),
            "navss": _plain(share_L[index]),
            "cavss": _plain(by_layer_L[index]),
            "cavss_by_rank": _plain(by_rank_L[index]),
            "avss_by_site": {s: {e: _plain(v[index]) for e, v in found.items()} for s, found in every.items()},
            "activation_variance": {
                s: {e: _plain(v[index]) for e, v in found.items()} for s, found in profile.variance.items()
            },
            "near_zero": {
                s: {e: [_plain(float(n)) for n in v[index]] for e, v in found.items()}
                for s, found in profile.zeros.items()
            },
            "block_influence": _plain(1 - profile.cosine["block"][index]),
            "cosine": {unit: _plain(values[index]) for unit, values in profile.cosine.items()},
            "angle": {unit: _plain(values[index]) for unit, values in profile.angle.items()},
            "angular_distance": [_plain(v) for v in profile.angle_gap[index] if not math.isnan(v)],
        }
        for index in range(len(score_L))
    ]


def hallucination_scores(result: EavssResult) -> list[dict[str, float]]:
    """What a scan says of EAVSS, one entry a block."""
    columns = {
        "hsav": result.hsav_L,
        "hss": result.hss_L,
        "eavss": result.score_L,
        "neavss": result.normalised_L,
        "eavss_p": result.p_value_L,
        "eavss_p_adjusted": result.adjusted_p_L,
    }
    return [{name: float(values[i]) for name, values in columns.items()} for i in range(len(result.score_L))]


def plot_hallucination_scores(blocks: list[Mapping[str, Any]], variant: str, level: float, folder: Path) -> None:
    """Draw EAVSS of every block, and mark where it is more than chance."""
    marked = [block["index"] for block in blocks if block["eavss_p_adjusted"] < level]
    title = f"Hallucinated against true answers (a ring: adjusted p < {level})"
    plot_marked([block["eavss"] for block in blocks], marked, title, f"EAVSS ({variant})", folder / "eavss")


def _score(profile: LayerProfile, scoring: AvssOptions) -> np.ndarray:
    """A score that nobody asked for by name: where it is infinite there is none."""
    try:
        return profile_avss(profile, "block", scoring)
    except PlanError:
        return np.full(len(profile.angle_gap), math.nan)


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def plot_layer_scores(blocks: list[Mapping[str, Any]], folder: Path) -> None:
    """Draw AVSS by site, importance by cosine, and the angular distance for every gap."""
    sites = list(blocks[0]["avss_by_site"])
    avss = {site: [_number(block["avss_by_site"][site]["official"]) for block in blocks] for site in sites}
    plot_curves(avss, "AVSS (official estimator)", "AV / AS", folder / "avss", log=True)
    units = list(blocks[0]["cosine"])
    turned = {unit: [1 - _number(block["cosine"][unit]) for block in blocks] for unit in units}
    plot_curves(turned, "How far a layer turns the residual stream", "1 - cosine", folder / "influence", log=True)
    width = len(blocks)
    gaps = np.full((width, width), np.nan)
    for index, block in enumerate(blocks):
        gaps[index, : len(block["angular_distance"])] = block["angular_distance"]
    labels = ("block", "gap n", "d(l, l + n)")
    plot_map(gaps.T, "Angular distance of the stream before and after n blocks", labels, folder / "angular")


def _number(value: float | None) -> float:
    return math.nan if value is None else value
