"""Confidence: calibration errors, proper scores and selective prediction against references and slow versions."""

from __future__ import annotations

import math
import time

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score
from torchmetrics.functional.classification import multiclass_calibration_error

from trueprune._support.errors import AuditError
from trueprune.audits.confidence import (
    METRICS,
    ace,
    aurc,
    auroc,
    brier,
    check_confidence,
    check_probabilities,
    classwise_ece,
    debiased_squared_ce,
    e_aurc,
    ece,
    mce,
    murphy,
    nll,
    null_classwise_ece,
    null_error,
    overconfidence,
    reliability_table,
    risk_coverage,
    rmsce,
    smece,
    softmax,
    top_label,
)
from trueprune.audits.confidence.binned import options_in_use
from trueprune.audits.confidence.bins import equal_mass
from trueprune.reports.confidence_plots import plot_reliability, plot_risk_coverage

GOLDEN = np.array([[0.25, 0.20, 0.55], [0.55, 0.05, 0.40], [0.10, 0.30, 0.60], [0.90, 0.05, 0.05]])
GOLDEN_GOLD = np.array([0, 1, 2, 0])


def drawn(items=200, options=4, seed=0, sharp=2.0):
    """Probabilities, and right options drawn from them: calibrated, unless the caller sharpens them."""
    rng = np.random.default_rng(seed)
    probabilities = softmax(rng.normal(size=(items, options)) * sharp)
    gold = (rng.random((items, 1)) > np.cumsum(probabilities, 1)).sum(1).clip(0, options - 1)
    return probabilities, gold


def sharpened(probabilities, by=3.0):
    return probabilities**by / (probabilities**by).sum(1, keepdims=True)


def resamples(items, rows, seed=0):
    return np.random.default_rng(seed).multinomial(items, np.full(items, 1 / items), size=rows).astype(np.float64)


@st.composite
def answers(draw, most=30):
    """Probabilities on a coarse grid, so that ties and edges occur, with right options that may have probability 0."""
    options = draw(st.integers(2, 5))
    row = st.lists(st.integers(0, 6), min_size=options, max_size=options).filter(any)
    rows = np.array(draw(st.lists(row, min_size=2, max_size=most)), dtype=np.float64)
    gold = draw(st.lists(st.integers(0, options - 1), min_size=len(rows), max_size=len(rows)))
    return rows / rows.sum(1, keepdims=True), np.array(gold)


def value_or_nan(metric, probabilities, gold):
    try:
        return metric.value(probabilities, gold)
    except AuditError:
        return math.nan


# Input


@pytest.mark.parametrize(
    ("probabilities", "gold", "message"),
    [
        (np.empty((0, 3)), [], r"\(0, 3\) are empty"),
        (np.empty((2, 0)), [0, 0], "are empty"),
        ([0.5, 0.5], [0, 0], r"shape \(2,\)"),
        ([[0.5, 0.5], [1.0]], [0, 0], "not an array of numbers"),
        ([["a", "b"]], [0], "not an array of numbers"),
        ([[0.5, 0.5], [math.nan, 1.0]], [0, 0], "row 1, option 0: nan is not finite"),
        ([[0.5, 0.5], [0.0, math.inf]], [0, 0], "row 1, option 1: inf is not finite"),
        ([[0.5, 0.5], [1.2, -0.2]], [0, 0], "row 1, option 1: -0.2 is negative.*softmax"),
        ([[0.5, 0.5], [0.5, 0.4998]], [0, 0], "row 1 of the probabilities sums to 0.9998.*Divide"),
        ([[0.5, 0.5]], [0, 1], r"gold has the shape \(2,\) for 1 items"),
        ([[0.5, 0.5]], [[0]], r"gold has the shape \(1, 1\)"),
        ([[0.5, 0.5]] * 2, [[0], [0, 1]], "gold is not one number an item"),
        ([[0.5, 0.5]] * 2, [0, 0.5], "gold of row 1 is 0.5, not an integer.*0 to 1"),
        ([[0.5, 0.5]] * 2, [0, math.nan], "gold of row 1 is nan, not an integer"),
        ([[0.5, 0.5]], ["B"], "gold of row 0 is 'B', not an integer"),
        ([[0.5, 0.5]], [True], "gold of row 0 is True, not an integer"),
        ([[0.5, 0.5]] * 2, [0, 2], "gold of row 1 is 2, none of the 2 options"),
        ([[0.5, 0.5]] * 2, [0, -1], "gold of row 1 is -1, none of the 2 options"),
    ],
)
def test_bad_probabilities_are_refused(probabilities, gold, message):
    with pytest.raises(AuditError, match=message) as raised:
        check_probabilities(probabilities, gold)
    assert raised.value.remedy


