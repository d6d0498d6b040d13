"""The attention study: one table over models, tasks and dropped layers, every cell kept and made once."""

from __future__ import annotations

import importlib
import importlib.util
import json
import shutil
import warnings
from dataclasses import replace
from functools import partial

import pytest
from zoo import tiny_model

from trueprune import AuditError, OutputError, PlanError, audit, load, read_anatomy, save, study_attention
from trueprune.audits import AuditOptions, ExplanationOptions, calibration_of, predict
from trueprune.audits.confidence import brier, null_error
from trueprune.cli.main import run
from trueprune.edits import apply_drop
from trueprune.jobs import DropOptions, StudyOptions, drop
from trueprune.plans import Drop
from trueprune.repairs import Platt
from trueprune.reports.plots import plot_steps
from trueprune.reports.study import COLUMNS
from trueprune.texts import CalibrationOptions
from trueprune.texts.tasks import TaskOptions, questions

INSTRUMENT = importlib.import_module("trueprune.audits.calibration")
REPORT = importlib.import_module("trueprune.reports.study")
JOB = importlib.import_module("trueprune.jobs.study")
pytestmark = [
    pytest.mark.filterwarnings("ignore:calibration of .* items:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*the AUROC of confidence is undefined:UserWarning"),
]
CALIBRATION = CalibrationOptions(nsamples=2, seqlen=32)
TASKS = ("facts", "commonsense")
HOW = {
    "study": StudyOptions(drops="0,1,2", resamples=20),
    "answering": TaskOptions(tasks=TASKS, items=4),
    "explaining": ExplanationOptions(attributions=("leave-one-out", "random"), explained=2, naopc_words=0),
    "calibration": CALIBRATION,
}
FLAGS = ["--items", "4", "--explained", "2", "--attributions", "leave-one-out", "random", "--naopc-words", "0"]
FLAGS += ["--nsamples", "2", "--seqlen", "32", "--resamples", "20", "--tasks", "facts"]


@pytest.fixture(autouse=True)
def _short_reports(monkeypatch):
    monkeypatch.setattr(INSTRUMENT, "null_error", partial(null_error, draws=20))
    # Plots are slow; the finished study has some.
    monkeypatch.setattr(REPORT, "plot_steps", lambda *_args: [])


@pytest.fixture
def calls(monkeypatch):
    """What is asked of a model while the test runs."""
    made = []

    def counting(loaded, items, **options):
        made.append(options["task"])
        return predict(loaded, items, **options)

    monkeypatch.setattr(JOB, "predict", counting)
    return made


