"""Explanations and what is measured about them: against definitions, hand-made examples, scipy and scikit-learn."""

from __future__ import annotations

from itertools import permutations
from math import comb

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trueprune._support.errors import AuditError
from trueprune.audits.faithfulness import agreement, naopc, normalised, plausibility, removal
from trueprune.audits.faithfulness.attributions import ATTRIBUTIONS, attribute, check_attribution, kernel_shap, lime
from trueprune.audits.faithfulness.value import every_mask


class Recording:
    """A value function that counts what it is asked."""

    def __init__(self, function):
        self.function, self.calls = function, []

    def __call__(self, masks_SD):
        assert masks_SD.dtype == bool
        self.calls.append(masks_SD.copy())
        return np.asarray(self.function(masks_SD), dtype=np.float64)

    @property
    def different(self):
        return len(np.unique(np.concatenate(self.calls), axis=0))


def linear(weights_D, bias=0.1):
    return Recording(lambda masks_SD: masks_SD @ weights_D + bias)


def game(n_words, order, seed=0, n_terms=40):
    """A sum of interactions of at most `order` words."""
    rng = np.random.default_rng(seed)
    terms = [rng.choice(n_words, size=rng.integers(1, order + 1), replace=False) for _ in range(n_terms)]
    sizes = rng.standard_normal(n_terms)
    return Recording(lambda masks_SD: sum(size * masks_SD[:, t].all(1) for size, t in zip(sizes, terms, strict=True)))


def sigmoid(n_words, seed=0):
    weights_D = np.random.default_rng(seed).standard_normal(n_words) * 1.5
    return Recording(lambda masks_SD: 1 / (1 + np.exp(-(masks_SD @ weights_D - 0.3))))


def shapley_over_orders(value, n_words):
    gains_D = np.zeros(n_words)
    for order in permutations(range(n_words)):
        mask_D = np.zeros(n_words, dtype=bool)
        for word in order:
            before = value(mask_D[None])[0]
            mask_D[word] = True
            gains_D[word] += value(mask_D[None])[0] - before
    return gains_D / len(list(permutations(range(n_words))))


def random_table(n_words, seed):
    """Any function at all of the 2^D masks."""
    table_S = np.random.default_rng(seed).random(2**n_words)
    return Recording(lambda masks_SD: table_S[masks_SD @ (1 << np.arange(n_words))])


scores = hnp.arrays(np.float64, st.integers(2, 12), elements=st.integers(-3, 3).map(float))

# ---------------------------------------------------------------- attributions


def test_shapley_is_the_mean_gain_over_all_orders():
    value = random_table(5, seed=1)
    np.testing.assert_allclose(attribute("shapley", value, 5), shapley_over_orders(value, 5), atol=1e-12)


@pytest.mark.parametrize(("n_words", "samples"), [(1, None), (2, None), (7, None), (12, None), (12, 5000), (40, None)])
def test_kernel_shap_gives_the_weights_of_a_linear_model(n_words, samples):
    weights_D = np.random.default_rng(n_words).standard_normal(n_words)
    phi_D = attribute("kernel-shap", linear(weights_D), n_words, samples=samples)
    np.testing.assert_allclose(phi_D, weights_D, atol=1e-9)


@pytest.mark.parametrize("n_words", [2, 3, 6, 9])
def test_kernel_shap_is_exact_where_all_coalitions_fit(n_words):
    value = random_table(n_words, seed=n_words)
    exact_D = attribute("shapley", value, n_words)
    np.testing.assert_allclose(attribute("kernel-shap", value, n_words), exact_D, atol=1e-9)
    np.testing.assert_allclose(attribute("kernel-shap", value, n_words, samples=2**n_words - 2), exact_D, atol=1e-9)


def test_sampled_kernel_shap_converges():
    value = game(12, order=4, seed=3)
    exact_D = attribute("shapley", value, 12)
    error = {
        n: np.mean([np.abs(attribute("kernel-shap", value, 12, samples=n, seed=s) - exact_D).mean() for s in range(10)])
        for n in (60, 536, 2000)
    }
    assert error[60] > error[536] > error[2000]
    assert error[536] < 0.06 * np.abs(exact_D).mean()


