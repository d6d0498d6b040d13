"""The packaged real model: one quick test always, the main job at length under `make test-slow`."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

import trueprune
from bench import reference
from trueprune.audits.context import AuditOptions, AuditSettings
from trueprune.jobs.audit import audit_models
from trueprune.jobs.demo import demo, each_from_dense
from trueprune.models import LoadedModel
from trueprune.models.demo import demo_folder


@pytest.fixture(scope="module")
def demo_model(tmp_path_factory) -> LoadedModel:
    """The demo model, converted into a cache of this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUEPRUNE_CACHE", str(tmp_path_factory.mktemp("demo-cache")))
        loaded = trueprune.load("demo")
        # The second call reads the cache: the folder is there and is not made again.
        written = demo_folder() / "model.safetensors"
        before = written.stat().st_mtime_ns
        trueprune.load("demo")
        assert written.stat().st_mtime_ns == before
    return loaded


def test_demo_model_knows_a_capital(demo_model):
    tokenizer = demo_model.tokenizer
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        best = int(demo_model.model(ids).logits[0, -1].argmax())
    assert tokenizer.decode(best).strip() == "Paris"
    anatomy = trueprune.read_anatomy(demo_model.model)
    assert len(anatomy.blocks) == 30
    assert sum(anatomy.weights) == 106_168_320


@pytest.mark.slow
def test_masks_equal_the_reference_procedure(demo_model):
    tokens = trueprune.calibration_tokens(demo_model, trueprune.CalibrationOptions(nsamples=4, seqlen=128))
    ours, theirs = (LoadedModel(copy.deepcopy(demo_model.model), demo_model.tokenizer, "copy") for _ in range(2))
    trueprune.prune(ours, method="wanda", tokens=tokens)
    reference.wanda(theirs.model, tokens.ids_NT, [0.5] * 30)
    for mine, other in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.slow
def test_pruning_costs_lie_detection_and_the_audit_sees_it(demo_model):
    tokens = trueprune.calibration_tokens(demo_model, trueprune.CalibrationOptions())
    model = LoadedModel(copy.deepcopy(demo_model.model), demo_model.tokenizer, "dense")
    methods = ("magnitude", "wanda", "sparsegpt")

    def run(method: str):
        return lambda dense: trueprune.prune(dense, method=method, tokens=tokens)

    report = audit_models(
        each_from_dense(model, {method: run(method) for method in methods}, {}),
        None,
        instruments=("perplexity", "lie-detection"),
        settings=AuditSettings(AuditOptions(per_dataset=64, protocols=("grouped",), probes=("logistic",), cache=False)),
    )
    perplexity = {name: report.value(name, "perplexity").value for name in ("dense", *methods)}
    assert perplexity["dense"] < perplexity["sparsegpt"] < perplexity["wanda"] < perplexity["magnitude"]
    assert report.value("dense", "grouped/logistic/retrained").interval[0] > 0.6
    for method in methods:
        for training in ("retrained", "frozen"):
            change = report.change(method, f"grouped/logistic/{training}")
            assert change is not None and change.interval[1] < 0, (method, training)


@pytest.mark.slow
def test_demo_job_writes_its_report(tmp_path, demo_model):
    report = demo(
        tmp_path / "out",
        methods=("magnitude",),
        measuring=AuditOptions(per_dataset=16, protocols=("grouped",), repeats=1, cache=False),
    )
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"audit.json", "items.jsonl", "plan-magnitude.json", "separation.png", "separation.svg"} <= names
    assert [model.name for model in report.models] == ["demo", "magnitude"]
    assert Path(tmp_path / "out" / "audit.json").stat().st_size > 1000
