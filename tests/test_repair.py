"""Repair by recalibration: fitted on items that audits never ask, part of the weights or written beside them."""

from __future__ import annotations

import copy
import importlib
import json
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from plain import token_rows
from zoo import tiny_model

from trueprune import (
    AuditError,
    RepairError,
    TruepruneError,
    audit,
    drop,
    load,
    prune,
    read_recalibration,
    repair,
    save,
)
from trueprune.audits import AuditOptions, predict
from trueprune.audits.confidence import ece, null_error, top_label
from trueprune.audits.recalibrated import refuse_fitted
from trueprune.cli.main import run
from trueprune.jobs import DropOptions
from trueprune.jobs.fit_recalibration import between, fit_tasks
from trueprune.models.load import LoadedModel
from trueprune.repairs import Temperature, fit_isotonic, fit_platt, fit_temperature, fit_vector, fold_temperature
from trueprune.repairs.base import mean_nll
from trueprune.texts.tasks import TaskOptions, questions

INSTRUMENT = importlib.import_module("trueprune.audits.calibration")
JOB = importlib.import_module("trueprune.jobs.repair")
pytestmark = pytest.mark.filterwarnings("ignore:calibration of .* items:UserWarning")

SHORT = AuditOptions(resamples=20)
BOTH: dict[str, Any] = {"instruments": ("accuracy", "calibration")}
SCALE = 4
TOWNS = ("Barham", "Keldal", "Monsk", "Torton", "Vesum", "Barum", "Kelham")


@pytest.fixture(autouse=True)
def _short_measurements(monkeypatch):
    monkeypatch.setattr(JOB, "PERPLEXITY_TOKENS", 512)
    monkeypatch.setattr(JOB, "RESAMPLES", 20)
    monkeypatch.setattr(INSTRUMENT, "null_error", partial(null_error, draws=20))


@pytest.fixture(scope="session")
def sure_folder(tokenizer, tmp_path_factory):
    """A tiny model that is far too sure: its logits are four times too large. Read only."""
    folder = tmp_path_factory.mktemp("models") / "sure"
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.norm.weight *= SCALE
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_rows(file, rows):
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def written(file, rows, tokenizer):
    """A task whose right options are drawn from what the model says before it is made too sure."""
    options = TaskOptions(tasks=(str(write_rows(file, rows)),))
    model = LoadedModel(tiny_model("llama"), tokenizer, "tiny")
    rng = np.random.default_rng(0)
    for side in ("audit", "fit"):
        table = predict(model, questions(str(file), 0, options, side=side))
        for name, p_C in zip(table.item_ids, table.probabilities_NC, strict=True):
            rows[int(name)]["gold"] = int((p_C.cumsum() < rng.random()).sum())
    return str(write_rows(file, rows))


@pytest.fixture(scope="session")
def signs(tokenizer, tmp_path_factory):
    """A task of labels, each of one token: 108 items to be audited, 36 to be fitted on."""
    file = tmp_path_factory.mktemp("tasks") / "signs.jsonl"
    rows = [
        {"id": str(n), "text": f"{TOWNS[n % 7]} of {TOWNS[n % 5]} and {n} more", "options": ["a", "t", "s"], "gold": 0}
        for n in range(144)
    ]
    return TaskOptions(tasks=(written(file, rows, tokenizer),), items=0)


@pytest.fixture(scope="session")
def places(tokenizer, tmp_path_factory):
    """A task whose items have options of their own, of several tokens: 72 to be audited, 24 to be fitted on."""
    file = tmp_path_factory.mktemp("tasks") / "places.jsonl"
    rows = [
        {
            "id": str(n),
            "text": f"From {TOWNS[n % 7]} one goes {n} miles to",
            "options": [f"{TOWNS[(n + k) % 7]} {'by'[: n % 3]}".strip() for k in range(3)],
            "gold": 0,
        }
        for n in range(96)
    ]
    return TaskOptions(tasks=(written(file, rows, tokenizer),), items=0)


@pytest.fixture(scope="session")
def fitted_folder(sure_folder, signs, tmp_path_factory):
    """The sure model with a logistic curve of its confidence beside it. Read only."""
    folder = tmp_path_factory.mktemp("fitted") / "fitted"
    repair(sure_folder, folder, using="platt", answering=signs)
    return folder


def record_of(folder):
    return json.loads((folder / "trueprune.json").read_text())


