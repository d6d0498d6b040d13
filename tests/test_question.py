"""A question whose words go: probabilities, gradients and draws equal to the obvious way, and nothing asked twice."""

from __future__ import annotations

import copy
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_devices import tiny_lfm2
from test_predict import Merging
from tokenizers import processors
from zoo import ARCHITECTURES, tiny_model

from trueprune._support.errors import AuditError
from trueprune.audits import predict
from trueprune.audits.faithfulness import question
from trueprune.audits.faithfulness.attributions.gradients import STEPS, gradient_x_input, integrated_gradients
from trueprune.audits.faithfulness.question import Question
from trueprune.audits.faithfulness.value import every_mask
from trueprune.models.load import LoadedModel
from trueprune.texts.tasks import PromptOptions, Task, TaskItem, questions, render

SOME = ["llama", "gemma3", "gpt2", "opt", "falcon"]


PLAIN = PromptOptions()


def asked(text="The red soup was not good .", options=("bad", "fun"), style=PLAIN, **how):
    how = {"template": "Review: {}", "cue": "Mood:", "instruction": "Say bad or good.", **how}
    item = TaskItem("soup", (text,) if isinstance(text, str) else text, options, 0)
    return render(Task("mine", lambda: iter(()), **how), item, style)


def model_of(name, tokenizer):
    return LoadedModel(tiny_model(name), tokenizer, name)


def some_masks(n_words, count=6, seed=0):
    """None, all, and some between; the first two again."""
    masks_SD = np.random.default_rng(seed).random((count, n_words)) < 0.5
    masks_SD[0], masks_SD[1] = False, True
    return np.concatenate([masks_SD, masks_SD[:2]])


def words_gone(item, mask, string=None):
    """The prompt rebuilt from the words of its only field."""
    words = [w if stays else string for w, stays in zip(item.word_texts(), mask, strict=True)]
    start, end = item.words[0][0][0], item.words[0][-1][1]
    return item.prompt[:start] + " ".join(w for w in words if w is not None) + item.prompt[end:]


def in_front(alone, wholes):
    """How many tokens all have in common at the front."""
    return next(n for n in range(len(alone), -1, -1) if all(ids[:n] == alone[:n] and len(ids) > n for ids in wholes))


def score_of(logprobs, scoring):
    return {"sum": sum(logprobs), "mean": sum(logprobs) / len(logprobs), "first": logprobs[0]}[scoring]


@torch.no_grad()
def obvious_scores(loaded, prompt, options, scoring="sum", special=True):
    """Each option after a prompt, one sequence at a time."""
    texts = (prompt, *(prompt + option for option in options))
    alone, *wholes = (loaded.tokenizer(text, add_special_tokens=special)["input_ids"] for text in texts)
    start = in_front(alone, wholes)
    assert start
    scores = []
    for ids in wholes:
        logprobs = loaded.model(torch.tensor([ids]), use_cache=False).logits[0].double().log_softmax(-1)
        scores.append(score_of([logprobs[p - 1, ids[p]].item() for p in range(start, len(ids))], scoring))
    return np.array(scores)


def softmax(scores):
    p = np.exp(scores - scores.max())
    return p / p.sum()


def tokens_of_words(loaded, item, special=True):
    """For each word the places of its tokens, by the characters that these stand for."""
    given = loaded.tokenizer(item.prompt, add_special_tokens=special, return_offsets_mapping=True)
    spans = [span for field in item.words for span in field]
    return [
        [place for place, (a, b) in enumerate(given["offset_mapping"]) if set(range(a, b)) & set(range(start, end))]
        for start, end in spans
    ]