def test_pairs_are_exact_without_third_order_interactions_and_better_with_them():
    def errors(value, paired):
        exact_D = attribute("shapley", value, 12)
        ends = [float(value(np.full((1, 12), full))[0]) for full in (False, True)]
        found = []
        for seed in range(20):
            masks_SD, weights_S = kernel_shap.shap_coalitions(12, 200, seed, paired=paired)
            phi_D = kernel_shap.constrained_regression(masks_SD, value(masks_SD), weights_S, *ends)
            found.append(np.square(phi_D - exact_D).mean())
        return np.sqrt(np.mean(found))

    assert errors(game(12, order=2), paired=True) < 1e-10 < 1e-2 < errors(game(12, order=2), paired=False)
    for order, seed in ((3, 1), (5, 2)):
        assert errors(game(12, order, seed), paired=True) < 0.8 * errors(game(12, order, seed), paired=False)


@pytest.mark.parametrize("n_words", [1, 2, 5, 11, 30])
@pytest.mark.parametrize("samples", [2, 7, 50, None])
def test_kernel_shap_adds_up(n_words, samples):
    value = sigmoid(n_words, seed=n_words)
    phi_D = attribute("kernel-shap", value, n_words, samples=samples, seed=4)
    ends = value(np.array([[False] * n_words, [True] * n_words]))
    assert phi_D.sum() == pytest.approx(ends[1] - ends[0], abs=1e-6)


def test_exact_shapley_adds_up_and_knows_symmetric_and_dummy_words():
    # words 0 and 1 do the same, word 2 does nothing
    def play(masks_SD):
        return masks_SD[:, :2].any(1) * 0.5 + masks_SD[:, 3] * masks_SD[:, :2].sum(1) * 0.25

    for name in ("shapley", "kernel-shap"):
        phi_D = attribute(name, Recording(play), 4)
        assert phi_D.sum() == pytest.approx(1.0, abs=1e-9)
        assert phi_D[0] == pytest.approx(phi_D[1], abs=1e-9)
        assert phi_D[2] == pytest.approx(0.0, abs=1e-9)
        np.testing.assert_allclose(phi_D, [0.375, 0.375, 0.0, 0.25], atol=1e-9)


@pytest.mark.parametrize(
    ("n_words", "samples"), [(12, 100), (12, 537), (13, 3000), (25, 562), (60, 632), (9, 3), (8, 200)]
)
@pytest.mark.parametrize("paired", [True, False])
def test_coalitions_are_different_within_the_budget_and_weighted_as_the_kernel(n_words, samples, paired):
    masks_SD, weights_S = kernel_shap.shap_coalitions(n_words, samples, 1, paired=paired)
    sizes_S = masks_SD.sum(1)
    assert len(np.unique(masks_SD, axis=0)) == len(masks_SD) <= samples
    assert sizes_S.min() >= 1 and sizes_S.max() <= n_words - 1
    assert weights_S.sum() == pytest.approx(1.0) and (weights_S > 0).all()
    if paired:
        known = {mask_D.tobytes(): weight for mask_D, weight in zip(masks_SD, weights_S, strict=True)}
        for mask_D, weight in zip(masks_SD, weights_S, strict=True):
            assert known[(~mask_D).tobytes()] == pytest.approx(weight)
    if samples >= 100:
        sizes = np.arange(1, n_words)
        kernel = (n_words - 1) / (sizes * (n_words - sizes))
        found = np.bincount(sizes_S, weights=weights_S, minlength=n_words)[1:]
        np.testing.assert_allclose(found.cumsum(), (kernel / kernel.sum()).cumsum(), atol=2 / samples)


def test_small_sizes_are_complete_before_others_are_drawn():
    masks_SD, _ = kernel_shap.shap_coalitions(20, 552)
    sizes = np.bincount(masks_SD.sum(1), minlength=21)
    assert sizes[1] == sizes[19] == 20
    assert 0 < sizes[10] < comb(20, 10)


