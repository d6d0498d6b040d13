"""The names of the metrics that each instrument yields, so that a typo is refused before any model is loaded."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from trueprune.audits.confidence import METRICS as CONFIDENCE
from trueprune.audits.context import AuditSettings
from trueprune.audits.faithfulness.attributions.registry import ATTRIBUTIONS
from trueprune.audits.faithfulness.measures import METRICS as FAITHFULNESS
from trueprune.audits.probes import PROBES
from trueprune.texts.qa import QUESTION_SETS, find_set
from trueprune.texts.tasks import TASKS, find_task
from trueprune.texts.tasks.pools import harness_tasks, own_tasks

# Values of a place; None where anything may stand, such as the name of a user's own file.
Places = Mapping[str, Sequence[str] | None]

# What is measured only where an option asks for it.
OPTIONAL = ("naopc", "soft", "judge")
PLACES: Places = {
    "protocol": ("grouped", "leave-one-topic-out"),
    "probe": tuple(PROBES),
    "training": ("retrained", "frozen"),
    "polarity": ("affirmative", "negated"),
    "attribution": tuple(ATTRIBUTIONS),
    "task": None,
    "set": None,
    "kind": None,
    "block": None,
    "harness": None,
    "score": None,
    # In no name: what options switch on and off.
    "confidence": tuple(CONFIDENCE),
    "optional": OPTIONAL,
}
# What stands for the open places where a name is suggested.
EXAMPLES: Mapping[str, Sequence[str]] = {
    "task": tuple(TASKS),
    "set": tuple(QUESTION_SETS),
    "kind": ("conjunction", "disjunction", "scenario", "language-de"),
}


@dataclass(frozen=True)
class MetricName:
    """The metrics of one form.

    **Arguments:**

    - `pattern`: their name, with `{place}` for what differs (`accuracy/{task}`).
    - `low`, `high`: no value lies outside these.
    - `beside_dense`: whether a pruned model is measured against the dense one, which then has no value of its own and
        from which there is no change.
    - `conditional`: why an audit of the instrument may not yield it; empty if it always does.
    - `switch`: the place of `PLACES` that must hold the value beside it, or the audit does not measure it.
    """

    pattern: str
    low: float = 0.0
    high: float = 1.0
    beside_dense: bool = False
    conditional: str = ""
    switch: tuple[str, str] | None = None

    @property
    def may_be_a_ratio(self) -> bool:
        """Whether pruned over dense says anything: not of what may be negative."""
        return self.low >= 0


def _confidence(name: str) -> MetricName:
    low = -1.0 if name in ("debiased-15", "overconfidence") else 0.0
    high = {"brier": 2.0, "nll": math.inf}.get(name, 1.0)
    why = {"classwise-15": "tasks with labels", "auroc": "where some answers are right and some wrong"}.get(name, "")
    return MetricName(f"{name}/{{task}}", low, high, conditional=why, switch=("confidence", name))


def _faithful(name: str) -> MetricName:
    why = {
        "naopc": "texts of at most `--naopc-words` words",
        "soft": "with `--soft-draws`",
        "plausibility": "items with a rationale",
    }
    low = -1.0 if name in ("comprehensiveness", "sufficiency") else 0.0
    kind = name.split("-")[0]
    switch = ("optional", kind) if kind in OPTIONAL else None
    return MetricName(f"{name}/{{task}}/{{attribution}}", low, conditional=why.get(kind, ""), switch=switch)


def _agreement(name: str, low: float = -1.0) -> MetricName:
    why = "items on which both models prefer the same option; not of random"
    return MetricName(f"{name}/{{task}}/{{attribution}}", low, beside_dense=True, conditional=why)


def _overlap(name: str) -> Iterator[MetricName]:
    yield MetricName(f"{name}-max/{{set}}", high=100.0)
    yield MetricName(f"{name}-diff/{{set}}", -100.0, 100.0)
    yield MetricName(f"{name}-acc/{{set}}")


_ANSWERED = "where questions were answered"
CATALOGUE: dict[str, tuple[MetricName, ...]] = {
    "perplexity": (MetricName("perplexity", 1.0, math.inf),),
    "lie-detection": (
        MetricName("{protocol}/{probe}/{training}"),
        MetricName("{protocol}/{probe}/{training}/{polarity}"),
        MetricName("transfer-{kind}/{probe}/{training}", conditional="statements of other kinds"),
        MetricName("grouped/logistic/retrained/layer-{block}", conditional="with `--layer sweep`"),
    ),
    "separation": (MetricName("ratio-at-dense-peak", high=math.inf),),
    "efficiency": tuple(
        MetricName(name, high=math.inf)
        for name in (
            "parameters",
            "nonzero-parameters",
            "disk-bytes",
            "kv-cache-bytes-per-token",
            "prefill-flops",
            "decode-flops",
            "peak-memory-bytes",
            "prefill-tokens-per-second",
            "prefill-speedup",
            "decode-tokens-per-second",
            "decode-speedup",
        )
    ),
    "accuracy": (
        MetricName("accuracy/{task}"),
        MetricName("accuracy/{task}/sum", conditional="tasks whose options are texts of different lengths"),
        MetricName("lm-eval:{harness}/{score}", -math.inf, math.inf, conditional="tasks of lm-evaluation-harness"),
    ),
    "calibration": tuple(map(_confidence, CONFIDENCE)),
    "faithfulness": (
        *(_faithful(name) for name, *_ in FAITHFULNESS),
        _agreement("spearman"),
        _agreement("kendall"),
        _agreement("top-k", 0.0),
        MetricName("same-option/{task}", beside_dense=True),
    ),
    "open-qa": (
        *(MetricName(f"{name}/{{set}}") for name in ("correct", "exact", "f1", "hallucination", "abstention")),
        MetricName("auroc-sum/{set}", conditional=_ANSWERED + ", some rightly and some not"),
        MetricName("auroc-mean/{set}", conditional=_ANSWERED + ", some rightly and some not"),
        MetricName("ece/{set}", conditional=_ANSWERED),
    ),
    "truthfulness": tuple(MetricName(f"mc{number}/{{set}}") for number in range(4)),
    "truthful-generation": (
        *(found for name in ("bleu", "rouge1", "rouge2", "rougeL") for found in _overlap(name)),
        MetricName("judged/{set}", conditional="with `--judge`", switch=("optional", "judge")),
    ),
}


def matches(wanted: str, metric: str) -> bool:
    """Whether a metric is meant by a name in which `*` stands for anything but `/`."""
    return re.fullmatch("[^/]*".join(map(re.escape, wanted.split("*"))), metric, re.DOTALL) is not None


def metrics_meant(instrument: str, wanted: str, places: Places = PLACES) -> list[MetricName]:
    """The forms of metric that a name, in which `*` stands for anything but `/`, may mean.

    **Arguments:**

    - `instrument`: a key of `CATALOGUE`.
    - `wanted`: the name.
    - `places`: from `places_of`, if it is known what will be asked.
    """
    return [form for form in CATALOGUE[instrument] if any(_meet(wanted, name) for name in _names(form, places))]


def nearest_metric(instrument: str, wanted: str, places: Places = PLACES) -> str | None:
    """The metric of an instrument whose name is most like a wrong one; `None` if none is."""
    open_places = {name: EXAMPLES.get(name, ()) for name, values in places.items() if values is None}
    known = [name for form in CATALOGUE[instrument] for name in _names(form, places)]
    known += [name for form in CATALOGUE[instrument] for name in _names(form, {**places, **open_places})]
    return next(iter(difflib.get_close_matches(wanted, dict.fromkeys(known), 1, 0.5)), None)


def places_of(settings: AuditSettings) -> Places:
    """What can stand in each place of a metric's name in an audit.

    **Arguments:**

    - `settings`: of the audit.
    """
    measuring, tasks, explaining = settings.measuring, settings.answering.tasks, settings.explaining
    optional = {"naopc": explaining.naopc_words, "soft": explaining.soft_draws, "judge": settings.truth.judge}
    return {
        **PLACES,
        "protocol": tuple(name for name in measuring.protocols if name != "transfer"),
        "probe": measuring.probes,
        "attribution": settings.explaining.attributions,
        "task": tuple(find_task(name).name for name in own_tasks(tasks)),
        "set": tuple(find_set(name).name for name in settings.asking.qa),
        "kind": None if "transfer" in measuring.protocols else (),
        "block": None if measuring.layer == "sweep" else (),
        "harness": None if harness_tasks(tasks) else (),
        "confidence": settings.confidence.metrics,
        "optional": tuple(name for name, given in optional.items() if given),
    }


def _names(form: MetricName, places: Places) -> Iterator[str]:
    """The names of one form, with `*` where anything may stand."""
    if form.switch is not None:
        place, value = form.switch
        if value not in (places[place] or ()):
            return
    used = re.findall(r"{(\w+)}", form.pattern)
    values = [("*",) if (given := places[place]) is None else given for place in used]
    for chosen in product(*values):
        yield form.pattern.format(**dict(zip(used, chosen, strict=True)))


def _meet(first: str, second: str) -> bool:
    """Whether some metric is meant by both names: `met[j]` says so of what was read of the first and j letters."""
    if "*" not in first + second:
        return first == second
    met = [set(second[:j]) <= {"*"} for j in range(len(second) + 1)]
    for a in first:
        last, met = met, [met[0] and a == "*"]
        for j, b in enumerate(second, 1):
            by_a = a == "*" and (last[j] or (met[j - 1] and b != "/"))
            by_b = b == "*" and (met[j - 1] or (last[j] and a != "/"))
            met.append(by_a or by_b or (last[j - 1] and a == b))
    return met[-1]
