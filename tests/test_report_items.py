"""The worst items: which they are, what they say, and that a whole audit of real models gathers their texts."""

from __future__ import annotations

import json
import warnings

import jsonschema
import numpy as np
import pytest
import torch
from samples import write_corpus, write_statements
from zoo import tiny_model

from trueprune.audits import AuditOptions
from trueprune.audits.efficiency import EfficiencyOptions
from trueprune.audits.faithfulness.explain import ExplanationOptions
from trueprune.audits.measurement import Measurement
from trueprune.jobs import audit
from trueprune.models.load import LoadedModel
from trueprune.reports.audit import AuditedModel, compare
from trueprune.reports.document import schema
from trueprune.reports.html import render
from trueprune.reports.items import ItemText, ItemTexts, Said, worst_items
from trueprune.texts.qa.prompts import QaOptions
from trueprune.texts.tasks.questions import TaskOptions


def of(instrument, metric, values, **options):
    names = [f"i{n}" for n in range(len(values))]
    return Measurement(instrument, metric, names, np.array(values, dtype=float), **{"headline": True, **options})


def listed(before, after, texts=None, count=5, **options):
    models = [AuditedModel("dense", [before]), AuditedModel("pruned", [after])]
    return worst_items(compare(models, {}, resamples=20, seed=0), texts, count)


def test_the_items_that_lost_most_come_first():
    before = of("accuracy", "accuracy/facts", [1, 1 + 1e-15, 0.5, 0, 1, 0])
    after = of("accuracy", "accuracy/facts", [0, 1, 0.25, 1, 0.5, 0])
    (found,) = listed(before, after)
    assert [item["item"] for item in found["items"]] == ["i0", "i4", "i2"]
    assert (found["worse"], found["better"], found["same"], found["n"]) == (3, 1, 2, 6)
    assert found["items"][1]["before"] == {"value": 1.0, "said": None, "probability": None}
    assert found["items"][1]["after"]["value"] == 0.5
    assert found["items"][0]["text"] is None


def test_where_lower_is_better_what_rose_is_worst():
    before = of("calibration", "brier/facts", [0.1, 0.2, 0.9], higher_is_better=False)
    after = of("calibration", "brier/facts", [0.1, 0.8, 0.1], higher_is_better=False)
    (found,) = listed(before, after)
    assert [item["item"] for item in found["items"]] == ["i1"]
    assert (found["worse"], found["better"], found["same"]) == (1, 1, 1)


def test_one_item_of_each_cluster_and_no_more_than_asked():
    values = [1.0] * 6
    clusters = ["a", "a", "b", "b", "c", "d"]
    before = of("accuracy", "accuracy/facts", values, clusters=clusters)
    after = of("accuracy", "accuracy/facts", [0.5, 0.0, 0.0, 0.0, 0.0, 0.0], clusters=clusters)
    (found,) = listed(before, after, count=3)
    assert [item["item"] for item in found["items"]] == ["i1", "i2", "i4"]
    assert found["worse"] == 6


def test_metrics_whose_items_say_nothing_are_left_out():
    values, lower = [1.0, 1.0, 0.0], [0.0, 1.0, 0.0]
    for instrument, metric in (
        ("separation", "ratio-at-dense-peak"),
        ("efficiency", "decode-speedup"),
        ("calibration", "ece-15/facts"),
        ("open-qa", "hallucination/general"),
    ):
        assert listed(of(instrument, metric, values), of(instrument, metric, lower)) == []
    hidden = {"headline": False}
    assert listed(of("accuracy", "accuracy/x", values, **hidden), of("accuracy", "accuracy/x", lower, **hidden)) == []


def test_an_item_is_compared_with_its_own_baseline():
    baseline = of("accuracy", "accuracy/facts", [0.0, 1.0])
    after = of("accuracy", "accuracy/facts", [0.0, 0.0], baseline=baseline)
    (found,) = listed(of("accuracy", "accuracy/facts", [1.0, 0.0]), after)
    assert [item["item"] for item in found["items"]] == ["i1"]


