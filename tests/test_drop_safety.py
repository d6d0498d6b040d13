"""Layers taken away: what must not go wrong silently, from files of other names to leaks of earlier steps."""

from __future__ import annotations

import json
from dataclasses import replace

import peft
import pytest
import torch
import transformers as tf
from plain import token_rows
from zoo import tiny_model

from trueprune import (
    AuditError,
    AuditOptions,
    PlanError,
    audit,
    last_token_activations,
    load,
    load_statements,
    prune,
    save,
)
from trueprune.audits.subject import Subject
from trueprune.cli.main import run
from trueprune.jobs import DropOptions, drop
from trueprune.models import read_anatomy
from trueprune.observe import NearZero
from trueprune.observe.activations import encode
from trueprune.observe.wiring import read_wirings
from trueprune.plans import AvssOptions, BlockPlan, Drop, Plan
from trueprune.texts import CalibrationOptions
from trueprune.texts.tokens import TokenBatch


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "gpt_neox"])
@pytest.mark.parametrize("gone", [{"attention": [0]}, {"mlp": [1]}, {"blocks": [1]}], ids=str)
def test_a_model_whose_files_have_other_names_than_its_tensors_can_be_dropped_and_saved(name, gone, tmp_path):
    # transformers renames and stacks what it reads, and undoes that when it writes: for types of model that it knows.
    tiny_model(name).save_pretrained(tmp_path / "whole")
    file = tmp_path / "drop.json"
    file.write_text(json.dumps({"drop": gone}))
    result = drop(tmp_path / "whole", tmp_path / "out", choice=DropOptions(by=str(file)))
    ids_BT = token_rows(2)
    with torch.no_grad():
        expected = result.loaded.model(ids_BT).logits
        for again in (
            load(tmp_path / "out").model,
            tf.AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=True).eval(),
        ):
            torch.testing.assert_close(again(ids_BT).logits, expected)


def test_a_plan_whose_order_leaves_out_a_step_is_refused(tiny, tmp_path):
    plan = Plan("uniform", 0.5, (BlockPlan(0.5),) * 3, drop=Drop(3, attention=(1,)), order=("prune",))
    with pytest.raises(PlanError, match="the plan's order is prune, and it says what to drop and prune"):
        prune(tiny, method="magnitude", plan=plan)
    assert not any((p == 0).any() for p in tiny.model.parameters() if p.dim() > 1 and p.shape[0] != 320)


def test_the_model_card_names_each_thing_once(tiny, tmp_path):
    first = drop(tiny, choice=DropOptions(what="attention", by="first", count=1))
    second = drop(first.loaded, tmp_path / "out", choice=DropOptions(what="block", by="first", count=1))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "blocks 0." in card
    assert "attention of blocks" not in card
    assert second.plan.drop is not None
    assert second.plan.drop.what == "attention, block"
    assert second.plan.drop.by == "first"
    # Nothing stands in for anything any more: an ordinary checkpoint.
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "llama"


def test_options_that_nothing_would_look_at_are_refused(tiny, tmp_path):
    with pytest.raises(PlanError, match="--by cosine takes no AVSS"):
        drop(tiny, choice=DropOptions(count=1), scoring=AvssOptions(site="hidden"))
    with pytest.raises(PlanError, match="--by random takes no AVSS"):
        drop(tiny, choice=DropOptions(count=1, by="random"), zero=NearZero(near_zero=1.0))
    file = tmp_path / "list.json"
    file.write_text('{"attention": [1]}')
    with pytest.raises(PlanError, match="lists attention, and --what is mlp"):
        drop(tiny, choice=DropOptions(what="mlp", by=str(file)))


def test_a_file_of_a_rankings_name_does_not_hide_it(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "first").write_text("notes")
    assert drop(tiny, choice=DropOptions(count=1, by="first")).plan.drop.attention == (0,)


@pytest.mark.parametrize("schedule", ["one-shot", "iterative"])
def test_joint_spares_one_of_each_kind(schedule, tiny):
    tokens = TokenBatch(token_rows(4))
    with pytest.raises(PlanError, match=r"5 sublayers are to be dropped, and the model has 6\. Drop at most 4"):
        drop(tiny, choice=DropOptions(what="joint", count=5, schedule=schedule), tokens=tokens)
    result = drop(tiny, choice=DropOptions(what="joint", count=4, schedule=schedule), tokens=tokens)
    assert result.plan.drop is not None
    assert len(result.plan.drop.attention) == len(result.plan.drop.mlp) == 2


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapter_on_a_dropped_model_is_saved_beside_a_checkpoint_that_loads(tiny, tmp_path):
    dropped = drop(tiny, choice=DropOptions(count=1, by="first")).loaded
    adapted = peft.get_peft_model(dropped.model, peft.LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))
    save(replace(dropped, model=adapted), tmp_path / "out")
    again = tf.AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=True).eval()
    with torch.no_grad(), adapted.disable_adapter():
        torch.testing.assert_close(again(token_rows(2)).logits, adapted(token_rows(2)).logits)