@pytest.mark.parametrize(
    ("confidence", "correct", "message"),
    [
        ([], [], r"the confidence has the shape \(0,\)"),
        ([[0.5]], [1.0], r"the confidence has the shape \(1, 1\)"),
        ([0.5, 1.5], [1.0, 1.0], "the confidence of item 1 is 1.5"),
        ([0.5, 0.5], [1.0, math.nan], "the correctness of item 1 is nan"),
        ([0.5, 0.5], [1.0], "2 confidences for 1 items"),
        (["high"], [1.0], "the confidence are not an array"),
    ],
)
def test_bad_confidences_are_refused(confidence, correct, message):
    with pytest.raises(AuditError, match=message):
        check_confidence(confidence, correct)


def test_rows_are_normalised():
    probabilities, gold = check_probabilities(np.array([[0.33333, 0.66666, 0]], dtype=np.float32), [1.0])
    assert probabilities.dtype == np.float64
    assert gold.dtype == np.int64
    assert probabilities.sum() == pytest.approx(1, abs=1e-15)
    assert probabilities[0, 2] == 0


def test_softmax_of_absent_options():
    found = softmax([[1.0, -np.inf, 1.0], [1000.0, 0.0, -1000.0]])
    np.testing.assert_allclose(found, [[0.5, 0, 0.5], [1, 0, 0]])
    for scores, message in (
        ([[0.0, math.nan]], "row 0, option 1: nan is no score"),
        ([[0.0, math.inf]], "row 0, option 1: inf is no score"),
        ([[0.0, 1.0], [-np.inf, -np.inf]], "row 1 has no option"),
        ([0.0], "shape"),
    ):
        with pytest.raises(AuditError, match=message):
            softmax(scores)


def test_a_shared_top_counts_its_share_wherever_it_stands():
    rows = [[0.4, 0.4, 0.2], [0.4, 0.2, 0.4], [0.2, 0.4, 0.4], [1 / 3] * 3, [0.5, 0.3, 0.2]]
    confidence, correct = top_label(rows, [0, 1, 1, 2, 0])
    np.testing.assert_allclose(confidence, [0.4, 0.4, 0.4, 1 / 3, 0.5])
    np.testing.assert_allclose(correct, [0.5, 0, 0.5, 1 / 3, 1])


# Binned errors


def test_golden_values():
    top = top_label(GOLDEN, GOLDEN_GOLD)
    assert ece(*top, 3) == pytest.approx(0.2, abs=1e-12)
    assert rmsce(*top, 3) == pytest.approx(0.2082, abs=5e-5)
    assert mce(*top, 3) == pytest.approx(0.2333, abs=5e-5)


@pytest.mark.parametrize("bins", [3, 10, 15, 40])
@pytest.mark.parametrize("by", [1.0, 3.0])
def test_binned_errors_are_those_of_torchmetrics(bins, by):
    probabilities, gold = drawn(1000, 4)
    probabilities = sharpened(probabilities, by)
    # A confidence of one is a bin of its own in torchmetrics.
    below = probabilities.max(1) < 1 - 1e-6
    probabilities, gold = probabilities[below], gold[below]
    top = top_label(probabilities, gold)
    for norm, error in (("l1", ece), ("l2", rmsce), ("max", mce)):
        arrays = torch.tensor(probabilities), torch.tensor(gold)
        reference = multiclass_calibration_error(*arrays, num_classes=4, n_bins=bins, norm=norm)
        assert error(*top, bins) == pytest.approx(float(reference), abs=1e-6)


def test_a_value_on_an_edge_belongs_to_the_bin_below():
    table = reliability_table([0.2, 1 / 3, np.float32(1 / 3), 0.6, 1.0, 0.0], [1.0] * 6, 15)
    assert table.count_M.nonzero()[0].tolist() == [0, 2, 4, 8, 14]
    assert table.count_M[4] == 2


def test_equal_mass_bins_are_those_of_a_split():
    rng = np.random.default_rng(0)
    confidence, correct = rng.uniform(size=150), rng.integers(0, 2, 150).astype(float)
    order = np.argsort(confidence)
    split = np.array_split(order, 15)
    expected = sum(len(part) / 150 * abs(correct[part].mean() - confidence[part].mean()) for part in split)
    assert ace(confidence, correct) == pytest.approx(expected)


