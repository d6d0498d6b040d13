"""Explanations, predictions and calibration metrics: time against captum, a plain loop, a number of seconds.

Legend: S masks, D words, N items, C options.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import numpy as np
import torch

from trueprune.audits.confidence import METRICS
from trueprune.audits.faithfulness.agreement import spearman
from trueprune.audits.faithfulness.attributions.lime import captum_weights, lime, lime_masks, weighted_ridge
from trueprune.audits.faithfulness.question import Question
from trueprune.audits.predict import predict
from trueprune.models import LoadedModel
from trueprune.texts.tasks import ChoiceItem, PromptOptions, questions

ROUNDS = 2
SAMPLES = 100
EXPLAINED = 3
ASKED = 60
KERNELS: tuple[tuple[Literal["cosine", "euclidean"], float], ...] = (
    ("cosine", 1.0),
    ("cosine", 0.25),
    ("euclidean", 2.0),
)
Run = Callable[[], Any]

# What captum's LLMAttribution.attribute takes: the first is its default. Those that it refuses are left out.
WAYS: dict[str, dict[str, Any]] = {
    "token by token, cached": {"forward_in_tokens": True, "use_cached_outputs": True},
    "token by token": {"forward_in_tokens": True, "use_cached_outputs": False},
    "whole sequence": {"forward_in_tokens": False},
    "whole sequence, 4 perturbations a forward": {"forward_in_tokens": False, "perturbations_per_eval": 4},
}


def paired(pairs: Sequence[tuple[Run, Run]], rounds: int = ROUNDS) -> tuple[float, float, float]:
    """Medians over rounds of our seconds, theirs, and theirs over ours; who goes first alternates."""
    sums = []
    for turn in range(rounds):
        seconds = [0.0, 0.0]
        for place, pair in enumerate(pairs):
            first = (turn + place) % 2
            for side in (first, 1 - first):
                start = time.perf_counter()
                pair[side]()
                seconds[side] += time.perf_counter() - start
        sums.append(seconds)
    ours, theirs = (median(column) for column in zip(*sums, strict=True))
    return ours, theirs, median(b / a for a, b in sums)


def faster(name: str, times: tuple[float, float, float], at_least: float, **more: Any) -> dict[str, Any]:
    """One line of the table: how many times faster, and what is to be reached."""
    seconds, base, speedup = times
    return {
        "what": name,
        "seconds": seconds,
        "reference": base,
        "ratio": 1 / speedup,
        "bound": 1 / at_least,
        "speedup": speedup,
        "at_least": at_least,
        "passed": speedup >= at_least,
        **more,
    }


# Explanations


def bench_explanations(dense: LoadedModel) -> list[dict[str, Any]]:
    """LIME of some sentences of the package: ours against captum, as many evaluations for both."""
    return [_explanations(dense, shots) for shots in (0, 4)]


def _explanations(dense: LoadedModel, shots: int) -> dict[str, Any]:
    items = questions("sentiment", EXPLAINED, PromptOptions(shots=shots))
    asked = [Question(dense, item) for item in items]
    targets = [item.options[question.explained] for item, question in zip(items, asked, strict=True)]
    way, refused = fastest_way(dense, items[0], targets[0])

    def ours(item: ChoiceItem) -> Question:
        question = Question(dense, item)
        lime(question, item.n_words, samples=SAMPLES)
        return question

    def theirs(item: ChoiceItem, target: str) -> None:
        captum_lime(dense, item, target, SAMPLES, WAYS[way])

    evaluations = [0, 0]
    with counted(dense) as our_count:
        evaluations[0] = sum(ours(item).evaluations for item in items)
    with counted(dense) as their_count:
        for item, target in zip(items, targets, strict=True):
            theirs(item, target)
    # An evaluation of theirs is one row; token by token it is a row for each token of the target.
    length = 1 if not WAYS[way]["forward_in_tokens"] else len(token_ids(dense, targets[0]))
    evaluations[1] = their_count.rows // length
    times = paired(
        [
            (lambda item=item: ours(item), lambda item=item, target=target: theirs(item, target))
            for item, target in zip(items, targets, strict=True)
        ]
    )
    return faster(
        f"LIME, {shots} shots, against captum",
        times,
        5,
        speedup_per_evaluation=times[2] * evaluations[0] / evaluations[1],
        samples=SAMPLES * len(items),
        evaluations=evaluations[0],
        reference_evaluations=evaluations[1],
        forwards=our_count.forwards,
        reference_forwards=their_count.forwards,
        tokens=our_count.tokens,
        reference_tokens=their_count.tokens,
        captum=way,
        captum_refused=refused,
    )


def captum_lime(
    loaded: LoadedModel, item: ChoiceItem, target: str, samples: int, way: dict[str, Any], seed: int = 0
) -> np.ndarray:
    """Captum's explanation of one option, as its documentation shows it for language models."""
    from captum.attr import Lime, LLMAttribution

    torch.manual_seed(seed)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        attribution = LLMAttribution(Lime(loaded.model), loaded.tokenizer, attr_target="prob")  # type: ignore[arg-type]
        result = attribution.attribute(captum_input(item), target=target, n_samples=samples, show_progress=False, **way)
    return result.seq_attr.numpy()


