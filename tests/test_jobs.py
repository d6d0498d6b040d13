"""Jobs: what `prune`, `scan` and `audit` make, and make again."""

from __future__ import annotations

import importlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from samples import write_corpus, write_statements

import trueprune
from trueprune._support.errors import AuditError, OutputError, PlanError
from trueprune.audits import AuditOptions
from trueprune.audits import subject as audited_subject
from trueprune.jobs import audit, prune, scan
from trueprune.models import load, read_anatomy
from trueprune.plans import AllocationOptions, BlockPlan, Plan
from trueprune.texts import CalibrationOptions

METHODS = ["magnitude", "wanda", "sparsegpt", "owl", "swl", "tplo"]
# The tiny models have tiny spreads: with the papers' constants all rows would lose the same count.
SPREAD = AllocationOptions(lam=0.2, scale=0.2)


@pytest.fixture(scope="session")
def statements(tmp_path_factory):
    return str(write_statements(tmp_path_factory.mktemp("statements") / "statements.csv"))


@pytest.fixture
def calibration(statements):
    return CalibrationOptions(nsamples=4, seqlen=32, statements=statements)


@pytest.fixture
def measuring(statements, tmp_path):
    text = write_corpus(tmp_path / "text.txt", 6)
    return AuditOptions(
        text=str(text), window=32, statements=statements, repeats=1, resamples=50, probes=("mass-mean",)
    )


def zeros_by_row(model):
    return [(site, (site.weight_OI == 0).sum(1)) for block in read_anatomy(model).blocks for site in block.sites]


# prune


