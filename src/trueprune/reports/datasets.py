"""What a metric was measured on, under the names that the hub knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Dataset:
    """A data set.

    **Arguments:**

    - `type`: its id on the hub, or a name of our own where it is not there.
    - `name`: for people.
    - `config`, `split`: of a hub data set.
    """

    type: str
    name: str
    config: str | None = None
    split: str | None = None


HUB: Mapping[str, Dataset] = {
    "wikitext2": Dataset("Salesforce/wikitext", "WikiText-2", "wikitext-2-raw-v1", "test"),
    "arc_easy": Dataset("allenai/ai2_arc", "ARC-Easy", "ARC-Easy", "test"),
    "arc_challenge": Dataset("allenai/ai2_arc", "ARC-Challenge", "ARC-Challenge", "test"),
    "openbookqa": Dataset("allenai/openbookqa", "OpenBookQA", "main", "test"),
    "commonsense_qa": Dataset("tau/commonsense_qa", "CommonsenseQA", "default", "validation"),
    "sciq": Dataset("allenai/sciq", "SciQ", "default", "test"),
    "boolq": Dataset("google/boolq", "BoolQ", "default", "validation"),
    "rte": Dataset("nyu-mll/glue", "RTE", "rte", "validation"),
    "sst2": Dataset("stanfordnlp/sst2", "SST-2", "default", "validation"),
    "rotten_tomatoes": Dataset("cornell-movie-review-data/rotten_tomatoes", "Rotten Tomatoes", "default", "test"),
    "tweet_eval": Dataset("cardiffnlp/tweet_eval", "TweetEval (sentiment)", "sentiment", "test"),
    "tweet_eval_emotion": Dataset("cardiffnlp/tweet_eval", "TweetEval (emotion)", "emotion", "test"),
    "tweet_eval_irony": Dataset("cardiffnlp/tweet_eval", "TweetEval (irony)", "irony", "test"),
    "tweet_eval_hate": Dataset("cardiffnlp/tweet_eval", "TweetEval (hate)", "hate", "test"),
    "tweet_eval_offensive": Dataset("cardiffnlp/tweet_eval", "TweetEval (offensive)", "offensive", "test"),
    "truthfulqa": Dataset("truthfulqa/truthful_qa", "TruthfulQA", "generation", "validation"),
    "nq_open": Dataset("google-research-datasets/nq_open", "NQ-open", "nq_open", "validation"),
    "triviaqa": Dataset("mandarjoshi/trivia_qa", "TriviaQA", "rc.nocontext", "validation"),
    "wikiqa": Dataset("microsoft/wiki_qa", "WikiQA", "default", "test"),
}
_TRUTH_IS_UNIVERSAL = Dataset("truth-is-universal", "Truth is Universal")
_EMBEDDED = {
    "perplexity": Dataset("trueprune-held-out-texts", "held-out texts of trueprune"),
    "lie-detection": Dataset("trueprune-statements", "true and false statements of trueprune"),
    "separation": Dataset("trueprune-statements", "true and false statements of trueprune"),
}
_OF_PACKAGE = ("facts", "sentiment", "commonsense", "general", "misconceptions")
_SETTING = {"perplexity": "text", "lie-detection": "statements", "separation": "statements"}


def dataset_of(instrument: str, metric: str, settings: Mapping[str, Any]) -> Dataset:
    """What a metric was measured on.

    **Arguments:**

    - `instrument`, `metric`: of a row of a report.
    - `settings`: of that report.
    """
    if instrument in _SETTING:
        name = str(settings.get(_SETTING[instrument]) or "embedded")
        if name == "embedded":
            return _EMBEDDED[instrument]
        if name == _TRUTH_IS_UNIVERSAL.type:
            return _TRUTH_IS_UNIVERSAL
        if name.startswith("hf:"):
            where, split, _ = [*name.removeprefix("hf:").split(":"), "", ""][:3]
            parts = where.split("/")
            hub = "/".join(parts[:2])
            return Dataset(hub, hub, "/".join(parts[2:]) or None, split or None)
    else:
        # lm-eval:TASK/METRIC, METRIC/TASK, METRIC/TASK/ATTRIBUTION.
        parts = metric.split("/")
        name = parts[0] if parts[0].startswith("lm-eval:") else "".join(parts[1:2])
    if name in HUB:
        return HUB[name]
    if name in _OF_PACKAGE:
        return Dataset(f"trueprune-{name}", f"{name} (in the package of trueprune)")
    # A file of the user's: where it lies is nobody's business.
    short = Path(name).name or instrument
    return Dataset(short, short)
