"""Predictions: scores equal to the obvious way, kept and read again, and the accuracy that they make."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import processors
from transformers import PreTrainedTokenizerBase
from zoo import ARCHITECTURES, tiny_model

from trueprune._support.errors import AuditError, ModelError
from trueprune.audits import Predictions, accuracy_of, predict, read_predictions, write_predictions
from trueprune.audits.accuracy import credit
from trueprune.audits.predict import encode_options, encode_texts, predict_at
from trueprune.audits.predictions import filled
from trueprune.models.load import LoadedModel
from trueprune.texts.tasks import ChoiceItem, PromptOptions, questions


def item(prompt="The sky is", options=(" blue", " a kind of long green fish", " b"), gold=0, name="sky", **rest):
    return ChoiceItem(name, prompt, tuple(options), gold, rest.pop("cluster", name), **rest)


ITEMS = [
    item(),
    item("Q", (" x", " y"), 1, "short"),
    item("Question: what is it that one drinks?\nAnswer:", (" water", " stones and", " a", " wine"), 2, "long"),
    item("The sky is", (" blue", " blue and"), 0, "sky again", cluster="sky"),
]
LABELS = [item(f"Text {n}.\nIs it:", (" no", " yes"), n % 2, f"l{n}") for n in range(4)]


@torch.no_grad()
def slow_log_likelihood(loaded, prompt, option):
    """One sequence at a time, all logits, one token after the other."""
    before, whole = (loaded.tokenizer(text)["input_ids"] for text in (prompt, prompt + option))
    assert whole[: len(before)] == before
    logprobs = loaded.model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
    return [logprobs[place - 1, whole[place]].item() for place in range(len(before), len(whole))]


def padded(rows, fill):
    """Rows of one length."""
    width = max(map(len, rows))
    return np.array([[*row, *[fill] * (width - len(row))] for row in rows])


def made(scores, gold=(0,), **rest):
    """Predictions from rows of scores; each option's tokens and bytes are its place plus one."""
    scores_NC = padded(scores, -np.inf)
    sizes = [range(1, len(row) + 1) for row in scores]
    n = len(scores)
    return Predictions(
        "mine",
        tuple(f"i{k}" for k in range(n)),
        tuple(f"c{k // 2}" for k in range(n)),
        tuple(f"h{k}" for k in range(n)),
        np.array(gold),
        scores_NC,
        rest.pop("first", scores_NC / 2),
        padded(sizes, 0),
        rest.pop("bytes", padded(sizes, 0)),
        rest.pop("prior", np.zeros(scores_NC.shape)),
        np.linspace(0.1, 0.9, n),
        **rest,
    )


# Scores


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_scores_are_those_of_the_obvious_way(name, tokenizer):
    loaded = LoadedModel(tiny_model(name), tokenizer, name)
    found = predict(loaded, ITEMS, task="mine")
    for n, row in enumerate(ITEMS):
        each = [slow_log_likelihood(loaded, row.prompt, option) for option in row.options]
        count = len(each)
        np.testing.assert_allclose(found.scores_NC[n, :count], [sum(e) for e in each], rtol=2e-4)
        np.testing.assert_allclose(found.first_NC[n, :count], [e[0] for e in each], rtol=2e-4, atol=1e-5)
        assert found.tokens_NC[n].tolist() == [len(e) for e in each] + [0] * (4 - count)
        assert found.bytes_NC[n].tolist() == [len(o[1:].encode()) for o in row.options] + [0] * (4 - count)
        assert (found.scores_NC[n, count:] == -np.inf).all() and (found.first_NC[n, count:] == -np.inf).all()
    assert (found.prior_NC == 0).all()
    assert found.n_options.tolist() == [3, 2, 4, 2]
    assert found.gold_N.tolist() == [0, 1, 2, 0]
    assert (found.task, found.scoring, found.labels, len(found)) == ("mine", "sum", False, 4)
    assert found.item_ids == ("sky", "short", "long", "sky again")
    assert found.clusters == ("sky", "short", "long", "sky")
    assert found.sha256 == tuple(row.sha256 for row in ITEMS)


