"""What is taken from answers: of their own tokens alone, in every architecture as a slow loop takes it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from zoo import ARCHITECTURES, tiny_model

from trueprune import ModelError, NearZero, TextError, read_anatomy
from trueprune.models.load import LoadedModel
from trueprune.observe.answers import AnswerProfile, answer_moments, observe_answers
from trueprune.texts.qa.contract import JudgedAnswer

PAIRS = [
    ("sky", "Q: What colour is the sky on a clear day?\nA:", " blue", " green as grass, and then some more words"),
    ("ice", "Q: What is ice?\nA:", " frozen water", " a metal"),
    ("two", "Q: How much is one and one, which every child has learned at school long before?\nA:", " 2", " 3"),
]
ANSWERS = [
    JudgedAnswer(name, prompt, text, wrong, name)
    for name, prompt, *texts in PAIRS
    for text, wrong in zip(texts, (False, True), strict=True)
]
RELATIVE = NearZero(0.3, relative=True)


def loaded_of(name: str, tokenizer) -> LoadedModel:
    return LoadedModel(tiny_model(name), tokenizer, f"tiny-{name}")


def slow(loaded: LoadedModel, answer: JudgedAnswer, zero: NearZero, last: bool = False):
    """One whole forward of one text, and what it says of every block: variance by estimator, zeros, entries."""
    alone, whole = (loaded.tokenizer(text)["input_ids"] for text in (answer.prompt, answer.prompt + answer.answer))
    assert whole[: len(alone)] == alone, "the texts of this test part cleanly"
    streams = []
    handles = [
        block.module.register_forward_hook(
            lambda _m, _a, out: streams.append(out[0] if isinstance(out, tuple) else out)
        )
        for block in read_anatomy(loaded.model).blocks
    ]
    with torch.no_grad():
        loaded.model(torch.tensor([whole]), use_cache=False)
    for handle in handles:
        handle.remove()
    rows = []
    for stream_1TD in streams:
        x_TD = stream_1TD[0, -1:] if last else stream_1TD[0, len(alone) :]
        below = zero.near_zero * (x_TD.square().mean(1, keepdim=True).sqrt() if zero.relative else 1.0)
        rows.append(
            (float(x_TD.mean(0).var()), float(x_TD.var(1).mean()), int((x_TD.abs() < below).sum()), x_TD.numel())
        )
    return np.array(rows).T


def check(profile: AnswerProfile, expected: list[np.ndarray]) -> None:
    for i, (official, token, zeros, entries) in enumerate(expected):
        np.testing.assert_allclose(profile.variance["official"][i], official, rtol=2e-4)
        np.testing.assert_allclose(profile.variance["token"][i], token, rtol=2e-4)
        # An entry at the threshold may fall on either side.
        assert np.abs(profile.zeros_NL[i] - zeros).max() <= 1
        assert profile.entries_N[i] == entries[0]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_batches_are_as_one_answer_at_a_time(name, tokenizer):
    loaded = loaded_of(name, tokenizer)
    anatomy = read_anatomy(loaded.model)
    profile = observe_answers(loaded, anatomy, ANSWERS, zero=RELATIVE, batch_tokens=256)
    assert profile.variance["official"].shape == (6, 3)
    assert profile.zeros_NL.min() > 0
    check(profile, [slow(loaded, answer, RELATIVE) for answer in ANSWERS])
    hooks = [module._forward_hooks for module in loaded.model.modules()]
    assert not any(hooks)


def test_the_last_token_alone(tiny):
    profile = observe_answers(tiny, read_anatomy(tiny.model), ANSWERS, zero=NearZero(0.05), tokens="last")
    check(profile, [slow(tiny, answer, NearZero(0.05), last=True) for answer in ANSWERS])
    assert profile.entries_N.tolist() == [32] * 6
    np.testing.assert_allclose(profile.variance["official"], profile.variance["token"], rtol=1e-6)


def test_labels_questions_and_clusters_stay_with_their_answers(tiny):
    answers = [ANSWERS[3], ANSWERS[0], ANSWERS[4]]
    profile = observe_answers(tiny, read_anatomy(tiny.model), answers)
    assert profile.hallucinated_N.tolist() == [True, False, False]
    assert profile.ids == profile.clusters == ("ice", "sky", "two")
    assert profile.variance["token"].dtype == np.float64


def test_neither_batches_nor_order_change_anything(tiny):
    anatomy = read_anatomy(tiny.model)
    one = observe_answers(tiny, anatomy, ANSWERS, zero=RELATIVE, batch_tokens=1)
    for other in (
        observe_answers(tiny, anatomy, ANSWERS, zero=RELATIVE, batch_tokens=4096),
        observe_answers(tiny, anatomy, ANSWERS[:1], zero=RELATIVE).merge(
            observe_answers(tiny, anatomy, ANSWERS[1:], zero=RELATIVE)
        ),
    ):
        np.testing.assert_allclose(other.variance["official"], one.variance["official"], rtol=2e-4)
        assert np.abs(other.zeros_NL - one.zeros_NL).max() <= 1
        assert (other.ids, other.clusters) == (one.ids, one.clusters)
        assert np.array_equal(other.entries_N, one.entries_N)
        assert np.array_equal(other.hallucinated_N, one.hallucinated_N)


def test_tokens_that_prompt_and_answer_share_are_not_the_answers(tiny):
    """Where the prompt's end melts into the answer, the token that holds both is counted."""
    apart = "Q: ice?\nA: t"
    alone, whole = (tiny.tokenizer(text)["input_ids"] for text in (apart, apart + "he water"))
    same = next(i for i, (a, b) in enumerate(zip(alone, whole, strict=False)) if a != b)
    assert same == len(alone) - 1
    answer = JudgedAnswer("melted", apart, "he water", False, "melted")
    profile = observe_answers(tiny, read_anatomy(tiny.model), [answer])
    assert profile.entries_N.tolist() == [32 * (len(whole) - same)]


