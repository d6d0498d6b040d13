"""Classification tasks: rows that are right, sides that never meet, prompts whose words stand where they should."""

from __future__ import annotations

import hashlib
import json
import os
import re
import string
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trueprune._support.errors import TextError
from trueprune.texts import select
from trueprune.texts.facts import embedded_statements
from trueprune.texts.tasks import (
    TASKS,
    ChoiceItem,
    PromptOptions,
    Task,
    TaskItem,
    TaskOptions,
    check_tasks,
    find_task,
    masked_prompt,
    questions,
    render,
    task_items,
    words_of,
)
from trueprune.texts.tasks.embedded import NEAR, unmarked

DATA = os.environ.get("TRUEPRUNE_DATA")
needs_data = [pytest.mark.data, pytest.mark.skipif(not DATA, reason="TRUEPRUNE_DATA is not set")]
EMBEDDED = ("facts", "sentiment", "commonsense")
# A template in the manner of ChatML; its own words (user, assistant, end) may also be a question's.
CHAT = (
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def row(name="a", fields=("The soup was cold .",), options=("bad", "good"), gold=0, cluster="", rationale=None):
    return TaskItem(name, tuple(fields), tuple(options), gold, cluster, rationale)


def task_of(*items, fit=None, **how):
    return Task("mine", lambda: iter(items), fit_rows=None if fit is None else lambda: iter(fit), **how)


@pytest.fixture
def chatty(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", CHAT)
    return tokenizer


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    def write(name, rows):
        file = tmp_path / "mirror" / f"{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        monkeypatch.setenv("TRUEPRUNE_DATA", str(tmp_path / "mirror"))

    return write


def told(name, side="audit"):
    """A task's items by id."""
    return {item.id: item for item in task_items(find_task(name), 0, side)}


# Items


def test_items_are_checked():
    for bad in ({"fields": (" ", "")}, {"fields": ()}):
        with pytest.raises(TextError, match="the item a has no text"):
            row(**bad)
    for bad in (("bad",), ("bad", " ")):
        with pytest.raises(TextError, match="the item a lacks two options with text"):
            row(options=bad)
    for bad in (-1, 2):
        with pytest.raises(TextError, match=f"{bad} is none of its 2 options"):
            row(gold=bad)
    with pytest.raises(TextError, match="has its right option twice"):
        row(options=("bad", "good", "bad"))
    assert row(options=("bad", "good", "good")).gold == 0
    with pytest.raises(TextError, match="the rationale of the item a is not one mark a word"):
        row(rationale=(True, False, False))
    assert row(rationale=(True, False, False, True)).rationale
    with pytest.raises(TextError, match="the item a lacks a prompt or two options"):
        ChoiceItem("a", " ", ("x", "y"), 0, "a")
    with pytest.raises(TextError, match="the item a lacks a prompt or two options"):
        ChoiceItem("a", "Q", ("x",), 0, "a")
    with pytest.raises(TextError, match="2 is none of its 2 options"):
        ChoiceItem("a", "Q", ("x", "y"), 2, "a")


def test_the_hash_is_of_text_and_options():
    one = row()
    assert replace(one, id="b", gold=1, cluster="c").sha256 == one.sha256
    changed = [replace(one, fields=("The soup was cold",)), replace(one, options=("good", "bad"))]
    changed += [replace(one, fields=(*one.fields, "bad"), options=("good", "x"), gold=0)]
    assert len({one.sha256, *(other.sha256 for other in changed)}) == 4
    item = render(task_of(one), one, PromptOptions())
    assert item.sha256 == one.sha256
    assert ChoiceItem("a", "Q", ("x", "y"), 0, "a").sha256 != ChoiceItem("a", "Q", ("x", "z"), 0, "a").sha256


# Embedded tasks


def test_facts_are_right_and_many():
    items = questions("facts")
    assert len(items) > 300
    assert len({item.id for item in items}) == len(items)
    assert all(len(set(item.options)) == 4 for item in items)
    gold = {item.prompt + item.options[item.gold] + "." for item in items}
    true = {s.text for s in embedded_statements() if s.label and s.polarity == "affirmative" and s.language == "en"}
    assert gold <= true
    wrong = {item.prompt + o + "." for item in items for i, o in enumerate(item.options) if i != item.gold}
    assert not wrong & true
    # Each place holds the right option about as often as any other.
    places = Counter(item.gold for item in items)
    assert set(places) == {0, 1, 2, 3}
    assert min(places.values()) > len(items) / 8
    animal = next(item for item in items if item.id.startswith("animals:"))
    assert all(option.startswith((" a ", " an ")) for option in animal.options)
    word = next(item for item in items if item.id.startswith("translations:"))
    assert word.prompt.endswith("' means")
    assert all(option.startswith(" '") and option.endswith("'") for option in word.options)
    for item in items:
        if item.id.startswith("people:"):
            trades = [option.split()[-1] for option in item.options]
            assert not any(frozenset((trades[item.gold], other)) in NEAR for other in trades)


def test_facts_that_may_choose_sparsities_are_left_out_and_are_what_is_fitted_on():
    chosen = {s.group for s in select(embedded_statements(), "choose")}
    assert chosen
    assert not chosen & {item.cluster for item in questions("facts")}
    facts = {f"{row['topic']}:{row['subject']}" for row in rows_of("facts.csv")}
    assert {item.cluster for item in questions("facts", side="fit")} == chosen & facts
    assert len(chosen & facts) > 50


def test_sentiment_and_commonsense():
    items = told("sentiment")
    both = {**items, **told("sentiment", "fit")}
    assert len(both) >= 200
    assert all(item.options == ("negative", "positive") and any(item.rationale) for item in both.values())
    assert not any("[" in item.fields[0] or "]" in item.fields[0] for item in both.values())
    both = {**told("commonsense"), **told("commonsense", "fit")}
    assert len(both) >= 200
    assert set(Counter(item.gold for item in both.values())) == {0, 1, 2, 3}
    file = {r["question"]: r for r in rows_of("commonsense.csv")}
    for item in both.values():
        answers = file[item.fields[0]]
        assert item.options[item.gold] == answers["right"]
        assert sorted(item.options) == sorted(answers[name] for name in ("right", "wrong1", "wrong2", "wrong3"))


def rows_of(name):
    from trueprune.texts.rows import embedded_file, read_csv

    return read_csv(embedded_file(name))


def test_unmarked():
    assert unmarked("The soup was [cold] .") == ("The soup was cold .", (False, False, False, True))
    assert unmarked("[All of] it") == ("All of it", (True, True, False))
    assert unmarked("un[heard], [of]") == ("unheard, of", (True, True))
    assert unmarked("plain") == ("plain", (False,))
    assert unmarked("no [] words") == ("no  words", (False, False))
    for bad in ("a [b", "a] b", "a [b [c] d]", "a ]b[ c", "[a]]"):
        with pytest.raises(TextError, match=re.escape(f"the brackets of {bad!r} do not match")):
            unmarked(bad)


# Sides


def of_hash(items, key=lambda item: item.id):
    return sorted(items, key=lambda item: hashlib.sha256(key(item).encode()).digest())


def test_the_order_is_that_of_hashes_and_the_last_quarter_is_for_fitting():
    items = [row(str(n), (f"text {n}",)) for n in range(41)]
    task, ordered = task_of(*items), of_hash(items)
    assert task_items(task) == ordered[:31]
    assert task_items(task, side="fit") == ordered[31:]
    assert task_items(task, 7) == ordered[:7]
    assert task_items(task, 3, "fit") == ordered[31:34]
    assert task_items(task_of(*reversed(items))) == ordered[:31]


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.lists(st.integers(0, 60), min_size=40, max_size=40))
def test_sides_share_no_item_no_cluster_and_no_text(clusters, texts):
    items = [row(str(n), (f"text {texts[n]}",), cluster=f"c{c}" if c else "") for n, c in enumerate(clusters)]
    audited = task_items(task_of(*items))
    assert audited
    try:
        fitted = task_items(task_of(*items), side="fit")
    except TextError as error:
        assert "too few items to keep some for fitting" in error.problem
        return
    for what in (lambda i: i.id, lambda i: i.cluster or i.id, lambda i: i.sha256):
        assert not set(map(what, audited)) & set(map(what, fitted))
    assert len(audited) + len(fitted) <= len(items)


def test_clusters_stay_whole():
    items = [row(f"{n}", (f"text {n}",), cluster=f"c{n // 6}") for n in range(42)]
    audited, fitted = (task_items(task_of(*items), side=side) for side in ("audit", "fit"))
    assert len(audited) + len(fitted) == 42
    # A quarter would be 10 items: it grows to two whole clusters of six.
    assert len({item.cluster for item in fitted}) == 2
    assert Counter(item.cluster for item in audited + fitted) == dict.fromkeys((f"c{n}" for n in range(7)), 6)
    # An item named like a cluster is one of it, and a cluster that is everything is audited.
    assert len(task_items(task_of(*(row(str(n), (f"t {n}",), cluster="one") for n in range(9))))) == 9


@pytest.mark.parametrize("count", [1, 2, 3])
def test_too_few_items_are_all_audited(count):
    task = task_of(*(row(str(n), (f"t {n}",)) for n in range(count)))
    assert len(task_items(task)) == count
    with pytest.raises(TextError, match="the task mine has too few items to keep some for fitting"):
        task_items(task, side="fit")


def test_items_of_their_own_to_fit_leave_all_others_to_the_audit():
    items = [row(str(n), (f"t {n}",)) for n in range(8)]
    task = task_of(*items[:6], fit=items[6:])
    assert set(task_items(task)) == set(items[:6])
    assert set(task_items(task, side="fit")) == set(items[6:])


def test_a_smaller_limit_gives_a_part_of_a_larger_one():
    everything = questions("facts")
    assert questions("facts") == everything
    assert questions("facts", 50) == everything[:50]
    topics = Counter(item.id.split(":")[0] for item in everything[:100])
    assert len(topics) == 8  # the order mixes the topics


def test_what_cannot_be_a_task_is_named():
    with pytest.raises(TextError, match="two items of mine have the id 'x'"):
        task_items(task_of(row("x"), row("x", ("other",))))
    with pytest.raises(TextError, match="the rows of mine hold no question"):
        task_items(task_of())
    with pytest.raises(TextError, match="the item a has 1 fields, its template 2"):
        render(task_of(row(), template="{} and {}"), row(), PromptOptions())


# Rows of the hub


def test_the_tasks():
    paper = {"arc_easy", "arc_challenge", "openbookqa", "sciq", "boolq", "rte", "sst2", "rotten_tomatoes", "tweet_eval"}
    assert set(TASKS) >= paper | {"commonsense_qa", *EMBEDDED}
    assert all(name == task.name for name, task in TASKS.items())
    tweets = {name for name in TASKS if name.startswith("tweet_eval")}
    assert tweets == {"tweet_eval", *(f"tweet_eval_{n}" for n in ("emotion", "irony", "hate", "offensive"))}
    labelled = {name for name, task in TASKS.items() if task.labels}
    assert labelled == {"sentiment", "boolq", "rte", "sst2", "rotten_tomatoes", *tweets}


# What each task of labels makes of a row: file, row, its prompt, its options, the right one.
LABELLED = {
    "boolq": (
        "google__boolq/default/validation",
        {"passage": " Ice floats. ", "question": "does ice float", "answer": True},
        "Answer the question about the passage by yes or no.\nPassage: Ice floats.\nQuestion: does ice float?\nAnswer:",
        (" no", " yes"),
        1,
    ),
    "rte": (
        "nyu-mll__glue/rte/validation",
        {"sentence1": "It rained.", "sentence2": "It was wet.", "label": 0, "idx": 0},
        "Does the hypothesis follow from the premise? True or False?\n"
        "Premise: It rained.\nHypothesis: It was wet.\nAnswer:",
        (" True", " False"),
        0,
    ),
    "sst2": (
        "stanfordnlp__sst2/default/validation",
        {"sentence": "a joy ", "label": 1},
        "Is the sentiment of the sentence positive or negative?\nSentence: a joy\nSentiment:",
        (" negative", " positive"),
        1,
    ),
    "rotten_tomatoes": (
        "cornell-movie-review-data__rotten_tomatoes/default/test",
        {"text": "a bore .", "label": 0},
        "Is the sentiment of the review positive or negative?\nReview: a bore .\nSentiment:",
        (" negative", " positive"),
        0,
    ),
    "tweet_eval": (
        "cardiffnlp__tweet_eval/sentiment/test",
        {"text": "@user meh", "label": 1},
        "Is the sentiment of the tweet negative, neutral or positive?\nTweet: @user meh\nSentiment:",
        (" negative", " neutral", " positive"),
        1,
    ),
    "tweet_eval_emotion": (
        "cardiffnlp__tweet_eval/emotion/test",
        {"text": "hurrah", "label": 2},
        "Is the emotion of the tweet anger, joy, optimism or sadness?\nTweet: hurrah\nEmotion:",
        (" anger", " joy", " optimism", " sadness"),
        2,
    ),
    **{
        f"tweet_eval_{name}": (
            f"cardiffnlp__tweet_eval/{name}/test",
            {"text": "so great", "label": 1},
            f"Is the tweet {adjective}? Yes or no?\nTweet: so great\nAnswer:",
            (" no", " yes"),
            1,
        )
        for name, adjective in (("irony", "ironic"), ("hate", "hateful"), ("offensive", "offensive"))
    },
}


@pytest.mark.parametrize("name", LABELLED)
def test_labelled_rows_of_the_hub_become_questions(name, mirror):
    file, hub_row, prompt, options, gold = LABELLED[name]
    mirror(file, [hub_row])
    (item,) = questions(name)
    assert (item.prompt, item.options, item.gold, item.id) == (prompt, options, gold, "0")
    column = next(key for key in ("answer", "label") if key in hub_row)
    mirror(file, [hub_row, {**hub_row, column: 1 - int(hub_row[column] > 0)}])
    assert {item.id: item.gold for item in questions(name)}["1"] == 1 - int(hub_row[column] > 0)
    mirror(file, [{key: value for key, value in hub_row.items() if key != column}])
    with pytest.raises(TextError, match=f"the rows of {name} lack the column '{column}'"):
        questions(name)


def test_every_registered_task_of_the_hub_has_a_row_here():
    choices = {"arc_easy", "arc_challenge", "openbookqa", "commonsense_qa", "sciq"}
    assert set(TASKS) == {*EMBEDDED, *LABELLED, *choices}


def test_rows_of_a_hidden_test_split_are_left_out(mirror):
    rows = [{"sentence": f"it is {n}", "label": (-1, 0, 1)[n % 3]} for n in range(9)]
    mirror("stanfordnlp__sst2/default/validation", rows)
    found = {**told("sst2"), **told("sst2", "fit")}
    assert {name: item.gold for name, item in found.items()} == {"1": 0, "2": 1, "4": 0, "5": 1, "7": 0, "8": 1}
    mirror("stanfordnlp__sst2/default/validation", rows[:1])
    with pytest.raises(TextError, match="the rows of sst2 hold no question"):
        told("sst2")


def test_rows_with_choices_become_questions(mirror):
    choices = {"text": ["Up. ", "down"], "label": ["1", "2"]}
    rows = [{"id": "a", "question": " Where to? ", "choices": choices, "answerKey": "2"}]
    rows += [{"id": "b", "question": "No key", "choices": choices, "answerKey": ""}]
    twice = {"text": ["up", "down", "up "], "label": ["A", "B", "C"]}
    rows += [{"id": "c", "question": "Right twice", "choices": twice, "answerKey": "A"}]
    rows += [{"id": "d", "question": "Wrong twice", "choices": twice, "answerKey": "B"}]
    mirror("allenai__ai2_arc/ARC-Easy/test", rows)
    assert told("arc_easy") == {
        "a": TaskItem("a", ("Where to?",), ("Up.", "down"), 1),
        "d": TaskItem("d", ("Wrong twice",), ("up", "down", "up"), 1),
    }
    (asked,) = (item for item in questions("arc_easy") if item.id == "a")
    assert (asked.prompt, asked.options) == ("Question: Where to?\nAnswer:", (" Up.", " down"))
    mirror("allenai__ai2_arc/ARC-Challenge/test", [{**rows[0], "id": None}])
    assert [item.id for item in questions("arc_challenge")] == ["0"]
    mirror("allenai__openbookqa/main/test", [{**rows[0], "question_stem": "It goes"}])
    assert questions("openbookqa")[0].prompt == "Question: It goes\nAnswer:"
    mirror("tau__commonsense_qa/default/validation", [{"question": "x", "answerKey": "1"}])
    with pytest.raises(TextError, match="rows of commonsense_qa lack the column 'choices'"):
        questions("commonsense_qa")


def test_commonsense_qa_has_the_spans_of_cos_e(mirror):
    choices = {"text": ["lake", "moon"], "label": ["A", "B"]}
    texts = {
        "a": "Where do Fish swim today?",
        "b": "Where is it cold?",
        "c": "Where is it wet?",
        "d": "Where?",
        "e": "How so?",
    }
    rows = [{"id": key, "question": text, "choices": choices, "answerKey": "A"} for key, text in texts.items()]
    mirror("tau__commonsense_qa/default/validation", rows)
    plain = {**told("commonsense_qa"), **told("commonsense_qa", "fit")}
    assert all(item.rationale is None for item in plain.values())
    spans = {"a": " fish swim", "b": "not in it", "c": "Where is it wet?", "d": "", "e": None}
    mirror("Salesforce__cos_e/v1.11/validation", [{"id": key, "extractive_explanation": s} for key, s in spans.items()])
    found = {**told("commonsense_qa"), **told("commonsense_qa", "fit")}
    assert {name: item.rationale for name, item in found.items()} == {
        "a": (False, False, True, True, False),
        **dict.fromkeys("bcde"),
    }
    assert {name: replace(item, rationale=None) for name, item in found.items()} == plain


def test_sciq_needs_its_distractors(mirror):
    whole = {"question": "What?", "correct_answer": "this", "distractor1": "a", "distractor2": "b", "distractor3": "c"}
    rows = [{**whole, "question": f"What {n}?"} for n in range(40)]
    mirror("allenai__sciq/default/test", [*rows, {**whole, "distractor3": "this "}, {**whole, "distractor1": ""}])
    items = {**told("sciq"), **told("sciq", "fit")}
    assert len(items) == 40
    assert all(item.options[item.gold] == "this" and len(set(item.options)) == 4 for item in items.values())
    assert len({item.gold for item in items.values()}) == 4
    mirror("allenai__sciq/default/test", [{**whole, "distractor2": ""}])
    with pytest.raises(TextError, match="rows of sciq hold no question with all its options"):
        questions("sciq")


def test_rows_that_cannot_be_had_are_named(mirror, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    mirror("somewhere/else", [])
    with pytest.raises(TextError, match=r"allenai/ai2_arc .* use --tasks facts sentiment commonsense"):
        questions("arc_challenge")


# Words


def test_a_lone_mark_belongs_to_the_word_before():
    text = "a film , no -- less ... good 's 5 % !"
    assert [text[s:e] for s, e in words_of(text)] == ["a", "film ,", "no --", "less ...", "good", "'s", "5 % !"]
    # Where there is none before, it is a word: it may be all that a text has.
    assert words_of(". . a") == [(0, 3), (4, 5)]
    assert words_of(" ! ") == [(1, 2)]
    assert words_of("") == words_of(" \n ") == []
    assert words_of("é ü\tß") == [(0, 1), (2, 3), (4, 5)]


@given(st.text(alphabet="ab., \n\té", max_size=40))
def test_words_are_all_that_is_no_space(text):
    spans = words_of(text)
    assert all(start < end for start, end in spans)
    assert all(a[1] < b[0] and text[a[1] : b[0]].isspace() for a, b in pairwise(spans))
    assert "".join("".join(text[s:e].split()) for s, e in spans) == "".join(text.split())
    assert all(text[start:end] == text[start:end].strip() for start, end in spans)


STYLES = {
    "texts": PromptOptions(),
    "letters": PromptOptions(answers="letters"),
    "shots": PromptOptions(shots=3),
    "letters, shots": PromptOptions(answers="letters", shots=5),
    "chat": PromptOptions(chat=True),
    "chat, letters, shots": PromptOptions(answers="letters", chat=True, shots=4, correct="contextual"),
}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("task", EMBEDDED)
def test_every_span_is_a_word_of_the_item(task, style, chatty):
    for side in ("audit", "fit"):
        own = told(task, side)
        items = questions(task, 0, STYLES[style], tokenizer=chatty, side=side)
        for item in items:
            # The span of every word, and the whole text stands between the first and the last.
            text = own[item.id].fields[0]
            assert item.word_texts() == [text[s:e] for s, e in words_of(text)]
            start, end = item.words[0][0][0], item.words[-1][-1][1]
            assert item.prompt[start:end] == text.strip()
            assert item.rationale == own[item.id].rationale
            assert item.n_words == len(words_of(text))
            if task != "facts" or "letters" in style:
                # It is the question's text and not the same words of an example.
                assert len(re.findall(re.escape(task_cue(task)), item.prompt[end:])) == 1


def task_cue(task):
    return TASKS[task].cue or "Answer:"


# Words gone


@st.composite
def asked(draw):
    word = st.text(alphabet="ab.é{", min_size=1, max_size=4)
    space = st.text(alphabet=" \n", min_size=1, max_size=2)
    fields = []
    for _ in range(draw(st.integers(1, 3))):
        words = draw(st.lists(word, max_size=5))
        fields.append("".join(w + draw(space) for w in words).strip() if words else "")
    if not any(fields):
        fields[0] = "a"
    template = (
        draw(st.sampled_from(["", "Text:\n", "(a) "]))
        + " | ".join(["{}"] * len(fields))
        + draw(st.sampled_from(["", "?", " a"]))
    )
    cue = draw(st.sampled_from(["", "Answer:"]))
    instruction = draw(st.sampled_from(["", "Say a or b."]))
    return fields, template, cue, instruction, draw(st.sampled_from(["texts", "letters"])), draw(st.booleans())


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(asked(), st.data())
def test_only_words_go(given_item, data):
    fields, template, cue, instruction, answers, shown = given_item
    shots = [TaskItem("s", tuple("a b" for _ in fields), ("a", "b"), 1)] if shown else []
    question = TaskItem("x", tuple(fields), ("a b", "b"), 0)
    task = Task("t", lambda: iter(()), template, cue, instruction)
    item = render(task, question, PromptOptions(answers=answers), shots=shots)
    kept = data.draw(st.lists(st.booleans(), min_size=item.n_words, max_size=item.n_words))
    string = data.draw(st.sampled_from([None, "[MASK]", "_"]))
    result = masked_prompt(item, kept, string)
    marks = iter(kept)
    rest, done = result, 0
    for spans, text in zip(item.words, fields, strict=True):
        assert len(spans) == len(words_of(text))
        left = [item.prompt[s:e] if stays else string for s, e in spans for stays in [next(marks)] if stays or string]
        if not spans:
            continue
        outside = item.prompt[done : spans[0][0]]
        assert rest.startswith(outside)
        rest = rest[len(outside) :]
        done = spans[-1][1]
        for number, word in enumerate(left):
            if number:
                assert rest[0].isspace()
                rest = rest.lstrip(" \n")
            assert rest.startswith(word)
            rest = rest[len(word) :]
    assert rest == item.prompt[done:]
    assert masked_prompt(item, [True] * item.n_words, string) == item.prompt


def test_words_gone():
    item = render(
        task_of(row(), template="Say: {} !", instruction="Now.", cue="So:"), row("a", ("a  b c",)), PromptOptions()
    )

    def gone(kept, mask_string=None):
        return masked_prompt(item, [c == "1" for c in kept], mask_string)

    assert gone("111") == item.prompt == "Now.\nSay: a  b c !\nSo:"
    # A word goes with the space before it; where the first one goes, the next stands in its place.
    assert gone("101") == "Now.\nSay: a c !\nSo:"
    assert gone("110") == "Now.\nSay: a  b !\nSo:"
    assert gone("011") == "Now.\nSay: b c !\nSo:"
    assert gone("001") == "Now.\nSay: c !\nSo:"
    assert gone("000") == "Now.\nSay:  !\nSo:"
    assert gone("010", "[M]") == "Now.\nSay: [M]  b [M] !\nSo:"
    assert gone("000", "[M]") == "Now.\nSay: [M]  [M] [M] !\nSo:"
    two = row("b", ("a b", "c d"), ("x", "y"))
    item = render(task_of(two, template="P: {}\nH: {}?"), two, PromptOptions())
    assert masked_prompt(item, [False, True, True, False]) == "P: b\nH: c?\nAnswer:"
    assert masked_prompt(item, [False, False, False, True]) == "P: \nH: d?\nAnswer:"
    bare = render(task_of(row(), cue=""), row(), PromptOptions())
    assert masked_prompt(bare, [False] * 4) == ""


# Prompts


def test_letters_list_the_options_and_score_letters():
    item = row("a", ("What is wet?",), ("a stone", "the sea", "dust"), 1)
    asked = render(task_of(item, template="Question: {}"), item, PromptOptions(answers="letters"))
    assert asked.prompt == "Question: What is wet?\nA. a stone\nB. the sea\nC. dust\nAnswer:"
    assert (asked.options, asked.gold) == ((" A", " B", " C"), 1)
    # A text that would be gone on with needs a cue, too.
    bare = render(task_of(item, cue=""), item, PromptOptions(answers="letters"))
    assert bare.prompt.endswith("C. dust\nAnswer:")
    many = row("m", ("Which?",), tuple(f"o{n}" for n in range(27)))
    with pytest.raises(TextError, match="the item m has 27 options"):
        render(task_of(many), many, PromptOptions(answers="letters"))
    whole = render(task_of(many), replace(many, options=many.options[:26]), PromptOptions(answers="letters"))
    assert whole.options == tuple(f" {letter}" for letter in string.ascii_uppercase)


def test_examples_stand_in_front_with_their_answers():
    item, one, two = (row(name, (f"text {name}",), gold=name == "two") for name in ("item", "one", "two"))
    task = task_of(item, template="T: {}", cue="Is:", instruction="Say.")
    assert render(task, item, PromptOptions(), shots=[one, two]).prompt == (
        "Say.\nT: text one\nIs: bad\n\nT: text two\nIs: good\n\nT: text item\nIs:"
    )
    assert render(task, item, PromptOptions(answers="letters"), shots=[two]).prompt == (
        "Say.\nT: text two\nA. bad\nB. good\nIs: B\n\nT: text item\nA. bad\nB. good\nIs:"
    )
    # The answer goes on with the text itself.
    assert render(replace(task, cue=""), item, PromptOptions(), shots=[one]).prompt == (
        "Say.\nT: text one bad\n\nT: text item"
    )


def test_examples_come_from_the_side_for_fitting(monkeypatch):
    items = [row(str(n), (f"text<{n}>",), ("a", "b", "c"), n % 3 if n % 4 else 0) for n in range(60)]
    monkeypatch.setitem(TASKS, "mine", task_of(*items))
    fit = task_items(TASKS["mine"], side="fit")
    by_id = {item.id: item for item in items}
    for count in (1, 2, 7, 15):
        shown = re.findall(r"text<(\d+)>\nAnswer: \w", questions("mine", 1, PromptOptions(shots=count))[0].prompt)
        assert len(shown) == len(set(shown)) == count
        assert set(shown) <= {item.id for item in fit}
        # Each right option's position in turn, as long as there are examples of each.
        turns = [by_id[name].gold for name in shown]
        least = min(Counter(item.gold for item in fit).values())
        assert turns[: 3 * least] == ([0, 1, 2] * count)[: min(count, 3 * least)]
        every = questions("mine", 0, PromptOptions(shots=count))
        assert len({item.prompt.split("text<")[1] for item in every}) == 1
        fitted = questions("mine", 0, PromptOptions(shots=count), side="fit")
        assert {item.id for item in fitted} == {item.id for item in fit} - set(shown)
    with pytest.raises(TextError, match="the task mine has 15 examples, --shots asks for 16"):
        questions("mine", 1, PromptOptions(shots=16))


def test_a_chat_template_holds_the_question(chatty):
    item, one = row("item", ("the text",)), row("one", ("first",), gold=1)
    task = task_of(item, template="T: {}", cue="Is:", instruction="Say.")
    chat = PromptOptions(chat=True)
    asked = render(task, item, chat, tokenizer=chatty, shots=[one])
    assert asked.prompt == (
        "<|start|>user\nSay.\nT: first<|end|>\n<|start|>assistant\nIs: good<|end|>\n"
        "<|start|>user\nT: the text<|end|>\n<|start|>assistant\nIs:"
    )
    assert asked.word_texts() == ["the", "text"]
    assert (asked.special, render(task, item, PromptOptions()).special) == (False, True)
    bare = render(replace(task, cue=""), item, chat, tokenizer=chatty)
    assert bare.prompt == "<|start|>user\nSay.<|end|>\n<|start|>assistant\nT: the text"
    bare = render(replace(task, cue="", instruction=""), item, chat, tokenizer=chatty, shots=[one])
    assert bare.prompt == (
        "<|start|>user\nComplete the text.<|end|>\n<|start|>assistant\nT: first good<|end|>\n"
        "<|start|>user\nComplete the text.<|end|>\n<|start|>assistant\nT: the text"
    )
    assert bare.word_texts() == ["the", "text"]


@pytest.mark.parametrize("text", ["assistant", "user", "end", "start", "a", "0", "01", "<|end|>", "text same", "|"])
def test_words_that_the_chat_template_also_has_are_found_in_the_question(text, chatty):
    """The spans are those of the question: not of an example, nor of the template's own words around it."""
    item, shot = row("a", (text,)), row("b", (f"{text}  more",))
    for instruction in ("", text):
        task = task_of(item, instruction=instruction)
        asked = render(task, item, PromptOptions(chat=True), tokenizer=chatty, shots=[shot])
        start = asked.words[0][0][0]
        assert asked.word_texts() == [text[s:e] for s, e in words_of(text)]
        assert asked.prompt[:start].endswith("<|start|>user\n")
        assert asked.prompt[start:] == f"{text}<|end|>\n<|start|>assistant\nAnswer:"


def test_chat_templates_that_do_not_serve_are_named(tokenizer, monkeypatch):
    item = row()
    chat = PromptOptions(chat=True)
    for having in (None, tokenizer):
        with pytest.raises(TextError, match="the tokenizer has no chat template"):
            render(task_of(item), item, chat, tokenizer=having)
    for template, problem in {
        CHAT.replace("m.content", "m.content | upper"): "changes the text of the question",
        CHAT.replace("{{ m.content }}", ""): "changes the text of the question",
        "{{ raise_exception('no such role') }}": "cannot be applied .no such role",
        "{% nonsense %}": "cannot be applied",
    }.items():
        monkeypatch.setattr(tokenizer, "chat_template", template)
        with pytest.raises(TextError, match=problem):
            render(task_of(item), item, chat, tokenizer=tokenizer)


def test_premises(chatty):
    item = row("a", ("one two", "three"), ("bad", "good"))
    task = task_of(item, template="{} / {}", cue="Is:", instruction="Say.")
    shot = row("b", ("x", "y"))

    def premises(task=task, **how):
        return render(task, item, PromptOptions(**how), tokenizer=chatty, shots=[shot]).premises

    assert premises() == ()
    assert premises(correct="pmi") == ("Is:",)
    assert premises(correct="contextual") == ("Say.\nx / y\nIs: bad\n\nN/A / N/A\nIs:",)
    assert premises(correct="contextual", answers="letters") == (
        "Say.\nx / y\nA. bad\nB. good\nIs: A\n\nN/A / N/A\nA. bad\nB. good\nIs:",
    )
    (chat,) = premises(correct="contextual", chat=True)
    assert chat.endswith("<|start|>user\nN/A / N/A<|end|>\n<|start|>assistant\nIs:")
    # What begins a chat begins the premise, too.
    assert premises(correct="pmi", chat=True) == ("<|start|>user\n<|end|>\n<|start|>assistant\nIs:",)
    bare = replace(task, cue="")
    with pytest.raises(TextError, match="the task mine has no answer cue"):
        premises(bare, correct="pmi")
    assert premises(bare, correct="pmi", answers="letters") == ("Answer:",)
    assert premises(bare, correct="contextual") == ("Say.\nx / y bad\n\nN/A / N/A",)


# A file of the user's own


@pytest.fixture
def own(tmp_path):
    def write(*rows, name="mine"):
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
        return str(file)

    return write


GOOD = {"text": "It was fine.", "options": ["no", "yes"], "gold": "yes"}


def test_a_file_of_questions(own):
    other = {"text": "It was not.", "options": ["no", "yes"], "gold": 0, "id": "n", "cluster": "fine"}
    marked = {**GOOD, "text": "It was [bad].", "rationale": True, "id": 7}
    brackets = {**GOOD, "text": "As [sic] here"}
    task = find_task(own(GOOD, other, marked, brackets))
    assert (task.name, task.template, task.cue, task.instruction, task.labels) == ("mine", "{}", "Answer:", "", True)
    found = list(task.rows())
    assert [item.id for item in found] == ["1", "n", "7", "4"]
    assert [item.gold for item in found] == [1, 0, 1, 1]
    assert [item.cluster for item in found] == ["", "fine", "", ""]
    assert found[2].fields == ("It was bad.",)
    assert [item.rationale for item in found] == [None, None, (False, False, True), None]
    assert found[3].fields == ("As [sic] here",)
    asked = {item.id: item for item in questions(own(GOOD, other))}
    assert asked["1"].prompt == "It was fine.\nAnswer:"
    assert asked["n"].cluster == "fine"
    assert not find_task(own(GOOD, {**other, "options": ["no", "maybe"]})).labels


def test_spaces_around_a_users_options_are_not_scored(own):
    (item,) = questions(own({**GOOD, "options": [" no", "yes "], "gold": " no"}))
    assert (item.options, item.gold) == ((" no", " yes"), 0)


def test_a_file_says_how_it_is_asked(own):
    file = own({"instruction": "Say.", "template": "R: {}", "cue": "S:"}, GOOD, {**GOOD, "text": "Other"})
    asked = {item.id: item for item in questions(file)}
    assert {name: item.prompt for name, item in asked.items()} == {
        "2": "Say.\nR: It was fine.\nS:",
        "3": "Say.\nR: Other\nS:",
    }
    assert questions(own({"cue": ""}, GOOD))[0].prompt == "It was fine."


def no(key):
    return {name: value for name, value in GOOD.items() if name != key}


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        *(([GOOD, no(key)], rf"row 2 lacks '{key}'") for key in GOOD),
        *(([no(key), GOOD], rf"row 1 lacks '{key}'") for key in GOOD),
        ([{"cue": "S:"}, no("gold")], "row 2 lacks 'gold'"),
        ([{**GOOD, "gold": "maybe"}], "row 1: the gold 'maybe' is none of the options"),
        *(([GOOD, {**GOOD, "gold": g}], f"row 2: the gold {g!r} is no index") for g in (2, -1, True, 1.0, None)),
        ([{**GOOD, "options": ["yes"]}], "row 1: the item 1 lacks two options"),
        ([{**GOOD, "options": ["yes", ""]}], "row 1: the item 1 lacks two options"),
        ([{**GOOD, "options": ["yes", "no", "yes"]}], "row 1: the item 1 has its right option twice"),
        *(([{**GOOD, "options": o}], "row 1: options are no list of strings") for o in ("yes", [1, 2], None)),
        *(([{**GOOD, "text": t, "rationale": r}], "row 1: the text is no string") for t in (5, None) for r in (0, 1)),
        ([{**GOOD, "text": " "}], "row 1: the item 1 has no text"),
        ([GOOD, {**GOOD, "text": "a [b", "rationale": True}], "row 2: the brackets of 'a \\[b' do not match"),
        ([{**GOOD, "id": "x"}, GOOD, {**GOOD, "id": "x"}], "row 3 has the id 'x' of row 1"),
        ([{**GOOD, "id": 2}, GOOD], "row 2 has the id '2' of row 1"),
        (["{", GOOD], "line 1 is not JSON"),
        ([GOOD, "[1]"], "line 2 is no JSON object"),
        ([{"template": "no place"}, GOOD], r"the template of .*mine.jsonl must hold \{\} once"),
        ([{"template": "{} {}"}, GOOD], r"the template of .*mine.jsonl must hold \{\} once"),
        *(([h, GOOD], f"row 1: '{next(iter(h))}' is no text of") for h in ({"cue": 1}, {"instruktion": "x"})),
        ([], "holds no rows"),
    ],
)
def test_what_is_wrong_with_a_file_is_named_with_its_row(own, rows, problem):
    with pytest.raises(TextError, match=problem) as caught:
        questions(own(*rows))
    assert "mine.jsonl" in caught.value.problem


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TextError, match=r"no task file at .*nothing.jsonl"):
        find_task(str(tmp_path / "nothing.jsonl"))