def test_company_takes_no_part(tiny):
    alone = [predict(tiny, [row]) for row in ITEMS]
    for batch_tokens in (1, 40, 10_000):
        together = predict(tiny, ITEMS, batch_tokens=batch_tokens)
        for n, one in enumerate(alone):
            width = one.scores_NC.shape[1]
            np.testing.assert_allclose(together.scores_NC[n, :width], one.scores_NC[0], rtol=1e-5)
            np.testing.assert_allclose(together.mass_N[n], one.mass_N[0], rtol=1e-4)


def test_logits():
    scores = [[-2.0, -6.0, -3.0], [-1.0, -4.0]]
    prior = padded([[-1.0, -2.0, -3.0], [0.0, -0.5]], 0.0)
    rows = {how: made(scores, (0, 0), scoring=how).logits_NC.tolist() for how in ("sum", "mean", "first")}
    off = -np.inf
    assert rows["sum"] == [[-2, -6, -3], [-1, -4, off]]
    assert rows["mean"] == [[-2, -3, -1], [-1, -2, off]]
    assert rows["first"] == [[-1, -3, -1.5], [-0.5, -2, off]]
    rows = {how: made(scores, (0, 0), scoring=how, prior=prior).logits_NC.tolist() for how in ("sum", "mean", "first")}
    assert rows["sum"] == [[-1, -4, 0], [-1, -3.5, off]]
    assert rows["mean"] == [[-1, -2, 0], [-1, -1.75, off]]
    assert rows["first"] == [[0, -1, 1.5], [-0.5, -1.5, off]]


def test_probabilities_are_among_the_options():
    found = made([[-2.0, -6.0, -3.0], [-1.0, -4.0], [-9e4, -9e4]], (0, 0, 0)).probabilities_NC
    np.testing.assert_allclose(found.sum(1), 1)
    np.testing.assert_allclose(found[0], np.exp([-2, -6, -3]) / np.exp([-2, -6, -3]).sum())
    np.testing.assert_allclose(found[1], [1 / (1 + np.exp(-3)), 1 / (1 + np.exp(3)), 0])
    assert found[2].tolist() == [0.5, 0.5, 0]


@torch.no_grad()
def test_mass_is_what_the_first_tokens_get_together(tiny):
    found = predict(tiny, [ITEMS[3], LABELS[0]])
    for n, row in enumerate((ITEMS[3], LABELS[0])):
        before = tiny.tokenizer(row.prompt)["input_ids"]
        firsts = {tiny.tokenizer(row.prompt + option)["input_ids"][len(before)] for option in row.options}
        assert len(firsts) == (1 if n == 0 else 2) or n
        p_V = tiny.model(torch.tensor([before])).logits[0, -1].double().softmax(-1)
        assert found.mass_N[n] == pytest.approx(sum(p_V[token].item() for token in firsts), rel=1e-4)
    # Both options of the first item begin alike: their first token counts once.
    asked = encode_options(tiny, ITEMS[3])
    assert asked.continuations[0][0] == asked.continuations[1][0]


@pytest.mark.parametrize("scoring", ["sum", "mean", "first"])
@pytest.mark.parametrize("correct", ["contextual", "pmi"])
def test_corrections_are_those_by_hand(tiny, scoring, correct):
    rows = questions("sentiment", 5, PromptOptions(correct=correct))
    (premise,) = rows[0].premises
    assert premise == (
        "Sentiment:" if correct == "pmi" else rows[0].prompt.split("Sentence:")[0] + "Sentence: N/A\nSentiment:"
    )
    found = predict(tiny, rows, scoring=scoring)
    for n, row in enumerate(rows):
        logits = []
        for option in row.options:
            own, free = (slow_log_likelihood(tiny, text, option) for text in (row.prompt, premise))
            cut = slice(0, 1) if scoring == "first" else slice(None)
            difference = sum(own[cut]) - sum(free[cut])
            logits.append(difference / len(own) if scoring == "mean" else difference)
        np.testing.assert_allclose(found.logits_NC[n], logits, rtol=1e-3, atol=1e-4)
    plain = predict(tiny, [replace(row, premises=()) for row in rows], scoring=scoring)
    np.testing.assert_allclose(found.scores_NC, plain.scores_NC, rtol=1e-5)
    assert np.abs(found.logits_NC - plain.logits_NC).max() > 0.1


