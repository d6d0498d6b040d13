"""`trueprune audit --gate`: read before a model is loaded, held against what was measured, and an exit code."""

from __future__ import annotations

import importlib
import json
import os
from xml.etree import ElementTree

import pytest
from samples import write_corpus, write_statements
from zoo import tiny_model

from trueprune._support.files import file_name
from trueprune.cli.main import run
from trueprune.jobs.audit import _names

pytestmark = pytest.mark.filterwarnings("ignore:calibration of .* items:UserWarning")
CHECK = """
[[check]]
instrument = "{}"
metric = "{}"
{}
"""
PERPLEXITY = ("perplexity", "perplexity")


def gate_file(folder, *checks, head=""):
    file = folder / "gate.toml"
    file.write_text(head + "".join(CHECK.format(*check) for check in checks), encoding="utf-8")
    return str(file)


@pytest.fixture(scope="module")
def models(tokenizer, tmp_path_factory):
    """A dense model and two others, one of which is named like a tag."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("dense", "half", "<script>alert(1)<")):
        tiny_model("llama", seed).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Options of a short audit."""
    folder = tmp_path_factory.mktemp("texts")
    statements, corpus = write_statements(folder / "statements.csv"), write_corpus(folder / "corpus.txt")
    flags = ["--window", "32", "--resamples", "50", "--statements", str(statements), "--perplexity-text", str(corpus)]
    return [*flags, "--per-dataset", "16", "--repeats", "1", "--protocols", "grouped", "--items", "12"]


@pytest.fixture
def unloaded(monkeypatch):
    """Loading a model is a failure of the test."""

    def refuse(*_args, **_options):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(importlib.import_module("trueprune.jobs.audit"), "as_loaded", refuse)


@pytest.fixture
def call(models, short, tmp_path, capsys):
    """Run an audit; the exit code and what was said on standard error."""

    def run_audit(*arguments, pruned=("half",), out="out"):
        given = [str(models / "dense"), *(str(models / name) for name in pruned)]
        code = run(["audit", *given, "-o", str(tmp_path / out), *short, *arguments])
        found = capsys.readouterr()
        return code, found.err if code == 2 else found.out

    return run_audit


# Verdicts


def test_a_gate_that_is_kept(call, tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    gate = gate_file(tmp_path, (*PERPLEXITY, "ratio_at_most = 100"), ("accuracy", "accuracy/*", "change_at_least = -1"))
    code, said = call("--gate", gate)
    assert code == 0
    assert "half passes the gate gate: keeps all 2 bounds." in " ".join(said.split())
    data = json.loads((tmp_path / "out" / "audit.json").read_text())
    # Accuracy is not measured by default: the gate asked for it.
    assert data["settings"]["instruments"] == ["perplexity", "lie-detection", "separation", "accuracy"]
    assert data["verdict"]["passed"] is True
    assert [(o["metric"], o["status"]) for o in data["verdict"]["models"]["half"]["outcomes"]] == [
        ("perplexity", "pass"),
        ("accuracy/facts", "pass"),
    ]
    suites = ElementTree.parse(tmp_path / "out" / "junit.xml").getroot()
    assert (suites.get("tests"), suites.get("failures")) == ("2", "0")
    summary = (tmp_path / "out" / "summary.md").read_text()
    assert page.read_text() == f"before\n{summary}\n"
    assert data["verdict"]["sentence"] in (tmp_path / "out" / "report.html").read_text()


def test_a_gate_that_is_broken_and_judged_again(call, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "no" / "page.md"))
    name = "<script>alert(1)<"
    gate = gate_file(tmp_path, (*PERPLEXITY, "ratio_at_most = 0.01"))
    code, said = call("--gate", gate, "--instruments", "perplexity", pruned=("half", name))
    # A page that cannot be written to changes nothing of the verdict.
    assert (code, "breaks its one bound" in " ".join(said.split())) == (1, True)
    data = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert data["settings"]["instruments"] == ["perplexity"]
    assert {model: found["passed"] for model, found in data["verdict"]["models"].items()} == {
        "half": False,
        name: False,
    }
    suites = ElementTree.parse(tmp_path / "out" / "junit.xml").getroot()
    assert [suite.get("name") for suite in suites] == ["half", name]
    for file in ("summary.md", "report.html"):
        assert "alert(1)" in (tmp_path / "out" / file).read_text().replace("\\", "")
        assert "<script>alert" not in (tmp_path / "out" / file).read_text()
    # Held against other gates without measuring, with the exit codes of an audit.
    for bound, expected in (("ratio_at_most = 100", 0), ("ratio_at_most = 0.5", 1), ("ratio_at_moast = 100", 2)):
        again = tmp_path / f"again-{expected}"
        gate = gate_file(tmp_path, (*PERPLEXITY, bound))
        assert run(["report", str(tmp_path / "out"), "-o", str(again), "--gate", gate]) == expected
        assert again.exists() == (expected != 2)
        error = capsys.readouterr().err
        assert ("Did you mean ratio_at_most?" in error) == (expected == 2)
    assert run(["report", str(tmp_path / "out"), "-o", str(tmp_path / "unjudged")]) == 0
    assert not (tmp_path / "unjudged" / "junit.xml").exists()
    assert json.loads((tmp_path / "unjudged" / "audit.json").read_text())["verdict"] is None
    # A profile bounds what was not measured.
    assert run(["report", str(tmp_path / "out"), "-o", str(tmp_path / "not"), "--profile", "lenient"]) == 2
    assert "accuracy is not measured" in capsys.readouterr().err


