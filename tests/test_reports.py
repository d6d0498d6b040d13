"""Reports: intervals that cover, changes that pair, tables and plots that render."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from trueprune._support.errors import AuditError
from trueprune.audits.draws import cluster_counts
from trueprune.audits.measurement import Measurement
from trueprune.audits.separation import SeparationMeasurement, measure_separation, separation_curve
from trueprune.cli.show import show
from trueprune.observe.separation import separation_ratio
from trueprune.reports import AuditedModel, compare, estimate, paired_change
from trueprune.reports.audit import write_report
from trueprune.reports.plots import plot_curves
from trueprune.reports.tables import audit_table, prune_table, scan_table
from trueprune.texts import Statement, StatementSet


def measured(values, **options):
    values = np.asarray(values, dtype=np.float64)
    settings = {"metric": "accuracy", "item_ids": [f"i{n}" for n in range(len(values))], **options}
    return Measurement("tests", values=values, **settings)


def width(found):
    return found.interval[1] - found.interval[0]


@pytest.fixture
def rendered(capsys):
    def print_it(table):
        show(table)
        return capsys.readouterr().out

    return print_it


# Resampling


def test_clusters_are_drawn_whole():
    clusters = np.array([0, 0, 1, 2, 2, 2, 3])
    counts = cluster_counts(clusters, 200, seed=0)
    assert counts.shape == (200, 7)
    for cluster in range(4):
        of_cluster = counts[:, clusters == cluster]
        assert (of_cluster == of_cluster[:, :1]).all()
    firsts = counts[:, [0, 2, 3, 6]]
    assert (firsts.sum(1) == 4).all()
    assert firsts.max() >= 2
    assert firsts.min() == 0
    np.testing.assert_allclose(firsts.mean(0), 1, atol=0.25)


def test_draws_follow_the_seed_and_not_the_metric():
    a, b = measured([0.0, 1, 1, 0, 1]), measured([0.0, 1, 1, 0, 1], metric="other")
    assert estimate(a, seed=3) == estimate(b, seed=3)
    assert estimate(a, seed=3, resamples=50) != estimate(a, seed=4, resamples=50)


def test_a_metric_is_resampled_once_for_its_interval_and_all_changes():
    asked = []

    def counting(counts_Rn):
        asked.append(len(counts_Rn))
        return counts_Rn.sum(1)

    dense, *pruned = (measured([0, 1, 1], statistic=counting) for _ in range(4))
    compare([AuditedModel(str(i), [one]) for i, one in enumerate((dense, *pruned))], {}, resamples=50, seed=0)
    assert asked.count(50) == 4


def test_other_clusters_of_the_pruned_model_do_not_break_the_pairing():
    before = measured([0, 1, 1, 0], clusters=["a", "a", "b", "b"])
    after = measured([1, 1, 1, 0])
    counts = cluster_counts(np.array([0, 0, 1, 1]), 200, 3)
    expected = (after.resample(counts) - before.resample(counts)).std()
    assert paired_change(before, after, resamples=200, seed=3).error == pytest.approx(expected, abs=1e-12)


def test_clusters_widen_the_interval():
    values = np.repeat(np.random.default_rng(0).normal(size=20), 10)
    alone = measured(values)
    together = measured(values, clusters=[f"c{n // 10}" for n in range(200)])
    assert width(estimate(together)) > 2 * width(estimate(alone))
    assert estimate(together).value == estimate(alone).value == pytest.approx(values.mean())
    assert estimate(together).n == 200


def test_the_interval_covers_the_truth():
    rng = np.random.default_rng(0)
    clusters = [f"c{n // 4}" for n in range(160)]
    covered = 0
    for _ in range(200):
        values = np.repeat(rng.normal(size=40), 4) + rng.normal(size=160)
        low, high = estimate(measured(values, clusters=clusters), resamples=300).interval
        covered += low <= 0 <= high
    assert 0.90 <= covered / 200 <= 0.99


def test_weights_and_the_exponential():
    values, weights = np.array([1.0, 2.0, 4.0]), np.array([1.0, 1.0, 2.0])
    assert measured(values, weights=weights).value == pytest.approx(2.75)
    perplexity = measured(values, weights=weights, reduction="exp-mean")
    assert perplexity.value == pytest.approx(np.exp(2.75))
    np.testing.assert_allclose(
        perplexity.resample(np.array([[1.0, 1, 1], [0, 2, 1], [3, 0, 0]])), np.exp([2.75, 3.0, 1.0])
    )


def test_measurements_are_checked():
    with pytest.raises(ValueError, match="2 values for 1 items"):
        measured([1.0, 2.0], item_ids=["a"])
    with pytest.raises(ValueError, match="not finite"):
        measured([1.0, np.nan])
    with pytest.raises(AuditError, match="has no items"):
        estimate(measured([]))


# Pairs


def test_a_model_does_not_differ_from_itself():
    rng = np.random.default_rng(0)
    for options in ({}, {"reduction": "exp-mean", "weights": rng.uniform(1, 2, 30)}):
        change = paired_change(measured(values := rng.normal(size=30), **options), measured(values, **options))
        assert (change.value, change.interval) == (0.0, (0.0, 0.0))


def test_pairing_narrows_the_interval_of_correlated_items():
    rng = np.random.default_rng(0)
    before = rng.normal(size=200)
    after = before + 0.1 * rng.normal(size=200) - 0.2
    paired = paired_change(measured(before), measured(after))
    apart = np.hypot(width(estimate(measured(before))), width(estimate(measured(after))))
    assert width(paired) < apart / 4
    assert paired.value == pytest.approx((after - before).mean())
    assert paired.interval[0] < -0.2 < paired.interval[1] < 0


def test_different_items_are_refused():
    with pytest.raises(AuditError, match=r"different items \(2 differ, e.g. i1\)"):
        paired_change(measured([0.0, 1]), measured([0.0, 1], item_ids=["i0", "j1"]))
    with pytest.raises(AuditError, match="in another order"):
        paired_change(measured([0.0, 1]), measured([0.0, 1], item_ids=["i1", "i0"]))


# Separation


def separated(n=40, width=6, strength=1.0, seed=0):
    rng = np.random.default_rng(seed)
    rows = [
        Statement(f"{topic} {i} {polarity}.", (i // 2) % 2, topic, polarity, "en", f"{topic}:{i // 4}")
        for topic in ("a", "b")
        for i in range(n)
        for polarity in ("affirmative", "negated")
    ]
    statements = StatementSet(rows, "synthetic")
    acts = rng.normal(size=(len(rows), 3, width)) + 5
    acts[:, 1] += strength * statements.labels[:, None]
    return statements, torch.tensor(acts, dtype=torch.float32)


def by_hand(statements, acts_ND):
    names = [f"{row.topic}/{row.polarity}" for row in statements]
    ratios = []
    for name in set(names):
        where = torch.tensor([other == name for other in names])
        labels = torch.from_numpy(statements.labels)[where]
        ratios.append(separation_ratio(acts_ND[where][:, None], labels).item())
    return np.mean(ratios)


def test_separation_is_the_mean_ratio_of_the_datasets():
    statements, acts = separated()
    curve = separation_curve(statements, acts)
    assert int(curve.argmax()) == 1
    for layer in range(3):
        found = measure_separation(statements, acts, layer)
        assert isinstance(found, SeparationMeasurement)
        assert found.value == pytest.approx(by_hand(statements, acts[:, layer]), rel=1e-5)
        assert found.value == pytest.approx(curve[layer].item(), rel=1e-5)


def test_separation_of_a_resample_is_that_of_repeated_rows():
    statements, acts = separated()
    found = measure_separation(statements, acts, 1)
    counts = cluster_counts(np.unique(found.clusters, return_inverse=True)[1], 5, seed=0)
    for row, value in zip(counts, found.resample(counts), strict=True):
        repeated = np.repeat(np.arange(len(statements)), row.astype(int))
        assert value == pytest.approx(by_hand(statements.take(repeated), acts[repeated, 1]), rel=1e-5)


def test_statements_without_a_group_are_clusters_of_their_own():
    statements, acts = separated()
    bare = StatementSet([Statement(r.text, r.label, r.topic, r.polarity) for r in statements])
    assert len(set(measure_separation(bare, acts, 1).clusters)) == len(bare)
    assert len(set(measure_separation(statements, acts, 1).clusters)) == 20


def test_statements_that_end_alike_are_not_separated():
    statements, acts = separated()
    alike = acts.clone()
    alike[:, 1] = acts[0, 1]
    found = measure_separation(statements, alike, 1)
    assert found.value == separation_curve(statements, alike)[1].item() == 0
    change = paired_change(measure_separation(statements, acts, 1), found, resamples=50)
    assert change.interval[1] < 0
    assert np.isfinite(change.interval).all()


# Reports


@pytest.fixture
def report():
    def model(name, shift, **about):
        rng = np.random.default_rng(1)
        measurements = [
            measured(rng.normal(size=20) + shift, metric="perplexity", headline=True, higher_is_better=False),
            measured(rng.normal(size=20) + shift, metric="accuracy", headline=True, details={"layer": 2}),
            measured(rng.normal(size=20), metric="detail"),
        ]
        return AuditedModel(name, measurements, {"source": f"/{name}", **about}, {"separation": [0.1, 0.4]})

    models = [model("dense", 0.0), model("pruned", 1.0, measured_sparsity=0.5)]
    return compare(models, {"seed": 0}, resamples=100, seed=0)


def test_rows_of_a_report(report):
    data = json.loads(json.dumps(report.to_json()))
    assert data["dense"] == "dense"
    assert [m["name"] for m in data["models"]] == ["dense", "pruned"]
    assert data["models"][1]["measured_sparsity"] == 0.5
    assert len(data["measurements"]) == 6
    for row in data["measurements"]:
        assert row["interval"][0] <= row["value"] <= row["interval"][1]
        assert row["n"] == 20
        if row["model"] == "dense":
            assert row["change"] is None
        else:
            low, high = row["change"]["interval"]
            assert low <= row["change"]["value"] <= high
            assert row["change"]["value"] == pytest.approx(0 if row["metric"] == "detail" else 1)
    assert report.value("dense", "accuracy").value == data["measurements"][1]["value"]
    assert report.change("dense", "accuracy") is None
    assert report.change("pruned", "accuracy").value == pytest.approx(1)
    with pytest.raises(KeyError, match="no metric 'speed' of 'dense'"):
        report.value("dense", "speed")


def test_reports_are_written_with_their_items(report, tmp_path):
    write_report(report, tmp_path)
    assert json.loads((tmp_path / "audit.json").read_text()) == json.loads(json.dumps(report.to_json()))
    lines = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text().splitlines()]
    assert [(line["model"], line["metric"]) for line in lines] == [(row.model, row.metric) for row in report.rows]
    assert np.mean(lines[4]["values"]) == pytest.approx(report.value("pruned", "accuracy").value)
    assert lines[4]["items"] == [f"i{n}" for n in range(20)]


def test_a_metric_that_only_one_model_has_is_not_compared():
    models = [AuditedModel("dense", [measured([1.0])]), AuditedModel("pruned", [measured([1.0], metric="new")])]
    report = compare(models, {}, resamples=10, seed=0)
    assert report.change("pruned", "new") is None


def test_tables_render(report, rendered):
    text = rendered(audit_table(report))
    for words in ("pruned", "perplexity", "accuracy", "+1.000", "0.500"):
        assert words in text
    assert "detail" not in text
    block = {
        "index": 0,
        "weights": 12345,
        "outlier_percentage": 1.5,
        "separation_mean": None,
        "separation_share": 0.25,
        "density": {"owl": 0.51239},
    }
    text = rendered(scan_table([block]))
    assert all(words in text for words in ("12,345", "1.500", "0.2500", "0.5124", "owl"))
    record = {
        "source": "[m]/x",
        "method": "tplo",
        "measured_sparsity": 0.5,
        "measured_sparsity_blocks": [0.4, 0.6],
        "plan": {
            "method": "tplo",
            "score": "wanda",
            "pattern": "2:4",
            "sparsity": 0.5,
            "evidence": {"pivot": 7},
            "notes": ["[n] differs"],
        },
        "calibration": {"sha256": "a" * 64, "seqlen": 32, "drawn": {"c4": 3}},
        "wall_seconds": {"total": 1.0},
        "peak_memory_bytes": 2e9,
    }
    text = rendered(prune_table(record, "out"))
    for words in ("[m]/x", "0.4000 to 0.6000", "7", "3 of c4 x 32 tokens", "2.00 GB", "note: [n] differs"):
        assert words in text


def test_plots_are_written_and_repeat(tmp_path):
    pytest.importorskip("matplotlib")
    curves = {"dense": [0.1, 0.5, 0.2], "pruned": [0.1, 0.3, 0.2]}
    files = plot_curves(curves, "Separation", "B / W", tmp_path / "curve", mark=1)
    assert [file.name for file in files] == ["curve.png", "curve.svg"]
    assert files[0].read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    svg = files[1].read_text()
    assert svg.startswith("<?xml")
    assert "</svg>" in svg
    assert plot_curves({}, "Nothing", "y", tmp_path / "none")[0].is_file()
