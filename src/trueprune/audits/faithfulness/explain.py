"""Explain the answers of a model, item by item, and measure each explanation: the table behind every metric.

Legend: D words, A attributions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trueprune._support.errors import AuditError
from trueprune._support.parquet import read_rows
from trueprune._support.progress import track
from trueprune.audits.faithfulness.attributions.registry import ATTRIBUTIONS, attribute, check_attribution
from trueprune.audits.faithfulness.naopc import measure_naopc
from trueprune.audits.faithfulness.normalised import (
    keep_probabilities,
    normalised_comprehensiveness,
    normalised_sufficiency,
    soft_comprehensiveness,
    soft_sufficiency,
)
from trueprune.audits.faithfulness.plausibility import measure_plausibility
from trueprune.audits.faithfulness.question import OPERATORS, Operator, Question
from trueprune.audits.faithfulness.removal import (
    BINS,
    aopc,
    bin_sizes,
    comprehensiveness,
    measure_removal,
    order_words,
    sufficiency,
)
from trueprune.models.load import LoadedModel
from trueprune.texts.tasks import ChoiceItem


@dataclass(frozen=True)
class ExplanationOptions:
    """How answers are explained and explanations measured.

    **Arguments:**

    - `attributions`: of `lime`, `kernel-shap`, `shapley` (exact, at most 12 words), `leave-one-out`,
        `gradient-x-input`, `integrated-gradients`, `random` (the control). Tables show the first.
    - `samples`: texts with words left out that LIME and Kernel SHAP may ask for, each item.
    - `explained`: at most so many items of each task are explained; 0 for all.
    - `operator`: how a word is left out: `delete`, `mask` (another string in its place) or `attention` (no other token
        attends to it).
    - `mask_string`: for `mask`.
    - `bins`: shares of the words that comprehensiveness and sufficiency remove and keep.
    - `naopc_words`: normalised AOPC for texts of at most so many words (exact to 10, which takes 2^words texts; by beam
        search beyond); 0 for none.
    - `soft_draws`: draws of the soft metrics; 0 for none.
    - `soft_retained`: the share of the embeddings that these keep on average; as the scores say by default.
    - `absolute`: rank words by the size of their scores, whatever the sign.
    - `explanation_seed`: of what is drawn.
    """

    attributions: tuple[str, ...] = ("lime", "kernel-shap", "leave-one-out", "random")
    samples: int = 256
    explained: int = 50
    operator: Operator = "delete"
    mask_string: str = "[MASK]"
    bins: tuple[float, ...] = BINS
    naopc_words: int = 10
    soft_draws: int = 0
    soft_retained: float | None = None
    absolute: bool = False
    explanation_seed: int = 0

    def __post_init__(self):
        if not self.attributions:
            raise AuditError("there is no attribution", f"Use some of {', '.join(ATTRIBUTIONS)}")
        for name in self.attributions:
            check_attribution(name)
        bin_sizes(1, self.bins)
        keep_probabilities(np.zeros(1), self.soft_retained)
        if self.operator not in OPERATORS:
            raise AuditError(f"--operator {self.operator} is unknown", f"Use one of {', '.join(OPERATORS)}")
        for name, least in (("samples", 8), ("explained", 0), ("naopc_words", 0), ("soft_draws", 0)):
            if getattr(self, name) < least:
                flag = "--" + name.replace("_", "-")
                raise AuditError(f"{flag} {getattr(self, name)} is below {least}", f"Use {least} or more")


@dataclass(frozen=True)
class Explanation:
    """One answer explained by one attribution, and how faithful that is.

    **Arguments:**

    - `task`, `item`, `cluster`, `attribution`: what was explained by what.
    - `words`: the words of the task text.
    - `scores`: importance of each word for the explained option.
    - `option`: the explained option, which the model prefers on the full text.
    - `full`, `empty`: its probability on the full text and on none of its words.
    - `comprehensiveness`, `sufficiency`: means over the bins (AOPC as in ERASER's code).
    - `comprehensiveness_bins`, `sufficiency_bins`: by bin.
    - `normalised_comprehensiveness`, `normalised_sufficiency`: relative to `full - empty` (Carton et al., 2020), means
        over the bins.
    - `naopc_comprehensiveness`, `naopc_sufficiency`: AOPC over all steps between the least and the most that any order
        of removal reaches in this model and text (Edin et al., 2025).
    - `naopc_exact`: whether these bounds are exact.
    - `soft_comprehensiveness`, `soft_sufficiency`: Zhao and Aletras (2023).
    - `precision`, `recall`, `f1`, `iou`, `auprc`: against the human rationale.
    - the rest is `None` where it was not asked for or there is no rationale.
    """

    task: str
    item: str
    cluster: str
    attribution: str
    words: list[str]
    scores: list[float]
    option: int
    full: float
    empty: float
    comprehensiveness: float
    sufficiency: float
    comprehensiveness_bins: list[float]
    sufficiency_bins: list[float]
    normalised_comprehensiveness: float
    normalised_sufficiency: float
    naopc_comprehensiveness: float | None = None
    naopc_sufficiency: float | None = None
    naopc_exact: bool | None = None
    soft_comprehensiveness: float | None = None
    soft_sufficiency: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    iou: float | None = None
    auprc: float | None = None


def explain(
    loaded: LoadedModel,
    items: Sequence[ChoiceItem],
    options: ExplanationOptions = ExplanationOptions(),
    *,
    task: str = "task",
    scoring: str = "sum",
) -> list[Explanation]:
    """Explain the model's answer to each question and measure the explanations.

    Every attribution and every metric asks the same `Question`, which asks the model for no text twice.

    **Arguments:**

    - `loaded`: model and tokenizer.
    - `items`: the questions, with words.
    - `options`: how.
    - `task`: their name.
    - `scoring`: how an option is scored.

    **Returns:** for each item one `Explanation` an attribution, in the order of `options.attributions`.

    **Raises:** `AuditError` for an item without words, or one that a method cannot deal with.
    """
    chosen = items[: options.explained] if options.explained else items
    found: list[Explanation] = []
    for item in track(chosen, f"explanations ({task})"):
        question = Question(loaded, item, scoring=scoring, operator=options.operator, mask_string=options.mask_string)
        found += _explain_one(question, task, options)
    return found


def _explain_one(question: Question, task: str, options: ExplanationOptions) -> list[Explanation]:
    item, n = question.item, question.n_words
    # A seed of the item's own: with one for all, the same places would win ties in all items of one length.
    seed = int.from_bytes(hashlib.sha256(f"{options.explanation_seed}/{item.id}".encode()).digest()[:4], "big")
    scores_AD = np.stack(
        [attribute(name, question, n, samples=options.samples, seed=seed) for name in options.attributions]
    )
    orders_AD = np.stack([order_words(scores_D, seed=seed, absolute=options.absolute) for scores_D in scores_AD])
    removal = measure_removal(question, orders_AD, bin_sizes(n, options.bins))
    comp_AB, suff_AB = comprehensiveness(removal), sufficiency(removal)
    ends = (removal.full, removal.empty)
    nc_AB = normalised_comprehensiveness(*ends, removal.without_AB)
    ns_AB = normalised_sufficiency(*ends, removal.only_AB)
    naopc = measure_naopc(question, orders_AD) if n <= options.naopc_words else None
    found = []
    for a, name in enumerate(options.attributions):
        found.append(
            Explanation(
                task,
                item.id,
                item.cluster,
                name,
                item.word_texts(),
                scores_AD[a].tolist(),
                question.explained,
                *ends,
                float(aopc(comp_AB)[a]),
                float(aopc(suff_AB)[a]),
                comp_AB[a].tolist(),
                suff_AB[a].tolist(),
                float(nc_AB[a].mean()),
                float(ns_AB[a].mean()),
                None if naopc is None else float(naopc.comprehensiveness_A[a]),
                None if naopc is None else float(naopc.sufficiency_A[a]),
                None if naopc is None else naopc.bounds.exact,
                *_soft(question, scores_AD[a], options, seed),
                **_plausible(item, scores_AD[a], seed),
            )
        )
    return found


def _soft(
    question: Question, scores_D: np.ndarray, options: ExplanationOptions, seed: int
) -> tuple[float | None, float | None]:
    if not (draws := options.soft_draws):
        return None, None
    keep_D = keep_probabilities(scores_D, options.soft_retained)
    full = float(question.full_C[question.explained])
    zeroed = float(question.soft(np.zeros(question.n_words), 1)[0])
    dropped_R, kept_R = question.soft(1 - keep_D, draws, seed), question.soft(keep_D, draws, seed + 1)
    return soft_comprehensiveness(full, zeroed, dropped_R), soft_sufficiency(full, zeroed, kept_R)


def _plausible(item: ChoiceItem, scores_D: np.ndarray, seed: int) -> dict[str, float]:
    if item.rationale is None or not any(item.rationale) or all(item.rationale):
        return {}
    return asdict(measure_plausibility(scores_D, np.array(item.rationale), seed=seed))


def write_explanations(found: Sequence[tuple[str, Sequence[Explanation]]], file: Path) -> None:
    """Write the explanations of several models as one Parquet table, one row an item and attribution.

    **Arguments:**

    - `found`: model names with their explanations.
    - `file`: the file.
    """
    rows: list[dict[str, Any]] = [{"model": model, **asdict(one)} for model, many in found for one in many]
    pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), file)


def read_explanations(file: str | Path) -> dict[str, list[Explanation]]:
    """The explanations in a Parquet file by model.

    **Raises:** `AuditError` if it is no such file.
    """
    found: dict[str, list[Explanation]] = {}
    for row in read_rows(file, _SCHEMA, "explanations"):
        found.setdefault(row.pop("model"), []).append(Explanation(**row))
    return found


_TYPES = {
    "str": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "float | None": pa.float64(),
    "bool | None": pa.bool_(),
    "list[str]": pa.list_(pa.string()),
    "list[float]": pa.list_(pa.float64()),
}
_SCHEMA = pa.schema(
    [("model", pa.string()), *((name, _TYPES[kind]) for name, kind in Explanation.__annotations__.items())]
)