@torch.no_grad()
def obvious_hidden(loaded, item, mask):
    """The probabilities with the tokens of some words hidden from all others, one sequence at a time."""
    hidden = [p for stays, places in zip(mask, tokens_of_words(loaded, item), strict=True) if not stays for p in places]
    stem = loaded.tokenizer(item.prompt)["input_ids"]
    scores = []
    for option in item.options:
        ids = loaded.tokenizer(item.prompt + option)["input_ids"]
        seen_BT = torch.tensor([[place not in hidden for place in range(len(ids))]]).long()
        places_BT = torch.arange(len(ids))[None]
        output = loaded.model(torch.tensor([ids]), attention_mask=seen_BT, position_ids=places_BT, use_cache=False)
        logprobs = output.logits[0].double().log_softmax(-1)
        scores.append(sum(logprobs[p - 1, ids[p]].item() for p in range(len(stem), len(ids))))
    return softmax(np.array(scores))


def from_embeddings(loaded, item, factors_TE, scoring="sum"):
    """The probabilities with the embeddings of the prompt's tokens multiplied, in the model's own precision."""
    stem = loaded.tokenizer(item.prompt)["input_ids"]
    scores = []
    for option in item.options:
        ids = loaded.tokenizer(item.prompt + option)["input_ids"]
        embeddings_BTE = loaded.model.get_input_embeddings()(torch.tensor([ids])).detach().clone()
        embeddings_BTE[0, : len(stem)] *= factors_TE
        with torch.no_grad():
            logits = loaded.model(inputs_embeds=embeddings_BTE, use_cache=False).logits[0]
        logprobs = logits.double().log_softmax(-1)
        scores.append(score_of([logprobs[p - 1, ids[p]].item() for p in range(len(stem), len(ids))], scoring))
    return softmax(np.array(scores))