# Options


def test_unknown_tasks_are_refused(own):
    with pytest.raises(TextError, match=r"unknown task 'arc_esy'. Did you mean arc_easy\? Use one of facts, sentiment"):
        TaskOptions(tasks=("facts", "arc_esy"))
    with pytest.raises(TextError, match=r"unknown task 'zzz'. Use one of facts"):
        TaskOptions(tasks=("zzz",))
    with pytest.raises(TextError, match="there is no task"):
        TaskOptions(tasks=())
    with pytest.raises(TextError, match="the task facts is given twice"):
        TaskOptions(tasks=("facts", "sentiment", "facts"))
    with pytest.raises(TextError, match="the task facts is given twice"):
        check_tasks(["facts", own(GOOD, name="facts")])
    with pytest.raises(TextError, match="no task file at"):
        TaskOptions(tasks=("nowhere.jsonl",))
    check_tasks(["facts", "arc_easy", own(GOOD)])


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"items": -1}, "--items -1 is below 0"),
        ({"answers": "words"}, "--answers words is unknown"),
        ({"correct": "pmu"}, "--correct pmu is unknown"),
        ({"shots": -2}, "--shots -2 is below 0"),
    ],
)
def test_options_are_checked(wrong, problem):
    with pytest.raises(TextError, match=problem):
        TaskOptions(**wrong)


