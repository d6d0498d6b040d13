"""Texts sampled from the model itself: calibration for a model whose training data nobody has.

Legend: B samples at once, T tokens.
"""

from __future__ import annotations

from typing import Any

import torch

from trueprune._support.errors import ModelError
from trueprune._support.progress import track
from trueprune.models.load import LoadedModel

SAMPLES_AT_ONCE = 16
MAX_NEW_TOKENS = 512


@torch.no_grad()
def sample_documents(loaded: LoadedModel, tokens: int, seed: int) -> list[str]:
    """Sample at temperature 1 from the start-of-text token until there are at least `tokens` tokens.

    The random state of the program is left as it was.

    **Arguments:**

    - `loaded`: model and tokenizer.
    - `tokens`: how many tokens are wanted.
    - `seed`: decides the samples, on one machine.

    **Raises:** `ModelError` without a tokenizer.
    """
    tokenizer: Any = loaded.tokenizer
    if tokenizer is None:
        raise ModelError(f"{loaded.source} has no tokenizer", "Save the tokenizer beside the model")
    start = next((i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None), 0)
    length = min(MAX_NEW_TOKENS, (loaded.max_length or MAX_NEW_TOKENS + 1) - 1)
    rounds = -(-tokens // (SAMPLES_AT_ONCE * length))
    texts: list[str] = []
    generator = torch.Generator(loaded.device).manual_seed(seed)
    for _ in track(range(rounds), "sample from the model"):
        ids_BT = torch.full((SAMPLES_AT_ONCE, 1), start, device=loaded.device)
        texts += tokenizer.batch_decode(_extend(loaded.model, ids_BT, length, generator), skip_special_tokens=True)
    return [text for text in texts if text.strip()]


def _extend(model: Any, ids_BT: torch.Tensor, length: int, generator: torch.Generator) -> torch.Tensor:
    """Ancestral sampling with the model's cache. `generate` would draw from the global random state."""
    step_BT, cache = ids_BT, None
    for _ in range(length):
        output = model(step_BT, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        step_BT = torch.multinomial(output.logits[:, -1].float().softmax(-1), 1, generator=generator)
        ids_BT = torch.cat([ids_BT, step_BT], 1)
    return ids_BT[:, 1:]
