"""`trueprune report`: audits joined later say what one audit of all models says, or are refused by name."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import transformers
from huggingface_hub import ModelCard
from samples import write_corpus, write_statements
from zoo import tiny_model

from trueprune import AuditError, OutputError, audit
from trueprune.audits import AuditOptions, ConfidenceOptions, Measurement
from trueprune.audits.qa.options import TruthOptions
from trueprune.audits.stored import read_models, write_models
from trueprune.cli.main import run
from trueprune.jobs.gating import GateOptions
from trueprune.jobs.report import report as report_job
from trueprune.reports import AuditedModel, compare
from trueprune.reports.audit import write_report
from trueprune.reports.item_texts import ItemText, ItemTexts, Said
from trueprune.reports.join import join_audits
from trueprune.reports.stored import read_audit, read_audited, write_audited
from trueprune.reports.stored_texts import read_texts, write_texts
from trueprune.texts.qa import QaOptions
from trueprune.texts.tasks import TaskOptions

INSTRUMENTS = ("perplexity", "lie-detection", "separation", "accuracy", "calibration", "open-qa")
pytestmark = [
    pytest.mark.filterwarnings("ignore:calibration of .* items:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*the AUROC of confidence is undefined:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*confidence is undefined:UserWarning"),
]


@pytest.fixture(scope="module")
def how(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    return {
        "instruments": INSTRUMENTS,
        "measuring": AuditOptions(
            text=str(write_corpus(folder / "corpus.txt")),
            window=32,
            statements=str(write_statements(folder / "statements.csv")),
            per_dataset=16,
            repeats=1,
            resamples=30,
            seed=2,
        ),
        "answering": TaskOptions(tasks=("sentiment",), items=10),
        "confidence": ConfidenceOptions(metrics=("ece-15", "brier")),
        "asking": QaOptions(qa=("general",), qa_items=4),
        "truth": TruthOptions(new_tokens=3),
    }


@pytest.fixture(scope="module")
def models(tokenizer, tmp_path_factory):
    """A dense model and two others, as folders."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("dense", "half", "third")):
        tiny_model("llama", seed).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def audits(models, how, tmp_path_factory):
    """The three models in one audit, and the same in parts; read only."""
    out = tmp_path_factory.mktemp("audits")
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        # Plots are slow and take no part.
        patch.setattr(importlib.import_module("trueprune.jobs.audit_files"), "_plot", lambda *_: None)
        dense = models / "dense"
        audit(dense, [models / "half", models / "third"], out / "all", command="trueprune audit all", **how)
        audit(dense, [models / "half"], out / "first", command="trueprune audit first", **how)
        audit(dense, [models / "third"], out / "second", command="trueprune audit second", **how)
        audit(models / "third", output=out / "alone", **how)
    return out


# Audits as they were


def test_an_audit_is_read_as_it_was(audits):
    data = json.loads((audits / "all" / "audit.json").read_text())
    found = read_audited(audits / "all")
    assert [model.name for model in found] == ["dense", "half", "third"]
    assert [model.about["source"] for model in found] == [entry["source"] for entry in data["models"]]
    assert [model.curves for model in found] == [entry["curves"] for entry in data["models"]]
    assert {"name", "curves"}.isdisjoint(found[0].about)
    again = join_audits([audits / "all"])
    assert again.to_json() == data
    assert "joined" not in again.settings
    worst = again.to_json()["worst_items"]
    assert any(item["text"] and item["after"]["said"] for one in worst for item in one["items"])


def test_audits_made_apart_are_those_made_together(audits):
    together = json.loads((audits / "all" / "audit.json").read_text())
    joined = join_audits([audits / "first", audits / "second"])
    found = joined.to_json()
    for part in ("dense", "models", "measurements", "worst_items", "summary", "instruments"):
        assert found[part] == together[part], part
    assert joined.settings["joined"] == [
        {"folder": str(audits / "first"), "models": ["dense", "half"], "command": "trueprune audit first"},
        {"folder": str(audits / "second"), "models": ["third"], "command": "trueprune audit second"},
    ]
    assert found["models"][2]["sha256"] == together["models"][2]["sha256"]