def test_the_prior_of_several_premises_is_their_mean(tiny):
    one, two = (replace(LABELS[0], premises=(text,)) for text in ("N/A is it:", "Is it:"))
    both = replace(LABELS[0], premises=(*one.premises, *two.premises))
    a, b, mean = (predict(tiny, [row]).prior_NC for row in (one, two, both))
    np.testing.assert_allclose(mean, (a + b) / 2)
    assert np.abs(a - b).max() > 1e-3


@pytest.mark.parametrize("scoring", ["sum", "mean", "first"])
def test_temperatures_divide_the_logits_of_the_model(tiny, scoring):
    """One pass for all of them gives what a model with as much smaller logits answers."""
    rows = questions("sentiment", 4, PromptOptions(correct="contextual"))
    found = predict_at(tiny, rows, (1.0, 2.5), scoring=scoring)
    expected = [predict(tiny, rows, scoring=scoring)]
    with torch.no_grad():
        tiny.model.lm_head.weight /= 2.5
    expected.append(predict(tiny, rows, scoring=scoring))
    for one, other in zip(found, expected, strict=True):
        for name in ("scores_NC", "first_NC", "prior_NC", "mass_N", "logits_NC"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-4, atol=1e-4)
    assert np.abs(found[0].prior_NC - found[1].prior_NC).max() > 0.1


# What cannot be scored


def test_what_cannot_be_scored_is_named(tiny):
    with pytest.raises(AuditError, match="the task mine has no questions"):
        predict(tiny, [], task="mine")
    long = item("word " * 300, (" a", " b"), 0, "novel")
    with pytest.raises(AuditError, match=r"the item novel has \d+ tokens, over the model's limit of 256"):
        predict(tiny, [long])
    with pytest.raises(AuditError, match=r"the item sky has \d+ tokens, over the model's limit of 256"):
        predict(tiny, [replace(ITEMS[0], premises=("word " * 300,))])
    with pytest.raises(ModelError, match="bare has no tokenizer"):
        predict(LoadedModel(tiny.model, None, "bare"), ITEMS)
    with pytest.raises(AuditError, match="the item m leaves no token to condition on"):
        encode_options(LoadedModel(tiny.model, Merging(), "merging"), item(":", ("a", "ab"), 0, "m"))
    with torch.no_grad():
        tiny.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(AuditError, match=r"no finite likelihood \(item sky of mine\)"):
        predict(tiny, ITEMS, task="mine")


def test_the_longest_that_a_model_holds(tiny):
    """The last token of an option is scored and never read."""
    word = tiny.tokenizer(" b")["input_ids"]
    assert len(word) == 1
    prompt = tiny.tokenizer.decode(word * 256).strip()
    assert len(tiny.tokenizer(prompt)["input_ids"]) == 256
    assert len(predict(tiny, [item(prompt, (" b", " c"))])) == 1
    with pytest.raises(AuditError, match="has 257 tokens"):
        predict(tiny, [item(prompt, (" b b", " c"))])


def test_options_that_begin_alike_cannot_be_told_apart_by_their_first_token(tiny):
    with pytest.raises(AuditError, match="the options 'blue' and 'blue and' of the item sky again begin with the same"):
        predict(tiny, ITEMS[3:], scoring="first")
    predict(tiny, ITEMS, scoring="sum")
    predict(tiny, ITEMS[1:2], scoring="first")


# Tokens


class Merging(PreTrainedTokenizerBase):
    """A tokenizer of characters that joins the end of a prompt with the beginning of an option: `:a` is one token."""

    all_special_ids = (0,)

    def __init__(self, ends=False):
        self.ends = ends

    def __call__(self, text, **options):
        joined = text.replace(":a", "\x01")
        ids = [ord(c) % 300 + 3 for c in joined]
        return {"input_ids": [*ids, 0] if self.ends and options.get("add_special_tokens", True) else ids}


