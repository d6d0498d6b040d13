"""Healing in memory: what is trained is what is saved, zeros stay zero, and a run that was cut off goes on."""

from __future__ import annotations

import copy
import json
import math
import warnings
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from plain import token_rows
from torch.nn import functional as F
from zoo import tiny_model

from trueprune import CalibrationOptions, LoadedModel, RepairError, TextError, read_anatomy
from trueprune.repairs.healing import HealingOptions, Store, check_way, heal_blocks, healing_data
from trueprune.repairs.healing.adapters import installed, left_out, make_updates, trainable
from trueprune.repairs.healing.data import Batch, HealingData, Pair, Row, encode_pairs, padded
from trueprune.repairs.healing.objective import Objective
from trueprune.repairs.healing.precision import checkpointed, computing, prepared, resolve_precision
from trueprune.repairs.healing.train import Trainer, learning_rate
from trueprune.texts.qa import JudgedAnswer

QUICK = HealingOptions(
    steps=12, batch=2, window=16, pairs=0, evaluate_every=4, precision="float32", learning_rate=1e-2, rank=2
)
KINDS = ["llama", "gpt2", "gpt_neox", "mixtral"]


def pruned(name: str, dtype: torch.dtype = torch.float32, seed: int = 0):
    """A tiny model with half of the weights of its blocks at zero."""
    model = tiny_model(name, seed).to(dtype)
    for block in read_anatomy(model).blocks:
        for site in block.sites:
            weight = site.weight_OI
            weight.masked_fill_(weight.abs() < weight.abs().median(), 0)
    return model


def loaded_of(model, tokenizer=None):
    return LoadedModel(model, tokenizer, "tiny")


def text_data(seed=0, rows=8, batch=2, pairs=()) -> HealingData:
    """Windows that follow a rule, so that there is something to learn."""
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(3, 300, (rows + 2,), generator=generator).tolist()
    windows = [Row(tuple(3 + (start + 7 * t) % 300 for t in range(16))) for start in starts]
    held = (Batch(windows=tuple(windows[:2])), *([Batch(pairs=tuple(pairs[:4]))] if pairs else []))
    return HealingData(tuple(windows[2:]), tuple(pairs[4:]), held, batch, 4 if pairs else 0)


def some_pairs(count=16) -> list[Pair]:
    """Right answers end in one token, wrong ones in another; questions differ."""
    found = []
    for n in range(count):
        question = tuple(5 + (n * 31 + 17 * t) % 290 for t in range(5))
        found.append(Pair(Row((*question, 7, 9), 5), Row((*question, 11, 13), 5), str(n)))
    return found


def zeros_of(model):
    return {
        f"{block.path}.{site.name}": site.weight_OI == 0 for block in read_anatomy(model).blocks for site in block.sites
    }


def state_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


# What is trained is what is saved


