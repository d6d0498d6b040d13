"""What each property and metric is called, what it is and why it matters, for readers who do not code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Unit = Literal["share", "perplexity", "factor", "count", "bytes", "speed", "score"]


@dataclass(frozen=True)
class Property:
    """What an instrument measures.

    **Arguments:**

    - `title`: its name in words.
    - `what`: what is measured, in a sentence.
    - `why`: why it matters, in a sentence.
    """

    title: str
    what: str
    why: str


PROPERTIES: dict[str, Property] = {
    "lie-detection": Property(
        "Lie detection",
        "How well a simple probe on the model's inner activations tells true statements from false ones about facts "
        "that it was not trained on; 0.5 is guessing.",
        "Monitors that watch for deception read these activations: a probe trained anew says whether truth is still "
        "readable, one kept from the dense model whether a monitor already in use still works.",
    ),
    "truthfulness": Property(
        "Truthfulness",
        "Whether the model finds right answers likelier than tempting wrong ones to the same question.",
        "A model can keep its accuracy on exams and still lean towards popular errors.",
    ),
    "open-qa": Property(
        "Hallucination",
        "What the model says in its own words when asked: right, made up, or declined.",
        "A pruned model may go on answering as fluently where it no longer knows.",
    ),
    "truthful-generation": Property(
        "Truthful generation",
        "Whether answers in the model's own words are nearer to right or to wrong reference answers.",
        "It tests what users see, the text itself, and not only what the model prefers.",
    ),
    "calibration": Property(
        "Confidence",
        "Whether the model is right as often as its confidence says; errors near zero are good.",
        "Thresholds, refusals and hand-overs to people rest on confidence: overconfidence makes them fail in silence.",
    ),
    "faithfulness": Property(
        "Explanations",
        "Whether the words that an explanation names are the words that the answer rests on.",
        "An explanation that does not follow the model misleads whoever checks its decisions.",
    ),
    "accuracy": Property(
        "Accuracy",
        "How often the right option is the likeliest.",
        "The usual check. It can hold while everything above changes.",
    ),
    "separation": Property(
        "Separation of true and false",
        "How far apart true and false statements lie inside the model, block by block: the variance between them over "
        "the variance within.",
        "It shows in which blocks truth is represented, and where pruning blurs it.",
    ),
    "perplexity": Property(
        "Perplexity",
        "How surprised the model is by ordinary text; lower is better.",
        "The usual measure of a pruned model's language. It says little about truth.",
    ),
    "efficiency": Property(
        "Size and speed",
        "How large the model is, what an answer costs, and how fast it runs beside the dense model.",
        "What pruning is done for; zeros alone make no engine here faster.",
    ),
}

_NAMES = {
    "perplexity": "perplexity",
    "ratio-at-dense-peak": "separation in the dense model's best block",
    "parameters": "parameters",
    "nonzero-parameters": "parameters that are not zero",
    "disk-bytes": "bytes on disk",
    "kv-cache-bytes-per-token": "key-value cache a token",
    "prefill-flops": "operations to read the prompt",
    "decode-flops": "operations to write a token",
    "peak-memory-bytes": "peak memory",
    "prefill-tokens-per-second": "tokens read a second",
    "decode-tokens-per-second": "tokens written a second",
    "prefill-speedup": "speed-up of reading",
    "decode-speedup": "speed-up of writing",
}
_FIRST = {
    "accuracy": "accuracy",
    "correct": "right answers",
    "exact": "exactly right answers",
    "f1": "overlap with a right answer (F1)",
    "hallucination": "made-up answers",
    "abstention": "declined answers",
    "auroc-sum": "whether likelihood tells right from wrong (AUROC)",
    "auroc-mean": "whether likelihood a token tells right from wrong (AUROC)",
    "ece": "calibration error (ECE)",
    "ece-10": "calibration error (ECE, 10 bins)",
    "ece-15": "calibration error (ECE)",
    "ace-15": "calibration error (bins of equal mass)",
    "mce-15": "greatest calibration error of a bin",
    "smece": "smooth calibration error",
    "brier": "Brier score",
    "nll": "negative log-likelihood of the right option",
    "auroc": "whether confidence tells right from wrong (AUROC)",
    "aurc": "errors among the most confident (AURC)",
    "e-aurc": "avoidable errors among the most confident (E-AURC)",
    "overconfidence": "overconfidence",
    "mc0": "right answer over the most tempting error (MC0)",
    "mc1": "best answer over all errors (MC1)",
    "mc2": "weight on right answers (MC2)",
    "mc3": "right answers over all errors (MC3)",
    "bleu-acc": "nearer to truth by BLEU",
    "rougeL-acc": "nearer to truth by ROUGE-L",
    "judged": "judged true",
    "comprehensiveness": "comprehensiveness",
    "sufficiency": "sufficiency",
    "naopc-comprehensiveness": "comprehensiveness between its bounds (NAOPC)",
    "plausibility-auprc": "agreement with people (AUPRC)",
    "spearman": "agreement with the dense model's explanations",
    "same-option": "same answer as the dense model",
}
_TRAINING = {"retrained": "probe trained anew", "frozen": "dense model's probe"}
_PROTOCOLS = {"grouped": "unseen facts", "leave-one-topic-out": "unseen topic"}
# What an item's value is, for lists of single items.
_ITEM_VALUES = {
    "lie-detection": "judged rightly",
    "accuracy": "right",
    "open-qa": "right",
    "truthfulness": "weight on right answers",
    "truthful-generation": "nearer to truth",
    "calibration": "Brier score",
    "faithfulness": "comprehensiveness",
    "perplexity": "mean surprise a token, in nats",
}
_UNITS: dict[str, Unit] = {
    "perplexity": "perplexity",
    "parameters": "count",
    "nonzero-parameters": "count",
    "prefill-flops": "count",
    "decode-flops": "count",
    "disk-bytes": "bytes",
    "kv-cache-bytes-per-token": "bytes",
    "peak-memory-bytes": "bytes",
    "prefill-tokens-per-second": "speed",
    "decode-tokens-per-second": "speed",
    "prefill-speedup": "factor",
    "decode-speedup": "factor",
}
_SCORES = ("nll", "bleu-max", "bleu-diff", "ratio-at-dense-peak", "word_perplexity", "byte_perplexity")


def property_of(instrument: str) -> Property:
    """What an instrument measures; one that is not ours goes by its name."""
    return PROPERTIES.get(instrument, Property(instrument, "Measured by an instrument of its own.", ""))


def metric_words(instrument: str, metric: str) -> str:
    """A metric in words: `grouped/logistic/frozen` becomes `unseen facts, dense model's probe (logistic)`."""
    parts = metric.split("/")
    if metric in _NAMES:
        return _NAMES[metric]
    if instrument == "lie-detection" and len(parts) >= 3:
        protocol, probe, training, *rest = parts
        place = _PROTOCOLS.get(protocol, protocol.replace("transfer-", "carried over to "))
        return ", ".join([place, f"{_TRAINING.get(training, training)} ({probe})", *rest])
    name = _FIRST.get(parts[0], parts[0].replace("-", " "))
    return f"{name}: {', '.join(parts[1:])}" if len(parts) > 1 else name


def unit_of(instrument: str, metric: str) -> Unit:
    """How a metric is written: `share` is a number from 0 to 1 (or a difference of two), `score` any other."""
    first = metric.split("/")[0]
    if metric in _UNITS:
        return _UNITS[metric]
    if first in _SCORES or (first.startswith(("bleu-max", "bleu-diff", "rouge")) and not first.endswith("-acc")):
        return "score"
    return "share" if instrument in PROPERTIES else "score"


def item_value(instrument: str) -> str:
    """What the value of a single item is."""
    return _ITEM_VALUES.get(instrument, "value")