def test_scaled_branches_are_told_apart_in_bfloat16_beside_a_massive_activation():
    config = tf.GraniteConfig(
        vocab_size=320,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        residual_multiplier=0.25,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    model = tf.AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(std=0.2)
    model.get_input_embeddings().weight.data[11] = 50.0  # the first token of the probe
    for wiring in read_wirings(read_anatomy(model.bfloat16())):
        assert wiring.residual
        assert wiring.attention.scale == pytest.approx(0.25, rel=0.02)
        assert wiring.mlp.scale == pytest.approx(0.25, rel=0.02)


def test_leaks_of_earlier_steps_are_warned_of(tiny_folder, tmp_path):
    calibration = CalibrationOptions(sources=("statements",), nsamples=2, seqlen=32, selection="paper")
    pruned = prune(tiny_folder, method="wanda", calibration=calibration).loaded
    cut = drop(pruned, tmp_path / "cut", choice=DropOptions(count=1, by="first"))
    assert cut.output is not None
    measuring = AuditOptions(per_dataset=8, protocols=("grouped",), repeats=1, probes=("mass-mean",), cache=False)
    with pytest.warns(UserWarning, match="was pruned with --selection paper"):
        audit(tiny_folder, [cut.output], instruments=("lie-detection",), measuring=measuring)


def test_activations_of_a_shallower_model_stand_at_the_depths_of_the_whole_one(tiny_folder, tmp_path):
    file = tmp_path / "drop.json"
    file.write_text('{"drop": {"blocks": [0, 2]}}')
    cut = drop(tiny_folder, tmp_path / "cut", choice=DropOptions(by=str(file)))
    assert cut.output is not None
    loaded = load(cut.output)
    statements = load_statements().where(lambda row: row.topic == "cities" and row.is_probing)
    acts_NLD = Subject("cut", loaded, use_cache=False).activations(statements)
    encoded = encode(loaded, statements.texts)
    alone_NMD = last_token_activations(read_anatomy(loaded.model), encoded, with_input=True)
    # Block 0 is gone: after it stands what went in; after block 2, which is gone too, what block 1 gave.
    assert acts_NLD.shape[1] == 3
    assert torch.equal(acts_NLD[:, 0], alone_NMD[:, 0])
    assert torch.equal(acts_NLD[:, 1], alone_NMD[:, 1])
    assert torch.equal(acts_NLD[:, 2], alone_NMD[:, 1])
    (cut.output / "trueprune.json").unlink()
    with pytest.raises(AuditError, match="no record says which are gone"):
        audit(tiny_folder, [cut.output], instruments=("separation",), measuring=AuditOptions(cache=False))


def test_tables_say_what_a_second_step_took_and_what_is_gone_in_all(tiny_folder, tmp_path, capsys):
    assert run(["drop", str(tiny_folder), "-o", str(tmp_path / "a"), "--by", "first", "--count", "1"]) == 0
    assert "1 of 3 gone: 0" in capsys.readouterr().out
    again = ["drop", str(tmp_path / "a"), "-o", str(tmp_path / "b"), "--what", "mlp", "--by", "last", "--count", "1"]
    assert run(again) == 0
    printed = capsys.readouterr().out
    for words in ("this step", "MLP of 2", "attention in all", "1 of 3 gone: 0", "MLP in all", "1 of 3 gone: 2"):
        assert words in printed
    pruned = ["prune", str(tmp_path / "b"), "-o", str(tmp_path / "c"), "--method", "magnitude"]
    assert run(pruned) == 0
    assert "1 attention, 1 MLP of 3" in capsys.readouterr().out


def test_a_scan_draws_every_profile(tiny_folder, tmp_path):
    assert run(["scan", str(tiny_folder), "-o", str(tmp_path / "scan"), "--nsamples", "2", "--seqlen", "32"]) == 0
    drawn = {file.stem for file in (tmp_path / "scan").glob("*.svg")}
    assert drawn == {"separation", "outliers", "density", "avss", "influence", "angular", "eavss"}
    assert drawn == {file.stem for file in (tmp_path / "scan").glob("*.png")}