def test_the_job_writes_all_that_an_audit_writes(audits, tmp_path):
    report = report_job([audits / "first", audits / "second"], tmp_path / "out", command="trueprune report")
    assert report.verdict is None
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "audit.json",
        "items.jsonl",
        "measurements.parquet",
        "report.html",
        "texts.parquet",
    }
    assert "third" in (tmp_path / "out" / "report.html").read_text()
    again = join_audits([tmp_path / "out"])
    assert again.to_json() == report.to_json()
    assert again.settings["reported_by"] == "trueprune report"
    with pytest.raises(OutputError, match="exists and is not empty"):
        report_job([audits / "first"], tmp_path / "out")
    with pytest.raises(OutputError, match="is or holds the input"):
        report_job([audits / "first"], audits / "first", overwrite=True)


def test_a_model_that_was_audited_alone(audits):
    with pytest.warns(UserWarning, match=r"third of .*alone was audited alone: \d+ metrics .*lie-detection grouped"):
        joined = join_audits([audits / "first", audits / "alone"])
    together = join_audits([audits / "all"])
    assert [model.name for model in joined.models] == ["dense", "half", "third"]
    ours = {(row.instrument, row.metric): row for row in joined.rows if row.model == "third"}
    theirs = {(row.instrument, row.metric): row for row in together.rows if row.model == "third"}
    assert not any("frozen" in metric for _, metric in ours)
    for name in (("perplexity", "perplexity"), ("calibration", "ece-15/sentiment"), ("open-qa", "correct/general")):
        assert ours[name].change == theirs[name].change
        assert ours[name].change is not None
    # Read in another block than the dense model, separation says something else.
    layers = [row.details.get("layer") for row in (ours.get(("separation", "ratio-at-dense-peak")),) if row]
    assert layers in ([], [theirs["separation", "ratio-at-dense-peak"].details["layer"]])


def test_names_that_clash_are_numbered(audits, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(audits / "second", copy)
    joined = join_audits([audits / "all", audits / "second", copy])
    assert [model.name for model in joined.models] == ["dense", "half", "third", "third (2)", "third (3)"]
    rows = {(row.model, row.metric): row for row in joined.rows}
    assert rows["third (2)", "perplexity"].estimate == rows["third", "perplexity"].estimate
    assert set(joined.items.said) == {"dense", "half", "third", "third (2)", "third (3)"}


# Audits that do not fit


@pytest.fixture
def second(audits, tmp_path):
    """A copy of the second audit, to be changed."""
    return Path(shutil.copytree(audits / "second", tmp_path / "second"))


def edit(folder, change):
    data = json.loads((folder / "audit.json").read_text())
    change(data)
    (folder / "audit.json").write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.update(window=64), "window 32, .* with 64"),
        (lambda s: s.update(statements="embedded"), r"statements .*statements\.csv, .* with embedded"),
        (lambda s: s["tasks"].update(items=11), "items 10, .* with 11"),
        (lambda s: s["qa"].update(primer="own"), "primer none, .* with own"),
        (lambda s: s["truth"].pop("grade"), "grade contains, .* with none"),
    ],
)
def test_other_settings_are_refused(audits, second, change, said):
    edit(second, lambda data: change(data["settings"]))
    with pytest.raises(AuditError, match=f"first was audited with {said}.*Audit both with the same"):
        join_audits([audits / "first", second])


def test_settings_of_what_was_not_measured_twice_may_differ(audits, second):
    def only_perplexity(data):
        data["settings"]["instruments"] = ["perplexity"]
        data["settings"]["tasks"]["items"] = 99
        data["settings"]["repeats"] = 7

    edit(second, only_perplexity)
    stored = read_models(second / "measurements.parquet")
    kept = {name: [m for m in found if m.instrument == "perplexity"] for name, found in stored.models.items()}
    write_models(kept, second / "measurements.parquet", resamples=30, seed=2)
    joined = join_audits([audits / "first", second])
    third = [row for row in joined.rows if row.model == "third"]
    assert [row.metric for row in third] == ["perplexity"]
    assert third[0].change is not None
    assert joined.settings["tasks"]["items"] == 10
    assert joined.settings["instruments"] == list(INSTRUMENTS)


def test_lists_of_what_was_measured_may_differ_and_are_joined(audits, second):
    edit(second, lambda data: data["settings"].update(probes=["ccs", "logistic"]))
    joined = join_audits([audits / "first", second])
    assert joined.settings["probes"] == ["logistic", "mass-mean", "ttpd", "ccs"]


