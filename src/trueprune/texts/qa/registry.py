"""The question sets by name: one line each."""

from __future__ import annotations

from trueprune.texts.qa import embedded, hub
from trueprune.texts.qa.contract import QuestionSet

_ALL = [
    QuestionSet("general", embedded.general),
    QuestionSet("misconceptions", embedded.misconceptions, sentences=True),
    QuestionSet("truthfulqa", hub.truthfulqa, sentences=True),
    QuestionSet("nq_open", hub.nq_open),
    QuestionSet("triviaqa", hub.triviaqa),
    QuestionSet("sciq", hub.sciq),
    QuestionSet("wikiqa", hub.wikiqa, sentences=True),
]
QUESTION_SETS: dict[str, QuestionSet] = {found.name: found for found in _ALL}
