"""Questions with answers: rows that are right, sides that never meet, prompts to the byte, pairs that are balanced."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections import Counter
from dataclasses import replace
from importlib.util import find_spec

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trueprune._support.errors import TextError
from trueprune.texts.qa import (
    QUESTION_SETS,
    QaOptions,
    Question,
    QuestionSet,
    answer_pairs,
    ask,
    asked,
    check_sets,
    find_set,
    normalise,
    primer_text,
    set_questions,
    tokens_of,
)
from trueprune.texts.rows import embedded_file

DATA = os.environ.get("TRUEPRUNE_DATA")
needs_data = [pytest.mark.data, pytest.mark.skipif(not DATA, reason="TRUEPRUNE_DATA is not set")]
EMBEDDED = ("general", "misconceptions")
HUB = ("truthfulqa", "nq_open", "triviaqa", "sciq", "wikiqa")
CHAT = (
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
NONE = QaOptions()


def told(name="a", text="What is it?", right=("this",), wrong=(), **rest):
    return Question(name, text, tuple(right), tuple(wrong), **rest)


def set_of(*questions, fit=None):
    return QuestionSet("mine", lambda: iter(questions), fit_rows=None if fit is None else lambda: iter(fit))


@pytest.fixture
def mine(monkeypatch):
    """Puts questions into the registry as the set `mine`; the fitting side is theirs unless said otherwise."""

    def put(*questions, side="fit", sentences=False):
        own = set_of(*questions) if side is None else set_of(told("spare"), fit=questions)
        own = replace(own, sentences=sentences)
        monkeypatch.setitem(QUESTION_SETS, "mine", own)
        return "mine"

    return put


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    def write(name, rows):
        file = tmp_path / "mirror" / f"{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        monkeypatch.setenv("TRUEPRUNE_DATA", str(tmp_path / "mirror"))

    return write


@pytest.fixture
def own(tmp_path):
    def write(*rows, name="mine"):
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return str(file)

    return write


def everything(name):
    """All questions of a set by id, whatever their side."""
    return {question.id: question for question in find_set(name).rows()}


# Questions


def test_questions_are_checked():
    for bad, problem in (
        ({"text": " "}, "the question a has no text"),
        ({"right": ()}, "the question a has no answer"),
        ({"right": ("this", " ")}, "the question a has no answer, or an empty one"),
        ({"wrong": ("that", "")}, "the question a has no answer, or an empty one"),
        ({"one": ("this", "")}, "the question a has no answer, or an empty one"),
        ({"wrong": ("that", "this")}, "the question a has 'this' as right and wrong"),
        ({"best_wrong": "this"}, "the question a has 'this' as right and wrong"),
        ({"right": ("x", "y"), "wrong": ("x", "y"), "disputed": ("x",)}, "the question a has 'y' as right and wrong"),
    ):
        with pytest.raises(TextError, match=problem):
            told(**bad)
    assert told(right=("x", "y"), wrong=("y", "z"), disputed=("y",)).wrong == ("y", "z")
    assert told(right=("x", "y"), wrong=("z", "u")).one == ("x", "z", "u")
    assert told().one == ()


def test_the_hash_is_of_question_and_answers():
    one = told(right=("x", "y"), wrong=("z",))
    same = told("b", right=("x", "y"), wrong=("z",), cluster="c", best_wrong="z")
    assert same.sha256 == one.sha256
    others = [told(right=("x",), wrong=("y", "z")), told(right=("x", "y")), told(text="?", right=("x", "y"))]
    assert len({one.sha256, *(other.sha256 for other in others)}) == 4


# Normalisation


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("The  Beatles!", "beatles"),
        (" an apple\tA day", "apple day"),
        ("Rock-n-Roll", "rocknroll"),
        ("$1,000.50", "100050"),
        ("theatre another", "theatre another"),
        ("A.", ""),
        ("the-the", "thethe"),
        ("U.S.A.", "usa"),
        ("Élan “vital”", "élan “vital”"),
        ("_x_", "x"),
    ],
)
def test_normalisation_is_that_of_squad(text, same):
    assert normalise(text) == same
    assert tokens_of(text) == same.split()


@given(st.text(alphabet="aAnthe ., -\n'Éx", max_size=30))
def test_normalisation_twice_is_once_but_for_articles(text):
    once = normalise(text)
    assert once == once.lower() == " ".join(once.split())
    assert not set(tokens_of(text)) & {"a", "an", "the"}
    assert normalise(once) == once
    assert normalise(f" The {text.upper()} ") == once


# Embedded sets


@pytest.mark.parametrize(("name", "least"), [("general", 150), ("misconceptions", 100)])
def test_embedded_sets_are_many_and_each_has_wrong_answers(name, least):
    questions = everything(name)
    assert len(questions) >= least
    assert len({question.text for question in questions.values()}) == len(questions)
    assert all(question.wrong for question in questions.values())
    sides = [set_questions(find_set(name), 0, side) for side in ("audit", "fit")]
    assert sum(map(len, sides)) == len(questions)
    assert len(sides[1]) >= least // 5


def test_embedded_columns(tmp_path, monkeypatch):
    from trueprune.texts.qa import embedded

    (tmp_path / "general.csv").write_text('topic,question,answers,wrong\nx,Who? ,"Ann | Anne","Bo|Cy|Di"\n')
    (tmp_path / "misconceptions.csv").write_text("topic,question,right,wrong\nx,Is it?,No.|Not so.,Yes.|It is.\n")
    monkeypatch.setattr(embedded, "embedded_file", lambda name: tmp_path / name)
    assert list(embedded.general()) == [Question("0", "Who?", ("Ann", "Anne"), ("Bo", "Cy", "Di"))]
    (asked_of,) = embedded.misconceptions()
    assert (asked_of.right, asked_of.wrong, asked_of.best_wrong) == (("No.", "Not so."), ("Yes.", "It is."), "Yes.")
    assert asked_of.one == ("No.", "Yes.", "It is.")
    (tmp_path / "general.csv").write_text("topic,question,wrong\n")
    with pytest.raises(TextError, match=r"general.csv has no column 'answers'"):
        list(embedded.general())


def test_which_sets_answer_in_sentences():
    assert set(QUESTION_SETS) == {*EMBEDDED, *HUB}
    assert all(name == found.name for name, found in QUESTION_SETS.items())
    assert {name for name, s in QUESTION_SETS.items() if s.sentences} == {"misconceptions", "truthfulqa", "wikiqa"}


# Rows of the hub


def targets(right, wrong):
    return {"choices": [*right, *wrong], "labels": [1] * len(right) + [0] * len(wrong)}


def truthful(mirror, *rows, generation=None):
    mirror("truthfulqa__truthful_qa/multiple_choice/validation", list(rows))
    if generation is not None:
        mirror("truthfulqa__truthful_qa/generation/validation", list(generation))


TRUTH = {
    "question": "Is it so? ",
    "mc1_targets": {"choices": ["yes", "no best ", "maybe", ""], "labels": [0, 1, 0, 0]},
    "mc2_targets": {"choices": ["no", "yes", "no best", "", "maybe", "no", " never", "yes"], "labels": [1, 0] * 4},
}


def test_truthfulqa_has_the_best_answers_first_and_all_choices(mirror):
    mc2 = {"choices": ["no", "yes", "no best", "", "maybe", "no"], "labels": [1, 0, 1, 1, 0, 1]}
    row = {**TRUTH, "mc2_targets": mc2}
    best = {"question": "Is it so?", "best_answer": "no best ", "correct_answers": [], "incorrect_answers": []}
    truthful(mirror, row, generation=[{**best, "question": "Another?", "best_answer": "no"}, best])
    expected = told("0", "Is it so? ", ("no best", "no", "no"), ("yes", "maybe"), one=("no best", "yes", "maybe"))
    assert everything("truthfulqa") == {"0": expected}
    # The set's best answer goes before MC1's, the others keep their order.
    mc2 = {"choices": ["a", "b", "yes", "never", "no best", "c"], "labels": [1, 1, 0, 1, 1, 1]}
    truthful(mirror, {**row, "mc2_targets": mc2}, generation=[{**best, "best_answer": "never"}])
    (found,) = everything("truthfulqa").values()
    assert found.right == ("never", "a", "b", "no best", "c")
    assert found.one[0] == "no best"
    truthful(mirror, row, generation=[{**best, "best_incorrect_answer": "maybe"}])
    (found,) = everything("truthfulqa").values()
    assert (found.wrong, found.best_wrong) == (("maybe", "yes"), "maybe")
    truthful(mirror, {**row, "mc0_targets": {"choices": ["maybe", "no best"], "labels": [0, 1]}}, generation=[best])
    (found,) = everything("truthfulqa").values()
    assert (found.right[0], found.wrong, found.best_wrong) == ("no best", ("maybe", "yes"), "maybe")
    # A best wrong answer that is none of MC2's choices is known and changes them not.
    truthful(mirror, {**row, "best_incorrect_answer": "of course"}, generation=[best])
    (found,) = everything("truthfulqa").values()
    assert (found.wrong, found.best_wrong) == (("yes", "maybe"), "of course")


def test_truthfulqa_without_its_other_configuration(mirror, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    row = {**TRUTH, "mc2_targets": targets(["no", "no best"], ["yes"])}
    truthful(mirror, row, {**row, "question": "And?", "mc2_targets": targets([""], ["yes"])})
    found = everything("truthfulqa")
    assert found["0"].right == ("no best", "no")
    assert set(found) == {"0"}


def test_truthfulqa_answers_that_are_right_and_wrong_are_disputed(mirror):
    row = {**TRUTH, "mc2_targets": targets(["no best", "unknown"], ["yes", "unknown"])}
    truthful(mirror, row, generation=[])
    (found,) = everything("truthfulqa").values()
    assert (found.right, found.wrong, found.disputed) == (("no best", "unknown"), ("yes", "unknown"), ("unknown",))


def test_nq_open_gets_a_question_mark(mirror):
    rows = [{"question": "who was it ", "answer": ["Ann", "Anne", "Ann"]}, {"question": "why?", "answer": ["so"]}]
    mirror("google-research-datasets__nq_open/nq_open/validation", [*rows, {"question": "x", "answer": [" "]}])
    assert list(everything("nq_open").values()) == [
        told("0", "who was it?", ("Ann", "Anne")),
        told("1", "why?", ("so",)),
    ]


def test_triviaqa_has_the_value_first(mirror):
    rows = [
        {"question": " Who? ", "question_id": "tc_1", "answer": {"value": "Onion", "aliases": ["Bulb", "Onion", ""]}},
        {
            "question": '"Who said ""no""?"',
            "answer": {"value": '"""No"""', "aliases": ['"No"', '"a" or "b"', '"a" ""b"']},
        },
        {"question": '"Who said so?"', "question_id": "", "answer": {"value": '""', "aliases": []}},
    ]
    mirror("mandarjoshi__trivia_qa/rc.nocontext/validation", rows)
    assert list(everything("triviaqa").values()) == [
        told("tc_1", "Who?", ("Onion", "Bulb")),
        told("1", 'Who said "no"?', ('"No"', '"a" or "b"', '"a" ""b"')),
        told("2", '"Who said so?"', ('""',)),
    ]


def test_sciq_may_lack_its_distractors(mirror):
    row = {"question": "What? ", "correct_answer": " this ", "distractor1": "b", "distractor2": "a", "distractor3": "b"}
    empty = {**row, "distractor1": "", "distractor2": None, "distractor3": " "}
    mirror("allenai__sciq/default/test", [row, empty, {**row, "distractor1": "this"}, {**row, "correct_answer": ""}])
    assert [question.wrong for question in everything("sciq").values()] == [("b", "a"), (), ("a", "b")]
    assert {question.right for question in everything("sciq").values()} == {("this",)}
    assert everything("sciq")["0"].text == "What?"


def test_wikiqa_is_grouped_by_question(mirror):
    def row(name, answer, label):
        return {"question_id": name, "question": f"how is {name}", "answer": answer, "label": label}

    rows = [row("Q1", "Bad.", 0), row("Q2", "Only bad.", 0), row("Q1", "Good. ", 1), row("Q1", "Worse.", 0)]
    rows += [row("Q3", "Right.", 1), row("Q1", "Good.", 0), row("Q1", "Good.", 1), row("Q1", "Fine.", 1)]
    mirror("microsoft__wiki_qa/default/test", rows)
    assert list(everything("wikiqa").values()) == [
        told("Q1", "how is Q1?", ("Good.", "Fine."), ("Bad.", "Worse.")),
        told("Q3", "how is Q3?", ("Right.",)),
    ]
    # The rows of its test split are more than the hub's usual limit.
    mirror("microsoft__wiki_qa/default/test", [row(f"Q{n // 2}", f"Answer {n}", n % 2) for n in range(6200)])
    assert len(everything("wikiqa")) == 3100


def test_rows_that_cannot_be_had_are_named(mirror, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    mirror("somewhere/else", [])
    for name in HUB:
        with pytest.raises(TextError, match=r"no rows of .* use --qa general misconceptions"):
            set_questions(find_set(name))
    mirror("allenai__sciq/default/test", [{"question": "x"}])
    with pytest.raises(TextError, match="the rows of sciq lack the column 'correct_answer'"):
        set_questions(find_set("sciq"))
    mirror("allenai__sciq/default/test", [{"question": "x", "correct_answer": 3}])
    with pytest.raises(TextError, match=r"the rows of sciq cannot be read .* Give rows with the hub's columns"):
        set_questions(find_set("sciq"))
    mirror("allenai__sciq/default/test", [{"question": "x", "correct_answer": ""}])
    with pytest.raises(TextError, match="the rows of sciq hold no question with an answer"):
        set_questions(find_set("sciq"))


# Sides


def test_the_order_is_that_of_hashes_and_the_last_quarter_is_for_fitting():
    questions = [told(str(n), f"What is {n}?") for n in range(41)]
    ordered = sorted(questions, key=lambda question: hashlib.sha256(question.id.encode()).digest())
    found = set_of(*reversed(questions))
    assert set_questions(found) == ordered[:31]
    assert set_questions(found, 3) == ordered[:3]
    assert set_questions(found, 4, "fit") == ordered[31:35]
    assert set_questions(found, 0, "fit") == ordered[31:]
    # A cluster that is everything is audited.
    assert len(set_questions(set_of(*(told(str(n), f"{n}?", cluster="one") for n in range(9))))) == 9
    apart = set_of(*questions[:9], fit=questions[9:])
    assert set(map(str, set_questions(apart))) == set(map(str, questions[:9]))
    assert set(map(str, set_questions(apart, 0, "fit"))) == set(map(str, questions[9:]))


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.lists(st.integers(0, 60), min_size=40, max_size=40))
def test_sides_share_no_question_no_cluster_and_no_text(clusters, texts):
    questions = [told(str(n), f"What is {texts[n]}?", cluster=f"c{c}" if c else "") for n, c in enumerate(clusters)]
    audited = set_questions(set_of(*questions))
    assert audited
    try:
        fitted = set_questions(set_of(*questions), 0, "fit")
    except TextError as error:
        assert "the question set mine has too few questions to keep some for fitting" in error.problem
        return
    for what in (lambda q: q.id, lambda q: q.cluster or q.id, lambda q: q.sha256):
        assert not set(map(what, audited)) & set(map(what, fitted))


def test_what_cannot_be_a_set_is_named():
    with pytest.raises(TextError, match="two questions of mine have the id 'x'"):
        set_questions(set_of(told("x"), told("x", "Other?")))
    with pytest.raises(TextError, match="the question set mine has too few questions"):
        set_questions(set_of(told("x")), 0, "fit")


# Questions of the user's own

GOOD = {"question": " What? ", "right": ["this ", "that"], "wrong": ["other"]}


def test_questions_of_a_file(own):
    rows = [GOOD, {"question": "Who?", "answer": "Ann", "id": 7, "cluster": 3, "wrong": "Bo"}]
    rows += [{"question": "Why?", "answers": ["so"], "id": None, "cluster": None, "wrong": None}]
    found = find_set(own(*rows, name="quiz"))
    assert (found.name, found.sentences) == ("quiz", False)
    assert list(found.rows()) == [
        told("1", "What?", ("this", "that"), ("other",)),
        told("7", "Who?", ("Ann",), ("Bo",), cluster="3"),
        told("3", "Why?", ("so",)),
    ]
    # They can be had twice.
    assert len(list(found.rows())) == 3
    spoken = find_set(own({"sentences": True}, GOOD))
    assert spoken.sentences
    assert [question.id for question in spoken.rows()] == ["2"]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([GOOD, {"question": "Who?"}], "row 2 has no answer"),
        ([{"sentences": False}, {"question": "Who?", "wrong": ["x"]}], "row 2 has no answer"),
        ([{**GOOD, "right": []}], "row 1: the question 1 has no answer"),
        ([{**GOOD, "right": None}], "row 1: the question 1 has no answer"),
        ([{**GOOD, "right": ["x", " "]}], "row 1: the question 1 has no answer, or an empty one"),
        ([{**GOOD, "wrong": "this"}], "row 1: the question 1 has 'this' as right and wrong"),
        ([{**GOOD, "answer": "x"}], "row 1 has both 'right' and 'answer'"),
        ([{**GOOD, "right": 3}], "row 1: right is neither a string nor a list of strings"),
        ([GOOD, {"question": "Who?", "answers": ["x", 3]}], "row 2: answers is neither a string nor a list"),
        ([{**GOOD, "wrong": {"x": 1}}], "row 1: wrong is neither a string nor a list of strings"),
        ([GOOD, {"right": "x"}], "row 2: the question is missing or no string"),
        ([{**GOOD, "question": 3}], "row 1: the question is missing or no string"),
        ([{**GOOD, "question": " "}], "row 1: the question 1 has no text"),
        ([{**GOOD, "id": "x"}, GOOD, {**GOOD, "id": "x"}], "row 3 has the id 'x' of row 1"),
        ([{**GOOD, "id": 2}, GOOD], "row 2 has the id '2' of row 1"),
        (["{", GOOD], "line 1 is not JSON"),
        ([GOOD, "[1]"], "line 2 is no JSON object"),
        ([{"sentences": "yes"}, GOOD], "row 1: sentences is 'yes'"),
        ([{"sentences": True}], "holds no question"),
        ([], "holds no question"),
    ],
)
def test_what_is_wrong_with_a_file_is_named_before_anything_is_asked(own, rows, problem):
    with pytest.raises(TextError, match=problem) as caught:
        QaOptions(qa=(own(*rows),))
    assert "mine.jsonl" in caught.value.problem
    assert caught.value.remedy


# Options


def test_unknown_sets_are_refused(own, tmp_path):
    with pytest.raises(TextError, match=r"unknown question set 'trivia'. Did you mean triviaqa\? Use one of general, "):
        QaOptions(qa=("general", "trivia"))
    with pytest.raises(TextError, match=r"unknown question set 'zzz'. Use one of general"):
        check_sets(["zzz"])
    with pytest.raises(TextError, match="there is no question set"):
        QaOptions(qa=())
    with pytest.raises(TextError, match="the question set general is given twice"):
        check_sets(["general", own(GOOD, name="general")])
    with pytest.raises(TextError, match=r"no question file at .*nothing.jsonl"):
        QaOptions(qa=(str(tmp_path / "nothing.jsonl"),))
    with pytest.raises(TextError, match="--qa-items -1 is below 0"):
        QaOptions(qa_items=-1)
    assert QaOptions(qa=("general", own(GOOD)), qa_items=0).primer == "none"


def test_primers_are_checked(tmp_path):
    with pytest.raises(TextError, match=r"no primer at 'publisht'. Use none, own, published, or the path"):
        QaOptions(primer="publisht")
    with pytest.raises(TextError, match="no primer at"):
        primer_text(str(tmp_path))
    for content, problem in ((b" \n", "is empty"), (b"\xff\xfe", "is not UTF-8 text")):
        (tmp_path / "primer.txt").write_bytes(content)
        with pytest.raises(TextError, match=problem):
            QaOptions(primer=str(tmp_path / "primer.txt"))


# Prompts


def test_the_prompt_to_the_byte(tmp_path, mine):
    name = mine(told(text="Is it so? ", right=("no",)))
    (plain,) = asked(name, 0, NONE, side="fit")
    assert (plain.prompt, plain.special) == ("Q: Is it so? \nA:", True)
    assert plain.question.right == ("no",)
    (tmp_path / "mine.txt").write_text("\nQ: One?\nA: Two.\n\nQ: Three?\nA: Four.\n\n")
    (primed,) = asked(name, 0, QaOptions(primer=str(tmp_path / "mine.txt")), side="fit")
    assert primed.prompt == "Q: One?\nA: Two.\n\nQ: Three?\nA: Four.\n\nQ: Is it so? \nA:"


def test_asked_gives_one_side_up_to_a_limit(mine):
    name = mine(*(told(str(n), f"What is {n}?") for n in range(20)), side=None)
    found = QUESTION_SETS[name]
    for side in ("audit", "fit"):
        for limit in (0, 2):
            questions = asked(name, limit, NONE, side=side)
            assert [q.question for q in questions] == set_questions(found, limit, side)
    assert len(asked(name, 0, NONE)) == 15


def test_our_primer_has_the_form_of_the_published_one():
    text = primer_text("own")
    solved = text.split("\n\n")
    assert len(solved) == 6
    assert all(re.fullmatch(r"Q: [A-Z].*\?\nA: [A-Z].*\.", one) for one in solved)
    assert sum(one.endswith("\nA: I have no comment.") for one in solved) == 1
    assert text == embedded_file("primer.txt").read_text(encoding="utf-8").strip()
    # It gives no answer away.
    shown = set(re.findall(r"Q: (.*)", text))
    assert not shown & {question.text for name in EMBEDDED for question in find_set(name).rows()}


@pytest.fixture
def harness(tmp_path, monkeypatch):
    """An lm-eval that holds what a test writes into it."""
    folder = tmp_path / "packages" / "lm_eval" / "tasks" / "truthfulqa"
    folder.mkdir(parents=True)
    (tmp_path / "packages" / "lm_eval" / "__init__.py").write_text("raise SystemExit('it was imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    monkeypatch.delitem(sys.modules, "lm_eval", raising=False)
    return folder / "truthfulqa_mc1.yaml"


def test_the_published_primer_is_read_from_lm_eval(harness):
    primer = "Q: What is odd?\nA: This.\n\nQ: And even?\nA: That."
    quoted = primer.replace("\n", "\\n")
    template = "{% set p = '" + quoted + "'%}{{p + '\\n\\nQ: ' + question + '\\nA:'}}"
    harness.write_text("task: x\ndoc_to_text: " + json.dumps(template) + "\n")
    assert primer_text("published") == primer
    assert QaOptions(primer="published").primer == "published"
    for written, problem in (
        (json.dumps(template.replace("'\\nA:'", "'\\nB:'")), "holds no primer in the published form"),
        (json.dumps("Q: {{question}}\nA:"), "holds no primer in the published form"),
        (json.dumps("Answer.\n\nQ: {{question}}\nA:"), "holds no primer in the published form"),
        (json.dumps("{{ nowhere() }}"), "cannot be read"),
        ("[1", "cannot be read"),
        ("5", "cannot be read"),
    ):
        harness.write_text(f"doc_to_text: {written}\n")
        with pytest.raises(TextError, match=problem):
            QaOptions(primer="published")
    harness.write_text("task: x\n")
    with pytest.raises(TextError, match="cannot be read"):
        primer_text("published")
    harness.unlink()
    with pytest.raises(TextError, match=r"has no truthfulqa_mc1.yaml.* pip install 'trueprune\[lm-eval\]'"):
        primer_text("published")


def test_without_lm_eval_there_is_no_published_primer(monkeypatch):
    from trueprune.texts.qa import primers

    monkeypatch.setattr(primers, "find_spec", lambda name: None)
    with pytest.raises(TextError, match=r"lm-eval, which is missing.* pip install 'trueprune\[lm-eval\]', or give"):
        QaOptions(primer="published")


@pytest.mark.skipif(find_spec("lm_eval") is None, reason="needs lm-eval")
def test_prompts_are_those_of_lm_eval():
    import jinja2
    import yaml

    from trueprune.texts.qa import primers

    (folder,) = find_spec("lm_eval").submodule_search_locations
    file = primers.Path(folder) / "tasks" / "truthfulqa" / "truthfulqa_mc1.yaml"
    template = jinja2.Template(yaml.safe_load(file.read_text())["doc_to_text"], keep_trailing_newline=True)
    primer = primer_text("published")
    assert primer.count("Q: ") == primer.count("\nA: ") == 6
    assert primer.count("A: I have no comment.") == 1
    assert not set(primer.split("\n\n")) & set(primer_text("own").split("\n\n"))
    for text in ("Is it so?", 'What\'s <b>"bold"</b> & new? '):
        assert ask(told(text=text), primer).prompt == template.render(question=text)


def test_a_chat_template_holds_primer_and_question(tokenizer, monkeypatch, mine, tmp_path):
    name, chat = mine(told(text="Is it so? ")), QaOptions(qa_chat=True)
    with pytest.raises(TextError, match=r"the tokenizer has no chat template. Leave --qa-chat away"):
        asked(name, 0, chat, side="fit")
    with pytest.raises(TextError, match="the tokenizer has no chat template"):
        asked(name, 0, chat, tokenizer=tokenizer, side="fit")
    monkeypatch.setattr(tokenizer, "chat_template", CHAT)
    (question,) = asked(name, 0, chat, tokenizer=tokenizer, side="fit")
    assert question.prompt == (
        "<|start|>user\nAnswer the question briefly.\n\nQ: Is it so?<|end|>\n<|start|>assistant\nA:"
    )
    assert not question.special
    (tmp_path / "mine.txt").write_text("Q: One?\nA: Two.")
    primed = QaOptions(qa_chat=True, primer=str(tmp_path / "mine.txt"))
    (question,) = asked(name, 0, primed, tokenizer=tokenizer, side="fit")
    assert "briefly.\n\nQ: One?\nA: Two.\n\nQ: Is it so?<|end|>" in question.prompt
    monkeypatch.setattr(tokenizer, "chat_template", "{{ messages[0].content | upper }}")
    with pytest.raises(TextError, match=r"changes the text of the question. Leave --qa-chat away"):
        asked(name, 0, chat, tokenizer=tokenizer, side="fit")
    monkeypatch.setattr(tokenizer, "chat_template", "{{ raise_exception('no users') }}")
    with pytest.raises(TextError, match=r"cannot be applied \(no users\). Leave --qa-chat away"):
        asked(name, 0, chat, tokenizer=tokenizer, side="fit")


# Pairs


def pairs_of(name, limit=0, options=NONE, **rest):
    """Each question's right and wrong answer, by its id; they stand side by side and are of one prompt."""
    found = answer_pairs((name,), limit, options, **rest)
    right, wrong = found[::2], found[1::2]
    assert [a.hallucinated for a in found] == [False, True] * len(right)
    for one, two in zip(right, wrong, strict=True):
        assert (one.id, one.prompt, one.cluster, one.special) == (two.id, two.prompt, two.cluster, two.special)
    return {one.id: (one.answer, two.answer) for one, two in zip(right, wrong, strict=True)}


