"""The model card: what an audit found, for people and for the hub, with all else left as its owner wrote it."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard, constants
from markdown_it import MarkdownIt

from trueprune._support.errors import AuditError
from trueprune.audits.measurement import Measurement
from trueprune.reports import AuditedModel, compare
from trueprune.reports.datasets import dataset_of
from trueprune.reports.effect import check_cards, effect_metadata, effect_section, local_folders, write_effect
from trueprune.reports.gates.contract import Check, Gate, Outcome, Verdict
from trueprune.reports.readme import BEGIN, END

HOSTILE = "<script>alert(1)</script> | [x](https://evil.example) `rm -rf` *b* _i_ # @all\n---\n$e$ ../../etc &amp;"


def measured(instrument, metric, values, **options):
    ids = [f"i{n}" for n in range(len(values))]
    return Measurement(instrument, metric, ids, np.asarray(values, dtype=np.float64), headline=True, **options)


def of_model(shift, task="facts"):
    rng = np.random.default_rng(0)
    nll, right = rng.normal(3, 0.1, 40), (rng.random(40) < 0.8).astype(float)
    lost = np.where(np.arange(40) < 40 * shift, 0.0, right)
    return [
        measured("perplexity", "perplexity", nll + shift, reduction="exp-mean", higher_is_better=False),
        measured("lie-detection", "grouped/logistic/frozen", lost),
        measured("accuracy", f"accuracy/{task}", right),
        measured("efficiency", "parameters", [1000.0 * (1 - shift)], higher_is_better=False),
        replace(measured("perplexity", "hidden", nll), headline=False),
    ]


def audited(source="runs/dense", pruned="runs/half", name="half", task="facts", **settings):
    models = [
        AuditedModel("dense", of_model(0.0, task), {"source": str(source)}),
        AuditedModel(name, of_model(0.5, task), {"source": str(pruned)}),
    ]
    how = {"text": "wikitext2", "statements": "embedded", "command": "trueprune audit dense half -o out", **settings}
    return compare(models, how, resamples=50, seed=0)


def judged(report, reason="monitors read it"):
    check = Check("lie-detection", "grouped/logistic/frozen", "change", at_least=-0.05, reason=reason)
    name = report.models[1].name
    found = report.change(name, "grouped/logistic/frozen")
    outcome = Outcome(name, check.metric, check, "fail", False, found.value, found.interval, found.n)
    other = replace(outcome, model="another", status="pass", passed=True)
    return replace(report, verdict=Verdict(Gate("balanced", [check]), [outcome, other]))


@pytest.fixture
def folder(tmp_path):
    """A checkpoint with a card that its owner wrote."""
    made = tmp_path / "half"
    made.mkdir()
    (made / "config.json").write_text("{}")
    (made / "README.md").write_text(OWN, encoding="utf-8")
    return made


OWN = """---
# what I keep
language: no   # Norwegian
license: apache-2.0
model-index:
- name: my-model
  results:
  - task:
      type: text-generation
    dataset:
      type: hellaswag
      name: HellaSwag
    metrics:
    - type: acc   # by me
      value: 0.4
tags: [mine, pruning]
---

# My model