@pytest.mark.parametrize("adapt", ["lora", "full"])
@pytest.mark.parametrize("name", KINDS)
def test_the_trained_model_is_the_merged_one(name, adapt):
    model = pruned(name)
    anatomy = read_anatomy(model)
    before, zeros = state_of(model), zeros_of(model)
    blocks = anatomy.blocks[1:]
    with prepared(model, "float32"):
        updates = make_updates(blocks, adapt, rank=2)
        parameters = trainable(updates)
        with installed(updates):
            torch.testing.assert_close(
                model(token_rows(2)).logits, copy.deepcopy(model)(token_rows(2)).logits, atol=1e-5, rtol=1e-5
            )
            optimizer = torch.optim.AdamW(parameters.values(), lr=0.02, weight_decay=0.1)
            for _ in range(3):
                optimizer.zero_grad()
                ids = token_rows(2)
                F.cross_entropy(model(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
                optimizer.step()
            with torch.no_grad():
                during = model(token_rows(3)).logits
        for update in updates:
            update.merge()
    assert "forward" not in vars(blocks[0].sites[0].module)
    with torch.no_grad():
        torch.testing.assert_close(model(token_rows(3)).logits, during, atol=1e-4, rtol=1e-4)
    trained = {f"{update.name}.weight" for update in updates}
    after = model.state_dict()
    assert list(after) == list(before)
    for key, tensor in before.items():
        assert torch.equal(after[key], tensor) == (key not in trained), key
    for key, zero in zeros_of(model).items():
        # Not one weight less, not one more (an update never lands on zero by chance here).
        assert torch.equal(zero, zeros[key]), key
    linear = [site for block in blocks for site in block.sites if site.expert is None]
    assert len(updates) == len(linear) > 0
    assert bool(left_out(blocks)) == (name == "mixtral")


def test_gradients_are_those_of_the_masked_product():
    model = pruned("gpt2")
    for adapt in ("lora", "full"):
        update = make_updates(read_anatomy(model).blocks[:1], adapt, rank=2)[0]
        assert update.site.transposed
        x = torch.randn(2, 3, update.site.shape[1], requires_grad=True)
        with torch.no_grad():
            for parameter in update.parameters.values():
                parameter.add_(0.1 * torch.randn_like(parameter))
        parameters = list(update.parameters.values())
        weight = update.site.weight_OI
        mask = (weight != 0).float()
        if adapt == "lora":
            a, b = parameters
            assert update.scale == 2.0  # type: ignore[attr-defined]
            effective = weight + mask * (2.0 * b @ a)
        else:
            effective = mask * parameters[0]
        expected = F.linear(x, effective, update.site.module.bias)  # type: ignore[arg-type]
        found = update.forward(x)
        torch.testing.assert_close(found, expected)
        goal = torch.randn_like(found)
        ours = torch.autograd.grad((found * goal).sum(), [x, *parameters])
        plain = torch.autograd.grad((expected * goal).sum(), [x, *parameters])
        for one, other in zip(ours, plain, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
        if adapt == "full":
            assert not ours[1][mask == 0].any()


def test_a_plain_lora_would_have_trained_another_model():
    model = pruned("llama")
    update = make_updates(read_anatomy(model).blocks[:1], "lora", rank=2)[0]
    with torch.no_grad():
        for parameter in update.parameters.values():
            parameter.normal_()
    a, b = update.parameters.values()
    x = torch.randn(3, 32)
    unmasked = x @ (update.site.weight_OI + 2.0 * b @ a).T
    assert (update.forward(x) - unmasked).abs().max() > 0.1


def test_a_dense_matrix_has_no_mask_and_the_adapter_starts_at_nothing():
    model = tiny_model("llama")
    updates = make_updates(read_anatomy(model).blocks, "lora", rank=4, seed=3)
    assert all(update.mask_OI is None for update in updates)
    for update in updates:
        torch.testing.assert_close(update.weight(), update.site.weight_OI)
    again = make_updates(read_anatomy(model).blocks, "lora", rank=4, seed=3)
    other = make_updates(read_anatomy(model).blocks, "lora", rank=4, seed=4)
    first = [next(iter(trainable(found).values())) for found in (updates, again, other)]
    assert torch.equal(first[0], first[1]) and not torch.equal(first[0], first[2])
    assert sum(p.numel() for p in trainable(updates).values()) == sum(4 * sum(u.site.shape) for u in updates)


def test_no_random_state_of_the_program_is_touched(monkeypatch):
    blocks = read_anatomy(tiny_model("llama")).blocks
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda _seed: pytest.fail("the accelerator was seeded"))
    before = torch.get_rng_state()
    make_updates(blocks, "lora", rank=2, seed=5)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_cannot_be_trained_is_named():
    moe = read_anatomy(pruned("qwen3_moe")).blocks
    names = left_out(moe[:1])
    assert names and all("expert" in name and "[" not in name for name in names)
    stacked = [replace(moe[0], sites=tuple(site for site in moe[0].sites if site.expert is not None))]
    with pytest.raises(RepairError, match="stacked experts alone"):
        make_updates(stacked, "lora")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_half_precision_models_come_back_as_they_were_but_for_what_is_trained(precision):
    model = pruned("llama", torch.bfloat16)
    before, zeros = state_of(model), zeros_of(model)
    healed = heal(model, replace(QUICK, precision=precision), layers=[1])
    assert healed.progress.gained
    for key, tensor in model.state_dict().items():
        assert tensor.dtype == before[key].dtype == torch.bfloat16
        inside = key.startswith("model.layers.1.") and "norm" not in key
        assert torch.equal(tensor, before[key]) != inside, key
    assert all(torch.equal(zero, zeros[key]) for key, zero in zeros_of(model).items())
    assert not any(parameter.requires_grad is False for parameter in model.parameters())


# The loop


def heal(model, options=QUICK, *, layers=(0, 1, 2), way="lora", data=None, teacher=None, store=None):
    return heal_blocks(
        loaded_of(model), read_anatomy(model), layers, data or text_data(), way, options, teacher=teacher, store=store
    )


@pytest.mark.parametrize("adapt", ["lora", "full"])
def test_the_loss_goes_down_and_the_saved_model_has_it(adapt):
    model = pruned("llama")
    healed = heal(model, replace(QUICK, adapt=adapt, steps=24, learning_rate=0.05 if adapt == "lora" else 0.01))
    curve = healed.progress.curve
    assert [row["step"] for row in curve] == [0, 4, 8, 12, 16, 20, 24]
    best = min(curve, key=lambda row: row["held_out"])
    assert best["held_out"] < curve[0]["held_out"] - 0.5
    assert curve[-1]["loss"] < curve[1]["loss"]
    assert (healed.progress.stopped, healed.progress.best_step) == ("all steps done", best["step"])
    again = Objective(model, read_anatomy(model).blocks, "lora", QUICK)
    with torch.no_grad():
        (part,) = again.parts(text_data().held_out[0])
    assert float(part.total) == pytest.approx(healed.progress.best, rel=1e-4)


def test_checkpointing_changes_no_gradient():
    found = {}
    for on in (False, True):
        model = pruned("llama")
        data = text_data(pairs=some_pairs())
        heal(model, replace(QUICK, checkpointing=on, pairs=4), way="contrastive", data=data)
        found[on] = state_of(model)
    for key, tensor in found[True].items():
        torch.testing.assert_close(tensor, found[False][key], atol=1e-5, rtol=1e-4)


def test_checkpointed_blocks_are_computed_twice_and_only_with_gradients():
    model = tiny_model("llama")
    anatomy = read_anatomy(model)
    calls = []
    anatomy.blocks[1].module.mlp.register_forward_pre_hook(lambda *_: calls.append(1))  # type: ignore[union-attr]
    with checkpointed(anatomy.blocks[1:], True):
        with torch.no_grad():
            model(token_rows(1))
        assert len(calls) == 1
        model(token_rows(1)).logits.sum().backward()
        assert len(calls) == 3
    assert "forward" not in vars(anatomy.blocks[1].module)


class Cut(Exception):  # noqa: N818
    pass


def cut_after(monkeypatch, steps):
    """Cut a run off in the middle of a step."""
    taken = Trainer._step

    def step(self, number):
        if number == steps:
            raise Cut
        return taken(self, number)

    monkeypatch.setattr(Trainer, "_step", step)


@pytest.mark.parametrize(("adapt", "way"), [("lora", "contrastive"), ("full", "lora")])
@pytest.mark.parametrize("steps", [4, 7])
def test_a_run_that_was_cut_off_goes_on_to_the_bit(tmp_path, monkeypatch, adapt, way, steps):
    options = replace(QUICK, adapt=adapt, pairs=4, projection=8 if way == "contrastive" else 0)
    data = text_data(pairs=some_pairs())
    whole = pruned("llama")
    expected = heal(whole, options, way=way, data=data)
    store = Store(tmp_path / "out.healing", {"steps": 12})
    with monkeypatch.context() as patched, pytest.raises(Cut):
        cut_after(patched, steps)
        heal(pruned("llama"), options, way=way, data=data, store=store)
    assert json.loads((store.folder / "state.json").read_text())["step"] == 4
    assert sorted(path.name for path in store.folder.iterdir()) == ["state.json", "step-000004.safetensors"]
    model = pruned("llama")
    found = heal(model, options, way=way, data=data, store=store)
    assert found.progress.curve == expected.progress.curve
    assert all(torch.equal(tensor, whole.state_dict()[key]) for key, tensor in model.state_dict().items())
    # What had ended but was not saved ends at once, with the same weights.
    monkeypatch.setattr(Trainer, "_step", None)
    model = pruned("llama")
    heal(model, options, way=way, data=data, store=store)
    assert all(torch.equal(tensor, whole.state_dict()[key]) for key, tensor in model.state_dict().items())
    store.remove()
    assert not store.folder.exists()


def test_a_failed_run_leaves_the_model_as_it_was(monkeypatch):
    model = pruned("llama")
    before = state_of(model)
    cut_after(monkeypatch, 5)
    with pytest.raises(Cut):
        heal(model)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert "forward" not in vars(read_anatomy(model).blocks[0].sites[0].module)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_other_settings_and_damaged_states_are_refused(tmp_path):
    store = Store(tmp_path / "s", {"a": (1, 2), "rank": 8}, {"mine": 1})
    store.write({"step": 3}, {"x": torch.ones(2)})
    state = Store(store.folder, {"a": [1, 2], "rank": 8}).read()
    assert state is not None and state["notes"] == {"mine": 1}
    assert torch.equal(store.tensors(state)["x"], torch.ones(2))
    with pytest.raises(RepairError, match=r"with rank 8, not 4\. Go on with the same settings, or remove that folder"):
        Store(store.folder, {"a": (1, 2), "rank": 4}).read()
    file = store.folder / "state.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema": 0}))
    with pytest.raises(RepairError, match="with schema 0, not 1"):
        store.read()
    store.write({"step": 6}, {"x": torch.zeros(2)})
    assert sorted(path.name for path in store.folder.iterdir()) == ["state.json", "step-000006.safetensors"]
    (store.folder / "step-000006.safetensors").write_bytes(b"short")
    with pytest.raises(RepairError, match=r"cannot be read .* to start again"):
        store.tensors(store.read() or {})
    (store.folder / "state.json").write_text("{")
    with pytest.raises(RepairError, match=r"cannot be read .* to start again"):
        store.read()


