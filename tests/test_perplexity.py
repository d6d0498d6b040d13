"""Perplexity: windows as the pruning papers take them, and overlapping ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from samples import write_corpus

from trueprune._support.errors import AuditError, ModelError
from trueprune.audits import measure_perplexity
from trueprune.audits.context import perplexity_text
from trueprune.models.load import LoadedModel


@pytest.fixture
def text(tmp_path):
    return write_corpus(tmp_path / "text.txt", 12).read_text()


def token_ids(tiny, text):
    return tiny.tokenizer(text, verbose=False)["input_ids"]


@torch.no_grad()
def nll_of(tiny, ids):
    """Negative log-likelihood of each token after the first."""
    logits = tiny.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return [-logits[i - 1, ids[i]].item() for i in range(1, len(ids))]


@torch.no_grad()
def test_disjoint_windows_are_the_models_own_loss(tiny, text):
    ids = token_ids(tiny, text)
    found = measure_perplexity(tiny, text, window=40)
    losses = []
    for start in range(0, len(ids) - 39, 40):
        window = torch.tensor([ids[start : start + 40]])
        losses.append(tiny.model(window, labels=window).loss.item())
    assert found.n == len(ids) // 40 == len(losses) > 5
    np.testing.assert_allclose(found.values, losses, rtol=1e-5)
    assert found.value == pytest.approx(np.exp(np.mean(losses)), rel=1e-5)
    assert found.weights.tolist() == [39] * len(losses)
    assert (found.higher_is_better, found.headline) == (False, True)
    assert found.details == {"window": 40, "stride": 40, "tokens": len(ids)}


@pytest.mark.parametrize("stride", [1, 8, 31])
def test_overlapping_windows_score_each_token_once(tiny, text, stride):
    ids = token_ids(tiny, text)[:150]
    found = measure_perplexity(tiny, text, window=32, stride=stride, max_tokens=150)
    nll: dict[int, float] = {}
    for start in range(0, len(ids) - 31, stride):
        for offset, value in enumerate(nll_of(tiny, ids[start : start + 32]), 1):
            nll.setdefault(start + offset, value)  # the first window that sees a token scores it
    assert found.weights.sum() == len(nll) == max(nll)
    assert set(nll) == set(range(1, max(nll) + 1))
    assert found.value == pytest.approx(np.exp(np.mean(list(nll.values()))), rel=1e-5)


def test_windows_have_stable_names(tiny, text):
    first, again = (measure_perplexity(tiny, text, window=32).item_ids for _ in range(2))
    assert first == again
    assert len(set(first)) == len(first)
    assert first[1].startswith("32:")
    assert first != measure_perplexity(tiny, f"A {text}", window=32).item_ids


def test_max_tokens_cuts_the_text(tiny, text):
    assert measure_perplexity(tiny, text, window=32, max_tokens=100).n == 3


def test_impossible_windows_are_refused(tiny, text):
    with pytest.raises(AuditError, match="window 257 is over the model's limit of 256"):
        measure_perplexity(tiny, text, window=257)
    with pytest.raises(AuditError, match=r"the text has \d tokens, fewer than the window 32"):
        measure_perplexity(tiny, "Short.", window=32)
    with pytest.raises(AuditError, match="fewer than the window 32"):
        measure_perplexity(tiny, text, window=32, max_tokens=31)
    for stride in (33, -1):
        with pytest.raises(AuditError, match=rf"stride {stride} is not in \[1, 32\]"):
            measure_perplexity(tiny, text, window=32, stride=stride)
    with pytest.raises(ModelError, match="has no tokenizer"):
        measure_perplexity(LoadedModel(tiny.model, None, "bare"), text, window=32)


@pytest.mark.parametrize("window", [1, 0, -4])
def test_a_window_must_predict_something(tiny, text, window):
    with pytest.raises(AuditError, match="window"):
        measure_perplexity(tiny, text, window=window)


def test_a_model_that_overflows_is_named(tiny, text):
    with torch.no_grad():
        tiny.model.lm_head.weight.fill_(float("inf"))
    with pytest.raises(AuditError, match="no finite likelihood"):
        measure_perplexity(tiny, text, window=32)


def test_texts_by_name(tmp_path):
    (tmp_path / "a.txt").write_text("One\n\nTwo\n")
    assert perplexity_text(str(tmp_path / "a.txt")) == "One\n\nTwo"
    assert len(perplexity_text("embedded").split()) > 2000
