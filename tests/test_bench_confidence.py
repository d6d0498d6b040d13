"""The benchmark against captum: the same prompts, and from the same masks the same coefficients."""

from __future__ import annotations

import numpy as np
import pytest

from bench.confidence import bench_metrics, both_ridges, captum_input, paired
from trueprune.audits.faithfulness.attributions.lime import lime_masks
from trueprune.audits.faithfulness.value import every_mask
from trueprune.texts.tasks import PromptOptions, masked_prompt, questions


@pytest.mark.parametrize(("distance", "width"), [("cosine", 1.0), ("cosine", 0.25), ("euclidean", 2.0)])
@pytest.mark.parametrize("alpha", [0.01, 1.0])
@pytest.mark.parametrize("n_words", [3, 9])
def test_the_same_masks_and_values_give_captums_coefficients(distance, width, alpha, n_words):
    pytest.importorskip("captum")
    pytest.importorskip("sklearn")
    masks_SD, _ = lime_masks(n_words, 80, seed=1)
    weights_D = np.random.default_rng(n_words).standard_normal(n_words)
    values_S = 1 / (1 + np.exp(-(masks_SD @ weights_D)))
    ours_D, theirs_D = both_ridges(masks_SD, values_S, distance, width, alpha)
    assert np.abs(ours_D).max() > 0.05
    # Captum's regression is in single precision.
    np.testing.assert_allclose(ours_D, theirs_D, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shots", [0, 4])
def test_captums_prompts_are_ours(shots):
    torch = pytest.importorskip("torch")
    pytest.importorskip("captum")
    for item in questions("sentiment", 5, PromptOptions(shots=shots)):
        given = captum_input(item)
        assert given.to_model_input() == item.prompt
        assert given.n_itp_features == item.n_words
        masks_SD, _ = lime_masks(item.n_words, 50)
        for mask_D in masks_SD[masks_SD.any(1)]:
            theirs = given.to_model_input(torch.from_numpy(mask_D)[None].float())
            assert theirs == masked_prompt(item, mask_D.tolist())


def test_who_goes_first_alternates():
    order = []
    paired([(lambda: order.append("ours"), lambda: order.append("theirs"))] * 2, rounds=2)
    assert order == ["ours", "theirs", "theirs", "ours", "theirs", "ours", "ours", "theirs"]


def test_every_calibration_metric_is_timed():
    (row,) = bench_metrics(200, 4, rounds=1)
    assert row["passed"] and row["seconds"] > 0


def test_every_mask_once():
    # The coefficients must agree where nothing is drawn, too.
    pytest.importorskip("captum")
    masks_SD = every_mask(4)
    values_S = np.random.default_rng(0).random(16)
    ours_D, theirs_D = both_ridges(masks_SD, values_S)
    np.testing.assert_allclose(ours_D, theirs_D, rtol=0, atol=1e-6)
