"""Which changes stand: McNemar and Holm against hand values, when each test is used, and where it is said."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from trueprune.audits.measurement import Measurement
from trueprune.cli.show import show
from trueprune.reports import AuditedModel, Estimate, compare, estimate, paired_change
from trueprune.reports.significance import LEVEL, ChangeTest, holm, mcnemar, p_value
from trueprune.reports.tables import audit_table


def measured(values, **options):
    values = np.asarray(values, dtype=np.float64)
    settings = {"metric": "accuracy/facts", "item_ids": [f"i{n}" for n in range(len(values))], **options}
    return Measurement("accuracy", values=values, **settings)


def answers(both=0, lost=0, won=0, neither=0):
    """Right and wrong answers of two models: how many each has right."""
    before = [1] * both + [1] * lost + [0] * won + [0] * neither
    after = [1] * both + [0] * lost + [1] * won + [0] * neither
    return np.array(before, dtype=float), np.array(after, dtype=float)


def p_of(before, after):
    return p_value(before, after, paired_change(before, after, resamples=500))


# McNemar


@pytest.mark.parametrize(
    ("lost", "won", "p"),
    [
        (5, 0, 2 / 32),
        (0, 5, 2 / 32),
        (6, 1, 2 * (1 + 7) / 128),
        (1, 1, 1.0),
        (3, 3, 1.0),
        (2, 3, 1.0),
        (0, 0, 1.0),
        (1, 0, 1.0),
        (0, 10, 2 / 1024),
    ],
)
def test_mcnemar_by_hand(lost, won, p):
    assert mcnemar(*answers(both=7, lost=lost, won=won, neither=2)) == pytest.approx(p, rel=1e-12)


@given(st.integers(0, 80), st.integers(0, 80), st.integers(0, 20))
def test_mcnemar_is_the_binomial_test_of_the_items_that_differ(lost, won, both):
    expected = binomtest(lost, lost + won).pvalue if lost + won else 1.0
    assert mcnemar(*answers(both=both, lost=lost, won=won, neither=1)) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_thousands_of_items():
    # 2^-3000 is no floating-point number.
    assert mcnemar(*answers(lost=1400, won=1600)) == pytest.approx(binomtest(1400, 3000).pvalue, rel=1e-9)
    assert mcnemar(*answers(lost=3000)) == 0.0


# Holm


@pytest.mark.parametrize(
    ("given_p", "adjusted"),
    [
        ([], []),
        ([0.03], [0.03]),
        # Times 4, 3, 2, 1 in ascending order, and never below the one before.
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.01, 0.011, 0.3], [0.03, 0.03, 0.3]),
        ([0.6, 0.4, 0.9], [1.0, 1.0, 1.0]),
        ([0.02, 0.02], [0.04, 0.04]),
        ([0.0, 1.0], [0.0, 1.0]),
    ],
)
def test_holm_by_hand(given_p, adjusted):
    assert holm(given_p) == pytest.approx(adjusted, abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_its_step_down_rejects(p_values):
    adjusted = holm(p_values)
    # Holm (1979) as written: go up from the smallest while p_(k) < level / (m - k + 1).
    rejected = set()
    for k, index in enumerate(np.argsort(p_values, kind="stable")):
        if not (len(p_values) - k) * p_values[index] < LEVEL:
            break
        rejected.add(int(index))
    assert {i for i, p in enumerate(adjusted) if p < LEVEL} == rejected
    assert all(p <= a <= 1 for p, a in zip(p_values, adjusted, strict=True))


# Which test


def test_right_and_wrong_answers_are_tested_by_mcnemar():
    before, after = answers(both=10, lost=9, won=1, neither=5)
    clusters = [f"c{n}" for n in range(25)]
    expected = ("mcnemar", binomtest(1, 10).pvalue)
    for options in ({}, {"clusters": clusters}):
        name, p = p_of(measured(before, **options), measured(after, **options))
        assert (name, p) == (expected[0], pytest.approx(expected[1]))


def test_the_rest_is_tested_by_its_standard_error():
    before, after = answers(both=10, lost=9, won=1, neither=5)
    fractional = after.copy()
    fractional[0] = 0.5
    together = [f"c{n // 2}" for n in range(25)]
    heavy = np.linspace(1, 2, 25)

    def mean(counts_Rn):
        return counts_Rn @ before / counts_Rn.sum(1)

    for first, second in (
        (measured(before), measured(fractional)),
        (measured(fractional), measured(after)),
        (measured(before, clusters=together), measured(after, clusters=together)),
        (measured(before, weights=heavy), measured(after, weights=heavy)),
        (measured(before, reduction="exp-mean"), measured(after, reduction="exp-mean")),
        (measured(before, statistic=mean), measured(after)),
    ):
        change = paired_change(first, second, resamples=500)
        assert p_value(first, second, change) == (
            "bootstrap",
            pytest.approx(math.erfc(abs(change.value) / change.error / math.sqrt(2))),
        )


def test_the_standard_error_is_that_of_the_mean():
    rng = np.random.default_rng(0)
    values = rng.normal(size=400)
    found = estimate(measured(values), resamples=4000)
    assert found.error == pytest.approx(values.std() / 20, rel=0.05)
    other = values + rng.normal(scale=0.5, size=400)
    change = paired_change(measured(values), measured(other), resamples=4000)
    assert change.error == pytest.approx((other - values).std() / 20, rel=0.05)


def test_bootstrap_p_by_hand():
    one = measured(np.linspace(0.1, 0.4, 10))
    name, p = p_value(one, one, Estimate(1.96, (0.0, 0.0), 3, 1.0))
    assert (name, p) == ("bootstrap", pytest.approx(0.05, abs=1e-4))
    assert p_value(one, one, Estimate(-1.96, (0.0, 0.0), 3, 1.0))[1] == p
    assert p_value(one, one, Estimate(0.0, (0.0, 0.0), 3, 1.0))[1] == 1.0
    # Far beyond what any number of resamples could say, and still a number to be corrected.
    assert 0 < p_value(one, one, Estimate(10.0, (0.0, 0.0), 3, 1.0))[1] < 1e-20


def test_no_change_is_no_finding_and_a_count_has_no_test():
    one = measured(np.linspace(0.1, 0.4, 10))
    assert p_of(one, measured(one.values.copy())) == ("bootstrap", 1.0)
    # Every item moved by the same: the resamples do not vary, and say nothing about other items.
    assert p_value(one, one, Estimate(0.5, (0.5, 0.5), 3, 0.0)) is None
    assert p_value(measured([10.0]), measured([20.0]), Estimate(10.0, (10.0, 10.0), 1, 0.0)) is None
    # A count of one item whose value happens to be 0 or 1 is no answer.
    assert p_value(measured([1.0]), measured([0.0]), Estimate(-1.0, (-1.0, -1.0), 1, 0.0)) is None


def test_the_bootstrap_keeps_its_level():
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(300):
        before = rng.normal(size=60)
        after = before + rng.normal(size=60)
        first, second = measured(before), measured(after)
        alarms += p_value(first, second, paired_change(first, second, resamples=200))[1] < 0.05
    assert 0.02 <= alarms / 300 <= 0.09


def test_fewer_than_ten_independent_items_are_not_tested():
    values, other = np.linspace(0.1, 0.9, 30), np.linspace(0.2, 0.95, 30)
    for clusters, tested in ((10, True), (9, False)):
        names = [f"c{n % clusters}" for n in range(30)]
        assert (p_of(measured(values, clusters=names), measured(other, clusters=names)) is not None) == tested
    for lost, tested in ((10, True), (9, False)):
        assert (p_of(*map(measured, answers(lost=lost))) is not None) == tested


# In the report


@pytest.fixture
def report():
    before, after = answers(both=10, lost=16, won=1, neither=5)
    slight = before.copy()
    slight[:3] = 0

    def model(name, right, shift, parameters):
        rng = np.random.default_rng(1)
        return AuditedModel(
            name,
            [
                measured(right, headline=True),
                measured(rng.normal(size=32) + shift, metric="perplexity", headline=True, higher_is_better=False),
                measured([parameters], metric="parameters", headline=True),
            ],
        )

    models = [model("dense", before, 0.0, 100.0), model("bad", after, 0.0, 50.0), model("fair", slight, 0.0, 80.0)]
    return compare(models, {}, resamples=200, seed=0)


def row_of(report, model, metric):
    return next(row for row in report.rows if (row.model, row.metric) == (model, metric))


def test_rows_carry_their_tests_corrected_for_all_of_the_report(report):
    tests = {(row.model, row.metric): row.test for row in report.rows if row.test is not None}
    # Two models by two metrics; the dense model and the counts have none.
    assert set(tests) == {(m, k) for m in ("bad", "fair") for k in ("accuracy/facts", "perplexity")}
    assert tests["bad", "accuracy/facts"].name == "mcnemar"
    assert tests["bad", "accuracy/facts"].p == pytest.approx(binomtest(1, 17).pvalue)
    assert tests["bad", "perplexity"] == ChangeTest("bootstrap", 1.0, 1.0)
    raw = [test.p for test in tests.values()]
    assert [test.p_adjusted for test in tests.values()] == pytest.approx(holm(raw))
    assert tests["bad", "accuracy/facts"].p_adjusted == pytest.approx(4 * binomtest(1, 17).pvalue)
    assert [test.significant for test in tests.values()] == [test.p_adjusted < 0.05 for test in tests.values()]
    assert tests["bad", "accuracy/facts"].significant


def test_what_tables_do_not_show_does_not_weaken_what_they_show():
    before, after = answers(both=10, lost=8, won=1, neither=5)

    def model(name, right):
        unseen = [measured(right, metric=f"m{k}") for k in range(9)]
        return AuditedModel(name, [measured(right, headline=True), *unseen])

    found = compare([model("dense", before), model("bad", after)], {}, resamples=50, seed=0)
    p = binomtest(1, 9).pvalue
    test = row_of(found, "bad", "accuracy/facts").test
    assert (test.name, test.p, test.p_adjusted) == ("mcnemar", pytest.approx(p), pytest.approx(p))
    # The others are corrected for all ten.
    assert row_of(found, "bad", "m3").test.p_adjusted == pytest.approx(10 * p)
    assert not row_of(found, "bad", "m3").test.significant


def test_json_says_which_test_and_both_p_values(report):
    data = json.loads(json.dumps(report.to_json()))
    rows = {(row["model"], row["metric"]): row for row in data["measurements"]}
    test = rows["bad", "accuracy/facts"]["change"]["test"]
    assert set(test) == {"name", "p", "p_adjusted"}
    assert test["name"] == "mcnemar"
    assert rows["bad", "parameters"]["change"]["test"] is None
    assert rows["bad", "parameters"]["change"]["value"] == -50
    assert rows["dense", "accuracy/facts"]["change"] is None


def test_tables_mark_what_stands_after_correction(report, capsys):
    show(audit_table(report))
    printed = capsys.readouterr().out
    assert printed.count(" *") == 1 + 1  # the change, and the legend below the table
    assert "* p < 0.05 after Holm's correction for 4 comparisons" in printed
    lines = [line for line in printed.splitlines() if "-0.469" in line]
    assert len(lines) == 1
    assert "*" in lines[0]
    # Without a change that stands there is nothing to explain.
    alike = compare(
        [AuditedModel(name, [measured([0.0, 1.0], headline=True)]) for name in "ab"], {}, resamples=20, seed=0
    )
    show(audit_table(alike))
    assert "*" not in capsys.readouterr().out


def test_a_change_that_many_comparisons_explain_is_not_marked():
    before, after = answers(both=10, lost=8, won=1, neither=5)

    def model(name, right, others):
        same = [measured(np.linspace(0, 1, 24), metric=f"m{k}", headline=True) for k in range(others)]
        return AuditedModel(name, [measured(right, headline=True), *same])

    def of(others):
        found = compare([model("dense", before, others), model("bad", after, others)], {}, resamples=50, seed=0)
        return row_of(found, "bad", "accuracy/facts").test

    alone, among = of(0), of(9)
    assert alone.p == among.p == alone.p_adjusted < 0.05
    assert alone.significant
    assert among.p_adjusted == pytest.approx(10 * alone.p)
    assert not among.significant
