"""Grades of answers in words: SQuAD's comparison, whole words, abstentions, sentences."""

from __future__ import annotations

import pytest

from trueprune.audits.qa.grading import DECLINING, NOTHING_SAID, abstains, contains, exact_match, graded, token_f1
from trueprune.texts.qa.contract import Question
from trueprune.texts.qa.normalise import normalise


@pytest.mark.parametrize(
    ("text", "answers", "exact", "contained"),
    [
        ("Paris", ["Paris"], True, True),
        (" the  PARIS. ", ["Paris"], True, True),
        ("It is Paris.", ["Paris"], False, True),
        ("Parisian food", ["Paris"], False, False),
        ("New York City", ["York New"], False, False),
        ("in New York City", ["Gotham", "New York"], False, True),
        ("New Yorkers", ["New York"], False, False),
        ("rock-n-roll", ["Rocknroll"], True, True),
        ("J.R.R. Tolkien wrote it", ["JRR Tolkien"], False, True),
        ("1,000 metres", ["1000"], False, True),
        ("11000 metres", ["1000"], False, False),
        ("an apple and the pear", ["apple and pear"], True, True),
        ("theatre", ["atre"], False, False),
        # Shorter than the answer, or nothing.
        ("New", ["New York"], False, False),
        ("", ["Paris"], False, False),
        # What normalisation leaves nothing of.
        ("The The", ["The The"], True, True),
        ("a", ["A"], True, True),
        ("an", ["A"], False, False),
        ("", ["The The"], False, False),
        ("Something else", ["A"], False, False),
        ("Zoë", ["zoë"], True, True),
    ],
)
def test_matches(text, answers, exact, contained):
    assert exact_match(text, answers) is exact
    assert contains(text, answers) is contained


@pytest.mark.parametrize(
    ("text", "answer", "f1"),
    [
        ("Paris", "paris", 1.0),
        # Of three words two are shared with two: precision 2/3, recall 1.
        ("in New York", "New York", 0.8),
        ("York York", "New York", 0.5),
        ("red and blue", "green", 0.0),
        ("", "green", 0.0),
        ("green", "The", 0.0),
        ("the", "The", 1.0),
        # Precision 1/4, recall 1/2.
        ("one two three four", "four five", 2 * 0.25 * 0.5 / 0.75),
    ],
)
def test_token_f1(text, answer, f1):
    assert token_f1(text, answer) == pytest.approx(f1)
    assert token_f1(answer, text) == pytest.approx(f1)


@pytest.mark.parametrize(
    "text",
    ["", " ", "...", "I don't know.", "I do not know who that was", "I have no comment.", "Unknown", "Not sure",
     "I'm not sure about that", "No idea!", "I cannot answer that.", "Sorry, I don't know", "I can't answer",
     "It is unknown whether he did", "I don\u2019t know", "I\u2019m not sure."],
)  # fmt: skip
def test_abstentions(text):
    assert abstains(text)


@pytest.mark.parametrize(
    "text",
    ["A", "0", "Unknown Pleasures", "No Idea Records", "I know: Paris", "Paris, I don't know why", "Not sure Start",
     "I dont knowingly lie", "Na"],
)  # fmt: skip
def test_answers_are_no_abstentions(text):
    assert not abstains(text)


def test_the_lists_are_normalised():
    assert [said for said in (*DECLINING, *NOTHING_SAID) if normalise(said) != said] == []
    assert len(DECLINING) == len(set(DECLINING))


SHORT = Question("q", "Where?", ("Paris", "City of Light"), ("London",))


@pytest.mark.parametrize(
    ("text", "grade", "correct", "hallucinated"),
    [
        ("Paris", "exact", True, False),
        ("the city of light", "exact", True, False),
        ("It is Paris", "exact", False, True),
        ("It is Paris", "contains", True, False),
        ("London", "contains", False, True),
        ("I don't know", "contains", False, False),
    ],
)
def test_short_answers(text, grade, correct, hallucinated):
    found = graded(text, SHORT, grade=grade)
    assert (found.correct, found.hallucinated) == (correct, hallucinated)
    assert found.contained == ("paris" in text.lower() or "city of light" in text)


SENTENCES = Question(
    "q",
    "What happens if you swallow gum?",
    ("It passes through your body", "Nothing happens"),
    ("It stays in your stomach for seven years",),
)


@pytest.mark.parametrize(
    ("text", "correct"),
    [
        ("It passes through you", True),
        ("Gum stays for seven years in the stomach", False),
        # It holds an accepted answer, but is nearer to the wrong one.
        ("Nothing happens and it stays in your stomach for seven years", False),
        # As near to both: none.
        ("bananas", False),
        ("", False),
    ],
)
def test_sentences_are_right_where_they_are_nearer_to_right(text, correct):
    assert graded(text, SENTENCES, sentences=True).correct is correct
    # As short answers they would be judged by what they hold.
    assert graded(text, SENTENCES).correct is (text.startswith("Nothing"))


@pytest.mark.parametrize(
    ("text", "sentences", "correct"),
    [
        # Nearer to what is right, or holding it, and yet declined.
        ("I don't know if it passes through your body", True, False),
        ("I don't know, nothing happens", False, False),
        # Where the set takes that for an answer, it is right.
        ("I have no comment.", True, True),
        ("I have no comment.", False, True),
    ],
)
def test_what_declines_is_right_only_as_an_accepted_answer(text, sentences, correct):
    question = Question("q", SENTENCES.text, (*SENTENCES.right, "I have no comment"), SENTENCES.wrong)
    found = graded(text, question, sentences=sentences)
    assert (found.correct, found.abstained, found.hallucinated) == (correct, True, False)


def test_disputed_answers_take_no_part():
    question = Question("q", "?", ("Yes it is", "Maybe so"), ("Maybe so", "No never"), disputed=("Maybe so",))
    assert graded("Yes it is so", question, sentences=True).correct
    # It would tie with itself, and be outdone.
    assert not graded("Maybe so", question, sentences=True).correct
    question = Question("q", "?", ("Yes it may be so", "Maybe so"), ("Maybe so", "No never"), disputed=("Maybe so",))
    assert graded("Maybe so it is", question, sentences=True).correct


def test_sentences_without_wrong_answers_are_compared():
    question = Question("q", "?", ("It passes through your body",))
    assert not graded("It passes", question, sentences=True).correct
    assert graded("Well, it passes through your body", question, sentences=True).correct
    assert not graded("Well, it passes through your body", question, sentences=True, grade="exact").correct