def test_what_a_store_did_not_write_is_left_alone(tmp_path):
    folder = tmp_path / "out.healing"
    folder.mkdir()
    (folder / "model.safetensors").write_text("a model that happens to have this name")
    store = Store(folder, {})
    with pytest.raises(RepairError, match=r"out\.healing, where .* \(model\.safetensors\)\. Move it away, or choose"):
        store.read()
    store.write({"step": 3}, {"x": torch.ones(2)})
    store.remove()
    assert [path.name for path in folder.iterdir()] == ["model.safetensors"]
    (tmp_path / "file.healing").write_text("")
    with pytest.raises(RepairError, match=r"is or holds something else \(file\.healing\)"):
        Store(tmp_path / "file.healing", {}).read()
    (folder / "model.safetensors").unlink()
    assert store.read() is None


def test_a_loss_that_diverges_leaves_the_last_good_state():
    model = pruned("llama")
    before = state_of(model)
    with pytest.warns(UserWarning, match=r"diverged at step \d+, and no state is better than the start"):
        healed = heal(model, replace(QUICK, learning_rate=1e6))
    assert healed.progress.stopped.startswith("diverged at step")
    assert not healed.progress.gained
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    json.dumps(healed.progress.curve, allow_nan=False)


def test_a_later_divergence_keeps_what_was_gained(monkeypatch):
    rates = learning_rate
    monkeypatch.setattr(
        "trueprune.repairs.healing.train.learning_rate", lambda step, o: 1e6 if step > 5 else rates(step, o)
    )
    model = pruned("llama")
    with pytest.warns(UserWarning, match="diverged at step .*; the state of step 4 is kept"):
        healed = heal(model)
    assert healed.progress.best_step == 4
    monkeypatch.undo()
    quiet = pruned("llama")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = heal(quiet, QUICK)
    assert healed.progress.curve[:2] == first.progress.curve[:2]
    with torch.no_grad():
        (part,) = Objective(model, read_anatomy(model).blocks, "lora", QUICK).parts(text_data().held_out[0])
    assert float(part.total) == pytest.approx(healed.progress.curve[1]["held_out"], rel=1e-4)


