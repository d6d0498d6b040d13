"""The catalogue of metric names: what the instruments measure, no more and no less; which names a gate may mean."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from samples import write_statements
from zoo import tiny_model

from trueprune.audits.calibration import ConfidenceOptions
from trueprune.audits.context import AuditContext, AuditOptions, AuditSettings
from trueprune.audits.efficiency import EfficiencyOptions
from trueprune.audits.faithfulness.explain import ExplanationOptions
from trueprune.audits.instruments import INSTRUMENTS
from trueprune.audits.metrics import CATALOGUE, EXAMPLES, PLACES, matches, metrics_meant, nearest_metric, places_of
from trueprune.audits.qa.options import TruthOptions
from trueprune.audits.subject import Subject
from trueprune.models.load import LoadedModel
from trueprune.texts.qa.prompts import QaOptions
from trueprune.texts.tasks.questions import TaskOptions

EVERY = [(instrument, form) for instrument, forms in CATALOGUE.items() for form in forms]
undefined = pytest.mark.filterwarnings("ignore:.*(undefined|even a perfectly calibrated):UserWarning")


def fair(_question, text):
    return len(text) % 2


@pytest.fixture(scope="module")
def harness_task(tmp_path_factory):
    """A task of lm-evaluation-harness, with its rows."""
    folder = tmp_path_factory.mktemp("harness")
    rows = [{"q": f"Thing {n} is", "options": ["blue", "cold"], "gold": n % 2} for n in range(3)]
    (folder / "rows.json").write_text("\n".join(map(json.dumps, rows)))
    task = {
        "task": "things",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.json")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{q}}",
        "doc_to_target": "gold",
        "doc_to_choice": "{{options}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (folder / "things.yaml").write_text(yaml.safe_dump(task))
    return str(folder / "things.yaml")


@pytest.fixture(scope="module")
def measured(tokenizer, tmp_path_factory, harness_task):
    """Every instrument with all that it can be asked for, on a dense and a pruned tiny model: metrics by model."""
    rows = write_statements(tmp_path_factory.mktemp("statements") / "towns.csv")
    text = rows.read_text()
    rows.write_text(text + "The town of Bardal is in the east and the town of Barsk is,1,towns,conjunction,t:x\n" * 4)
    settings = AuditSettings(
        AuditOptions(window=64, max_tokens=256, statements=str(rows), layer="sweep", repeats=1, cache=False),
        EfficiencyOptions(prompt_tokens=8, decode_tokens=1, timing_rounds=2),
        TaskOptions(tasks=("facts", "sentiment", f"lm-eval:{harness_task}"), items=8),
        explaining=ExplanationOptions(("lime", "random"), samples=16, explained=2, naopc_words=7, soft_draws=1),
        asking=QaOptions(qa_items=6),
        truth=TruthOptions(new_tokens=4, judge=fair),
    )
    dense = Subject("dense", LoadedModel(tiny_model("llama", 0), tokenizer, "dense"), use_cache=False)
    pruned = Subject("pruned", LoadedModel(tiny_model("llama", 1), tokenizer, "pruned"), use_cache=False)
    context = AuditContext(settings, dense)
    found = {}
    with pytest.warns(UserWarning):
        for subject in (dense, pruned):
            found[subject.name] = {name: measure(subject, context) for name, measure in INSTRUMENTS.items()}
    return found, settings


def test_every_metric_that_is_measured_is_in_the_catalogue_once(measured):
    found, settings = measured
    for by_instrument in found.values():
        for instrument, measurements in by_instrument.items():
            names = [m.metric for m in measurements]
            assert names
            assert {m.instrument for m in measurements} == {instrument}
            assert {name: len(metrics_meant(instrument, name)) for name in names} == dict.fromkeys(names, 1)
            # And under the options that it was measured with.
            assert {name: len(metrics_meant(instrument, name, places_of(settings))) for name in names} == dict.fromkeys(
                names, 1
            )


def test_every_form_of_the_catalogue_occurs(measured):
    found, _ = measured
    seen = {
        (instrument, form.pattern)
        for by_instrument in found.values()
        for instrument, measurements in by_instrument.items()
        for m in measurements
        for form in metrics_meant(instrument, m.metric)
    }
    assert list(CATALOGUE) == list(INSTRUMENTS)
    # A tiny model answers no question rightly, so that these are left out; nothing else is.
    rare = {("open-qa", "auroc-sum/{set}"), ("open-qa", "auroc-mean/{set}"), ("calibration", "auroc/{task}")}
    missing = {(instrument, form.pattern) for instrument, form in EVERY} - seen
    assert missing <= rare
    assert all(form.conditional for instrument, form in EVERY if (instrument, form.pattern) in rare)


def test_values_lie_where_the_catalogue_says_and_only_pruned_models_are_compared(measured):
    found, _ = measured
    for name, by_instrument in found.items():
        for instrument, measurements in by_instrument.items():
            for m in measurements:
                (form,) = metrics_meant(instrument, m.metric)
                assert form.low <= m.value <= form.high, m.metric
                assert not (form.beside_dense and name == "dense"), m.metric
    compared = {m.metric.split("/")[0] for m in found["pruned"]["faithfulness"]} - {
        m.metric.split("/")[0] for m in found["dense"]["faithfulness"]
    }
    assert compared == {form.pattern.split("/")[0] for _, form in EVERY if form.beside_dense}


def test_places_are_known():
    used = {place for _, form in EVERY for place in re.findall(r"{(\w+)}", form.pattern)}
    switches = {place for _, form in EVERY if form.switch for place in form.switch[:1]}
    assert used | switches == set(PLACES)
    assert not used & switches
    assert set(EXAMPLES) <= {place for place, values in PLACES.items() if values is None}


@pytest.mark.parametrize(
    ("instrument", "wanted", "patterns"),
    [
        ("accuracy", "accuracy/*", ["accuracy/{task}"]),
        ("accuracy", "accuracy/my file", ["accuracy/{task}"]),
        ("accuracy", "accuracy/*/sum", ["accuracy/{task}/sum"]),
        ("accuracy", "*/*", ["accuracy/{task}", "lm-eval:{harness}/{score}"]),
        ("accuracy", "lm-eval:hellaswag/acc_norm", ["lm-eval:{harness}/{score}"]),
        ("accuracy", "acc/facts", []),
        ("accuracy", "accuracy", []),
        ("lie-detection", "grouped/logistic/frozen", ["{protocol}/{probe}/{training}"]),
        ("lie-detection", "*/ttpd/*/neg*", ["{protocol}/{probe}/{training}/{polarity}"]),
        ("lie-detection", "transfer-language-de/ccs/frozen", ["transfer-{kind}/{probe}/{training}"]),
        ("lie-detection", "grouped/logistik/frozen", []),
        ("lie-detection", "grouped/logistic/frozen/", []),
        ("calibration", "ece-1*/facts", ["ece-10/{task}", "ece-15/{task}"]),
        ("faithfulness", "spearman/*/lime", ["spearman/{task}/{attribution}"]),
        ("faithfulness", "spearman/facts/line", []),
        ("efficiency", "*speedup", ["prefill-speedup", "decode-speedup"]),
        ("efficiency", "*" * 40 + "x", []),
        ("truthfulness", "mc*/general", ["mc0/{set}", "mc1/{set}", "mc2/{set}", "mc3/{set}"]),
    ],
)
def test_what_a_name_may_mean(instrument, wanted, patterns):
    assert [form.pattern for form in metrics_meant(instrument, wanted)] == patterns


@pytest.mark.parametrize(
    ("instrument", "wanted", "nearest"),
    [
        ("accuracy", "acuracy/facts", "accuracy/facts"),
        ("accuracy", "accuracy", "accuracy/*"),
        ("lie-detection", "grouped/logistic/forzen", "grouped/logistic/frozen"),
        ("open-qa", "halucination/general", "hallucination/general"),
        ("efficiency", "speedup", "decode-speedup"),
        ("perplexity", "zzz", None),
    ],
)
def test_the_nearest_name(instrument, wanted, nearest):
    assert nearest_metric(instrument, wanted) == nearest


def test_a_star_stays_between_slashes_and_nothing_else_is_special():
    assert matches("accuracy/*", "accuracy/facts")
    assert not matches("accuracy/*", "accuracy/facts/sum")
    assert matches("*/facts", "accuracy/facts")
    assert matches("accuracy/a[b].c", "accuracy/a[b].c")
    assert not matches("accuracy/a[b].c", "accuracy/ab.c")
    assert not matches("accuracy/f.cts", "accuracy/facts")
    assert not matches("ccuracy/facts", "accuracy/facts")


def test_options_say_what_will_be_measured(tmp_path):
    places = places_of(AuditSettings(AuditOptions(protocols=("grouped",), probes=("ccs",))))
    assert metrics_meant("accuracy", "accuracy/facts", places)
    assert not metrics_meant("accuracy", "accuracy/boolq", places)
    assert not metrics_meant("accuracy", "lm-eval:hellaswag/acc", places)
    assert not metrics_meant("lie-detection", "transfer-scenario/ccs/frozen", places)
    assert not metrics_meant("lie-detection", "grouped/logistic/frozen", places)
    assert not metrics_meant("lie-detection", "grouped/logistic/retrained/layer-03", places)
    assert metrics_meant("lie-detection", "grouped/ccs/frozen", places)
    assert metrics_meant("truthfulness", "mc1/misconceptions", places)
    assert not metrics_meant("truthfulness", "mc1/truthfulqa", places)
    assert nearest_metric("accuracy", "accuracy/fcats", places) == "accuracy/facts"


def test_what_options_switch_off_is_not_measured():
    fewer = places_of(AuditSettings(confidence=ConfidenceOptions(("brier",))))
    assert metrics_meant("calibration", "brier/facts", fewer)
    assert not metrics_meant("calibration", "ece-15/facts", fewer)
    assert not metrics_meant("truthful-generation", "judged/*", fewer)
    assert not metrics_meant("faithfulness", "soft-sufficiency/facts/lime", fewer)
    assert metrics_meant("faithfulness", "naopc-sufficiency/facts/lime", fewer)
    explaining = ExplanationOptions(naopc_words=0, soft_draws=1)
    more = places_of(AuditSettings(explaining=explaining, truth=TruthOptions(judge=fair)))
    assert metrics_meant("truthful-generation", "judged/*", more)
    assert metrics_meant("faithfulness", "soft-sufficiency/facts/lime", more)
    assert not metrics_meant("faithfulness", "naopc-sufficiency/facts/lime", more)
    # What is not switched on is not suggested, either.
    assert nearest_metric("calibration", "ece-15/facts", fewer) != "ece-15/facts"
