"""Judging: pass, fail and inconclusive by the interval; ratios; how many items would decide; what is undefined."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from trueprune._support.errors import AuditError
from trueprune.audits.draws import cluster_counts
from trueprune.audits.measurement import Measurement
from trueprune.reports import AuditedModel, compare, estimate, paired_change
from trueprune.reports.gates import Check, Gate, judge
from trueprune.reports.gates.judging import status_of
from trueprune.reports.gates.power import items_needed, two_digits
from trueprune.reports.gates.words import explained
from trueprune.reports.paired import UndefinedRatioError, paired_ratio

RESAMPLES = 400
DRAWS = {"resamples": RESAMPLES, "seed": 0}


def measured(values, metric="accuracy/facts", instrument="accuracy", **options):
    values = np.asarray(values, dtype=np.float64)
    settings = {"item_ids": [f"i{n}" for n in range(len(values))], **options}
    return Measurement(instrument, metric, values=values, **settings)


def share(right, n=200):
    return np.arange(n) < right


def report_of(*models, **settings):
    named = [AuditedModel(f"m{n}", found) for n, found in enumerate(models)]
    return compare(named, {**DRAWS, **settings}, **DRAWS)


def verdict_on(*models, checks, **options):
    return judge(Gate("g", checks, **options), report_of(*models))


def accuracy(quantity, least=None, most=None, **options):
    return Check("accuracy", options.pop("metric", "accuracy/facts"), quantity, least, most, **options)


# Status


@pytest.mark.parametrize(
    ("interval", "bounds", "status"),
    [
        ((0.2, 0.4), (0.1, None), "pass"),
        ((0.2, 0.4), (0.2, None), "pass"),
        ((0.2, 0.4), (0.3, None), "inconclusive"),
        ((0.2, 0.4), (0.4, None), "inconclusive"),
        ((0.2, 0.4), (0.5, None), "fail"),
        ((0.2, 0.4), (None, 0.5), "pass"),
        ((0.2, 0.4), (None, 0.4), "pass"),
        ((0.2, 0.4), (None, 0.3), "inconclusive"),
        ((0.2, 0.4), (None, 0.1), "fail"),
        ((0.2, 0.4), (0.1, 0.5), "pass"),
        ((0.2, 0.4), (0.3, 0.5), "inconclusive"),
        ((0.2, 0.4), (0.25, 0.35), "inconclusive"),
        ((0.2, 0.4), (0.5, 0.6), "fail"),
        ((0.2, 0.4), (0.0, 0.1), "fail"),
        # 0.98 - 1 is a little below -0.02.
        ((0.98 - 1, 0.0), (-0.02, None), "pass"),
        ((0.98 - 1, 0.98 - 1), (None, -0.02), "pass"),
        ((3e9, 3e9), (None, 3e9 - 1), "pass"),
        ((3e9, 3e9), (None, 3e9 - 100), "fail"),
    ],
)
def test_an_interval_against_a_bound(interval, bounds, status):
    assert status_of(interval, accuracy("value", *bounds)) == status


def test_values_changes_and_ratios_are_judged_by_the_intervals_of_the_report():
    dense, pruned = measured(share(160)), measured(share(140))
    checks = [accuracy("value", 0.6), accuracy("change", -0.02), accuracy("ratio", 0.5, 0.99)]
    verdict = verdict_on([dense], [pruned], checks=checks)
    value, change, ratio = verdict.outcomes
    found = [estimate(pruned, **DRAWS), paired_change(dense, pruned, **DRAWS), paired_ratio(dense, pruned, **DRAWS)]
    assert [(o.value, o.interval, o.n) for o in verdict.outcomes] == [(f.value, f.interval, f.n) for f in found]
    assert (value.value, change.value, ratio.value) == pytest.approx((0.7, -0.1, 0.875))
    assert [o.status for o in verdict.outcomes] == ["pass", "fail", "pass"]
    assert (verdict.passed(), verdict.passed("m1")) == (False, False)


def test_every_model_but_the_first_is_judged_in_order():
    verdict = verdict_on(
        *([measured(share(n)), measured(share(n), "accuracy/sentiment")] for n in (160, 160, 100)),
        checks=[accuracy("change", -0.1, metric="accuracy/*"), accuracy("value", 0.1)],
    )
    assert verdict.models == ("m1", "m2")
    assert [(o.model, o.metric) for o in verdict.outcomes] == [
        (model, metric)
        for model in ("m1", "m2")
        for metric in ("accuracy/facts", "accuracy/sentiment", "accuracy/facts")
    ]
    assert (verdict.passed("m1"), verdict.passed("m2"), verdict.passed()) == (True, False, False)
    with pytest.raises(KeyError, match="did not judge 'm0'"):
        verdict.passed("m0")


def test_a_model_alone_is_judged_by_its_values():
    verdict = verdict_on([measured(share(160))], checks=[accuracy("value", 0.7)])
    assert (verdict.models, verdict.passed()) == (("m0",), True)
    with pytest.raises(AuditError, match="gate g, check 1: a change is of a pruned model"):
        verdict_on([measured(share(160))], checks=[accuracy("change", -0.1)])


@pytest.mark.parametrize(
    ("gate", "check", "passed"),
    [("fail", None, False), ("pass", None, True), ("fail", "pass", True), ("pass", "fail", False)],
)
def test_how_what_is_undecided_counts(gate, check, passed):
    verdict = verdict_on(
        [measured(share(150))],
        [measured(share(140))],
        checks=[accuracy("change", -0.05, inconclusive=check)],
        inconclusive=gate,
    )
    (outcome,) = verdict.outcomes
    assert (outcome.status, outcome.passed, verdict.passed()) == ("inconclusive", passed, passed)


def test_a_broken_bound_fails_however_the_undecided_count():
    verdict = verdict_on(
        [measured(share(190))], [measured(share(100))], checks=[accuracy("change", -0.05)], inconclusive="pass"
    )
    assert not verdict.passed()


def test_a_count_is_decided_by_its_value():
    def of(size):
        return [measured([size], "disk-bytes", "efficiency", item_ids=["model"], higher_is_better=False)]

    checks = [Check("efficiency", "disk-bytes", q, None, bound) for q, bound in (("value", 6e9), ("ratio", 0.4))]
    outcomes = verdict_on(of(1e10), of(5e9), checks=checks).outcomes
    assert [(o.status, o.interval, o.needed, o.note) for o in outcomes] == [
        ("pass", (5e9, 5e9), None, ""),
        ("fail", (0.5, 0.5), None, ""),
    ]


def test_a_baseline_of_its_own_is_what_a_ratio_is_to():
    dense = measured([4.0, 4, 4], "decode-speedup", "efficiency")
    before = measured([1.0, 1, 1], "decode-speedup", "efficiency")
    own = measured([2.0, 2, 2], "decode-speedup", "efficiency", baseline=before)
    (outcome,) = verdict_on([dense], [own], checks=[Check("efficiency", "decode-speedup", "ratio", 1.5)]).outcomes
    assert (outcome.value, outcome.status) == (2.0, "pass")


def test_few_independent_items_are_told():
    few = [f"c{n % 4}" for n in range(200)]
    models = [[measured(share(n), clusters=few)] for n in (190, 180)]
    (outcome,) = verdict_on(*models, checks=[accuracy("change", -0.5)]).outcomes
    assert outcome.note == "it rests on 4 independent items, so that its interval is itself a guess"
    (outcome,) = verdict_on([measured(share(9))], [measured(share(9))], checks=[accuracy("change", -0.5)]).outcomes
    assert outcome.note == ""


# What is not there


def test_a_metric_that_was_not_measured_is_refused_by_name():
    with pytest.raises(AuditError, match=r"check 1: no metric .*'accuracy/boolq'\. Measured were accuracy/facts"):
        verdict_on([measured(share(9))], [measured(share(9))], checks=[accuracy("value", 0.1, metric="accuracy/boolq")])
    many = [measured(share(9), f"accuracy/t{n}") for n in range(20)]
    with pytest.raises(AuditError, match=r"t0, .*t11 and 8 more$"):
        verdict_on(many, many, checks=[accuracy("value", 0.1, metric="accuracy/*/sum")])
    with pytest.raises(AuditError, match="check 1, instrument: perplexity is not measured"):
        verdict_on(many, many, checks=[Check("perplexity", "perplexity", "ratio", None, 1.1)])


@pytest.mark.parametrize("inconclusive", ["fail", "pass"])
def test_what_a_pruned_model_leaves_undefined_breaks_the_bound(inconclusive):
    dense, other = measured(share(120)), measured(share(120), "accuracy/sentiment")
    verdict = verdict_on(
        [dense, other],
        [other],
        checks=[accuracy("change", -0.9, metric="accuracy/*")],
        inconclusive=inconclusive,
    )
    broken, kept = verdict.outcomes
    assert (broken.metric, broken.status, broken.passed, broken.undefined) == ("accuracy/facts", "fail", False, True)
    assert broken.note == "it was not measured on this model"
    assert (kept.metric, kept.status) == ("accuracy/sentiment", "pass")


def test_what_the_dense_model_leaves_undefined_cannot_be_compared():
    dense, pruned = [measured(share(9), "accuracy/sentiment")], [measured(share(120))]
    (outcome,) = verdict_on(dense, pruned, checks=[accuracy("change", -0.9)]).outcomes
    assert (outcome.status, outcome.passed, outcome.undefined) == ("inconclusive", False, True)
    assert "nothing to compare with" in outcome.note
    (outcome,) = verdict_on(dense, pruned, checks=[accuracy("value", 0.2)]).outcomes
    assert outcome.status == "pass"


@pytest.mark.parametrize("right", [0, 2])
def test_a_ratio_to_nearly_nothing_is_inconclusive(right):
    verdict = verdict_on([measured(share(right))], [measured(share(120))], checks=[accuracy("ratio", None, 1.0)])
    (outcome,) = verdict.outcomes
    assert (outcome.status, outcome.undefined, outcome.needed) == ("inconclusive", True, None)
    assert f"is {right / 200:.4g}: too near to zero for a ratio" in outcome.note


def test_undefined_numbers_are_null_in_json():
    verdict = verdict_on([measured(share(0))], [measured(share(120))], checks=[accuracy("ratio", None, 1.0)])
    data = verdict.to_json()
    (outcome,) = data["models"]["m1"]["outcomes"]
    assert (outcome["value"], outcome["interval"], outcome["check"]["at_most"]) == (None, [None, None], 1.0)
    assert {key: data[key] for key in ("gate", "passed")} == {"gate": "g", "passed": False}
    assert data["sentence"].startswith("m1 fails the gate g")


# Ratios


def test_a_ratio_of_perplexities():
    rng = np.random.default_rng(0)
    nll, weights = rng.normal(3, 0.5, 60), rng.uniform(1, 2, 60)
    lost = rng.normal(0.1, 0.05, 60)
    before, after = (
        measured(values, "perplexity", "perplexity", weights=weights, reduction="exp-mean")
        for values in (nll, nll + lost)
    )
    found = paired_ratio(before, after, **DRAWS)
    mean = np.average(lost, weights=weights)
    assert found.value == pytest.approx(np.exp(mean)) == pytest.approx(after.value / before.value)
    assert found.interval[0] < np.exp(0.1) < found.interval[1]
    # Pairing takes off what the windows share: the error is that of the differences.
    assert found.error == pytest.approx(0.05 / math.sqrt(60) * np.exp(mean), rel=0.3)
    assert found.n == 60


def test_a_ratio_covers_the_truth():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        before = rng.gamma(2.0, 1.0, 80)
        after = 0.5 * before * rng.gamma(10.0, 0.1, 80)
        low, high = paired_ratio(measured(before), measured(after), resamples=300).interval
        covered += low <= 0.5 <= high
    assert 0.90 <= covered / 200 <= 0.99


def test_a_ratio_of_a_model_to_itself_is_one():
    found = paired_ratio(measured(share(150)), measured(share(150)), **DRAWS)
    assert (found.value, *found.interval) == pytest.approx((1, 1, 1), abs=1e-12)


def test_a_ratio_of_nothing_left_is_zero():
    found = paired_ratio(measured(share(150)), measured(share(0)), **DRAWS)
    assert (found.value, found.interval) == (0.0, (0.0, 0.0))


def test_the_bias_of_a_ratio_is_taken_off():
    rng = np.random.default_rng(0)
    before, after = rng.gamma(0.5, 1.0, 20), rng.gamma(0.5, 1.0, 20)
    found = paired_ratio(measured(before), measured(after), **DRAWS)
    counts = cluster_counts(np.unique([f"i{n}" for n in range(20)], return_inverse=True)[1], RESAMPLES, 0)
    ratios = (counts @ after) / (counts @ before)
    assert ratios.mean() > 1.02 * found.value
    low, high = np.quantile(ratios / ratios.mean(), [0.025, 0.975])
    assert found.interval == pytest.approx((low * found.value, high * found.value))


def test_ratios_have_positive_bounds():
    found = paired_ratio(measured(share(20)), measured(np.arange(200) >= 196), **DRAWS)
    assert 0 <= found.interval[0] < found.value < found.interval[1]


def test_a_ratio_that_is_not_defined():
    for nothing in (np.zeros(50), -np.ones(50), np.arange(50) < 1):
        with pytest.raises(
            UndefinedRatioError, match=r"accuracy accuracy/facts of the dense model is .* too near to zero"
        ):
            paired_ratio(measured(nothing), measured(np.ones(50)), **DRAWS)


@pytest.mark.parametrize("compared", [paired_change, paired_ratio])
def test_other_items_are_refused_with_examples_of_each(compared):
    one, other = [f"a{n}" for n in range(5)], ["a0", "b1", "b2"]
    with pytest.raises(AuditError) as error:
        compared(measured(np.ones(5), item_ids=one), measured(np.ones(3), item_ids=other))
    assert str(error.value) == (
        "accuracy accuracy/facts: the two models were measured on different items (6 differ, e.g. a1): "
        "4 only in the first (a1 a2 a3 ...), 2 only in the second (b1 b2), 1 in both. "
        "Audit both in one run, or with the same options"
    )
    with pytest.raises(AuditError, match=r"different items \(the same 3 in another order\)\. "):
        compared(measured(np.ones(3), item_ids=other), measured(np.ones(3), item_ids=other[::-1]))
    with pytest.raises(AuditError, match=r"2 only in the first .*, 0 only in the second, 3 in both"):
        compared(measured(np.ones(5), item_ids=one), measured(np.ones(3), item_ids=one[:3]))


# Power


def test_items_needed_by_hand():
    bound = accuracy("change", -0.02)
    # (1.95996 + 0.84162)^2 = 7.8489; twice the error as far away calls for 7.85 / 4 times the items.
    assert items_needed(0.0, 0.02, 200, bound) == 1600
    assert items_needed(-0.04, 0.02, 200, bound) == 1600
    assert items_needed(0.02, 0.02, 200, bound) == 400
    assert items_needed(-0.02, 0.02, 200, bound) is None
    assert items_needed(0.98 - 1, 0.02, 200, bound) is None
    assert items_needed(0.0, float("nan"), 200, bound) is None
    # The nearer of two sides.
    assert items_needed(0.01, 0.02, 200, accuracy("change", -0.05, 0.02)) == items_needed(
        0.01, 0.02, 200, accuracy("change", None, 0.02)
    )
    assert items_needed(0.03, 0.001, 200, bound) > 200


@pytest.mark.parametrize(
    ("number", "rounded"), [(3.2, 4), (10.0, 10), (10.1, 11), (99.5, 100), (101.0, 110), (1234.0, 1300)]
)
def test_two_digits(number, rounded):
    assert two_digits(number) == rounded


@pytest.mark.parametrize(("value", "of_cluster"), [(0.0, 1), (-0.06, 4)])
def test_with_as_many_items_as_said_four_of_five_repetitions_decide(value, of_cluster):
    """Of a paired change whose true value is what the first audit saw."""
    rng = np.random.default_rng(0)
    bound, status = accuracy("change", -0.03), "pass" if value == 0 else "fail"

    def repetition(n):
        clusters = n // of_cluster
        noise = np.repeat(rng.normal(size=clusters), of_cluster) + 0.5 * rng.normal(size=clusters * of_cluster)
        before = rng.normal(size=len(noise))
        labels = [f"c{i // of_cluster}" for i in range(len(noise))]
        pair = (measured(values, clusters=labels) for values in (before, before + 0.2 * noise + value))
        return paired_change(*pair, resamples=200)

    # Of a first audit as it is on average.
    error = float(np.mean([repetition(60).error for _ in range(40)]))
    needed = items_needed(value, error, 60, bound)
    assert needed is not None
    found = [status_of(repetition(needed).interval, bound) for _ in range(200)]
    assert 0.72 <= found.count(status) / 200 <= 0.88
    assert found.count("fail" if status == "pass" else "pass") <= 1


def test_what_is_inconclusive_says_how_many_items_it_needs():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 0.2, 200)
    change = paired_change(measured(np.zeros(200)), measured(values), **DRAWS)
    (outcome,) = verdict_on([measured(np.zeros(200))], [measured(values)], checks=[accuracy("change", -0.02)]).outcomes
    expected = 200 * (2.8016 * change.error / abs(change.value + 0.02)) ** 2
    assert outcome.status == "inconclusive"
    assert expected <= outcome.needed <= 1.1 * expected
    (decided,) = verdict_on([measured(np.zeros(200))], [measured(values)], checks=[accuracy("change", -0.5)]).outcomes
    assert decided.needed is None


# Where all items say the same


@pytest.mark.parametrize(
    ("n", "check", "status", "needed"),
    [
        # 1 - 0.025^(1/12) is 0.265, and 1 - 0.025^(1/72) is 0.05.
        (12, accuracy("change", -0.05), "inconclusive", 72),
        (12, accuracy("change", -0.3), "pass", None),
        (12, accuracy("ratio", 0.9), "inconclusive", 36),
        (12, accuracy("ratio", 0.7), "pass", None),
        (12, accuracy("value", 0.9), "inconclusive", 36),
        (12, accuracy("value", None, 0.7), "fail", None),
        (200, accuracy("change", -0.02), "pass", None),
        (100, accuracy("change", -0.02), "inconclusive", 190),
    ],
)
def test_a_few_answers_that_are_all_alike_prove_little(n, check, status, needed):
    same = [measured(np.ones(n))]
    (outcome,) = verdict_on(same, same, checks=[check]).outcomes
    low, high = outcome.interval
    assert (outcome.status, outcome.needed) == (status, needed)
    reach = 1 - 0.025 ** (1 / n)
    expected = (-reach, reach) if check.quantity == "change" else (1 - reach, 1 + reach)
    assert low == pytest.approx(expected[0])
    assert high == pytest.approx(1.0 if check.quantity == "value" else expected[1])
    assert (f"all {n} independent items say the same" in outcome.note) == (status == "inconclusive")


def test_a_change_of_none_of_few_answers_covers_the_truth():
    """Of audits of 12 questions of which a tenth is lost in truth, few may say that less than a tenth is."""
    rng = np.random.default_rng(0)
    checks = [accuracy("change", -0.08)]
    found = [
        verdict_on([measured(np.ones(12))], [measured(rng.random(12) > 0.1)], checks=checks).outcomes[0].status
        for _ in range(100)
    ]
    assert found.count("pass") == 0


def test_one_item_of_a_sample_is_no_count():
    def window(nll):
        return [measured([nll], "perplexity", "perplexity", reduction="exp-mean", item_ids=["w"])]

    for most in (1.5, 0.5):
        check = Check("perplexity", "perplexity", "ratio", None, most)
        (outcome,) = verdict_on(window(2.0), window(2.0), checks=[check]).outcomes
        assert (outcome.status, outcome.needed) == ("inconclusive", None)
        assert outcome.note == "one independent item says nothing of others"
        assert outcome.to_json()["interval"] == [None, None]
        assert "More windows of text (--max-tokens, --text) would decide it" in explained(outcome)
    # Nor are many items of one cluster.
    one = [measured(share(150), clusters=["c"] * 200)]
    (outcome,) = verdict_on(one, one, checks=[accuracy("change", -0.5)]).outcomes
    assert outcome.status == "inconclusive"


def test_a_dense_value_that_is_no_number_cannot_be_compared():
    def half(value):
        return [replace(measured(share(9, 9)), statistic=lambda counts_Rn: np.full(len(counts_Rn), value))]

    held = [AuditedModel("dense", half(0.5)), AuditedModel("pruned", half(0.5))]
    report = compare(held, dict(DRAWS), **DRAWS)
    for undefined, status in ((0, "inconclusive"), (1, "fail")):
        models = [replace(m, measurements=half(float("nan"))) if n == undefined else m for n, m in enumerate(held)]
        gate = Gate("g", [accuracy("change", -0.5)], inconclusive="pass")
        (outcome,) = judge(gate, replace(report, models=models, rows=[])).outcomes
        assert (outcome.status, outcome.undefined) == (status, True)


def test_what_was_not_measured_is_not_called_undefined():
    both, one = [measured(share(120)), measured(share(120), "accuracy/sentiment")], [measured(share(120))]
    gate = accuracy("change", -0.5, metric="accuracy/sentiment")
    (outcome,) = verdict_on(both, one, checks=[gate]).outcomes
    assert outcome.note == "it was not measured on this model"
    (outcome,) = verdict_on(one, both, checks=[gate]).outcomes
    assert outcome.note == "it was not measured on the dense model: there is nothing to compare with"
    auroc = [measured(share(120), "auroc/facts", "calibration")]
    (outcome,) = verdict_on(auroc, one, checks=[Check("calibration", "auroc/facts", "value", 0.1)]).outcomes
    assert outcome.note == "it is undefined or was not measured on this model"