def test_what_is_undecided_counts_as_the_gate_says(call, tmp_path):
    # As wide as a dozen answers leave it.
    bound = ("accuracy", "accuracy/facts", "value_at_least = 0.3\nvalue_at_most = 0.35")
    asked = ("--instruments", "accuracy", "--tasks", "facts")
    for counts, expected in (("fail", 1), ("pass", 0)):
        gate = gate_file(tmp_path, bound, head=f'inconclusive = "{counts}"\n')
        code, _ = call("--gate", gate, *asked, out=counts)
        (outcome,) = json.loads((tmp_path / counts / "audit.json").read_text())["verdict"]["models"]["half"]["outcomes"]
        assert (code, outcome["status"], outcome["needed"] > 12) == (expected, "inconclusive", True)


def test_what_only_measuring_shows_keeps_the_audit(call, tmp_path, capsys, monkeypatch):
    page = tmp_path / "page.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    # Tasks whose options are labels have no sum, which nobody knows before they are read.
    gate = gate_file(tmp_path, ("accuracy", "accuracy/sentiment/sum", "value_at_least = 0.1"))
    code, error = call("--gate", gate, "--instruments", "accuracy", "--tasks", "sentiment")
    assert code == 2
    assert "no metric of accuracy that was measured is called 'accuracy/sentiment/sum'" in error
    assert f"The audit itself is in {tmp_path / 'out'}: trueprune report judges it again" in error
    assert len(error.strip().splitlines()) == 1
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["verdict"] is None
    assert not (tmp_path / "out" / "junit.xml").exists()
    assert not page.exists()
    gate = gate_file(tmp_path, ("accuracy", "accuracy/sentiment", "value_at_least = 0"))
    assert run(["report", str(tmp_path / "out"), "-o", str(tmp_path / "again"), "--gate", gate]) == 0


