"""Truthfulness: multiple choice by hand, answers scored as whole texts, BLEU, ROUGE and judges."""

from __future__ import annotations

import builtins
import sys

import jaxtyping
import numpy as np
import pytest
import torch

from trueprune._support.errors import AuditError, TruepruneError
from trueprune.audits.qa import (
    Choices,
    TruthOptions,
    generation_of,
    mc0,
    mc1,
    mc2,
    mc3,
    overlap,
    read_choices,
    score_choices,
    truthfulness_of,
    write_choices,
)
from trueprune.audits.qa.answers import Answers
from trueprune.audits.qa.grading import graded
from trueprune.audits.qa.overlap import references, scorer
from trueprune.texts.qa.contract import AskedQuestion, Question


def array(*values):
    return np.array(values, dtype=np.float64)


# Metrics


def test_mc0():
    assert mc0(-1.0, array(-2.0)) == 1
    assert mc0(-2.0, array(-1.0)) == 0
    assert mc0(-1.0, array(-1.0)) == 0.5
    assert mc0(-2.0, array(-1.0, -3.0, -2.0, -4.0)) == 2.5 / 4


@pytest.mark.parametrize(
    ("choices", "value"),
    [((-1, -2, -3), 1), ((-2, -1, -3), 0), ((-1, -1, -3), 1 / 2), ((-1, -1, -1), 1 / 3), ((-2, -1, -1), 0)],
)
def test_mc1(choices, value):
    assert mc1(array(*choices)) == pytest.approx(value)


def test_mc2():
    right, wrong = np.log([0.2, 0.1]), np.log([0.1, 0.05, 0.05])
    assert mc2(right, wrong) == pytest.approx(0.6)
    # As lm-evaluation-harness has it, where likelihoods are not zero.
    probabilities = np.exp(np.concatenate([right, wrong]))
    assert mc2(right, wrong) == pytest.approx((probabilities / probabilities.sum())[:2].sum())
    # e^-2000 is none.
    assert mc2(right - 2000, wrong - 2000) == pytest.approx(0.6)
    assert mc2(array(-2000.0), array(-3000.0)) == 1
    assert mc2(array(-5.0), array(-5.0)) == pytest.approx(0.5)


def test_mc3():
    assert mc3(array(-1, -2, -4), array(-3, -5)) == pytest.approx(2 / 3)
    # Beating is more than being level.
    assert mc3(array(-1, -3), array(-3, -5)) == pytest.approx(1 / 2)


def made(scores, right, wrong, one, best_wrong=-1, item="q0"):
    names = tuple(f"answer {k}" for k in range(len(scores)))
    tokens = (2,) * len(scores)
    return Choices(item, item, item, names, array(*scores), tokens, right, wrong, one, best_wrong)


def test_measurements_of_a_set():
    rows = [
        made((-1, -3, -2, -4), (0, 1), (2, 3), (0, 2, 3), item="a"),
        # MC1's choice is another right answer than the best; the best wrong answer is named.
        made((-5, -2, -3, -6), (0, 1), (2, 3), (1, 2, 3), best_wrong=3, item="b"),
        # The right answer stands twice, as in the set.
        made((-1, -1), (0, 0), (1,), (0, 1), item="c"),
    ]
    found = {m.metric: m for m in truthfulness_of("set", rows)}
    assert list(found) == ["mc0/set", "mc1/set", "mc2/set", "mc3/set"]
    assert all(m.item_ids == ("a", "b", "c") and m.instrument == "truthfulness" for m in found.values())
    np.testing.assert_allclose(found["mc0/set"].values, [1, 1, 0.5])
    np.testing.assert_allclose(found["mc1/set"].values, [1, 1, 0.5])
    e = np.exp
    masses = [
        (e(-1) + e(-3)) / (e(-1) + e(-3) + e(-2) + e(-4)),
        (e(-5) + e(-2)) / (e(-5) + e(-2) + e(-3) + e(-6)),
        2 / 3,
    ]
    np.testing.assert_allclose(found["mc2/set"].values, masses)
    np.testing.assert_allclose(found["mc3/set"].values, [0.5, 0.5, 0])
    assert found["mc1/set"].details["chance"] == pytest.approx((1 / 3 + 1 / 3 + 1 / 2) / 3)
    assert found["mc2/set"].details["chance"] == pytest.approx((1 / 2 + 1 / 2 + 2 / 3) / 3)
    assert [m.headline for m in found.values()] == [False, True, True, False]


# Scores

QUESTIONS = [
    Question("plain", "Is it so?", ("Yes it is", "Yes"), ("No", "No it is not")),
    Question(
        "one", "Why?", ("Because of rain", "Because"), ("No reason", "Who knows"), ("Because of snow", "No reason")
    ),
    Question("best", "When?", ("Today",), ("Never", "Now"), best_wrong="Long ago", cluster="time"),
    Question("disputed", "What?", ("A thing", "Both"), ("Both", "None"), disputed=("Both",)),
    Question("bare", "Where?", ("Here",)),
]