def test_a_token_that_joins_prompt_and_option_is_scored():
    loaded = LoadedModel(tiny_model("llama"), Merging(), "merging")
    asked = encode_options(loaded, item("is:", ("ab", "b"), 0))
    # All options are scored from the same place on: the colon is no context of one and part of the other.
    assert asked.stem == (ord("i") + 3, ord("s") + 3)
    assert [len(tokens) for tokens in asked.continuations] == [2, 2]
    found = predict(loaded, [item("is:", ("ab", "b"), 0)])
    with torch.no_grad():
        for tokens, score in zip(asked.continuations, found.scores_NC[0], strict=True):
            ids = [*asked.stem, *tokens]
            logprobs = loaded.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
            assert score == pytest.approx(sum(logprobs[i - 1, ids[i]].item() for i in (2, 3)), rel=1e-4)


def test_an_option_without_a_token_of_its_own_is_scored_by_the_last_of_the_prompt():
    class Deaf(Merging):
        def __call__(self, text, **options):
            return super().__call__(text.replace("é", ""))

    asked = encode_options(LoadedModel(tiny_model("llama"), Deaf(), "deaf"), item("is", ("é", "b"), 0))
    i, s, b = (ord(c) % 300 + 3 for c in "isb")
    assert (asked.stem, asked.continuations) == ((i,), ((s,), (s, b)))


def test_an_unknown_word_at_the_end_is_part_of_the_text():
    class Unknowing(Merging):
        """Knows no `z`: its token for the unknown is a special one."""

        def __call__(self, text, **options):
            ids = [0 if c == "z" else ord(c) % 300 + 3 for c in text]
            return {"input_ids": [*ids, 2] if options.get("add_special_tokens", True) else ids}

    loaded = LoadedModel(tiny_model("llama"), Unknowing(), "unknowing")
    ask = encode_options(loaded, item("is ", ("z", "b"), 0))
    assert ask.continuations == ((0,), (ord("b") + 3,))


def test_a_token_that_ends_every_text_stands_at_no_boundary():
    plain, ended = (LoadedModel(tiny_model("llama"), Merging(ends), "x") for ends in (False, True))
    row = item("is ", ("xy", "b"), 0)
    assert encode_options(plain, row) == encode_options(ended, row)


@pytest.fixture
def beginning(tokenizer):
    """The tokenizer begins every text with `<s>`, as many do."""
    backend = tokenizer.backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    yield
    backend.post_processor = processors.ByteLevel(trim_offsets=False)


def test_a_token_that_begins_every_text_is_context(tiny, request):
    expected = encode_options(tiny, ITEMS[0])
    assert encode_texts(tiny, ["The sky is"]) == [list(expected.stem)]
    request.getfixturevalue("beginning")
    found = encode_options(tiny, ITEMS[0])
    assert found.stem == (1, *expected.stem)
    assert found.continuations == expected.continuations
    # A chat template brings its own.
    assert encode_options(tiny, replace(ITEMS[0], special=False)) == expected
    # It is all that is left of a text that is empty.
    assert encode_options(tiny, ITEMS[0], "").stem == (1,)
    assert encode_options(tiny, ITEMS[0], "").continuations == expected.continuations


def test_a_token_to_begin_with_stands_where_nothing_else_is_left(tiny):
    with pytest.raises(AuditError, match="the item sky leaves no token to condition on"):
        encode_options(tiny, ITEMS[0], "")
    found = encode_options(tiny, ITEMS[0], "", start=2)
    assert (found.stem, found.continuations) == ((2,), encode_options(tiny, ITEMS[0]).continuations)
    assert encode_options(tiny, ITEMS[0], start=2) == encode_options(tiny, ITEMS[0])
    merging = LoadedModel(tiny.model, Merging(), "merging")
    found = encode_options(merging, item("x", ("a", "b"), 0), ":", start=2)
    assert found.stem == (2,)
    assert [len(tokens) for tokens in found.continuations] == [1, 2]


# Some of them, recalibrated


