"""Likelihoods of continuations: what is read once is as if it were read each time."""

from __future__ import annotations

import copy

import numpy as np
import peft
import pytest
import torch
from sublayers import without
from test_devices import tiny_lfm2
from zoo import ARCHITECTURES, tiny_model

from trueprune.edits import apply_drop
from trueprune.models import read_anatomy
from trueprune.observe import continuations, prefix
from trueprune.observe.continuations import Ask, common_prefix, log_likelihoods
from trueprune.observe.prefix import can_bridge, can_share
from trueprune.plans import Drop

# PEFT asks transformers for a name that is going away; not ours to mend.
PEFT_NOTICE = "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"


def ask(stem, *following, hidden=()):
    return Ask(tuple(stem), tuple(tuple(tokens) for tokens in following), frozenset(hidden))


def some_asks(count=5, shared=10, longest=30, seed=0):
    """Asks with a common beginning: several tokens, one token, hidden positions, the same stem more than once."""
    rng = np.random.default_rng(seed)

    def tokens(n):
        return tuple(rng.integers(3, 320, n).tolist())

    start, asks = tokens(shared), []
    for number in range(count):
        stem = start + tokens(int(rng.integers(2, longest)))
        hidden = (shared, shared + 1) if number % 3 == 1 else ()
        asks.append(ask(stem, *(tokens(int(rng.integers(1, 5))) for _ in range(3)), hidden=hidden))
        asks.append(ask(stem, (5,), (7,), (5,), hidden=hidden))
    # Of one length with the first, hidden elsewhere; and the first again.
    asks.append(ask(asks[0].stem, *asks[0].continuations, hidden={len(asks[0].stem) - 1}))
    return [*asks, asks[0], asks[1]]


ASKS = some_asks()


@torch.no_grad()
def obvious(model, asks, temperatures=(1.0,)):
    """One sequence at a time, all logits in float64, one token after the other."""
    # Kernels for experts have no float64.
    double = copy.deepcopy(model) if hasattr(model.config, "num_experts_per_tok") else copy.deepcopy(model).double()
    answers = []
    for one in asks:
        answers.append([])
        for tokens in one.continuations:
            ids_BT = torch.tensor([[*one.stem, *tokens]])
            inputs = {}
            if one.hidden:
                seen = [place not in one.hidden for place in range(ids_BT.shape[1])]
                inputs["attention_mask"] = torch.tensor([seen]).long()
                # What is hidden keeps its place.
                inputs["position_ids"] = torch.arange(ids_BT.shape[1])[None]
            logits_TV = double(ids_BT, use_cache=False, **inputs).logits[0].double()
            places = torch.arange(len(tokens)) + len(one.stem) - 1
            rows = [(logits_TV[places] / t).log_softmax(-1)[range(len(tokens)), tokens] for t in temperatures]
            answers[-1].append(torch.stack(rows).numpy())
    return answers


def same(found, expected, **tolerance):
    tolerance = tolerance or {"rtol": 2e-4, "atol": 2e-4}
    assert [len(row) for row in found] == [len(row) for row in expected]
    for one, other in zip(found, expected, strict=True):
        for a, b in zip(one, other, strict=True):
            assert a.dtype == np.float64
            np.testing.assert_allclose(a, b, **tolerance)


def never_sharing(monkeypatch):
    monkeypatch.setattr(continuations, "can_share", lambda _model: False)


