"""A question whose words can be taken away: the model behind every explanation, asked in batches and never twice.

Legend: S masks, D words, C options, B rows of a batch, T tokens, E width of the embeddings, R draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from trueprune._support.errors import AuditError
from trueprune.audits.predict import check_length, encode_options, encode_texts, refuse_same_first
from trueprune.models.load import LoadedModel
from trueprune.observe.activations import pad_right
from trueprune.observe.continuations import BATCH_TOKENS, Ask, log_likelihoods
from trueprune.observe.head import logits_at
from trueprune.texts.tasks import ChoiceItem, masked_prompt

Operator = Literal["delete", "mask", "attention"]
OPERATORS = ("delete", "mask", "attention")


class Question:
    """The probability of one answer as words of the task text come and go.

    It is a `Value`: masks of shape `(S, D)`, `True` for words that stay, to probabilities of the explained option, the
    one that the model prefers on the full text. Template, options, examples and answer cue always stay. A mask that was
    asked before is answered from memory; the rest goes through the model in batches, their common beginning once.

    Where all words are gone and nothing else is left to condition on, the tokenizer's token for the beginning of a
    text stands in the place of the prompt; if it has none, that for the end.

    **Arguments:**

    - `loaded`: model and tokenizer.
    - `item`: a question with `words`.
    - `scoring`: how an option is scored: `sum`, `mean`, `first`.
    - `operator`: `delete` takes a word out with the space before it, `mask` puts `mask_string` in its place,
        `attention` leaves it where it is but lets no other token attend to it.
    - `mask_string`: for `mask`.
    - `batch_tokens`: tokens in a batch, padding included.

    **Raises:** `AuditError` for a question without words or over the model's limit, or (when asked) a prompt of which
    nothing is left and a tokenizer without such a token.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        item: ChoiceItem,
        *,
        scoring: str = "sum",
        operator: Operator = "delete",
        mask_string: str = "[MASK]",
        batch_tokens: int = BATCH_TOKENS,
    ):
        if not item.n_words:
            raise AuditError(f"the item {item.id} has no words to explain", "Explain tasks whose text has words")
        if operator not in OPERATORS:
            raise AuditError(f"unknown operator {operator!r}", f"Use one of {', '.join(OPERATORS)}")
        self.loaded = loaded
        self.item = item
        self.scoring = scoring
        self.operator = operator
        self.mask_string = mask_string
        self.batch_tokens = batch_tokens
        self.evaluations = 0
        self._full = encode_options(loaded, item)
        if scoring == "first":
            refuse_same_first(item, self._full)
        # Where the tokenizer joins no end of the prompt with an option, an option's tokens are the same after any text.
        tail = item.prompt[item.words[-1][-1][1] :] if item.words[-1] else ""
        self._parted = bool(tail.strip()) and self._alone(item.prompt) == self._full.stem
        if operator == "attention" and self._words_of_tokens()[-1] < item.n_words:
            raise AuditError(
                f"the answer to the item {item.id} is read at its last word, which attention cannot hide",
                "Use --operator delete or mask, or a task with an answer cue",
            )
        self._prior_C = self._prior()
        self._known: dict[bytes, np.ndarray] = {}
        self.full_C = self.options(np.ones((1, item.n_words), dtype=bool))[0]
        self.explained = int(self.full_C.argmax())

    @property
    def n_words(self) -> int:
        """D."""
        return self.item.n_words

    def __call__(self, masks_SD: Bool[np.ndarray, "S D"]) -> Float[np.ndarray, " S"]:
        """The probability of the explained option on each masked text."""
        return self.options(masks_SD)[:, self.explained]

    def options(self, masks_SD: Bool[np.ndarray, "S D"]) -> Float[np.ndarray, "S C"]:
        """The probabilities of all options on each masked text."""
        keys = [mask.tobytes() for mask in masks_SD]
        new = {key: mask for key, mask in zip(keys, masks_SD, strict=True) if key not in self._known}
        if new:
            asks = self._asks(list(new.values()))
            found = log_likelihoods(self.loaded.model, asks, batch_tokens=self.batch_tokens)
            self.evaluations += len(new)
            for key, arrays in zip(new, found, strict=True):
                self._known[key] = self._probabilities(torch.tensor([self._score(a[0]) for a in arrays])).numpy()
        result_SC = np.stack([self._known[key] for key in keys])
        if not np.isfinite(result_SC).all():
            raise AuditError(
                f"the model gives no finite likelihood (item {self.item.id})",
                "Its weights or activations overflow; try --dtype float32",
            )
        return result_SC

    def word_gradients(self, scales_S: Sequence[float]) -> Float[np.ndarray, "S D"]:
        """Derivatives of the probability by the scale of each word's embeddings.

        With the embeddings of all words multiplied by s, the derivative by one word's own factor is the sum over its
        tokens of embedding x gradient. At s = 1 this is gradient x input; its mean over s from 0 to 1 is integrated
        gradients from zero embeddings.

        **Arguments:**

        - `scales_S`: the values of s.
        """
        rows = max(1, self.batch_tokens // (len(self._full.stem) * len(self.item.options)))
        found = []
        for start in range(0, len(scales_S), rows):
            scales_B = torch.tensor(scales_S[start : start + rows], dtype=torch.float32, device=self.loaded.device)
            scales_BD = scales_B[:, None].repeat(1, self.n_words).requires_grad_()
            with torch.enable_grad():
                p_B = self._with_embeddings(len(scales_B), lambda words_T, by=scales_BD: _by_word(by, words_T))
                found.append(torch.autograd.grad(p_B.sum(), scales_BD)[0])
        return torch.cat(found).double().cpu().numpy()

    @torch.no_grad()
    def soft(self, keep_D: Float[np.ndarray, " D"], draws: int, seed: int = 0) -> Float[np.ndarray, " R"]:
        """The probability with elements of the words' embeddings set to zero at random (arXiv 2305.10496).

        **Arguments:**

        - `keep_D`: how likely each element of a word's embeddings is kept.
        - `draws`: R.
        - `seed`: of the draws.
        """
        model: Any = self.loaded.model
        width = model.get_input_embeddings().weight.shape[-1]
        generator = torch.Generator().manual_seed(seed)
        rows = max(1, self.batch_tokens // (len(self._full.stem) * len(self.item.options)))
        found = []
        for start in range(0, draws, rows):
            count = min(rows, draws - start)

            def kept(words_T: Tensor, count: int = count) -> Tensor:
                keep_DE = torch.tensor(keep_D, dtype=torch.float32)[:, None].expand(-1, width)
                keep_TE = torch.cat([keep_DE, torch.ones(1, width)])[words_T.cpu()]
                return torch.bernoulli(keep_TE.expand(count, -1, -1), generator=generator).to(model.device)

            found.append(self._with_embeddings(count, kept))
        return torch.cat(found).double().cpu().numpy()

    def _with_embeddings(self, rows: int, factor: Callable[[Tensor], Tensor]) -> Tensor:
        """The probability on the full text, with embeddings multiplied by `factor(word of each token)`, for each row.

        `factor` gets the word that each token of the stem belongs to (D for none), and gives `(rows, T, 1 or E)`.
        """
        model: Any = self.loaded.model
        stem, continuations = self._full.stem, self._full.continuations
        ids_BT, real_BT = pad_right([[*stem, *tokens[:-1]] for tokens in continuations])
        ids_BT[~real_BT] = stem[0]
        by_row = factor(torch.tensor(self._words_of_tokens(), device=model.device))
        behind = torch.ones(rows, ids_BT.shape[1] - len(stem), by_row.shape[2], device=model.device)
        factors = torch.cat([by_row, behind], dim=1)
        places = [(row, len(stem) - 1 + i) for row, tokens in enumerate(continuations) for i in range(len(tokens))]
        rows_P, positions_P = torch.tensor(places).unbind(1)
        size = len(continuations)
        rows_all = torch.cat([rows_P + size * row for row in range(rows)])
        with _embeddings_multiplied(model, factors.repeat_interleave(size, dim=0)):
            inputs = {"input_ids": ids_BT.to(model.device).repeat(rows, 1), "use_cache": False}
            logits_PV, _ = logits_at(model, inputs, rows_all, positions_P.repeat(rows))
        tokens_P = torch.tensor([t for tokens in continuations for t in tokens], device=logits_PV.device).repeat(rows)
        chosen_P = logits_PV.float().log_softmax(1).gather(1, tokens_P[:, None])[:, 0]
        lengths = [len(tokens) for tokens in continuations]
        p = [
            self._probabilities(torch.stack([self._score(part) for part in one.split(lengths)]))[self.explained]
            for one in chosen_P.split(sum(lengths))
        ]
        return torch.stack(p)

    def _score(self, logprobs: Any) -> Any:
        """An option's score from the log-probabilities of its tokens."""
        if self.scoring == "first":
            return logprobs[0]
        return logprobs.mean() if self.scoring == "mean" else logprobs.sum()

    def _probabilities(self, scores_C: Tensor) -> Tensor:
        return (scores_C - torch.as_tensor(self._prior_C, dtype=scores_C.dtype, device=scores_C.device)).softmax(0)

    def _prior(self) -> np.ndarray:
        if not self.item.premises:
            return np.zeros(len(self.item.options))
        asks = [encode_options(self.loaded, self.item, premise) for premise in self.item.premises]
        found = log_likelihoods(self.loaded.model, asks, batch_tokens=self.batch_tokens)
        return np.mean([[self._score(array[0]) for array in arrays] for arrays in found], axis=0)

    def _asks(self, masks: Sequence[np.ndarray]) -> list[Ask]:
        if self.operator == "attention":
            words_T = np.array(self._words_of_tokens())
            hidden = [frozenset(np.flatnonzero(np.append(~mask, False)[words_T]).tolist()) for mask in masks]
            return [Ask(self._full.stem, self._full.continuations, places) for places in hidden]
        string = self.mask_string if self.operator == "mask" else None
        prompts = [masked_prompt(self.item, mask.tolist(), string) for mask in masks]
        if not self._parted:
            return [self._ask(prompt) for prompt in prompts]
        longest = max(map(len, self._full.continuations)) - 1
        asks = []
        for ids in encode_texts(self.loaded, prompts, self.item.special):
            check_length(self.loaded, len(ids) + longest, self.item.id)
            asks.append(Ask(tuple(ids), self._full.continuations))
        return asks

    def _ask(self, prompt: str) -> Ask:
        tokenizer: Any = self.loaded.tokenizer
        ids = (getattr(tokenizer, name, None) for name in ("bos_token_id", "eos_token_id"))
        start = next((token for token in ids if token is not None), None)
        try:
            return encode_options(self.loaded, self.item, prompt, start=start)
        except AuditError as error:
            if start is None and "no token to condition on" in error.problem:
                raise AuditError(
                    f"without its words the item {self.item.id} leaves no token to condition on, and the tokenizer "
                    "has none that begins or ends a text",
                    "Use --operator mask, or a task with a template or an answer cue",
                ) from error
            raise

    def _alone(self, prompt: str) -> tuple[int, ...]:
        return tuple(encode_texts(self.loaded, [prompt], self.item.special)[0])

    def _words_of_tokens(self) -> list[int]:
        """For each token of the full prompt the word that it belongs to, D if to none."""
        tokenizer: Any = self.loaded.tokenizer
        if not getattr(tokenizer, "is_fast", False):
            raise AuditError(
                f"the tokenizer of {self.loaded.source} does not say where its tokens stand in the text",
                "Use --operator delete or mask, and no gradients",
            )
        given = tokenizer(
            self.item.prompt, add_special_tokens=self.item.special, return_offsets_mapping=True, verbose=False
        )
        spans = [span for field in self.item.words for span in field]
        words = []
        for start, end in given["offset_mapping"][: len(self._full.stem)]:
            owner = [i for i, (s, e) in enumerate(spans) if s < end and start < e]
            words.append(owner[0] if owner else self.n_words)
        return words


def _by_word(scales_BD: Tensor, words_T: Tensor) -> Tensor:
    """The factor of each token, `(B, T, 1)`; 1 where it belongs to no word."""
    one_B1 = torch.ones(len(scales_BD), 1, device=scales_BD.device)
    return torch.cat([scales_BD, one_B1], dim=1)[:, words_T, None]


@contextmanager
def _embeddings_multiplied(model: Any, factors_BTE: Tensor) -> Iterator[None]:
    """While active, token embeddings come out multiplied."""

    def multiply(_module: Any, _args: Any, output_BTE: Tensor) -> Tensor:
        return output_BTE * factors_BTE.to(output_BTE.dtype)

    handle = model.get_input_embeddings().register_forward_hook(multiply)
    try:
        yield
    finally:
        handle.remove()