@pytest.fixture(scope="module")
def finished(tiny_folder, tokenizer, tmp_path_factory):
    """A finished study of two models, its report, and their folders. Read only."""
    folder = tmp_path_factory.mktemp("study")
    tiny_model("llama", seed=1).save_pretrained(folder / "other")
    tokenizer.save_pretrained(folder / "other")
    models = [tiny_folder, folder / "other"]
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setattr(INSTRUMENT, "null_error", partial(null_error, draws=20))
        report = study_attention(models, folder / "out", **HOW)
    return models, folder / "out", report


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished study to go on with."""
    models, out, _ = finished
    shutil.copytree(out, tmp_path / "out")
    return models, tmp_path / "out"


# The table


def test_every_model_task_and_number_has_a_row(finished):
    _, out, report = finished
    expected = [(m, t, k) for m in ("tiny-llama", "other") for t in TASKS for k in (0, 1, 2)]
    assert [(row["model"], row["task"], row["dropped"]) for row in report.rows] == expected
    data = json.loads((out / "study.json").read_text())
    assert [(row["model"], row["task"], row["dropped"]) for row in data["rows"]] == expected
    assert data["attribution"] == "leave-one-out"
    assert data["settings"]["study"]["drops"] == "0,1,2"
    assert data["settings"]["faithfulness"]["explained"] == 2
    assert data["settings"]["tasks"]["tasks"] == list(TASKS)
    for row in data["rows"]:
        assert len(row["layers"]) == row["dropped"]
        metrics = {metric["metric"]: metric for metric in row["metrics"]}
        assert {m.format(task=row["task"], attribution="leave-one-out") for m in COLUMNS.values()} <= set(metrics)
        for metric in metrics.values():
            low, high = metric["interval"]
            assert low - 1e-12 <= metric["value"] <= high + 1e-12
            if not row["dropped"]:
                assert metric["change"] is None
        assert (f"same-option/{row['task']}" in metrics) == bool(row["dropped"])


def test_changes_are_against_the_whole_model_of_the_same_name(finished):
    _, _, report = finished
    for model in ("tiny-llama", "other"):
        for task in TASKS:
            whole = report.row(model, task, 0)
            for count in (1, 2):
                for name, row in report.row(model, task, count).items():
                    if name in whole:
                        change = row.estimate.value - whole[name].estimate.value
                        assert row.change.value == pytest.approx(change, abs=1e-12)
    moved = report.row("other", "facts", 2)["brier/facts"].change.value
    assert moved != 0
    with pytest.raises(KeyError, match="no cell of other, facts, 3"):
        report.row("other", "facts", 3)


def test_markdown_is_the_table(finished):
    _, out, report = finished
    lines = (out / "study.md").read_text().splitlines()
    assert lines[0] == "| model | task | dropped | accuracy | ECE | Brier | comprehensiveness | sufficiency |"
    assert sum(line.startswith("| ") for line in lines) == 1 + 12
    cells = [cell.strip() for cell in lines[2 + 2].strip("|").split("|")]
    assert cells[:3] == ["tiny-llama", "facts", "2"]
    row = report.row("tiny-llama", "facts", 2)["brier/facts"]
    low, high = row.change.interval
    assert cells[5] == f"{row.estimate.value:.3f} ({low:+.3f} to {high:+.3f})"
    whole = report.row("tiny-llama", "facts", 0)["brier/facts"]
    assert f"{whole.estimate.value:.3f} [{whole.estimate.interval[0]:.3f}" in lines[2]
    assert "*" not in lines[2]


def test_each_model_has_a_plot(finished):
    _, out, _ = finished
    pytest.importorskip("matplotlib")
    drawn = {file.name for file in out.iterdir() if file.suffix in (".png", ".svg")}
    assert drawn == {f"study-{model}.{kind}" for model in ("tiny-llama", "other") for kind in ("png", "svg")}
    assert (out / "study-other.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert not list(out.glob("*.partial"))


def test_the_same_data_give_the_same_plot(tmp_path):
    pytest.importorskip("matplotlib")
    panels = {"ECE": {"facts": [(0, 0.1, 0.0, 0.2), (2, 0.3, 0.2, 0.5)]}, "Brier": {"facts": [(0, 0.1, 0.0, 0.2)]}}
    first, again = (plot_steps(panels, "model", tmp_path / name) for name in ("first", "again"))
    assert [file.name for file in first] == ["first.png", "first.svg"]
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_the_layers_are_those_that_drop_takes(finished, tmp_path):
    models, _, report = finished
    for model, name in zip(models, ("tiny-llama", "other"), strict=True):
        rows = [row["layers"] for row in report.rows if (row["model"], row["task"]) == (name, "facts")]
        for count in (1, 2):
            dropped = drop(model, choice=DropOptions("attention", "cosine", count=count), calibration=CALIBRATION)
            assert sorted(rows[count]) == list(dropped.plan.drop.attention)
        # What went first stays gone.
        assert rows[2][:1] == rows[1]


def test_random_layers_are_those_that_drop_takes(tiny_folder, tmp_path):
    calibration = replace(CALIBRATION, seed=3)
    how = {**HOW, "study": StudyOptions("2", "random", 20), "calibration": calibration}
    report = study_attention([tiny_folder], tmp_path / "out", **{**how, "answering": TaskOptions(items=2)})
    dropped = drop(tiny_folder, choice=DropOptions("attention", "random", count=2), calibration=calibration)
    assert sorted(report.rows[1]["layers"]) == list(dropped.plan.drop.attention)
    other = drop(tiny_folder, choice=DropOptions("attention", "random", count=2), calibration=CALIBRATION)
    assert other.plan.drop.attention != dropped.plan.drop.attention


def test_the_cell_of_nothing_dropped_is_an_audit_of_the_whole_model(finished):
    models, _, report = finished
    found = audit(
        models[0],
        instruments=("accuracy", "calibration", "faithfulness"),
        measuring=AuditOptions(resamples=20),
        answering=HOW["answering"],
        explaining=HOW["explaining"],
    )
    for task in TASKS:
        cell = report.row("tiny-llama", task, 0)
        rows = [row for row in found.rows if row.metric.split("/")[1] == task]
        assert {row.metric for row in rows} == set(cell)
        for row in rows:
            assert row.estimate.value == pytest.approx(cell[row.metric].estimate.value, abs=1e-9)
            assert row.estimate.interval == pytest.approx(cell[row.metric].estimate.interval, abs=1e-9)


def test_a_cell_is_of_the_model_without_these_layers(finished):
    models, _, report = finished
    loaded = load(models[0])
    layers = next(row["layers"] for row in report.rows if row["dropped"] == 2)
    apply_drop(read_anatomy(loaded.model), Drop.from_json({"attention": layers}, 3))
    measured = {m.metric: m.value for m in calibration_of(predict(loaded, questions("facts", 4), task="facts"))}
    for metric in ("brier/facts", "ece-15/facts"):
        assert report.row("tiny-llama", "facts", 2)[metric].estimate.value == pytest.approx(measured[metric], abs=1e-6)


# Cells


def test_a_second_run_asks_nothing(copied, calls):
    models, out = copied
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    study_attention(models, out, **HOW)
    assert calls == []
    assert {file: file.read_bytes() for file in before} == before


def test_more_layers_and_another_task_add_their_cells_alone(finished, tmp_path, calls):
    models, _, _ = finished
    first = {**HOW, "study": StudyOptions("1", resamples=20), "answering": TaskOptions(tasks=("facts",), items=4)}
    study_attention(models[:1], tmp_path / "out", **first)
    assert calls == ["facts"] * 2  # of the whole model, and without one
    study_attention(models[:1], tmp_path / "out", **{**HOW, "study": StudyOptions("1,2", resamples=30)})
    assert calls[2:] == ["commonsense", "commonsense", "facts", "commonsense"]
    assert len(list((tmp_path / "out" / "cells").glob("*/cell.json"))) == 6


@pytest.mark.parametrize(
    "change",
    [
        {"answering": TaskOptions(tasks=("facts",), items=3)},
        {"answering": TaskOptions(tasks=("facts",), items=4, scoring="mean")},
        {"answering": TaskOptions(tasks=("facts",), items=4, shots=1)},
        {"explaining": replace(HOW["explaining"], explanation_seed=1)},
        {"explaining": replace(HOW["explaining"], explained=3)},
        {"explaining": replace(HOW["explaining"], operator="mask")},
    ],
    ids=["items", "scoring", "shots", "seed", "explained", "operator"],
)
def test_other_settings_use_no_cell_of_before(copied, calls, change):
    models, out = copied
    one = {**HOW, "answering": TaskOptions(tasks=("facts",), items=4), "study": StudyOptions("0", resamples=20)}
    study_attention(models[:1], out, **one)
    assert calls == []
    kept = len(list((out / "cells").glob("*/cell.json")))
    study_attention(models[:1], out, **{**one, **change})
    assert calls == ["facts"]
    assert len(list((out / "cells").glob("*/cell.json"))) == kept + 1
    # Those of before are still there.
    study_attention(models[:1], out, **one)
    assert calls == ["facts"]


def test_other_weights_under_the_same_name_use_no_cell_of_before(copied, tokenizer, tmp_path, calls):
    _, out = copied
    tiny_model("llama", seed=2).save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    study_attention([tmp_path / "other"], out, **{**HOW, "study": StudyOptions("0", resamples=20)})
    assert calls == list(TASKS)


def test_changed_rationales_are_measured_anew(tiny_folder, tmp_path, calls):
    file = tmp_path / "mine.jsonl"
    names = []
    for marks in ("A [fine] day {}", "[A] fine day {}"):
        rows = [{"text": marks.format(n), "options": ["good", "bad"], "gold": 0, "rationale": True} for n in range(12)]
        file.write_text("\n".join(map(json.dumps, rows)))
        asked = TaskOptions(tasks=(str(file),), items=2)
        how = {**HOW, "answering": asked, "study": StudyOptions("0", resamples=20)}
        names.append(study_attention([tiny_folder], tmp_path / "out", **how).row("tiny-llama", "mine", 0))
    assert calls == ["mine", "mine"]
    auprc = "plausibility-auprc/mine/leave-one-out"
    assert names[0][auprc].estimate.value != names[1][auprc].estimate.value


def test_an_interrupted_study_goes_on(tiny_folder, tmp_path, calls, monkeypatch):
    out = tmp_path / "out"
    whole = JOB.explain
    done = []

    def stopping(*args, **options):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(options["task"])
        return whole(*args, **options)

    monkeypatch.setattr(JOB, "explain", stopping)
    with pytest.raises(KeyboardInterrupt):
        study_attention([tiny_folder], out, **HOW)
    cells = {file: file.read_bytes() for file in (out / "cells").rglob("*") if file.is_file()}
    assert len([file for file in cells if file.name == "cell.json"]) == 3
    assert {path.name for path in out.iterdir()} == {"cells"}
    assert not list((out / "cells").glob(".*"))
    monkeypatch.setattr(JOB, "explain", whole)
    calls.clear()
    report = study_attention([tiny_folder], out, **HOW)
    assert len(calls) == 3
    assert len(report.rows) == 6
    assert {file: file.read_bytes() for file in cells} == cells


# What is refused


@pytest.mark.parametrize(
    ("drops", "counts"),
    [("2,4", [0, 2, 4]), ("0", [0]), ("3, 1 , 3", [0, 1, 3]), ("1 2", [0, 1, 2]), ("10,2,", [0, 2, 10])],
)
def test_numbers_of_dropped_layers(drops, counts):
    assert StudyOptions(drops=drops).counts == counts


@pytest.mark.parametrize("drops", ["", " , ", "two", "1,-2", "1.5", "1;2", "²", "9" * 5000], ids=range(8))
def test_what_is_no_list_of_numbers_is_refused(drops):
    with pytest.raises(PlanError, match=r"is no list of numbers\. Write e\.g\. 0,2,4,6"):
        StudyOptions(drops=drops)


def test_studies_that_cannot_be_are_refused_before_anything_is_asked(finished, tmp_path, calls):
    models, _, _ = finished
    how = {**HOW, "study": StudyOptions("0,3", resamples=20)}
    with pytest.raises(PlanError, match=r"--drops asks for 3 attention layers less, tiny-llama has 3\. Drop at most 2"):
        study_attention(models[:1], tmp_path / "out", **how)
    with pytest.raises(PlanError, match="unknown ranking"):
        StudyOptions(by="beauty")
    with pytest.raises(PlanError, match="--resamples 9 is below 10"):
        StudyOptions(resamples=9)
    shutil.copytree(models[0], tmp_path / "elsewhere" / "tiny-llama")
    with pytest.raises(PlanError, match=r"two models are called 'tiny-llama'\. Rename a folder"):
        study_attention([models[0], tmp_path / "elsewhere" / "tiny-llama"], tmp_path / "out", **HOW)
    with pytest.raises(PlanError, match="there is no model to study"):
        study_attention([], tmp_path / "out", **HOW)
    assert calls == []
    assert not (tmp_path / "out").exists()


def test_a_model_is_not_studied_on_what_it_was_fitted_on(tiny, tmp_path, calls):
    item = questions("facts", 4)[2]
    record = {"plan": None, "recalibration": {"folded": True, "temperature": 1.0, "fitted_on": {"f": [item.sha256]}}}
    save(tiny, tmp_path / "fitted", record=record)
    with pytest.raises(AuditError, match="1 of the 4 items of facts were used to recalibrate fitted"):
        study_attention([tmp_path / "fitted"], tmp_path / "out", **HOW)
    assert calls == []


def test_a_study_is_of_the_model_without_a_recalibration_beside_it(tiny, tmp_path):
    fit = Platt(0.5, 0.1)
    way = {"scoring": "sum", "answers": "texts", "correct": "none", "chat": False, "shots": 0}
    found = {"method": "platt", "folded": False, "tasks": {"facts": fit.to_json()}, "fitted_on": {}, **way}
    save(tiny, tmp_path / "fitted", record={"plan": None, "recalibration": found})
    asked = TaskOptions(tasks=("facts",), items=4)
    how = {**HOW, "answering": asked, "study": StudyOptions("0", resamples=20)}
    report = study_attention([tmp_path / "fitted"], tmp_path / "out", **how)
    raw = predict(tiny, questions("facts", 4))
    expected = brier(raw.probabilities_NC, raw.gold_N)
    assert brier(fit.probabilities(raw.logits_NC), raw.gold_N) != pytest.approx(expected, abs=1e-3)
    assert report.row("fitted", "facts", 0)["brier/facts"].estimate.value == pytest.approx(expected, abs=1e-6)


def test_a_folder_of_other_things_is_no_output(tiny_folder, tmp_path, calls):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    for out in (tmp_path / "out", tmp_path / "out" / "mine"):
        with pytest.raises(OutputError, match="is no folder of a study"):
            study_attention([tiny_folder], out, **HOW)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]
    assert (tmp_path / "out" / "mine").read_text() == "x"
    assert calls == []


# The command


def test_the_command_and_its_help(tiny_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert run(["study", "attention", "--help"]) == 0
    printed = capsys.readouterr().out
    for flag in ("--models", "--output", "-o", "--drops", "--by", "--tasks", "--attributions", "--nsamples", "--dtype"):
        assert flag in printed.replace(",", " ").split()
    assert run(["study", "--help"]) == 0
    assert "attention" in capsys.readouterr().out
    arguments = [
        "study",
        "attention",
        "--models",
        str(tiny_folder),
        "-o",
        str(tmp_path / "out"),
        "--drops",
        "1",
        *FLAGS,
    ]
    assert run(arguments) == 0
    printed = capsys.readouterr().out
    for words in ("tiny-llama", "facts", "comprehensiveness", "ECE", "explanations by leave-one-out"):
        assert words in printed
    data = json.loads((tmp_path / "out" / "study.json").read_text())
    assert [row["dropped"] for row in data["rows"]] == [0, 1]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--drops", "few"], ["--drops 'few' is no list of numbers"]),
        (["--drops", "0,7"], ["--drops asks for 7 attention layers less, tiny-llama has 3"]),
        (["--by", "beauty"], ["beauty", "cosine"]),
        (["--attributions", "shap"], ["no attribution method 'shap'"]),
        (["--tasks", "fact"], ["unknown task 'fact'. Did you mean facts?"]),
        (["--models", "gone"], ["gone"]),
    ],
)
def test_wrong_studies_are_one_line_and_leave_nothing(tiny_folder, tmp_path, capsys, flags, words):
    arguments = ["study", "attention", "--models", str(tiny_folder), "-o", str(tmp_path / "out"), *FLAGS[:-2]]
    assert run([*arguments, *flags] if flags[0] != "--models" else [*arguments[:2], *flags, *arguments[4:]]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("trueprune: error: ")
    assert captured.err.count("\n") == 1
    for word in words:
        assert word in captured.err
    assert list(tmp_path.iterdir()) == []