def forwards(model, work):
    """The shapes of the token ids of each forward."""
    seen = []
    handle = model.register_forward_pre_hook(
        lambda _m, _args, given: seen.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    try:
        work()
    finally:
        handle.remove()
    return seen


def tokens_read(shapes):
    return sum(rows * width for rows, width in shapes)


# Equal to the obvious way


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_both_ways_are_the_obvious_one(name, monkeypatch):
    model = tiny_model(name)
    assert can_share(model)
    expected = obvious(model, ASKS, (1.0, 2.5))
    same(log_likelihoods(model, ASKS, temperatures=(1.0, 2.5)), expected)
    for batch_tokens in (1, 40):
        same(log_likelihoods(model, ASKS, batch_tokens=batch_tokens), [[a[:1] for a in row] for row in expected])
    never_sharing(monkeypatch)
    for batch_tokens in (40, 10_000):
        same(log_likelihoods(model, ASKS, batch_tokens=batch_tokens), [[a[:1] for a in row] for row in expected])
    assert not model._forward_pre_hooks
    assert not model.get_output_embeddings()._forward_pre_hooks


@pytest.mark.parametrize("name", ["mistral", "gemma3", "llama", "gpt2"])
@pytest.mark.parametrize("shared", [4, 12, 40])
def test_texts_longer_than_the_window(name, shared):
    """Windows of 16 tokens; what is shared is shorter, a little shorter and longer than one."""
    model = tiny_model(name)
    asks = some_asks(5, shared, 60)
    assert max(len(one.stem) for one in asks) > 60
    same(log_likelihoods(model, asks), obvious(model, asks))


def test_hidden_tokens_are_not_seen():
    """Another token in the place of a hidden one changes nothing; in the place of one that is seen it does."""
    model = tiny_model("llama")
    stem = ASKS[0].stem
    changed = (*stem[:4], 9, *stem[5:])
    assert changed != stem
    a, b = (log_likelihoods(model, [ask(text, (8, 3), hidden={4})])[0][0] for text in (stem, changed))
    np.testing.assert_allclose(a, b, rtol=1e-5)
    a, b = (log_likelihoods(model, [ask(text, (8, 3))])[0][0] for text in (stem, changed))
    assert np.abs(a - b).max() > 1e-3


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_nothing_left_to_see(name, monkeypatch):
    """All of the stem hidden: it is finite, the same by both ways, in any company, and tells nothing of hidden tokens
    but the last, which what follows is read from."""
    model = tiny_model(name)
    every = range(12)
    asks = [ask(range(3, 15), (8, 3), (4,), hidden=every), *ASKS[:3], ask((*range(20, 31), 14), (8, 3), hidden=every)]
    found = log_likelihoods(model, asks)
    assert all(np.isfinite(array).all() for row in found for array in row)
    same([found[0][:1]], [found[-1]])
    same(log_likelihoods(model, asks[:1]), found[:1])
    never_sharing(monkeypatch)
    same(log_likelihoods(model, asks), found)


def test_bfloat16():
    for name in ("llama", "gpt2", "gemma3"):
        model = tiny_model(name).bfloat16()
        assert can_share(model)
        exact = obvious(model, ASKS)
        pairs = list(zip(log_likelihoods(model, ASKS), exact, strict=True))
        errors = np.concatenate([(a - b).ravel() for r, s in pairs for a, b in zip(r, s, strict=True)])
        spread = np.concatenate([a.ravel() for row in exact for a in row]).std()
        assert np.abs(errors).mean() < 0.05 * spread


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2", "falcon"])
def test_a_model_without_some_sublayers(name):
    model = tiny_model(name)
    expected_of = tiny_model(name)
    anatomy = read_anatomy(model)
    apply_drop(anatomy, Drop(len(anatomy.blocks), attention=(0, 2)))
    assert can_share(model)
    seen = [one for one in ASKS if not one.hidden]
    with without(expected_of, name, attention=(0, 2)):
        expected = slow(expected_of, seen)
    same(log_likelihoods(model, seen), expected)
    same(log_likelihoods(model, ASKS), obvious(model, ASKS))


@torch.no_grad()
def slow(model, asks):
    answers = []
    for one in asks:
        answers.append([])
        for tokens in one.continuations:
            logprobs_TV = (
                model(torch.tensor([[*one.stem, *tokens]]), use_cache=False).logits[0].double().log_softmax(-1)
            )
            places = range(len(one.stem) - 1, len(one.stem) - 1 + len(tokens))
            answers[-1].append(np.array([[logprobs_TV[p, t].item() for p, t in zip(places, tokens, strict=True)]]))
    return answers


@pytest.mark.filterwarnings(PEFT_NOTICE)
@pytest.mark.parametrize("name", ["llama", "gpt2", "opt"])
def test_a_model_under_an_adapter(name):
    plain = tiny_model(name)
    config = peft.LoraConfig(
        target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False, fan_in_fan_out=name == "gpt2"
    )
    model = peft.get_peft_model(tiny_model(name), config).eval()
    assert can_share(model)
    found = log_likelihoods(model, ASKS)
    same(found, obvious(model.get_base_model(), ASKS))
    assert np.abs(found[0][0] - log_likelihoods(plain, ASKS)[0][0]).max() > 1e-2


# What is read


def test_what_is_shared_is_read_once():
    model = tiny_model("llama")
    start = tuple(range(10, 60))
    asks = [ask((*start, 100 + n, 200 + n), (3, 4, 5), (6,), (7, 8)) for n in range(6)]
    shapes = forwards(model, lambda: log_likelihoods(model, asks))
    assert can_share(model)
    shapes = forwards(model, lambda: log_likelihoods(model, asks))
    # The beginning; two tokens of each stem; and of its two longer options what is read after their first token.
    assert shapes[0] == (1, 50)
    assert tokens_read(shapes[:2]) == 50 + 6 * 2
    assert sorted(shapes[2:]) == [(12, 2)]
    # A stem alone shares nothing with others, yet is read once for all its continuations.
    assert forwards(model, lambda: log_likelihoods(model, asks[:1])) == [(1, 52), (2, 2)]
    # And what is asked twice is read once.
    assert forwards(model, lambda: log_likelihoods(model, asks * 3)) == shapes


def test_a_short_beginning_is_not_worth_a_forward():
    model = tiny_model("llama")
    assert can_share(model)
    for shared, first in ((7, (4, 9)), (8, (1, 8))):
        asks = [ask((*range(shared), *((50 + n,) * (9 - shared))), (3,), (4,)) for n in range(4)]
        assert forwards(model, lambda asks=asks: log_likelihoods(model, asks))[0] == first
    # At least one token is left to each stem, though one stem is the beginning of all.
    asks = [ask(range(20), (3,)), ask(range(25), (3,))]
    assert forwards(model, lambda: log_likelihoods(model, asks)) == [(1, 19), (2, 6)]
    # Hidden tokens are not shared with those who see them.
    asks = [ask(range(20), (3,), hidden={9}), ask(range(25), (3,))]
    assert forwards(model, lambda: log_likelihoods(model, asks))[0] == (1, 9)
    asks = [ask(range(20), (3,), hidden={2}), ask(range(25), (3,))]
    assert forwards(model, lambda: log_likelihoods(model, asks)) == [(2, 25)]


def test_options_of_a_single_token_cost_one_prompt():
    model = tiny_model("llama")
    assert can_share(model)
    one = ask(range(3, 20), (5,), (6,), (7,), (8,))
    assert forwards(model, lambda: log_likelihoods(model, [one])) == [(1, 17)]


def test_stems_of_similar_length_are_read_together_where_padding_may_stand_between():
    model = tiny_model("llama")
    assert can_bridge(model, 60)
    asks = [ask(range(20 + n, 30 + n), (3, 4), (5, 6, 7)) for n in range(2)] + [ask(range(50, 57), (3, 4), (8,))]
    expected = slow(model, asks)
    assert forwards(model, lambda: same(log_likelihoods(model, asks), expected)) == [(3, 10), (5, 2)]


def test_a_window_keeps_stems_of_different_length_apart():
    model = tiny_model("mistral")
    window = model.config.sliding_window
    assert can_bridge(model, window)
    assert not can_bridge(model, window + 1)
    asks = [ask(range(20, 33), (3, 4)), ask(range(50, 57), (3, 4, 5))]
    expected = slow(model, asks)
    assert forwards(model, lambda: same(log_likelihoods(model, asks), expected)) == [(2, 13), (2, 2)]
    asks = [ask(range(20, 33), (3, 4)), ask(range(50, 57), (3, 4, 5, 6, 7, 8))]
    expected = slow(model, asks)
    shapes = forwards(model, lambda: same(log_likelihoods(model, asks), expected))
    assert shapes == [(1, 7), (1, 5), (1, 13), (1, 1)]


def test_padding_has_positions_too():
    """A short stem padded to a long one, and then longer options: more places than the model has positions."""
    model = tiny_model("gpt2")
    limit = model.config.max_position_embeddings
    assert can_bridge(model, limit)
    assert not can_bridge(model, limit + 1)
    long, short = limit - 4, limit - 14
    asks = [
        ask((n % 300 + 3 for n in range(long)), (3, 4)),
        ask((n % 290 + 7 for n in range(short)), tuple(range(3, 15))),
    ]
    same(log_likelihoods(model, asks), slow(model, asks))


def test_rows_that_copy_a_long_past_are_few():
    model = tiny_model("llama")
    assert can_bridge(model, 250)
    asks = [ask(((n * 7 + k) % 300 + 3 for n in range(200)), *((i, 5) for i in range(3, 103))) for k in range(2)]
    shapes = forwards(model, lambda: log_likelihoods(model, asks, batch_tokens=512))
    # A sixteenth of the past for each row: 512 / (200 / 16).
    assert max(rows for rows, _ in shapes) <= 512 // (200 // 16)


def test_a_model_that_counts_its_cache_for_positions_does_not_bridge(monkeypatch):
    monkeypatch.setattr(prefix, "_takes_positions", lambda _model: False)
    model = tiny_model("gpt2")
    assert can_share(model)
    assert not can_bridge(model, 20)
    asks = [ask(range(20, 30), (3, 4)), ask(range(50, 57), (3, 4, 5))]
    same(log_likelihoods(model, asks), slow(model, asks))


def test_a_batch_holds_no_more_tokens_than_allowed(monkeypatch):
    model = tiny_model("llama")
    assert can_bridge(model, 60)
    for limit in (1, 40, 100):
        shapes = forwards(model, lambda limit=limit: log_likelihoods(model, ASKS, batch_tokens=limit))
        assert all(rows == 1 or rows * width <= limit for rows, width in shapes)
        assert any(rows > 1 for rows, _ in shapes) == (limit > 1)
    never_sharing(monkeypatch)
    for limit in (1, 40, 100):
        shapes = forwards(model, lambda limit=limit: log_likelihoods(model, ASKS, batch_tokens=limit))
        assert all(rows == 1 or rows * width <= limit for rows, width in shapes)


def test_a_batch_holds_little_padding():
    """Short options are not padded to long ones, but as long as a forward more would cost more."""
    model = tiny_model("llama")
    assert can_bridge(model, 60)
    asks = [ask((*range(20), 30 + n), (3,) * (2 + n % 10), (4,) * (2 + n % 10)) for n in range(40)]
    real = 2 * sum(1 + n % 10 for n in range(40))
    shapes = forwards(model, lambda: log_likelihoods(model, asks, batch_tokens=640))
    assert tokens_read(shapes[2:]) - real <= (len(shapes) - 2) * 640 / 16
    assert len(shapes) - 2 <= 5
    same(log_likelihoods(model, asks, batch_tokens=640), log_likelihoods(model, asks, batch_tokens=1))


def test_whole_sequences_are_read_once_each(monkeypatch):
    never_sharing(monkeypatch)
    model = tiny_model("llama")
    one = ask(range(3, 20), (5,), (6,), (7, 8), (7, 9), (7, 8, 9))
    shapes = forwards(model, lambda: log_likelihoods(model, [one, one], batch_tokens=1))
    # The stem, the stem with 7, the stem with 7 and 8.
    assert sorted(shapes) == [(1, 17), (1, 18), (1, 19)]


def test_the_head_reads_no_more_than_the_scored_positions():
    model = tiny_model("llama")
    assert can_bridge(model, 60)
    shapes = []
    handle = model.lm_head.register_forward_hook(lambda _m, _a, out: shapes.append(tuple(out.shape)))
    one = ask(range(3, 20), (5,), (6, 7), (7, 8, 9))
    log_likelihoods(model, [one])
    # After the stem, and after each token of the options but their last.
    assert shapes == [(1, 1, 320), (1, 3, 320)]
    handle.remove()
    assert not model.lm_head._forward_pre_hooks


def test_a_model_without_a_head_of_its_own_is_scored_on_all_logits():
    model = tiny_model("llama")
    expected = log_likelihoods(model, ASKS)
    model.get_output_embeddings = lambda: None
    same(log_likelihoods(model, ASKS), expected, rtol=1e-5)


def test_nothing_asked():
    assert log_likelihoods(tiny_model("llama"), []) == []


def test_common_prefix():
    assert common_prefix((), (1,)) == 0
    assert common_prefix((1, 2), (1, 2)) == common_prefix((1, 2, 3), (1, 2)) == 2
    assert common_prefix((1, 2, 3), (1, 3, 3)) == 1


# Models that cannot share


@pytest.mark.parametrize("kind", ["raises", "ignores rows", "forgets", "has none"])
def test_caches_that_do_not_serve_are_found_out(kind, monkeypatch):
    from transformers.cache_utils import Cache

    model = tiny_model("llama")
    if kind == "raises":

        def refuse(*_):
            raise NotImplementedError

        monkeypatch.setattr(Cache, "batch_select_indices", refuse)
    elif kind == "ignores rows":
        # As many rows as wanted, but not these.
        right = Cache.batch_select_indices
        monkeypatch.setattr(Cache, "batch_select_indices", lambda self, rows: right(self, torch.zeros_like(rows)))
    else:
        forward = model.forward

        def changed(*args, **given):
            if kind == "forgets":
                given.pop("past_key_values", None)
            output = forward(*args, **given)
            if kind == "has none":
                output.past_key_values = None
            return output

        monkeypatch.setattr(model, "forward", changed)
    assert not can_share(model)
    same(log_likelihoods(model, ASKS), obvious(tiny_model("llama"), ASKS))


def test_a_hybrid_with_convolutions_reads_whole_sequences():
    model = tiny_lfm2()
    assert not can_share(model)
    asks = [one for one in ASKS if not one.hidden]
    same(log_likelihoods(model, asks), slow(model, asks))


def test_whether_a_model_can_share_is_tried_once_and_forgotten_with_it(monkeypatch):
    tried = []
    monkeypatch.setattr(prefix, "_same_after", lambda model, lengths: tried.append(1) or True)
    model, other = tiny_model("llama"), tiny_model("llama")
    assert can_share(model) and can_share(model) and can_share(other)
    assert len(tried) == 2
    known = len(prefix._TRIED)
    del model
    assert len(prefix._TRIED) == known - 1


def test_the_first_use_leaves_the_cache_as_it_was():
    model = tiny_model("llama")
    rows = torch.tensor([0])
    with torch.no_grad():
        _, past = prefix.read_on(model, torch.tensor([[5, 6, 7]]), (rows, torch.tensor([2])), keep=True)
        found = [
            prefix.read_on(model, torch.tensor([[8, 9]]), (rows, torch.tensor([1])), past=past, rows_B=rows)[0]
            for _ in range(2)
        ]
    assert past.length == 3
    assert torch.equal(*found)
    assert past.cache.get_seq_length() == 3
