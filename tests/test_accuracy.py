"""Zero-shot accuracy: likelihoods equal to the obvious way, tasks whose items are right."""

from __future__ import annotations

import json
import os
import string
from collections import Counter

import numpy as np
import pytest
import torch
from tokenizers import processors
from transformers import PreTrainedTokenizerBase
from zoo import ARCHITECTURES, tiny_model

from trueprune._support.errors import AuditError, ModelError, TextError
from trueprune.audits import AccuracyOptions, AuditOptions, measure_accuracy
from trueprune.audits.accuracy import credit, encode_options, longest_only, option_log_likelihoods
from trueprune.cli.main import run
from trueprune.jobs import audit
from trueprune.models.load import LoadedModel
from trueprune.texts import select
from trueprune.texts.choices import NEAR, TASKS, ChoiceItem, choice_items
from trueprune.texts.facts import embedded_statements

DATA = os.environ.get("TRUEPRUNE_DATA")
needs_data = [pytest.mark.data, pytest.mark.skipif(not DATA, reason="TRUEPRUNE_DATA is not set")]


def item(prompt="The sky is", options=(" blue", " a kind of long green fish", " b"), gold=0, name="sky"):
    return ChoiceItem(name, prompt, tuple(options), gold, name)


ITEMS = [
    item(),
    item("Q", (" x", " y"), 1, "short"),
    item("Question: what is it that one drinks?\nAnswer:", (" water", " stones and", " a", " wine"), 2, "long"),
    item("The sky is", (" blue", " blue and"), 0, "sky again"),
]


@torch.no_grad()
def slow_log_likelihood(loaded, prompt, option):
    """One sequence at a time, all logits, one token after the other."""
    before, whole = (loaded.tokenizer(text)["input_ids"] for text in (prompt, prompt + option))
    assert whole[: len(before)] == before
    logprobs = loaded.model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
    return sum(logprobs[place - 1, whole[place]].item() for place in range(len(before), len(whole)))


# Likelihoods


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_likelihoods_are_those_of_the_obvious_way(name, tokenizer):
    loaded = LoadedModel(tiny_model(name), tokenizer, name)
    found = option_log_likelihoods(loaded, ITEMS)
    for row, scores in zip(ITEMS, found, strict=True):
        expected = [slow_log_likelihood(loaded, row.prompt, option) for option in row.options]
        np.testing.assert_allclose(scores, expected, rtol=2e-4)


def test_padding_and_company_take_no_part(tiny):
    alone = [option_log_likelihoods(tiny, [row])[0] for row in ITEMS]
    for batch_tokens in (1, 40, 10_000):
        together = option_log_likelihoods(tiny, ITEMS, batch_tokens=batch_tokens)
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)


def test_the_head_reads_no_more_than_the_scored_positions(tiny):
    shapes = []
    handle = tiny.model.lm_head.register_forward_hook(lambda _m, _a, out: shapes.append(tuple(out.shape)))
    option_log_likelihoods(tiny, [ITEMS[2]])
    handle.remove()
    tokens = {c.tokens for c in encode_options(tiny, ITEMS[2])}
    assert sum(shape[0] * shape[1] for shape in shapes) <= sum(map(len, tokens))
    assert not tiny.model.lm_head._forward_pre_hooks