def test_gradients_that_are_not_finite_end_the_run(monkeypatch):
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(math.inf))
    with pytest.warns(UserWarning, match="diverged at step 1"):
        assert heal(pruned("llama")).progress.step == 1


def test_it_stops_early_when_nothing_gets_better(monkeypatch):
    values = iter([3.0, 2.0, 2.5, 2.5, 1.0])
    monkeypatch.setattr(Trainer, "held_out", lambda self: {"held_out": next(values)})
    healed = heal(pruned("llama"), replace(QUICK, steps=40, patience=2))
    assert healed.progress.stopped == "nothing better in 2 evaluations, at step 12"
    assert (healed.progress.step, healed.progress.best_step) == (12, 4)
    values = iter([3.0, *[4.0] * 10])
    with pytest.warns(UserWarning, match="no state is better"):
        healed = heal(pruned("llama"), replace(QUICK, steps=40, patience=0))
    assert healed.progress.stopped == "all steps done"


def test_a_held_out_loss_that_stays_twice_the_start_has_diverged(monkeypatch):
    values = iter([3.0, 7.0, 2.0, 7.0, 6.5, 1.0])
    monkeypatch.setattr(Trainer, "held_out", lambda self: {"held_out": next(values)})
    with pytest.warns(UserWarning, match="diverged at step 16; the state of step 8 is kept"):
        healed = heal(pruned("llama"), replace(QUICK, steps=40))
    assert healed.progress.stopped == "diverged at step 16"
    assert len(healed.progress.curve) == 5