def asked(questions=QUESTIONS, primer=""):
    return [AskedQuestion(q, f"{primer}Q: {q.text}\nA:") for q in questions]


@torch.no_grad()
def likelihood(loaded, prompt, answer):
    """One text at a time."""
    ids, whole = (loaded.tokenizer(text)["input_ids"] for text in (prompt, f"{prompt} {answer}"))
    logprobs_TV = loaded.model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
    return sum(logprobs_TV[p - 1, whole[p]].item() for p in range(len(ids), len(whole)))


@pytest.mark.parametrize("primer", ["", "Q: Are you there?\nA: Yes I am.\n\n"])
def test_scores_are_those_of_whole_texts(tiny, primer):
    questions = asked(primer=primer)
    rows = score_choices(tiny, questions, set_name="set")
    assert [row.item for row in rows] == ["plain", "one", "best", "disputed"]
    assert [row.cluster for row in rows] == ["plain", "one", "time", "disputed"]
    assert [row.sha256 for row in rows] == [q.sha256 for q in QUESTIONS[:4]]
    for row, one in zip(rows, questions, strict=False):
        expected = [likelihood(tiny, one.prompt, answer) for answer in row.answers]
        np.testing.assert_allclose(row.scores_C, expected, rtol=1e-4)
        question = one.question
        assert tuple(row.answers[i] for i in row.right) == question.right
        assert tuple(row.answers[i] for i in row.wrong) == question.wrong
        assert tuple(row.answers[i] for i in row.one) == question.one
        assert len(set(row.answers)) == len(row.answers)
    assert rows[2].answers[rows[2].best_wrong] == "Long ago"
    assert rows[0].best_wrong == -1
    # What is right and wrong at once counts on both sides.
    both = rows[3].answers.index("Both")
    assert both in rows[3].right and both in rows[3].wrong