Text of mine.
"""


# The section


def test_the_section_says_what_changed():
    report = judged(audited())
    text = effect_section(report, "half")
    assert text.startswith("## Effect of pruning\n\nhalf: ")
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    head, *rows = lines
    assert [row[0] for row in rows] == ["Perplexity", "Lie detection", "Accuracy", "Size and speed"]
    perplexity = report.value("half", "perplexity"), report.value("dense", "perplexity")
    change = report.change("half", "perplexity")
    assert rows[0][1:4] == ["perplexity ↓", f"{perplexity[1].value:.1f}", f"{perplexity[0].value:.1f}"]
    low, high = change.interval
    assert rows[0][4] == f"+{change.value:.1f} (+{low:.1f} to +{high:.1f})"
    assert rows[0][5:] == ["worse", "40"]
    assert rows[1][4].startswith("-0.4")
    assert rows[2][2:6] == [rows[2][3], rows[2][3], "+0.000 (+0.000 to +0.000)", "no change found"]
    assert rows[3][2:] == ["1,000", "500", "-500", "better", "1"]
    assert len(head) == len(rows[0]) == 7
    assert "hidden" not in text
    assert "**Failed:** half fails the gate balanced" in text
    assert "at least -0.05" in text
    assert "monitors read it" in text
    assert "another" not in text
    assert "Not measured: separation of true and false, confidence, explanations" in text
    assert text.rstrip().endswith("```\ntrueprune audit dense half -o out\n```")


def test_a_section_without_a_gate_or_a_command():
    text = effect_section(audited(command=None), "half")
    assert "Failed" not in text
    assert "Measured by" not in text
    joined = [
        {"folder": "a", "models": ["dense"], "command": "trueprune audit dense"},
        {"folder": "b", "models": ["half"], "command": "trueprune audit half"},
        {"folder": "c", "models": ["third"], "command": "trueprune audit third"},
    ]
    text = effect_section(audited(joined=joined, reported_by="trueprune report a b c"), "half")
    assert text.rstrip().endswith("```\ntrueprune audit dense\ntrueprune audit half\ntrueprune report a b c\n```")


def test_only_pruned_models_have_an_effect():
    with pytest.raises(AuditError, match=r"no pruned model 'dense'.*It has half"):
        effect_section(audited(), "dense")
    with pytest.raises(AuditError, match="no pruned model 'x'"):
        effect_metadata(audited(), "x")


def test_numbers_that_are_none():
    report = audited()
    broken = replace(report.rows[5], estimate=replace(report.rows[5].estimate, value=math.inf))
    report = replace(report, rows=[*report.rows[:5], broken, *report.rows[6:]])
    assert "| undefined |" in effect_section(report, "half")
    assert "perplexity" not in [found.metric_type for found in effect_metadata(report, "half")["results"]]


# Metadata


def test_metadata_is_what_the_hub_reads():
    report = audited()
    found = effect_metadata(report, "half")
    assert found["base_model"] is None
    by_type = {result.metric_type: result for result in found["results"]}
    assert [result.metric_type for result in found["results"]] == ["perplexity", "accuracy", "accuracy"]
    perplexity = by_type["perplexity"]
    assert (perplexity.task_type, perplexity.dataset_type) == ("text-generation", "Salesforce/wikitext")
    assert (perplexity.dataset_config, perplexity.dataset_split) == ("wikitext-2-raw-v1", "test")
    assert perplexity.metric_value == pytest.approx(report.value("half", "perplexity").value, rel=1e-5)
    assert perplexity.metric_args["change_from_dense"] == pytest.approx(
        report.change("half", "perplexity").value, rel=1e-5
    )
    lies = [result for result in found["results"] if result.dataset_type == "trueprune-statements"]
    assert [result.metric_name for result in lies] == ["Lie detection: unseen facts, dense model's probe (logistic)"]


@pytest.mark.parametrize(
    ("row", "settings", "expected"),
    [
        (("perplexity", "perplexity"), {}, ("trueprune-held-out-texts", None, None)),
        (("perplexity", "perplexity"), {"text": "/home/me/secret/notes.txt"}, ("notes.txt", None, None)),
        (("perplexity", "perplexity"), {"text": "hf:org/name/config:test:text"}, ("org/name", "config", "test")),
        (("perplexity", "perplexity"), {"text": "hf:org/name"}, ("org/name", None, None)),
        (
            ("separation", "ratio-at-dense-peak"),
            {"statements": "truth-is-universal"},
            ("truth-is-universal", None, None),
        ),
        (("lie-detection", "grouped/ccs/frozen"), {"statements": "a/b.csv"}, ("b.csv", None, None)),
        (("calibration", "ece-15/arc_easy"), {}, ("allenai/ai2_arc", "ARC-Easy", "test")),
        (("faithfulness", "comprehensiveness/sentiment/lime"), {}, ("trueprune-sentiment", None, None)),
        (("open-qa", "correct/general"), {}, ("trueprune-general", None, None)),
        (("truthfulness", "mc2/truthfulqa"), {}, ("truthfulqa/truthful_qa", "generation", "validation")),
        (("accuracy", "lm-eval:hellaswag/acc"), {}, ("lm-eval:hellaswag", None, None)),
        (("accuracy", "accuracy"), {}, ("accuracy", None, None)),
    ],
)
def test_data_sets_have_the_names_of_the_hub(row, settings, expected):
    found = dataset_of(*row, settings)
    assert (found.type, found.config, found.split) == expected
    assert found.name


def test_the_base_model_is_one_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    for name in ("org/name", "runs/dense"):
        snapshot = tmp_path / "hub" / f"models--{name.replace('/', '--')}" / "snapshots" / "abc"
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text("{}")
        (snapshot.parent.parent / "refs").mkdir()
        (snapshot.parent.parent / "refs" / "main").write_text("abc")
    (tmp_path / "runs" / "dense").mkdir(parents=True)
    assert effect_metadata(audited("org/name"), "half")["base_model"] == "org/name"
    # A folder of that name is what was loaded, whatever the hub has.
    assert effect_metadata(audited("runs/dense"), "half")["base_model"] is None
    for source in ("org/other", "demo", "/abs/path", "../x", "a--b/..", "", "org/name/more", None):
        report = audited(source)
        if source is None:
            report.models[0].about.pop("source")
        assert effect_metadata(report, "half")["base_model"] is None


# Cards


def test_a_card_keeps_all_that_is_not_ours(folder):
    report = judged(audited())
    assert write_effect(report, {"half": folder}) == [folder / "README.md"]
    text = (folder / "README.md").read_text()
    head, body = text.split("\n---\n", 1)
    for line in ("# what I keep", "language: no   # Norwegian", "license: apache-2.0", "tags: [mine, pruning]"):
        assert line in head.splitlines()
    assert body.startswith("\n# My model\n\nText of mine.\n\n" + BEGIN)
    assert effect_section(report, "half").strip() in body
    card = ModelCard.load(folder / "README.md")
    assert card.data.model_name == "my-model"
    types = [(result.dataset_type, result.metric_type) for result in card.data.eval_results]
    assert types == [
        ("hellaswag", "acc"),
        ("Salesforce/wikitext", "perplexity"),
        ("trueprune-statements", "accuracy"),
        ("trueprune-facts", "accuracy"),
    ]
    assert card.data.eval_results[0].metric_value == 0.4
    assert [file.name for file in folder.iterdir() if "partial" in file.name] == []


def test_a_second_audit_replaces_the_first(folder):
    write_effect(judged(audited()), {"half": folder})
    first = (folder / "README.md").read_bytes()
    write_effect(judged(audited()), {"half": folder})
    assert (folder / "README.md").read_bytes() == first
    with (folder / "README.md").open("a") as file:
        file.write("\nWritten after the section.\n")
    other = audited(text="embedded", task="sentiment")
    write_effect(other, {"half": folder})
    text = (folder / "README.md").read_text()
    assert text.count("## Effect of pruning") == text.count(BEGIN) == text.count(END) == 1
    assert text.endswith(f"{END}\n\nWritten after the section.\n")
    assert "Failed" not in text
    types = [result.dataset_type for result in ModelCard.load(folder / "README.md").data.eval_results]
    assert types == ["hellaswag", "trueprune-held-out-texts", "trueprune-statements", "trueprune-sentiment"]


def test_results_of_others_stay_in_every_entry(folder):
    write_effect(audited(), {"half": folder})
    card = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    theirs = {"type": "exact_match", "value": 3, "args": {"measured_with": "something else"}}
    card["model-index"][0]["results"][1]["metrics"].append(theirs)
    card["model-index"].append({"name": "second", "results": [{**card["model-index"][0]["results"][0]}]})
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n")
    write_effect(audited(text="embedded"), {"half": folder})
    index = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])["model-index"]
    assert [entry["name"] for entry in index] == ["my-model", "second"]
    assert index[0]["results"][1]["metrics"] == [theirs]
    assert [len(entry["results"]) for entry in index] == [5, 1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# Only text\n",
        "\n\ntext without an end",
        "---\n{license: mit, tags: [a]}\n---\ntext\n",
        "---\nlicense: mit\n...\n---\n",
        "---\n\n---\ntext\n",
        "---\n# a comment\n\n---\ntext\n",
        "---\nmodel-index: []\nlicense: mit\n---\n",
        "---\nmodel-index:\nlicense: mit\n---\n",
        "---\na: &x [1]\nmodel-index: []\nlicense: mit\nb: *x\n---\n",
        "---\nlicense: |\n  mit\n\nbase_model: me/mine\nmodel-index: []   # none\n# last\n---\n",
        "\ufeff---\nlicense: mit\n---\ntext\n",
        "---\r\nlicense: mit\r\n---\r\ntext\r\n",
    ],
)
def test_cards_of_many_forms(folder, text):
    file = folder / "README.md"
    file.write_bytes(text.encode())
    write_effect(audited(), {"half": folder})
    card = ModelCard.load(file)
    assert card.data.model_name == "half"
    assert len(card.data.eval_results) == 3
    assert card.text.count("## Effect of pruning") == 1
    if "license" in text:
        assert card.data.license.strip() == "mit"
    if "base_model" in text:
        assert card.data.base_model == "me/mine"
        assert "# last" in file.read_text()
    if "text" in text:
        assert "text" in card.text.split(BEGIN)[0]
    data = file.read_bytes()
    assert data.startswith(b"\xef\xbb\xbf") == text.startswith("\ufeff")
    assert data.count(b"\n") == data.count(b"\r\n") * (1 if b"\r" in data else math.inf) or b"\r" not in data
    write_effect(audited(), {"half": folder})
    assert file.read_bytes() == data


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"---\n- a\n- b\n---\n", "no YAML mapping but list"),
        (b"---\njust text\n---\n", "no YAML mapping but str"),
        (b"---\na: [\n---\n", "is no YAML"),
        (b"---\na: 2024-99-99\n---\n", "is no YAML"),
        (b"---\n? [a]\n: b\n---\n", "is no YAML"),
        (b"---\nmodel-index: {a: 1}\n---\n", "model-index of .* is no list of entries"),
        (b"---\nmodel-index: [1]\n---\n", "model-index of .* is no list of entries"),
        (b"---\nmodel-index: [{name: a, results: [3]}]\n---\n", "model-index of .* is no list of entries"),
        (b"\xff\xfe text", "is not UTF-8 text"),
        (BEGIN.encode() + b"\n", "no pair: 1 begin it, 0 end it"),
        (f"{END}\n{BEGIN}\n".encode(), "no pair"),
        (f"{BEGIN}\n{BEGIN}\n{END}\n".encode(), "no pair: 2 begin it"),
    ],
)
def test_cards_that_cannot_be_read_are_refused_and_left_alone(folder, tmp_path, text, said):
    (folder / "README.md").write_bytes(text)
    good = tmp_path / "good"
    good.mkdir()
    for act in (check_cards, lambda folders: write_effect(audited(), folders)):
        with pytest.raises(AuditError, match=rf"{said}") as caught:
            act({"half": good, "half ": folder} if act is check_cards else {"half": folder})
        assert str(folder / "README.md") in str(caught.value)
    assert (folder / "README.md").read_bytes() == text
    assert list(good.iterdir()) == []


def test_a_card_is_made_where_there_is_none(folder, tmp_path):
    (folder / "README.md").unlink()
    write_effect(audited(), {"half": folder})
    assert "# half\n" in (folder / "README.md").read_text()
    assert len(ModelCard.load(folder / "README.md").data.eval_results) == 3
    (folder / "README.md").unlink()
    record = {
        "source": "org/name_<b>_",
        "method": "wanda",
        "measured_sparsity": 0.5,
        "plan": {"method": "uniform", "blocks": []},
    }
    (folder / "trueprune.json").write_text(json.dumps(record))
    write_effect(audited(), {"half": folder})
    card = ModelCard.load(folder / "README.md")
    assert card.data.tags == ["trueprune", "pruning"]
    assert "method `wanda`" in card.text
    assert "# org/name\\_&lt;b&gt;\\_, pruned" in card.text
    with pytest.raises(AuditError, match="is no folder, so that half gets no card"):
        write_effect(audited(), {"half": tmp_path / "gone"})


def test_hostile_names_do_nothing(tmp_path):
    folder = tmp_path / "a: {b} <script> # [c]"
    folder.mkdir()
    name, task = HOSTILE, f"x/{HOSTILE}"
    report = judged(audited(name=name, task=task, command=f"run {HOSTILE} ```` {END}"), reason=HOSTILE)
    report.models[0].about["source"] = HOSTILE
    write_effect(report, {name: folder})
    text = (folder / "README.md").read_text()
    card = ModelCard.load(folder / "README.md")
    assert card.data.model_name == folder.name
    assert text.count("\n---\n") == 1
    assert text.count(END) == 1
    tokens = MarkdownIt("commonmark").enable("table").parse(card.text)
    inline = [child for token in tokens for child in token.children or ()]
    assert {token.content.strip() for token in tokens if token.type == "html_block"} == {BEGIN, END}
    assert {child.type for child in inline} == {"text", "strong_open", "strong_close", "em_open", "em_close"}
    emphasis = [inline[i + 1].content for i, child in enumerate(inline) if child.type in ("strong_open", "em_open")]
    assert emphasis == ["Better", "worse", "maybe", "no change found", "Failed:"]
    # It is all there, and shown as it was given: the name twice, and the reason.
    shown = "".join(child.content for child in inline)
    assert shown.count(" ".join(HOSTILE.split())) == 3
    assert "https://" not in card.text.split("`````")[0]
    assert "@" not in card.text.split("`````")[0]
    assert len([token for token in tokens if token.type == "tr_open"]) == 5
    assert len([token for token in tokens if token.type == "td_open"]) == 4 * 7
    fences = [token for token in tokens if token.type == "fence"]
    assert len(fences) == 1
    assert fences[0].content.startswith("run <script>alert(1)</script> | ")
    write_effect(report, {name: folder})
    assert (folder / "README.md").read_text() == text


def test_folders_are_those_of_pruned_models_that_are_there(tmp_path, folder):
    dense = tmp_path / "dense"
    dense.mkdir()
    (dense / "config.json").write_text("{}")
    report = audited(dense, folder)
    again = AuditedModel("again", report.models[1].measurements, {"source": f"{folder}/../half"})
    itself = AuditedModel("itself", report.models[0].measurements, {"source": str(dense)})
    gone = AuditedModel("gone", report.models[1].measurements, {"source": "org/name"})
    with pytest.warns(UserWarning, match="gone is no folder here"):
        found = local_folders(replace(report, models=[*report.models, again, itself, gone]))
    assert found == {"half": folder.resolve()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert local_folders(replace(report, models=report.models[:1])) == {}


def test_a_linked_card_is_written_where_it_lies(folder, tmp_path):
    kept = tmp_path / "kept.md"
    kept.write_text("# Kept elsewhere\n")
    kept.chmod(0o600)
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to(kept)
    write_effect(audited(), {"half": folder})
    assert (folder / "README.md").is_symlink()
    assert "## Effect of pruning" in kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert Path(folder / "README.md").read_text().startswith("---\nmodel-index:")