def test_texts_and_answers_stand_beside_each_other():
    texts = ItemTexts(
        {"open-qa/general": {"i0": ItemText("Who?" + "x" * 2000, "Ada")}},
        {
            "dense": {"open-qa/general": {"i0": Said("Ada")}},
            "pruned": {"open-qa/general": {"i0": Said("", 0.25)}},
        },
    )
    (found,) = listed(of("open-qa", "correct/general", [1.0, 0.0]), of("open-qa", "correct/general", [0.0, 0.0]), texts)
    (item,) = found["items"]
    assert item["text"].startswith("Who?")
    assert len(item["text"]) == 600
    assert item["text"].endswith("…")
    assert item["right"] == "Ada"
    assert item["before"]["said"] == "Ada"
    assert item["after"] == {"value": 0.0, "said": "", "probability": 0.25}


def test_windows_of_perplexity_go_by_their_place():
    names = ["0:ab", "512:cd"]
    before, after = (
        Measurement("perplexity", "perplexity", names, np.array(v), higher_is_better=False, headline=True)
        for v in ([3.0, 3.0], [3.0, 4.0])
    )
    (found,) = listed(before, after)
    assert found["items"][0]["text"] == "the window from token 512"


# A whole audit


@pytest.fixture(scope="module")
def report(tokenizer, tmp_path_factory):
    """Every instrument that needs no extra, on a tiny model and the same with other weights."""
    folder = tmp_path_factory.mktemp("whole")
    dense = LoadedModel(tiny_model("llama"), tokenizer, "tiny")
    other = LoadedModel(tiny_model("llama"), tokenizer, "<b>other</b>")
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    instruments = ("perplexity", "lie-detection", "separation", "accuracy", "calibration", "faithfulness")
    instruments = (*instruments, "open-qa", "truthfulness", "efficiency")
    with warnings.catch_warnings():
        # So few items, and so small a model, that much is said about both.
        warnings.simplefilter("ignore")
        audit(
            dense,
            [other],
            folder / "audit",
            instruments=instruments,
            measuring=AuditOptions(
                text=str(write_corpus(folder / "text.txt", 6)),
                window=32,
                statements=str(write_statements(folder / "statements.csv")),
                repeats=1,
                resamples=30,
                probes=("mass-mean",),
                protocols=("grouped",),
                cache=False,
            ),
            answering=TaskOptions(tasks=("sentiment", "commonsense"), items=6),
            explaining=ExplanationOptions(attributions=("leave-one-out",), explained=5, naopc_words=0),
            asking=QaOptions(qa=("misconceptions",), qa_items=8),
            timing=EfficiencyOptions(prompt_tokens=16, decode_tokens=2, timing_rounds=2),
        )
    return folder / "audit"


def test_a_whole_audit_is_a_document_and_a_page(report):
    document = json.loads((report / "audit.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema()).validate(document)
    assert sum(one["measured"] for one in document["instruments"]) == 9
    page = (report / "report.html").read_text(encoding="utf-8")
    assert page == render(document)
    assert "<b>other</b>" not in page
    assert "&lt;b&gt;other&lt;/b&gt;" in page


def test_a_whole_audit_brings_the_texts_of_its_worst_items(report):
    document = json.loads((report / "audit.json").read_text(encoding="utf-8"))
    found = {(one["instrument"], one["metric"].split("/")[0]): one for one in document["worst_items"] if one["items"]}
    statement = found["lie-detection", "grouped"]["items"][0]
    assert statement["text"].startswith(("The town of", "The word"))
    assert statement["right"] in ("true", "false")
    texts = found["calibration", "brier"]["items"][0]
    assert len(texts["text"]) > 20
    assert 0 < texts["after"]["probability"] <= 1
    assert texts["after"]["said"]
    assert found["truthfulness", "mc2"]["items"][0]["text"].endswith("?")
    assert found["truthfulness", "mc2"]["items"][0]["after"]["said"]
    words = found["faithfulness", "comprehensiveness"]["items"][0]
    assert words["before"]["said"]
    assert all(word in words["text"] for word in words["before"]["said"].split(", "))
    for one in document["worst_items"]:
        if one["instrument"] == "accuracy":
            for item in one["items"]:
                # Who has an item right says the right answer.
                for side in (item["before"], item["after"]):
                    if side["value"] in (0.0, 1.0):
                        assert (side["said"] == item["right"]) == (side["value"] == 1.0)