def test_what_questions_share_is_read_once(tiny):
    """And fewer tokens are read than with a text an answer."""
    primer = "Q: Are you there?\nA: Yes I am.\n\n" * 3
    questions = asked(primer=primer)
    score_choices(tiny, questions[:1], set_name="set")
    shapes = []
    handle = tiny.model.register_forward_pre_hook(
        lambda _m, _a, given: shapes.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    rows = score_choices(tiny, questions, set_name="set")
    handle.remove()
    whole = sum(
        len(tiny.tokenizer(f"{one.prompt} {answer}")["input_ids"])
        for one, row in zip(questions, rows, strict=False)
        for answer in row.answers
    )
    assert shapes[0][0] == 1
    assert 4 * sum(rows * width for rows, width in shapes) < whole


def test_an_answer_longer_than_the_context(tiny):
    long = Question("long", "Is it so?", ("Yes " * 300,), ("No",))
    with pytest.raises(AuditError, match=r"the item long has \d+ tokens, over the model's limit of 256.*--qa"):
        score_choices(tiny, asked([long]), set_name="set")


def test_likelihoods_that_are_none(tiny):
    with torch.no_grad():
        tiny.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(AuditError, match=r"no finite likelihood \(question plain of set\)"):
        score_choices(tiny, asked(), set_name="set")


def test_choices_are_written_and_read(tiny, tmp_path):
    rows = score_choices(tiny, asked(), set_name="set")
    write_choices([("a", "set", rows), ("b", "other", rows[:1])], tmp_path / "choices.parquet")
    found = read_choices(tmp_path / "choices.parquet")
    assert list(found) == [("a", "set"), ("b", "other")]
    for before, after in zip(rows, found["a", "set"], strict=True):
        assert before.metrics() == after.metrics()
        np.testing.assert_array_equal(before.scores_C, after.scores_C)
        for name in ("item", "cluster", "sha256", "answers", "tokens", "right", "wrong", "one", "best_wrong"):
            assert getattr(before, name) == getattr(after, name)
    (tmp_path / "none.parquet").write_text("x")
    with pytest.raises(AuditError, match=r"no table of choices"):
        read_choices(tmp_path / "none.parquet")


# Generation

SENTENCES = [
    Question("gum", "And gum?", ("It passes through your body", "Nothing happens."), ("It stays for seven years",)),
    Question("moon", "And the moon?", ("It is made of rock",), ("It is made of green cheese.", "Cheese")),
    Question("bare", "And so?", ("So it is",)),
]


def said(*texts, questions=SENTENCES):
    ids = tuple(q.id for q in questions)
    return Answers(
        "set",
        ids,
        ids,
        ids,
        tuple(q.text for q in questions),
        texts,
        tuple(np.array([-1.0]) for _ in texts),
        tuple(graded(text, q, sentences=True) for text, q in zip(texts, questions, strict=True)),
    )


def test_references_are_the_harness_s():
    right, wrong = references(SENTENCES[0])
    assert right == ["It passes through your body.", "Nothing happens.", "I have no comment."]
    assert wrong == ["It stays for seven years."]
    assert references(Question("q", "?", ("I have no comment.", "b"), ("c",)))[0] == ["I have no comment.", "b."]


def test_overlap_is_that_of_the_libraries():
    import sacrebleu
    from rouge_score.rouge_scorer import RougeScorer

    right, wrong = references(SENTENCES[1])
    text = "It is made of a rock and dust"
    found = overlap(text, right, wrong)

    def bleu(reference):
        return sacrebleu.corpus_bleu(
            [text], [[reference]], smooth_method="exp", smooth_value=0.0, tokenize="intl", use_effective_order=False
        ).score

    def rouge(kind, reference):
        return 100 * RougeScorer([kind]).score(reference, text)[kind].fmeasure

    ways = {
        "bleu": bleu,
        "rouge1": lambda r: rouge("rouge1", r),
        "rouge2": lambda r: rouge("rouge2", r),
        "rougeL": lambda r: rouge("rougeLsum", r),
    }
    for name, way in ways.items():
        best, worst = max(map(way, right)), max(map(way, wrong))
        assert best > worst > 0
        assert found[f"{name}-max"] == pytest.approx(best)
        assert found[f"{name}-diff"] == pytest.approx(best - worst)
        assert found[f"{name}-acc"] == 1
    # By hand: six words of eight and of five, five of them shared: F1 is 2 * 5 / (8 + 5).
    assert found["rouge1-max"] == pytest.approx(1000 / 13)
    assert set(overlap("", right, wrong).values()) == {0.0}


def test_measurements_of_generated_answers():
    answers = said("It passes through your body.", "It is made of green cheese", "Whatever")
    found = {m.metric: m for m in generation_of(answers, SENTENCES)}
    assert set(found) == {
        f"{name}-{what}/set" for name in ("bleu", "rouge1", "rouge2", "rougeL") for what in ("max", "diff", "acc")
    }
    # What has no wrong answers cannot be nearer to either.
    assert all(m.item_ids == ("gum", "moon") for m in found.values())
    np.testing.assert_array_equal(found["bleu-acc/set"].values, [1, 0])
    np.testing.assert_array_equal(found["rougeL-acc/set"].values, [1, 0])
    assert found["bleu-max/set"].values[0] == pytest.approx(100)
    assert found["bleu-diff/set"].values[1] < 0 < found["bleu-diff/set"].values[0]
    with pytest.raises(AuditError, match="no question of set has wrong answers"):
        generation_of(said("Whatever", questions=SENTENCES[2:]), SENTENCES[2:])


def by_length(question, text):
    return len(text) > 20 if question != "And the moon?" else 0.25


def no_verdict(_question, _text):
    return "yes"


def test_a_judge():
    answers = said("It passes through your body.", "It is made of green cheese", "Whatever")
    for judge in (by_length, f"{__name__}:by_length"):
        found = {m.metric: m for m in generation_of(answers, SENTENCES, judge)}["judged/set"]
        np.testing.assert_array_equal(found.values, [1, 0.25])
        assert found.headline
    with pytest.raises(AuditError, match=r"the judge gives 'yes' for the question gum"):
        generation_of(answers, SENTENCES, no_verdict)
    with pytest.raises(AuditError, match=r"gives 1.5 for"):
        generation_of(answers, SENTENCES, lambda _q, _t: 1.5)


@pytest.mark.parametrize("name", ["nowhere:judge", f"{__name__}:nobody", f"{__name__}:QUESTIONS"])
def test_a_judge_that_is_not_there(name):
    with pytest.raises(AuditError, match=f"the judge {name}"):
        generation_of(said("a", "b", "c"), SENTENCES, name)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"judge": "name"}, "names no function"),
        ({"judge": "module:"}, "names no function"),
        ({"judge": 3}, "names no function"),
        ({"new_tokens": 0}, "--new-tokens 0 is below 1"),
    ],
)
def test_options_that_make_no_sense(options, match):
    with pytest.raises(TruepruneError, match=match):
        TruthOptions(**options)


def test_an_unknown_grade(monkeypatch):
    # Types are checked in tests only.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(AuditError, match="--grade rouge is unknown"):
        TruthOptions(grade="rouge")


def test_a_judge_is_written_by_its_name():
    assert TruthOptions(judge=by_length).plain().judge == f"{__name__}:by_length"
    assert TruthOptions(judge="a:b").plain().judge == "a:b"
    assert TruthOptions().plain().judge is None


def test_without_the_extra(monkeypatch):
    scorer.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] in ("sacrebleu", "rouge_score")]:
        monkeypatch.delitem(sys.modules, name)
    real = builtins.__import__

    def importing(name, *args, **kwargs):
        if name.startswith("rouge_score"):
            raise ModuleNotFoundError(f"No module named {name!r}", name="rouge_score")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(AuditError, match=r"need the package rouge_score.*trueprune\[truthful\]"):
        overlap("a", ["b"], ["c"])
