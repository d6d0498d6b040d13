"""Explanations item by item: the pure functions' numbers on a question, kept, repeated, grouped, compared."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from zoo import tiny_model

from trueprune._support.errors import AuditError
from trueprune.audits import (
    Explanation,
    ExplanationOptions,
    Question,
    agreement_of,
    explain,
    faithfulness_of,
    read_explanations,
)
from trueprune.audits.faithfulness import naopc, normalised, removal
from trueprune.audits.faithfulness.agreement import measure_agreement
from trueprune.audits.faithfulness.attributions.registry import ATTRIBUTIONS, attribute
from trueprune.audits.faithfulness.explain import write_explanations
from trueprune.audits.faithfulness.plausibility import measure_plausibility
from trueprune.cli.main import run
from trueprune.models.load import LoadedModel
from trueprune.texts.tasks import ChoiceItem, TaskItem, find_task, questions, render
from trueprune.texts.tasks.prompts import PromptOptions

EVERY = tuple(ATTRIBUTIONS)
SMALL = ExplanationOptions(attributions=("lime", "leave-one-out", "random"), samples=24)


def asked(*texts, rationale=None):
    """Short questions of sentiment."""
    task = find_task("sentiment")
    return [
        render(task, TaskItem(f"s{n}", (text,), ("negative", "positive"), n % 2, "", rationale), PromptOptions())
        for n, text in enumerate(texts)
    ]


SHORT = asked("The red soup was not good.", "I would go there again.")


def seed_of(item, seed=0):
    return int.from_bytes(hashlib.sha256(f"{seed}/{item.id}".encode()).digest()[:4], "big")


# The numbers of one explanation


@pytest.mark.parametrize("operator", ["delete", "mask", "attention"])
def test_every_attribution_is_explained_and_measured_as_by_hand(tiny, operator):
    marked = (False, True, True, False, True, True)
    item = asked("The red soup was not good.", rationale=marked)[0]
    options = ExplanationOptions(
        attributions=EVERY, samples=24, operator=operator, mask_string="...", bins=(0.2, 0.5, 1.0), soft_draws=3
    )
    found = explain(tiny, [item], options, task="mine", scoring="mean")
    assert [one.attribution for one in found] == list(EVERY)

    question = Question(tiny, item, scoring="mean", operator=operator, mask_string="...")
    p = question.full_C
    seed, full = seed_of(item), float(p.max())
    empty = float(question(np.zeros((1, 6), dtype=bool))[0])
    for one in found:
        assert (one.task, one.item, one.cluster, one.words) == ("mine", "s0", "s0", item.word_texts())
        scores_D = attribute(one.attribution, question, 6, samples=24, seed=seed)
        np.testing.assert_allclose(one.scores, scores_D, atol=2e-6)
        assert (one.option, one.full, one.empty) == (int(p.argmax()), pytest.approx(full), pytest.approx(empty))
        order_D = removal.order_words(np.array(one.scores), seed=seed)
        sizes = [2, 3, 6]  # a fifth, a half and all of six words, rounded up
        without = np.array([question(~np.isin(np.arange(6), order_D[:k])[None])[0] for k in sizes])
        only = np.array([question(np.isin(np.arange(6), order_D[:k])[None])[0] for k in sizes])
        np.testing.assert_allclose(one.comprehensiveness_bins, full - without, atol=2e-6)
        np.testing.assert_allclose(one.sufficiency_bins, full - only, atol=2e-6)
        assert one.sufficiency_bins[-1] == pytest.approx(0, abs=2e-6)
        assert one.comprehensiveness == pytest.approx((full - without).mean(), abs=2e-6)
        assert one.sufficiency == pytest.approx((full - only).mean(), abs=2e-6)
        nc = normalised.normalised_comprehensiveness(full, empty, without[None])
        ns = normalised.normalised_sufficiency(full, empty, only[None])
        assert one.normalised_comprehensiveness == pytest.approx(nc.mean(), abs=1e-4)
        assert one.normalised_sufficiency == pytest.approx(ns.mean(), abs=1e-4)
        edin = naopc.measure_naopc(question, order_D[None])
        assert one.naopc_comprehensiveness == pytest.approx(edin.comprehensiveness_A[0], abs=1e-4)
        assert one.naopc_sufficiency == pytest.approx(edin.sufficiency_A[0], abs=1e-4)
        assert one.naopc_exact is True
        keep_D = normalised.keep_probabilities(np.array(one.scores))
        zeroed = float(question.soft(np.zeros(6), 1)[0])
        nc = normalised.soft_comprehensiveness(full, zeroed, question.soft(1 - keep_D, 3, seed))
        ns = normalised.soft_sufficiency(full, zeroed, question.soft(keep_D, 3, seed + 1))
        assert (one.soft_comprehensiveness, one.soft_sufficiency) == (
            pytest.approx(nc, abs=1e-4),
            pytest.approx(ns, abs=1e-4),
        )
        pleased = measure_plausibility(np.array(one.scores), np.array(marked), seed=seed)
        assert {name: getattr(one, name) for name in asdict(pleased)} == pytest.approx(asdict(pleased))
    by_name = {one.attribution: one for one in found}
    assert not np.allclose(by_name["shapley"].scores, by_name["leave-one-out"].scores)
    # Exact Shapley values share out what the words add.
    assert sum(by_name["shapley"].scores) == pytest.approx(full - empty, abs=1e-6)


def test_operators_ask_other_texts(tiny):
    told = {}
    for name, change in {
        "delete": {},
        "mask": {"operator": "mask"},
        "another string": {"operator": "mask", "mask_string": "nothing"},
        "attention": {"operator": "attention"},
    }.items():
        one = explain(tiny, SHORT[:1], replace(SMALL, attributions=("leave-one-out",), **change))[0]
        told[name] = one.scores
        assert one.full == pytest.approx(Question(tiny, SHORT[0]).full_C.max())
    assert len({tuple(np.round(scores, 9)) for scores in told.values()}) == 4


@pytest.mark.parametrize("name", ["gpt2", "gemma3"])
def test_other_architectures_are_explained_by_every_attribution(name, tokenizer):
    loaded = LoadedModel(tiny_model(name), tokenizer, name)
    found = explain(loaded, SHORT[1:], ExplanationOptions(attributions=EVERY, samples=16, soft_draws=2))
    assert len(found) == len(EVERY)
    assert all(np.isfinite(one.scores).all() and len(one.scores) == 5 for one in found)


# Options


def test_so_many_items_are_explained_in_the_order_of_the_tasks(tiny):
    items = questions("facts", 4)
    names = [item.id for item in items]
    few = explain(tiny, items, replace(SMALL, explained=2))
    assert [one.item for one in few] == [name for name in names[:2] for _ in range(3)]
    assert [one.attribution for one in few] == list(SMALL.attributions) * 2
    assert [one.item for one in explain(tiny, items, replace(SMALL, explained=0))][::3] == names
    assert explain(tiny, items, replace(SMALL, explained=50))[:6] == few


def test_what_is_not_asked_for_is_not_there(tiny):
    item = asked("The red soup was not good.", "Bad.")[0]
    bare = explain(tiny, [item], replace(SMALL, naopc_words=0))[0]
    names = ("naopc_comprehensiveness", "naopc_sufficiency", "naopc_exact", "soft_comprehensiveness", "auprc", "f1")
    assert [getattr(bare, name) for name in names] == [None] * 6
    limits = {5: None, 6: True}
    for words, exact in limits.items():
        assert explain(tiny, [item], replace(SMALL, naopc_words=words))[0].naopc_exact is exact


def test_long_texts_are_bounded_by_a_beam_where_that_is_asked_for(tiny):
    item = asked("The red soup was not good and the old bread was worse too")[0]
    assert explain(tiny, [item], SMALL)[0].naopc_comprehensiveness is None
    one = explain(tiny, [item], replace(SMALL, attributions=("leave-one-out",), naopc_words=13))[0]
    assert one.naopc_exact is False
    assert 0 <= one.naopc_comprehensiveness <= 1


def test_the_number_of_samples_matters_to_what_draws(tiny):
    few, many = (explain(tiny, SHORT[:1], replace(SMALL, samples=count)) for count in (8, 48))
    assert few[0].scores != many[0].scores
    # What draws nothing is the same, but for the rounding of other batches.
    np.testing.assert_allclose(few[1].scores, many[1].scores, atol=1e-6)
    assert few[2].scores == many[2].scores


def test_soft_draws_are_averaged(tiny):
    options = replace(SMALL, attributions=("leave-one-out",))
    one, many = (explain(tiny, SHORT[1:], replace(options, soft_draws=count))[0] for count in (1, 20))
    assert one.soft_sufficiency != many.soft_sufficiency
    for value in (one.soft_sufficiency, one.soft_comprehensiveness, many.soft_comprehensiveness):
        assert 0 <= value <= 1


def test_words_may_be_ranked_by_the_size_of_their_scores(tiny):
    options = replace(SMALL, attributions=("leave-one-out",), bins=(0.3,))
    signed, sized = (explain(tiny, SHORT[:1], replace(options, absolute=a))[0] for a in (False, True))
    np.testing.assert_allclose(signed.scores, sized.scores, atol=1e-6)
    question, scores_D = Question(tiny, SHORT[0]), np.array(signed.scores)
    top = [frozenset(np.argsort(-keys_D)[:2].tolist()) for keys_D in (scores_D, np.abs(scores_D))]
    assert top[0] != top[1]
    for one, words in zip((signed, sized), top, strict=True):
        without = question(~np.isin(np.arange(6), list(words))[None])[0]
        assert one.comprehensiveness == pytest.approx(one.full - without, abs=2e-6)


def test_the_share_that_soft_metrics_keep_can_be_set(tiny):
    options = replace(SMALL, attributions=("leave-one-out",), soft_draws=4, soft_retained=0.3)
    one = explain(tiny, SHORT[1:], options)[0]
    question, seed = Question(tiny, SHORT[1]), seed_of(SHORT[1])
    keep_D = normalised.keep_probabilities(np.array(one.scores), 0.3)
    assert keep_D.mean() == pytest.approx(0.3)
    zeroed = float(question.soft(np.zeros(5), 1)[0])
    found = normalised.soft_sufficiency(one.full, zeroed, question.soft(keep_D, 4, seed + 1))
    assert one.soft_sufficiency == pytest.approx(found, abs=1e-4)
    assert one.soft_sufficiency != explain(tiny, SHORT[1:], replace(options, soft_retained=None))[0].soft_sufficiency


def test_the_same_again_and_another_seed_another_draw(tiny):
    options = replace(SMALL, soft_draws=2)
    first = explain(tiny, SHORT, options)
    assert explain(tiny, SHORT, options) == first
    # An item's explanation does not depend on its company.
    assert explain(tiny, SHORT[1:], options) == first[3:]
    other = explain(tiny, SHORT, replace(options, explanation_seed=1))
    assert other[0].scores != first[0].scores
    np.testing.assert_allclose(other[1].scores, first[1].scores, atol=1e-6)
    assert other[2].scores != first[2].scores


def test_every_item_has_a_seed_of_its_own(tiny):
    same = [replace(SHORT[0], id=name) for name in ("one", "another")]
    lime, _, random, lime_2, _, random_2 = explain(tiny, same, SMALL)
    assert random.scores != random_2.scores
    assert lime.scores != lime_2.scores
    for one, item in ((random, same[0]), (random_2, same[1])):
        question = Question(tiny, item)
        assert one.scores == attribute("random", question, 6, samples=24, seed=seed_of(item)).tolist()


def test_a_text_of_one_word(tiny):
    found = explain(tiny, asked("Good."), ExplanationOptions(attributions=EVERY, samples=8, soft_draws=2))
    for one in found:
        gap = one.full - one.empty
        assert one.comprehensiveness == pytest.approx(gap, abs=2e-6)
        assert one.comprehensiveness_bins == pytest.approx([gap] * 5, abs=2e-6)
        assert one.sufficiency == pytest.approx(0, abs=2e-6)
        # There is one order only: its AOPC has no range to be placed in.
        assert (one.naopc_comprehensiveness, one.naopc_sufficiency, one.naopc_exact) == (0, 0, True)
        assert all(np.isfinite(v) for v in (*one.scores, one.soft_comprehensiveness, one.soft_sufficiency))
    for one in agreement_of(found, found):
        # All scores of a single word are equal, so that there are no ranks to correlate.
        assert one.value == (1 if one.metric.startswith(("same-option", "top-k")) else 0)


def test_rationales_that_mark_all_or_nothing_are_no_rationales(tiny):
    for rationale in ((True,) * 6, (False,) * 6, None):
        one = explain(tiny, asked("The red soup was not good.", rationale=rationale), SMALL)[0]
        assert (one.precision, one.recall, one.f1, one.iou, one.auprc) == (None,) * 5


def test_what_cannot_be_explained_is_named(tiny):
    with pytest.raises(AuditError, match=r"the item s0 has \d+ tokens, over the model's limit of 256"):
        explain(tiny, asked("a b c " * 120), SMALL)
    with pytest.raises(AuditError, match="the item bare has no words to explain"):
        explain(tiny, [ChoiceItem("bare", "Say", (" a", " b"), 0, "bare")], SMALL)
    with pytest.raises(AuditError, match="13 words"):
        explain(tiny, asked(" ".join("abcdefghijklm")), replace(SMALL, attributions=("shapley",)))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"attributions": ()}, "there is no attribution"),
        ({"attributions": ("lime", "shap")}, "no attribution method 'shap'"),
        ({"samples": 7}, "--samples 7 is below 8"),
        ({"explained": -1}, "--explained -1 is below 0"),
        ({"naopc_words": -1}, "--naopc-words -1 is below 0"),
        ({"soft_draws": -1}, "--soft-draws -1 is below 0"),
        ({"bins": ()}, "the bins are"),
        ({"soft_retained": 1.5}, "the share to retain is 1.5"),
        ({"bins": (0.5, 1.5)}, r"the bins are \[0.5, 1.5\]"),
    ],
)
def test_options_without_a_meaning_are_refused(change, problem):
    with pytest.raises(AuditError, match=problem):
        ExplanationOptions(**change)


# Kept


def test_explanations_are_read_back_as_they_were(tiny, tmp_path):
    marked = asked("The red soup was not good.", rationale=(False, True, False, False, True, True))
    first = explain(tiny, [*marked, *SHORT[1:]], replace(SMALL, soft_draws=2), task="one")
    second = explain(tiny, asked("a b c d e f g h i j k l"), SMALL, task="two")
    file = tmp_path / "explanations.parquet"
    write_explanations([("dense", [*first, *second]), ("pruned", first)], file)
    assert read_explanations(file) == {"dense": [*first, *second], "pruned": first}


def test_a_file_that_holds_no_explanations_is_refused(tiny, tmp_path):
    from trueprune.audits import predict, write_predictions

    with pytest.raises(
        AuditError, match=r"gone\.parquet is no table of explanations .*Give the explanations\.parquet of an audit"
    ):
        read_explanations(tmp_path / "gone.parquet")
    (tmp_path / "text.parquet").write_text("text")
    with pytest.raises(AuditError, match=r"text\.parquet is no table of explanations"):
        read_explanations(tmp_path / "text.parquet")
    write_predictions([("tiny", predict(tiny, SHORT))], tmp_path / "predictions.parquet")
    with pytest.raises(AuditError, match=r"predictions\.parquet is no table of explanations .*no column 'attribution'"):
        read_explanations(tmp_path / "predictions.parquet")


# Measurements


def explained(item="a", attribution="lime", task="t", option=0, scores=(0.3, 0.1, 0.2), **rest):
    numbers = {"full": 0.9, "empty": 0.5, "comprehensiveness": 0.4, "sufficiency": 0.1}
    bins = {"comprehensiveness_bins": [0.3, 0.5], "sufficiency_bins": [0.2, 0.0]}
    relative = {"normalised_comprehensiveness": 0.7, "normalised_sufficiency": 0.6}
    given = {**numbers, **bins, **relative, **rest}
    words = list("abcdefghijklmnopqrst")[: len(scores)]
    return Explanation(task, item, f"cluster {item}", attribution, words, list(scores), option, **given)


def test_faithfulness_is_of_each_task_and_attribution():
    found = [
        explained(item, attribution, task, comprehensiveness=value, naopc_exact=None)
        for task, item, values in (("t", "a", (0.1, 0.5)), ("t", "b", (0.3, 0.7)), ("u", "a", (0.2, 0.4)))
        for attribution, value in zip(("lime", "random"), values, strict=True)
    ]
    measured = {m.metric: m for m in faithfulness_of(found)}
    assert measured["comprehensiveness/t/lime"].values.tolist() == [0.1, 0.3]
    assert measured["comprehensiveness/t/random"].values.tolist() == [0.5, 0.7]
    assert measured["comprehensiveness/u/lime"].values.tolist() == [0.2]
    one = measured["comprehensiveness/t/lime"]
    assert (list(one.item_ids), list(one.clusters)) == (["a", "b"], ["cluster a", "cluster b"])
    assert one.instrument == "faithfulness"
    assert one.details["by_bin"] == [0.3, 0.5]
    assert measured["sufficiency/t/lime"].details["by_bin"] == [0.2, 0.0]
    # Four metrics that every explanation has, for two attributions of two tasks.
    assert len(measured) == 16
    shown = {name for name, m in measured.items() if m.headline}
    assert shown == {f"{metric}/{task}/lime" for metric in ("comprehensiveness", "sufficiency") for task in "tu"}
    better = {name.split("/")[0]: m.higher_is_better for name, m in measured.items()}
    assert better == {
        "comprehensiveness": True,
        "sufficiency": False,
        "normalised-comprehensiveness": True,
        "normalised-sufficiency": True,
    }


def test_only_items_that_have_a_value_are_measured():
    short = {"naopc_comprehensiveness": 0.8, "naopc_sufficiency": 0.3, "naopc_exact": True}
    beam = {"naopc_comprehensiveness": 0.6, "naopc_sufficiency": 0.1, "naopc_exact": False}
    liked = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "iou": 0.25, "auprc": 0.75}
    found = [explained("a", **short), explained("b", **beam, **liked), explained("c")]
    measured = {m.metric: m for m in faithfulness_of(found)}
    assert measured["comprehensiveness/t/lime"].n == 3
    assert list(measured["naopc-comprehensiveness/t/lime"].item_ids) == ["a", "b"]
    assert measured["naopc-comprehensiveness/t/lime"].value == pytest.approx(0.7)
    assert measured["naopc-sufficiency/t/lime"].details == {"exact": 1}
    assert not measured["naopc-sufficiency/t/lime"].higher_is_better
    assert list(measured["plausibility-auprc/t/lime"].item_ids) == ["b"]
    assert {n for n in measured if n.startswith("plausibility")} == {
        f"plausibility-{name}/t/lime" for name in ("precision", "recall", "f1", "iou", "auprc")
    }
    assert not any(name.startswith("soft") for name in measured)
    assert faithfulness_of([]) == []


def test_a_model_agrees_with_itself(tiny):
    found = explain(tiny, SHORT, SMALL, task="mine")
    measured = {m.metric: m for m in agreement_of(found, found)}
    # The control's scores are drawn alike for both models: that is no agreement.
    assert set(measured) == {"same-option/mine"} | {
        f"{name}/mine/{how}" for name in ("spearman", "kendall", "top-k") for how in ("lime", "leave-one-out")
    }
    for measurement in measured.values():
        assert measurement.value == pytest.approx(1)
        assert list(measurement.item_ids) == ["s0", "s1"]
    assert {name for name, m in measured.items() if m.headline} == {"spearman/mine/lime"}


def test_explanations_of_other_answers_are_not_compared():
    dense = [explained("a"), explained("b", option=1), explained("c")]
    other = [
        explained("a", scores=(0.1, 0.2, 0.3)),
        explained("b", option=0),
        explained("c", scores=(0.5, 0.0, 0.1)),
        explained("d"),
    ]
    measured = {m.metric: m for m in agreement_of(dense, other)}
    # An item that the dense model was not asked has nothing to be compared with.
    assert dict(zip(measured["same-option/t"].item_ids, measured["same-option/t"].values, strict=True)) == {
        "a": 1,
        "b": 0,
        "c": 1,
    }
    spearman = measured["spearman/t/lime"]
    assert list(spearman.item_ids) == ["a", "c"]
    by_hand = [
        measure_agreement(np.array(before.scores), np.array(after.scores), k=1)
        for before, after in zip(dense[::2], other[::2], strict=True)
    ]
    assert spearman.values.tolist() == [one.spearman for one in by_hand] == pytest.approx([-0.5, 1.0])
    assert measured["kendall/t/lime"].values.tolist() == [one.kendall for one in by_hand]
    assert measured["top-k/t/lime"].values.tolist() == [0.0, 1.0]
    assert spearman.details == {"compared_with": "dense", "items": 2, "undefined": 0}
    none_alike = {m.metric for m in agreement_of([explained("a")], [explained("a", option=1)])}
    assert none_alike == {"same-option/t"}
    assert agreement_of([explained("a")], [explained("b")]) == []


def test_a_fifth_of_the_words_counts_as_the_most_important():
    falling = tuple(np.linspace(1, 0.1, 10))
    swapped = (*falling[:1], *falling[2:], falling[1])
    found = {m.metric: m for m in agreement_of([explained(scores=falling)], [explained(scores=swapped)])}
    # Two of ten words: the first is the same, the second went to the end.
    assert found["top-k/t/lime"].value == 0.5
    flat = {m.metric: m for m in agreement_of([explained(scores=falling)], [explained(scores=(0.5,) * 10)])}
    assert flat["spearman/t/lime"].details["undefined"] == 1
    assert flat["spearman/t/lime"].value == 0


# The audit


def test_an_audit_of_faithfulness(tiny_folder, tokenizer, tmp_path, capsys):
    other = tiny_model("llama")
    with torch.no_grad():
        other.model.layers[1].self_attn.o_proj.weight.zero_()
    other.save_pretrained(tmp_path / "pruned")
    tokenizer.save_pretrained(tmp_path / "pruned")
    out = tmp_path / "out"
    arguments = ["audit", str(tiny_folder), str(tmp_path / "pruned"), "-o", str(out), "--resamples", "20"]
    arguments += ["--instruments", "faithfulness", "--tasks", "sentiment", "facts", "--items", "4", "--explained", "3"]
    arguments += ["--attributions", "leave-one-out", "random", "--naopc-words", "6", "--bins", "0.2", "0.5"]
    assert run([*arguments, "--samples", "16", "--explanation-seed", "5"]) == 0
    data = json.loads((out / "audit.json").read_text())
    how = data["settings"]["faithfulness"]
    assert (how["samples"], how["explained"], how["bins"], how["explanation_seed"]) == (16, 3, [0.2, 0.5], 5)
    assert "calibration" not in data["settings"]
    rows = {(row["model"], row["metric"]): row for row in data["measurements"]}
    found = read_explanations(out / "explanations.parquet")
    assert set(found) == {"tiny-llama", "pruned"}
    for model, many in found.items():
        assert len(many) == 2 * 3 * 2
        for measurement in faithfulness_of(many):
            assert rows[model, measurement.metric]["value"] == pytest.approx(measurement.value)
    own = LoadedModel(other.eval(), tokenizer, "pruned")
    options = ExplanationOptions(("leave-one-out", "random"), 16, 3, bins=(0.2, 0.5), naopc_words=6, explanation_seed=5)
    again = explain(own, questions("sentiment", 4), options, task="sentiment")
    for one, two in zip(again, found["pruned"][:6], strict=True):
        np.testing.assert_allclose(one.scores, two.scores, atol=1e-5)
    change = rows["pruned", "comprehensiveness/sentiment/leave-one-out"]["change"]
    assert change["value"] != 0
    for measurement in agreement_of(found["tiny-llama"], found["pruned"]):
        row = rows["pruned", measurement.metric]
        assert row["value"] == pytest.approx(measurement.value)
        assert row["change"] is None
    assert rows["pruned", "same-option/facts"]["n"] == 3
    assert ("tiny-llama", "same-option/facts") not in rows
    # Rationales are of the sentences, and no sentence is short enough for six words.
    assert rows["pruned", "plausibility-auprc/sentiment/leave-one-out"]["n"] == 3
    assert not any(metric.startswith("plausibility") and "facts" in metric for _, metric in rows)
    assert not any(metric.startswith("naopc") and "sentiment" in metric for _, metric in rows)
    short = sum(item.n_words <= 6 for item in questions("facts", 3))
    assert 0 < rows["pruned", "naopc-comprehensiveness/facts/leave-one-out"]["n"] == short
    assert not (out / "predictions.parquet").exists()
    assert "comprehensiveness" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--attributions", "shap"], ["no attribution method 'shap'", "kernel-shap"]),
        (["--operator", "replace"], ["--operator", "replace"]),
        (["--samples", "2"], ["--samples 2 is below 8", "Use 8 or more"]),
        (["--explained", "-2"], ["--explained -2 is below 0"]),
        (["--bins", "0", "0.5"], ["the bins are [0.0, 0.5]", "above 0"]),
        (["--naopc-words", "-1"], ["--naopc-words -1 is below 0"]),
        (["--soft-draws", "many"], ["--soft-draws", "many"]),
        (["--attributions", "shapley", "--tasks", "sentiment"], ["12 words"]),
    ],
)
def test_wrong_options_are_one_line_and_nothing_is_written(tiny_folder, tmp_path, capsys, flags, words):
    arguments = ["audit", str(tiny_folder), "-o", str(tmp_path / "out"), "--instruments", "faithfulness"]
    assert run([*arguments, "--items", "8", *flags]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("trueprune: error: ")
    assert captured.err.count("\n") == 1
    for word in words:
        assert word in captured.err
    assert list(tmp_path.iterdir()) == []
