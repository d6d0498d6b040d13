"""The tasks by name: one line each."""

from __future__ import annotations

from trueprune.texts.tasks import embedded, hub
from trueprune.texts.tasks.contract import Task

YES_NO = ("no", "yes")
QUESTION = "Question: {}"
TWEET = "Tweet: {}"
SENTENCE = "Sentence: {}"
POLARITY = "Is the sentiment of the sentence positive or negative?"


def _questions(name: str, rows: hub.Rows) -> Task:
    return Task(name, rows, QUESTION)


def _tweets(name: str, subset: str, instruction: str, names: tuple[str, ...], cue: str = "Answer:") -> Task:
    rows = hub.labelled("cardiffnlp/tweet_eval", subset, "test", ["text"], names)
    return Task(name, rows, TWEET, cue, instruction, labels=True)


_ALL = [
    Task("facts", embedded.facts, cue="", fit_rows=embedded.facts_to_fit),
    Task("sentiment", embedded.sentiment, SENTENCE, "Sentiment:", POLARITY, labels=True),
    _questions("commonsense", embedded.commonsense),
    _questions("arc_easy", hub.multiple_choice("allenai/ai2_arc", "ARC-Easy", "test")),
    _questions("arc_challenge", hub.multiple_choice("allenai/ai2_arc", "ARC-Challenge", "test")),
    _questions("openbookqa", hub.multiple_choice("allenai/openbookqa", "main", "test", "question_stem")),
    _questions("commonsense_qa", hub.commonsense_qa),
    _questions("sciq", hub.sciq),
    Task(
        "boolq",
        hub.labelled("google/boolq", "default", "validation", ["passage", "question"], YES_NO, "answer"),
        "Passage: {}\nQuestion: {}?",
        instruction="Answer the question about the passage by yes or no.",
        labels=True,
    ),
    Task(
        "rte",
        hub.labelled("nyu-mll/glue", "rte", "validation", ["sentence1", "sentence2"], ("True", "False")),
        "Premise: {}\nHypothesis: {}",
        instruction="Does the hypothesis follow from the premise? True or False?",
        labels=True,
    ),
    Task(
        "sst2",
        hub.labelled("stanfordnlp/sst2", "default", "validation", ["sentence"], embedded.SENTIMENTS),
        SENTENCE,
        "Sentiment:",
        POLARITY,
        labels=True,
    ),
    Task(
        "rotten_tomatoes",
        hub.labelled("cornell-movie-review-data/rotten_tomatoes", "default", "test", ["text"], embedded.SENTIMENTS),
        "Review: {}",
        "Sentiment:",
        "Is the sentiment of the review positive or negative?",
        labels=True,
    ),
    _tweets(
        "tweet_eval",
        "sentiment",
        "Is the sentiment of the tweet negative, neutral or positive?",
        ("negative", "neutral", "positive"),
        "Sentiment:",
    ),
    _tweets(
        "tweet_eval_emotion",
        "emotion",
        "Is the emotion of the tweet anger, joy, optimism or sadness?",
        ("anger", "joy", "optimism", "sadness"),
        "Emotion:",
    ),
    _tweets("tweet_eval_irony", "irony", "Is the tweet ironic? Yes or no?", YES_NO),
    _tweets("tweet_eval_hate", "hate", "Is the tweet hateful? Yes or no?", YES_NO),
    _tweets("tweet_eval_offensive", "offensive", "Is the tweet offensive? Yes or no?", YES_NO),
]
TASKS: dict[str, Task] = {task.name: task for task in _ALL}
