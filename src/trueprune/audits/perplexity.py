"""Perplexity over windows of a text, each window an item.

Legend: W windows, T tokens of a window, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from trueprune._support.errors import AuditError, ModelError
from trueprune._support.hashing import hash_json
from trueprune._support.progress import track
from trueprune.audits.measurement import Measurement
from trueprune.models.load import LoadedModel

INSTRUMENT = "perplexity"


def measure_perplexity(
    loaded: LoadedModel, text: str, *, window: int = 512, stride: int | None = None, max_tokens: int | None = None
) -> Measurement:
    """Perplexity of a text.

    Disjoint windows (`stride = window`) are the protocol of the pruning papers: each window is scored from its second
    token on. With a smaller stride the windows overlap and each scores only the tokens that the one before did not.

    **Arguments:**

    - `loaded`: model and tokenizer.
    - `text`: the whole text.
    - `window`: tokens that the model sees at once.
    - `stride`: tokens between window starts; `window` by default.
    - `max_tokens`: use only the first so many tokens.

    **Returns:** items are windows, values their mean negative log-likelihood in nats, weights their scored tokens.

    **Raises:** `AuditError` for a window over the model's limit or a text shorter than one window.
    """
    if window < 2:
        raise AuditError(f"the window {window} holds no token to predict", "Use e.g. 512")
    stride = stride or window
    if loaded.max_length and window > loaded.max_length:
        raise AuditError(f"the window {window} is over the model's limit of {loaded.max_length}", "Use a smaller one")
    if not 0 < stride <= window:
        raise AuditError(f"the stride {stride} is not in [1, {window}]", "Choose one that is")
    ids = _encode(loaded, text)[:max_tokens]
    if len(ids) < window:
        raise AuditError(f"the text has {len(ids)} tokens, fewer than the window {window}", "Give a longer text")
    starts = list(range(0, len(ids) - window + 1, stride))
    values, weights, names = [], [], []
    for start in track(starts, "perplexity"):
        here = ids[start : start + window]
        nll_T = token_nll(loaded.model, torch.tensor([here], device=loaded.device))[0]
        fresh = nll_T if start == 0 or stride == window else nll_T[-stride:]
        values.append(float(fresh.double().mean()))
        weights.append(len(fresh))
        names.append(f"{start}:{hash_json(here)[:12]}")
    if not np.isfinite(values).all():
        raise AuditError("the model gives no finite likelihood", "Its weights or activations overflow; try float32")
    details = {"window": window, "stride": stride, "tokens": len(ids)}
    return Measurement(
        INSTRUMENT,
        "perplexity",
        names,
        np.array(values),
        weights=np.array(weights, dtype=np.float64),
        reduction="exp-mean",
        higher_is_better=False,
        headline=True,
        details=details,
    )


@torch.no_grad()
def token_nll(model: Any, ids_WT: Int[Tensor, "W T"]) -> Float[Tensor, "W T-1"]:
    """Negative log-likelihood of each token after the first, in nats; of shape `(W, T - 1)`, float32."""
    logits_WTV = model(ids_WT, use_cache=False).logits[:, :-1].float()
    targets_WT = ids_WT[:, 1:]
    # One long list of tokens: over a transposed vocabulary axis the same sum takes several times as long.
    nll = F.cross_entropy(logits_WTV.flatten(0, 1), targets_WT.flatten(), reduction="none")
    return nll.view(targets_WT.shape)


def _encode(loaded: LoadedModel, text: str) -> list[int]:
    tokenizer: Any = loaded.tokenizer
    if tokenizer is None:
        raise ModelError(f"{loaded.source} has no tokenizer", "Save the tokenizer beside the model")
    return list(tokenizer(text, verbose=False)["input_ids"])
