"""What many sequences begin with is read once: a key-value cache that is filled, copied and gone on from.

Legend: B sequences of a batch, T tokens, P positions, V vocabulary.
"""

from __future__ import annotations

import copy
import inspect
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from trueprune.models.probe import logit_error
from trueprune.observe.head import logits_at

# What was tried with a model's cache; forgotten with the model.
_TRIED: weakref.WeakKeyDictionary[Any, dict[str, bool]] = weakref.WeakKeyDictionary()
# Under these names configurations say that a token sees no further than so many places back.
WINDOWS = ("sliding_window", "attention_chunk_size", "window_size")
# And under this one, how many positions there are: padding has positions, too.
POSITIONS = "max_position_embeddings"


@dataclass(frozen=True, eq=False)
class Past:
    """Tokens that were read, one row or several.

    **Arguments:**

    - `cache`: the model's own cache object; never changed, copies of it are.
    - `length`: places that each row takes in the cache, padding included.
    - `seen_BT`: `False` at places that no other may attend to; `None` where there are none.
    - `real_B`: tokens of each row, where rows are padded; `None` where all are of one length.
    """

    cache: Any
    length: int
    seen_BT: Tensor | None = None
    real_B: Tensor | None = None

    def of_rows(self, rows_B: Tensor) -> Any:
        """A cache of its own with these rows, in this order, each as often as it occurs."""
        # Choosing rows and reading on make new tensors: those of the past may be shared until then.
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in cache.layers]
        # On the CPU: the layers of a model that is spread out lie on different devices.
        cache.batch_select_indices(rows_B.cpu())
        return cache


def read_on(
    model: Any,
    ids_BT: Int[Tensor, "B T"],
    want: tuple[Int[Tensor, " P"], Int[Tensor, " P"]],
    *,
    past: Past | None = None,
    rows_B: Int[Tensor, " B"] | None = None,
    seen_BT: Bool[Tensor, "B T"] | None = None,
    real_BT: Bool[Tensor, "B T"] | None = None,
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
    - `real_BT`: `False` at padding, to be given where a padded row is gone on from (see `can_bridge`).
    - `keep`: also give what was read, to be gone on from; rows must be of one length then, or come with `real_BT`.

    **Returns:** the logits, and what was read.
    """
    inputs: dict[str, Any] = {"input_ids": ids_BT.to(model.device), "use_cache": keep or past is not None}
    start = 0
    first_B1 = torch.zeros(len(ids_BT), 1, dtype=torch.long)
    if not keep or (real_BT is not None and bool(real_BT.all())):
        real_BT = None
    if real_BT is not None:
        seen_BT = real_BT if seen_BT is None else seen_BT & real_BT
    if past is not None and rows_B is not None:
        start = past.length
        first_B1 = first_B1 + start if past.real_B is None else past.real_B[rows_B][:, None]
        inputs["past_key_values"] = past.of_rows(rows_B)
        if past.seen_BT is not None or seen_BT is not None:
            before_BT = torch.ones(len(ids_BT), start).bool() if past.seen_BT is None else past.seen_BT[rows_B]
            now_BT = torch.ones(ids_BT.shape).bool() if seen_BT is None else seen_BT
            seen_BT = torch.cat([before_BT, now_BT], dim=1)
    if seen_BT is not None:
        inputs["attention_mask"] = seen_BT.long().to(model.device)
    if (start or seen_BT is not None) and _takes_positions(model):
        # Some models count the tokens that are seen; hidden ones keep their place.
        inputs["position_ids"] = (first_B1 + torch.arange(ids_BT.shape[1])).to(model.device)
    logits_PV, output = logits_at(model, inputs, *want)
    if not keep:
        return logits_PV, None
    real_B = None if real_BT is None else first_B1[:, 0] + real_BT.sum(1)
    return logits_PV, Past(output.past_key_values, start + ids_BT.shape[1], seen_BT, real_B)


def can_share(model: Any) -> bool:
    """Whether the model gives the same logits when what it read before comes from its cache.

    Tried once a model on a few tokens: with rows repeated and chosen, as scoring does. Caches that cannot be copied by
    row (some recurrent ones) fail, and then whole sequences are read.
    """
    return _tried(model, "share", lambda: _same_after(model, (7, 7)))


def can_bridge(model: Any, places: int) -> bool:
    """Whether it also does so where hidden padding stands between what it read before and what follows.

    It does where positions are given and not counted in the cache. Tried once a model; a model whose tokens see only so
    many places back, or that has only so many positions, does so as long as no more places are taken.

    **Arguments:**

    - `model`: a causal language model.
    - `places`: how many a row takes, padding included.
    """
    config: Any = getattr(model, "config", None)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    windows = [value for name in (*WINDOWS, POSITIONS) if isinstance(value := getattr(config, name, None), int)]
    if any(places > window for window in windows) or not _takes_positions(model):
        return False
    return can_share(model) and _tried(model, "bridge", lambda: _same_after(model, (7, 4)))


def _tried(model: Any, what: str, trial: Callable[[], bool]) -> bool:
    known = _TRIED.setdefault(model, {})
    if what not in known:
        known[what] = trial()
    return known[what]


@torch.no_grad()
def _same_after(model: Any, lengths: tuple[int, int]) -> bool:
    """Whether two rows, padded to the longer, can be gone on from in another order and twice."""
    table = model.get_input_embeddings().weight
    ids_BT = (torch.arange(24, dtype=torch.long).reshape(2, 12) * 7919 + 11) % table.shape[0]
    longest, order, after = max(lengths), [1, 0, 1], 5
    real_BT = torch.arange(longest) < torch.tensor(lengths)[:, None]
    rows_P, last_P = torch.arange(3), torch.full((3,), after - 1)
    try:
        whole = []
        for row in order:
            read = torch.cat([ids_BT[row, : lengths[row]], ids_BT[row, longest:]])[None]
            whole.append(read_on(model, read, (rows_P[:1], torch.tensor([read.shape[1] - 1])))[0])
        want = (rows_P[:1], torch.tensor([lengths[0] - 1]))
        _, past = read_on(model, ids_BT[:, :longest], want, real_BT=real_BT, keep=True)
        if past is None or past.cache is None:
            return False
        order_B = torch.tensor(order)
        for _ in range(2):
            # Twice, for the first use must leave the cache as it was.
            again_PV, _ = read_on(model, ids_BT[order_B, longest:], (rows_P, last_P), past=past, rows_B=order_B)
            error, tolerance = logit_error(torch.cat(whole), again_PV)
            if not error <= tolerance:
                return False
    except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return False
    return True


def _takes_positions(model: Any) -> bool:
    unwrapped = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "position_ids" in inspect.signature(unwrapped.forward).parameters