def test_the_rate_rises_and_falls():
    options = HealingOptions(steps=100, learning_rate=2.0)
    rates = [learning_rate(step, options) for step in range(100)]
    assert rates[0] == pytest.approx(0.4) and rates[4] == pytest.approx(2.0) == max(rates)
    assert all(a > b for a, b in pairwise(rates[5:]))
    assert rates[-1] == pytest.approx(0.2, rel=0.01)
    assert HealingOptions().peak_learning_rate == 2e-3
    assert HealingOptions(adapt="full").peak_learning_rate < 1e-3


# The three ways


def vectors_of(model, pairs, block):
    heard = []
    handle = read_anatomy(model).blocks[block].module.register_forward_hook(lambda _m, _a, out: heard.append(out))
    with torch.no_grad():
        for side in ("right", "wrong"):
            model(padded([getattr(pair, side) for pair in pairs], torch.device("cpu"))[0])
    handle.remove()
    return [F.normalize((h[0] if isinstance(h, tuple) else h)[:, 5:].mean(1), dim=1) for h in heard]


@pytest.mark.parametrize("loss", ["infonce", "triplet"])
def test_contrast_parts_right_from_wrong_and_the_control_does_not(loss):
    pairs = some_pairs()
    data = text_data(pairs=pairs)
    options = replace(QUICK, pairs=4, loss=loss, weight=30.0, patience=0, learning_rate=0.03)
    gaps, contrast = {}, {}
    for way in ("contrastive", "lora"):
        model = pruned("llama", seed=1)
        healed = heal(model, options, way=way, data=data, layers=[0, 1])
        right, wrong = vectors_of(model, pairs[:4], 1)
        gaps[way] = float((right @ right.T).mean() - (right @ wrong.T).mean())
        contrast[way] = [row.get("contrastive") for row in healed.progress.curve]
    assert gaps["contrastive"] > gaps["lora"] + 0.2
    assert contrast["contrastive"][-1] < 0.7 * contrast["contrastive"][0]
    assert contrast["lora"] == [None] * 4