def value(report, model, metric):
    return report.value(model, metric).value


# Temperature


def test_a_temperature_takes_the_confidence_that_was_too_much(sure_folder, signs, tmp_path):
    result = repair(sure_folder, tmp_path / "out", answering=signs)
    assert result.output == tmp_path / "out"
    for metric in ("ece-15/signs", "nll/signs", "brier/signs"):
        assert value(result.report, "after", metric) < value(result.report, "before", metric)
    change = result.report.change("after", "ece-15/signs")
    assert change is not None and change.interval[1] < 0
    # No answer changes.
    assert value(result.report, "after", "accuracy/signs") == value(result.report, "before", "accuracy/signs")
    found = record_of(tmp_path / "out")["recalibration"]
    assert (found["method"], found["folded"]) == ("temperature", True)
    assert found["temperature"] > 1.5
    assert found["temperature"] == result.record["recalibration"]["temperature"]
    assert {row["metric"] for row in found["measured"]} >= {"ece-15/signs", "accuracy/signs", "perplexity"}
    assert not (tmp_path / "out" / "recalibration.json").exists()
    # What is saved is an ordinary checkpoint whose logits are divided.
    again = tf.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    before = tf.AutoModelForCausalLM.from_pretrained(sure_folder).eval()
    with torch.no_grad():
        torch.testing.assert_close(
            again(token_rows(2)).logits, before(token_rows(2)).logits / found["temperature"], atol=1e-4, rtol=1e-4
        )


def test_the_report_is_what_an_audit_of_both_measures(sure_folder, signs, tmp_path):
    result = repair(sure_folder, tmp_path / "out", answering=signs)
    report = audit(
        sure_folder, [tmp_path / "out"], instruments=("accuracy", "calibration"), measuring=SHORT, answering=signs
    )
    for ours, theirs in (("before", "sure"), ("after", "out")):
        for metric in ("ece-15/signs", "nll/signs", "accuracy/signs"):
            assert value(result.report, ours, metric) == pytest.approx(value(report, theirs, metric), abs=1e-4)


def test_nothing_is_fitted_on_what_an_audit_asks(sure_folder, tmp_path):
    tasks = TaskOptions(tasks=("facts", "sentiment", "commonsense"), items=12)
    with pytest.warns(UserWarning, match="bound"):
        result = repair(sure_folder, tmp_path / "out", answering=tasks)
    fitted = record_of(tmp_path / "out")["recalibration"]["fitted_on"]
    assert {task: len(shas) for task, shas in fitted.items()} == dict.fromkeys(tasks.tasks, 12)
    for task, shas in fitted.items():
        asked = {item.sha256 for item in questions(task)}
        assert shas == [item.sha256 for item in questions(task, 12, side="fit")]
        assert not asked & set(shas)
    assert {row.metric.split("/")[1] for row in result.report.rows if row.metric.startswith("ece-15")} == set(fitted)


def test_a_temperature_of_single_tokens_is_the_exact_one(sure_folder, signs, places):
    loaded = load(sure_folder)
    items = {"signs": questions(signs.tasks[0], side="fit")}
    table = predict(loaded, items["signs"])
    assert table.tokens_NC.max() == 1
    exact = fit_temperature(table.logits_NC, table.gold_N)
    assert fit_tasks(loaded, items, "temperature", signs) == {"temperature": exact.temperature, "at_bound": None}
    assert SCALE / 2 < exact.temperature < SCALE * 2
    # So is that of first tokens, however many follow.
    first = TaskOptions(tasks=("sentiment",), scoring="first")
    items = {"sentiment": questions("sentiment", 40, first, side="fit")}
    table = predict(loaded, items["sentiment"], scoring="first")
    assert table.tokens_NC.max() > 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exact = fit_temperature(table.logits_NC, table.gold_N)
        assert fit_tasks(loaded, items, "temperature", first)["temperature"] == exact.temperature


def folded_nll(loaded, items, temperature, scoring):
    """Summed over all items, of a copy of the model that a temperature was really folded into."""
    other = LoadedModel(copy.deepcopy(loaded.model), loaded.tokenizer, "copy")
    fold_temperature(other.model, temperature)
    tables = [predict(other, many, scoring=scoring) for many in items.values()]
    return sum(len(table) * mean_nll(table.logits_NC, table.gold_N) for table in tables)


