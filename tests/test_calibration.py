"""The calibration instrument: the pure functions' numbers, item by item, paired between models and written down."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
import torch
from zoo import tiny_model

from trueprune._support.errors import AuditError
from trueprune.audits import ConfidenceOptions, Predictions, calibration_of, predict, read_predictions
from trueprune.audits import confidence as pure
from trueprune.audits.calibration import CURVE_POINTS, FEW
from trueprune.audits.draws import cluster_counts
from trueprune.cli.main import run
from trueprune.models.load import LoadedModel
from trueprune.reports import AuditedModel, compare, estimate, paired_change
from trueprune.texts.tasks import questions

few = pytest.mark.filterwarnings("ignore:calibration of .* items:UserWarning")


def made(n=80, options=4, *, seed=0, right=0.6, sharp=2.0, labels=False, task="mine", clusters=None):
    """Predictions of items whose right option is preferred a share of the time; some items have an option less."""
    rng = np.random.default_rng(seed)
    scores_NC = rng.normal(scale=sharp, size=(n, options))
    gold_N = rng.integers(0, options - (not labels), n)
    top_N = np.where(rng.random(n) < right, gold_N, (gold_N + 1) % options)
    scores_NC[np.arange(n), top_N] = scores_NC.max(1) + rng.exponential(sharp, n)
    tokens_NC = np.ones((n, options), dtype=np.int64)
    if not labels:
        tokens_NC[: n // 4, -1] = 0
        scores_NC[: n // 4, -1] = -np.inf
    names = tuple(f"i{k}" for k in range(n))
    return Predictions(
        task,
        names,
        names if clusters is None else tuple(clusters),
        names,
        gold_N,
        scores_NC,
        scores_NC,
        tokens_NC,
        3 * tokens_NC,
        np.zeros((n, options)),
        np.linspace(0.2, 0.8, n),
        labels=labels,
    )


def by_metric(measurements):
    return {m.metric.split("/")[0]: m for m in measurements}


def confident(predictions):
    return pure.top_label(predictions.probabilities_NC, predictions.gold_N)


# Values


@pytest.mark.parametrize("labels", [False, True], ids=["own options", "labels"])
def test_values_are_those_of_the_pure_functions(labels):
    predictions = made(labels=labels)
    found = by_metric(calibration_of(predictions))
    p_NC, gold_N = predictions.probabilities_NC, predictions.gold_N
    confidence_N, correct_N = confident(predictions)
    expected = {
        "ece-10": pure.ece(confidence_N, correct_N, 10),
        "ece-15": pure.ece(confidence_N, correct_N, 15),
        "ace-15": pure.ace(confidence_N, correct_N, 15),
        "mce-15": pure.mce(confidence_N, correct_N, 15),
        "rmsce-15": pure.rmsce(confidence_N, correct_N, 15),
        "debiased-15": pure.debiased_squared_ce(confidence_N, correct_N, 15),
        "smece": pure.smece(confidence_N, correct_N),
        "brier": pure.brier(p_NC, gold_N),
        "nll": pure.nll(p_NC, gold_N),
        "auroc": pure.auroc(confidence_N, correct_N),
        "aurc": pure.aurc(confidence_N, correct_N),
        "e-aurc": pure.e_aurc(confidence_N, correct_N),
        "overconfidence": pure.overconfidence(confidence_N, correct_N),
    }
    if labels:
        # Elsewhere a class is but a position.
        expected["classwise-15"] = pure.classwise_ece(p_NC, gold_N, 15)
    assert {name: m.value for name, m in found.items()} == pytest.approx(expected, rel=1e-9)
    assert {name for name, m in found.items() if m.headline} == {"ece-15", "brier"}
    assert {name for name, m in found.items() if m.higher_is_better} == {"auroc"}
    for m in found.values():
        assert (m.instrument, m.metric.split("/")[1], m.n) == ("calibration", "mine", 80)
        assert list(m.item_ids) == list(predictions.item_ids)
    np.testing.assert_allclose(found["brier"].values.mean(), expected["brier"])
    np.testing.assert_allclose(found["ece-15"].values, confidence_N - correct_N)


def test_only_the_metrics_that_are_asked_for():
    found = calibration_of(made(), ConfidenceOptions(("nll", "ece-10")))
    assert [m.metric for m in found] == ["nll/mine", "ece-10/mine"]


@pytest.mark.parametrize(
    ("metrics", "problem"), [((), "there is no metric of calibration"), (("ece-15", "ece"), "unknown metric 'ece'")]
)
def test_metrics_that_are_none_are_refused(metrics, problem):
    with pytest.raises(AuditError, match=problem) as caught:
        ConfidenceOptions(metrics)
    assert "classwise-15" in str(caught.value)


# Intervals


def repeated(predictions, counts_n):
    """The predictions with every item as often as it was drawn."""
    return predictions.take(np.repeat(np.arange(len(predictions)), counts_n.astype(int)).tolist())


def test_resamples_are_the_metric_of_the_repeated_items():
    predictions = made(60, labels=True)
    counts_Rn = cluster_counts(np.arange(60), 6, seed=1)
    for name, measurement in by_metric(calibration_of(predictions)).items():
        expected = [
            by_metric(calibration_of(repeated(predictions, row), ConfidenceOptions((name,))))[name].value
            if name in ("brier", "nll", "classwise-15")
            else getattr(pure, FUNCTIONS[name.split("-1")[0]])(
                *confident(repeated(predictions, row)), *([int(name[-2:])] if name[-1].isdigit() else [])
            )
            for row in counts_Rn
        ]
        np.testing.assert_allclose(measurement.resample(counts_Rn), expected, rtol=1e-9, atol=1e-12, err_msg=name)


FUNCTIONS = {
    "ece": "ece",
    "ace": "ace",
    "mce": "mce",
    "rmsce": "rmsce",
    "debiased": "debiased_squared_ce",
    "smece": "smece",
    "auroc": "auroc",
    "aurc": "aurc",
    "e-aurc": "e_aurc",
    "overconfidence": "overconfidence",
}


def test_the_interval_of_an_error_by_hand():
    # Two items a fact: both are drawn, or neither.
    predictions = made(40, clusters=[f"fact {k // 2}" for k in range(40)])
    with pytest.warns(UserWarning, match="calibration of mine on 40 items"):
        measurement = by_metric(calibration_of(predictions))["ece-15"]
    labels = np.unique(np.array(measurement.clusters), return_inverse=True)[1]
    counts_Rn = cluster_counts(labels, 25, seed=7)
    drawn_R = [pure.ece(*confident(repeated(predictions, row))) for row in counts_Rn]
    value = pure.ece(*confident(predictions))
    found = estimate(measurement, resamples=25, seed=7)
    assert found.value == pytest.approx(value)
    assert found.error == pytest.approx(np.std(drawn_R))
    # Percentiles, with what resampling itself adds to such an error taken off.
    low, high = np.quantile(np.array(drawn_R) - np.mean(drawn_R) + value, [0.025, 0.975])
    assert found.interval == pytest.approx((low, high))
    assert np.mean(drawn_R) > value


@few
def test_resamples_without_an_error_leave_the_auroc_undefined_and_are_dropped():
    predictions = made(12, right=1.0)
    wrong = int(predictions.gold_N[5] == 0)
    predictions.gold_N[5] = wrong
    measurement = by_metric(calibration_of(predictions))["auroc"]
    counts_Rn = cluster_counts(np.unique(np.array(measurement.item_ids), return_inverse=True)[1], 40, seed=0)
    drawn_R = measurement.resample(counts_Rn)
    np.testing.assert_array_equal(np.isnan(drawn_R), counts_Rn[:, 5] == 0)
    assert 5 < np.isnan(drawn_R).sum() < 35
    found = estimate(measurement, resamples=40, seed=0)
    defined = drawn_R[counts_Rn[:, 5] > 0]
    low, high = np.quantile(defined - defined.mean() + found.value, [0.025, 0.975])
    assert found.interval == pytest.approx((low, high))


def test_without_an_error_there_is_no_auroc_and_that_is_said():
    predictions = made(60, right=1.0)
    assert (confident(predictions)[1] == 1).all()
    with pytest.warns(UserWarning, match="mine: all answers are alike right or wrong, the AUROC"):
        found = by_metric(calibration_of(predictions))
    assert "auroc" not in found
    assert found["aurc"].value == 0
    assert found["ece-15"].value == pytest.approx((1 - confident(predictions)[0]).mean())


def test_few_items_are_warned_of(recwarn):
    calibration_of(made(FEW))
    assert not recwarn.list
    with pytest.warns(UserWarning, match=f"on {FEW - 1} items: even a perfectly calibrated model"):
        calibration_of(made(FEW - 1))


def test_models_are_paired_by_item():
    before, after = made(70, sharp=1.0), made(70, sharp=3.0)
    models = [AuditedModel(name, calibration_of(p)) for name, p in (("dense", before), ("pruned", after))]
    report = compare(models, {}, resamples=30, seed=2)
    counts_Rn = cluster_counts(np.unique(np.array(before.clusters), return_inverse=True)[1], 30, seed=2)
    value = pure.ece(*confident(after)) - pure.ece(*confident(before))
    drawn_R = np.array(
        [pure.ece(*confident(repeated(after, row))) - pure.ece(*confident(repeated(before, row))) for row in counts_Rn]
    )
    change = report.change("pruned", "ece-15/mine")
    assert change is not None
    assert change.value == pytest.approx(value)
    low, high = np.quantile(drawn_R - drawn_R.mean() + value, [0.025, 0.975])
    assert change.interval == pytest.approx((low, high))
    itself = paired_change(models[0].measurements[1], calibration_of(before)[1], resamples=30)
    assert (itself.value, itself.interval) == (0.0, (0.0, 0.0))
    with pytest.raises(AuditError, match="measured on different items"):
        paired_change(models[0].measurements[1], calibration_of(made(80))[1])


# Details


def test_every_error_stands_beside_its_null():
    predictions = made(90, sharp=4.0)
    confidence_N, correct_N = confident(predictions)
    found = by_metric(calibration_of(predictions))
    with_null = set()
    for name, measurement in found.items():
        kind, _, bins = name.partition("-")
        if "null_mean" not in measurement.details:
            continue
        with_null.add(name)
        null = pure.null_error(confidence_N, correct_N, kind, int(bins or 15))
        assert measurement.details["null_mean"] == null.mean
        assert measurement.details["null_95"] == null.percentile_95
        assert measurement.details["null_share"] == null.share
        assert measurement.value == pytest.approx(null.observed)
    labelled = made(90, labels=True)
    classwise = by_metric(calibration_of(labelled))["classwise-15"].details
    assert classwise["null_mean"] == pure.null_classwise_ece(labelled.probabilities_NC, labelled.gold_N, 15).mean
    assert with_null == {"ece-10", "ece-15", "ace-15", "mce-15", "rmsce-15", "debiased-15", "smece"}


def test_details_hold_the_table_the_parts_and_the_curve():
    predictions = made(100)
    confidence_N, correct_N = confident(predictions)
    found = by_metric(calibration_of(predictions))
    details = json.loads(json.dumps({name: dict(m.details) for name, m in found.items()}))
    ece = details["ece-15"]
    assert ece["reliability"] == pure.reliability_table(confidence_N, correct_N, 15).as_dict()
    assert sum(ece["reliability"]["count"]) == 100
    assert ece["accuracy"] == pytest.approx(correct_N.mean())
    assert ece["mean_confidence"] == pytest.approx(confidence_N.mean())
    assert ece["mean_option_mass"] == pytest.approx(0.5)
    parts = details["brier"]["murphy"]
    assert parts == vars(pure.murphy(predictions.probabilities_NC, predictions.gold_N))
    whole = parts["reliability"] - parts["resolution"] + parts["uncertainty"] + parts["remainder"]
    assert whole == pytest.approx(found["brier"].value)
    curve = details["aurc"]["risk_coverage"]
    full = pure.risk_coverage(confidence_N, correct_N)
    assert len(curve["coverage"]) == len(curve["risk"]) == CURVE_POINTS
    places = [list(full.coverage_N).index(c) for c in curve["coverage"]]
    assert (places[0], places[-1]) == (0, 99)
    np.testing.assert_allclose(curve["risk"], full.risk_N[places])
    assert curve["risk"][-1] == pytest.approx(1 - correct_N.mean())


# The audit


@few
def test_an_audit_of_calibration(tiny_folder, tokenizer, tmp_path, capsys):
    other = tiny_model("llama")
    with torch.no_grad():
        other.lm_head.weight *= 3
    other.save_pretrained(tmp_path / "sure")
    tokenizer.save_pretrained(tmp_path / "sure")
    out = tmp_path / "out"
    arguments = ["audit", str(tiny_folder), str(tmp_path / "sure"), "-o", str(out), "--instruments", "calibration"]
    arguments += ["accuracy", "--tasks", "sentiment", "commonsense", "--items", "52", "--resamples", "20"]
    assert run([*arguments, "--metrics", "ece-15", "brier", "auroc", "aurc", "classwise-15"]) == 0
    data = json.loads((out / "audit.json").read_text())
    assert data["settings"]["calibration"] == {"metrics": ["ece-15", "brier", "auroc", "aurc", "classwise-15"]}
    assert data["settings"]["tasks"]["tasks"] == ["sentiment", "commonsense"]
    assert data["settings"]["tasks"]["items"] == 52
    assert "faithfulness" not in data["settings"]
    rows = {(row["model"], row["metric"]): row for row in data["measurements"]}
    assert {m for _, m in rows if m.startswith("classwise")} == {"classwise-15/sentiment"}
    printed = capsys.readouterr().out
    assert "ECE" in printed
    assert "Brier" in printed

    # What is written is what was measured.
    written = read_predictions(out / "predictions.parquet")
    assert set(written) == {(m, t) for m in ("tiny-llama", "sure") for t in ("sentiment", "commonsense")}
    for (model, task), predictions in written.items():
        assert predictions.labels == (task == "sentiment")
        for measurement in calibration_of(predictions, ConfidenceOptions(("ece-15", "brier", "aurc"))):
            row = rows[model, measurement.metric]
            assert row["value"] == pytest.approx(measurement.value, abs=1e-12)
            assert row["n"] == 52
    own = predict(
        LoadedModel(other.eval(), tokenizer, "sure"), questions("sentiment", 52), task="sentiment", labels=True
    )
    np.testing.assert_allclose(own.logits_NC, written["sure", "sentiment"].logits_NC, atol=1e-5)
    change = rows["sure", "ece-15/sentiment"]["change"]
    assert change["value"] == pytest.approx(
        rows["sure", "ece-15/sentiment"]["value"] - rows["tiny-llama", "ece-15/sentiment"]["value"]
    )
    assert change["value"] > 0
    assert change["test"]["name"] == "bootstrap"

    drawn = {"reliability-sentiment", "reliability-commonsense", "risk-coverage-sentiment", "risk-coverage-commonsense"}
    if importlib.util.find_spec("matplotlib"):
        for suffix in ("png", "svg"):
            assert {file.stem for file in out.glob(f"*.{suffix}")} == drawn


@few
def test_plots_of_a_task_of_ones_own_stay_in_the_folder(tiny_folder, tmp_path):
    file = tmp_path / "my task (2).jsonl"
    rows = [{"text": f"Town {n} lies", "options": ["north", "south"], "gold": n % 2} for n in range(16)]
    file.write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "out"
    arguments = ["audit", str(tiny_folder), "-o", str(out), "--instruments", "calibration", "--tasks", str(file)]
    assert run([*arguments, "--resamples", "20", "--metrics", "ece-15"]) == 0
    metrics = {row["metric"] for row in json.loads((out / "audit.json").read_text())["measurements"]}
    assert metrics == {"ece-15/my task (2)"}
    pytest.importorskip("matplotlib")
    (drawn,) = out.glob("reliability-*.png")
    assert drawn.name.startswith("reliability-my_task_2_-")


def test_metrics_that_are_none_are_refused_in_one_line(tiny_folder, tmp_path, capsys):
    arguments = ["audit", str(tiny_folder), "-o", str(tmp_path / "out"), "--instruments", "calibration"]
    assert run([*arguments, "--metrics", "ece15"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("trueprune: error: unknown metric 'ece15'")
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()