# Refused before a model is loaded


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize(
    ("checks", "arguments", "problem"),
    [
        ([("perplexity", "perplexitty", "ratio_at_most = 2")], [], "Did you mean perplexity?"),
        ([("perplexty", "perplexity", "ratio_at_most = 2")], [], "Did you mean perplexity?"),
        ([("accuracy", "accuracy/fcats", "value_at_least = 0.1")], ["--tasks", "facts"], "bound accuracy/facts"),
        ([("accuracy", "accuracy/facts", "value_at_least = 0.1")], ["--instruments", "perplexity"], "is not measured"),
        (
            [("calibration", "ece-15/facts", "value_at_most = 0.1")],
            ["--metrics", "brier"],
            "'ece-15/facts' will not be",
        ),
        ([(*PERPLEXITY, "ratio_at_least = 2\nratio_at_most = 1")], [], "Exchange the two"),
        ([(*PERPLEXITY, "ratio_at_most = 2")], ["--profile", "strict"], "--gate and --profile both say what to hold"),
        ([], [], "holds no check"),
    ],
)
def test_mistakes_are_found_before_a_model_is_loaded(call, tmp_path, checks, arguments, problem):
    code, error = call("--gate", gate_file(tmp_path, *checks), *arguments)
    assert (code, len(error.strip().splitlines())) == (2, 1)
    assert problem in error
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("unloaded")
def test_a_gate_needs_a_pruned_model_and_a_file(call, tmp_path):
    code, error = call("--profile", "lenient", pruned=())
    assert (code, "there is no pruned model" in error) == (2, True)
    code, error = call("--gate", str(tmp_path / "nowhere.toml"))
    assert (code, "nowhere.toml does not exist" in error) == (2, True)


@pytest.mark.usefixtures("unloaded")
def test_an_output_does_not_replace_its_gate(call, tmp_path):
    (tmp_path / "out").mkdir()
    gate = gate_file(tmp_path / "out", (*PERPLEXITY, "ratio_at_most = 2"))
    code, error = call("--gate", gate, "--overwrite")
    assert (code, "is or holds the input" in error) == (2, True)
    assert (tmp_path / "out" / "gate.toml").is_file()


# Cards


def test_a_card_says_what_the_gate_says(call, models, tmp_path):
    card = models / "half" / "README.md"
    gate = gate_file(tmp_path, (*PERPLEXITY, "ratio_at_most = 100"))
    code, _ = call("--gate", gate, "--instruments", "perplexity", "--card")
    text = card.read_text()
    assert (code, "**Passed:** half passes the gate gate" in text) == (0, True)
    assert "model-index:" in text
    assert not (models / "dense" / "README.md").exists()
    gate = gate_file(tmp_path, (*PERPLEXITY, "ratio_at_most = 0.01"))
    code, _ = call("--gate", gate, "--instruments", "perplexity", "--card", out="two")
    assert (code, card.read_text().count("## Effect of pruning")) == (1, 1)
    assert "**Failed:** half fails the gate gate" in card.read_text()
    card.unlink()


@pytest.mark.usefixtures("unloaded")
def test_cards_that_cannot_be_written_are_refused_before_measuring(call, models, short, tmp_path, capsys):
    code, error = call("--card", pruned=())
    assert (code, "no pruned model whose card" in error) == (2, True)
    given = [str(models / "dense"), "org/not-a-folder", "-o", str(tmp_path / "out"), *short]
    assert run(["audit", *given, "--card"]) == 2
    assert "org/not-a-folder is no folder" in capsys.readouterr().err
    card = models / "half" / "README.md"
    card.write_text("---\n- no mapping\n---\n")
    code, error = call("--card")
    assert (code, "is no YAML mapping" in error) == (2, True)
    card.unlink()


# Names


def test_models_have_names_of_their_own():
    assert [name for name, _ in _names(["a/x", "b/x", "c/x (2)", "d/x"])] == ["x", "x (3)", "x (2)", "x (4)"]
    # Bytes that are no text, as the system hands them on.
    assert [name for name, _ in _names([os.fsdecode(b"a/half-\xff"), "."])] == ["half-\ufffd", "."]


def test_a_name_in_a_path_is_no_path():
    assert file_name("owl-2.4_a") == "owl-2.4_a"
    names = ["../../etc/passwd", "a b", "a_b", "a-b", "a/b", "x" * 300, "x" * 301, "\u6a21", "\u578b", "\ud800", ""]
    found = [file_name(name) for name in names]
    assert len(set(found)) == len(names)
    assert all(len(name) < 120 and name.isascii() and "/" not in name for name in found)
