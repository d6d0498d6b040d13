"""Activations of answers that are true and answers that are hallucinated: what EAVSS compares (arXiv 2411.10069).

Legend: N answers, B answers of a batch, T tokens, A answer tokens of a batch, L blocks, D residual width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from trueprune._support.errors import ModelError, TextError
from trueprune._support.progress import track
from trueprune.models.anatomy import Anatomy
from trueprune.models.load import LoadedModel
from trueprune.observe.activations import length_batches, pad_right
from trueprune.observe.continuations import BATCH_TOKENS, common_prefix
from trueprune.observe.moments import NearZero
from trueprune.observe.replay import model_inputs, stop_forward, stop_here
from trueprune.texts.encode import encode_texts
from trueprune.texts.qa.contract import JudgedAnswer

AnswerTokens = Literal["all", "last"]


@dataclass(frozen=True, eq=False)
class AnswerProfile:
    """Variance and near-zero entries of each answer's activations, at the output of each block.

    **Arguments:**

    - `variance`: by estimator, of shape `(N, L)`: `official`, the unbiased variance over units of the mean over answer
        tokens; `token`, the mean over answer tokens of the unbiased variance over units.
    - `zeros_NL`: entries near zero.
    - `entries_N`: entries of each answer in one block, near zero or not.
    - `hallucinated_N`: whether the answer is wrong.
    - `clusters`: what ties answers to one question together.
    - `ids`: the questions.
    """

    variance: Mapping[str, Float[np.ndarray, "N L"]]
    zeros_NL: Int[np.ndarray, "N L"]
    entries_N: Int[np.ndarray, " N"]
    hallucinated_N: Bool[np.ndarray, " N"]
    clusters: tuple[str, ...]
    ids: tuple[str, ...]

    def merge(self, other: AnswerProfile) -> AnswerProfile:
        """Both profiles' answers, one after the other."""
        return AnswerProfile(
            {name: np.concatenate([values, other.variance[name]]) for name, values in self.variance.items()},
            np.concatenate([self.zeros_NL, other.zeros_NL]),
            np.concatenate([self.entries_N, other.entries_N]),
            np.concatenate([self.hallucinated_N, other.hallucinated_N]),
            (*self.clusters, *other.clusters),
            (*self.ids, *other.ids),
        )


@torch.no_grad()
def observe_answers(
    loaded: LoadedModel,
    anatomy: Anatomy,
    answers: Sequence[JudgedAnswer],
    *,
    zero: NearZero | None = None,
    tokens: AnswerTokens = "all",
    batch_tokens: int = BATCH_TOKENS,
    description: str | None = "answers",
) -> AnswerProfile:
    """Read answers after their prompts, and take statistics over the tokens of the answers alone.

    Answer tokens are those after what the tokens of the prompt, and of prompt and answer together, have in common at
    the front. Texts are sorted by length and padded on the right; the forward ends after the last block.

    **Arguments:**

    - `loaded`: says how texts become tokens, and how many the model can hold.
    - `anatomy`: the model's parts.
    - `answers`: the answers.
    - `zero`: when an activation counts as zero.
    - `tokens`: `all` tokens of an answer, or its `last`.
    - `batch_tokens`: tokens in a batch, padding included.
    - `description`: what the progress bar says.

    **Raises:** `TextError` for no answers, an empty one, or one that the model cannot hold; `ModelError` where
    activations overflow.
    """
    if not answers:
        raise TextError("there are no answers to read", "Give some")
    read = [_encode(loaded, answer) for answer in answers]
    counts_N = np.array([1 if tokens == "last" else len(ids) - start for ids, start in read], dtype=np.int64)
    shape = (len(answers), len(anatomy.blocks))
    variance = {name: np.zeros(shape) for name in ("official", "token")}
    zeros_NL = np.zeros(shape, dtype=np.int64)
    width = 0
    for rows in track(length_batches([len(ids) for ids, _ in read], batch_tokens), description):
        ids_BT, mask_BT = pad_right([read[i][0] for i in rows])
        # Answers end where their row ends.
        places = [(row, len(read[i][0]) - 1 - back) for row, i in enumerate(rows) for back in range(counts_N[i])]
        moments = _Moments(torch.tensor(places), torch.from_numpy(counts_N[rows]), zero or NearZero())
        _forward(anatomy, ids_BT, mask_BT, moments.add)
        for values_NL, found in zip((*variance.values(), zeros_NL), moments.results(), strict=True):
            values_NL[rows] = found
        width = moments.width
    for block in anatomy.blocks:
        if not all(np.isfinite(values_NL[:, block.index]).all() for values_NL in variance.values()):
            raise ModelError(f"activations of {block.path} are not finite: they overflow", "Use --dtype float32")
    return AnswerProfile(
        variance,
        zeros_NL,
        counts_N * width,
        np.array([answer.hallucinated for answer in answers], dtype=bool),
        tuple(answer.cluster for answer in answers),
        tuple(answer.id for answer in answers),
    )


