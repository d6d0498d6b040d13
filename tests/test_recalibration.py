"""Recalibration on held-out predictions: known answers found, scikit-learn's where it is the same, nothing worse."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from trueprune._support.errors import RepairError, TruepruneError
from trueprune.repairs import (
    RECALIBRATIONS,
    Isotonic,
    Platt,
    Recalibration,
    Temperature,
    Vector,
    fit_isotonic,
    fit_platt,
    fit_recalibration,
    fit_temperature,
    fit_temperature_of,
    fit_vector,
    recalibration_from_json,
)
from trueprune.repairs.base import around_top, log_probabilities, mean_nll, top_logit
from trueprune.repairs.isotonic import Curve, rising_curve


def items(n: int, c: int = 4, temperature: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and gold answers drawn from softmax(scores / temperature)."""
    rng = np.random.default_rng(seed)
    scores_NC = rng.normal(scale=2.0, size=(n, c))
    p_NC = np.exp(log_probabilities(scores_NC / temperature))
    return scores_NC, (p_NC.cumsum(1) < rng.random((n, 1))).sum(1).clip(max=c - 1)


def ragged(n: int, temperature: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Items of two to five options, some of them missing in the middle."""
    rng = np.random.default_rng(seed)
    scores_NC = rng.normal(scale=2.0, size=(n, 5))
    scores_NC[rng.random((n, 5)) < 0.4] = -np.inf
    scores_NC[:, :2] = np.where(np.isfinite(scores_NC[:, :2]), scores_NC[:, :2], 0.3)
    p_NC = np.exp(log_probabilities(scores_NC / temperature))
    return scores_NC, (p_NC.cumsum(1) < rng.random((n, 1))).sum(1).clip(max=4)


def nll(p_NC: np.ndarray, gold_N: np.ndarray) -> float:
    return float(-np.log(p_NC[np.arange(len(gold_N)), gold_N]).mean())


def fits() -> dict[str, Recalibration]:
    scores_NC, gold_N = items(1500, temperature=2.0)
    fitted: dict[str, Recalibration] = {name: RECALIBRATIONS[name].fit(scores_NC, gold_N) for name in RECALIBRATIONS}
    return {**fitted, "top-label": fit_isotonic(scores_NC, gold_N, kind="top-label")}


# Temperature.


@pytest.mark.parametrize("temperature", [0.4, 1.0, 1.7, 5.0])
@pytest.mark.parametrize("make", [items, ragged])
def test_a_known_temperature_is_found(make, temperature):
    scores_NC, gold_N = make(60_000, temperature=temperature)
    fitted = fit_temperature(scores_NC, gold_N)
    assert fitted.temperature == pytest.approx(temperature, rel=0.03)
    assert fitted.at_bound is None
    for other in (0.999, 1.001):
        assert mean_nll(scores_NC / fitted.temperature, gold_N) <= mean_nll(
            scores_NC / (fitted.temperature * other), gold_N
        )


def test_two_options_have_a_temperature_in_closed_form():
    # Eight of ten right at a margin of 3: sigma(3 / T) = 0.8.
    scores_NC = np.tile([[3.0, 0.0]], (10, 1))
    gold_N = np.array([0] * 8 + [1] * 2)
    fitted = fit_temperature(scores_NC, gold_N)
    assert fitted.temperature == pytest.approx(3 / np.log(4), rel=1e-12)
    np.testing.assert_allclose(fitted.probabilities(scores_NC), np.tile([[0.8, 0.2]], (10, 1)), rtol=1e-12)


def test_a_temperature_keeps_the_order_and_the_missing():
    scores_NC, gold_N = ragged(400, temperature=2.0)
    p_NC = fit_temperature(scores_NC, gold_N).probabilities(scores_NC)
    assert np.array_equal(p_NC.argmax(1), scores_NC.argmax(1))
    assert np.array_equal(p_NC == 0, np.isneginf(scores_NC))
    np.testing.assert_allclose(p_NC.sum(1), 1.0)


def test_what_is_added_to_an_item_changes_nothing():
    scores_NC, gold_N = items(1200, temperature=2.0)
    moved_NC = scores_NC + np.random.default_rng(1).normal(scale=50.0, size=(1200, 1))
    for name in RECALIBRATIONS:
        one, two = (fit_recalibration(name, s_NC, gold_N) for s_NC in (scores_NC, moved_NC))
        np.testing.assert_allclose(one.probabilities(scores_NC), two.probabilities(moved_NC), atol=1e-6)


def test_the_bounds_are_said():
    scores_NC, _ = items(50)
    with pytest.warns(UserWarning, match=r"at or beyond 0\.05, the lower bound: .* answered right too often"):
        assert fit_temperature(scores_NC, scores_NC.argmax(1)) == Temperature(0.05, "lower")
    with pytest.warns(UserWarning, match="at or beyond 20, the upper bound: .* as by chance"):
        assert fit_temperature(scores_NC, scores_NC.argmin(1)) == Temperature(20.0, "upper")
    with pytest.warns(UserWarning, match="lower bound"):
        fit_temperature(scores_NC * 1e4, scores_NC.argmax(1))


def test_scores_that_prefer_nothing_have_no_temperature():
    with pytest.raises(RepairError, match="scores all its options the same"):
        fit_temperature(np.zeros((20, 3)), np.arange(20) % 3)


def test_a_search_without_derivatives_finds_the_same():
    scores_NC, gold_N = items(2000, temperature=1.7)
    calls: list[float] = []

    def counted(temperature: float) -> float:
        calls.append(temperature)
        return mean_nll(scores_NC / temperature, gold_N)

    found = fit_temperature_of(counted)
    assert found.temperature == pytest.approx(fit_temperature(scores_NC, gold_N).temperature, rel=1e-4)
    assert 1.0 in calls
    assert len(calls) < 50
    assert counted(found.temperature) <= min(counted(t) for t in list(calls))


def test_a_search_survives_several_valleys():
    def bumpy(temperature: float) -> float:
        x = np.log(temperature)
        return float((x - 1.2) ** 2 + 0.3 * np.cos(4 * x))

    grid = np.linspace(np.log(0.05), np.log(20), 100_001)
    best = float(np.exp(grid[np.argmin([bumpy(float(np.exp(x))) for x in grid])]))
    assert fit_temperature_of(bumpy).temperature == pytest.approx(best, rel=1e-3)


def test_a_search_says_its_bounds_and_refuses_nonsense():
    with pytest.warns(UserWarning, match="lower bound"):
        assert fit_temperature_of(lambda t: t) == Temperature(0.05, "lower")
    with pytest.warns(UserWarning, match="beyond 3, the upper bound"):
        assert fit_temperature_of(lambda t: 1 / t, bounds=(0.5, 3.0)) == Temperature(3.0, "upper")
    with pytest.raises(RepairError, match="not finite"):
        fit_temperature_of(lambda t: float("nan"))
    with pytest.raises(RepairError, match="the same at every temperature"):
        fit_temperature_of(lambda t: 1.0)
    with pytest.raises(RepairError, match="with 1 between them"):
        fit_temperature_of(lambda t: t, bounds=(2.0, 3.0))


# Vector.


def test_known_weights_and_shifts_are_found():
    rng = np.random.default_rng(0)
    log_p_NC = log_probabilities(rng.normal(scale=2.0, size=(60_000, 3)))
    weight_C, bias_C = np.array([0.5, 1.5, 0.8]), np.array([0.7, -0.4, -0.3])
    truth_NC = np.exp(log_probabilities(log_p_NC * weight_C + bias_C))
    gold_N = (truth_NC.cumsum(1) < rng.random((60_000, 1))).sum(1).clip(max=2)
    fitted = fit_vector(log_p_NC, gold_N, penalty=1e-8)
    np.testing.assert_allclose(fitted.weight, weight_C, atol=0.05)
    np.testing.assert_allclose(np.array(fitted.bias) - np.mean(fitted.bias), bias_C - bias_C.mean(), atol=0.05)
    np.testing.assert_allclose(fitted.probabilities(log_p_NC), truth_NC, atol=0.02)


def test_a_vector_is_at_the_bottom_of_its_objective():
    scores_NC, gold_N = items(300, 3, temperature=2.0)
    fitted, log_p_NC = fit_vector(scores_NC, gold_N), log_probabilities(scores_NC)

    def objective(weight_C: np.ndarray, bias_C: np.ndarray) -> float:
        return mean_nll(log_p_NC * weight_C + bias_C, gold_N) + 5e-4 * (((weight_C - 1) ** 2).sum() + (bias_C**2).sum())

    weight_C, bias_C = np.array(fitted.weight), np.array(fitted.bias)
    for step_C in np.eye(3) * 1e-3:
        for sign in (-1, 1):
            assert objective(weight_C + sign * step_C, bias_C) > objective(weight_C, bias_C)
            assert objective(weight_C, bias_C + sign * step_C) > objective(weight_C, bias_C)


def test_a_vector_needs_the_same_classes_everywhere():
    scores_NC, gold_N = items(50, 3)
    lacking_NC = scores_NC.copy()
    lacking_NC[7, (gold_N[7] + 1) % 3] = -np.inf
    fitted = fit_vector(scores_NC, gold_N)
    for call in (lambda: fit_vector(lacking_NC, gold_N), lambda: fitted.probabilities(lacking_NC)):
        with pytest.raises(RepairError, match="item 7 lacks an option that others have"):
            call()
    with pytest.raises(RepairError, match="fitted on 3 classes, the items have 4"):
        fitted.probabilities(items(5, 4)[0])
    with pytest.raises(RepairError, match="all 50 gold answers are class 2"):
        fit_vector(scores_NC, np.full(50, 2))
    with pytest.raises(RepairError, match="penalty of vector scaling is 0"):
        fit_vector(scores_NC, gold_N, penalty=0.0)


# Platt.


@pytest.mark.parametrize("make", [items, ragged])
def test_platt_without_smoothing_is_logistic_regression(make):
    scores_NC, gold_N = make(700, temperature=2.5)
    fitted = fit_platt(scores_NC, gold_N, smooth_targets=False)
    _, s_N, _ = top_logit(scores_NC)
    theirs = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(s_N[:, None], scores_NC.argmax(1) == gold_N)
    assert fitted.slope == pytest.approx(theirs.coef_[0, 0], rel=1e-5)
    assert fitted.intercept == pytest.approx(theirs.intercept_[0], abs=1e-5)


def test_smoothed_targets_are_weighted_rows_of_both_classes():
    scores_NC, gold_N = items(60, temperature=2.5)
    fitted = fit_platt(scores_NC, gold_N)
    right_N = scores_NC.argmax(1) == gold_N
    n_right, n_wrong = right_N.sum(), (~right_N).sum()
    target_N = np.where(right_N, (n_right + 1) / (n_right + 2), 1 / (n_wrong + 2))
    _, s_N, _ = top_logit(scores_NC)
    theirs = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(
        np.tile(s_N, 2)[:, None], np.repeat([1, 0], 60), sample_weight=np.concatenate([target_N, 1 - target_N])
    )
    assert fitted.slope == pytest.approx(theirs.coef_[0, 0], rel=1e-4)
    assert fitted.intercept == pytest.approx(theirs.intercept_[0], abs=1e-4)


def test_platt_gives_the_rest_to_the_others_in_proportion():
    scores_NC = np.log(np.array([[0.6, 0.3, 0.1], [0.2, 0.75, 0.05]]))
    p_NC = Platt(0.5, -0.2).probabilities(scores_NC)
    confidence_N = 1 / (1 + np.exp(-(0.5 * np.log([0.6 / 0.4, 0.75 / 0.25]) - 0.2)))
    np.testing.assert_allclose(p_NC[[0, 1], [0, 1]], confidence_N)
    np.testing.assert_allclose(p_NC[0, 1:], (1 - confidence_N[0]) * np.array([0.75, 0.25]))
    np.testing.assert_allclose(p_NC[1, [0, 2]], (1 - confidence_N[1]) * np.array([0.8, 0.2]))
    np.testing.assert_allclose(Platt(1.0, 0.0).probabilities(scores_NC), np.exp(scores_NC))


def test_platt_orders_items_as_the_model_and_keeps_its_answers():
    scores_NC, gold_N = ragged(500, temperature=3.0)
    p_NC = fit_platt(scores_NC, gold_N).probabilities(scores_NC)
    is_top_NC, s_N, _ = top_logit(scores_NC)
    confidence_N = p_NC[is_top_NC]
    sure_N = confidence_N > 0.5
    assert (np.diff(confidence_N[sure_N][np.argsort(s_N[sure_N])]) >= 0).all()
    assert np.array_equal(p_NC.argmax(1), scores_NC.argmax(1))
    np.testing.assert_allclose(p_NC.sum(1), 1)
    # What no most probable option can have is raised to what it can.
    two_NC = np.log(np.array([[0.6, 0.4]]))
    np.testing.assert_allclose(Platt(1.0, -1.0).probabilities(two_NC), [[0.5, 0.5]], atol=1e-8)
    assert Platt(1.0, -1.0).probabilities(two_NC).argmax() == 0


def test_the_others_share_in_proportion_but_none_passes_the_top():
    is_top_NC = np.array([[True, False, False, False]])
    share_NC = np.array([[0.0, 0.7, 0.3, 0.0]])
    plain = around_top(np.array([0.6]), is_top_NC, share_NC)
    np.testing.assert_allclose(plain, [[0.6, 0.28, 0.12, 0]])
    # In proportion the second would get 0.42: what is over 0.4 goes to the third.
    capped = around_top(np.array([0.4]), is_top_NC, share_NC)
    np.testing.assert_allclose(capped, [[0.4, 0.4, 0.2, 0]], atol=1e-8)
    assert capped.argmax() == 0
    np.testing.assert_allclose(around_top(np.array([0.1]), is_top_NC, share_NC), [[1 / 3, 1 / 3, 1 / 3, 0]], atol=1e-8)


def test_certainty_is_no_infinity():
    scores_NC = np.array([[800.0, 0.0, -800.0], [0.0, -1e-9, -800.0]])
    for fitted in (Platt(2.0, 1.0), Temperature(0.05), Isotonic("top-label", (Curve((0.5, 0.9), (0.2, 0.7)),))):
        p_NC = fitted.probabilities(scores_NC)
        assert np.isfinite(p_NC).all()
        np.testing.assert_allclose(p_NC.sum(1), 1.0)
    _, s_N, _ = top_logit(scores_NC)
    assert s_N[0] == 800.0


def test_platt_refuses_what_has_no_rising_curve():
    scores_NC, _ = items(200, 2, temperature=1.5)
    top_N = scores_NC.argmax(1)
    for gold, word in ((top_N, "right"), (1 - top_N, "wrong")):
        with pytest.raises(RepairError, match=f"all 200 predictions are {word}"):
            fit_platt(scores_NC, gold)
    margin_N = np.abs(scores_NC[:, 0] - scores_NC[:, 1])
    unsure_N = margin_N < np.median(margin_N)
    with pytest.raises(RepairError, match=r"slope of -.*the surer the model, the less often it is right"):
        fit_platt(scores_NC, np.where(unsure_N, top_N, 1 - top_N))
    told_apart_N = np.where(unsure_N, 1 - top_N, top_N)
    assert fit_platt(scores_NC, told_apart_N).slope > 1
    with pytest.raises(RepairError, match="the best curve is a step"):
        fit_platt(scores_NC, told_apart_N, smooth_targets=False)
    with pytest.raises(RepairError, match="the same confidence"):
        fit_platt(np.tile([[1.0, 0.0]], (20, 1)), np.arange(20) % 2)


# Isotonic.


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 1)), min_size=2, max_size=60))
def test_pooling_is_that_of_scikit_learn(pairs):
    x_N, y_N = np.array(pairs, dtype=np.float64).T
    x_N /= 12
    theirs = IsotonicRegression(out_of_bounds="clip").fit(x_N, y_N)
    at = np.linspace(-0.1, 1.1, 97)
    np.testing.assert_allclose(rising_curve(x_N, y_N).at(at), theirs.predict(at), atol=1e-12)


def test_pooling_of_many_points_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    x_N = rng.random(20_000)
    y_N = (rng.random(20_000) < x_N**2).astype(np.float64)
    curve, theirs = rising_curve(x_N, y_N), IsotonicRegression(out_of_bounds="clip").fit(x_N, y_N)
    at = rng.random(1000)
    np.testing.assert_allclose(curve.at(at), theirs.predict(at), atol=1e-12)
    np.testing.assert_allclose(curve.x, theirs.X_thresholds_)


def test_pooling_by_hand():
    curve = rising_curve(np.array([0.1, 0.2, 0.3, 0.4, 0.5]), np.array([0.0, 1.0, 0.0, 0.0, 1.0]))
    assert curve == Curve((0.1, 0.2, 0.4, 0.5), (0.0, 1 / 3, 1 / 3, 1.0))
    np.testing.assert_allclose(curve.at(np.array([0.0, 0.15, 0.3, 0.9])), [0.0, 1 / 6, 1 / 3, 1.0])
    assert rising_curve(np.array([0.5, 0.5]), np.array([0.0, 1.0])) == Curve((0.5,), (0.5,))


def test_classes_go_each_through_their_curve():
    scores_NC, gold_N = items(1200, 3, temperature=2.0)
    fitted = fit_isotonic(scores_NC, gold_N)
    p_NC = np.exp(log_probabilities(scores_NC))
    theirs_NC = np.stack(
        [IsotonicRegression(out_of_bounds="clip").fit(p_NC[:, c], gold_N == c).predict(p_NC[:, c]) for c in range(3)],
        1,
    )
    assert fitted.kind == "one-vs-rest"
    np.testing.assert_allclose(fitted.probabilities(scores_NC), theirs_NC / theirs_NC.sum(1, keepdims=True), atol=1e-12)


def test_rows_sent_to_zero_keep_what_the_model_says():
    never = Curve((0.0, 0.7, 0.8), (0.0, 0.0, 1.0))
    scores_NC = np.log(np.array([[0.5, 0.5], [0.9, 0.1]]))
    np.testing.assert_allclose(
        Isotonic("one-vs-rest", (never, never)).probabilities(scores_NC), [[0.5, 0.5], [1.0, 0.0]]
    )


def test_options_of_their_own_share_one_curve():
    scores_NC, gold_N = ragged(1500, temperature=2.0)
    fitted = fit_isotonic(scores_NC, gold_N)
    p_NC, is_top_NC = fitted.probabilities(scores_NC), top_logit(scores_NC)[0]
    assert (fitted.kind, len(fitted.curves)) == ("top-label", 1)
    model_NC = np.exp(log_probabilities(scores_NC))
    theirs = IsotonicRegression(out_of_bounds="clip").fit(model_NC.max(1), scores_NC.argmax(1) == gold_N)
    least_N = 1 / np.isfinite(scores_NC).sum(1)
    np.testing.assert_allclose(p_NC[is_top_NC], np.maximum(theirs.predict(model_NC.max(1)), least_N), atol=1e-8)
    np.testing.assert_allclose(p_NC.sum(1), 1.0)
    assert (p_NC[np.isneginf(scores_NC)] == 0).all()


def test_isotonic_warns_and_refuses():
    scores_NC, gold_N = items(300, 3)
    with pytest.warns(UserWarning, match="overfits 300 items; below 1000 prefer a temperature"):
        fitted = fit_isotonic(scores_NC, gold_N)
    with pytest.raises(RepairError, match="class 1 is never gold in 300 items"):
        fit_isotonic(scores_NC, np.where(gold_N == 1, 0, gold_N))
    with pytest.raises(RepairError, match="all 300 predictions are right"):
        fit_isotonic(scores_NC, scores_NC.argmax(1), kind="top-label")
    with pytest.raises(RepairError, match="fitted on 3 classes, the items have 5"):
        fitted.probabilities(items(5, 5)[0])
    for call in (
        lambda: fit_isotonic(*ragged(300), kind="one-vs-rest"),
        lambda: fitted.probabilities(ragged(9)[0][:, :3]),
    ):
        with pytest.raises(RepairError, match=r"lacks an option|fewer than two"):
            call()


# All of them.


def event_nll(p_N, right_N):
    with np.errstate(divide="ignore"):
        return -np.where(right_N, np.log(p_N), np.log1p(-p_N)).mean()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_held_out_items_are_never_made_less_likely(temperature, seed):
    for make, n in ((items, 30), (items, 300), (ragged, 300)):
        scores_NC, gold_N = make(n, temperature=temperature, seed=seed)
        identity = mean_nll(scores_NC, gold_N)
        assert nll(fit_temperature(scores_NC, gold_N).probabilities(scores_NC), gold_N) <= identity + 1e-12
        # These two are fitted to one event: that the model is right.
        right_N = scores_NC.argmax(1) == gold_N
        own_N = np.exp(log_probabilities(scores_NC)).max(1)
        plain = fit_platt(scores_NC, gold_N, smooth_targets=False)
        platt_N = 1 / (1 + np.exp(-plain.slope * top_logit(scores_NC)[1] - plain.intercept))
        with pytest.warns(UserWarning, match="overfits"):
            curve = fit_isotonic(scores_NC, gold_N, kind="top-label")
        for fitted_N in (platt_N, curve.curves[0].at(own_N)):
            assert event_nll(fitted_N, right_N) <= event_nll(own_N, right_N) + 1e-12
        if make is items:
            assert nll(fit_vector(scores_NC, gold_N).probabilities(scores_NC), gold_N) <= identity + 1e-12


def test_every_method_mends_overconfidence_on_new_items():
    scores_NC, gold_N = items(4000, temperature=3.0, seed=7)
    before = np.exp(log_probabilities(scores_NC)).max(1).mean() - (scores_NC.argmax(1) == gold_N).mean()
    assert before > 0.2
    for name, fitted in fits_at(3.0).items():
        p_NC = fitted.probabilities(scores_NC)
        # The confidence in what the model answers: below a half Platt's most probable option may be another one.
        top_N = scores_NC.argmax(1)
        after = p_NC[np.arange(4000), top_N].mean() - (top_N == gold_N).mean()
        assert abs(after) < 0.03, name
        np.testing.assert_allclose(p_NC.sum(1), 1.0)
        assert p_NC.shape == scores_NC.shape


def fits_at(temperature: float) -> dict[str, Recalibration]:
    scores_NC, gold_N = items(4000, temperature=temperature)
    return {name: fit_recalibration(name, scores_NC, gold_N) for name in RECALIBRATIONS}


def test_all_read_back_equal_from_json():
    new_NC = items(50, seed=3)[0]
    for name, fitted in fits().items():
        again = recalibration_from_json(json.loads(json.dumps(fitted.to_json())))
        assert again == fitted, name
        assert isinstance(again, Recalibration)
        assert np.array_equal(again.probabilities(new_NC), fitted.probabilities(new_NC))
    assert recalibration_from_json(Temperature(20.0, "upper").to_json()) == Temperature(20.0, "upper")


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (None, "names no 'method'"),
        ([], "names no 'method'"),
        ({"schema": 1}, "names no 'method'"),
        (
            {"schema": 1, "method": "magic"},
            r"there is no recalibration 'magic'\. Choose from temperature, vector, platt",
        ),
        ({"schema": 1, "method": ["platt"]}, "there is no recalibration"),
        ({"method": "temperature", "temperature": 2.0}, "has the schema None, not 1"),
        ({"schema": 1, "method": "temperature"}, "'temperature' of a saved recalibration is None"),
        ({"schema": 1, "method": "temperature", "temperature": "2"}, "is '2', not a finite number"),
        ({"schema": 1, "method": "temperature", "temperature": True}, "is True, not a finite number"),
        ({"schema": 1, "method": "temperature", "temperature": 0}, r"a temperature of 0\.0 is not above 0"),
        ({"schema": 1, "method": "temperature", "temperature": float("nan")}, "not a finite number"),
        ({"schema": 1, "method": "temperature", "temperature": 2, "at_bound": "left"}, "'at_bound' .* is 'left'"),
        ({"schema": 1, "method": "vector", "weight": [1.0]}, "has no 'bias'"),
        ({"schema": 1, "method": "vector", "weight": [1.0], "bias": [0.0, 1.0]}, "1 weights and 2 shifts"),
        ({"schema": 1, "method": "platt", "slope": -1.0, "intercept": 0.0}, "has a slope of -1"),
        ({"schema": 1, "method": "isotonic", "kind": "x", "curves": []}, "'kind' .* is 'x'"),
        ({"schema": 1, "method": "isotonic", "kind": "top-label"}, "has no 'curves'"),
        ({"schema": 1, "method": "isotonic", "kind": "top-label", "curves": []}, "0 curves for 'top-label'"),
        ({"schema": 1, "method": "isotonic", "kind": "top-label", "curves": [{"x": [0.1], "y": []}]}, "does not rise"),
        ({"schema": 1, "method": "isotonic", "kind": "top-label", "curves": [{"x": [1, 0], "y": [0, 1]}]}, "not rise"),
        ({"schema": 1, "method": "isotonic", "kind": "top-label", "curves": [{"x": [0, 1], "y": [0, 2]}]}, "not rise"),
    ],
)
def test_damaged_data_are_named(data, match):
    with pytest.raises(TruepruneError, match=match):
        recalibration_from_json(data)


def with_value(value: float) -> tuple[np.ndarray, np.ndarray]:
    scores_NC, gold_N = items(50)
    scores_NC[3, 1] = value
    return scores_NC, gold_N


def with_gold(value: int, score: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    scores_NC, gold_N = items(50)
    gold_N[4] = value
    if score is not None:
        scores_NC[4, value] = score
    return scores_NC, gold_N


def lonely() -> tuple[np.ndarray, np.ndarray]:
    scores_NC, gold_N = items(50)
    scores_NC[5, np.arange(4) != gold_N[5]] = -np.inf
    return scores_NC, gold_N


@pytest.mark.parametrize("name", RECALIBRATIONS)
@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (items(9), r"9 items are too few to recalibrate on\. Hold out at least 10"),
        (with_value(float("nan")), "scores of item 3 are NaN or infinite"),
        (with_value(float("inf")), "scores of item 3 are NaN or infinite"),
        (with_gold(4), "the gold answer 4 of item 4 is none of its options"),
        (with_gold(-1), "the gold answer -1 of item 4 is none of its options"),
        (with_gold(2, -np.inf), "the gold answer 2 of item 4 is none of its options"),
        (lonely(), "item 5 has fewer than two options"),
        ((items(50)[0], items(40)[1]), "scores of 50 items and gold answers of 40"),
    ],
)
def test_bad_items_are_named(name, bad, match):
    with pytest.raises(RepairError, match=match):
        fit_recalibration(name, *bad)


def test_bad_scores_are_named_when_mapping_too():
    maps: list[Any] = [Temperature(2.0), Vector((1.0,) * 4, (0.0,) * 4), Platt(1.0, 0.0)]
    for fitted in [*maps, Isotonic("top-label", (Curve((0.5,), (0.5,)),))]:
        with pytest.raises(RepairError, match="scores of item 3 are NaN"):
            fitted.probabilities(with_value(float("nan"))[0])
        with pytest.raises(RepairError, match="item 5 has fewer than two options"):
            fitted.probabilities(lonely()[0])
    with pytest.raises(RepairError, match="there is no recalibration 'magic'"):
        fit_recalibration("magic", *items(50))


def test_float32_scores_are_taken():
    scores_NC, gold_N = items(200, temperature=2.0)
    one, two = fit_temperature(scores_NC.astype(np.float32), gold_N), fit_temperature(scores_NC, gold_N)
    assert one.temperature == pytest.approx(two.temperature, rel=1e-5)
    assert one.probabilities(scores_NC.astype(np.float32)).dtype == np.float64
