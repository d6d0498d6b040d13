"""Logits at a few positions only: those of all positions may be the largest tensor of all.

Legend: B sequences of a batch, T tokens, P positions whose next token is scored, V vocabulary, D residual width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor


def logits_at(
    model: Any, inputs: dict[str, Any], rows_P: Int[Tensor, " P"], positions_P: Int[Tensor, " P"]
) -> tuple[Float[Tensor, "P V"], Any]:
    """Run a model and give its logits at some positions.

    **Arguments:**

    - `model`: a causal language model.
    - `inputs`: what it is called with.
    - `rows_P`, `positions_P`: which positions of which rows.

    **Returns:** the logits, and the model's whole output (whose logits are of no use).
    """
    with _head_reads_only(model, rows_P, positions_P) as taken:
        output = model(**inputs)
    if taken:
        return output.logits[0], output
    device = output.logits.device
    return output.logits[rows_P.to(device), positions_P.to(device)], output


@contextmanager
def _head_reads_only(model: Any, rows_P: Tensor, positions_P: Tensor) -> Iterator[list[bool]]:
    """While active, the head is given the residual stream at the wanted positions as one sequence, `(1, P, D)`.

    What the model does to its logits afterwards (scaling, capping) acts on each position alone, and so stays as it is.
    """
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    taken: list[bool] = []

    def gather(_module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden_BTD, *rest = args
        taken.append(True)
        return (hidden_BTD[rows_P.to(hidden_BTD.device), positions_P.to(hidden_BTD.device)][None], *rest)

    handle = head.register_forward_pre_hook(gather) if head is not None else None
    try:
        yield taken
    finally:
        if handle is not None:
            handle.remove()
