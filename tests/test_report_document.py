"""The document of an audit: plain data by its schema, sentences that say what the numbers say, records in words."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from report_samples import BLOCKS, record, sample_report

from trueprune.audits.measurement import Measurement
from trueprune.reports.audit import AuditedModel, compare, write_report
from trueprune.reports.document import CURVE_POINTS, schema
from trueprune.reports.glossary import metric_words, property_of, unit_of
from trueprune.reports.plain import plain, thinned
from trueprune.reports.summary import reading
from trueprune.reports.touched import about_record, runs, touched


def measured(values, metric="accuracy/facts", **options):
    values = np.asarray(values, dtype=float)
    names = [f"i{n}" for n in range(len(values))]
    return Measurement(options.pop("instrument", "accuracy"), metric, names, values, **{"headline": True, **options})


def audited(before, *afters, metric="accuracy/facts", **options):
    """A report on one metric: the dense model and pruned ones."""
    models = [AuditedModel("dense", [measured(before, metric, **options)])]
    models += [AuditedModel(f"p{i}", [measured(after, metric, **options)]) for i, after in enumerate(afters)]
    return compare(models, {"seed": 0}, resamples=200, seed=0)


@pytest.fixture(scope="module")
def report():
    return sample_report(items=24, resamples=20)


@pytest.fixture(scope="module")
def document(report):
    return report.to_json()


@pytest.fixture(scope="module")
def check():
    jsonschema.Draft202012Validator.check_schema(schema())
    return jsonschema.Draft202012Validator(schema()).validate


# Schema


def test_the_document_keeps_its_schema(document, check):
    check(document)
    assert document["schema"] == 2
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_the_schema_refuses_what_is_no_audit(document, check):
    for broken in (
        {**document, "schema": 1},
        {key: value for key, value in document.items() if key != "summary"},
        {**document, "measurements": [{**document["measurements"][0], "value": "0.5"}]},
        {**document, "models": []},
    ):
        with pytest.raises(jsonschema.ValidationError):
            check(broken)


def test_the_keys_that_the_schema_names_are_those_that_are_written(document):
    assert set(document) == set(schema()["properties"])
    shapes = schema()["$defs"]
    assert set(document["measurements"][0]) == set(shapes["measurement"]["properties"])
    assert set(document["worst_items"][0]) == set(shapes["worst"]["properties"])
    assert set(document["models"][1]["touched"]) == set(shapes["touched"]["properties"])
    assert set(document["models"][1]) <= set(shapes["model"]["properties"])


def test_instruments_that_were_not_run_are_named(document):
    measured_ones = {one["name"]: one["measured"] for one in document["instruments"]}
    assert all(measured_ones.values())
    few = audited([1.0] * 12, [1.0] * 12).to_json()["instruments"]
    assert [one["name"] for one in few if one["measured"]] == ["accuracy"]
    assert {"lie-detection", "efficiency"} <= {one["name"] for one in few if not one["measured"]}


# Plain data


def test_everything_becomes_plain():
    @dataclass
    class Both:
        a: float
        b: tuple

    found = plain(
        {
            "nan": float("nan"),
            "inf": np.float32("inf"),
            "array": np.arange(3),
            "bool": np.bool_(True),
            "path": Path("a/b"),
            "set": {2, 1},
            3: Both(1.0, (np.int64(4), None)),
            "function": plain,
            "object": object(),
            "lone \ud800": "half \udc00",
        }
    )
    assert found == {
        "nan": None,
        "inf": None,
        "array": [0, 1, 2],
        "bool": True,
        "path": str(Path("a/b")),
        "set": [1, 2],
        "3": {"a": 1.0, "b": [4, None]},
        "function": "trueprune.reports.plain:plain",
        "object": "builtins:object",
        "lone \ufffd": "half \ufffd",
    }
    assert type(found["bool"]) is bool
    json.dumps(found, allow_nan=False).encode()


def test_details_that_json_cannot_hold_do_not_stop_a_report(tmp_path):
    details = {"nan": float("nan"), "where": Path("x"), "call": measured, "name": "\ud800"}
    report = audited([0.0, 1.0] * 6, [1.0, 0.0] * 6, details=details)
    write_report(report, tmp_path)
    text = (tmp_path / "audit.json").read_text(encoding="utf-8")
    found = json.loads(text)["measurements"][0]["details"]
    assert found == {"nan": None, "where": "x", "call": f"{__name__}:measured", "name": "\ufffd"}
    assert "0x" not in text
    assert json.loads(text) == report.to_json()
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_long_curves_are_thinned_and_keep_their_ends():
    curve = {"coverage": list(np.linspace(0, 1, 5000)), "risk": list(np.linspace(0.5, 0, 5000))}
    report = audited([0.0, 1.0] * 6, [1.0, 0.0] * 6, details={"risk_coverage": curve, "ids": list(range(500))})
    details = report.to_json()["measurements"][0]["details"]
    found = details["risk_coverage"]
    assert len(found["coverage"]) == len(found["risk"]) == CURVE_POINTS
    assert (found["coverage"][0], found["coverage"][-1], found["risk"][-1]) == (0.0, 1.0, 0.0)
    np.testing.assert_allclose(np.array(found["risk"]), 0.5 * (1 - np.array(found["coverage"])))
    assert len(details["ids"]) == 500
    assert thinned({"y": [1, 2, 3]}, 200) == {"y": [1, 2, 3]}
    assert thinned({}, 200) == {}


# What changed


def test_readings_follow_direction_and_correction():
    rng = np.random.default_rng(0)
    before = rng.normal(size=40)
    noise = 0.05 * rng.normal(size=40)
    for shift, higher, expected in ((-1, True, "worse"), (-1, False, "better"), (1, True, "better")):
        report = audited(before, before + shift + noise, higher_is_better=higher)
        assert reading(report.rows[1]) == expected
        assert reading(report.rows[0]) is None
    assert reading(audited(before, before).rows[1]) == "no change found"
    # Too few items for a test: an interval that excludes zero says no more than maybe.
    few = audited([0.0, 0.1, 0.2], [1.0, 1.1, 1.3])
    assert few.rows[1].test is None
    assert reading(few.rows[1]) == "maybe better"
    # A count is exact, and one sampled item proves nothing.
    counted = {"instrument": "efficiency", "metric": "parameters", "higher_is_better": False}
    assert reading(audited([5.0], [4.0], **counted).rows[1]) == "better"
    assert reading(audited([5.0], [5.0], **counted).rows[1]) == "same"
    assert reading(audited([5.0], [4.0], higher_is_better=False).rows[1]) == "no change found"


def test_the_summary_says_what_changed_and_no_more():
    before = np.array([1.0] * 30 + [0.0] * 10)
    lost = np.array([0.0] * 20 + [1.0] * 10 + [0.0] * 10)
    one = audited(before, lost).to_json()["summary"]
    assert one["sentence"] == "Compared with dense, p0 got worse beyond chance in accuracy."
    assert one["models"]["p0"]["worse"] == ["accuracy"]
    two = audited(before, lost, before).to_json()["summary"]
    assert two["sentence"] == "Compared with dense, 1 of 2 pruned models got worse beyond chance in: accuracy (1)."
    assert two["models"]["p1"] == {
        **{name: [] for name in ("worse", "mixed", "better", "maybe worse", "maybe better")},
        "not found": ["accuracy"],
        "sentence": "p1: accuracy was not found to change.",
    }
    same = audited(before, before).to_json()["summary"]
    assert same["sentence"] == "Compared with dense, p0 was not found to get worse in anything that was measured."
    alone = audited(before).to_json()["summary"]
    assert alone["sentence"] == "Only dense was measured: there is no pruned model to compare it with."
    few = audited([0.0, 0.1, 0.2], [-1.0, -1.1, -0.9]).to_json()["summary"]
    assert few["sentence"] == "Compared with dense, p0 got worse beyond chance in nothing, and may have in accuracy."
    many = audited([0.0, 0.1, 0.2], [-1.0, -1.1, -0.9], [0.0, 0.1, 0.2]).to_json()["summary"]
    assert many["sentence"] == "Compared with dense, none of 2 pruned models was found to get worse; 1 may have."
    neither = audited(before, before, before).to_json()["summary"]
    assert neither["sentence"] == "Compared with dense, none of 2 pruned models was found to get worse."


def test_cost_is_no_part_of_what_changed():
    report = audited([5.0], [4.0], metric="parameters", instrument="efficiency", higher_is_better=False)
    assert report.to_json()["summary"]["models"]["p0"]["sentence"] == "p0: nothing was compared with the dense model."


def test_instruments_that_lost_and_won_are_mixed():
    before = np.array([1.0] * 20 + [0.0] * 20)
    dense = AuditedModel("dense", [measured(before), measured(before, "accuracy/other")])
    flipped = AuditedModel("p", [measured(np.zeros(40)), measured(np.ones(40), "accuracy/other")])
    found = compare([dense, flipped], {}, resamples=50, seed=0).to_json()["summary"]["models"]["p"]
    assert found["mixed"] == ["accuracy"]
    assert found["worse"] == found["better"] == []


def test_metrics_have_words_and_units():
    assert metric_words("lie-detection", "grouped/logistic/frozen") == "unseen facts, dense model's probe (logistic)"
    assert metric_words("accuracy", "accuracy/facts") == "accuracy: facts"
    assert metric_words("accuracy", "lm-eval:arc/acc") == "lm eval:arc: acc"
    assert metric_words("mine", "odd-metric") == "odd metric"
    assert [unit_of("x", name) for name in ("perplexity", "decode-speedup", "disk-bytes")] == [
        "perplexity",
        "factor",
        "bytes",
    ]
    assert unit_of("truthful-generation", "rougeL-acc/x") == "share"
    assert unit_of("truthful-generation", "rougeL-max/x") == "score"
    assert unit_of("mine", "odd") == "score"
    assert property_of("mine").title == "mine"


# Records


def test_a_record_says_what_was_touched():
    found = touched(record("tplo", 0.3))
    assert (found["blocks"], len(found["sparsity"])) == (BLOCKS, BLOCKS)
    assert found["dropped"] == {"blocks": [], "attention": [], "mlp": []}
    assert any("set to zero" in line and "score wanda" in line for line in found["did"])
    assert any("All 30 blocks are there" in line for line in found["left"])
    assert found["healed"] is found["recalibrated"] is None


def test_blocks_are_counted_in_the_whole_model():
    drop = {"n_blocks": 6, "blocks": [1], "attention": [3, 4], "mlp": [4]}
    found = touched(
        {
            "plan": {"drop": drop, "blocks": [0.5] * 4, "method": "owl", "score": "sparsegpt", "pattern": "2:4"},
            "measured_sparsity": 0.4,
            "measured_sparsity_blocks": [0.1, 0.2, 0.0, 0.5],
            "healing": {"method": "lora", "layers": [2, 3], "blocks": 4, "steps": 7},
            "history": [{"recalibration": {"method": "temperature", "folded": True, "temperature": 1.5}}],
        }
    )
    # Block 4 lost both its parts: nothing of it is left.
    assert found["dropped"] == {"blocks": [1, 4], "attention": [3], "mlp": []}
    assert found["sparsity"] == [0.1, None, 0.2, 0.0, None, 0.5]
    assert found["healed"]["blocks"] == [3, 5]
    assert found["recalibrated"]["temperature"] == 1.5
    said = " ".join(found["did"])
    for words in (
        "Whole blocks 1, 4 of 6",
        "Attention of blocks 3 of 6",
        "40.0 % of the weights",
        "Blocks 3, 5 trained",
    ):
        assert words in said
    assert "adjusted to make up" in said
    assert "temperature" in said
    left = " ".join(found["left"])
    assert "Blocks 3: no weight set to zero" in left
    assert "output head" not in left
    assert "No weight was trained" not in left


def test_a_record_that_disagrees_with_itself_draws_no_map():
    found = touched({"plan": {"drop": {"n_blocks": 6, "blocks": [1]}}, "measured_sparsity_blocks": [0.1, 0.2]})
    assert found["sparsity"] == []
    assert touched({})["did"] == ["The record names no change."]


def test_the_steps_of_a_record_can_be_taken_again():
    first = {"command": "trueprune drop x", "source": "x", "method": "drop-attention", "seed": 0, "plan": {"long": 1}}
    found = about_record({**record("wanda", 0.3), "history": [first]})
    assert [step["command"].split()[1] for step in found["steps"]] == ["drop", "prune"]
    assert "plan" not in found["steps"][0]
    assert found["cost"]["wall_seconds"]["total"] == 41.75
    assert found["steps"][1]["calibration"]["sha256"] == "5" * 64
    assert about_record(None) == {}
    many = about_record({"calibration": {"drawn": {"a": list(range(1000))}}})
    assert many["steps"][0]["calibration"]["drawn"]["a"] == "1000 entries"


def test_numbers_run_together():
    assert runs([0, 3, 4, 5, 9, 10]) == "0, 3 to 5, 9, 10"
    assert runs([]) == ""


def test_a_verdict_is_part_of_the_document(report, document, check):
    from trueprune.reports.gates.contract import Check, Gate, Outcome, Verdict

    bound = Check("perplexity", "perplexity", "change", at_most=5.0, reason="Fluent text.")
    outcome = Outcome("wanda", "perplexity", bound, "inconclusive", False, 4.0, (2.0, 6.0), 24, 90)
    judged = replace(report, verdict=Verdict(Gate("mine", [bound]), [outcome]))
    found = judged.to_json()
    check(found)
    assert found["verdict"]["models"]["wanda"]["outcomes"][0]["needed"] == 90
    assert document["verdict"] is None