def test_pairs_are_a_right_and_a_wrong_answer_in_a_fixed_order(mine):
    questions = [told(f"q{n}", f"What is {n}?", ("r0", "r1", "r2"), ("w0", "w1", "w2")) for n in range(60)]
    name = mine(*questions, sentences=True)
    found = pairs_of(name)
    assert list(found) == [f"mine:{q.id}" for q in set_questions(QUESTION_SETS[name], 0, "fit")]
    # Each of the answers is taken by some question, and not always of one rank.
    assert {right for right, _ in found.values()} == {" r0", " r1", " r2"}
    assert {wrong for _, wrong in found.values()} == {" w0", " w1", " w2"}
    assert len(set(found.values())) == 9
    assert max(Counter(right for right, _ in found.values()).values()) < 40
    mine(*reversed(questions), sentences=True)
    assert list(pairs_of(name).items()) == list(found.items())
    assert list(pairs_of(name, 7).items()) == list(found.items())[:7]
    mine(*questions[:30], sentences=True)
    assert pairs_of(name) == {key: value for key, value in found.items() if int(key[6:]) < 30}
    # Of short answers the best, in the form of the wrong ones.
    mine(*questions)
    assert pairs_of(name) == {key: (" r0", wrong) for key, (_, wrong) in found.items()}