# Probabilities


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2", "mixtral"])
@pytest.mark.parametrize("operator", ["delete", "mask"])
def test_probabilities_are_those_of_the_obvious_way(name, operator, tokenizer):
    loaded, item = model_of(name, tokenizer), asked()
    assert item.n_words == 6
    masks_SD = some_masks(item.n_words)
    string = "[MASK]" if operator == "mask" else None
    expected = np.array(
        [softmax(obvious_scores(loaded, words_gone(item, mask, string), item.options)) for mask in masks_SD]
    )
    own = Question(loaded, item, operator=operator)
    np.testing.assert_allclose(own.options(masks_SD), expected, rtol=2e-3, atol=1e-5)
    assert own.explained == expected[1].argmax()
    np.testing.assert_allclose(own.full_C, expected[1], rtol=2e-3, atol=1e-5)
    np.testing.assert_array_equal(own(masks_SD), own.options(masks_SD)[:, own.explained])
    assert np.ptp(expected[:, 0]) > 1e-3
    for batch_tokens in (1, 60) if name == "llama" else ():
        other = Question(loaded, item, operator=operator, batch_tokens=batch_tokens)
        np.testing.assert_allclose(other.options(masks_SD), expected, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_hidden_words_are_those_of_a_whole_forward(name, tokenizer):
    loaded, item = model_of(name, tokenizer), asked()
    masks_SD = some_masks(item.n_words, 5)
    own = Question(loaded, item, operator="attention")
    expected = np.array([obvious_hidden(loaded, item, mask) for mask in masks_SD])
    np.testing.assert_allclose(own.options(masks_SD), expected, rtol=2e-3, atol=1e-5)
    assert np.ptp(expected[:, 0]) > 1e-3


@pytest.mark.parametrize(
    ("options", "style", "scoring"),
    [
        *((("bad", "fun", "wet and dry"), PLAIN, scoring) for scoring in ("sum", "mean", "first")),
        *((("on", "the", "a"), PLAIN, scoring) for scoring in ("sum", "mean", "first")),
        *((("bad", "bleak"), PromptOptions(answers="letters"), scoring) for scoring in ("sum", "mean")),
        *((("bad", "fun"), PromptOptions(correct="contextual"), scoring) for scoring in ("sum", "mean", "first")),
        (("bad", "fun"), PromptOptions(correct="pmi", answers="letters"), "sum"),
    ],
)
def test_every_way_of_asking(tiny, options, style, scoring):
    item = asked(options=options, style=style)
    masks_SD = some_masks(item.n_words, 5)
    expected = []
    for mask in masks_SD:
        scores = obvious_scores(tiny, words_gone(item, mask), item.options, scoring)
        for premise in item.premises:
            scores = scores - obvious_scores(tiny, premise, item.options, scoring)
        expected.append(softmax(scores))
    own = Question(tiny, item, scoring=scoring)
    np.testing.assert_allclose(own.options(masks_SD), expected, rtol=2e-3, atol=1e-5)
    assert np.ptp(np.array(expected)[:, 0]) > 1e-3
    np.testing.assert_allclose(own.full_C, predict(tiny, [item], scoring=scoring).probabilities_NC[0], rtol=1e-4)
    hidden = Question(tiny, item, scoring=scoring, operator="attention")
    np.testing.assert_allclose(hidden.full_C, own.full_C, rtol=1e-4)


def test_a_model_that_shares_nothing(tokenizer):
    loaded, item = LoadedModel(tiny_lfm2(), tokenizer, "hybrid"), asked()
    masks_SD = some_masks(item.n_words, 5)
    expected = [softmax(obvious_scores(loaded, words_gone(item, mask), item.options)) for mask in masks_SD]
    np.testing.assert_allclose(Question(loaded, item).options(masks_SD), expected, rtol=2e-3, atol=1e-5)


def test_the_explained_option_stays_the_same(tiny):
    """It is the one preferred on the full text, also where fewer words make another one likelier."""
    found = []
    for item in questions("sentiment", 6):
        own = Question(tiny, item)
        masks_SD = every_mask(item.n_words)[:256:16]
        p_SC = own.options(masks_SD)
        np.testing.assert_array_equal(own(masks_SD), p_SC[:, own.full_C.argmax()])
        found.append((p_SC.argmax(1) != own.explained).any())
    assert any(found)


def test_two_fields(tiny):
    item = asked(("It rained a lot .", "It was wet"), template="Premise: {}\nHypothesis: {}")
    prompts = {
        (False,) * 7: "Say bad or good.\nPremise: \nHypothesis: \nMood:",
        (True,) * 7: item.prompt,
        (True, False, False, True, False, True, False): ("Say bad or good.\nPremise: It lot .\nHypothesis: was\nMood:"),
    }
    masks_SD = np.array(list(prompts))
    expected = [softmax(obvious_scores(tiny, text, item.options)) for text in prompts.values()]
    np.testing.assert_allclose(Question(tiny, item).options(masks_SD), expected, rtol=2e-3, atol=1e-5)


def test_an_end_that_the_tokenizer_joins_with_an_option():
    """`:a` is one token: what is scored then begins with it, in every text."""
    loaded = LoadedModel(tiny_model("llama"), Merging(), "merging")
    item = asked("so it is", ("ab", "b"), cue="", template="{}", instruction="")
    item = replace(item, prompt=item.prompt + " now:", options=("ab", "b"))
    masks_SD = some_masks(3, 5)
    own = Question(loaded, item)
    expected = []
    for mask in masks_SD:
        # One character is one token, but for the colon and the a.
        stem = words_gone(item, mask).removesuffix(":")
        wholes = [[ord(c) % 300 + 3 for c in text] for text in (stem + "\x01b", stem + ":b")]
        scores = []
        for ids in wholes:
            with torch.no_grad():
                logprobs = loaded.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
            scores.append(sum(logprobs[p - 1, ids[p]].item() for p in range(len(stem), len(ids))))
        expected.append(softmax(np.array(scores)))
    np.testing.assert_allclose(own.options(masks_SD), expected, rtol=2e-3, atol=1e-5)


# What is asked


def test_no_mask_is_asked_twice(tiny, monkeypatch):
    calls = []
    right = question.log_likelihoods

    def heard(model, asks, **rest):
        calls.append(len(asks))
        return right(model, asks, **rest)

    monkeypatch.setattr(question, "log_likelihoods", heard)
    item = asked()
    own = Question(tiny, item)
    assert (own.evaluations, calls) == (1, [1])
    masks_SD = some_masks(item.n_words, 8)
    distinct = len({tuple(mask) for mask in masks_SD})
    first = own(masks_SD)
    # The full text was asked before.
    assert own.evaluations == distinct
    assert calls == [1, distinct - 1]
    np.testing.assert_array_equal(own(masks_SD[::-1]), first[::-1])
    assert own.evaluations == distinct
    assert len(calls) == 2
    assert own.n_words == 6


@pytest.mark.parametrize("operator", ["delete", "mask"])
@pytest.mark.parametrize("cue", ["Mood:", ""])
def test_nothing_but_the_words_changes(tiny, operator, cue, monkeypatch):
    texts = []
    right = question.encode_texts

    def heard(loaded, given, special=True):
        texts.extend(given)
        return right(loaded, given, special)

    monkeypatch.setattr("trueprune.audits.faithfulness.question.encode_texts", heard)
    monkeypatch.setitem(question.encode_options.__globals__, "encode_texts", heard)
    item = asked("red soup", ("bad", "good"), PromptOptions(answers="letters"), cue=cue, template="({}) red soup")
    own = Question(tiny, item, operator=operator, mask_string="_")
    texts.clear()
    own(every_mask(2))
    prompts = {re.sub(" [AB]$", "", text) for text in texts}
    gone = ["(_ _)", "(red _)", "(_ soup)"] if operator == "mask" else ["()", "(red)", "(soup)"]
    end = f" red soup\nA. bad\nB. good\n{cue or 'Answer:'}"
    assert prompts == {f"Say bad or good.\n{text}{end}" for text in gone}


def test_texts_of_one_word(tiny):
    item = asked("Soup")
    for operator in question.OPERATORS:
        own = Question(tiny, item, operator=operator)
        assert own.n_words == 1
        p_S = own(every_mask(1))
        assert p_S[1] == own.full_C.max()
        assert p_S[0] != p_S[1]
    assert gradient_x_input(own, 1).shape == (1,)


def test_what_cannot_be_asked_is_named(tiny):
    with pytest.raises(AuditError, match="the item soup has no words to explain"):
        Question(tiny, replace(asked(), words=()))
    with pytest.raises(AuditError, match=r"the item soup has \d+ tokens, over the model's limit of 256"):
        Question(tiny, asked("word " * 300))
    with pytest.raises(AuditError, match="begin with the same token"):
        Question(tiny, asked(options=("good", "good and")), scoring="first")
    # A mask may be longer than the word in whose place it stands; without a cue no option's tokens are sure.
    for cue in ("Mood:", ""):
        own = Question(tiny, asked("a " * 30, cue=cue), operator="mask", mask_string="[A VERY LONG MASK]")
        assert own(np.ones((1, 30), dtype=bool)).shape == (1,)
        with pytest.raises(AuditError, match=r"the item soup has \d+ tokens, over the model's limit of 256"):
            own(np.zeros((1, 30), dtype=bool))
    own = Question(tiny, asked())
    with torch.no_grad():
        tiny.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(AuditError, match=r"no finite likelihood \(item soup\)"):
        own(np.zeros((1, 6), dtype=bool))
    with pytest.raises(AuditError, match=r"no finite likelihood \(item soup\)"):
        Question(tiny, asked())


def test_a_tokenizer_that_does_not_say_where_its_tokens_stand():
    loaded = LoadedModel(tiny_model("llama"), Merging(), "slow")
    item = asked(options=("x", "y"))
    own = Question(loaded, item)
    for ask_it in (lambda: Question(loaded, item, operator="attention"), lambda: own.word_gradients([1.0])):
        with pytest.raises(AuditError, match="the tokenizer of slow does not say where its tokens stand"):
            ask_it()


# Nothing left


def without_tokens(tokenizer, *names):
    changed = copy.deepcopy(tokenizer)
    for name in names:
        setattr(changed, name, None)
    return changed


@pytest.mark.parametrize(("lacking", "start"), [((), 1), (("bos_token",), 2), (("eos_token",), 1)])
def test_a_text_without_any_words_begins_with_the_token_that_texts_begin_with(tokenizer, lacking, start):
    loaded = LoadedModel(tiny_model("llama"), without_tokens(tokenizer, *lacking), "tiny")
    (item,) = questions("facts", 1)
    own = Question(loaded, item)
    found = own.options(np.zeros((1, item.n_words), dtype=bool))[0]
    scores = []
    for option in item.options:
        ids = [start, *tokenizer(option)["input_ids"]]
        with torch.no_grad():
            logprobs = loaded.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        scores.append(sum(logprobs[p - 1, ids[p]].item() for p in range(1, len(ids))))
    np.testing.assert_allclose(found, softmax(np.array(scores)), rtol=1e-3, atol=1e-6)
    # Where one word is left, it is what is conditioned on.
    one = np.eye(item.n_words, dtype=bool)[:1]
    expected = softmax(obvious_scores(loaded, item.word_texts()[0], item.options))
    np.testing.assert_allclose(own.options(one)[0], expected, rtol=1e-3, atol=1e-6)


def test_where_texts_begin_with_a_token_it_is_what_is_left(tiny, tokenizer):
    (item,) = questions("facts", 1)
    nothing = np.zeros((1, item.n_words), dtype=bool)
    expected = Question(tiny, item).options(nothing)
    backend = tokenizer.backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    try:
        np.testing.assert_allclose(Question(tiny, item).options(nothing), expected, rtol=1e-4)
    finally:
        backend.post_processor = processors.ByteLevel(trim_offsets=False)


def test_a_tokenizer_without_such_tokens_is_named(tokenizer):
    loaded = LoadedModel(tiny_model("llama"), without_tokens(tokenizer, "bos_token", "eos_token"), "tiny")
    (item,) = questions("facts", 1)
    own = Question(loaded, item)
    nothing = np.zeros((1, item.n_words), dtype=bool)
    with pytest.raises(AuditError, match=r"without its words the item .* leaves no token .*Use --operator mask"):
        own(nothing)
    assert Question(loaded, item, operator="mask")(nothing).shape == (1,)


def test_attention_cannot_hide_the_word_that_the_answer_is_read_at(tiny):
    (item,) = questions("facts", 1)
    with pytest.raises(
        AuditError, match=r"is read at its last word, which attention cannot hide\. Use --operator delete"
    ):
        Question(tiny, item, operator="attention")


# Gradients


@pytest.mark.parametrize("name", SOME)
def test_gradients_are_finite_differences(name, tokenizer):
    """Each word's embeddings a little larger and a little smaller, the others at the scale."""
    loaded, item = model_of(name, tokenizer), asked(style=PromptOptions(correct="contextual"))
    own = Question(loaded, item)
    prior = np.array([obvious_scores(loaded, p, item.options) for p in item.premises])[0]
    double = LoadedModel(copy.deepcopy(loaded.model).double(), tokenizer, name)
    words = tokens_of_words(loaded, item)
    length = len(tokenizer(item.prompt)["input_ids"])

    def p(scale, word, factor):
        factors_TE = torch.ones(length, 1, dtype=torch.float64)
        for number, places in enumerate(words):
            factors_TE[places] = factor if number == word else scale
        p_C = from_embeddings(double, item, factors_TE) / np.exp(prior - prior.max())
        return (p_C / p_C.sum())[own.explained]

    scales = [1.0, 0.4]
    found = own.word_gradients(scales)
    assert found.shape == (2, item.n_words)
    assert found.dtype == np.float64

    def difference(scale, word, step=1e-2 if name in ("llama", "gemma3") else 1e-4):
        # Of fourth order, and not tiny where norms always compute in float32; small for OPT with its kinks.
        one, two = (p(scale, word, scale + n * step) - p(scale, word, scale - n * step) for n in (1, 2))
        return (8 * one - two) / (12 * step)

    expected = [[difference(scale, word) for word in range(item.n_words)] for scale in scales]
    np.testing.assert_allclose(found, expected, rtol=5e-3, atol=1e-4)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(
        Question(loaded, item, batch_tokens=1).word_gradients(scales), found, rtol=1e-3, atol=1e-6
    )
    np.testing.assert_allclose(gradient_x_input(own, item.n_words), found[0], rtol=1e-6)
    assert not loaded.model.get_input_embeddings()._forward_hooks
    assert all(parameter.grad is None for parameter in loaded.model.parameters())


@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_integrated_gradients_add_up_to_what_the_words_do(name, tokenizer):
    """Models with positions of their own: no norm then divides by nearly nothing at the zero end."""
    loaded, item = model_of(name, tokenizer), asked()
    own = Question(loaded, item)
    factors_TE = torch.ones(len(tokenizer(item.prompt)["input_ids"]), 1)
    for places in tokens_of_words(loaded, item):
        factors_TE[places] = 0
    difference = own.full_C[own.explained] - from_embeddings(loaded, item, factors_TE)[own.explained]
    assert abs(difference) > 1e-3
    many = ((np.arange(200) + 0.5) / 200).tolist()
    assert own.word_gradients(many).mean(0).sum() == pytest.approx(difference, rel=1e-2, abs=1e-5)
    few = ((np.arange(STEPS) + 0.5) / STEPS).tolist()
    expected = own.word_gradients(few).mean(0)
    np.testing.assert_allclose(integrated_gradients(own, item.n_words), expected, rtol=1e-6)


def test_what_has_no_gradients_is_named():
    for method in (gradient_x_input, integrated_gradients):
        with pytest.raises(AuditError, match="this value function has no gradients"):
            method(lambda masks_SD: masks_SD.mean(1), 3)
        with pytest.raises(AuditError, match="there is no word to explain"):
            method(lambda masks_SD: masks_SD.mean(1), 0)


# Draws


@pytest.mark.parametrize("name", SOME)
def test_draws_between_all_and_nothing(name, tokenizer):
    loaded, item = model_of(name, tokenizer), asked()
    own = Question(loaded, item)
    every = own.soft(np.ones(item.n_words), 3)
    np.testing.assert_allclose(every, [own.full_C[own.explained]] * 3, rtol=1e-4)
    none = own.soft(np.zeros(item.n_words), 2)
    factors_TE = torch.ones(len(tokenizer(item.prompt)["input_ids"]), 1)
    words = tokens_of_words(loaded, item)
    for places in words:
        factors_TE[places] = 0
    np.testing.assert_allclose(none, [from_embeddings(loaded, item, factors_TE)[own.explained]] * 2, rtol=2e-3)
    # One word alone is kept.
    keep_D = np.eye(item.n_words)[2]
    factors_TE[words[2]] = 1
    expected = from_embeddings(loaded, item, factors_TE)[own.explained]
    np.testing.assert_allclose(own.soft(keep_D, 1), [expected], rtol=2e-3)
    assert abs(none[0] - every[0]) > 1e-3


def test_draws_are_of_elements_and_come_again_with_their_seed(tiny):
    item = asked()
    own = Question(tiny, item)
    half = np.full(item.n_words, 0.5)
    found = own.soft(half, 12, seed=3)
    assert found.shape == (12,)
    assert len(set(found.tolist())) == 12
    np.testing.assert_array_equal(own.soft(half, 12, seed=3), found)
    assert not np.array_equal(own.soft(half, 12, seed=4), found)
    # How many fit into a batch changes nothing.
    for batch_tokens in (1, 200):
        other = Question(tiny, item, batch_tokens=batch_tokens)
        np.testing.assert_allclose(other.soft(half, 12, seed=3), found, rtol=1e-4)
    seen = []
    handle = tiny.model.model.layers[0].register_forward_pre_hook(lambda _m, args: seen.append(args[0].clone()))
    own.soft(np.full(item.n_words, 0.7), 200)
    handle.remove()
    zeros_BT = torch.cat([batch[::2] for batch in seen]).eq(0).float().mean((0, 2))
    words = tokens_of_words(tiny, item)
    inside = {place for places in words for place in places}
    for place, share in enumerate(zeros_BT.tolist()):
        assert share == (pytest.approx(0.3, abs=0.05) if place in inside else 0)