def test_the_control_differs_in_the_loss_alone():
    pairs = some_pairs()
    batch = Batch(text_data().windows[:2], tuple(pairs[:4]))
    model = tiny_model("llama")
    blocks = read_anatomy(model).blocks[1:]
    options = replace(QUICK, pairs=4)
    with torch.no_grad():
        parts = {w: list(Objective(model, blocks, w, options).parts(batch)) for w in ("contrastive", "lora")}
    (text, answers), (text_too, answers_too) = parts["contrastive"], parts["lora"]
    assert text.total == text_too.total
    assert answers.values["answers"] == answers_too.values["answers"] == answers_too.total
    contrast = answers.values["contrastive"]
    torch.testing.assert_close(answers.total, answers_too.total + 0.1 * contrast)
    # The mean over the chosen blocks of a loss taken on the mean of the answer's hidden states.
    from trueprune.repairs.healing.losses import info_nce

    by_hand = [info_nce(*vectors_of(model, pairs[:4], index), 0.1) for index in (1, 2)]
    torch.testing.assert_close(contrast, torch.stack(by_hand).mean(), atol=1e-5, rtol=1e-5)


def test_answers_are_contrasted_in_float32_whatever_the_precision():
    model = tiny_model("llama")
    blocks = read_anatomy(model).blocks[:2]
    near = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    right, wrong = ({i: near + 0.1 * torch.randn(4, 32) for i in (0, 1)} for _ in range(2))
    for options in (replace(QUICK, projection=4), replace(QUICK, loss="triplet")):
        objective = Objective(model, blocks, "contrastive", options)
        exact = objective._contrast(right, wrong)
        with computing("bfloat16", torch.device("cpu")):
            found = objective._contrast(right, wrong)
        assert found.dtype == torch.float32
        assert torch.equal(found, exact)


def test_wrong_answers_are_read_no_further_than_needed():
    model = tiny_model("llama")
    anatomy = read_anatomy(model)
    seen = []
    anatomy.blocks[2].module.register_forward_hook(lambda *_: seen.append(1))
    objective = Objective(model, anatomy.blocks[:2], "contrastive", replace(QUICK, pairs=4))
    with torch.no_grad():
        list(objective.parts(Batch(pairs=tuple(some_pairs(4)))))
    assert len(seen) == 1


def test_distillation_brings_the_logits_near_the_teacher():
    dense = tiny_model("llama")
    model = pruned("llama")

    def distance(student):
        with torch.no_grad():
            ids = padded(text_data().held_out[0].windows, torch.device("cpu"))[0]
            p, q = (m(ids).logits[:, :-1].log_softmax(2) for m in (dense, student))
            return float((p.exp() * (p - q)).sum(2).mean())

    start = distance(model)
    before = state_of(dense)
    healed = heal(model, replace(QUICK, steps=24, rank=8), way="distill", teacher=loaded_of(dense))
    assert healed.progress.curve[0]["held_out"] == pytest.approx(start, rel=1e-4)
    assert distance(model) == pytest.approx(healed.progress.best, rel=1e-3)
    assert distance(model) < 0.8 * start
    assert all(torch.equal(tensor, before[key]) for key, tensor in dense.state_dict().items())


def test_a_teacher_speaks_the_same_tokens():
    model = tiny_model("llama")
    with pytest.raises(RepairError, match="is the model itself"):
        heal(model, way="distill", teacher=loaded_of(model))
    other = tiny_model("llama")
    other.resize_token_embeddings(330)  # type: ignore[operator]
    with pytest.raises(RepairError, match=r"another vocabulary than tiny \(330, 320 tokens\)"):
        heal(model, way="distill", teacher=loaded_of(other))


def test_a_model_that_is_broken_is_not_trained():
    model = pruned("llama")
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.fill_(math.inf)
    with pytest.raises(RepairError, match="no finite loss before it is trained"):
        heal(model)


# Data


def judged(count):
    found = []
    for n in range(count):
        for answer, wrong in ((f" about {n} of them", False), (" none", True)):
            found.append(JudgedAnswer(f"q{n}", f"Q: How many are {n}?\nA:", answer, wrong, f"c{n // 2}"))
    return found