def _encode(loaded: LoadedModel, answer: JudgedAnswer) -> tuple[list[int], int]:
    """Tokens of prompt and answer, and where the answer's begin."""
    if not answer.answer.strip():
        raise TextError(f"an answer to the question {answer.id} is empty", "Give it a text, or remove it")
    alone, whole = encode_texts(loaded, [answer.prompt, answer.prompt + answer.answer], answer.special)
    if loaded.max_length and len(whole) > loaded.max_length:
        raise TextError(
            f"an answer to the question {answer.id} ends after {len(whole)} tokens, over the model's limit of "
            f"{loaded.max_length}",
            "Leave its set out of --qa, shorten it, or use --primer none",
        )
    return whole, min(common_prefix(alone, whole), len(whole) - 1)


def answer_moments(
    x_AD: Float[Tensor, "A D"], rows_A: Int[Tensor, " A"], counts_B: Int[Tensor, " B"], zero: NearZero
) -> tuple[Tensor, Tensor, Tensor]:
    """Variance by both estimators and entries near zero of each answer, all of shape `(B,)`.

    **Arguments:**

    - `x_AD`: activations of answer tokens.
    - `rows_A`: which answer each token is of.
    - `counts_B`: tokens of each answer.
    - `zero`: when an activation counts as zero.
    """
    x_AD = x_AD.float()
    sum_BD = x_AD.new_zeros(len(counts_B), x_AD.shape[1]).index_add_(0, rows_A, x_AD)
    token_B = x_AD.new_zeros(len(counts_B)).index_add_(0, rows_A, x_AD.var(1))
    below_AD = x_AD.abs() < zero.near_zero * (x_AD.square().mean(1, keepdim=True).sqrt() if zero.relative else 1.0)
    zeros_B = torch.zeros_like(counts_B).index_add_(0, rows_A, below_AD.sum(1))
    return (sum_BD / counts_B[:, None]).var(1), token_B / counts_B, zeros_B


class _Moments:
    """Takes the moments of one batch, block after block, where the activations lie."""

    def __init__(self, places_A2: Tensor, counts_B: Tensor, zero: NearZero):
        self.places_A2, self.counts_B, self.zero = places_A2, counts_B, zero
        self.found: list[tuple[Tensor, Tensor, Tensor]] = []
        self.width = 0

    def add(self, hidden_BTD: Tensor) -> int:
        """Take the next block's output; how many there were."""
        device = hidden_BTD.device
        rows_A, columns_A = self.places_A2.to(device).unbind(1)
        self.width = hidden_BTD.shape[-1]
        self.found.append(answer_moments(hidden_BTD[rows_A, columns_A], rows_A, self.counts_B.to(device), self.zero))
        return len(self.found)

    def results(self) -> list[np.ndarray]:
        """Official and token variance and near-zero entries, each of shape `(B, L)`."""
        columns = zip(*self.found, strict=True)
        return [torch.stack([values.cpu() for values in column], dim=1).numpy() for column in columns]


def _forward(anatomy: Anatomy, ids_BT: Tensor, mask_BT: Tensor, add: Callable[[Tensor], int]) -> None:
    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        if add(output[0] if isinstance(output, tuple) else output) == len(anatomy.blocks):
            stop_forward()

    mask = None if bool(mask_BT.all()) else mask_BT.to(anatomy.device)
    handles = [block.module.register_forward_hook(hook) for block in anatomy.blocks]
    try:
        with stop_here():
            anatomy.model(**model_inputs(anatomy.model, ids_BT.to(anatomy.device), mask))
    finally:
        for handle in handles:
            handle.remove()