def test_lime_enumerates_what_it_would_draw():
    n_words, samples = 4, 100_000
    masks_SD, counts_S = lime.lime_masks(n_words, samples)
    assert masks_SD.shape == (16, 4) and masks_SD[0].all() and counts_S[0] == 1
    assert counts_S.sum() == pytest.approx(samples)
    # sampling the same distribution, by lime's own words
    rng = np.random.default_rng(0)
    drawn = np.ones((samples - 1, n_words), dtype=bool)
    for row, size in enumerate(rng.integers(1, n_words + 1, samples - 1)):
        drawn[row, rng.choice(n_words, size, replace=False)] = False
    code = 1 << np.arange(n_words)
    found = np.bincount(drawn @ code, minlength=16)
    expected = np.zeros(16)
    expected[masks_SD @ code] = counts_S - np.eye(16)[0]
    np.testing.assert_allclose(found, expected, atol=5 * np.sqrt(samples / 4))


def test_lime_draws_sizes_uniformly():
    masks_SD, counts_S = lime.lime_masks(20, 4000, seed=1)
    assert masks_SD.shape == (4000, 20) and masks_SD[0].all() and (counts_S == 1).all()
    removed = np.bincount(20 - masks_SD[1:].sum(1), minlength=21)
    assert removed[0] == 0 and abs(removed[1:] - 199.95).max() < 5 * 14
    assert abs(masks_SD[1:].mean(0) - 0.475).max() < 0.05


def test_lime_enumerated_equals_lime_drawn_at_length():
    value = sigmoid(8, seed=2)
    masks_SD, counts_S = lime.lime_masks(8, 20_000)
    enumerated_D, _ = lime.weighted_ridge(masks_SD, value(masks_SD), counts_S * lime.lime_weights(masks_SD))
    rng = np.random.default_rng(0)
    drawn_SD = rng.random((20_000, 8)).argsort(1).argsort(1) >= rng.integers(1, 9, 20_000)[:, None]
    drawn_SD[0] = True
    drawn_D, _ = lime.weighted_ridge(drawn_SD, value(drawn_SD), lime.lime_weights(drawn_SD))
    np.testing.assert_allclose(enumerated_D, drawn_D, atol=0.03)


def test_lime_weights_by_hand():
    masks_SD = np.array([[True] * 4, [True, False, False, False], [False] * 4])
    # cosine distances 0, 1/2, 1, in hundredths; kernel sqrt(exp(-d²/25²))
    np.testing.assert_allclose(lime.lime_weights(masks_SD), np.exp([0.0, -2.0, -8.0]))
    np.testing.assert_allclose(lime.captum_weights(masks_SD), np.exp([0.0, -1 / 8, -1 / 2]))
    np.testing.assert_allclose(lime.captum_weights(masks_SD, "euclidean", 2.0), np.exp([0.0, -3 / 8, -4 / 8]))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_weighted_ridge_equals_scikit_learn(alpha):
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    masks_SD, values_S, weights_S = rng.random((60, 7)) < 0.6, rng.random(60), rng.random(60)
    coefficients_D, intercept = lime.weighted_ridge(masks_SD, values_S, weights_S, alpha)
    expected = linear_model.Ridge(alpha=alpha).fit(masks_SD.astype(float), values_S, sample_weight=weights_S)
    np.testing.assert_allclose(coefficients_D, expected.coef_, atol=1e-8)
    assert intercept == pytest.approx(expected.intercept_, abs=1e-8)


@pytest.mark.parametrize(("n_words", "samples"), [(2, None), (9, None), (9, 600), (15, 2000)])
def test_lime_ranks_the_words_of_a_linear_model(n_words, samples):
    weights_D = np.random.default_rng(1).permutation(np.linspace(-0.5, 0.5, n_words))
    found_D = attribute("lime", linear(weights_D), n_words, samples=samples)
    assert (found_D.argsort() == weights_D.argsort()).all()
    assert np.abs(found_D - weights_D).max() < 0.15


def test_leave_one_out_by_hand():
    value = Recording(lambda masks_SD: masks_SD[:, 0] * masks_SD[:, 1] * 0.6 + masks_SD[:, 2] * 0.1)
    np.testing.assert_allclose(attribute("leave-one-out", value, 3), [0.6, 0.6, 0.1])
    assert len(value.calls) == 1 and len(value.calls[0]) == 4


