"""Greedy continuations: what batches, caches and shared beginnings give is what one text at a time would."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sublayers import without
from test_continuations import forwards
from test_devices import tiny_lfm2
from zoo import ARCHITECTURES, tiny_model

from trueprune.edits import apply_drop
from trueprune.models import read_anatomy
from trueprune.observe import generate
from trueprune.observe.generate import greedy
from trueprune.observe.prefix import can_bridge, can_share
from trueprune.plans import Drop


def some_prompts(count=6, shared=9, longest=14, seed=0):
    rng = np.random.default_rng(seed)
    start = rng.integers(3, 320, shared).tolist()
    found = [start + rng.integers(3, 320, int(rng.integers(1, longest))).tolist() for _ in range(count)]
    # Two of one length, and one twice.
    return [*found, [*found[0][:-1], 7], found[1]]


PROMPTS = some_prompts()
NEW = 7


@torch.no_grad()
def plain(model, prompts, new_tokens=NEW, ends=()):
    """One text at a time, all of it read for every token, likelihoods from one last forward."""
    found = []
    for prompt in prompts:
        text = list(prompt)
        while len(text) < len(prompt) + new_tokens:
            text.append(int(model(torch.tensor([text]), use_cache=False).logits[0, -1].argmax()))
            if text[-1] in ends:
                break
        logprobs_TV = model(torch.tensor([text]), use_cache=False).logits[0].double().log_softmax(-1)
        new = text[len(prompt) :]
        places = range(len(prompt) - 1, len(text) - 1)
        found.append((tuple(new), np.array([logprobs_TV[p, t].item() for p, t in zip(places, new, strict=True)])))
    return found


def same(found, expected):
    assert [one.tokens for one in found] == [tokens for tokens, _ in expected]
    for one, (_, log_probs) in zip(found, expected, strict=True):
        assert one.log_probs.dtype == np.float64
        np.testing.assert_allclose(one.log_probs, log_probs, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_batches_write_what_one_at_a_time_writes(name, monkeypatch):
    model = tiny_model(name)
    expected = plain(model, PROMPTS)
    assert len({tokens for tokens, _ in expected}) >= 4
    assert can_share(model)
    same(greedy(model, PROMPTS, new_tokens=NEW), expected)
    same(greedy(model, PROMPTS, new_tokens=NEW, batch_tokens=40), expected)
    never_sharing_here(monkeypatch)
    same(greedy(model, PROMPTS, new_tokens=NEW), expected)
    assert not model._forward_pre_hooks


def never_sharing_here(monkeypatch):
    monkeypatch.setattr(generate, "can_share", lambda _model: False)


@pytest.mark.parametrize("name", ["mistral", "gemma3", "llama"])
def test_prompts_longer_than_the_window(name):
    model = tiny_model(name)
    assert can_bridge(model, 60) == (name == "llama")
    prompts = [*some_prompts(4, 12, 30), *some_prompts(2, 12, 3)]
    assert max(map(len, prompts)) > 16 + NEW
    same(greedy(model, prompts, new_tokens=NEW), plain(model, prompts))


def test_more_new_tokens_than_the_window():
    model = tiny_model("mistral")
    prompts = [[5, 6, 7], [5, 6, 9], [8, 9]]
    same(greedy(model, prompts, new_tokens=24), plain(model, prompts, 24))


def test_a_hybrid_with_convolutions():
    model = tiny_lfm2()
    assert not can_share(model)
    same(greedy(model, PROMPTS, new_tokens=NEW), plain(model, PROMPTS))


@pytest.mark.parametrize("name", ["llama", "gpt2", "falcon"])
def test_a_model_without_some_sublayers(name):
    model, whole = tiny_model(name), tiny_model(name)
    anatomy = read_anatomy(model)
    apply_drop(anatomy, Drop(len(anatomy.blocks), attention=(0, 2), mlp=(1,)))
    with without(whole, name, attention=(0, 2), mlp=(1,)):
        expected = plain(whole, PROMPTS)
    assert [tokens for tokens, _ in expected] != [tokens for tokens, _ in plain(tiny_model(name), PROMPTS)]
    same(greedy(model, PROMPTS, new_tokens=NEW), expected)


@pytest.mark.parametrize("sharing", [True, False])
def test_rows_end_each_on_its_own(sharing, monkeypatch):
    model = tiny_model("llama")
    if not sharing:
        never_sharing_here(monkeypatch)
    free = plain(model, PROMPTS)
    # The third token of the first text, wherever it stands, ends a text; it is part of it.
    end = free[0][0][2]
    expected = plain(model, PROMPTS, ends={end})
    lengths = {len(tokens) for tokens, _ in expected}
    assert len(lengths) > 1 and expected[0][0][-1] == end
    same(greedy(model, PROMPTS, new_tokens=NEW, end_ids=frozenset({end})), expected)
    same(greedy(model, PROMPTS, new_tokens=NEW, stops=lambda new: new[-1] == end), expected)
    # The rule sees all new tokens of a row, and none of another's.
    found = greedy(model, PROMPTS, new_tokens=NEW, stops=lambda new: len(new) == 4)
    assert [one.tokens for one in found] == [tokens[:4] for tokens, _ in free]


def test_what_is_read():
    model = tiny_model("llama")
    start = list(range(10, 60))
    prompts = [[*start, 100 + n, 200 + n] for n in range(4)] + [[*start, 90]]
    assert can_bridge(model, 60)
    shapes = forwards(model, lambda: greedy(model, prompts, new_tokens=4))
    assert shapes == [(1, 50), (5, 2), (5, 1), (5, 1), (5, 1)]
    assert forwards(model, lambda: greedy(model, prompts * 3, new_tokens=4)) == shapes
    # A row that has ended is read no more.
    first = greedy(model, prompts, new_tokens=1)
    ends = frozenset({first[0].tokens[0]})
    left = sum(one.tokens[0] not in ends for one in first)
    assert 0 < left < 5
    shapes = forwards(model, lambda: greedy(model, prompts, new_tokens=2, end_ids=ends))
    assert shapes == [(1, 50), (5, 2), (left, 1)]
    assert forwards(model, lambda: greedy(model, prompts, new_tokens=1)) == [(1, 50), (5, 2)]


def test_a_prompt_that_others_begin_with():
    """At least one token is left to each."""
    model = tiny_model("llama")
    assert can_bridge(model, 60)
    prompts = [list(range(20)), list(range(25)), list(range(23))]
    expected = plain(model, prompts, 3)
    assert forwards(model, lambda: same(greedy(model, prompts, new_tokens=3), expected))[0] == (1, 19)


def test_a_batch_holds_no_more_tokens_than_allowed(monkeypatch):
    model = tiny_model("llama")
    assert can_bridge(model, 60)
    prompts = some_prompts(20, 0, 12)
    for limit in (1, 60):
        shapes = forwards(model, lambda limit=limit: greedy(model, prompts, new_tokens=3, batch_tokens=limit))
        assert all(rows == 1 or rows * (width + 3) <= limit for rows, width in shapes if width > 1)
        assert any(rows > 1 for rows, _ in shapes) == (limit > 1)
    never_sharing_here(monkeypatch)
    shapes = forwards(model, lambda: greedy(model, prompts, new_tokens=3, batch_tokens=60))
    assert all(rows == 1 or rows * width <= 60 for rows, width in shapes)
    assert max(rows for rows, _ in shapes) > 1


def test_the_likeliest_of_several_is_the_first():
    model = tiny_model("llama")
    with torch.no_grad():
        model.lm_head.weight.mul_(0)
    found = greedy(model, PROMPTS[:2], new_tokens=2)
    assert [one.tokens for one in found] == [(0, 0), (0, 0)]
    np.testing.assert_allclose(found[0].log_probs, -np.log(320), rtol=1e-6)


def test_nothing_asked():
    model = tiny_model("llama")
    assert greedy(model, [], new_tokens=3) == []
    for prompts, new in (([[]], 3), ([[4]], 0)):
        with pytest.raises(ValueError, match="nothing to go on from"):
            greedy(model, prompts, new_tokens=new)