def test_pairs_are_asked_as_audits_ask(mine, tokenizer, monkeypatch):
    name = mine(told("x", "Who?", ("a",), ("b",), cluster="c"), told("y", "Why?", ("a",), ("b",)))
    found = answer_pairs((name,), 0, QaOptions(primer="own"))
    expected = asked(name, 0, QaOptions(primer="own"), side="fit")
    assert [a.prompt for a in found[::2]] == [q.prompt for q in expected]
    assert {a.cluster for a in found} == {"mine:c", "mine:y"}
    assert all(a.special for a in found)
    monkeypatch.setattr(tokenizer, "chat_template", CHAT)
    found = answer_pairs((name,), 0, QaOptions(qa_chat=True), tokenizer=tokenizer)
    expected = asked(name, 0, QaOptions(qa_chat=True), tokenizer=tokenizer, side="fit")
    assert [(a.prompt, a.special) for a in found[::2]] == [(q.prompt, False) for q in expected]
    audited = answer_pairs((mine(*(told(str(n), f"{n}?", ("a",), ("b",)) for n in range(8)), side=None),), 0, NONE)
    fitted = {a.id for a in audited}
    asked_there = {a.id for a in answer_pairs((name,), 0, NONE, side="audit")}
    assert (len(fitted), len(asked_there)) == (2, 6)
    assert not fitted & asked_there