def test_nothing_that_is_held_out_is_trained_on(tokenizer):
    loaded = loaded_of(tiny_model("llama"), tokenizer)
    drawn: dict[str, Any] = {"steps": 20, "batch": 4, "window": 32, "pairs": 4, "seed": 0}
    data = healing_data(loaded, judged(40), CalibrationOptions(), **drawn)
    held = [row for batch in data.held_out for row in batch.windows]
    assert len(held) == 8

    def runs(rows):
        return {row.ids[i : i + 16] for row in rows for i in range(len(row.ids) - 15)}

    assert not runs(held) & runs(data.windows)
    assert 40 < len(data.windows) <= 80
    aside = {pair.cluster for batch in data.held_out for pair in batch.pairs}
    assert aside and not aside & {pair.cluster for pair in data.pairs}
    assert len(data.pairs) + 8 == 40
    again = healing_data(loaded, judged(40), CalibrationOptions(), **drawn)
    assert [again.step(n) for n in (0, 7, 33)] == [data.step(n) for n in (0, 7, 33)]
    other = healing_data(loaded, judged(40), CalibrationOptions(seed=5), **{**drawn, "seed": 1})
    assert other.step(0).windows != data.step(0).windows and other.step(0).pairs != data.step(0).pairs
    # A round of the questions has each of them once.
    asked = [pair.right for n in range(8) for pair in data.step(n).pairs]
    assert sorted(asked, key=hash) == sorted((pair.right for pair in data.pairs), key=hash)
    rounds = [[pair.right for n in range(8 * k, 8 * k + 8) for pair in data.step(n).pairs] for k in (0, 1)]
    assert rounds[0] != rounds[1]


def test_answers_begin_where_the_prompt_ends(tokenizer):
    (pair,) = encode_pairs(loaded_of(tiny_model("llama"), tokenizer), judged(1))
    assert tokenizer.decode(pair.right.ids[pair.right.start :]) == " about 0 of them"
    assert tokenizer.decode(pair.wrong.ids[: pair.wrong.start]) == "Q: How many are 0?\nA:"
    ids, counted = padded([pair.right, pair.wrong], torch.device("cpu"))
    assert counted.sum(1).tolist() == [len(row.ids) - row.start for row in (pair.right, pair.wrong)]
    assert ids[1, counted[1]].tolist() == list(pair.wrong.ids[pair.wrong.start :])


def test_bad_answers_are_named(tokenizer):
    loaded = loaded_of(tiny_model("llama"), tokenizer)
    with pytest.raises(RepairError, match="q0 has no right or no wrong answer"):
        encode_pairs(loaded, judged(2)[1:])
    long = [replace(answer, answer=answer.answer * 100) for answer in judged(1)]
    with pytest.raises(RepairError, match=r"an answer to q0 ends at token \d+, over the model's limit of 256"):
        encode_pairs(loaded, long)
    drawn: dict[str, Any] = {"steps": 2, "batch": 2, "window": 16, "pairs": 4, "seed": 0}
    with pytest.raises(RepairError, match="5 questions are too few to train on 4 a step"):
        healing_data(loaded, judged(5), CalibrationOptions(), **drawn)


def test_texts_that_are_too_short_to_hold_any_out_are_named(tokenizer, tmp_path):
    file = tmp_path / "short.txt"
    file.write_text("The same few words again and again and nothing else at all, and then they end.")
    with pytest.raises(RepairError, match="0 windows are left of 8 when 4 are set aside"):
        healing_data(
            loaded_of(tiny_model("llama"), tokenizer),
            (),
            CalibrationOptions(sources=(str(file),)),
            steps=4,
            batch=2,
            window=24,
            pairs=0,
            seed=0,
        )