@pytest.mark.parametrize(("draws", "said"), [((31, 2), "resamples 30, .* with 31"), ((30, 5), "seed 2, .* with 5")])
def test_other_draws_are_refused(audits, second, draws, said):
    stored = read_models(second / "measurements.parquet")
    plain = {name: [m for m in found if m.statistic is None] for name, found in stored.models.items()}
    write_models(plain, second / "measurements.parquet", resamples=draws[0], seed=draws[1])
    with pytest.raises(AuditError, match=said):
        join_audits([audits / "first", second])


def test_other_items_are_refused_and_named(audits, second):
    def rename(measurement):
        if measurement.instrument != "accuracy":
            return measurement
        ids = [*measurement.item_ids[:-2], "new-1", "new-2"]
        return replace(measurement, item_ids=ids, clusters=ids)

    stored = read_models(second / "measurements.parquet")
    changed = {name: [rename(m) for m in found] for name, found in stored.models.items()}
    write_models(changed, second / "measurements.parquet", resamples=30, seed=2)
    with pytest.raises(AuditError) as caught:
        join_audits([audits / "first", second])
    said = str(caught.value)
    assert "accuracy accuracy/sentiment was measured on different items" in said
    assert re.search(r"2 only in \S+/first \(e\.g\. \S+, \S+\), 2 only in \S+/second \(e\.g\. new-1, new-2\)", said)
    turned = {
        name: [replace(m, item_ids=m.item_ids[::-1]) if m.instrument == "accuracy" else m for m in found]
        for name, found in stored.models.items()
    }
    write_models(turned, second / "measurements.parquet", resamples=30, seed=2)
    with pytest.raises(AuditError, match="the same 10 in another order"):
        join_audits([audits / "first", second])


def test_items_that_say_something_else_are_refused(audits, second):
    table = pq.read_table(second / "predictions.parquet")
    index = table.schema.get_field_index("sha256")
    items, hashes = (table.column(name).to_pylist() for name in ("item", "sha256"))
    hashes = ["0" * 64 if item == items[0] else found for item, found in zip(items, hashes, strict=True)]
    pq.write_table(table.set_column(index, "sha256", [hashes]), second / "predictions.parquet")
    with pytest.raises(AuditError, match=r"1 items of sentiment do not say the same in .*first and in .*second"):
        join_audits([audits / "first", second])


def test_another_dense_model_is_refused(audits, second):
    edit(second, lambda data: data["models"][0].update(sha256="0" * 64))
    with pytest.raises(
        AuditError, match=r"compared with dense, which is not the dense model dense of .*weights differ"
    ):
        join_audits([audits / "first", second])


def test_the_same_weights_with_another_recalibration_are_another_model(audits, tmp_path):
    copy = Path(shutil.copytree(audits / "alone", tmp_path / "alone"))
    weights = json.loads((audits / "first" / "audit.json").read_text())["models"][0]["sha256"]
    edit(copy, lambda data: data["models"][0].update(sha256=weights, recalibration="1" * 64))
    with pytest.warns(UserWarning, match="was audited alone"):
        joined = join_audits([audits / "first", copy])
    assert [model.name for model in joined.models] == ["dense", "half", "third"]
    # Neither is it the dense model that others were compared with.
    copy = Path(shutil.copytree(audits / "second", tmp_path / "second"))
    edit(copy, lambda data: data["models"][0].update(recalibration="1" * 64))
    with pytest.raises(AuditError, match="their answers are recalibrated differently"):
        join_audits([audits / "first", copy])


