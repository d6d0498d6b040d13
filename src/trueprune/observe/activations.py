"""Last-token activations of every block in one batched forward.

Legend: N texts, B texts of a batch, T tokens, L blocks, D residual width.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trueprune._support.errors import ModelError, TextError
from trueprune._support.progress import track
from trueprune.models.anatomy import Anatomy
from trueprune.models.load import LoadedModel
from trueprune.observe.replay import model_inputs, stop_forward, stop_here


def encode(loaded: LoadedModel, texts: list[str]) -> list[list[int]]:
    """Token ids of each text with the tokenizer's own special tokens, as the papers feed statements.

    **Raises:** `TextError` for a text of no tokens, or one longer than the model's limit.
    """
    if loaded.tokenizer is None:
        raise ModelError(f"{loaded.source} has no tokenizer", "Save the tokenizer beside the model")
    encoded: list[list[int]] = [list(ids) for ids in loaded.tokenizer(list(texts))["input_ids"]]  # type: ignore[index]
    for text, ids in zip(texts, encoded, strict=True):
        if not ids:
            raise TextError(f"the text {text!r} has no tokens", "Remove it")
        if loaded.max_length and len(ids) > loaded.max_length:
            raise TextError(f"a text has {len(ids)} tokens, the model's limit is {loaded.max_length}", "Shorten it")
    return encoded


@torch.no_grad()
def last_token_activations(
    anatomy: Anatomy,
    encoded: list[list[int]],
    *,
    batch_tokens: int = 1024,
    description: str = "statements",
    with_input: bool = False,
) -> Float[Tensor, "N L D"]:
    """The residual stream after every block at the last token of each text.

    Texts are sorted by length and batched; each is padded on the right, where causal attention keeps padding from
    being seen, whatever side the tokenizer prefers. The forward ends after the last block.

    **Arguments:**

    - `anatomy`: the model's parts.
    - `encoded`: token ids of each text.
    - `batch_tokens`: tokens in a batch, padding included.
    - `description`: what the progress bar says.
    - `with_input`: also the stream before the first block, in front; L is then one more.

    **Returns:** of shape `(N, L, D)`, float32, on the CPU, in the order of `encoded`.
    """
    device = anatomy.device
    result_NLD: Tensor | None = None
    for rows in track(length_batches([len(ids) for ids in encoded], batch_tokens), description):
        ids_BT, mask_BT = pad_right([encoded[i] for i in rows])
        last_B = mask_BT.sum(1) - 1
        mask = None if bool(mask_BT.all()) else mask_BT.to(device)
        acts_BLD = _forward(anatomy, ids_BT.to(device), mask, last_B, with_input)
        if result_NLD is None:
            result_NLD = torch.empty(len(encoded), *acts_BLD.shape[1:])
        result_NLD[rows] = acts_BLD
    if result_NLD is None:
        raise TextError("there are no statements to read", "Give at least one")
    return result_NLD


def pad_right(encoded: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Token ids and mask, both of shape `(B, T)`, T the longest text; padding is token 0 under a `False` mask."""
    width = max(len(ids) for ids in encoded)
    ids_BT = torch.zeros(len(encoded), width, dtype=torch.long)
    mask_BT = torch.zeros(len(encoded), width, dtype=torch.bool)
    for row, ids in enumerate(encoded):
        ids_BT[row, : len(ids)] = torch.tensor(ids)
        mask_BT[row, : len(ids)] = True
    return ids_BT, mask_BT


def length_batches(lengths: list[int], batch_tokens: int) -> list[list[int]]:
    """Which texts go together: of similar length, and together at most so many tokens, padding included."""
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    batches: list[list[int]] = []
    for index in order:
        if batches and lengths[index] * (len(batches[-1]) + 1) <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def _forward(anatomy: Anatomy, ids_BT: Tensor, mask_BT: Tensor | None, last_B: Tensor, with_input: bool) -> Tensor:
    taken: list[Tensor] = []
    wanted = len(anatomy.blocks) + with_input

    def take(hidden_BTD: Tensor) -> None:
        rows = torch.arange(hidden_BTD.shape[0], device=hidden_BTD.device)
        taken.append(hidden_BTD[rows, last_B.to(hidden_BTD.device)].float().cpu())

    def before(_module: nn.Module, args: Any, kwargs: Any) -> None:
        take(kwargs["hidden_states"] if "hidden_states" in kwargs else args[0])

    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        take(output[0] if isinstance(output, tuple) else output)
        if len(taken) == wanted:
            stop_forward()

    handles = [block.module.register_forward_hook(hook) for block in anatomy.blocks]
    if with_input:
        handles.append(anatomy.blocks[0].module.register_forward_pre_hook(before, with_kwargs=True))
    try:
        with stop_here():
            anatomy.model(**model_inputs(anatomy.model, ids_BT, mask_BT))
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(taken, dim=1)
