"""What many sequences begin with is read once: a key-value cache that is filled, copied and gone on from.

Legend: B sequences of a batch, T tokens, P positions, V vocabulary.
"""

from __future__ import annotations

import copy
import inspect
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from trueprune.models.probe import logit_error
from trueprune.observe.head import logits_at

# Models whose cache was seen to work, or not to; forgotten with the model.
_TRIED: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Past:
    """Tokens that were read, one row or several of one length.

    **Arguments:**

    - `cache`: the model's own cache object; never changed, copies of it are.
    - `length`: tokens of each row.
    - `seen_BT`: `False` at tokens that no other may attend to; `None` where there are none.
    """

    cache: Any
    length: int
    seen_BT: Tensor | None = None

    def of_rows(self, rows_B: Tensor) -> Any:
        """A cache of its own with these rows, in this order, each as often as it occurs."""
        cache = copy.deepcopy(self.cache)
        cache.batch_select_indices(rows_B.to(_device(cache)))
        return cache


def read_on(
    model: Any,
    ids_BT: Int[Tensor, "B T"],
    want: tuple[Int[Tensor, " P"], Int[Tensor, " P"]],
    *,
    past: Past | None = None,
    rows_B: Int[Tensor, " B"] | None = None,
    seen_BT: Bool[Tensor, "B T"] | None = None,
    keep: bool = False,
) -> tuple[Float[Tensor, "P V"], Past | None]:
    """Read tokens, after what was read before if there is such.

    Rows may be padded on the right, where causal attention keeps padding from being seen.

    **Arguments:**

    - `model`: a causal language model.
    - `ids_BT`: the tokens.
    - `want`: rows and positions (within `ids_BT`) whose logits are wanted.
    - `past`: what stands before them.
    - `rows_B`: for each row of `ids_BT` the row of `past` that it goes on from.
    - `seen_BT`: `False` at tokens that no other may attend to.
    - `keep`: also give what was read, to be gone on from; rows must then be of one length.

    **Returns:** the logits, and what was read.
    """
    inputs: dict[str, Any] = {"input_ids": ids_BT.to(model.device), "use_cache": keep or past is not None}
    start = 0
    if past is not None and rows_B is not None:
        start = past.length
        inputs["past_key_values"] = past.of_rows(rows_B)
        if past.seen_BT is not None or seen_BT is not None:
            before_BT = torch.ones(len(ids_BT), start).bool() if past.seen_BT is None else past.seen_BT[rows_B]
            now_BT = torch.ones(ids_BT.shape).bool() if seen_BT is None else seen_BT
            seen_BT = torch.cat([before_BT, now_BT], dim=1)
    if seen_BT is not None:
        inputs["attention_mask"] = seen_BT.long().to(model.device)
    if (start or seen_BT is not None) and _takes_positions(model):
        # Some models count the tokens that are seen; hidden ones keep their place.
        places_T = torch.arange(start, start + ids_BT.shape[1], device=model.device)
        inputs["position_ids"] = places_T.expand(len(ids_BT), -1)
    logits_PV, output = logits_at(model, inputs, *want)
    kept = Past(output.past_key_values, start + ids_BT.shape[1], seen_BT) if keep else None
    return logits_PV, kept


def can_share(model: Any) -> bool:
    """Whether the model gives the same logits when what it read before comes from its cache.

    Tried once a model on a few tokens: with rows repeated and chosen, as scoring does. Caches that cannot be copied by
    row (some recurrent ones) fail, and then whole sequences are read.
    """
    if model not in _TRIED:
        _TRIED[model] = _try(model)
    return _TRIED[model]


@torch.no_grad()
def _try(model: Any) -> bool:
    table = model.get_input_embeddings().weight
    ids_BT = (torch.arange(24, dtype=torch.long).reshape(2, 12) * 7919 + 11) % table.shape[0]
    order_B = torch.tensor([1, 0, 1])
    rows_P = torch.arange(3)
    try:
        whole_PV, _ = read_on(model, ids_BT[order_B], (rows_P, torch.full((3,), 11)))
        _, past = read_on(model, ids_BT[:, :7], (rows_P[:1], torch.tensor([6])), keep=True)
        if past is None or past.cache is None:
            return False
        for _ in range(2):
            # Twice, for the first use must leave the cache as it was.
            again_PV, _ = read_on(model, ids_BT[order_B, 7:], (rows_P, torch.full((3,), 4)), past=past, rows_B=order_B)
            error, tolerance = logit_error(whole_PV, again_PV)
            if not error <= tolerance:
                return False
    except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return False
    return True


def _takes_positions(model: Any) -> bool:
    unwrapped = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "position_ids" in inspect.signature(unwrapped.forward).parameters


def _device(cache: Any) -> torch.device:
    layers = getattr(cache, "layers", ())
    return next(
        (layer.keys.device for layer in layers if getattr(layer, "keys", None) is not None), torch.device("cpu")
    )