def test_tied_items_are_divided_as_on_average_over_their_orders():
    rng = np.random.default_rng(0)
    confidence = np.repeat([0.3, 0.5, 0.9], 10)
    correct = rng.integers(0, 2, 30).astype(float)
    sums = equal_mass(confidence, np.ones((1, 30)), correct[None], 4)
    right = np.zeros(4)
    for _ in range(2000):
        order = np.lexsort((rng.random(30), confidence))
        # 7.5 items a bin: the eighth item is halved.
        running = np.interp(np.arange(5) * 7.5, np.arange(31), np.append(0, np.cumsum(correct[order])))
        right += np.diff(running) / 2000
    np.testing.assert_allclose(sums.right_RM[0], right, atol=0.1)
    np.testing.assert_allclose(sums.count_RM[0], 7.5)
    assert ace(np.full(30, 0.7), correct) == pytest.approx(abs(correct.mean() - 0.7))


def test_the_debiased_error_has_no_bias():
    rng = np.random.default_rng(0)
    found, plain = [], []
    for _ in range(400):
        # One confidence a bin: the debiased error is then unbiased exactly.
        confidence = rng.choice([0.55, 0.7, 0.9], 60)
        correct = (rng.random(60) < confidence - 0.1).astype(float)
        found.append(debiased_squared_ce(confidence, correct))
        plain.append(rmsce(confidence, correct) ** 2)
    assert np.mean(found) == pytest.approx(0.01, abs=0.0015)
    assert np.mean(plain) > 0.018
    assert min(found) < 0
    assert debiased_squared_ce([0.1, 0.9], [1.0, 1.0]) == 0


def test_classwise_error_by_the_definition():
    probabilities, gold = drawn(300, 3)
    expected = 0.0
    for option in range(3):
        p, hit = probabilities[:, option], gold == option
        for low in np.arange(10) / 10:
            inside = (p > low) & (p <= low + 0.1)
            if inside.any():
                expected += inside.mean() * abs(hit[inside].mean() - p[inside].mean()) / 3
    assert classwise_ece(probabilities, gold, 10) == pytest.approx(expected)


def test_reliability_table():
    probabilities, gold = drawn(500, 2)
    confidence, correct = top_label(probabilities, gold)
    table = reliability_table(confidence, correct, 10)
    accuracy, mean = calibration_curve(correct, confidence, n_bins=10)
    filled = table.count_M > 0
    np.testing.assert_allclose(table.accuracy_M[filled], accuracy)
    np.testing.assert_allclose(table.confidence_M[filled], mean)
    gaps = table.count_M[filled] / 500 * np.abs(accuracy - mean)
    assert gaps.sum() == pytest.approx(ece(confidence, correct, 10))
    assert (table.low_M[filled] <= accuracy).all()
    assert (table.high_M[filled] >= accuracy).all()
    plain = table.as_dict()
    assert plain["accuracy"][0] is None
    assert plain["count"][0] == 0
    assert list(plain) == ["lower", "upper", "count", "confidence", "accuracy", "low", "high"]


def test_wilson_interval():
    # Newcombe 1998, Statistics in Medicine 17:857, Table I, method 3.
    for right, n, bounds in ((81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0.0, 0.1611))):
        table = reliability_table(np.full(n, 0.5), np.arange(n) < right, 1)
        assert (table.low_M[0], table.high_M[0]) == pytest.approx(bounds, abs=5e-5)


# The smooth error


def slow_smece(confidence, correct, points=4001, images=4):
    """Every item's kernel on a fine grid, with its mirror images written out."""
    t = np.linspace(0, 1, points)

    def smoothed(width):
        residual = np.zeros(points)
        for c, a in zip(confidence, correct, strict=True):
            for k in range(-images, images + 1):
                for image in (2 * k + c, 2 * k - c):
                    residual += (a - c) * np.exp(-(((t - image) / width) ** 2) / 2) / (width * np.sqrt(2 * np.pi))
        size = np.abs(residual)
        return (size.sum() - (size[0] + size[-1]) / 2) / (points - 1) / len(confidence)

    low, high = 0.0, 1.0
    for _ in range(10):
        middle = (low + high) / 2
        low, high = (low, middle) if middle >= 0.001 and smoothed(middle) <= middle else (middle, high)
    return smoothed(high)