def test_a_model_without_a_head_of_its_own_is_scored_on_all_logits(tiny):
    expected = option_log_likelihoods(tiny, ITEMS)
    tiny.model.get_output_embeddings = lambda: None
    for a, b in zip(expected, option_log_likelihoods(tiny, ITEMS), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_what_begins_alike_is_read_once():
    reads = [(1, 2), (1, 2, 3), (1, 2, 3, 4), (1, 2, 4), (2,), (1, 2), (1, 3, 2)]
    holder = longest_only(iter(reads))
    assert set(holder) == set(reads)
    assert set(holder.values()) == {(1, 2, 3, 4), (1, 2, 4), (2,), (1, 3, 2)}
    assert all(kept[: len(read)] == read for read, kept in holder.items())


def test_options_of_a_single_token_cost_one_prompt(tiny):
    letters = [f" {letter}" for letter in string.ascii_lowercase[:4]]
    row = item("The answer is", tuple(letters), 0)
    before = len(tiny.tokenizer("The answer is")["input_ids"])
    assert {len(c.tokens) for c in encode_options(tiny, row)} <= {1, 2}
    single = [o for o, c in zip(letters, encode_options(tiny, row), strict=True) if len(c.tokens) == 1]
    seen = []
    handle = tiny.model.register_forward_pre_hook(lambda _m, args: seen.append(tuple(args[0].shape)))
    option_log_likelihoods(tiny, [item("The answer is", tuple(single), 0)])
    handle.remove()
    assert len(single) >= 2
    assert seen == [(1, before)]


# Tokens


class Merging(PreTrainedTokenizerBase):
    """A tokenizer of characters that joins the end of a prompt with the beginning of an option: `:a` is one token."""

    all_special_ids = (0,)

    def __init__(self, ends=False):
        self.ends = ends

    def __call__(self, text, **options):
        joined = text.replace(":a", "\x01")
        ids = [ord(c) % 300 + 3 for c in joined]
        return {"input_ids": [*ids, 0] if self.ends else ids}


def test_a_token_that_joins_prompt_and_option_is_scored():
    loaded = LoadedModel(tiny_model("llama"), Merging(), "merging")
    merged, plain = encode_options(loaded, item("is:", ("ab", "b"), 0))
    # All options are scored from the same place on: the colon is no context of one and part of the other.
    assert merged.context == plain.context == (ord("i") + 3, ord("s") + 3)
    assert [len(merged.tokens), len(plain.tokens)] == [2, 2]
    scores = option_log_likelihoods(loaded, [item("is:", ("ab", "b"), 0)])[0]
    with torch.no_grad():
        for continuation, score in zip((merged, plain), scores, strict=True):
            ids = [*continuation.context, *continuation.tokens]
            logprobs = loaded.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
            assert score == pytest.approx(sum(logprobs[i - 1, ids[i]].item() for i in (2, 3)), rel=1e-4)


def test_a_token_that_ends_every_text_stands_at_no_boundary():
    plain, ended = (LoadedModel(tiny_model("llama"), Merging(ends), "x") for ends in (False, True))
    row = item("is ", ("xy", "b"), 0)
    assert encode_options(plain, row) == encode_options(ended, row)


def test_a_token_that_begins_every_text_is_context(tiny, tokenizer):
    expected = encode_options(tiny, ITEMS[0])
    backend = tokenizer.backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    try:
        found = encode_options(tiny, ITEMS[0])
    finally:
        backend.post_processor = processors.ByteLevel(trim_offsets=False)
    assert [c.context for c in found] == [(1, *c.context) for c in expected]
    assert [c.tokens for c in found] == [c.tokens for c in expected]
    assert encode_options(tiny, ITEMS[0]) == expected


# Accuracy


def test_credit():
    assert credit(np.array([-1.0, -2.0]), 0) == 1
    assert credit(np.array([-1.0, -2.0]), 1) == 0
    # Of a tie nobody wins by standing first.
    assert credit(np.array([-1.0, -1.0, -2.0]), 0) == credit(np.array([-1.0, -1.0, -2.0]), 1) == 0.5
    assert credit(np.array([-1.0, -1.0, -2.0]), 2) == 0


def test_accuracy_by_byte_and_by_sum(tiny):
    sums = option_log_likelihoods(tiny, ITEMS)
    normalised, summed = measure_accuracy(tiny, "mine", ITEMS)
    assert (normalised.metric, summed.metric) == ("accuracy/mine", "accuracy/mine/sum")
    assert (normalised.headline, summed.headline) == (True, False)
    assert normalised.higher_is_better
    assert normalised.item_ids == ["sky", "short", "long", "sky again"]
    assert normalised.clusters == normalised.item_ids
    assert normalised.details["chance"] == pytest.approx((1 / 3 + 1 / 2 + 1 / 4 + 1 / 2) / 4)
    for number, row in enumerate(ITEMS):
        sizes = [len(option[1:].encode()) for option in row.options]
        assert summed.values[number] == (sums[number].argmax() == row.gold)
        assert normalised.values[number] == ((sums[number] / sizes).argmax() == row.gold)


def test_bytes_are_those_of_utf8(tiny):
    from trueprune.audits.accuracy import _bytes_of

    assert _bytes_of(item("x", (" é", " ab c"), 0)).tolist() == [2, 4]


def test_a_model_that_knows_is_right(tiny):
    """A bias of the head towards one token makes the option that begins with it the likeliest."""
    rows = [item("Which?", (" x", " z"), 1, "one"), item("And which?", (" z", " x"), 0, "two")]
    token = tiny.tokenizer(" z")["input_ids"]
    assert len(token) == 2 or len(token) == 1
    head = tiny.model.lm_head
    head.bias = torch.nn.Parameter(torch.zeros(320))
    with torch.no_grad():
        head.bias[token[-1]] = 50
    assert measure_accuracy(tiny, "mine", rows)[0].value == 1
    with torch.no_grad():
        head.bias[token[-1]] = -50
    assert measure_accuracy(tiny, "mine", rows)[0].value == 0


def test_what_cannot_be_scored_is_named(tiny):
    long = item("word " * 300, (" a", " b"), 0, "novel")
    with pytest.raises(AuditError, match=r"the item novel has \d+ tokens, over the model's limit of 256"):
        measure_accuracy(tiny, "mine", [long])
    with pytest.raises(ModelError, match="has no tokenizer"):
        measure_accuracy(LoadedModel(tiny.model, None, "bare"), "mine", ITEMS)
    with torch.no_grad():
        tiny.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(AuditError, match="no finite likelihood"):
        measure_accuracy(tiny, "mine", ITEMS)
    with pytest.raises(AuditError, match="leaves no token to condition on"):
        encode_options(LoadedModel(tiny.model, Merging(), "merging"), item(":", ("a", "ab"), 0))


def test_items_are_checked():
    for bad in ({"prompt": " "}, {"options": (" a",)}, {"options": (" a", " ")}):
        with pytest.raises(TextError, match="the item sky lacks a prompt or two options"):
            item(**bad)
    with pytest.raises(TextError, match="3 is none of its 3 options"):
        item(gold=3)


# Tasks


def test_facts_are_right_and_many():
    items = choice_items("facts")
    assert len(items) > 300
    assert len({row.id for row in items}) == len(items)
    assert all(len(set(row.options)) == 4 for row in items)
    by_id = {row.id: row for row in items}
    gold = {row.prompt + row.options[row.gold] + "." for row in items}
    true = {s.text for s in embedded_statements() if s.label and s.polarity == "affirmative" and s.language == "en"}
    assert gold <= true
    wrong = {row.prompt + o + "." for row in items for i, o in enumerate(row.options) if i != row.gold}
    assert not wrong & true
    # Each place holds the right option about as often as any other.
    places = Counter(row.gold for row in items)
    assert set(places) == {0, 1, 2, 3}
    assert min(places.values()) > len(items) / 8
    animal = next(row for name, row in by_id.items() if name.startswith("animals:"))
    assert all(option.startswith((" a ", " an ")) for option in animal.options)
    word = next(row for name, row in by_id.items() if name.startswith("translations:"))
    assert word.prompt.endswith("' means")
    assert all(option.startswith(" '") and option.endswith("'") for option in word.options)
    for name, row in by_id.items():
        if name.startswith("people:"):
            trades = [option.split()[-1] for option in row.options]
            assert not any(frozenset((trades[row.gold], other)) in NEAR for other in trades)


def test_facts_that_may_choose_sparsities_are_left_out():
    chosen = {row.group for row in select(embedded_statements(), "choose")}
    assert chosen
    assert not chosen & {row.cluster for row in choice_items("facts")}


def test_a_smaller_limit_gives_a_part_of_a_larger_one():
    everything = choice_items("facts")
    assert choice_items("facts") == everything
    assert choice_items("facts", 50) == everything[:50]
    topics = Counter(row.id.split(":")[0] for row in everything[:100])
    assert len(topics) == 8  # the order mixes the topics


def test_unknown_tasks_are_refused():
    with pytest.raises(TextError, match=r"unknown task 'arc_esy'. Did you mean arc_easy\? Use one of facts, arc_easy"):
        AccuracyOptions(tasks=("facts", "arc_esy"))
    with pytest.raises(TextError, match=r"unknown task 'zzz'. Use one of facts"):
        AccuracyOptions(tasks=("zzz",))
    with pytest.raises(TextError, match="there is no task"):
        AccuracyOptions(tasks=())
    with pytest.raises(AuditError, match="--items -1 is below 0"):
        AccuracyOptions(items=-1)


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    def write(name, rows):
        file = tmp_path / "mirror" / f"{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        monkeypatch.setenv("TRUEPRUNE_DATA", str(tmp_path / "mirror"))

    return write


def test_rows_of_the_hub_become_questions(mirror):
    choices = {"text": ["Up. ", "down"], "label": ["1", "2"]}
    rows = [{"id": "a", "question": " Where to? ", "choices": choices, "answerKey": "2"}]
    rows += [{"id": "b", "question": "No key", "choices": choices, "answerKey": ""}]
    mirror("allenai__ai2_arc/ARC-Easy/test", rows)
    expected = ChoiceItem("a", "Question: Where to?\nAnswer:", (" Up.", " down"), 1, "a")
    assert choice_items("arc_easy") == [expected]
    mirror("allenai__openbookqa/main/test", [{**rows[0], "question_stem": "It goes"}])
    assert choice_items("openbookqa")[0].prompt == "Question: It goes\nAnswer:"
    mirror("tau__commonsense_qa/default/validation", [{"question": "x", "answerKey": "1"}])
    with pytest.raises(TextError, match="rows of commonsense_qa lack the column 'choices'"):
        choice_items("commonsense_qa")


def test_sciq_needs_its_distractors(mirror):
    whole = {"question": "What?", "correct_answer": "this", "distractor1": "a", "distractor2": "b", "distractor3": "c"}
    mirror("allenai__sciq/default/test", [{**whole, "question": f"What {n}?"} for n in range(40)])
    items = choice_items("sciq")
    assert len(items) == 40
    assert all(row.options[row.gold] == " this" and len(set(row.options)) == 4 for row in items)
    assert len({row.gold for row in items}) == 4
    mirror("allenai__sciq/default/test", [{**whole, "distractor2": ""}])
    with pytest.raises(TextError, match="rows of sciq hold no question with all its options"):
        choice_items("sciq")


def test_rows_that_cannot_be_had_are_named(mirror, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "datasets", None)
    mirror("somewhere/else", [])
    with pytest.raises(TextError, match=r"allenai/ai2_arc .* use --tasks facts"):
        choice_items("arc_challenge")


class TestRealRows:
    pytestmark = needs_data

    @pytest.fixture(autouse=True)
    def _mirror(self, monkeypatch):
        monkeypatch.setenv("TRUEPRUNE_DATA", DATA)

    @pytest.mark.parametrize("task", ["arc_easy", "arc_challenge", "openbookqa", "commonsense_qa"])
    def test_tasks(self, task):
        items = choice_items(task)
        assert len(items) >= 500
        assert len({row.id for row in items}) == len(items)
        assert all(2 <= len(row.options) <= 5 for row in items)
        assert set(TASKS) > {task}

    def test_a_tiny_model_guesses(self, tiny):
        found = measure_accuracy(tiny, "openbookqa", [i for i in choice_items("openbookqa", 40) if len(i.prompt) < 200])
        assert 0 <= found[0].value <= 0.6


# The audit


def test_an_audit_of_accuracy(tiny_folder, tmp_path, capsys):
    out = tmp_path / "audit"
    arguments = ["audit", str(tiny_folder), str(tiny_folder), "-o", str(out), "--instruments", "accuracy"]
    assert run([*arguments, "--tasks", "facts", "--items", "20", "--resamples", "50"]) == 0
    data = json.loads((out / "audit.json").read_text())
    rows = {(row["model"], row["metric"]): row for row in data["measurements"]}
    assert {metric for _, metric in rows} == {"accuracy/facts", "accuracy/facts/sum"}
    changed = rows["tiny-llama (2)", "accuracy/facts"]
    assert (changed["n"], changed["change"]["value"], changed["change"]["interval"]) == (20, 0, [0, 0])
    assert changed["details"]["chance"] == 0.25
    assert data["settings"]["accuracy"] == {"tasks": ["facts"], "items": 20}
    assert "efficiency" not in data["settings"]
    assert "usable_by" not in data["models"][1]
    items = [json.loads(line) for line in (out / "items.jsonl").read_text().splitlines()]
    assert items[0]["items"] == [row.id for row in choice_items("facts", 20)]
    assert set(items[0]["values"]) <= {0, 1}
    printed = capsys.readouterr().out
    assert "accuracy" in printed
    assert "(facts)" in printed


def test_an_unknown_task_is_refused_in_one_line(tiny_folder, tmp_path, capsys):
    arguments = ["audit", str(tiny_folder), "-o", str(tmp_path / "out"), "--instruments", "accuracy"]
    assert run([*arguments, "--tasks", "fact"]) == 2
    assert "unknown task 'fact'. Did you mean facts?" in capsys.readouterr().err
    assert run([*arguments, "--items", "-3"]) == 2
    assert "--items -3 is below 0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_questions_are_read_once_for_all_models(tiny_folder, monkeypatch):
    import importlib

    module = importlib.import_module("trueprune.audits.instruments")
    asked = []
    monkeypatch.setattr(module, "choice_items", lambda task, limit: asked.append(task) or choice_items(task, limit))
    options = {"measuring": AuditOptions(resamples=50), "answering": AccuracyOptions(items=5)}
    audit(tiny_folder, [tiny_folder, tiny_folder], instruments=("accuracy",), **options)
    assert asked == ["facts"]