def test_moments_of_answers_by_hand():
    x_AD = torch.tensor([[0.0, 2.0, 4.0], [4.0, 2.0, 0.0], [1.0, 1.0, 4.0]])
    rows_A, counts_B = torch.tensor([0, 0, 1]), torch.tensor([2, 1])
    official_B, token_B, zeros_B = answer_moments(x_AD, rows_A, counts_B, NearZero(1.5))
    assert official_B.tolist() == pytest.approx([0.0, 3.0]), "the mean of the first answer is the same in all units"
    assert token_B.tolist() == pytest.approx([4.0, 3.0])
    assert zeros_B.tolist() == [2, 2]
    # The root mean square of the tokens is sqrt(20/3), sqrt(20/3), sqrt(6).
    assert answer_moments(x_AD, rows_A, counts_B, NearZero(0.8, relative=True))[2].tolist() == [4, 2]
    assert answer_moments(x_AD, rows_A, counts_B, NearZero(0.4, relative=True))[2].tolist() == [2, 0]


def test_answers_that_cannot_be_read_are_named(tiny):
    anatomy = read_anatomy(tiny.model)
    with pytest.raises(TextError, match="there are no answers to read"):
        observe_answers(tiny, anatomy, [])
    with pytest.raises(TextError, match="an answer to the question ice is empty"):
        observe_answers(tiny, anatomy, [JudgedAnswer("ice", "Q: ice?\nA:", "  ", True, "ice")])
    long = JudgedAnswer("ice", "Q: ice?\nA:", " x" * 300, True, "ice")
    with pytest.raises(TextError, match=r"the question ice ends after \d+ tokens, over the model's limit of 256"):
        observe_answers(tiny, anatomy, [long])
    with pytest.raises(ModelError, match="no tokenizer"):
        observe_answers(LoadedModel(tiny.model, None, "tiny"), anatomy, ANSWERS)
    anatomy.blocks[1].module.mlp.down_proj.weight.data[0, 0] = math.nan
    with pytest.raises(ModelError, match=r"activations of model\.layers\.1 are not finite.*--dtype float32"):
        observe_answers(tiny, anatomy, ANSWERS)