@pytest.mark.parametrize("scoring", ["sum", "mean"])
def test_a_temperature_of_several_tokens_is_best_for_models_that_it_was_folded_into(
    sure_folder, signs, places, scoring
):
    loaded = load(sure_folder)
    options = replace(places, scoring=scoring)
    items = {task.tasks[0]: questions(task.tasks[0], 0, options, side="fit") for task in (signs, places)}
    found = fit_tasks(loaded, items, "temperature", replace(options, tasks=tuple(items)))
    assert found["at_bound"] is None
    assert SCALE / 3 < found["temperature"] < SCALE * 3
    best = folded_nll(loaded, items, found["temperature"], scoring)
    for factor in (0.25, 0.8, 0.95, 1.05, 1.25, 3.0):
        assert folded_nll(loaded, items, found["temperature"] * factor, scoring) > best
    assert best < folded_nll(loaded, items, 1.0, scoring)


def test_between_grid_points_the_curve_is_followed():
    grid = np.linspace(np.log(0.2), np.log(10.0), 29)
    cubic = between(grid, 2 * grid**3 - grid**2 + 0.3)
    for x in (grid[0], -1.234, 0.05, grid[7], 1.9, grid[-1]):
        assert cubic(float(np.exp(x))) == pytest.approx(2 * x**3 - x**2 + 0.3, abs=1e-9)
    smooth = between(grid, np.exp(-grid) + grid)
    for x in np.linspace(grid[0], grid[-1], 50):
        assert smooth(float(np.exp(x))) == pytest.approx(np.exp(-x) + x, abs=1e-4)


@pytest.mark.parametrize(("bound", "temperature"), [("lower", 0.05), ("upper", 20.0)])
def test_a_temperature_at_its_bound_is_said(bound, temperature, sure_folder, signs, tmp_path, capsys):
    rows = [json.loads(line) for line in Path(signs.tasks[0]).read_text().splitlines()]
    table = predict(load(sure_folder), questions(signs.tasks[0], side="fit"))
    for name, p_C in zip(table.item_ids, table.probabilities_NC, strict=True):
        # Always what the model prefers, or never.
        rows[int(name)]["gold"] = int(p_C.argmax() if bound == "lower" else p_C.argmin())
    file = write_rows(tmp_path / "signs.jsonl", rows)
    assert run(["repair", str(sure_folder), "-o", str(tmp_path / "out"), "--tasks", str(file)]) == 0
    found = record_of(tmp_path / "out")["recalibration"]
    assert (found["at_bound"], found["temperature"]) == (bound, temperature)
    printed = capsys.readouterr().out
    assert f"{temperature:.4f}, folded into the weights" in printed
    assert [line for line in printed.splitlines() if "at bound" in line and bound in line]
    with pytest.warns(UserWarning, match=f"at or beyond {temperature:g}, the {bound} bound"):
        repair(sure_folder, answering=replace(signs, tasks=(str(file),)))


# The others


@pytest.mark.filterwarnings("ignore:isotonic regression overfits:UserWarning")
@pytest.mark.parametrize("method", ["vector", "platt", "isotonic"])
def test_other_recalibrations_are_written_beside_the_weights(sure_folder, signs, tmp_path, method):
    result = repair(sure_folder, tmp_path / "out", using=method, answering=signs)
    raw = predict(load(sure_folder), questions(signs.tasks[0]))
    fit_on = predict(load(sure_folder), questions(signs.tasks[0], side="fit"))
    (name, own), *none = read_recalibration(tmp_path / "out").items()
    assert (name, none) == ("signs", [])
    fit = {"vector": fit_vector, "platt": fit_platt, "isotonic": fit_isotonic}[method]
    expected = fit(fit_on.logits_NC, fit_on.gold_N).probabilities(raw.logits_NC)
    np.testing.assert_allclose(own.probabilities(raw.logits_NC), expected, atol=1e-6)
    assert read_recalibration(tmp_path / "out" / "recalibration.json").keys() == {"signs"}
    # The audit applies what is written.
    by_hand = ece(*top_label(expected, raw.gold_N))
    report = audit(
        sure_folder, [tmp_path / "out"], instruments=("accuracy", "calibration"), measuring=SHORT, answering=signs
    )
    assert value(report, "out", "ece-15/signs") == pytest.approx(by_hand, abs=1e-6)
    assert value(result.report, "after", "ece-15/signs") == pytest.approx(by_hand, abs=1e-6)
    assert value(report, "out", "ece-15/signs") != value(report, "sure", "ece-15/signs")
    np.testing.assert_allclose(value(report, "sure", "ece-15/signs"), ece(*top_label(raw.probabilities_NC, raw.gold_N)))
    # The weights are as they were.
    for before, after in zip(
        load(sure_folder).model.parameters(), load(tmp_path / "out").model.parameters(), strict=True
    ):
        assert torch.equal(before, after)
    found = record_of(tmp_path / "out")["recalibration"]
    assert (found["method"], found["folded"]) == (method, False)
    assert json.loads((tmp_path / "out" / "recalibration.json").read_text())["tasks"] == found["tasks"]