def captum_input(item: ChoiceItem) -> Any:
    """The prompt as a template with the words as values, each with the space before it: what is left is our prompt."""
    from captum.attr import TextTemplateInput

    spans = [span for field in item.words for span in field]
    pieces, values, done = [], [], 0
    for start, end in spans:
        space = item.prompt[start - 1 : start] == " "
        pieces.append(item.prompt[done : start - space])
        values.append(item.prompt[start - space : end])
        done = end
    pieces.append(item.prompt[done:])
    return TextTemplateInput("{}".join(piece.replace("{", "{{").replace("}", "}}") for piece in pieces), values)


def fastest_way(dense: LoadedModel, item: ChoiceItem, target: str, samples: int = 20) -> tuple[str, list[str]]:
    """The way of captum that takes least time, and those that it refuses."""
    seconds: dict[str, list[float]] = {}
    refused: list[str] = []
    for _ in range(ROUNDS):
        for name, way in WAYS.items():
            if name in refused:
                continue
            start = time.perf_counter()
            try:
                captum_lime(dense, item, target, samples, way)
            except (AssertionError, TypeError, ValueError, RuntimeError):
                refused.append(name)
                continue
            seconds.setdefault(name, []).append(time.perf_counter() - start)
    return min(seconds, key=lambda name: median(seconds[name])), refused


def token_ids(loaded: LoadedModel, text: str, special: bool = False) -> list[int]:
    """A text as tokens."""
    tokenizer: Any = loaded.tokenizer
    return list(tokenizer(text, add_special_tokens=special)["input_ids"])


@dataclass
class Count:
    """What went through a model: forwards, rows, tokens with padding."""

    forwards: int = 0
    rows: int = 0
    tokens: int = 0


@contextmanager
def counted(loaded: LoadedModel) -> Iterator[Count]:
    """While active, forwards are counted where tokens become embeddings: captum goes past hooks of the whole model."""
    count = Count()

    def add(_module: Any, args: Any, _output: Any) -> None:
        count.forwards += 1
        count.rows += len(args[0])
        count.tokens += args[0].numel()

    model: Any = loaded.model
    handle = model.get_input_embeddings().register_forward_hook(add)
    try:
        yield count
    finally:
        handle.remove()


# Agreement


def bench_agreement(dense: LoadedModel) -> list[dict[str, Any]]:
    """Coefficients from the same masks and probabilities, captum's and ours."""
    differences, correlations = [], []
    for item in questions("sentiment", EXPLAINED):
        question = Question(dense, item)
        masks_SD, _ = lime_masks(item.n_words, SAMPLES)
        values_S = question(masks_SD)
        for distance, width in KERNELS:
            ours_D, theirs_D = both_ridges(masks_SD, values_S, distance, width)
            differences.append(float(np.abs(ours_D - theirs_D).max()))
            correlations.append(spearman(ours_D, theirs_D))
    return [
        {
            "what": "LIME from the same masks, against captum",
            "max_difference": max(differences),
            "bound": 1e-5,
            "min_rank_correlation": min(correlations),
            "passed": max(differences) <= 1e-5,
            "regressions": len(differences),
        }
    ]