def test_options_that_are_right():
    for answers in ("texts", "letters"):
        for scoring in ("sum", "mean", "first"):
            for correct in ("none", "contextual", "pmi"):
                TaskOptions(answers=answers, scoring=scoring, correct=correct, items=0, shots=4, chat=True)


# Real rows

HELD = sorted(set(TASKS) - {*EMBEDDED, "tweet_eval", "sciq"})


def test_rows_of_the_wrong_type_are_named(mirror):
    for row in ({"sentence": None, "label": 1}, {"sentence": "fine", "label": "positive"}):
        mirror("stanfordnlp__sst2/default/validation", [row])
        with pytest.raises(TextError, match=r"the rows of sst2 cannot be read .* Give rows with the hub's columns"):
            questions("sst2")


class TestRealRows:
    pytestmark = needs_data

    @pytest.fixture(autouse=True)
    def _mirror(self, monkeypatch):
        monkeypatch.setenv("TRUEPRUNE_DATA", DATA)

    @pytest.mark.parametrize("name", HELD)
    def test_tasks(self, name):
        task = TASKS[name]
        audited, fitted = (task_items(task, side=side) for side in ("audit", "fit"))
        assert len(audited) >= (200 if name == "rte" else 375)
        assert len(fitted) >= 60
        for what in (lambda i: i.id, lambda i: i.cluster or i.id, lambda i: i.sha256):
            assert not set(map(what, audited)) & set(map(what, fitted))
        assert all(2 <= len(item.options) <= 5 for item in audited)
        places = Counter(item.gold for item in audited)
        assert max(places.values()) < 0.75 * len(audited)
        for item in questions(name, 300, PromptOptions(shots=2)):
            text = " ".join(item.word_texts())
            assert text and text.split() == [w for f in by(audited)[item.id].fields for w in f.split()]

    @pytest.mark.parametrize(
        ("name", "file"),
        [
            ("arc_easy", "allenai__ai2_arc/ARC-Easy/test.jsonl"),
            ("arc_challenge", "allenai__ai2_arc/ARC-Challenge/test.jsonl"),
            ("openbookqa", "allenai__openbookqa/main/test.jsonl"),
        ],
    )
    def test_audits_ask_what_they_always_asked(self, name, file):
        """The first questions in the order of the hash of their ids: earlier reports stay comparable."""
        ids = [json.loads(line)["id"] for line in (Path(DATA) / file).read_text(encoding="utf-8").splitlines()]
        ordered = sorted(ids, key=lambda name: hashlib.sha256(name.encode()).digest())
        left_out = set(ids) - {*told(name), *told(name, "fit")}
        assert len(left_out) <= 0.02 * len(ids)
        ordered = [one for one in ordered if one not in left_out]
        found = [item.id for item in questions(name)]
        assert found == ordered[: len(found)]
        assert len(found) == len(ordered) - len(ordered) // 4

    def test_rationales_of_commonsense_qa(self):
        items = task_items(TASKS["commonsense_qa"])
        marked = [item for item in items if item.rationale]
        assert len(marked) > 0.5 * len(items)
        assert all(any(item.rationale) and not all(item.rationale) for item in marked)


def by(items):
    return {item.id: item for item in items}