def test_another_dtype_is_noted(audits, tmp_path):
    copy = Path(shutil.copytree(audits / "alone", tmp_path / "alone"))
    assert {model.about["dtype"] for model in read_audited(audits / "all")} == {"float32"}
    edit(copy, lambda data: data["models"][0].update(dtype="bfloat16"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        join_audits([audits / "first", copy])
    assert [str(w.message) for w in caught if "in bfloat16, dense in float32" in str(w.message)]


def test_without_a_hash_the_same_model_is_known_by_what_was_measured(audits, second, tmp_path):
    edit(second, lambda data: data["models"][0].pop("sha256"))
    assert len(join_audits([audits / "first", second]).models) == 3
    stored = read_models(second / "measurements.parquet")
    dense = list(stored.models["dense"])
    at = next(i for i, m in enumerate(dense) if m.instrument == "perplexity")
    dense[at] = replace(dense[at], values=dense[at].values * (1 + 1e-12))
    write_models({**stored.models, "dense": dense}, second / "measurements.parquet", resamples=30, seed=2)
    with pytest.raises(AuditError, match="perplexity perplexity was"):
        join_audits([audits / "first", second])
    edit(second, lambda data: data["models"][0].update(name="other", source="elsewhere"))
    write_models(
        {"other": dense, "third": stored.models["third"]}, second / "measurements.parquet", resamples=30, seed=2
    )
    with pytest.raises(AuditError, match=r"neither name nor source in common.*Audit them beside dense"):
        join_audits([audits / "first", second])


def test_other_versions_are_noted(audits, second):
    edit(second, lambda data: data["settings"]["versions"].update(torch="1.0", python="2.7"))
    with pytest.warns(
        UserWarning, match=r"other versions \(torch .* and 1\.0\): small changes may be theirs"
    ) as caught:
        join_audits([audits / "first", second])
    assert "python" not in str(caught[0].message)


# Folders that are no audits


def test_folders_that_are_no_audits_are_refused(audits, second, tmp_path):
    with pytest.raises(AuditError, match="no audit to report"):
        join_audits([])
    with pytest.raises(AuditError, match="given twice"):
        join_audits([audits / "first", audits / "second" / ".." / "first"])
    with pytest.raises(AuditError, match=r"nowhere is no folder of an audit: it holds no audit\.json"):
        join_audits([tmp_path / "nowhere"])
    for text in ("{", "[]", '{"models": [{}], "settings": {}}', '{"models": [], "settings": {}}', '{"models": 3}'):
        (second / "audit.json").write_text(text)
        with pytest.raises(AuditError, match=r"audit\.json"):
            join_audits([second])
    (second / "audit.json").write_bytes(b"\xff\xfe")
    with pytest.raises(AuditError, match="is not what an audit writes"):
        join_audits([second])


def test_damaged_parts_are_refused(audits, second):
    edit(second, lambda data: data["models"][1].update(name="../<b>"))
    with pytest.raises(AuditError, match="are not of one audit"):
        join_audits([second])
    edit(second, lambda data: data["models"][1].update(name="third"))
    (second / "texts.parquet").write_bytes(b"PAR1")
    with pytest.raises(AuditError, match=r"texts\.parquet is no table of texts"):
        join_audits([second])
    (second / "texts.parquet").unlink()
    assert read_audit(second).items == ItemTexts()
    (second / "measurements.parquet").write_bytes((second / "measurements.parquet").read_bytes()[:999])
    with pytest.raises(AuditError, match=r"measurements\.parquet is no file of measurements"):
        join_audits([second])
    (second / "measurements.parquet").unlink()
    with pytest.raises(AuditError, match="made by a version that kept none"):
        join_audits([second])


def test_texts_are_kept(tmp_path):
    texts = ItemTexts(
        {"statements": {"a": ItemText("<script> | ü\n", "true"), "b": ItemText("no right answer")}},
        {"m": {"open-qa/x": {"a": Said("half \ud83d", None), "b": Said("", 0.25)}}},
    )
    write_texts(texts, tmp_path)
    found = read_texts(tmp_path)
    assert found.items == texts.items
    assert found.said == {"m": {"open-qa/x": {"a": Said("half \ufffd"), "b": Said("", 0.25)}}}


# Timings


def timed(values, dense=None):
    ids = [f"round-{i}" for i in range(len(values))]
    one = Measurement("efficiency", "decode-tokens-per-second", ids, np.array(values))
    return one if dense is None else replace(one, baseline=replace(one, values=np.array(dense)))


def counted(value):
    return Measurement("efficiency", "parameters", ["model"], np.array([value]), higher_is_better=False)


def folder_of(path, *models):
    settings = {"instruments": ["efficiency"], "resamples": 30, "seed": 0}
    found = [AuditedModel(name, measured, {"source": name}) for name, measured in models]
    path.mkdir()
    write_report(compare(found, settings, resamples=30, seed=0), path)
    write_audited(found, path, resamples=30, seed=0)
    return path


def test_timings_stand_beside_those_of_their_own_rounds(tmp_path):
    first = folder_of(tmp_path / "a", ("dense", [timed([10.0, 11, 12]), counted(8.0)]))
    beside = folder_of(
        tmp_path / "b",
        ("dense", [timed([5.0, 5.0, 5.0]), counted(8.0)]),
        ("quick", [timed([8.0, 9.0, 8.0], [4.0, 5.0, 4.0]), counted(6.0)]),
    )
    # Nothing but timings and counts was measured: only a hash could say that the two are one model.
    with pytest.raises(AuditError, match="nothing was measured on both that tells"):
        join_audits([first, beside])
    for folder in (first, beside):
        edit(folder, lambda data: data["models"][0].update(sha256="1" * 64))
    joined = join_audits([first, beside])
    assert joined.change("quick", "decode-tokens-per-second").value == pytest.approx(4)
    assert joined.change("quick", "parameters").value == -2
    alone = folder_of(tmp_path / "c", ("slow", [timed([1.0, 1.0, 1.0]), counted(3.0)]))
    with pytest.warns(UserWarning, match="1 metrics that need the dense model beside it"):
        joined = join_audits([first, alone])
    assert [(row.model, row.metric) for row in joined.rows if row.model == "slow"] == [("slow", "parameters")]


# The command


GATE = """
[[check]]
instrument = "perplexity"
metric = "perplexity"
{bound}
reason = "it must still write"
"""


def test_the_command_judges_stored_audits(audits, tmp_path, capsys):
    parts = [str(audits / "first"), str(audits / "second")]
    strict, wide = tmp_path / "strict.toml", tmp_path / "wide.toml"
    strict.write_text(GATE.format(bound="change_at_most = -1.0e6"))
    wide.write_text(GATE.format(bound="change_at_most = 1.0e6"))
    assert run(["report", *parts, "-o", str(tmp_path / "wide"), "--gate", str(wide)]) == 0
    assert run(["report", *parts, "-o", str(tmp_path / "strict"), "--gate", str(strict)]) == 1
    for name, passed in (("wide", True), ("strict", False)):
        data = json.loads((tmp_path / name / "audit.json").read_text())
        assert data["verdict"]["passed"] is passed
        assert set(data["verdict"]["models"]) == {"half", "third"}
        assert data["settings"]["reported_by"].startswith("trueprune report ")
        assert "third" in (tmp_path / name / "junit.xml").read_text()
        assert "third" in (tmp_path / name / "summary.md").read_text()
    printed = capsys.readouterr().out
    assert "third" in printed
    assert str(tmp_path / "wide") in printed.replace("\n", "")


def test_the_command_says_what_is_wrong(audits, tmp_path, capsys):
    out = str(tmp_path / "out")
    gate = tmp_path / "gate.toml"
    gate.write_text(GATE.format(bound="change_at_most = 1.0").replace("perplexity", "efficiency", 1))
    for arguments, said in (
        ([str(audits / "nowhere"), "-o", out], "no folder of an audit"),
        ([str(audits / "first"), "-o", out, "--gate", str(gate)], "efficiency"),
        ([str(audits / "first"), "-o", out, "--gate", str(gate), "--profile", "strict"], "both say what to hold"),
        ([str(audits / "first")], "output"),
        (["-o", out], "audits"),
    ):
        assert run(["report", *arguments]) == 2
        error = capsys.readouterr().err
        assert said.lower() in error.lower()
        assert len(error.strip().splitlines()) == 1
        assert not Path(out).exists()


def test_gates_of_python(audits):
    with pytest.raises(AuditError, match="both say what to hold"):
        GateOptions(gate="a.toml", profile="strict")
    assert report_job([audits / "first"], gating=GateOptions()).verdict is None


def test_no_model_is_loaded(audits, tmp_path, monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", refuse)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", refuse)
    assert run(["report", str(audits / "first"), "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "report.html").is_file()


def test_cards_are_written_from_stored_audits(audits, models, tmp_path, capsys):
    moved = shutil.copytree(models, tmp_path / "models")
    parts = []
    for name in ("first", "second"):
        parts.append(shutil.copytree(audits / name, tmp_path / name))
        edit(parts[-1], lambda data: [m.update(source=str(moved / m["name"])) for m in data["models"]])
    arguments = ["report", *map(str, parts), "--card", "-o"]
    (moved / "third" / "README.md").write_text("---\n- no mapping\n---\n")
    assert run([*arguments, str(tmp_path / "out")]) == 2
    assert "no YAML mapping" in capsys.readouterr().err
    # Found before anything was written.
    assert not (tmp_path / "out").exists()
    assert not (moved / "half" / "README.md").exists()
    (moved / "third" / "README.md").unlink()
    assert run([*arguments, str(tmp_path / "out")]) == 0
    for name, command in (("half", "first"), ("third", "second")):
        card = (moved / name / "README.md").read_text()
        assert f"trueprune audit {command}" in card
        assert f"trueprune report {parts[0]}" in card
        assert len(ModelCard.load(moved / name / "README.md").data.eval_results) >= 5
    assert not (moved / "dense" / "README.md").exists()