def test_take():
    rows = made([[-2.0, -6.0, -3.0], [-1.0, -4.0], [-5.0, -2.0, -2.0]], (0, 1, 2), labels=True, scoring="mean")
    part = rows.take([2, 0])
    assert (part.item_ids, part.clusters, part.sha256) == (("i2", "i0"), ("c1", "c0"), ("h2", "h0"))
    assert (part.gold_N.tolist(), part.mass_N.tolist()) == ([2, 0], [0.9, 0.1])
    assert (part.labels, part.scoring, part.task, len(part)) == (True, "mean", "mine", 2)
    for name in ("scores_NC", "first_NC", "tokens_NC", "bytes_NC", "prior_NC", "logits_NC", "probabilities_NC"):
        np.testing.assert_array_equal(getattr(part, name), getattr(rows, name)[[2, 0]])
    changed = rows.with_probabilities(np.array([[0.2, 0.3, 0.5], [0.9, 0.1, 0], [0.1, 0.8, 0.1]])).take([1])
    np.testing.assert_allclose(changed.probabilities_NC, [[0.9, 0.1, 0]])


def test_a_recalibration_takes_the_place_of_the_logits():
    rows = made([[-2.0, -6.0, -3.0], [-1.0, -4.0]], (0, 1))
    before = rows.probabilities_NC.copy()
    p_NC = np.array([[0.2, 0.3, 0.5], [0.9, 0.1, 0.0]])
    changed = rows.with_probabilities(p_NC)
    assert changed.recalibrated and not rows.recalibrated
    np.testing.assert_allclose(changed.probabilities_NC, p_NC)
    np.testing.assert_allclose(changed.logits_NC[0], np.log(p_NC[0]))
    assert changed.logits_NC[1, 2] == -np.inf
    np.testing.assert_array_equal(changed.scores_NC, rows.scores_NC)
    np.testing.assert_array_equal(rows.probabilities_NC, before)


# On disk


def equal(one, other):
    for name in ("task", "item_ids", "clusters", "sha256", "scoring", "labels", "recalibrated"):
        assert getattr(one, name) == getattr(other, name)
    for name in ("gold_N", "mass_N", "scores_NC", "first_NC", "tokens_NC", "bytes_NC", "prior_NC", "logits_NC"):
        a, b = getattr(one, name), getattr(other, name)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_predictions_come_back_from_a_file(tiny, tmp_path):
    file = tmp_path / "predictions.parquet"
    ragged = predict(tiny, ITEMS, task="ragged")
    labels = predict(
        tiny, [replace(row, premises=("N/A",)) for row in LABELS], task="labels", scoring="first", labels=True
    )
    changed = ragged.with_probabilities(ragged.probabilities_NC**2 / (ragged.probabilities_NC**2).sum(1)[:, None])
    written = {("dense", "ragged"): ragged, ("dense", "labels"): labels, ("pruned", "ragged"): changed}
    write_predictions(((model, found) for (model, _), found in written.items()), file)
    read = read_predictions(file)
    assert list(read) == list(written)
    for key, found in written.items():
        equal(read[key], found)
    assert read["pruned", "ragged"].recalibrated and not read["dense", "ragged"].recalibrated
    # Others read it as a plain table: options that an item has not are not in it.
    rows = pq.read_table(file).to_pylist()
    assert len(rows) == 4 + 4 + 4
    assert (rows[1]["model"], rows[1]["task"], rows[1]["item"], rows[1]["gold"]) == ("dense", "ragged", "short", 1)
    assert rows[1]["scores"] == ragged.scores_NC[1, :2].tolist()
    assert sum(rows[8]["probabilities"]) == pytest.approx(1)
    assert rows[8]["probabilities"] == pytest.approx(changed.probabilities_NC[0, :3].tolist())


def test_no_predictions_come_back_from_a_file(tmp_path):
    write_predictions([], tmp_path / "p.parquet")
    assert read_predictions(tmp_path / "p.parquet") == {}


def test_other_files_are_refused(tmp_path):
    missing, text, other, wrong = (tmp_path / name for name in ("no.parquet", "text.parquet", "o.parquet", "w.parquet"))
    text.write_text("task\n")
    pq.write_table(pa.table({"text": ["a"]}), other)
    write_predictions([("m", made([[-1.0, -2.0]]))], wrong)
    table = pq.read_table(wrong)
    pq.write_table(table.set_column(table.column_names.index("gold"), "gold", pa.array([["a"]])), wrong)
    for file in (missing, text, other, wrong):
        with pytest.raises(AuditError, match=rf"{file.name} is no table of predictions") as caught:
            read_predictions(file)
        assert "predictions.parquet" in caught.value.remedy
    with pytest.raises(AuditError, match="it has no column 'model'"):
        read_predictions(other)