@pytest.mark.parametrize("method", ["tplo", "sparsegpt"])
def test_pruning_twice_gives_the_same_bytes(tiny_folder, tmp_path, calibration, method):
    for name in ("first", "again"):
        prune(tiny_folder, tmp_path / name, method=method, calibration=calibration, allocation=SPREAD)
    first, again = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "again"))
    assert first == again
    assert first != (tiny_folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_hits_its_target(tiny, calibration, method):
    dense = {name: p.clone() for name, p in tiny.model.named_parameters()}
    result = prune(tiny, method=method, sparsity=0.4, calibration=calibration, allocation=SPREAD)
    total = result.record["measured_sparsity"]
    assert total == pytest.approx(0.4, abs=1 / 32)
    assert sum(block.sparsity for block in result.plan.blocks) / 3 == pytest.approx(0.4, abs=1e-9)
    for plan, measured in zip(result.plan.blocks, result.record["measured_sparsity_blocks"], strict=True):
        assert measured == pytest.approx(plan.sparsity, abs=1 / 32)
    spread = [block.sparsity for block in result.plan.blocks]
    assert (max(spread) - min(spread) > 0.01) == (method in ("owl", "swl", "tplo"))
    untouched = [name for name, p in tiny.model.named_parameters() if torch.equal(p, dense[name])]
    assert "model.embed_tokens.weight" in untouched
    assert "lm_head.weight" in untouched
    assert not any("_proj" in name for name in untouched)
    assert result.output is None


def test_wanda_zeroes_the_floor_of_each_row(tiny, calibration):
    prune(tiny, method="wanda", sparsity=0.3, calibration=calibration)
    for site, zeros in zeros_by_row(tiny.model):
        assert set(zeros.tolist()) == {int(0.3 * site.shape[1])}


def test_structured_patterns_hold_in_every_group(tiny, calibration):
    result = prune(tiny, method="wanda", pattern="2:4", calibration=calibration)
    for site, _ in zeros_by_row(tiny.model):
        groups = (site.weight_OI == 0).reshape(site.shape[0], -1, 4).sum(-1)
        assert (groups == 2).all()
    assert result.record["measured_sparsity"] == 0.5
    assert result.plan.sparsity == 0.5


def test_the_record_tells_how_it_was_made(tiny_folder, tmp_path, calibration):
    out = tmp_path / "out"
    result = prune(
        tiny_folder,
        out,
        method="tplo",
        score="sparsegpt",
        calibration=calibration,
        allocation=SPREAD,
        command="by hand",
    )
    record = json.loads((out / "trueprune.json").read_text())
    assert record == json.loads(json.dumps(result.record))
    assert (record["method"], record["seed"], record["command"]) == ("tplo", 0, "by hand")
    assert record["source"] == str(tiny_folder)
    assert len(record["source_sha256"]) == 64
    assert record["plan"]["score"] == "sparsegpt"
    assert len(record["plan"]["blocks"]) == len(record["measured_sparsity_blocks"]) == 3
    assert record["plan"]["options"]["lam"] == 0.2
    assert {"pivot", "outliers", "separation_share"} <= set(record["plan"]["evidence"])
    assert len(record["calibration"]["sha256"]) == 64
    assert (record["calibration"]["nsamples"], record["calibration"]["seqlen"]) == (4, 32)
    assert record["calibration"]["selection"] == "leak-free"
    assert {"python", "torch", "transformers", "trueprune"} <= set(record["versions"])
    assert record["wall_seconds"]["total"] >= record["wall_seconds"]["edit"] > 0
    assert record["peak_memory_bytes"] > 1 << 20
    assert (out / "README.md").is_file()
    again = load(out)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(again.model(ids).logits, result.loaded.model(ids).logits)


@pytest.mark.parametrize(("method", "score"), [("tplo", None), ("owl", "magnitude"), ("magnitude", None)])
def test_a_run_is_made_again_from_its_record(tiny_folder, tmp_path, calibration, method, score):
    first, again = tmp_path / "first", tmp_path / "again"
    prune(tiny_folder, first, method=method, score=score, sparsity=0.6, calibration=calibration, allocation=SPREAD)
    result = prune(tiny_folder, again, plan=first / "trueprune.json", calibration=calibration)
    assert (first / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()
    assert result.record["plan"]["method"] == ("uniform" if method == "magnitude" else method)
    assert result.record["method"] == method


def test_a_plan_by_hand_is_carried_out(tiny, calibration):
    blocks = (BlockPlan(0.25), BlockPlan(0.5, {"mlp.down_proj": 0.0}), BlockPlan(0.0))
    result = prune(tiny, method="wanda", plan=Plan("file", 0.25, blocks), calibration=calibration)
    expected = {0: 0.25, 1: 0.5, 2: 0.0}
    for block in read_anatomy(tiny.model).blocks:
        for site in block.sites:
            share = 0.0 if (block.index, site.name) == (1, "mlp.down_proj") else expected[block.index]
            assert (site.weight_OI == 0).sum().item() == share * site.numel
    assert (result.record["method"], result.record["plan"]["score"]) == ("file", "wanda")


def test_the_score_that_was_asked_for_is_used_with_a_plan(tiny, calibration):
    plan = Plan("file", 0.5, (BlockPlan(0.5),) * 3, score="wanda")
    with pytest.raises(PlanError, match=r"--score magnitude contradicts the plan, whose score is wanda"):
        prune(tiny, score="magnitude", plan=plan, calibration=calibration)
    result = prune(tiny, method="magnitude", plan=plan, calibration=calibration)
    assert result.record["plan"]["score"] == "wanda"
    assert "sha256" in result.record["calibration"]


def test_plans_of_other_models_are_refused(tiny, calibration):
    before = {name: p.clone() for name, p in tiny.model.named_parameters()}
    with pytest.raises(PlanError, match="the plan has 2 blocks, the model 3"):
        prune(tiny, plan=Plan("file", 0.5, (BlockPlan(0.5),) * 2), calibration=calibration)
    with pytest.raises(PlanError, match=r"layers.0.mlp.up, which the model has not"):
        prune(tiny, plan=Plan("file", 0.5, (BlockPlan(0.5, {"mlp.up": 0.1}),) * 3), calibration=calibration)
    assert all(torch.equal(p, before[name]) for name, p in tiny.model.named_parameters())


def test_magnitude_reads_no_texts(tiny):
    result = prune(tiny, method="magnitude", calibration=CalibrationOptions(sources=("no such source",)))
    assert "sha256" not in result.record["calibration"]
    assert result.record["measured_sparsity"] == 0.5


def test_an_output_is_replaced_only_when_asked(tiny_folder, tmp_path, calibration):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("x")
    with pytest.raises(OutputError, match=r"exists and is not empty.*--overwrite"):
        prune(tiny_folder, out, method="magnitude")
    assert (out / "mine").read_text() == "x"
    prune(tiny_folder, out, method="magnitude", overwrite=True)
    assert not (out / "mine").exists()
    assert (out / "model.safetensors").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# scan


def test_a_scan_has_an_entry_for_each_block(tiny_folder, tmp_path, calibration):
    report = scan(tiny_folder, tmp_path / "scan", sparsity=0.6, calibration=calibration, allocation=SPREAD)
    saved = json.loads((tmp_path / "scan" / "scan.json").read_text())
    assert saved == json.loads(json.dumps(report))
    assert [block["index"] for block in saved["blocks"]] == [0, 1, 2]
    datasets = {f"{topic}/{polarity}" for topic in ("towns", "words") for polarity in ("affirmative", "negated")}
    for block in saved["blocks"]:
        assert block["path"] == f"model.layers.{block['index']}"
        assert block["weights"] == sum(o * i for o, i in block["matrices"].values())
        assert 0 <= block["outlier_percentage"] <= 100
        assert set(block["separation"]) == datasets
        assert block["separation_mean"] == pytest.approx(sum(block["separation"].values()) / 4)
        assert set(block["density"]) == {"uniform", "owl", "swl", "tplo", "eavss"}
        assert block["density"]["uniform"] == pytest.approx(0.4)
    assert sum(block["separation_share"] for block in saved["blocks"]) == pytest.approx(1)
    for method in ("owl", "swl", "tplo", "eavss"):
        assert sum(block["density"][method] for block in saved["blocks"]) / 3 == pytest.approx(0.4)
    assert 0 <= saved["pivot"] < 3
    assert len(saved["calibration"]["sha256"]) == 64
    pytest.importorskip("matplotlib")
    for name in ("separation", "outliers", "density"):
        assert (tmp_path / "scan" / f"{name}.png").stat().st_size > 1000
        assert (tmp_path / "scan" / f"{name}.svg").stat().st_size > 1000


def test_a_scan_tells_the_plan_that_pruning_carries_out(tiny_folder, tiny, calibration):
    report = scan(tiny_folder, calibration=calibration, allocation=SPREAD)
    for method in ("owl", "tplo"):
        plan = prune(load(tiny_folder), method=method, calibration=calibration, allocation=SPREAD).plan
        assert [block["density"][method] for block in report["blocks"]] == plan.keep


# audit


def test_a_model_audited_against_itself_does_not_change(tiny_folder, tmp_path, measuring):
    report = audit(tiny_folder, [tiny_folder], tmp_path / "audit", measuring=measuring)
    changes = [row.change for row in report.rows if row.model == "tiny-llama (2)"]
    assert len(changes) == len(report.rows) / 2 > 5
    assert all((change.value, change.interval) == (0.0, (0.0, 0.0)) for change in changes)


def test_an_audit_is_written_with_its_items(tiny_folder, tmp_path, calibration, measuring):
    prune(tiny_folder, tmp_path / "half", method="swl", calibration=calibration, allocation=SPREAD)
    report = audit(tiny_folder, [tmp_path / "half"], tmp_path / "audit", measuring=measuring)
    data = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert data["dense"] == "tiny-llama"
    assert [m["name"] for m in data["models"]] == ["tiny-llama", "half"]
    half = data["models"][1]
    assert half["method"] == "swl"
    assert half["measured_sparsity"] == pytest.approx(0.5, abs=1 / 32)
    assert data["models"][0]["measured_sparsity"] == 0
    assert len(half["curves"]["separation"]) == 3
    rows = {(row["model"], row["metric"]): row for row in data["measurements"]}
    assert {row["instrument"] for row in data["measurements"]} == {"perplexity", "lie-detection", "separation"}
    for metric in ("perplexity", "grouped/mass-mean/retrained", "grouped/mass-mean/frozen", "ratio-at-dense-peak"):
        dense, pruned = rows["tiny-llama", metric], rows["half", metric]
        assert dense["change"] is None
        assert pruned["change"]["value"] == pytest.approx(pruned["value"] - dense["value"])
        assert pruned["n"] == dense["n"] > 5
        assert {"value", "interval", "higher_is_better", "headline", "details"} <= set(pruned)
    assert rows["half", "perplexity"]["change"]["value"] != 0
    assert data["settings"]["window"] == 32
    assert data["settings"]["instruments"] == ["perplexity", "lie-detection", "separation"]
    assert "torch" in data["settings"]["versions"]
    items = [json.loads(line) for line in (tmp_path / "audit" / "items.jsonl").read_text().splitlines()]
    assert len(items) == len(data["measurements"])
    for item, row in zip(items, data["measurements"], strict=True):
        assert (item["model"], item["metric"]) == (row["model"], row["metric"])
        assert len(item["items"]) == len(item["values"]) == row["n"]
    for before, after in zip(items[: len(items) // 2], items[len(items) // 2 :], strict=True):
        assert before["items"] == after["items"]
    assert report.change("half", "perplexity").n == rows["half", "perplexity"]["n"]


def test_an_audit_leaves_out_the_statements_that_chose(tiny_folder, measuring, statements):
    from trueprune.audits.lie_detection import statement_ids
    from trueprune.texts import load_statements, select

    report = audit(tiny_folder, instruments=("lie-detection", "separation"), measuring=measuring)
    audited = {item for m in report.models[0].measurements for item in m.item_ids}
    everything = load_statements(statements)
    assert not audited & set(statement_ids(select(everything, "choose")))
    assert audited <= set(statement_ids(select(everything, "audit")))


def test_activations_are_computed_once(tiny_folder, measuring, tmp_path, monkeypatch):
    monkeypatch.setenv("TRUEPRUNE_CACHE", str(tmp_path / "cache"))
    calls = []
    compute = audited_subject.last_token_activations

    def counted(*args, **options):
        calls.append(1)
        return compute(*args, **options)

    monkeypatch.setattr(audited_subject, "last_token_activations", counted)
    first = audit(tiny_folder, instruments=("separation", "lie-detection"), measuring=measuring)
    assert len(calls) == 1
    again = audit(tiny_folder, instruments=("separation", "lie-detection"), measuring=measuring)
    assert len(calls) == 1
    assert [row.estimate for row in again.rows] == [row.estimate for row in first.rows]
    (cached,) = (tmp_path / "cache" / "activations").iterdir()
    cached.write_bytes(cached.read_bytes()[:100])
    audit(tiny_folder, instruments=("separation",), measuring=measuring)
    assert len(calls) == 2
    assert load_file(cached)["activations"].shape[1:] == (3, 32)


def test_other_weights_are_not_found_in_the_cache(tiny_folder, tmp_path, measuring):
    other = tmp_path / "tiny-llama"
    shutil.copytree(tiny_folder, other)
    prune(tiny_folder, other, method="magnitude", sparsity=0.9, overwrite=True)
    report = audit(tiny_folder, [other], instruments=("separation",), measuring=measuring)
    assert report.change("tiny-llama (2)", "ratio-at-dense-peak").value != 0


def test_unknown_instruments_are_refused(tiny_folder):
    with pytest.raises(
        AuditError, match=r"unknown instrument 'speed'. Use one of perplexity, lie-detection, separation"
    ):
        audit(tiny_folder, instruments=("speed",))


# The package


def test_the_public_names_are_there():
    assert len(trueprune.__all__) == len(set(trueprune.__all__))
    for name in trueprune.__all__:
        assert getattr(trueprune, name) is not None
    assert set(dir(trueprune)) == set(trueprune.__all__)
    with pytest.raises(AttributeError, match="no attribute 'prun'"):
        _ = trueprune.prun


def test_a_pruned_model_that_is_missing_is_named_before_anything_is_measured(tiny_folder, monkeypatch):
    module = importlib.import_module("trueprune.jobs.audit")
    monkeypatch.setattr(module, "as_loaded", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(trueprune.ModelError, match="no folder or file prunde/"):
        audit(tiny_folder, ["prunde/"])


def test_a_pivot_that_is_no_block_is_refused_before_anything_is_observed(tiny_folder, monkeypatch):
    module = importlib.import_module("trueprune.jobs.prune")
    monkeypatch.setattr(module, "gather_evidence", lambda *_args, **_kwargs: pytest.fail("something was observed"))
    with pytest.raises(trueprune.PlanError, match="the pivot 7 is no block of 3"):
        prune(tiny_folder, method="tplo", allocation=trueprune.AllocationOptions(pivot=7))