@pytest.mark.filterwarnings("ignore:isotonic regression overfits:UserWarning")
def test_labels_have_a_curve_each_and_own_options_one_in_all(sure_folder, signs, places):
    loaded = load(sure_folder)
    options = replace(signs, tasks=(*signs.tasks, *places.tasks))
    items = {name: questions(name, 0, options, side="fit") for name in options.tasks}
    fits = fit_tasks(loaded, {"signs": items[signs.tasks[0]], "places": items[places.tasks[0]]}, "isotonic", options)
    found = {name: (fit["kind"], len(fit["curves"])) for name, fit in fits["tasks"].items()}
    assert found == {"signs": ("one-vs-rest", 3), "places": ("top-label", 1)}
    # A letter means another thing in every item.
    letters = replace(signs, answers="letters")
    asked = {"signs": questions(signs.tasks[0], 0, letters, side="fit")}
    assert fit_tasks(loaded, asked, "isotonic", letters)["tasks"]["signs"]["kind"] == "top-label"


def test_a_task_without_a_fit_stays_as_it_is(sure_folder, fitted_folder, signs):
    both = TaskOptions(tasks=(*signs.tasks, "commonsense"), items=20)
    with pytest.warns(UserWarning, match="recalibrated on signs, not on commonsense: its answers there are as"):
        report = audit(sure_folder, [fitted_folder], instruments=("calibration",), measuring=SHORT, answering=both)
    assert report.change("fitted", "ece-15/commonsense").value == 0
    assert report.change("fitted", "ece-15/signs").value != 0


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (["--scoring", "mean"], "fitted with --scoring sum, not --scoring mean"),
        (["--answers", "letters"], "fitted with --answers texts, not --answers letters"),
        (["--shots", "1"], "fitted with --shots 0, not --shots 1"),
        (["--correct", "pmi"], "fitted with --correct none, not --correct pmi"),
    ],
)
def test_a_fit_to_questions_put_in_another_way_is_refused(fitted_folder, signs, tmp_path, capsys, change, problem):
    arguments = ["audit", str(fitted_folder), "-o", str(tmp_path / "out")]
    arguments += ["--instruments", "calibration", "--tasks", *signs.tasks, "--items", "12", *change]
    assert run(arguments) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("trueprune: error: the recalibration was")
    assert problem in message
    assert not (tmp_path / "out").exists()


def test_a_fit_can_be_made_again_in_another_way(sure_folder, places, tmp_path):
    first = repair(sure_folder, tmp_path / "a", using="platt", answering=places)
    again = repair(tmp_path / "a", tmp_path / "b", using="temperature", answering=replace(places, scoring="mean"))
    assert again.record["recalibration"]["scoring"] == "mean"
    assert [step["method"] for step in again.record["history"]] == ["repair-platt"]
    # Asked in the same way, what was there before is the earlier fit.
    same = repair(tmp_path / "a", tmp_path / "c", using="temperature", answering=places)
    for metric in ("ece-15/places", "nll/places"):
        assert value(same.report, "before", metric) == pytest.approx(value(first.report, "after", metric))
        assert value(again.report, "before", metric) != pytest.approx(value(first.report, "after", metric))


# Who may be judged by what


@pytest.fixture
def forged(sure_folder, tokenizer, tmp_path):
    """A model whose record says that it was fitted on an item that audits ask."""
    item = questions("sentiment", 12)[5]
    model = LoadedModel(load(sure_folder).model, tokenizer, "sure")
    record = {
        "plan": None,
        "recalibration": {"folded": True, "temperature": 1.0, "fitted_on": {"mine": ["0" * 64, item.sha256]}},
    }
    return save(model, tmp_path / "forged", record=record), item