def test_filled():
    assert filled([[1, 2], [3]], -1).tolist() == [[1, 2], [3, -1]]
    assert filled([[1, 2]], 0).dtype == np.float64


# Accuracy


def test_credit():
    assert credit(np.array([-1.0, -2.0]), 0) == 1
    assert credit(np.array([-1.0, -2.0]), 1) == 0
    # Of a tie nobody wins by standing first.
    assert credit(np.array([-1.0, -1.0, -2.0]), 0) == credit(np.array([-1.0, -1.0, -2.0]), 1) == 0.5
    assert credit(np.array([-1.0, -1.0, -2.0]), 2) == 0
    assert credit(np.array([-1.0, -1.0, -1.0, -np.inf]), 2) == pytest.approx(1 / 3)


def test_accuracy_by_byte_and_by_sum(tiny):
    found = predict(tiny, ITEMS, task="mine")
    normalised, summed = accuracy_of(found)
    assert (normalised.metric, summed.metric) == ("accuracy/mine", "accuracy/mine/sum")
    assert (normalised.headline, summed.headline) == (True, False)
    assert normalised.instrument == "accuracy"
    assert normalised.higher_is_better
    assert list(normalised.item_ids) == ["sky", "short", "long", "sky again"]
    assert list(normalised.clusters) == ["sky", "short", "long", "sky"]
    assert normalised.details["chance"] == pytest.approx((1 / 3 + 1 / 2 + 1 / 4 + 1 / 2) / 4)
    for number, row in enumerate(ITEMS):
        sums = found.scores_NC[number, : len(row.options)]
        sizes = [len(option[1:].encode()) for option in row.options]
        assert summed.values[number] == (sums.argmax() == row.gold)
        assert normalised.values[number] == ((sums / sizes).argmax() == row.gold)


def test_which_accuracies_there_are():
    scores = [[-2.0, -6.0, -3.0], [-3.0, -4.0], [-2.0, -2.0]]
    # Per byte: -2, -3, -1; -3, -2; -2, -1. An option that an item has not never wins.
    per_byte, by_sum = accuracy_of(made(scores, (0, 1, 0)))
    assert per_byte.values.tolist() == [0, 1, 0]
    assert by_sum.values.tolist() == [1, 0, 0.5]
    for rest in ({"labels": True}, {"scoring": "mean"}, {"scoring": "first"}):
        (only,) = accuracy_of(made(scores, (0, 1, 0), **rest))
        assert (only.metric, only.headline) == ("accuracy/mine", True)
        assert only.values.tolist() == ([0, 1, 0] if rest.get("scoring") == "mean" else [1, 0, 0.5])
    p_NC = padded([[0.1, 0.8, 0.1], [0.5, 0.5], [0.9, 0.1]], 0.0)
    # A recalibration is of the probabilities: lengths go with the model's own likelihoods.
    per_byte, by_sum = accuracy_of(made(scores, (0, 1, 0)).with_probabilities(p_NC))
    assert per_byte.values.tolist() == [0, 1, 0]
    assert by_sum.values.tolist() == [0, 0.5, 1]


def test_bytes_are_those_of_utf8(tiny):
    assert predict(tiny, [item("x", (" é", " ab c"), 0)]).bytes_NC.tolist() == [[2, 4]]


def test_a_model_that_knows_is_right(tiny):
    """A bias of the head towards one token makes the option that begins with it the likeliest."""
    rows = [item("Which?", (" x", " z"), 1, "one"), item("And which?", (" z", " x"), 0, "two")]
    token = tiny.tokenizer(" z")["input_ids"]
    head = tiny.model.lm_head
    head.bias = torch.nn.Parameter(torch.zeros(320))
    for bias, right in ((50, 1), (-50, 0)):
        with torch.no_grad():
            head.bias[token[-1]] = bias
        assert accuracy_of(predict(tiny, rows))[0].value == right