@pytest.mark.parametrize(("items", "by"), [(1, 1.0), (30, 1.0), (30, 3.0), (100, 6.0)])
def test_smooth_error_is_that_of_the_slow_version(items, by):
    probabilities, gold = drawn(items, 4, seed=items)
    top = top_label(sharpened(probabilities, by), gold)
    assert smece(*top) == pytest.approx(slow_smece(*top), abs=2e-5)


def test_smooth_error_of_known_answers():
    assert smece(np.full(50, 0.7), np.full(50, 0.7)) == pytest.approx(0, abs=1e-12)
    # All mass at one place with one sign: smoothing keeps the integral.
    assert smece(np.full(50, 1.0), np.zeros(50)) == pytest.approx(1)
    assert smece(np.full(50, 0.7), np.full(50, 0.4)) == pytest.approx(0.3)


# Proper scores


def test_scores_are_those_of_scikit_learn():
    probabilities, gold = drawn(300, 2)
    assert brier(probabilities, gold) == pytest.approx(2 * brier_score_loss(gold, probabilities[:, 1]))
    probabilities, gold = drawn(300, 5)
    assert nll(probabilities, gold) == pytest.approx(log_loss(gold, probabilities, labels=range(5)))
    assert nll([[1.0, 0.0]], [1]) == pytest.approx(-math.log(1e-12))


def test_murphy_terms():
    # One probability a bin: the three terms of the paper are the whole score.
    first = np.repeat([0.1, 0.7], 50)
    gold = 1 - (np.arange(100) % 50 < np.repeat([10, 30], 50)).astype(int)
    parts = murphy(np.stack([first, 1 - first], 1), gold)
    assert parts.reliability == pytest.approx(2 * 0.01)
    assert parts.resolution == pytest.approx(2 * 0.04)
    assert parts.uncertainty == pytest.approx(2 * 0.24)
    assert parts.remainder == pytest.approx(0, abs=1e-12)


@given(answers(), st.integers(1, 20))
def test_murphy_terms_add_up(data, bins):
    parts = murphy(*data, bins)
    assert parts.brier == pytest.approx(brier(*data), abs=1e-9)
    assert min(parts.reliability, parts.resolution, parts.uncertainty) >= 0


# Selective prediction


def test_auroc_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    confidence, correct = rng.integers(0, 20, 300) / 20, rng.integers(0, 2, 300)
    assert auroc(confidence, correct) == pytest.approx(roc_auc_score(correct, confidence))


def test_auroc_needs_both_kinds():
    for correct, message in (([1.0, 1.0], "all 2 answers are right"), ([0.0, 0.0], "all 2 answers are wrong")):
        with pytest.raises(AuditError, match=message):
            auroc([0.5, 0.6], correct)
    with pytest.raises(AuditError, match="are right"):
        METRICS["auroc"].value(np.eye(2), np.array([0, 1]))
    counts = np.array([[1.0, 1, 1], [2, 1, 0]])
    found = METRICS["auroc"].resampled(np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]]), np.array([0, 0, 1]), counts)
    assert found[0] == 1
    assert np.isnan(found[1])


