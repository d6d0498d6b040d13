"""Open question answering: what is said, how it is graded, what confidence is worth; audits of two models."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import roc_auc_score
from zoo import tiny_model

from trueprune._support.errors import AuditError
from trueprune.audits.confidence import ece
from trueprune.audits.context import AuditContext, AuditOptions, AuditSettings
from trueprune.audits.draws import cluster_counts
from trueprune.audits.instruments import INSTRUMENTS
from trueprune.audits.qa import Answers, TruthOptions, answer, judged, open_qa_of, read_answers, write_answers
from trueprune.audits.qa import answers as answers_module
from trueprune.audits.qa.answers import end_ids
from trueprune.audits.qa.grading import Graded
from trueprune.audits.recalibrated import refuse_fitted
from trueprune.audits.subject import Subject
from trueprune.cli.main import run
from trueprune.jobs.audit import audit
from trueprune.models.load import LoadedModel
from trueprune.observe.generate import Generated
from trueprune.reports.paired import paired_change
from trueprune.reports.tables import metric_title
from trueprune.texts.qa.contract import AskedQuestion, Question
from trueprune.texts.qa.prompts import QaOptions

undefined = pytest.mark.filterwarnings("ignore:.*(AUROC of confidence|confidence) is undefined:UserWarning")


def asked(count=6, cluster=""):
    questions = [Question(f"q{n}", f"What is number {n}?", (f"Number {n}",), cluster=cluster) for n in range(count)]
    return [AskedQuestion(question, f"Q: {question.text}\nA:") for question in questions]


# What is said


@torch.no_grad()
def plain(loaded, prompt, new_tokens):
    """One token after the other, until its text has a line's end."""
    ids = loaded.tokenizer(prompt)["input_ids"]
    text, log_probs = list(ids), []
    while len(text) < len(ids) + new_tokens:
        logprobs_V = loaded.model(torch.tensor([text])).logits[0, -1].double().log_softmax(-1)
        text.append(int(logprobs_V.argmax()))
        log_probs.append(logprobs_V.max().item())
        if text[-1] == loaded.tokenizer.eos_token_id or "\n" in loaded.tokenizer.decode(text[len(ids) :]):
            break
    new = loaded.tokenizer.decode(text[len(ids) :], skip_special_tokens=True)
    return new.split("\n")[0].strip(), log_probs


def test_an_answer_is_the_greedy_line(tiny):
    found = answer(tiny, asked(), set_name="set", new_tokens=9)
    assert found.item_ids == tuple(f"q{n}" for n in range(6))
    assert found.questions[2] == "What is number 2?"
    assert found.sha256 == tuple(one.question.sha256 for one in asked())
    for one, text, log_probs in zip(asked(), found.texts, found.log_probs, strict=True):
        expected, expected_log_probs = plain(tiny, one.prompt, 9)
        assert text == expected
        np.testing.assert_allclose(log_probs, expected_log_probs, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.sum_N, [array.sum() for array in found.log_probs])
    np.testing.assert_allclose(found.mean_N, [array.mean() for array in found.log_probs])