def test_pairs_of_several_sets_have_ids_of_their_own(mine, own):
    name = mine(told("1", "Who?", ("a",), ("b",)))
    rows = [{"question": f"What is {n}?", "right": "x", "wrong": "y"} for n in range(4)]
    found = answer_pairs((name, own(*rows, name="quiz")), 0, NONE)
    assert found[0].id == "mine:1"
    assert {a.id.split(":")[0] for a in found} == {"mine", "quiz"}
    assert len({a.id for a in found}) == len(found) // 2 == 2
    with pytest.raises(TextError, match="the question set mine is given twice"):
        answer_pairs((name, name), 0, NONE)
    with pytest.raises(TextError, match="there is no question set"):
        answer_pairs((), 0, NONE)


def test_wrong_answers_are_borrowed_from_questions_of_the_same_form(mine):
    forms = {
        "year": ["1912", "1950", "2001"],
        "name": ["Ann Lee", "Bo Kim", "Cy Doe"],
        "thing": ["stone", "water", "wood"],
        "shout": ["NATO", "UNESCO", "OPEC"],
        "two": ["blue whale", "grey wolf", "red deer"],
    }
    questions = [
        told(f"{f}{n}", f"{f} {n}?", (a, f"x{f}{n}")) for f, all_of in forms.items() for n, a in enumerate(all_of)
    ]
    name = mine(*questions)
    found = pairs_of(name)
    assert len(found) == 15
    for question in questions:
        right, wrong = found[f"mine:{question.id}"]
        # The best answer of both, and never an alias.
        assert right == f" {question.right[0]}"
        alike = next(answers for answers in forms.values() if question.right[0] in answers)
        assert wrong[1:] in set(alike) - {question.right[0]}
    assert pairs_of(name, 4) == dict(list(found.items())[:4])
    # The hash spreads what is borrowed over the questions.
    mine(*(told(f"q{n}", f"{n}?", (f"{chr(65 + n)}nn",)) for n in range(26)))
    assert len({wrong for _, wrong in pairs_of(name).values()}) > 9