def test_random_control_is_random_by_seed_and_asks_nothing():
    value = sigmoid(50)
    first, again = (attribute("random", value, 50, seed=1) for _ in range(2))
    assert (first == again).all() and not (first == attribute("random", value, 50, seed=2)).any()
    assert not value.calls


@pytest.mark.parametrize("name", sorted(ATTRIBUTIONS))
def test_every_method_explains_one_word_and_refuses_none(name):
    if "gradient" in name:
        with pytest.raises(
            AuditError, match=r"this value function has no gradients\. Explain a faithfulness\.Question"
        ):
            attribute(name, linear(np.array([0.4])), 1)
        return
    phi_D = attribute(name, linear(np.array([0.4])), 1)
    assert phi_D.shape == (1,) and np.isfinite(phi_D).all()
    if name in ("kernel-shap", "shapley", "leave-one-out"):
        assert phi_D[0] == pytest.approx(0.4)
    if name == "lime":
        assert 0 < phi_D[0] < 0.4
    with pytest.raises(AuditError, match="no word to explain"):
        attribute(name, linear(np.zeros(0)), 0)


@pytest.mark.parametrize(
    ("name", "n_words", "samples", "most"),
    [
        ("lime", 6, None, 64),
        ("lime", 30, None, 1000),
        ("lime", 30, 200, 200),
        ("kernel-shap", 6, None, 64),
        ("kernel-shap", 30, None, 2 + 2 * 30 + 512),
        ("kernel-shap", 30, 101, 103),
        ("shapley", 12, None, 4096),
        ("leave-one-out", 30, None, 31),
    ],
)
def test_methods_ask_once_and_within_their_budget(name, n_words, samples, most):
    value = sigmoid(n_words)
    attribute(name, value, n_words, samples=samples)
    assert len(value.calls) == 1 and len(value.calls[0]) <= most
    assert value.different > 0.7 * most


@pytest.mark.parametrize("name", ["lime", "kernel-shap"])
def test_sampling_is_determined_by_the_seed(name):
    first, again, other = (attribute(name, sigmoid(20), 20, seed=seed) for seed in (3, 3, 4))
    assert (first == again).all() and not (first == other).all()
    assert agreement.spearman(first, other) > 0.9


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 7), st.integers(0, 1000), st.randoms(use_true_random=False))
def test_methods_that_draw_nothing_follow_a_permutation_of_the_words(n_words, seed, random):
    order = list(range(n_words))
    random.shuffle(order)
    value = random_table(n_words, seed)
    back = np.argsort(order)
    for name in ("lime", "kernel-shap", "shapley", "leave-one-out"):
        plain_D = attribute(name, value, n_words)
        moved_D = attribute(name, Recording(lambda masks_SD: value(masks_SD[:, back])), n_words)
        np.testing.assert_allclose(moved_D, plain_D[order], atol=1e-9)


def test_attributions_refuse_what_they_cannot_do():
    with pytest.raises(AuditError, match="at most 12 words"):
        attribute("shapley", sigmoid(13), 13)
    for name in ("lime", "kernel-shap"):
        with pytest.raises(AuditError, match="at least 2 samples"):
            attribute(name, sigmoid(5), 5, samples=1)
    with pytest.raises(AuditError, match="Choose from lime"):
        check_attribution("gradient")
    with pytest.raises(AuditError, match="not finite on 1 of 4"):
        attribute("leave-one-out", Recording(lambda masks_SD: np.where(masks_SD[:, 0], 0.5, np.nan)), 3)


# ---------------------------------------------------------------- removal


def test_order_is_by_score_and_ties_prefer_no_position():
    assert removal.order_words(np.array([0.1, -3.0, 2.0])).tolist() == [2, 0, 1]
    assert removal.order_words(np.array([0.1, -3.0, 2.0]), absolute=True).tolist() == [1, 2, 0]
    tied_D = np.zeros(5)
    assert (removal.order_words(tied_D, seed=7) == removal.order_words(tied_D, seed=7)).all()
    first = np.bincount([removal.order_words(tied_D, seed=seed)[0] for seed in range(1000)], minlength=5)
    assert first.min() > 150
    leaders = {removal.order_words(np.array([0.3, 0.1 + 0.2, 0.0]), seed=seed)[0] for seed in range(20)}
    assert leaders == {0, 1}  # 0.1 + 0.2 is above 0.3 by rounding only


