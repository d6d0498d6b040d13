"""Lie detection: splits that never share a fact, layers that are found, values that pair."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trueprune._support.errors import AuditError
from trueprune.audits.lie_detection import measure_lie_detection, statement_ids
from trueprune.audits.probes import ProbeOptions
from trueprune.audits.protocols import balanced, grouped_splits, leave_one_topic_out, link_units, transfer_splits
from trueprune.texts.statements import Statement, StatementSet

TOPICS = ("cities", "words", "animals")


def make_statements(n_groups=30, topics=TOPICS, extras=False):
    rows = []
    for topic in topics:
        for number in range(n_groups):
            for label in (1, 0):
                for polarity in ("affirmative", "negated"):
                    truth = label if polarity == "affirmative" else 1 - label
                    text = f"{topic} {number} is{'' if polarity == 'affirmative' else ' not'} {label}."
                    rows.append(Statement(text, truth, topic, polarity, "en", f"{topic}:{number}"))
    if extras:
        for number in range(n_groups):
            topic, label = topics[number % len(topics)], number % 2
            group = f"{topic}:{number}|{topic}:{(number + 1) % n_groups}"
            for kind in ("conjunction", "disjunction", "scenario"):
                rows.append(Statement(f"{kind} {number}.", label, topic, kind, "en", group))
            rows.append(
                Statement(f"{topic} {number} ist wahr.", label, topic, "affirmative", "de", f"{topic}:{number}")
            )
    return StatementSet(rows, "synthetic")


def make_acts(statements, signal_layers=(2,), layers=4, width=16, strength=1.5, seed=0):
    g = torch.Generator().manual_seed(seed)
    acts = torch.randn(len(statements), layers, width, generator=g)
    truth = 2.0 * torch.from_numpy(statements.labels) - 1
    direction = torch.randn(width, generator=torch.Generator().manual_seed(99))
    for layer in signal_layers:
        acts[:, layer] += strength * truth[:, None] * direction / direction.norm() * 2
    return acts


def by_metric(measurements):
    return {m.metric: m for m in measurements}


parts = st.lists(st.integers(0, 12), min_size=0, max_size=3, unique=True)
random_rows = st.lists(
    st.tuples(
        parts, st.sampled_from(TOPICS), st.sampled_from(["affirmative", "negated", "conjunction"]), st.booleans()
    ),
    min_size=6,
    max_size=40,
)


def random_statements(rows):
    return StatementSet(
        [
            Statement(f"text {i // 2}", int(label), topic, polarity, "en", "|".join(f"g{p}" for p in group))
            for i, (group, topic, polarity, label) in enumerate(rows)
        ]
    )


def facts(statements, rows):
    keys = {part for i in rows for part in statements[int(i)].group.split("|") if part}
    return keys | {("text", statements[int(i)].text) for i in rows}


@settings(max_examples=60, deadline=None)
@given(rows=random_rows, seed=st.integers(0, 5), balance=st.booleans())
def test_no_fact_is_on_both_sides(rows, seed, balance):
    statements = random_statements(rows)
    try:
        splits = grouped_splits(statements, repeats=2, seed=seed, balance=balance)
    except AuditError:
        splits = []  # no topic with two units
    for split in splits:
        assert len(split.test)
        assert not facts(statements, split.train) & facts(statements, split.test)
        assert set(statements.polarities[[*split.train, *split.test]]) <= {"affirmative", "negated"}
    for split in leave_one_topic_out(statements, balance=balance, seed=seed):
        assert not facts(statements, split.train) & facts(statements, split.test)
        assert split.name not in statements.topics[split.train]
        assert set(statements.topics[split.test]) == {split.name}


def test_grouped_splits_take_the_share_within_each_topic():
    statements = make_statements(30)
    for split in grouped_splits(statements, repeats=3, balance=False):
        assert len(split.train) + len(split.test) == len(statements)
        for topic in TOPICS:
            assert (statements.topics[split.train] == topic).sum() == 21 * 4


def test_splits_follow_the_seed():
    statements = make_statements()
    first, again, other = (grouped_splits(statements, seed=s) for s in (0, 0, 1))
    assert all(np.array_equal(a.train, b.train) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a.train, b.train) for a, b in zip(first, other, strict=True))
    assert not np.array_equal(first[0].test, first[1].test)


def test_link_units_is_transitive():
    statements = StatementSet(
        [Statement(str(i), 1, "t", group=g) for i, g in enumerate(["a", "b", "a|c", "c|d", "", "", "d"])]
    )
    assert link_units(statements, np.arange(7)).tolist() == [0, 1, 0, 0, 4, 5, 0]


def test_balanced_has_equal_datasets_of_whole_units():
    statements = StatementSet([*make_statements(30, ("big",)), *make_statements(7, ("small",))])
    rows = balanced(statements, np.arange(len(statements)), np.random.default_rng(0))
    for topic in ("big", "small"):
        for polarity in ("affirmative", "negated"):
            assert ((statements.topics[rows] == topic) & (statements.polarities[rows] == polarity)).sum() == 14
    chosen = set(statements.groups[rows])
    assert sum(g in chosen for g in statements.groups) == len(rows)


def test_leave_one_topic_out_needs_two_topics():
    assert leave_one_topic_out(make_statements(4, ("only",))) == []
    assert [s.name for s in leave_one_topic_out(make_statements(4))] == sorted(TOPICS)


def test_transfer_tests_the_other_kinds():
    statements = make_statements(extras=True)
    splits = transfer_splits(statements)
    assert [s.name for s in splits] == ["conjunction", "disjunction", "language-de", "scenario"]
    for split in splits:
        assert set(statements.languages[split.train]) == {"en"}
        assert set(statements.polarities[split.train]) == {"affirmative", "negated"}
        assert len(split.test) == 30
    assert transfer_splits(make_statements()) == []


def test_signal_is_found_at_its_layer():
    statements = make_statements(extras=True)
    result = by_metric(measure_lie_detection(statements, make_acts(statements), repeats=2))
    for metric, measurement in result.items():
        assert measurement.value > 0.9, metric
        assert set(measurement.details["layers"]) == {2}
    assert {m for m in result if m.startswith("transfer")} == {
        f"transfer-{kind}/{probe}/{training}"
        for kind in ("conjunction", "disjunction", "language-de", "scenario")
        for probe in ("logistic", "mass-mean", "ttpd")
        for training in ("retrained", "frozen")
    }
    assert {m.metric for m in result.values() if m.headline} == {
        "grouped/logistic/retrained",
        "grouped/logistic/frozen",
        "leave-one-topic-out/logistic/retrained",
    }


def test_noise_is_near_chance():
    statements = make_statements(60)
    result = measure_lie_detection(statements, make_acts(statements, signal_layers=()))
    assert all(abs(m.value - 0.5) < 0.12 for m in result)


def test_items_pair_and_cluster():
    statements = make_statements()
    twice = StatementSet([*statements, *statements])
    result = measure_lie_detection(twice, make_acts(twice), probes=("mass-mean",), repeats=2)
    for measurement in result:
        assert len(set(measurement.item_ids)) == measurement.n
        assert measurement.clusters is not None
        assert all(":" in cluster for cluster in measurement.clusters)
        assert ((measurement.values >= 0) & (measurement.values <= 1)).all()
    loto = by_metric(result)
    assert loto["leave-one-topic-out/mass-mean/retrained"].n == len(twice)
    halves = [loto[f"leave-one-topic-out/mass-mean/retrained/{p}"] for p in ("affirmative", "negated")]
    assert sum(m.n for m in halves) == len(twice)
    ids = statement_ids(twice)
    assert ids[: len(statements)] == statement_ids(statements)
    assert ids[len(statements)] == ids[0] + "-1"


def test_frozen_equals_retrained_on_the_same_activations():
    statements = make_statements(extras=True)
    acts = make_acts(statements, strength=0.3)
    for pruned in (None, acts.clone()):
        result = by_metric(
            measure_lie_detection(statements, acts, pruned, repeats=2, probes=("logistic", "ttpd", "ccs"))
        )
        for metric, measurement in result.items():
            if "/retrained" in metric:
                frozen = result[metric.replace("/retrained", "/frozen")]
                np.testing.assert_array_equal(measurement.values, frozen.values)
                assert measurement.item_ids == frozen.item_ids


def test_frozen_probe_breaks_where_a_retrained_one_recovers():
    statements = make_statements(60)
    dense = make_acts(statements)
    pruned = dense.clone()
    pruned[:, 2] = -pruned[:, 2]
    result = by_metric(measure_lie_detection(statements, dense, pruned, probes=("logistic",), repeats=2))
    assert result["grouped/logistic/retrained"].value > 0.9
    assert result["grouped/logistic/frozen"].value < 0.1


def test_layer_policies():
    statements = make_statements()
    dense, pruned = make_acts(statements, (2,)), make_acts(statements, (1,), seed=1)

    def layers(layer):
        return {
            layer
            for m in measure_lie_detection(
                statements, dense, pruned, probes=("logistic",), protocols=("grouped",), layer=layer, repeats=2
            )
            if m.metric == "grouped/logistic/retrained"
            for layer in m.details["layers"]
        }

    assert layers("dense") == {2}
    assert layers("own") == {1}
    assert layers(3) == {3}
    sweep = by_metric(
        measure_lie_detection(statements, dense, protocols=("leave-one-topic-out",), layer="sweep", repeats=2)
    )
    at_layer = [sweep[f"grouped/logistic/retrained/layer-{i:02d}"].value for i in range(4)]
    assert int(np.argmax(at_layer)) == 2
    assert "grouped/logistic/retrained" not in sweep


def test_measurements_are_deterministic():
    statements = make_statements()
    acts = make_acts(statements, strength=0.3)
    first, again = (measure_lie_detection(statements, acts, seed=3, repeats=2) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        assert a.metric == b.metric
        np.testing.assert_array_equal(a.values, b.values)


def test_half_precision_activations_are_accepted():
    statements = make_statements()
    acts = make_acts(statements).to(torch.bfloat16)
    result = by_metric(measure_lie_detection(statements, acts, repeats=1, options=ProbeOptions(penalty=10.0)))
    assert result["grouped/logistic/retrained"].value > 0.9
    assert result["grouped/logistic/retrained"].details["penalty"] == 10


def test_errors_name_the_remedy():
    statements = make_statements(6)
    acts = make_acts(statements)
    nan = acts.clone()
    nan[0, 0, 0] = float("nan")
    true_only = statements.where(lambda s: s.label == 1)
    one_group = StatementSet([Statement(s.text, s.label, s.topic, s.polarity, "en", "same") for s in statements])
    one_each = StatementSet([Statement(f"{i}", i % 2, f"topic {i}", group=f"{i}") for i in range(6)])
    skewed = StatementSet([Statement(f"{i}", int(i == 0), "topic", group=f"{i}") for i in range(6)])
    wrong: Any = "best"
    cases = [
        (lambda: measure_lie_detection(statements, acts[:5]), "shape"),
        (lambda: measure_lie_detection(statements, acts[:, 0]), "shape"),
        (lambda: measure_lie_detection(statements, acts, acts[:, :2]), "passes its input through"),
        (lambda: measure_lie_detection(statements, nan), "not all finite"),
        (lambda: measure_lie_detection(statements, acts, nan), "audited model are not all finite"),
        (lambda: measure_lie_detection(statements, acts, layer=4), "from 0 to 3"),
        (lambda: measure_lie_detection(statements, acts, layer=wrong), "no layer 'best'"),
        (lambda: measure_lie_detection(statements, acts, probes=("svm",)), "no probe 'svm'"),
        (lambda: measure_lie_detection(statements, acts, protocols=("all",)), "no lie-detection protocol 'all'"),
        (lambda: measure_lie_detection(true_only, make_acts(true_only)), "have one label"),
        (lambda: measure_lie_detection(one_group, acts), "fewer than two groups"),
        (lambda: measure_lie_detection(one_each, acts[:6]), "no topic has two groups"),
        (lambda: measure_lie_detection(skewed, acts[:6]), "two true and two false"),
        (lambda: measure_lie_detection(skewed, acts[:6], layer=0), "of one class"),
        (lambda: measure_lie_detection(statements, acts, protocols=("transfer",)), "nothing to test"),
    ]
    for call, message in cases:
        with pytest.raises(AuditError, match=message) as caught:
            call()
        assert caught.value.remedy
        assert "\n" not in str(caught.value)