def test_risk_coverage_golden():
    confidence, correct = [0.7, 0.6, 0.8], [1.0, 0.0, 1.0]
    curve = risk_coverage(confidence, correct)
    np.testing.assert_allclose(curve.coverage_N, [1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(curve.risk_N, [0, 0, 1 / 3])
    assert aurc(confidence, correct) == pytest.approx(1 / 9)
    assert aurc(confidence, correct, trapezoid=True) == pytest.approx(0.083333, abs=1e-6)
    assert e_aurc(confidence, correct) == e_aurc(confidence, correct, trapezoid=True) == 0
    assert aurc([0.5], [0.0], trapezoid=True) == 1


def test_ties_of_confidence_have_the_mean_risk_of_their_orders():
    confidence, correct = np.array([0.9, 0.5, 0.5, 0.5, 0.2, 0.2]), np.array([1.0, 0, 1, 1, 0, 1])
    rng, total = np.random.default_rng(0), np.zeros(6)
    for _ in range(20000):
        order = np.lexsort((rng.random(6), -confidence))
        total += np.cumsum(1 - correct[order]) / np.arange(1, 7)
    np.testing.assert_allclose(risk_coverage(confidence, correct).risk_N, total / 20000, atol=0.01)


def test_excess_area_of_the_worst_order():
    confidence, correct = np.array([0.1, 0.2, 0.8, 0.9]), np.array([1.0, 1, 0, 0])
    worst, best = np.mean([1, 1, 2 / 3, 1 / 2]), np.mean([0, 0, 1 / 3, 1 / 2])
    assert e_aurc(confidence, correct) == pytest.approx(worst - best)
    assert overconfidence(confidence, correct) == 0


# Known answers, bounds, invariance


def test_always_confident_and_wrong():
    top = np.ones(40), np.zeros(40)
    for error in (ece, ace, mce, rmsce, debiased_squared_ce, overconfidence, aurc):
        assert error(*top) == pytest.approx(1)
    probabilities, gold = np.tile([1.0, 0.0], (40, 1)), np.ones(40, dtype=int)
    assert brier(probabilities, gold) == 2
    assert classwise_ece(probabilities, gold) == 1


def test_calibrated_to_the_item():
    # Four right of five at a confidence of 0.8.
    probabilities, gold = np.tile([0.8, 0.2], (50, 1)), (np.arange(50) % 5 == 0).astype(int)
    for name in ("ece-10", "ece-15", "ace-15", "mce-15", "rmsce-15", "classwise-15", "smece", "overconfidence"):
        assert METRICS[name].value(probabilities, gold) == pytest.approx(0, abs=1e-9), name
    assert METRICS["debiased-15"].value(probabilities, gold) == pytest.approx(-0.16 / 49)
    assert METRICS["auroc"].value(probabilities, gold) == 0.5


BOUNDS = {"debiased-15": (-1, 1), "overconfidence": (-1, 1), "brier": (0, 2), "nll": (0, 27.7)}


@settings(max_examples=60, deadline=None)
@given(answers(), st.randoms(use_true_random=False))
def test_bounds_order_and_padding(data, random):
    probabilities, gold = data
    order = list(range(len(gold)))
    random.shuffle(order)
    padded = np.pad(probabilities, ((0, 0), (0, 3)))
    for name, metric in METRICS.items():
        value = value_or_nan(metric, probabilities, gold)
        low, high = BOUNDS.get(name, (0, 1))
        assert math.isnan(value) or low - 1e-9 <= value <= high + 1e-9
        for other in ((probabilities[order], gold[order]), (padded, gold)):
            assert value_or_nan(metric, *other) == pytest.approx(value, abs=1e-9, nan_ok=True), name


@settings(max_examples=40, deadline=None)
@given(answers(most=12), st.integers(0, 1000))
def test_resampling_is_writing_the_items_out(data, seed):
    probabilities, gold = data
    counts = resamples(len(gold), 3, seed)
    counts[0] = 1
    for name, metric in METRICS.items():
        found = metric.resampled(probabilities, gold, counts)
        assert found[0] == pytest.approx(value_or_nan(metric, probabilities, gold), abs=1e-12, nan_ok=True)
        for row in (1, 2):
            items = np.repeat(np.arange(len(gold)), counts[row].astype(int))
            expected = value_or_nan(metric, probabilities[items], gold[items])
            if name == "classwise-15":
                # An option that no item of the resample has still counts among the options.
                expected *= options_in_use(probabilities[items], gold[items]) / options_in_use(probabilities, gold)
            assert found[row] == pytest.approx(expected, abs=1e-9, nan_ok=True), name


def test_values_by_item():
    probabilities, gold = drawn(50, 3)
    for name in ("brier", "nll", "overconfidence"):
        metric = METRICS[name]
        assert metric.per_item(probabilities, gold).mean() == pytest.approx(metric.value(probabilities, gold))
    for metric in METRICS.values():
        assert metric.per_item(probabilities, gold).shape == (50,)
    assert [name for name, metric in METRICS.items() if metric.higher_is_better] == ["auroc"]
    assert all(name == metric.name for name, metric in METRICS.items())


# The null


@pytest.mark.parametrize(
    ("lowest", "bins", "mean", "high"),
    [(0.5, 10, 0.048, 0.080), (0.5, 15, 0.063, 0.093), (0.25, 10, 0.067, 0.099), (0.25, 15, 0.082, 0.115)],
)
def test_null_error_of_two_hundred_items(lowest, bins, mean, high):
    rng = np.random.default_rng(0)
    found = [
        null_error(confidence, np.ones(200), bins=bins, draws=300, seed=seed)
        for seed, confidence in enumerate(rng.uniform(lowest, 1, (10, 200)))
    ]
    assert np.mean([null.mean for null in found]) == pytest.approx(mean, abs=0.003)
    assert np.mean([null.percentile_95 for null in found]) == pytest.approx(high, abs=0.005)


@pytest.mark.parametrize("kind", ["ece", "ace", "mce", "rmsce", "debiased", "smece"])
def test_the_null_tells_miscalibration(kind):
    probabilities, gold = drawn(300, 4, seed=3)
    calibrated = null_error(*top_label(probabilities, gold), kind, draws=200)
    assert calibrated.share > 0.05
    overconfident = null_error(*top_label(sharpened(probabilities), gold), kind, draws=200)
    assert overconfident.share == 1 / 201
    assert overconfident.observed > overconfident.percentile_95 > overconfident.mean
    again = null_error(*top_label(probabilities, gold), kind, draws=200)
    assert again == calibrated
    assert null_error(*top_label(probabilities, gold), kind, draws=200, seed=1) != calibrated


def test_the_classwise_null():
    probabilities, gold = drawn(300, 4, seed=3)
    padded = np.pad(probabilities, ((0, 0), (1, 1)))
    calibrated = null_classwise_ece(probabilities, gold, draws=200)
    assert calibrated.share > 0.05
    assert calibrated.observed == classwise_ece(probabilities, gold)
    assert null_classwise_ece(padded, gold + 1, draws=200).mean == pytest.approx(calibrated.mean)
    assert null_classwise_ece(sharpened(probabilities), gold, draws=200).share == 1 / 201


def test_the_share_of_a_calibrated_model_is_uniform():
    shares = []
    for seed in range(100):
        confidence = np.random.default_rng(seed).uniform(0.4, 1, 80)
        correct = (np.random.default_rng(1000 + seed).random(80) < confidence).astype(float)
        shares.append(null_error(confidence, correct, draws=99, seed=seed).share)
    assert np.mean(shares) == pytest.approx(0.5, abs=0.1)
    assert np.mean(np.array(shares) <= 0.1) < 0.2


def test_bad_options_are_refused():
    with pytest.raises(AuditError, match=r"called 'sharpness'.*ece, ace"):
        null_error([0.5], [1.0], "sharpness")
    with pytest.raises(AuditError, match="0 draws"):
        null_error([0.5], [1.0], draws=0)
    with pytest.raises(AuditError, match="0 bins"):
        ece([0.5], [1.0], 0)


# Speed


def test_all_metrics_are_fast():
    probabilities, gold = drawn(100_000, 10)
    started = time.process_time()
    for metric in METRICS.values():
        metric.value(probabilities, gold)
    assert time.process_time() - started < 2
    probabilities, gold = drawn(200, 4)
    counts = resamples(200, 2000)
    started = time.process_time()
    for metric in METRICS.values():
        assert metric.resampled(probabilities, gold, counts).shape == (2000,)
    assert time.process_time() - started < 3


# Plots


@pytest.mark.parametrize("overlay", [False, True])
def test_reliability_diagrams_are_written(tmp_path, overlay):
    probabilities, gold = drawn(200, 4)
    models = {}
    for name, rows in (("dense", probabilities), ("pruned", sharpened(probabilities))):
        top = top_label(rows, gold)
        null = null_error(*top, draws=50)
        models[name] = {**reliability_table(*top).as_dict(), "ece": null.observed, "null_ece": null.mean}
    files = plot_reliability(models, "calibration", tmp_path / "reliability", overlay=overlay)
    assert [file.name for file in files] == ["reliability.png", "reliability.svg"]
    again = plot_reliability(models, "calibration", tmp_path / "again", overlay=overlay)
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in again]
    assert f"ECE {models['pruned']['ece']:.3f}, null ECE {models['pruned']['null_ece']:.3f}" in files[1].read_text()


@pytest.mark.parametrize("log", [False, True])
def test_risk_coverage_curves_are_written(tmp_path, log):
    curves = {}
    for name, seed in (("dense", 0), ("pruned", 1)):
        top = top_label(*drawn(100, 3, seed))
        curve = risk_coverage(*top)
        curves[name] = {"coverage": curve.coverage_N.tolist(), "risk": curve.risk_N.tolist(), "aurc": aurc(*top)}
    files = plot_risk_coverage(curves, "abstention", tmp_path / "risk", log=log)
    assert [file.name for file in files] == ["risk.png", "risk.svg"]
    again = plot_risk_coverage(curves, "abstention", tmp_path / "again", log=log)
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in again]
    assert f"dense: AURC {curves['dense']['aurc']:.3f}" in files[1].read_text()


def test_no_plots_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setattr("trueprune.reports.confidence_plots.plots_available", lambda: False)
    assert plot_reliability({}, "none", tmp_path / "r") == plot_risk_coverage({}, "none", tmp_path / "c") == []
    assert not list(tmp_path.iterdir())
