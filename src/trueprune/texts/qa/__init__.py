"""Questions answered in words: contract, rows, sides, prompts, pairs of right and wrong answers."""

from trueprune.texts.qa.contract import AskedQuestion, JudgedAnswer, Question, QuestionSet
from trueprune.texts.qa.normalise import normalise, tokens_of
from trueprune.texts.qa.pairs import answer_pairs
from trueprune.texts.qa.pools import check_sets, find_set, set_questions
from trueprune.texts.qa.primers import primer_text
from trueprune.texts.qa.prompts import QaOptions, ask
from trueprune.texts.qa.questions import asked
from trueprune.texts.qa.registry import QUESTION_SETS

__all__ = [
    "QUESTION_SETS",
    "AskedQuestion",
    "JudgedAnswer",
    "QaOptions",
    "Question",
    "QuestionSet",
    "answer_pairs",
    "ask",
    "asked",
    "check_sets",
    "find_set",
    "normalise",
    "primer_text",
    "set_questions",
    "tokens_of",
]