class Scripted:
    """What `greedy` would give, by prompt; and how it was called."""

    def __init__(self, loaded, texts):
        self.new = [loaded.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        self.given = {}

    def __call__(self, _model, prompts, **given):
        self.given = given
        return [
            Generated(tuple(ids), np.full(len(ids), -0.1 * (n + 1)))
            for n, (_, ids) in enumerate(zip(prompts, self.new, strict=True))
        ]


def test_lines_are_cut_and_graded(tiny, monkeypatch):
    texts = [" Number 0\nQ: And", " the number 1.</s>", " 2", " I don't know", "\nQ: What", " It is number 5."]
    scripted = Scripted(tiny, texts)
    monkeypatch.setattr(answers_module, "greedy", scripted)
    found = answer(tiny, asked(), set_name="set")
    assert found.texts == ("Number 0", "the number 1.", "2", "I don't know", "", "It is number 5.")
    np.testing.assert_array_equal(found.column("correct"), [1, 1, 0, 0, 0, 1])
    np.testing.assert_array_equal(found.column("exact"), [1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(found.column("abstained"), [0, 0, 0, 1, 1, 0])
    np.testing.assert_array_equal(found.column("hallucinated"), [0, 0, 1, 0, 0, 0])
    assert scripted.given["new_tokens"] == 32
    assert scripted.given["end_ids"] == {2}
    stops = scripted.given["stops"]
    assert stops(scripted.new[0]) and not stops(scripted.new[1])
    strict = answer(tiny, asked(), set_name="set", grade="exact")
    np.testing.assert_array_equal(strict.column("correct"), [1, 1, 0, 0, 0, 0])
    own = judged(asked(), found)
    assert [(one.id, one.answer, one.hallucinated) for one in own] == [
        ("q0", " Number 0", False),
        ("q1", " the number 1.", False),
        ("q2", " 2", True),
        ("q5", " It is number 5.", False),
    ]
    assert own[0].prompt == asked()[0].prompt and own[0].cluster == "q0" and own[0].special


def test_what_ends_a_text(tiny):
    assert end_ids(tiny) == {2}
    tiny.model.generation_config.eos_token_id = [2, 9]
    assert end_ids(tiny) == {2, 9}
    tiny.model.generation_config.eos_token_id = None
    tiny.model.config.eos_token_id = 7
    assert end_ids(tiny) == {2, 7}


def test_questions_that_cannot_be_asked(tiny):
    with pytest.raises(AuditError, match="the question set set has no questions"):
        answer(tiny, [], set_name="set")
    long = AskedQuestion(Question("long", "?", ("x",)), "Q: " + "word " * 60 + "\nA:")
    tokens = len(tiny.tokenizer(long.prompt)["input_ids"])
    answer(tiny, [long], set_name="set", new_tokens=2)
    with pytest.raises(AuditError, match=rf"question long of set has {tokens} tokens, and with .* limit of 256.*--new"):
        answer(tiny, [*asked(1), long], set_name="set", new_tokens=258 - tokens)
    # The last token is written, not read.
    found = answer(tiny, [long], set_name="set", new_tokens=257 - tokens)
    assert len(found.log_probs[0]) <= 257 - tokens
    empty = AskedQuestion(Question("empty", "?", ("x",)), "", special=False)
    with pytest.raises(AuditError, match="the question empty of set has no tokens"):
        answer(tiny, [empty], set_name="set")
    with torch.no_grad():
        tiny.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(AuditError, match=r"no finite likelihood \(question q0 of set\)"):
        answer(tiny, asked(1), set_name="set")


def test_answers_are_written_and_read(tiny, tmp_path):
    found = answer(tiny, asked(), set_name="set", new_tokens=3)
    other = answer(tiny, asked(2), set_name="other", new_tokens=2)
    write_answers([("a", found), ("a", other), ("b", other)], tmp_path / "answers.parquet")
    again = read_answers(tmp_path / "answers.parquet")
    assert list(again) == [("a", "set"), ("a", "other"), ("b", "other")]
    read = again["a", "set"]
    for name in ("set_name", "item_ids", "clusters", "sha256", "questions", "texts", "grades"):
        assert getattr(read, name) == getattr(found, name)
    for one, two in zip(read.log_probs, found.log_probs, strict=True):
        np.testing.assert_array_equal(one, two)
    (tmp_path / "none.parquet").write_text("x")
    with pytest.raises(AuditError, match="no table of answers"):
        read_answers(tmp_path / "none.parquet")


# Metrics


def made(correct, abstained=None, *, seed=0, clusters=None, names=None):
    n = len(correct)
    rng = np.random.default_rng(seed)
    abstained = [False] * n if abstained is None else abstained
    names = tuple(f"q{k}" for k in range(n)) if names is None else names
    return Answers(
        "set",
        names,
        names if clusters is None else clusters,
        names,
        names,
        names,
        tuple(-rng.exponential(0.3, int(rng.integers(1, 6))) for _ in range(n)),
        tuple(Graded(bool(c), bool(c), bool(c), float(c), bool(a)) for c, a in zip(correct, abstained, strict=True)),
    )


CORRECT = [1, 0, 1, 1, 0, 0, 1, 0, 1, 0, 0, 0]
ABSTAINED = [0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]


def test_metrics_of_a_set():
    answers = made(CORRECT, ABSTAINED)
    found = {m.metric: m for m in open_qa_of(answers)}
    assert {name: round(m.value, 6) for name, m in found.items() if not name.startswith(("auroc", "ece"))} == {
        "correct/set": round(5 / 12, 6),
        "exact/set": round(5 / 12, 6),
        "f1/set": round(5 / 12, 6),
        "hallucination/set": round(5 / 12, 6),
        "abstention/set": round(2 / 12, 6),
    }
    assert {name for name, m in found.items() if m.headline} == {"correct/set", "hallucination/set"}
    assert not found["hallucination/set"].higher_is_better and found["correct/set"].higher_is_better
    assert found["correct/set"].details == {"questions": 12, "answered": 10, "correct": 5}
    answered = np.array(ABSTAINED) == 0
    right = np.array(CORRECT)[answered]
    totals, means = (np.array([f(a) for a in answers.log_probs])[answered] for f in (np.sum, np.mean))
    assert found["auroc-sum/set"].value == pytest.approx(roc_auc_score(right, totals))
    assert found["auroc-mean/set"].value == pytest.approx(roc_auc_score(right, means))
    assert found["auroc-sum/set"].value != found["auroc-mean/set"].value
    assert found["ece/set"].value == pytest.approx(ece(np.exp(totals), right, 15))
    assert not found["ece/set"].higher_is_better and found["auroc-sum/set"].higher_is_better
    details = found["ece/set"].details
    assert sum(details["reliability"]["count"]) == details["answered"] == 10
    assert details["risk_coverage"]["risk"][-1] == pytest.approx(0.5)
    assert details["mean_confidence"] == pytest.approx(np.exp(totals).mean())
    assert 0 < details["null_mean"] < 1


def test_confidence_on_resamples_is_that_of_the_items_drawn():
    clusters = tuple(f"c{k // 2}" for k in range(12))
    answers = made(CORRECT, ABSTAINED, clusters=clusters)
    found = {m.metric: m for m in open_qa_of(answers)}
    counts_RN = cluster_counts(np.arange(12) // 2, 30, 0)
    assert found["correct/set"].clusters == clusters
    for metric, value in (
        ("auroc-sum/set", lambda rows: roc_auc_score(np.array(CORRECT)[rows], answers.sum_N[rows])),
        ("ece/set", lambda rows: ece(np.exp(answers.sum_N)[rows], np.array(CORRECT)[rows], 15)),
    ):
        got_R = found[metric].resample(counts_RN)
        for counts_N, got in zip(counts_RN, got_R, strict=True):
            rows = [i for i in range(12) for _ in range(int(counts_N[i])) if not ABSTAINED[i]]
            if metric == "auroc-sum/set" and len({CORRECT[i] for i in rows}) < 2:
                assert np.isnan(got)
            else:
                assert got == pytest.approx(value(rows))


def test_a_resample_in_which_nothing_is_answered():
    answers = made([1, 0, 0, 0, 0], [0, 0, 1, 1, 1])
    found = {m.metric: m for m in open_qa_of(answers)}
    counts_RN = np.array([[0, 0, 2, 2, 1.0], [1, 1, 1, 1, 1]])
    for metric in ("auroc-sum/set", "ece/set"):
        value_R = found[metric].resample(counts_RN)
        assert np.isnan(value_R[0]) and np.isfinite(value_R[1])


def test_models_that_answer_different_questions_are_paired():
    one, two = (
        {m.metric: m for m in open_qa_of(made(CORRECT, abstained, seed=seed))}
        for seed, abstained in enumerate((ABSTAINED, [1, *ABSTAINED[1:]]))
    )
    for metric in one:
        change = paired_change(one[metric], two[metric], resamples=50)
        assert change.n == 12
        assert change.value == pytest.approx(two[metric].value - one[metric].value)


@pytest.mark.parametrize(("correct", "abstained"), [([1] * 4, None), ([0] * 4, None), ([1, 0, 1, 1], [0, 1, 0, 0])])
def test_nothing_to_tell_apart(correct, abstained):
    with pytest.warns(UserWarning, match="set: all answers are alike right or wrong"):
        found = [m.metric for m in open_qa_of(made(correct, abstained))]
    assert "ece/set" in found and not [name for name in found if name.startswith("auroc")]


def test_nothing_answered():
    with pytest.warns(UserWarning, match="set: no question was answered"):
        found = {m.metric: m.value for m in open_qa_of(made([0, 0], [1, 1]))}
    assert found == {"correct/set": 0, "exact/set": 0, "f1/set": 0, "hallucination/set": 0, "abstention/set": 1}


# Audits

QA = ("open-qa", "truthfulness", "truthful-generation")


def loaded(tokenizer, name, seed):
    return LoadedModel(tiny_model("llama", seed), tokenizer, name)


def nearly(_question, text):
    return 0.5 + (len(text) % 2) / 4


@undefined
def test_two_models_are_compared_question_by_question(tokenizer, tmp_path):
    models = [loaded(tokenizer, "dense", 0), loaded(tokenizer, "pruned", 1)]
    report = audit(
        models[0],
        [models[1]],
        tmp_path / "out",
        instruments=QA,
        asking=QaOptions(qa_items=12),
        truth=TruthOptions(new_tokens=6, judge=nearly),
        measuring=AuditOptions(resamples=20),
    )
    assert metric_title("correct/general") == "right answers\n(general)"
    metrics = {row.metric for row in report.rows if row.model == "pruned"}
    for name in ("correct/general", "hallucination/misconceptions", "ece/general", "mc1/misconceptions"):
        assert name in metrics
        assert report.value("dense", name).n == 12
        assert report.change("pruned", name) is not None
    assert {"bleu-acc/misconceptions", "judged/misconceptions"} <= metrics
    assert "bleu-acc/general" not in metrics
    assert report.value("dense", "mc2/misconceptions").value != report.value("pruned", "mc2/misconceptions").value
    saved = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert saved["settings"]["qa"]["qa_items"] == 12
    assert saved["settings"]["truth"]["judge"] == f"{__name__}:nearly"
    table = pq.read_table(tmp_path / "out" / "answers.parquet").to_pylist()
    assert {(row["model"], row["set"]) for row in table} == {
        (model, name) for model in ("dense", "pruned") for name in ("general", "misconceptions")
    }
    rows = [row for row in table if (row["model"], row["set"]) == ("dense", "general")]
    assert report.value("dense", "correct/general").value == pytest.approx(np.mean([row["correct"] for row in rows]))
    choices = pq.read_table(tmp_path / "out" / "choices.parquet").to_pylist()
    mc1 = [row["mc1"] for row in choices if (row["model"], row["set"]) == ("pruned", "misconceptions")]
    assert report.value("pruned", "mc1/misconceptions").value == pytest.approx(np.mean(mc1))
    assert (tmp_path / "out" / "reliability-answers-general.png").is_file()
    assert (tmp_path / "out" / "risk-coverage-answers-general.png").is_file()


def context(dense, *sets, **truth):
    settings = AuditSettings(asking=QaOptions(qa=sets, qa_items=5), truth=TruthOptions(new_tokens=4, **truth))
    return AuditContext(settings, dense)


@undefined
def test_a_model_is_asked_once(tiny, monkeypatch):
    dense = Subject("dense", tiny, use_cache=False)
    given = context(dense, "misconceptions")
    calls = []
    right = answers_module.greedy
    monkeypatch.setattr(answers_module, "greedy", lambda *a, **k: calls.append(1) or right(*a, **k))
    for name in (*QA, *QA):
        INSTRUMENTS[name](dense, given)
    assert len(calls) == 1


def test_sets_that_do_not_serve(tiny, tmp_path):
    file = tmp_path / "mine.jsonl"
    rows = [{"id": str(n), "question": f"And {n}?", "right": [f"number {n}"]} for n in range(12)]
    file.write_text("\n".join(map(json.dumps, rows)))
    dense = Subject("dense", tiny, use_cache=False)
    with pytest.raises(AuditError, match=r"no question set of --qa mine has wrong answers\. Add one"):
        INSTRUMENTS["truthfulness"](dense, context(dense, str(file)))
    with pytest.raises(AuditError, match=r"no question set of --qa mine has wrong answers in sentences"):
        INSTRUMENTS["truthful-generation"](dense, context(dense, str(file)))
    # Beside one that serves it is passed over.
    found = INSTRUMENTS["truthfulness"](dense, context(dense, str(file), "misconceptions"))
    assert {m.metric.split("/")[1] for m in found} == {"misconceptions"}


def test_nothing_is_generated_for_a_judge_that_is_not_there(tiny, monkeypatch):
    """Nor for an instrument that would be asked before."""
    monkeypatch.setattr(answers_module, "greedy", None)
    with pytest.raises(AuditError, match="the judge nowhere:judge cannot be had"):
        audit(tiny, instruments=("open-qa", "truthful-generation"), truth=TruthOptions(judge="nowhere:judge"))


# Items that a model was trained on


@pytest.mark.parametrize(
    ("key", "use"), [("recalibration", "used to recalibrate tiny"), ("healing", "used to train tiny")]
)
@pytest.mark.parametrize("earlier", [False, True])
def test_no_model_is_judged_by_what_it_was_fitted_on(key, use, earlier):
    questions = [one.question for one in asked()]
    step = {key: {"fitted_on": {"set": [questions[3].sha256, questions[4].sha256], "other": ["0"]}}}
    record = {"history": [{"plan": {}}, step], "healing": None} if earlier else step
    with pytest.raises(AuditError, match=rf"2 of the 6 items of set were {use} \(e.g. q3\)"):
        refuse_fitted("tiny", record, "set", questions)
    refuse_fitted("tiny", record, "set", questions[:3])
    refuse_fitted("tiny", None, "set", questions)


@pytest.mark.parametrize("instrument", QA)
def test_question_sets_are_watched(tiny, instrument):
    dense = Subject("dense", tiny, use_cache=False)
    given = context(dense, "misconceptions")
    sha = given.asked["misconceptions"][2].question.sha256
    healed = Subject(
        "healed", LoadedModel(tiny.model, tiny.tokenizer, "healed", record={"healing": {"fitted_on": {"x": [sha]}}})
    )
    with pytest.raises(AuditError, match="1 of the 5 items of misconceptions were used to train healed"):
        INSTRUMENTS[instrument](healed, given)


# Command line


@undefined
def test_flags(tiny_folder, tmp_path, capsys):
    out, primer = tmp_path / "out", tmp_path / "primer.txt"
    primer.write_text("Q: Are you there?\nA: Yes.")
    words = [
        "audit",
        str(tiny_folder),
        "--instruments",
        "open-qa",
        "truthfulness",
        "--qa",
        "misconceptions",
        "--qa-items",
    ]
    assert run([*words, "4", "--new-tokens", "3", "--grade", "exact", "--primer", str(primer), "-o", str(out)]) == 0
    settings = json.loads((out / "audit.json").read_text())["settings"]
    assert settings["truth"] == {"grade": "exact", "new_tokens": 3, "judge": None}
    assert settings["qa"]["primer"] == str(primer)
    assert run([*words, "4", "--judge", "nothing", "-o", str(tmp_path / "no")]) == 2
    assert "--judge nothing names no function" in capsys.readouterr().err