def both_ridges(
    masks_SD: np.ndarray,
    values_S: np.ndarray,
    distance: Literal["cosine", "euclidean"] = "cosine",
    kernel_width: float = 1.0,
    alpha: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of our ridge regression and of captum's Lime on given masks and values."""
    ours_D, _ = weighted_ridge(masks_SD, values_S, captum_weights(masks_SD, distance, kernel_width), alpha)
    return ours_D, captum_ridge(masks_SD, values_S, distance, kernel_width, alpha)


def captum_ridge(
    masks_SD: np.ndarray, values_S: np.ndarray, distance: str, kernel_width: float, alpha: float
) -> np.ndarray:
    """Captum's Lime with its exponential kernel and scikit-learn's ridge, given its samples and the model's answers."""
    from captum._utils.models.linear_model import SkLearnRidge
    from captum.attr import Lime
    from captum.attr._core.lime import get_exp_kernel_similarity_function

    known = {mask.tobytes(): float(value) for mask, value in zip(masks_SD, values_S, strict=True)}

    def model(inputs: torch.Tensor) -> torch.Tensor:
        return torch.tensor([known[row.tobytes()] for row in inputs.bool().numpy()], dtype=torch.float64)

    def samples(_original: Any, **_settings: Any) -> Iterator[torch.Tensor]:
        yield from torch.from_numpy(masks_SD).long()[:, None]

    explain = Lime(
        model,
        interpretable_model=SkLearnRidge(alpha=alpha),
        similarity_func=get_exp_kernel_similarity_function(distance, kernel_width),
        perturb_func=samples,
    )
    full_1D = torch.ones(1, masks_SD.shape[1])
    found: Any = explain.attribute(full_1D, n_samples=len(masks_SD), return_input_shape=False)
    return found.flatten().double().numpy()


# Predictions


def bench_prediction(dense: LoadedModel) -> list[dict[str, Any]]:
    """Questions of two tasks: ours against a prompt with one option at a time."""
    rows = []
    for task in ("commonsense", "sentiment"):
        items = questions(task, ASKED)
        found, plain = predict(dense, items, task=task).scores_NC, one_at_a_time(dense, items)
        error = max(float(np.abs(a[: len(b)] - b).max()) for a, b in zip(found, plain, strict=True))
        times = paired([(lambda items=items: predict(dense, items), lambda items=items: one_at_a_time(dense, items))])
        row = faster(f"predict {task}", times, 3, items=len(items), max_difference=error, difference_bound=1e-3)
        row["passed"] = row["passed"] and error <= 1e-3
        rows.append(row)
    return rows


@torch.no_grad()
def one_at_a_time(loaded: LoadedModel, items: Sequence[ChoiceItem]) -> list[np.ndarray]:
    """The summed log-probability of each option, one prompt with one option a forward."""
    model: Any = loaded.model
    scores = []
    for item in items:
        prompt = len(token_ids(loaded, item.prompt, item.special))
        row = []
        for option in item.options:
            ids = torch.tensor([token_ids(loaded, item.prompt + option, item.special)])
            logprobs = model(ids, use_cache=False).logits[0].log_softmax(-1)
            row.append(float(logprobs[prompt - 1 : -1].gather(1, ids[0, prompt:, None]).sum()))
        scores.append(np.array(row))
    return scores


# Calibration metrics


def bench_metrics(n_items: int = 100_000, n_options: int = 10, rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """Every metric of confidence on random probabilities: seconds in all."""
    rng = np.random.default_rng(0)
    probabilities_NC = rng.dirichlet(np.full(n_options, 0.3), n_items)
    # Right options drawn from the probabilities: calibrated, and half and half where it is unsure.
    gold_N = (probabilities_NC.cumsum(1) < rng.random((n_items, 1))).sum(1).clip(max=n_options - 1)
    sums, each = [], {name: [] for name in METRICS}
    for _ in range(rounds):
        for name, metric in METRICS.items():
            start = time.perf_counter()
            metric.value(probabilities_NC, gold_N)
            each[name].append(time.perf_counter() - start)
        sums.append(sum(found[-1] for found in each.values()))
    slowest = max(each, key=lambda name: median(each[name]))
    return [
        {
            "what": f"{len(METRICS)} calibration metrics of {n_items} items, {n_options} options",
            "seconds": median(sums),
            "bound": 2.0,
            "passed": median(sums) < 2,
            "slowest": slowest,
            "seconds_of_slowest": median(each[slowest]),
        }
    ]