def test_bins_are_rounded_up_and_never_empty():
    assert removal.bin_sizes(20).tolist() == [1, 1, 2, 4, 10]
    assert removal.bin_sizes(3).tolist() == [1, 1, 1, 1, 2]
    assert removal.bin_sizes(1).tolist() == [1, 1, 1, 1, 1]
    assert removal.bin_sizes(100, (0.07, 0.29, 1.0)).tolist() == [7, 29, 100]
    for bins in ((), (0.0,), (1.1,)):
        with pytest.raises(AuditError, match="bins"):
            removal.bin_sizes(10, bins)


def test_removal_by_hand():
    value = linear(np.array([0.1, 0.2, 0.3, 0.05]), bias=0.2)  # p(full) = .85
    orders_AD = np.array([[2, 1, 0, 3], [3, 0, 1, 2]])
    found = removal.measure_removal(value, orders_AD, np.array([1, 2]))
    assert len(value.calls) == 1 and len(value.calls[0]) == 2 + 2 * 2 * 2
    assert found.full == pytest.approx(0.85) and found.empty == pytest.approx(0.2)
    np.testing.assert_allclose(found.without_AB, [[0.55, 0.35], [0.8, 0.7]])
    np.testing.assert_allclose(removal.comprehensiveness(found), [[0.3, 0.5], [0.05, 0.15]])
    np.testing.assert_allclose(removal.sufficiency(found), [[0.35, 0.15], [0.6, 0.5]])
    np.testing.assert_allclose(removal.aopc(removal.comprehensiveness(found)), [0.4, 0.1])
    np.testing.assert_allclose(removal.aopc(removal.sufficiency(found)), [0.25, 0.55])


def test_full_curve_by_hand():
    value = linear(np.array([0.1, 0.2, 0.3]), bias=0.2)
    falling_A, rising_A = removal.full_curve(value, np.array([[2, 1, 0], [0, 1, 2]]))
    assert len(value.calls) == 1
    best, worst = (0.3 + 0.5 + 0.6) / 3, (0.1 + 0.3 + 0.6) / 3
    np.testing.assert_allclose(falling_A, [best, worst])
    np.testing.assert_allclose(rising_A, [worst, best])


# ---------------------------------------------------------------- normalised


def test_normalised_by_hand():
    # S0 = 1 - .6 = .4; S of the two = .8, 1 (p above the full text's loses nothing)
    np.testing.assert_allclose(normalised.normalised_sufficiency(0.9, 0.3, np.array([[0.7, 0.95]])), [[2 / 3, 1.0]])
    np.testing.assert_allclose(normalised.normalised_sufficiency(0.9, 0.3, np.array([[0.2, 0.3]])), [[0.0, 0.0]])
    np.testing.assert_allclose(
        normalised.normalised_comprehensiveness(0.9, 0.3, np.array([[0.6, 0.95, 0.1]])), [[0.5, 0.0, 1.0]]
    )


def test_normalised_is_defined_where_the_text_adds_nothing():
    for empty in (0.5, 0.7):
        assert normalised.evidence(0.5, empty) == 0 and not normalised.is_normalisable(0.5, empty)
        p_AB = np.array([[0.5, 0.6, 0.4]])
        np.testing.assert_allclose(normalised.normalised_sufficiency(0.5, empty, p_AB), [[1.0, 1.0, 0.0]])
        np.testing.assert_allclose(normalised.normalised_comprehensiveness(0.5, empty, p_AB), [[0.0, 0.0, 1.0]])
    assert normalised.is_normalisable(0.5, 0.4)


