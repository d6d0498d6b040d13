"""Truthfulness and hallucination: what a model says when it is asked, and how likely it finds right and wrong answers.

`answer` asks and grades, `score_choices` scores given answers; both make tables that the metrics read.
"""

from trueprune.audits.qa.answers import Answers, answer, judged, read_answers, write_answers
from trueprune.audits.qa.choices import Choices, read_choices, score_choices, write_choices
from trueprune.audits.qa.generation import generation_of
from trueprune.audits.qa.grading import Graded, abstains, contains, exact_match, graded, token_f1
from trueprune.audits.qa.multiple_choice import mc0, mc1, mc2, mc3
from trueprune.audits.qa.open_qa import open_qa_of
from trueprune.audits.qa.options import TruthOptions
from trueprune.audits.qa.overlap import overlap
from trueprune.audits.qa.truthfulness import truthfulness_of

__all__ = [
    "Answers",
    "Choices",
    "Graded",
    "TruthOptions",
    "abstains",
    "answer",
    "contains",
    "exact_match",
    "generation_of",
    "graded",
    "judged",
    "mc0",
    "mc1",
    "mc2",
    "mc3",
    "open_qa_of",
    "overlap",
    "read_answers",
    "read_choices",
    "score_choices",
    "token_f1",
    "truthfulness_of",
    "write_answers",
    "write_choices",
]