def test_a_borrowed_answer_is_none_of_the_own(mine):
    own = told("own", "Which city?", ("Paris", "the City of Light"))
    aliases = ["The paris!", "Paris France", "PARIS", "City of light", "Light"]
    others = [told(str(n), f"What is {n}?", (a,), ("no",)) for n, a in enumerate(aliases)]
    name = mine(own, *others)
    with pytest.raises(TextError, match="no other question of mine has an answer that is wrong for the question own"):
        answer_pairs((name,), 0, NONE)
    # Another form is better than none; what only shares letters is another answer.
    mine(own, *others, told("z", "How many?", ("12 parish",), ("no",)))
    assert pairs_of(name)["mine:own"] == (" Paris", " 12 parish")
    # Questions of one fact lend each other nothing.
    mine(own, told("z", "How many?", ("12",), cluster="own"))
    with pytest.raises(TextError, match=r"is wrong for the question (own|z). Give more questions"):
        answer_pairs((name,), 0, NONE)
    # Of articles and marks alone, yet another answer.
    mine(told("own", right=("The The",)), told("z", "Who?", ("A",), ("no",)))
    assert pairs_of(name)["mine:own"] == (" The The", " A")


def test_without_its_form_an_answer_alike_in_digits_and_capitals_is_borrowed(mine):
    others = [
        told("a", "A?", ("stone",), ("x",)),
        told("b", "B?", ("Bo Kim",), ("x",)),
        told("c", "C?", ("12",), ("x",)),
    ]
    found = [told(f"own{n}", "Who?", ("Cher",)) for n in range(8)]
    for own in found:
        name = mine(own, *others)
        assert pairs_of(name)[f"mine:{own.id}"] == (" Cher", " Bo Kim")


