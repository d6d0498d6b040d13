"""The embedded evaluation sets as raw files: sizes, balance, rationales, and no giveaway in lengths or words."""

from __future__ import annotations

import csv
import re
from collections import Counter
from itertools import pairwise
from statistics import mean

import pytest

from trueprune.texts.rows import embedded_file

RATIONALE = re.compile(r"\[([^\[\]]*)\]")
WORD = re.compile(r"[A-Za-z0-9]+(?:['-][A-Za-z0-9]+)*")
COMMON = frozenset(
    [
        "a",
        "an",
        "and",
        "at",
        "by",
        "for",
        "from",
        "in",
        "is",
        "it",
        "its",
        "not",
        "of",
        "on",
        "or",
        "that",
        "the",
        "to",
        "was",
        "with",
    ]
)


def rows_of(name):
    with embedded_file(name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def words(text):
    return WORD.findall(text.lower())


def plain(text):
    return text.replace("[", "").replace("]", "")


def bag(text):
    return frozenset(words(plain(text))) - COMMON


def alike(texts, share):
    """Pairs of texts whose content words overlap (Jaccard) by more than `share`."""
    bags = [(bag(text), text) for text in texts]
    return [
        (one, other)
        for index, (first, one) in enumerate(bags)
        for second, other in bags[:index]
        if len(first & second) > share * len(first | second)
    ]


@pytest.fixture(scope="module")
def sentences():
    return rows_of("sentiment.csv")


@pytest.fixture(scope="module")
def questions():
    return rows_of("commonsense.csv")


def wrongs(row):
    return [row["wrong1"], row["wrong2"], row["wrong3"]]


def options(row):
    return [row["right"], *wrongs(row)]


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("sentiment.csv", ["label", "text"]),
        ("commonsense.csv", ["question", "right", "wrong1", "wrong2", "wrong3"]),
    ],
)
def test_files_are_plain_and_complete(name, columns):
    raw = embedded_file(name).read_bytes()
    assert raw.isascii()
    assert b"\r" not in raw
    rows = rows_of(name)
    assert len(rows) >= 200
    for row in rows:
        assert list(row) == columns
        assert all(isinstance(cell, str) and cell == " ".join(cell.split()) != "" for cell in row.values()), row


def test_sentiment_is_balanced_and_shuffled(sentences):
    labels = [row["label"] for row in sentences]
    assert Counter(labels) == {"positive": len(labels) // 2, "negative": len(labels) // 2}
    repeats = sum(one == other for one, other in pairwise(labels)) / (len(labels) - 1)
    assert 0.35 < repeats < 0.65
    for part in (labels[: len(labels) // 2], labels[len(labels) // 2 :]):
        assert 0.4 < part.count("positive") / len(part) < 0.6


def test_rationales_are_whole_words_and_the_smaller_part(sentences):
    marked_counts = []
    for row in sentences:
        text = row["text"]
        assert "[" not in RATIONALE.sub("", text) and "]" not in RATIONALE.sub("", text), text
        assert not re.search(r"[\w'-]\[|\][\w'-]", text), text
        phrases = RATIONALE.findall(text)
        marked = [word for phrase in phrases for word in phrase.split(" ")]
        assert all(WORD.fullmatch(word) for word in marked), text
        total = len(plain(text).split())
        assert 6 <= total <= 16, text
        assert 1 <= len(marked) <= 5, text
        assert 2 * len(marked) <= total, text
        marked_counts.append(len(marked))
    assert 1.5 <= mean(marked_counts) <= 2.5


def test_sentiment_sentences_differ(sentences):
    texts = [row["text"] for row in sentences]
    assert len({" ".join(words(plain(text))) for text in texts}) == len(texts)
    assert alike(texts, 0.5) == []
    openings = Counter(tuple(words(plain(text))[:3]) for text in texts)
    assert max(openings.values()) <= 4


def test_sentiment_is_not_in_the_length_or_in_one_word(sentences):
    lengths = {
        label: [len(plain(row["text"]).split()) for row in sentences if row["label"] == label]
        for label in ("positive", "negative")
    }
    assert abs(mean(lengths["positive"]) - mean(lengths["negative"])) < 0.5
    for limit in range(6, 17):
        above = [sum(length > limit for length in lengths[label]) / len(lengths[label]) for label in lengths]
        assert abs(above[0] - above[1]) < 0.15, limit
    counts = {
        label: Counter(word for row in sentences if row["label"] == label for word in set(words(plain(row["text"]))))
        for label in lengths
    }
    total = counts["positive"] + counts["negative"]
    assert max(total.values()) < 0.9 * len(sentences)
    for word in total:
        gap = abs(counts["positive"][word] - counts["negative"][word])
        assert gap < 0.1 * len(sentences), word


def test_sentiment_has_hard_sentences_of_both_labels(sentences):
    turn = re.compile(r"\b(?:not|never|but|yet|although|while|despite|hardly|nothing)\b|n't\b")
    hard = Counter(row["label"] for row in sentences if turn.search(plain(row["text"]).lower()))
    assert hard["positive"] >= 15 and hard["negative"] >= 15


def test_commonsense_questions_differ(questions):
    texts = [row["question"] for row in questions]
    for text in texts:
        assert 8 <= len(text.split()) <= 20, text
        assert text.endswith("?") and text.count("?") == 1, text
    assert len({" ".join(words(text)) for text in texts}) == len(texts)
    assert alike(texts, 0.6) == []
    openings = Counter(tuple(words(text)[:3]) for text in texts)
    assert max(openings.values()) <= 0.06 * len(texts)
    assert max(Counter(word for text in texts for word in set(words(text))).values()) < 0.9 * len(texts)


def test_commonsense_options_are_distinct_and_short(questions):
    for row in questions:
        assert len({option.lower() for option in options(row)}) == 4, row
        assert 1 <= len(row["right"].split()) <= 4, row
        assert all(len(option.split()) <= 6 for option in options(row)), row
    assert max(Counter(row["right"] for row in questions).values()) <= 3
    assert max(Counter(option for row in questions for option in options(row)).values()) <= 4


def test_right_answer_is_not_given_away_by_its_length(questions):
    longest = [len(row["right"]) > max(map(len, wrongs(row))) for row in questions]
    shortest = [len(row["right"]) < min(map(len, wrongs(row))) for row in questions]
    assert mean(longest) < 0.4
    assert mean(shortest) < 0.4
    right = mean(len(row["right"]) for row in questions)
    wrong = mean(len(option) for row in questions for option in wrongs(row))
    assert abs(right - wrong) < 0.1 * wrong


def test_right_answer_shares_no_more_words_with_the_question_than_the_wrong_ones(questions):
    def shared(row, option):
        return len(bag(row["question"]) & bag(option))

    right = mean(shared(row, row["right"]) for row in questions)
    wrong = mean(shared(row, option) for row in questions for option in wrongs(row))
    assert right <= wrong + 0.02
