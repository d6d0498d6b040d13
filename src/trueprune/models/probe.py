"""A few tokens through a model, to see that it is still the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def probe_logits(model: Any, length: int = 12) -> Tensor:
    """Logits on few but spread-out tokens: every block and most rows of every matrix take part.

    **Arguments:**

    - `model`: a causal language model.
    - `length`: tokens of each of two sequences, T.

    **Returns:** of shape `(2, T, V)`, on the CPU.
    """
    table = model.get_input_embeddings().weight
    ids_BT = (torch.arange(2 * length, dtype=torch.long).reshape(2, length) * 7919 + 11) % table.shape[0]
    with torch.no_grad():
        return model(ids_BT.to(table.device), use_cache=False).logits.cpu()


def logit_error(want_BTV: Tensor, got_BTV: Tensor) -> tuple[float, float]:
    """Greatest difference relative to the greatest logit, and how much of it rounding explains.

    The same weights on the same device give the same bits but for the order of a few sums.
    """
    want, got = want_BTV.float(), got_BTV.float()
    error = ((want - got).abs().max() / want.abs().max().clamp_min(1e-6)).item()
    return error, 1e-4 if want_BTV.dtype == torch.float32 else 1e-2