def test_disputed_answers_are_no_example_of_either(mine):
    questions = [
        told(f"q{n}", f"{n}?", ("no", "unknown"), ("unknown", "yes"), disputed=("unknown",)) for n in range(12)
    ]
    assert set(pairs_of(mine(*questions)).values()) == {(" no", " yes")}
    alone = told("d", "d?", ("unknown",), ("unknown", "yes"), disputed=("unknown",))
    with pytest.raises(TextError, match="every right answer of the question d of mine is disputed"):
        answer_pairs((mine(alone),), 0, NONE)


# Real rows


class TestRealRows:
    pytestmark = needs_data

    @pytest.fixture(autouse=True)
    def _mirror(self, monkeypatch):
        monkeypatch.setenv("TRUEPRUNE_DATA", DATA)

    @pytest.mark.parametrize("name", HUB)
    def test_sides_and_pairs(self, name):
        audited, fitted = (set_questions(find_set(name), 0, side) for side in ("audit", "fit"))
        assert len(audited) > 150
        assert len(fitted) >= 60
        for what in (lambda q: q.id, lambda q: q.cluster or q.id, lambda q: q.sha256, lambda q: q.text.lower()):
            assert not set(map(what, audited)) & set(map(what, fitted))
        by_id = {f"{name}:{question.id}": question for question in fitted}
        found = pairs_of(name)
        assert set(found) == set(by_id)
        for key, (right, wrong) in found.items():
            assert right[1:] in by_id[key].right
            assert normalise(wrong) not in map(normalise, by_id[key].right)

    def test_truthfulqa(self):
        questions = everything("truthfulqa").values()
        assert len(questions) == 817
        assert all(q.one[0] == q.right[0] and set(q.one[1:]) <= set(q.wrong) for q in questions)
        assert sum(bool(q.disputed) for q in questions) == 2
        assert any(len(set(q.right)) < len(q.right) for q in questions)

    def test_triviaqa_has_no_csv_quotes_left(self):
        questions = everything("triviaqa").values()
        assert not any('""' in question.text for question in questions)
        # What was cut in the middle of a field stays as it is.
        assert sum('""' in answer for question in questions for answer in question.right) < 5

    def test_short_answers_are_short(self):
        for name in ("nq_open", "triviaqa", "sciq"):
            lengths = sorted(len(q.right[0].split()) for q in everything(name).values())
            assert lengths[len(lengths) // 2] <= 3