def test_soft_forms():
    np.testing.assert_allclose(normalised.keep_probabilities(np.array([-1.0, 0.0, 3.0])), [0.0, 0.25, 1.0])
    np.testing.assert_allclose(normalised.keep_probabilities(np.array([2.0, 2.0])), [0.5, 0.5])
    assert normalised.soft_sufficiency(0.9, 0.3, np.array([0.6, 0.8])) == pytest.approx(2 / 3)
    assert normalised.soft_comprehensiveness(0.9, 0.3, np.array([1.0, 0.2])) == pytest.approx(0.5)
    with pytest.raises(AuditError, match="share to retain"):
        normalised.keep_probabilities(np.array([0.0, 1.0]), retained=1.0)


@given(scores, st.floats(0.01, 0.99))
def test_a_fixed_share_is_retained_in_the_same_order(scores_D, retained):
    keep_D = normalised.keep_probabilities(scores_D, retained)
    assert keep_D.mean() == pytest.approx(retained)
    assert keep_D.min() >= -1e-12 and keep_D.max() <= 1 + 1e-12
    assert (np.diff(keep_D[scores_D.argsort(kind="stable")]) >= -1e-12).all()


probability = st.floats(0.0, 1.0)


@given(probability, probability, probability)
def test_normalised_values_are_between_0_and_1(full, empty, p):
    for metric in (normalised.normalised_sufficiency, normalised.normalised_comprehensiveness):
        assert 0 <= metric(full, empty, np.array([[p]]))[0, 0] <= 1


# ---------------------------------------------------------------- NAOPC


def aopc_by_hand(value, order):
    masks_SD = np.array([[word not in order[:i] for word in range(len(order))] for i in range(len(order) + 1)])
    values_S = value(masks_SD)
    return (values_S[0] - values_S[1:]).mean()


@pytest.mark.parametrize("n_words", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_bounds_are_those_of_all_permutations(n_words, seed):
    value = random_table(n_words, seed)
    every = [aopc_by_hand(value, order) for order in permutations(range(n_words))]
    value.calls.clear()
    bounds = naopc.exact_bounds(value, n_words)
    assert len(value.calls) == 1 and len(value.calls[0]) == 2**n_words
    assert bounds.exact and bounds.lowest == pytest.approx(min(every)) and bounds.highest == pytest.approx(max(every))
    wide = naopc.beam_bounds(value, n_words, width=100)
    assert wide.lowest == pytest.approx(bounds.lowest) and wide.highest == pytest.approx(bounds.highest)
    orders_AD = np.array(list(permutations(range(n_words))))
    found = naopc.measure_naopc(value, orders_AD)
    np.testing.assert_allclose(found.raw_comprehensiveness_A, every)
    if n_words > 1:
        assert found.comprehensiveness_A.min() == pytest.approx(0, abs=1e-9)
        assert found.comprehensiveness_A.max() == pytest.approx(1)
        backwards = [aopc_by_hand(value, order[::-1]) for order in permutations(range(n_words))]
        np.testing.assert_allclose(found.raw_sufficiency_A, backwards)
        spread = bounds.highest - bounds.lowest
        np.testing.assert_allclose(found.sufficiency_A, (np.array(backwards) - bounds.lowest) / spread, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 8), st.integers(0, 10_000), st.integers(1, 6))
