"""Zero-shot accuracy in an audit: named by task, paired item by item, asked alike of all models."""

from __future__ import annotations

import json
import os

import pytest

from trueprune.audits import accuracy_of, predict
from trueprune.cli.main import run
from trueprune.texts.tasks import TaskOptions, questions

DATA = os.environ.get("TRUEPRUNE_DATA")
needs_data = [pytest.mark.data, pytest.mark.skipif(not DATA, reason="TRUEPRUNE_DATA is not set")]


def test_both_metrics_are_of_the_same_items(tiny):
    items = questions("facts", 30)
    per_byte, by_sum = accuracy_of(predict(tiny, items, task="facts"))
    assert (per_byte.metric, by_sum.metric) == ("accuracy/facts", "accuracy/facts/sum")
    assert list(per_byte.item_ids) == list(by_sum.item_ids) == [item.id for item in items]
    assert per_byte.details["chance"] == 0.25
    assert per_byte.values.tolist() != by_sum.values.tolist()


def test_two_accuracies_where_options_are_texts_of_different_length(tiny):
    for name, style, metrics in (
        ("sentiment", TaskOptions(), ["accuracy/sentiment"]),
        ("commonsense", TaskOptions(answers="letters"), ["accuracy/commonsense"]),
        ("commonsense", TaskOptions(), ["accuracy/commonsense", "accuracy/commonsense/sum"]),
        ("commonsense", TaskOptions(scoring="mean"), ["accuracy/commonsense"]),
    ):
        found = predict(tiny, questions(name, 8, style), task=name, scoring=style.scoring, labels=name == "sentiment")
        assert [m.metric for m in accuracy_of(found)] == metrics


class TestRealRows:
    pytestmark = needs_data

    def test_a_tiny_model_guesses(self, tiny, monkeypatch):
        monkeypatch.setenv("TRUEPRUNE_DATA", DATA)
        items = [item for item in questions("openbookqa", 60) if len(item.prompt) < 200]
        assert len(items) > 40
        assert 0 <= accuracy_of(predict(tiny, items, task="openbookqa"))[0].value <= 0.5


# The audit


def test_an_audit_of_accuracy(tiny_folder, tmp_path, capsys):
    out = tmp_path / "audit"
    arguments = ["audit", str(tiny_folder), str(tiny_folder), "-o", str(out), "--instruments", "accuracy"]
    assert run([*arguments, "--tasks", "facts", "sentiment", "--items", "20", "--resamples", "50"]) == 0
    data = json.loads((out / "audit.json").read_text())
    rows = {(row["model"], row["metric"]): row for row in data["measurements"]}
    metrics = {metric for _, metric in rows if metric.startswith("accuracy/")}
    assert metrics == {"accuracy/facts", "accuracy/facts/sum", "accuracy/sentiment"}
    changed = rows["tiny-llama (2)", "accuracy/facts"]
    assert (changed["n"], changed["change"]["value"], changed["change"]["interval"]) == (20, 0, [0, 0])
    assert changed["details"]["chance"] == 0.25
    settings = json.dumps(data["settings"])
    assert '"tasks": ["facts", "sentiment"]' in settings
    assert '"items": 20' in settings
    assert '"scoring": "sum"' in settings
    assert "efficiency" not in data["settings"]
    assert "usable_by" not in data["models"][1]
    lines = [json.loads(line) for line in (out / "items.jsonl").read_text().splitlines()]
    facts = next(line for line in lines if line["metric"] == "accuracy/facts")
    assert facts["items"] == [item.id for item in questions("facts", 20)]
    assert set(facts["values"]) <= {0, 1}
    printed = capsys.readouterr().out
    assert "accuracy" in printed
    assert "facts" in printed


def test_what_is_asked_wrongly_is_refused_in_one_line(tiny_folder, tmp_path, capsys):
    arguments = ["audit", str(tiny_folder), "-o", str(tmp_path / "out"), "--instruments", "accuracy"]
    for wrong, problem in {
        ("--tasks", "fact"): "unknown task 'fact'. Did you mean facts?",
        ("--tasks", "facts", "facts"): "the task facts is given twice",
        ("--items", "-3"): "--items -3 is below 0",
        ("--shots", "-1"): "--shots -1 is below 0",
        ("--scoring", "max"): "max",
    }.items():
        assert run([*arguments, *wrong]) == 2
        message = capsys.readouterr().err
        assert problem in message
        assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()