@pytest.mark.parametrize("instrument", ["accuracy", "calibration", "faithfulness"])
def test_a_model_is_not_judged_by_what_it_was_fitted_on(forged, tmp_path, capsys, instrument):
    folder, item = forged
    arguments = ["audit", str(folder), "-o", str(tmp_path / "out"), "--instruments", instrument]
    arguments += ["--attributions", "random", "--tasks", "sentiment", "--items"]
    assert run([*arguments, "12"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert f"1 of the 12 items of sentiment were used to recalibrate forged (e.g. {item.id})" in message
    assert not (tmp_path / "out").exists()
    if instrument == "accuracy":
        assert run([*arguments, "5", "--resamples", "20"]) == 0


def test_nor_after_further_steps(forged, tmp_path, capsys):
    folder, _ = forged
    assert run(["prune", str(folder), "-o", str(tmp_path / "pruned"), "--method", "magnitude"]) == 0
    again = ["drop", str(tmp_path / "pruned"), "-o", str(tmp_path / "dropped"), "--by", "first", "--count", "1"]
    assert run(again) == 0
    for step in ("pruned", "dropped"):
        record = record_of(tmp_path / step)
        assert record["history"][0]["recalibration"]["fitted_on"]["mine"][0] == "0" * 64
        arguments = ["audit", str(tmp_path / step), "-o", str(tmp_path / "out"), "--instruments", "accuracy"]
        assert run([*arguments, "--tasks", "sentiment", "--items", "12"]) == 2
        assert f"were used to recalibrate {step}" in capsys.readouterr().err
    with pytest.raises(AuditError, match="were used to recalibrate"):
        repair(tmp_path / "dropped", answering=TaskOptions(tasks=("sentiment",), items=12))


def test_who_was_fitted_on_nothing_may_be_asked_anything():
    items = questions("sentiment", 3)
    for record in (None, {}, {"recalibration": None}, {"history": [{"plan": {}}], "recalibration": {"fitted_on": {}}}):
        refuse_fitted("mine", record, "sentiment", items)


# Together with other steps


def test_repair_after_prune_and_drop_keeps_their_plan(sure_folder, signs, tmp_path):
    prune(sure_folder, tmp_path / "a", method="magnitude", sparsity=0.3)
    drop(tmp_path / "a", tmp_path / "b", choice=DropOptions(by="first", count=1))
    result = repair(tmp_path / "b", tmp_path / "c", answering=signs)
    record = record_of(tmp_path / "c")
    assert [step["method"] for step in record["history"]] == ["magnitude", "drop-attention"]
    assert record["plan"]["drop"]["attention"] == [0]
    assert record["plan"]["blocks"] == record_of(tmp_path / "a")["plan"]["blocks"]
    assert record["measured_sparsity"] == pytest.approx(record_of(tmp_path / "b")["measured_sparsity"])
    again = load(tmp_path / "c")
    with torch.no_grad():
        expected = load(tmp_path / "b").model(token_rows(2)).logits / record["recalibration"]["temperature"]
        torch.testing.assert_close(again.model(token_rows(2)).logits, expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(result.loaded.model(token_rows(2)).logits, expected, atol=1e-4, rtol=1e-4)
    card = (tmp_path / "c" / "README.md").read_text()
    assert "pruned" in card
    assert "the attention of blocks 0" in card
    assert "method `uniform`" in card
    assert f"T = {record['recalibration']['temperature']:.4f}, fitted on 36 items of signs" in card


def test_prune_and_drop_after_repair_keep_its_history(sure_folder, signs, tmp_path):
    repair(sure_folder, tmp_path / "a", answering=signs)
    prune(tmp_path / "a", tmp_path / "b", method="magnitude")
    dropped = drop(tmp_path / "b", tmp_path / "c", choice=DropOptions(by="last", count=1))
    record = record_of(tmp_path / "c")
    assert [step["method"] for step in record["history"]] == ["repair-temperature", "magnitude"]
    assert record["history"][0]["recalibration"]["fitted_on"]["signs"]
    assert record["plan"]["drop"]["attention"] == [2]
    assert dropped.plan.score == "magnitude"
    report = audit(sure_folder, [tmp_path / "c"], instruments=("calibration",), measuring=SHORT, answering=signs)
    assert report.change("c", "ece-15/signs") is not None


# The card


def test_the_card_says_what_was_fitted(sure_folder, fitted_folder, signs, tmp_path):
    repair(sure_folder, tmp_path / "t", answering=signs)
    card = (tmp_path / "t" / "README.md").read_text()
    assert ", recalibrated" in card
    assert "all logits are divided by the temperature T = " in card
    assert "- pruning" not in card
    assert "- trueprune" in card
    card = (fitted_folder / "README.md").read_text()
    assert "`recalibration.json` holds a recalibration by `platt` fitted on 36 items of signs" in card
    assert "The weights are as before" in card


# What is refused


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--with", "magic"], ["there is no repair 'magic'", "temperature, vector, platt, isotonic"]),
        (["--with", "vector", "--tasks", "commonsense"], ["vector scaling", "commonsense", "platt or temperature"]),
        (["--with", "vector", "--tasks", "sentiment", "--answers", "letters"], ["vector scaling", "sentiment"]),
        (["--tasks", "FILE"], ["few has 9 items to fit on, too few", "10 or more"]),
        (["--tasks", "sentiment", "--items", "9"], ["sentiment has 9 items to fit on, too few"]),
        (["--tasks", "sentimnt"], ["unknown task 'sentimnt'. Did you mean sentiment?"]),
    ],
)
def test_wrong_repairs_are_one_line_and_leave_nothing(sure_folder, tmp_path, capsys, flags, words):
    rows = [{"text": f"Town {n} lies", "options": ["north", "south"], "gold": n % 2} for n in range(39)]
    file = write_rows(tmp_path / "few.jsonl", rows)
    flags = [str(file) if flag == "FILE" else flag for flag in flags]
    assert run(["repair", str(sure_folder), "-o", str(tmp_path / "out"), *flags]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("trueprune: error: ")
    assert all(line.startswith("note: ") for line in lines[:-1])
    for word in words:
        assert word in lines[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["few.jsonl"]


def test_an_output_that_exists_is_kept_unless_it_may_go(sure_folder, signs, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("x")
    arguments = ["repair", str(sure_folder), "-o", str(out), "--tasks", *signs.tasks, "--items", "0"]
    assert run(arguments) == 2
    assert "exists and is not empty" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["mine"]
    assert run([*arguments, "--overwrite"]) == 0
    assert not (out / "mine").exists()
    assert record_of(out)["command"].startswith("trueprune repair ")
    printed = capsys.readouterr().out
    for words in ("folded into the weights", "36 items of signs", "before", "after", "ECE"):
        assert words in printed
    assert run(["repair", str(out), "-o", str(out), "--overwrite"]) == 2
    assert "is or holds the input" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["temperature", "platt"])
def test_a_failure_leaves_nothing_half_written(sure_folder, signs, tmp_path, monkeypatch, method):
    def broken(*_args, **_options):
        raise RuntimeError("no more")

    monkeypatch.setattr(importlib.import_module("trueprune.models.save"), "_check", broken)
    with pytest.raises(RuntimeError, match="no more"):
        repair(sure_folder, tmp_path / "out", using=method, answering=signs)
    assert list(tmp_path.iterdir()) == []


def test_there_is_nothing_to_read_beside_a_folded_temperature(sure_folder, signs, tmp_path):
    repair(sure_folder, tmp_path / "out", answering=signs)
    with pytest.raises(RepairError, match=r"there is no .*recalibration\.json"):
        read_recalibration(tmp_path / "out")
    file = tmp_path / "recalibration.json"
    for text, problem in {
        "{": "is not JSON",
        "[1]": "names no tasks",
        '{"tasks": {"a": {}}}': "names no 'method'",
        '{"tasks": {"a": {"method": "magic", "schema": 1}}}': "no recalibration 'magic'",
    }.items():
        file.write_text(text)
        with pytest.raises(RepairError, match=problem):
            read_recalibration(file)
    file.write_text(json.dumps({"tasks": {"a": Temperature(2.0).to_json()}}))
    assert read_recalibration(file) == {"a": Temperature(2.0)}


def test_in_python_nothing_need_be_written(sure_folder, signs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loaded = load(sure_folder)
    result = repair(loaded, using="platt", answering=signs)
    assert result.output is None
    assert list(tmp_path.iterdir()) == []
    report = audit(sure_folder, [result.loaded], instruments=("calibration",), measuring=SHORT, answering=signs)
    name = report.models[1].name
    assert value(report, name, "ece-15/signs") == pytest.approx(value(result.report, "after", "ece-15/signs"))
    with pytest.raises(TruepruneError, match="no repair 'magic'"):
        repair(loaded, using="magic")