def test_texts_of_all_sources_are_seen_from_the_start(tokenizer, tmp_path):
    loaded = loaded_of(tiny_model("llama"), tokenizer)
    for name, first in (("high", 200), ("low", 0)):
        lines = [" ".join(f"{name}{100 * n + m}" for m in range(first, first + 40)) for n in range(40)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    sources = tuple(str(tmp_path / f"{name}.jsonl") for name in ("high", "low"))
    drawn: dict[str, Any] = {"steps": 10, "batch": 4, "window": 32, "pairs": 0, "seed": 0}
    data = healing_data(loaded, (), CalibrationOptions(sources=sources), **drawn)
    half = [tokenizer.decode(row.ids) for row in data.windows[: len(data.windows) // 2]]
    assert 0.2 < sum("high" in text for text in half) / len(half) < 0.8


def test_what_is_asked_of_texts_is_said_in_the_options_of_healing(tokenizer, tmp_path):
    loaded = loaded_of(tiny_model("llama"), tokenizer)
    drawn: dict[str, Any] = {"steps": 2, "batch": 2, "window": 300, "pairs": 0, "seed": 0}
    with pytest.raises(TextError, match=r"over the model's limit of 256 positions\. Use --window 256"):
        healing_data(loaded, (), CalibrationOptions(), **drawn)
    (tmp_path / "one.txt").write_text("One text.")
    options = CalibrationOptions(sources=(str(tmp_path / "one.txt"),), format="single")
    with pytest.raises(TextError, match="Lower --steps or --batch"):
        healing_data(loaded, (), options, **{**drawn, "window": 16})


def test_padding_on_the_left_is_put_on_the_right(tokenizer):
    options = CalibrationOptions(format="single", padding_side="left")
    data = healing_data(
        loaded_of(tiny_model("llama"), tokenizer), (), options, steps=4, batch=2, window=250, pairs=0, seed=0
    )
    text = tokenizer.decode(data.windows[0].ids)
    assert "<pad>" not in text


# Options


@pytest.mark.parametrize(
    ("way", "given", "teacher", "words"),
    [
        ("lora", {"weight": 0.2}, False, "--contrast-weight has no meaning for --with lora"),
        ("distill", {}, False, "Name the dense one with --teacher"),
        ("lora", {}, True, "--teacher has no meaning for --with lora"),
        ("lora", {"softness": 2.0}, False, "--softness has no meaning"),
        ("contrastive", {"pairs": 1}, False, "--pairs 1 gives no two right answers"),
        ("contrastive", {"margin": 0.1}, False, "--margin has no meaning for --loss infonce"),
        ("contrastive", {"loss": "triplet", "tau": 0.2}, False, "--tau has no meaning for --loss triplet"),
        ("lora", {"adapt": "full", "rank": 4}, False, "--rank has no meaning for --adapt full"),
        ("lora", {"layers": "all", "layer_share": 0.5}, False, "--layer-share has no meaning for --layers all"),
        ("lora", {"layer_share": 0.5}, False, "--layer-share has no meaning for --layers all"),
    ],
)
def test_options_that_nothing_looks_at_are_refused(way, given, teacher, words):
    with pytest.raises(RepairError, match=words):
        check_way(way, HealingOptions(**given), teacher)


@pytest.mark.parametrize(
    "given",
    [{"steps": 0}, {"tau": 0.0}, {"weight": math.nan}, {"layer_share": 1.5}, {"adapt": "half"}, {"precision": "x"}],
)
def test_impossible_options_are_refused(given):
    (name,) = given
    with pytest.raises(RepairError, match="--" + {"weight": "contrast-weight"}.get(name, name).replace("_", "-")):
        HealingOptions(**given)


def test_precision_follows_the_device(monkeypatch):
    cpu = torch.device("cpu")
    assert resolve_precision("float32", cpu) == "float32"
    with pytest.raises(RepairError, match="float16 is for CUDA"):
        resolve_precision("float16", cpu)
    for native in (False, True):
        for name in ("amx_tile", "avx512_bf16"):
            monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda native=native: native, raising=False)
        assert resolve_precision("auto", cpu) == ("bfloat16" if native else "float32")


def test_lora_without_peft_says_what_to_do(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(RepairError, match=r"LoRA needs peft.*trueprune\[lora\].*--adapt full"):
        make_updates(read_anatomy(tiny_model("llama")).blocks, "lora")
