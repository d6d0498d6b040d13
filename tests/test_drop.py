"""Layers taken away: the numbers of a whole model with those layers silenced, on disk, with a cache, step by step."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers as tf
from plain import stack_path, token_rows
from safetensors.torch import load_file
from sublayers import PARTS, STACKS, VARIANTS, deep_model, lively_model, without
from test_layer_scores import Carousel, post_norm_opt
from zoo import ARCHITECTURES, GQA, SPECIAL, tiny_model

from trueprune import ModelError, PlanError, TruepruneError, load, save
from trueprune.cli.main import run
from trueprune.edits import apply_drop
from trueprune.jobs import DropOptions, drop
from trueprune.models import LoadedModel, read_anatomy
from trueprune.models.trim import trimmed
from trueprune.observe import NearZero, observe_blocks
from trueprune.plans import Drop, Plan
from trueprune.texts import CalibrationOptions
from trueprune.texts.calibration import calibration_tokens
from trueprune.texts.tokens import TokenBatch

# PEFT asks transformers for a name that is going away; not ours to mend.
PEFT_NOTICE = "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
CASES: dict[str, dict[str, tuple[int, ...]]] = {
    "first attention": {"attention": (0,)},
    "middle attention": {"attention": (1,)},
    "last attention": {"attention": (2,)},
    "first MLP": {"mlp": (0,)},
    "attention and MLP": {"attention": (0,), "mlp": (2,)},
    "all of a block": {"attention": (1,), "mlp": (1,)},
    "first block": {"blocks": (0,)},
    "middle block": {"blocks": (1,)},
}
IDS_BT = token_rows(2, 24)


def logits_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS_BT, attention_mask=torch.ones_like(IDS_BT), use_cache=False).logits


def cut(model: Any, **gone: tuple[int, ...]) -> Any:
    """The model, in place, without some layers."""
    anatomy = read_anatomy(model)
    apply_drop(anatomy, Drop(len(anatomy.blocks), **gone))
    return model


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def record_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "trueprune.json").read_text())


@pytest.fixture
def plainly(tmp_path_factory, monkeypatch) -> Callable[..., Any]:
    """Load a folder by plain transformers, without leaving copies of its code anywhere else."""
    modules = str(tmp_path_factory.mktemp("modules"))
    for module in ("transformers.dynamic_module_utils", "transformers.utils.hub"):
        monkeypatch.setattr(f"{module}.HF_MODULES_CACHE", modules)
    monkeypatch.syspath_prepend(modules)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    return lambda folder, trust: tf.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=trust).eval()


# Every architecture, in memory and on disk


def names_gone(name: str, **gone: tuple[int, ...]) -> tuple[str, ...]:
    """Beginnings of the names of all that belongs to dropped sublayers alone."""
    parts, stack = PARTS[name], stack_path(STACKS.get(name, name))
    own = {
        "attention": (parts.attention, *sum(parts.attention_norms, ())),
        "mlp": (parts.mlp, *parts.also_mlp, *sum(parts.mlp_norms, ())),
    }
    return tuple(f"{stack}.{i}.{child}." for kind in gone for i in gone[kind] for child in own[kind])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_is_left_is_the_whole_with_layers_silenced(name, tmp_path, plainly):
    source = lively_model(name)
    whole, tensors, kind = logits_of(source), set(source.state_dict()), source.config.model_type
    for number, gone in enumerate(CASES.values()):
        model = copy.deepcopy(source)
        with without(model, name, **gone):
            expected = logits_of(model)
        assert (whole - expected).abs().max() > 1e-2, "what is dropped matters"
        torch.testing.assert_close(logits_of(cut(model, **gone)), expected, rtol=1e-4, atol=1e-4)
        folder = save(LoadedModel(model, None, name), tmp_path / str(number))
        assert torch.equal(logits_of(load(folder).model), logits_of(model))
        config, ordinary = config_of(folder), "blocks" in gone or gone.get("attention") == gone.get("mlp")
        assert torch.equal(logits_of(plainly(folder, not ordinary)), logits_of(model))
        assert config.get("num_hidden_layers", config.get("n_layer")) == (2 if ordinary else 3)
        if ordinary:
            assert config["model_type"] == kind
            assert not {"auto_map", "trueprune_dropped", "trueprune_base"} & set(config)
            assert len(config.get("layer_types", "ab")) == 2
            assert sorted(file.name for file in folder.glob("*.py")) == []
            continue
        # A head that is tied to the embeddings is not written.
        left = {key for key in tensors if not key.startswith(names_gone(name, **gone))}
        assert set(load_file(folder / "model.safetensors")) | {"lm_head.weight"} == left | {"lm_head.weight"}
        with pytest.raises(ValueError, match="trust_remote_code"):
            plainly(folder, False)


@pytest.mark.parametrize("name", VARIANTS)
def test_other_ways_to_join_sublayers_are_cut_as_well(name):
    for case in ("first attention", "first MLP", "attention and MLP", "all of a block", "first block"):
        gone, model = CASES[case], lively_model(name)
        with without(model, name, **gone):
            expected = logits_of(model)
        torch.testing.assert_close(logits_of(cut(model, **gone)), expected, rtol=1e-4, atol=1e-4)
        if "blocks" not in gone and gone.get("attention") != gone.get("mlp"):
            assert not any(key.startswith(names_gone(name, **gone)) for key in model.state_dict())


# Generation: with a cache as without


def generated(model: Any, lengths: tuple[int, ...], *, use_cache: bool = True, beams: int = 1) -> torch.Tensor:
    """20 more tokens for prompts of these lengths, padded on the left in one batch."""
    longest = max(lengths)
    ids_BT, mask_BT = token_rows(len(lengths), longest, seed=5), torch.ones(len(lengths), longest, dtype=torch.long)
    for row, length in enumerate(lengths):
        mask_BT[row, : longest - length] = 0
    with torch.no_grad():
        return model.generate(
            torch.where(mask_BT == 1, ids_BT, SPECIAL["pad_token_id"]),
            attention_mask=mask_BT,
            max_new_tokens=20,
            min_new_tokens=20,
            do_sample=False,
            num_beams=beams,
            use_cache=use_cache,
        )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_generating_with_a_cache_is_generating_without(name):
    lengths = (5, 21, 13)
    source = lively_model(name)
    for gone in ({"attention": (0,)}, {"attention": (0, 1), "mlp": (2,)}, {"blocks": (0,)}):
        model = copy.deepcopy(source)
        if "blocks" not in gone:
            with without(model, name, **gone):
                expected = generated(model, lengths, use_cache=False)
        cut(model, **gone)
        plain = generated(model, lengths, use_cache=False)
        assert torch.equal(generated(model, lengths), plain)
        assert "blocks" in gone or torch.equal(plain, expected)
        if gone == {"attention": (0,)}:
            assert torch.equal(generated(model, lengths, beams=2), generated(model, lengths, beams=2, use_cache=False))


def cache_bytes(model: Any) -> int:
    with torch.no_grad():
        cache = model(IDS_BT[:, :12], use_cache=True).past_key_values
    tensors = [t for layer in cache.layers if layer.is_initialized for t in (layer.keys, layer.values)]
    return sum(t.numel() * t.element_size() for t in tensors)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_cache_shrinks_by_what_is_gone(name):
    model = tiny_model(name)
    whole = cache_bytes(model)
    assert whole > 0
    for gone, left in (({"attention": (0,)}, 2), ({"attention": (1, 2), "mlp": (0,)}, 1), ({"blocks": (1,)}, 2)):
        assert cache_bytes(cut(copy.deepcopy(model), **gone)) * 3 == whole * left


MIXED = ["sliding_attention", "sliding_attention", "full_attention"] * 2


@pytest.mark.parametrize(
    ("gone", "types"),
    [
        ({"attention": (0, 1)}, None),
        ({"attention": (2, 5)}, None),
        ({"attention": (0, 3), "blocks": (2,)}, None),
        ({"blocks": (0, 1)}, ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]),
        ({"blocks": (0, 1, 3, 4)}, ["full_attention", "full_attention"]),
    ],
)
def test_kinds_of_attention_keep_their_masks_and_caches(gone, types, tmp_path):
    def fresh():
        return deep_model("gemma3", layer_types=MIXED)

    model, lengths = fresh(), (40, 9)
    with without(model, "gemma3", **gone):
        expected = logits_of(model)
    torch.testing.assert_close(logits_of(cut(model, **gone)), expected, rtol=1e-4, atol=1e-4)
    folder = save(LoadedModel(model, None, "x"), tmp_path / "out")
    assert types is None or config_of(folder)["layer_types"] == types
    plain = generated(model, lengths, use_cache=False)
    for again in (model, load(folder).model):
        assert torch.equal(generated(again, lengths), plain)
    silent = {kind: blocks for kind, blocks in gone.items() if kind != "blocks"}
    with without(source := fresh(), "gemma3", **silent):
        if silent == gone:
            assert torch.equal(generated(source, lengths, use_cache=False), plain)


# The configuration


def test_only_entries_that_speak_of_blocks_are_trimmed():
    config = {
        "num_hidden_layers": 4,
        "layer_types": ["a", "b", "c", "d"],
        "no_rope_layers": [1, 1, 0, 1],
        "mlp_only_layers": [0, 3],
        "eos_token_id": [2, 7, 9, 11],
        "architectures": ["A", "B", "C", "D"],
        "rope_parameters": {"factor": 2.0},
        "full_attention_layers": [],
        "hidden_act": "silu",
    }
    assert trimmed(config, 4, [1, 3]) == {"layer_types": ["b", "d"], "no_rope_layers": [1, 1], "mlp_only_layers": [1]}
    assert trimmed({"sizes": (1, 2, 3, 4)}, 4, [0, 2]) == {"sizes": [1, 3]}


def test_blocks_without_experts_are_renumbered(tmp_path):
    config = tf.Qwen3MoeConfig(
        **{**GQA, "num_hidden_layers": 4}, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24,
        mlp_only_layers=[1, 3],
    )  # fmt: skip
    torch.manual_seed(0)
    model = tf.AutoModelForCausalLM.from_config(config).eval()
    with without(model, "qwen3_moe", blocks=(0,)):
        expected = logits_of(model)
    folder = save(LoadedModel(cut(model, blocks=(0,)), None, "x"), tmp_path / "out")
    assert config_of(folder)["mlp_only_layers"] == [0, 2]
    torch.testing.assert_close(logits_of(load(folder).model), expected, rtol=1e-4, atol=1e-4)


def test_nobody_is_warned_of_a_model_type(tiny, tmp_path, plainly, caplog, capfd):
    cut(tiny.model, attention=(0,))
    folder = save(tiny, tmp_path / "out")
    again = load(folder)
    assert again.tokenizer("Iron has the symbol Fe.") == tiny.tokenizer("Iron has the symbol Fe.")
    assert "model of type" not in capfd.readouterr().err + caplog.text


# The job


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory) -> Path:
    """A model of six blocks. Read only."""
    path = tmp_path_factory.mktemp("deep") / "llama"
    deep_model().save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


CALIBRATION = CalibrationOptions(nsamples=4, seqlen=32)
SHORT = ["--nsamples", "4", "--seqlen", "32"]


def profile_of(model: Any, tokens: TokenBatch, gap: int | None = None):
    return observe_blocks(read_anatomy(model), tokens, zero=NearZero(), gap=gap)[1]


@pytest.fixture(scope="module")
def tokens(folder) -> TokenBatch:
    return calibration_tokens(load(folder), CALIBRATION)


@pytest.fixture(scope="module")
def importance(folder, tokens) -> dict[str, dict[str, np.ndarray]]:
    """By ranking and kind, from the definitions and a profile of the whole model."""
    profile = profile_of(load(folder).model, tokens)
    kinds = {"block": "output", "attention": "attention", "mlp": "mlp"}

    def score(kind):
        near, entries = profile.zeros[kinds[kind]]["official"].T
        return profile.variance[kinds[kind]]["official"] * (entries + 2) / (near + 1)

    turned = {kind: 1 - profile.cosine[kind] for kind in kinds}
    return {
        "avss": {kind: score(kind) for kind in kinds},
        "cosine": turned,
        "block-influence": turned,
        "angular": {kind: profile.angle[kind] for kind in kinds},
        "first": dict.fromkeys(kinds, np.arange(6.0)),
        "last": dict.fromkeys(kinds, -np.arange(6.0)),
    }


def gone_from(result: Any) -> dict[str, tuple[int, ...]]:
    found = result.plan.drop
    return {kind: getattr(found, kind) for kind in ("blocks", "attention", "mlp") if getattr(found, kind)}


def choose(folder: Path, *, seed: int = 0, **options: Any) -> Any:
    return drop(folder, choice=DropOptions(**options), calibration=replace(CALIBRATION, seed=seed))


@pytest.mark.parametrize("by", ["avss", "cosine", "block-influence", "angular", "first", "last"])
@pytest.mark.parametrize("what", ["block", "attention", "mlp"])
def test_the_least_important_go(folder, importance, what, by):
    expected = tuple(sorted(int(i) for i in np.argsort(importance[by][what], kind="stable")[:2]))
    result = choose(folder, what=what, by=by, fraction=1 / 3)
    assert gone_from(result) == {"blocks" if what == "block" else what: expected}
    found = result.plan.drop
    assert (found.n_blocks, found.what, found.by, found.schedule, found.rule) == (6, what, by, "one-shot", "rank")
    assert found.rounds[0]["importance"] == pytest.approx(importance[by][what], rel=1e-4)
    with without(model := load(folder).model, "llama", **gone_from(result)):
        torch.testing.assert_close(logits_of(result.loaded.model), logits_of(model), rtol=1e-4, atol=1e-4)


def test_attention_and_mlps_are_compared_with_each_other(folder, importance):
    both = np.concatenate([importance["cosine"]["attention"], importance["cosine"]["mlp"]])
    result = choose(folder, what="joint", count=4)
    gone = np.argsort(both, kind="stable")[:4]
    assert set(result.plan.drop.attention) == {int(i) for i in gone if i < 6}
    assert set(result.plan.drop.mlp) == {int(i) - 6 for i in gone if i >= 6}


def test_how_many_go(folder):
    assert len(choose(folder).plan.drop.attention) == 1, "a quarter of six, rounded down"
    assert len(choose(folder, count=5).plan.drop.attention) == 5
    assert choose(folder, by="last", what="block", fraction=0.5).plan.drop.blocks == (3, 4, 5)


def test_a_share_of_the_mass(folder, importance):
    share_L = importance["avss"]["mlp"] / importance["avss"]["mlp"].sum()
    order, total, expected = np.argsort(share_L), 0.0, set()
    for index in order:
        total += share_L[index]
        expected |= {int(index)} if total <= 0.4 else set()
    assert 0 < len(expected) < 6
    assert set(choose(folder, what="mlp", by="avss", rule="mass", fraction=0.4).plan.drop.mlp) == expected


def test_a_small_share_of_the_mass_may_be_many_layers(folder, tmp_path):
    file = tmp_path / "scores.json"
    file.write_text(json.dumps({"scores": [1, 1, 95, 1, 1, 1]}))
    result = choose(folder, what="block", by=str(file), rule="mass", fraction=0.1)
    assert result.plan.drop.blocks == (0, 1, 3, 4, 5)


def test_random_follows_the_seed(folder):
    drops = [choose(folder, by="random", count=3, seed=seed).plan.drop.attention for seed in (0, 0, 1, 2, 3)]
    assert drops[0] == drops[1]
    assert len(set(drops)) > 1


@pytest.mark.parametrize("by", ["angular", "cosine", "avss", "first", "last"])
def test_consecutive_blocks(folder, tokens, importance, by):
    profile = profile_of(load(folder).model, tokens, gap=3)
    share_L = importance["avss"]["block"] / importance["avss"]["block"].sum()
    windows = {
        "angular": profile.angle_gap[:4, 2],
        "cosine": 1 - profile.gap_cosine[3],
        "avss": [share_L[i : i + 3].sum() for i in range(4)],
        "first": [0, 1, 2, 3],
        "last": [3, 2, 1, 0],
    }[by]
    start = int(np.argmin(windows))
    result = choose(folder, what="block", by=by, count=3, consecutive=True)
    assert result.plan.drop.blocks == (start, start + 1, start + 2)
    assert result.plan.drop.consecutive


@pytest.mark.parametrize("what", ["block", "attention", "mlp", "joint"])
def test_iterative_is_one_at_a_time_by_hand(folder, tokens, what):
    model, names = load(folder).model, list(range(6))
    kinds = ["attention", "mlp"] if what == "joint" else [what]
    gone: set[tuple[str, int]] = set()
    for _ in range(3):
        cosine = profile_of(model, tokens).cosine
        scores = {(kind, i): value for kind in kinds for i, value in enumerate(1 - cosine[kind]) if not np.isnan(value)}
        kind, index = min(scores, key=scores.__getitem__)
        gone.add((kind, names[index]))
        before = len(names)
        cut(model, **{"blocks" if kind == "block" else kind: (index,)})
        if len(read_anatomy(model).blocks) < before:
            del names[index]
    result = choose(folder, what=what, count=3, schedule="iterative")
    found = result.plan.drop
    assert {(k, i) for k in kinds for i in getattr(found, "blocks" if k == "block" else k)} == gone
    assert len(found.rounds) == 3
    assert found.n_blocks == 6
    torch.testing.assert_close(logits_of(result.loaded.model), logits_of(model))


@pytest.mark.parametrize("schedule", ["one-shot", "iterative"])
def test_a_block_that_loses_both_vanishes(folder, tmp_path, schedule):
    loaded = load(folder)
    for layer in (2, 4):
        block = loaded.model.model.layers[layer]
        block.self_attn.o_proj.weight.data *= 1e-3
        block.mlp.down_proj.weight.data *= 1e-3
    with without(loaded.model, "llama", blocks=(2, 4)):
        expected = logits_of(loaded.model)
    choice = DropOptions(what="joint", count=4, schedule=schedule)
    result = drop(loaded, tmp_path / "out", choice=choice, calibration=CALIBRATION)
    assert result.plan.drop.gone_blocks == (2, 4)
    torch.testing.assert_close(logits_of(result.loaded.model), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(logits_of(load(tmp_path / "out").model), logits_of(result.loaded.model))


FILES = {
    "a plan": ({"drop": {"attention": [3, 1]}}, {}),
    "a plan for this number of blocks": ({"drop": {"n_blocks": 6, "attention": [1, 3]}}, {}),
    "lists": ({"attention": [1, 3], "mlp": []}, {}),
    "scores": ({"scores": [5, 1, 4, 0, 3, 9]}, {"count": 2}),
    "scores by kind": ({"scores": {"attention": [5, 1, 4, 0, 3, 9], "mlp": [0] * 6}}, {"fraction": 0.34}),
    "a record": ({"plan": {"method": "drop", "blocks": [], "drop": {"attention": [1, 3]}}}, {}),
}


@pytest.mark.parametrize("content", FILES)
def test_a_file_says_what_goes(folder, tmp_path, content):
    data, options = FILES[content]
    file = tmp_path / "layers.json"
    file.write_text(json.dumps(data))
    assert gone_from(choose(folder, by=str(file), **options)) == {"attention": (1, 3)}


def test_a_record_is_carried_out_again(folder, tmp_path):
    first = drop(folder, tmp_path / "first", choice=DropOptions(count=2), calibration=CALIBRATION)
    again = drop(folder, tmp_path / "again", choice=DropOptions(by=str(tmp_path / "first" / "trueprune.json")))
    assert gone_from(again) == gone_from(first)
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    record = record_of(tmp_path / "first")
    assert record["source_sha256"] == record["plan"]["source_sha256"]
    assert record["method"] == "drop-attention"
    assert record["parameters"]["before"] - record["parameters"]["after"] == 2 * (32 + 2 * 32 * 32 + 2 * 16 * 32)
    assert record["calibration"]["nsamples"] == 4
    assert record["history"] == []


def carry_out(source: Path, out: Path, listed: dict[str, Any]) -> Path:
    file = out.with_suffix(".json")
    file.write_text(json.dumps(listed))
    assert run(["drop", str(source), "-o", str(out), "--by", str(file)]) == 0
    return out


def test_drop_after_drop_counts_in_the_whole_model(folder, tmp_path):
    one = carry_out(folder, tmp_path / "one", {"attention": [1], "mlp": [5]})
    two = carry_out(one, tmp_path / "two", {"blocks": [0]})
    three = carry_out(two, tmp_path / "three", {"attention": [1], "mlp": [0]})
    gone = record_of(three)["plan"]["drop"]
    # What was block 1 and had lost its attention loses its MLP as well.
    assert (gone["n_blocks"], gone["attention"], gone["mlp"]) == (6, [1, 2], [1, 5])
    assert sorted({*gone["blocks"], 1}) == [0, 1]
    assert record_of(three)["plan"]["order"] == ["drop"]
    assert [step["source"] for step in record_of(three)["history"]] == [str(folder), str(one)]
    with without(model := load(folder).model, "llama", blocks=(0,), attention=(1, 2), mlp=(1, 5)):
        expected = logits_of(model)
    left = load(three).model
    torch.testing.assert_close(logits_of(left), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(generated(left, (5, 21)), generated(left, (5, 21), use_cache=False))
    assert run(["drop", str(folder), "-o", str(tmp_path / "at once"), "--by", str(three / "trueprune.json")]) == 0
    assert (tmp_path / "at once" / "model.safetensors").read_bytes() == (three / "model.safetensors").read_bytes()


def test_the_last_stand_in_may_leave_with_its_block(folder, tmp_path):
    one = carry_out(folder, tmp_path / "one", {"attention": [0]})
    two = carry_out(one, tmp_path / "two", {"blocks": [0]})
    with without(model := load(folder).model, "llama", blocks=(0,)):
        expected = logits_of(model)
    torch.testing.assert_close(logits_of(load(two).model), expected, rtol=1e-4, atol=1e-4)


PRUNE = ["--method", "wanda", "--sparsity", "0.5", *SHORT]


def test_prune_after_drop(folder, tmp_path):
    one = carry_out(folder, tmp_path / "one", {"attention": [1], "blocks": [4]})
    two, again = tmp_path / "two", tmp_path / "again"
    assert run(["prune", str(one), "-o", str(two), *PRUNE]) == 0
    record = record_of(two)
    assert record["plan"]["order"] == ["drop", "prune"]
    assert (record["plan"]["drop"]["attention"], record["plan"]["drop"]["blocks"]) == ([1], [4])
    assert len(record["plan"]["blocks"]) == 5
    assert record["measured_sparsity"] == 0.5
    assert [step["method"] for step in record["history"]] == ["drop-file"]
    assert record["plan"]["source_sha256"] == record_of(one)["source_sha256"]
    assert run(["prune", str(folder), "-o", str(again), "--plan", str(two / "trueprune.json"), *SHORT]) == 0
    assert (again / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    assert (again / "config.json").read_bytes() == (two / "config.json").read_bytes()


def test_drop_after_prune(folder, tmp_path):
    one, two, again = tmp_path / "one", tmp_path / "two", tmp_path / "again"
    assert run(["prune", str(folder), "-o", str(one), *PRUNE]) == 0
    assert run(["drop", str(one), "-o", str(two), "--count", "2", *SHORT]) == 0
    record = record_of(two)
    assert record["plan"]["order"] == ["prune", "drop"]
    assert len(record["plan"]["drop"]["attention"]) == 2
    assert len(record["plan"]["blocks"]) == 6
    assert record["measured_sparsity"] == 0.5, "zeros stay zeros"
    assert [step["method"] for step in record["history"]] == ["wanda"]
    before, after = (load_file(path / "model.safetensors") for path in (one, two))
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())
    assert len(after) < len(before)
    assert run(["prune", str(folder), "-o", str(again), "--plan", str(two / "trueprune.json"), *SHORT]) == 0
    assert (again / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()


def test_a_plan_of_many_steps_says_so(folder, tmp_path, capsys):
    one = carry_out(folder, tmp_path / "one", {"mlp": [1]})
    assert run(["prune", str(one), "-o", str(tmp_path / "two"), *PRUNE]) == 0
    three = carry_out(tmp_path / "two", tmp_path / "three", {"attention": [2]})
    record = record_of(three)
    assert record["plan"]["order"] == ["drop", "prune", "drop"]
    assert [step["method"] for step in record["history"]] == ["drop-file", "wanda"]
    capsys.readouterr()
    plan = str(three / "trueprune.json")
    assert run(["prune", str(folder), "-o", str(tmp_path / "out"), "--plan", plan, *SHORT]) == 2
    assert "the plan was made in 3 steps (drop, prune, drop)" in capsys.readouterr().err


def test_the_same_command_gives_the_same_files(folder, tmp_path):
    out = tmp_path / "out"
    command = [
        "drop",
        str(folder),
        "-o",
        str(out),
        "--what",
        "joint",
        "--count",
        "3",
        "--schedule",
        "iterative",
        *SHORT,
    ]
    contents = []
    for _ in range(2):
        assert run(command) == 0
        contents.append({file.name: file.read_bytes() for file in out.iterdir()})
        shutil.rmtree(out)
    first, again = ({k: v for k, v in c.items() if k != "trueprune.json"} for c in contents)
    assert first == again
    records = [json.loads(c["trueprune.json"]) for c in contents]
    for record in records:
        del record["wall_seconds"], record["peak_memory_bytes"]
    assert records[0] == records[1]


# Refusals


@pytest.fixture(scope="module")
def whole(folder):
    """A model that no refusal changes."""
    loaded = load(folder)
    before = logits_of(loaded.model)
    yield loaded
    assert torch.equal(logits_of(loaded.model), before)


def refused(arguments: list[str], out: Path, capsys) -> str:
    """The one line with which the command line refuses; nothing was written."""
    before = sorted(out.parent.iterdir())
    capsys.readouterr()
    assert run([*arguments, "-o", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert sorted(out.parent.iterdir()) == before
    return error


REFUSED_OPTIONS = [
    ({"count": 0}, "none of the 6 attention sublayers would be dropped"),
    ({"count": 6}, "6 attention sublayers are to be dropped, and the model has 6"),
    ({"what": "joint", "count": 40}, "40 sublayers are to be dropped, and the model has 12"),
    ({"what": "block", "count": -1}, "none of the 6 blocks would be dropped"),
    ({"fraction": 0.1}, "none of the 6 attention sublayers would be dropped"),
    ({"fraction": 1.0}, "the fraction 1.0 is outside (0, 1)"),
    ({"fraction": 0.0}, "the fraction 0.0 is outside (0, 1)"),
    ({"count": 1, "fraction": 0.5}, "--count and --fraction were both given"),
    ({"by": "importance"}, "cosine, angular, eavss, random, first, last, or a JSON file"),
    ({"by": "nowhere.json"}, "no file at nowhere.json"),
    ({"rule": "mass", "schedule": "iterative"}, "--rule mass takes a --fraction"),
    ({"rule": "mass", "count": 2}, "--rule mass takes a --fraction"),
    ({"rule": "mass", "by": "random"}, "--rule mass needs scores"),
    ({"rule": "mass", "what": "block", "consecutive": True}, "--rule mass takes a --fraction"),
    ({"rule": "mass", "fraction": 0.001}, "none of the 6 attention sublayers would be dropped"),
    ({"consecutive": True}, "--consecutive drops blocks, at once"),
    ({"consecutive": True, "what": "block", "schedule": "iterative"}, "--consecutive drops blocks, at once"),
    ({"by": "random", "schedule": "iterative"}, "--schedule iterative observes again"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED_OPTIONS)
def test_options_that_make_no_sense_are_refused(folder, whole, tokens, tmp_path, capsys, options, message):
    flags = [f"--{key}" if value is True else f"--{key}={value}" for key, value in options.items()]
    assert message in refused(["drop", str(folder), *flags, *SHORT], tmp_path / "out", capsys)
    with pytest.raises(TruepruneError) as error:
        drop(whole, choice=DropOptions(**options), tokens=tokens)
    assert message in str(error.value)


REFUSED_FILES = [
    ({"attention": [6]}, "attention names 6, and the model has blocks 0 to 5"),
    ({"mlp": [-1]}, "mlp names -1"),
    ({"blocks": [2, 2]}, "blocks names 2 twice"),
    ({"attention": [1.0]}, "the dropped layers cannot be read"),
    ({"attention": ["first"]}, "the dropped layers cannot be read"),
    ({"attention": 3}, "the dropped layers cannot be read"),
    ({"attention": [True]}, "the dropped layers cannot be read"),
    ({"attention": []}, "nothing would be dropped"),
    ({"attention": [0, 1, 2, 3, 4, 5]}, "all attention sublayers that are left would be dropped"),
    ({"mlp": [0, 1, 2, 3, 4, 5]}, "all mlp sublayers that are left would be dropped"),
    ({"blocks": [0, 1, 2], "attention": [3, 4, 5]}, "all attention sublayers that are left would be dropped"),
    ({"blocks": [0, 1, 2, 3, 4, 5]}, "all 6 blocks would be dropped"),
    ({"drop": {"n_blocks": 8, "attention": [1]}}, "the plan is for 8 blocks, the model has 6"),
    ({"drop": {"attention": [1]}, "source_sha256": "0" * 64}, "made for a model with other weights (hash 000000000000"),
    ({"plan": {"drop": {"attention": [1]}, "source_sha256": "ab" * 32}}, "made for a model with other weights"),
    ({"blocks": [0.5] * 6}, "the dropped layers cannot be read"),
    ({"blocks": [{"sparsity": 0.5}]}, "the dropped layers cannot be read"),
    ({"method": "wanda", "blocks": [0.5]}, "does not say what to drop"),
    ({"drop": None}, "does not say what to drop"),
    ({}, "does not say what to drop"),
    ([1, 2], "holds no JSON object"),
    ({"scores": [1, 2, 3]}, "the file has 3 scores, the model 6 blocks"),
    ({"scores": {"mlp": [1, 2, 3, 4, 5, 6]}}, "the file has no scores for attention"),
    ({"scores": ["a"] * 6}, "cannot be read"),
    ({"scores": [1, 2, 3, 4, 5, float("nan")]}, "is not finite"),
]


@pytest.mark.parametrize(("data", "message"), REFUSED_FILES)
def test_files_that_do_not_fit_are_refused(folder, whole, tmp_path, capsys, data, message):
    file = tmp_path / "layers.json"
    file.write_text(json.dumps(data))
    assert message in refused(["drop", str(folder), "--by", str(file)], tmp_path / "out", capsys)
    with pytest.raises(PlanError):
        drop(whole, choice=DropOptions(by=str(file)))


def test_a_file_that_is_no_json_is_refused(folder, tmp_path, capsys):
    (file := tmp_path / "layers.json").write_text("attention: 3")
    assert "is not JSON" in refused(["drop", str(folder), "--by", str(file)], tmp_path / "out", capsys)


def test_a_list_leaves_nothing_to_choose(folder, tmp_path, capsys):
    (file := tmp_path / "layers.json").write_text('{"attention": [1]}')
    for flags in (
        ["--count", "2"],
        ["--fraction", "0.5"],
        ["--consecutive"],
        ["--schedule=iterative"],
        ["--rule=mass"],
    ):
        assert "says what to drop" in refused(
            ["drop", str(folder), "--by", str(file), *flags], tmp_path / "out", capsys
        )


def test_a_sublayer_goes_only_once(folder, tmp_path, capsys):
    one = carry_out(folder, tmp_path / "one", {"attention": [1], "mlp": [0]})
    for listed, message in (({"attention": [1]}, "block 1 has no attention"), ({"mlp": [0]}, "block 0 has no mlp")):
        (file := tmp_path / "more.json").write_text(json.dumps(listed))
        assert message in refused(["drop", str(one), "--by", str(file)], tmp_path / "out", capsys)


def test_a_drop_of_weights_that_changed_is_refused(folder, tiny_folder, tmp_path, capsys):
    one = carry_out(folder, tmp_path / "one", {"attention": [1]})
    plan = str(one / "trueprune.json")
    for source in (tiny_folder, one):
        error = refused(["drop", str(source), "--by", plan], tmp_path / "out", capsys)
        assert "the plan was made for a model with other weights" in error
    assert "prunes no weights" in refused(["prune", str(folder), "--plan", plan], tmp_path / "out", capsys)


def test_an_output_that_exists_is_kept(folder, tmp_path, capsys):
    (out := tmp_path / "out").mkdir()
    (out / "precious").write_text("mine")
    assert "exists and is not empty" in refused(["drop", str(folder), *SHORT], out, capsys)
    assert (out / "precious").read_text() == "mine"
    assert run(["drop", str(folder), "-o", str(out), "--overwrite", *SHORT]) == 0
    assert not (out / "precious").exists()


def test_a_record_of_another_model_is_refused(folder, tmp_path, capsys):
    one = carry_out(folder, tmp_path / "one", {"blocks": [1]})
    two = Path(shutil.copytree(folder, tmp_path / "mixed"))
    shutil.copy(one / "trueprune.json", two)
    for command in ("drop", "prune"):
        error = refused([command, str(two), *SHORT], tmp_path / "out", capsys)
        assert "says that 5 blocks are left, the model has 6" in error


# Models that cannot lose what is asked


def unchanged_and_refused(model: Any, match: str, **options: Any) -> None:
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(TruepruneError, match=match):
        drop(LoadedModel(model, None, "x"), choice=DropOptions(**options), tokens=TokenBatch(token_rows()))
    after = model.state_dict()
    assert tensors.keys() == after.keys()
    assert all(torch.equal(tensors[name], after[name]) for name in tensors)


@pytest.mark.parametrize("what", ["block", "attention", "mlp", "joint"])
def test_models_that_share_keys_and_values_are_refused(what):
    config = tf.Gemma3nTextConfig(
        **{**GQA, "num_hidden_layers": 4}, head_dim=8, vocab_size_per_layer_input=320, hidden_size_per_layer_input=8,
        num_kv_shared_layers=2, laurel_rank=4, altup_num_inputs=2, activation_sparsity_pattern=None,
        layer_types=["sliding_attention", "full_attention"] * 2,
    )  # fmt: skip
    model = tf.AutoModelForCausalLM.from_config(config).eval()
    unchanged_and_refused(model, "layers of Gemma3nForCausalLM share keys and values", what=what, count=1)


def test_a_checkpoint_that_shares_keys_and_values_is_refused(tiny_folder, tmp_path, capsys):
    source = Path(shutil.copytree(tiny_folder, tmp_path / "shared"))
    (source / "config.json").write_text(json.dumps({**config_of(source), "num_kv_shared_layers": 1}))
    error = refused(["drop", str(source), "--count=1", *SHORT], tmp_path / "out", capsys)
    assert "share keys and values" in error


@pytest.mark.filterwarnings(PEFT_NOTICE)
def test_layers_under_an_adapter_are_refused():
    config = peft.LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM")
    model = peft.get_peft_model(tiny_model("llama"), config)
    for what in ("block", "attention"):
        unchanged_and_refused(
            model, r"layers under an adapter cannot be dropped\. Merge the adapter", what=what, count=1
        )


def test_blocks_that_share_weights_are_refused():
    model = tiny_model("llama")
    model.model.layers[2].mlp.up_proj.weight = model.model.layers[0].mlp.up_proj.weight
    unchanged_and_refused(model, r"layers\.2\.mlp\.up_proj shares its weight with model\.layers\.0", count=1)


def test_norms_on_the_stream_keep_attention_but_not_blocks(tmp_path, capsys):
    source = tmp_path / "opt"
    post_norm_opt().save_pretrained(source)
    tokens = TokenBatch(token_rows())
    for what in ("attention", "mlp", "joint"):
        unchanged_and_refused(
            post_norm_opt(), r"residual stream and does nothing else\. Drop whole", what=what, count=1
        )
        unchanged_and_refused(post_norm_opt(), r"more than add its attention and MLP", what=what, count=1, by="first")
    (file := tmp_path / "layers.json").write_text('{"attention": [1]}')
    error = refused(["drop", str(source), "--by", str(file)], tmp_path / "out", capsys)
    assert "OPTDecoderLayer) does more than add its attention and MLP to the residual stream" in error
    with without(model := load(source).model, "opt", blocks=(1,)):
        expected = logits_of(model)
    (file := tmp_path / "blocks.json").write_text('{"blocks": [1]}')
    result = drop(LoadedModel(model, None, "opt"), choice=DropOptions(what="block", by=str(file)), tokens=tokens)
    torch.testing.assert_close(logits_of(result.loaded.model), expected)


class OwnLlama(tf.LlamaForCausalLM):
    """A class that a checkpoint brings."""


def own_llama() -> OwnLlama:
    torch.manual_seed(0)
    return OwnLlama(tf.LlamaConfig(**GQA)).eval()


def test_classes_that_transformers_has_not_lose_only_blocks(tmp_path):
    for what in ("attention", "mlp", "joint"):
        unchanged_and_refused(own_llama(), r"OwnLlama is no class of transformers.*--what block", what=what, count=1)
    result = drop(
        LoadedModel(own_llama(), None, "x"), choice=DropOptions(what="block", count=1), tokens=TokenBatch(token_rows())
    )
    assert len(result.plan.drop.blocks) == 1


def test_a_list_of_blocks_is_judged_by_what_it_lists(tmp_path):
    (file := tmp_path / "layers.json").write_text('{"blocks": [1]}')
    result = drop(LoadedModel(own_llama(), None, "x"), choice=DropOptions(by=str(file)))
    assert result.plan.drop.blocks == (1,)


def test_models_that_do_not_number_their_caches_or_blocks_are_refused():
    model = Carousel([(10, 20), (30, 40), (50, 60)])
    unchanged_and_refused(model, r"the attention of layers\.0 has no layer_idx", what="attention", count=1)
    unchanged_and_refused(model, "the configuration of Carousel does not name its 3 blocks", what="block", count=1)


def test_activations_that_are_not_finite_are_refused(tiny_folder, tokenizer, tmp_path, capsys):
    model = load(tiny_folder).model
    model.model.layers[1].mlp.down_proj.weight.data[0, 0] = float("nan")
    model.save_pretrained(tmp_path / "nan")
    tokenizer.save_pretrained(tmp_path / "nan")
    for by in ("cosine", "avss", "angular"):
        error = refused(["drop", str(tmp_path / "nan"), "--count=1", "--by", by, *SHORT], tmp_path / "out", capsys)
        assert "are not finite: they overflow" in error


def test_no_attention_left_is_refused_before_anything_changes():
    model = tiny_model("llama")
    before = logits_of(model)
    for gone in ({"attention": (0, 1), "blocks": (2,)}, {"attention": (0, 1, 2)}):
        with pytest.raises(PlanError, match=r"Keep at least one"):
            cut(model, **gone)
    cut(model, attention=(0, 1))
    with pytest.raises(PlanError, match=r"no attention would be left. Keep at least one"):
        cut(model, blocks=(2,))
    assert not torch.equal(logits_of(model), before)


def test_a_base_that_transformers_has_not_is_named(tiny, tmp_path):
    folder = save(replace(tiny, model=cut(tiny.model, mlp=(1,))), tmp_path / "out")
    config = config_of(folder)
    for name in ("OldForCausalLM", "logging", "os; print"):
        (folder / "config.json").write_text(json.dumps({**config, "trueprune_base": {"config": name, "model": name}}))
        with pytest.raises(ModelError, match=r"config\.json builds on .*, which transformers .* has not"):
            load(folder)


def test_code_in_the_folder_is_not_run_by_us(tiny, tmp_path):
    folder = save(replace(tiny, model=cut(tiny.model, attention=(1,))), tmp_path / "out")
    (folder / "modeling_trueprune.py").write_text("raise SystemExit('the code ran')")
    assert torch.equal(logits_of(load(folder).model), logits_of(tiny.model))


def test_a_plan_with_both_reads_back():
    plan = Plan("drop", 0.0, drop=Drop(6, attention=(1, 3), what="attention", by="cosine"), order=("drop",))
    again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again == plan