def test_a_beam_stays_within_the_exact_bounds_and_asks_for_little(n_words, seed, width):
    value = random_table(n_words, seed)
    exact = naopc.exact_bounds(value, n_words)
    value.calls.clear()
    beam = naopc.beam_bounds(value, n_words, width)
    assert exact.lowest - 1e-12 <= beam.lowest <= beam.highest <= exact.highest + 1e-12
    assert len(value.calls) == n_words
    for step, masks_SD in enumerate(value.calls):
        assert len(np.unique(masks_SD, axis=0)) == len(masks_SD) <= 2 * width * (n_words - step) + (step == 0)
    everything = naopc.beam_bounds(value, n_words, comb(n_words, n_words // 2))
    assert everything.lowest == pytest.approx(exact.lowest) and everything.highest == pytest.approx(exact.highest)


def test_naopc_of_a_linear_model_and_its_own_weights():
    weights_D = np.array([0.3, -0.1, 0.2, 0.05])
    best = removal.order_words(weights_D)
    found = naopc.measure_naopc(linear(weights_D), np.stack([best, best[::-1]]))
    np.testing.assert_allclose(found.comprehensiveness_A, [1.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(found.sufficiency_A, [0.0, 1.0], atol=1e-12)


@pytest.mark.parametrize("width", [1, 3])
def test_a_beam_finds_the_best_and_the_worst_order_of_a_linear_model(width):
    weights_D = np.random.default_rng(0).standard_normal(14)
    value = linear(weights_D)
    order = removal.order_words(weights_D)
    bounds = naopc.aopc_bounds(value, 14, width=width)
    assert bounds.highest == pytest.approx(aopc_by_hand(value, order.tolist()))
    assert bounds.lowest == pytest.approx(aopc_by_hand(value, order[::-1].tolist()))


def test_naopc_is_0_where_all_orders_are_the_same():
    found = naopc.measure_naopc(linear(np.zeros(4)), np.array([[0, 1, 2, 3]]))
    assert found.bounds.is_flat and found.comprehensiveness_A.tolist() == found.sufficiency_A.tolist() == [0.0]
    assert naopc.aopc_bounds(linear(np.array([0.4])), 1).is_flat


def test_an_order_that_beats_the_beam_widens_the_bounds():
    value = random_table(11, seed=3)
    exact = naopc.exact_bounds(value, 11)
    beam = naopc.aopc_bounds(value, 11, width=1)
    assert not beam.exact and exact.lowest < beam.lowest and beam.highest < exact.highest
    beaten = beam.widened(np.array([exact.lowest, exact.highest]))
    assert (beaten.lowest, beaten.highest) == (exact.lowest, exact.highest)
    orders_AD = np.array([np.random.default_rng(seed).permutation(11) for seed in range(50)])
    found = naopc.measure_naopc(value, orders_AD)
    for values_A in (found.comprehensiveness_A, found.sufficiency_A):
        assert values_A.min() >= 0 and values_A.max() <= 1


def test_naopc_refuses_what_it_cannot_do():
    with pytest.raises(AuditError, match="need 2\\^17"):
        naopc.exact_bounds(sigmoid(17), 17)
    with pytest.raises(AuditError, match="width"):
        naopc.beam_bounds(sigmoid(3), 3, 0)
    with pytest.raises(AuditError, match="no word"):
        naopc.aopc_bounds(sigmoid(0), 0)


# ---------------------------------------------------------------- plausibility


def test_plausibility_by_hand():
    rationale_D = np.array([True, False, True, False, False])
    found = plausibility.measure_plausibility(np.array([0.9, 0.8, 0.1, 0.3, -1.0]), rationale_D)
    assert (found.precision, found.recall, found.f1, found.iou) == pytest.approx((0.5, 0.5, 0.5, 1 / 3))
    assert found.auprc == pytest.approx(0.5 * 1 + 0.5 * 2 / 4)
    wide = plausibility.measure_plausibility(np.array([0.9, 0.8, 0.1, 0.3, -1.0]), rationale_D, k=4)
    assert (wide.precision, wide.recall, wide.f1, wide.iou) == pytest.approx((0.5, 1.0, 2 / 3, 0.5))
    assert plausibility.measure_plausibility(rationale_D.astype(float), rationale_D, k=99).recall == 1


@given(scores, st.data())
def test_average_precision_equals_scikit_learn(scores_D, data):
    metrics = pytest.importorskip("sklearn.metrics")
    rationale_D = np.array(data.draw(st.lists(st.booleans(), min_size=len(scores_D), max_size=len(scores_D))))
    assume(0 < rationale_D.sum() < len(rationale_D))
    expected = metrics.average_precision_score(rationale_D, scores_D)
    assert plausibility.average_precision(scores_D, rationale_D) == pytest.approx(expected)
    found = plausibility.measure_plausibility(scores_D, rationale_D)
    assert found.precision == found.recall == pytest.approx(found.f1)
    assert found.iou <= found.f1 <= 1


def test_plausibility_refuses_rationales_that_say_nothing():
    for rationale_D in (np.zeros(3, dtype=bool), np.ones(3, dtype=bool)):
        with pytest.raises(AuditError, match=r"marks (none|all) of 3"):
            plausibility.measure_plausibility(np.arange(3.0), rationale_D)
    with pytest.raises(AuditError, match="K of at least 1"):
        plausibility.measure_plausibility(np.arange(3.0), np.array([True, False, False]), k=0)


# ---------------------------------------------------------------- agreement


@given(scores, st.data())
def test_rank_correlations_equal_scipy(first_D, data):
    stats = pytest.importorskip("scipy.stats")
    elements = st.integers(-3, 3).map(float)
    second_D = data.draw(hnp.arrays(np.float64, len(first_D), elements=elements))
    assume(np.ptp(first_D) > 0 and np.ptp(second_D) > 0)
    assert agreement.spearman(first_D, second_D) == pytest.approx(stats.spearmanr(first_D, second_D)[0], abs=1e-12)
    assert agreement.kendall(first_D, second_D) == pytest.approx(stats.kendalltau(first_D, second_D)[0], abs=1e-12)
    np.testing.assert_array_equal(agreement.mean_ranks(first_D), stats.rankdata(first_D))


@given(scores, st.integers(1, 12))
def test_agreement_bounds(first_D, k):
    second_D = np.random.default_rng(len(first_D)).standard_normal(len(first_D))
    found = agreement.measure_agreement(first_D, second_D, k=k)
    assert -1 <= found.spearman <= 1 and -1 <= found.kendall <= 1 and 0 <= found.top_k <= 1 + 1e-12
    odds_D = agreement.top_odds(first_D, min(k, len(first_D)))
    assert odds_D.sum() == pytest.approx(min(k, len(first_D))) and 0 <= odds_D.min() <= odds_D.max() <= 1
    itself = agreement.measure_agreement(second_D, second_D, k=k)
    assert (itself.spearman, itself.kendall, itself.top_k) == pytest.approx((1, 1, 1))
    turned = agreement.measure_agreement(second_D, -second_D, k=1)
    assert (turned.spearman, turned.kendall, turned.top_k) == pytest.approx((-1, -1, 0))


def test_agreement_with_a_constant_explanation_is_0_with_a_reason():
    flat_D, slope_D = np.zeros(4), np.arange(4.0)
    found = agreement.measure_agreement(flat_D, slope_D, k=2)
    assert found.spearman == found.kendall == 0 and found.undefined == "all scores of the first explanation are equal"
    assert found.top_k == pytest.approx(0.5)  # chance
    both = agreement.measure_agreement(flat_D, flat_D, k=1)
    assert both.undefined == "all scores of the first and the second explanation are equal"
    assert both.top_k == pytest.approx(0.25)
    assert agreement.measure_agreement(slope_D, slope_D, k=1).undefined == ""
    assert agreement.measure_agreement(np.array([1.0]), np.array([2.0]), k=1).undefined


def test_top_overlap_by_hand():
    first_D, second_D = np.array([3.0, 2.0, 1.0, 0.0]), np.array([3.0, 0.0, 1.0, 2.0])
    assert agreement.top_overlap(first_D, second_D, 2) == pytest.approx(0.5)
    # words 1 and 2 share the second place of each
    tied_D = np.array([3.0, 1.0, 1.0, 0.0])
    assert agreement.top_overlap(tied_D, tied_D, 2) == pytest.approx((1 + 0.25 + 0.25) / 2)
    with pytest.raises(AuditError, match="top 0 words"):
        agreement.top_overlap(first_D, second_D, 0)


def test_scores_that_are_not_finite_or_do_not_fit_are_refused():
    bad_D = np.array([1.0, np.nan])
    for ask in (
        lambda: removal.order_words(bad_D),
        lambda: normalised.keep_probabilities(bad_D),
        lambda: plausibility.average_precision(bad_D, np.array([True, False])),
        lambda: agreement.spearman(bad_D, np.arange(2.0)),
    ):
        with pytest.raises(AuditError, match="not finite"):
            ask()


def test_every_mask_counts_up():
    masks_SD = every_mask(3)
    assert masks_SD.shape == (8, 3) and not masks_SD[0].any() and masks_SD[-1].all()
    assert (masks_SD @ [1, 2, 4] == np.arange(8)).all()
