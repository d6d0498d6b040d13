"""A temperature in the weights: logits divided by it, wherever the model is loaded, or nothing changed."""

from __future__ import annotations

import json
from typing import Any

import peft
import pytest
import torch
import transformers as tf
from plain import token_rows
from safetensors.torch import load_file
from zoo import ARCHITECTURES, COMMON, CONFIGS, GQA

from trueprune import LoadedModel, ModelError, load, save
from trueprune._support.errors import RepairError
from trueprune.edits import apply_drop
from trueprune.models import read_anatomy
from trueprune.plans import Drop
from trueprune.repairs import fold_temperature

PEFT_NOTICE = "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
GPT = {"vocab_size": 320, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256}
NARROW_OPT = {**COMMON, "ffn_dim": 48, "word_embed_proj_dim": 16}
# Beside the zoo: caps and scales of the logits, heads with a bias, norms without weights, projections before the head.
OTHERS = {
    "gemma2 capped": lambda: tf.Gemma2Config(**GQA, head_dim=8, sliding_window=16, final_logit_softcapping=2.5),
    "gemma3 capped": lambda: tf.Gemma3TextConfig(**GQA, head_dim=8, sliding_window=16, final_logit_softcapping=30.0),
    "nanochat": lambda: tf.NanoChatConfig(**GQA, final_logit_softcapping=15.0),
    "recurrent_gemma": lambda: tf.RecurrentGemmaConfig(**GQA, lru_width=32, attention_window_size=16),
    "cohere": lambda: tf.CohereConfig(**GQA, logit_scale=0.0625),
    "granite": lambda: tf.GraniteConfig(**GQA, logits_scaling=8.0),
    "falcon_h1": lambda: tf.FalconH1Config(
        **GQA, lm_head_multiplier=0.2, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8
    ),
    "phi": lambda: tf.PhiConfig(**GQA),
    "gptj": lambda: tf.GPTJConfig(**GPT, rotary_dim=4),
    "gptj tied": lambda: tf.GPTJConfig(**GPT, rotary_dim=4, tie_word_embeddings=True),
    "olmo": lambda: tf.OlmoConfig(**GQA),
    "opt projected": lambda: tf.OPTConfig(**NARROW_OPT),
    "opt without a final norm": lambda: tf.OPTConfig(**NARROW_OPT, do_layer_norm_before=False),
    "bloom": lambda: tf.BloomConfig(vocab_size=320, hidden_size=32, n_layer=3, n_head=4),
    "mpt": lambda: tf.MptConfig(vocab_size=320, d_model=32, n_layers=3, n_heads=4, max_seq_len=256, expansion_ratio=2),
    "llama tied": lambda: tf.LlamaConfig(**GQA, tie_word_embeddings=True),
    "llama untied": lambda: tf.LlamaConfig(**GQA, tie_word_embeddings=False),
}
# Where the temperature goes, if not into the final norm.
ELSEWHERE = {
    "nanochat": ["lm_head.weight"],
    "olmo": ["lm_head.weight"],
    "opt without a final norm": ["model.decoder.project_out.weight"],
}
IDS_BT = token_rows(2, 24)


def model_of(name: str, **changes: Any) -> Any:
    """A tiny model whose vectors, those of the head among them, are far from 0 and 1."""
    config = {**CONFIGS, **OTHERS}[name]()
    for key, value in changes.items():
        setattr(config, key, value)
    torch.manual_seed(0)
    model = tf.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            mean = 1.0 if parameter.dim() == 1 and ("norm" in key or "ln" in key) else 0.0
            parameter.normal_(mean=mean, std=0.2, generator=generator)
    return model


def logits_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS_BT, attention_mask=torch.ones_like(IDS_BT), use_cache=False).logits


def state_of(model: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}, model.config.to_dict()


def assert_same(before: tuple[dict[str, torch.Tensor], dict[str, Any]], model: Any) -> None:
    tensors, config = state_of(model)
    assert tensors.keys() == before[0].keys()
    assert all(torch.equal(tensor, before[0][name]) for name, tensor in tensors.items())
    assert json.dumps(config, default=str) == json.dumps(before[1], default=str)


def assert_divided(model: Any, before: torch.Tensor, temperature: float) -> None:
    expected = before / temperature
    assert (logits_of(model) - expected).abs().max() <= 1e-5 * expected.abs().max()


def greedy(model: Any) -> torch.Tensor:
    return model.generate(
        IDS_BT, attention_mask=torch.ones_like(IDS_BT), max_new_tokens=8, min_new_tokens=8, do_sample=False,
        pad_token_id=0,
    )  # fmt: skip


def changed(before: tuple[dict[str, torch.Tensor], dict[str, Any]], model: Any) -> list[str]:
    return [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[0][name])]


@pytest.mark.parametrize("temperature", [1.7, 0.6])
@pytest.mark.parametrize("name", [*ARCHITECTURES, *OTHERS])
def test_logits_are_divided_in_memory_and_on_disk(name, temperature, tmp_path):
    model = model_of(name)
    before, state, words = logits_of(model), state_of(model), greedy(model)
    fold_temperature(model, temperature)
    assert_divided(model, before, temperature)
    assert torch.equal(greedy(model), words)
    norms_and_biases = [key for key in changed(state, model) if state[0][key].dim() == 1]
    assert ELSEWHERE.get(name, norms_and_biases) == changed(state, model)
    assert len(norms_and_biases) <= 3
    again = load(save(LoadedModel(model, None, name), tmp_path / "out")).model
    assert torch.equal(logits_of(again), logits_of(model))
    assert_divided(again, before, temperature)


def test_a_cap_is_divided_in_the_configuration(tmp_path):
    model = model_of("gemma2 capped")
    assert logits_of(model).abs().max() > 2.4, "the cap is reached"
    fold_temperature(model, 1.7)
    save(LoadedModel(model, None, "x"), tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["final_logit_softcapping"] == pytest.approx(2.5 / 1.7)
    assert config["attn_logit_softcapping"] == 50.0


def test_the_norm_is_told_from_one_plus_w():
    for name, constant in (("llama", 0.0), ("gemma3", 1.0)):
        model = model_of(name)
        before = model.model.norm.weight.detach().clone()
        fold_temperature(model, 2.0)
        torch.testing.assert_close(model.model.norm.weight.detach(), (before + constant) / 2 - constant)


def test_scales_of_the_configuration_stay():
    for name, key in (("cohere", "logit_scale"), ("granite", "logits_scaling"), ("falcon_h1", "lm_head_multiplier")):
        model = model_of(name)
        value = getattr(model.config, key)
        fold_temperature(model, 1.7)
        assert getattr(model.config, key) == value


@pytest.mark.parametrize("name", ["llama", "gemma2 capped", "phi"])
def test_a_temperature_of_one_changes_nothing(name):
    model = model_of(name)
    before = state_of(model)
    fold_temperature(model, 1.0)
    assert_same(before, model)


def test_two_temperatures_multiply():
    model = model_of("gemma2 capped")
    before = logits_of(model)
    fold_temperature(model, 1.7)
    fold_temperature(model, 0.6)
    assert_divided(model, before, 1.7 * 0.6)


@pytest.mark.parametrize("temperature", [1.7, 0.6])
@pytest.mark.parametrize("name", ["llama untied", "llama tied", "gemma2 capped", "gemma3", "phi", "olmo"])
def test_half_precision_is_divided_within_its_rounding(name, temperature, tmp_path):
    for dtype, tolerance in ((torch.bfloat16, 2**-6), (torch.float16, 2**-9)):
        source = tmp_path / f"source-{dtype}"
        model_of(name).to(dtype).save_pretrained(source)
        # Loaded and not merely converted, since rotary frequencies stay in float32.
        model = load(source).model
        before = logits_of(model).float()
        fold_temperature(model, temperature)
        after = logits_of(model).float()
        assert (after - before / temperature).abs().max() <= tolerance * (before / temperature).abs().max()
        # Rounding is to either side: on the whole the temperature is right.
        ratio = (before * after).sum() / after.square().sum()
        assert ratio.item() == pytest.approx(temperature, rel=2e-3)
        again = load(save(LoadedModel(model, None, "x"), tmp_path / f"out-{dtype}")).model
        assert torch.equal(logits_of(again).float(), after)


@pytest.mark.parametrize("gone", [{"attention": (1,)}, {"mlp": (2,)}, {"blocks": (0,)}])
@pytest.mark.parametrize("name", ["llama", "gemma2 capped"])
def test_a_model_without_some_layers_is_divided(name, gone, tmp_path):
    model = model_of(name)
    anatomy = read_anatomy(model)
    apply_drop(anatomy, Drop(len(anatomy.blocks), **gone))
    before = logits_of(model)
    fold_temperature(model, 1.7)
    assert_divided(model, before, 1.7)
    again = load(save(LoadedModel(model, None, "x"), tmp_path / "out")).model
    assert_divided(again, before, 1.7)


@pytest.mark.filterwarnings(PEFT_NOTICE)
def test_under_peft_base_and_adapted_model_are_divided(tmp_path):
    for name, targets in {"phi": ["q_proj", "dense"], "llama": ["q_proj", "o_proj"]}.items():
        source, config = model_of(name), peft.LoraConfig(target_modules=targets, task_type="CAUSAL_LM")
        plain = logits_of(source)
        model = peft.get_peft_model(source, config).eval()
        for path, parameter in model.named_parameters():
            if "lora_B" in path:
                torch.nn.init.normal_(parameter, std=0.3)
        adapted = logits_of(model)
        assert not torch.allclose(adapted, plain, atol=0.1)
        fold_temperature(model, 1.7)
        assert_divided(model, adapted, 1.7)
        with model.disable_adapter():
            assert_divided(model, plain, 1.7)
        folder = save(LoadedModel(model, None, name), tmp_path / name)
        base = load(folder).model
        assert_divided(base, plain, 1.7)
        assert_divided(peft.PeftModel.from_pretrained(base, folder / "adapter"), adapted, 1.7)


def test_a_model_in_training_is_probed_without_dropout():
    model = model_of("gpt2").train()
    model.transformer.h[1].eval()
    fold_temperature(model, 1.7)
    assert model.training
    assert model.transformer.h[0].training
    assert not model.transformer.h[1].training
    assert not model.transformer.h[1].mlp.training


def test_the_head_is_untouched_where_the_norm_will_do(tmp_path):
    model = model_of("llama untied")
    folder = save(LoadedModel(model, None, "x"), tmp_path / "before")
    fold_temperature(model, 1.7)
    after = load_file(save(LoadedModel(model, None, "x"), tmp_path / "after") / "model.safetensors")
    before = load_file(folder / "model.safetensors")
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["model.norm.weight"]


# What cannot be folded is left as it was.


def refused(model: Any, match: str) -> None:
    before = state_of(model)
    with pytest.raises(ModelError, match=match):
        fold_temperature(model, 1.7)
    assert_same(before, model)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_a_temperature_must_be_above_zero(temperature):
    model = model_of("llama")
    before = state_of(model)
    with pytest.raises(RepairError, match="is not above 0 and finite"):
        fold_temperature(model, temperature)
    assert_same(before, model)


def test_a_tied_head_behind_a_norm_without_weights_is_refused():
    refused(
        model_of("olmo", tie_word_embeddings=True), r"into OlmoForCausalLM: the head lm_head has a weight that .*Untie"
    )
    refused(model_of("nanochat", tie_word_embeddings=True), r"into NanoChatForCausalLM: the head lm_head has a weight")
    refused(model_of("opt without a final norm", word_embed_proj_dim=32), "into OPTForCausalLM: the head lm_head")


def test_a_norm_that_serves_twice_is_not_touched():
    tied, untied = model_of("llama tied"), model_of("llama untied")
    for model in (tied, untied):
        model.model.layers[1].input_layernorm.weight = model.model.norm.weight
    refused(tied, r"the final norm model\.norm has a weight that .*layers\.1\.input_layernorm and model\.norm share")
    before, state = logits_of(untied), state_of(untied)
    fold_temperature(untied, 1.7)
    assert_divided(untied, before, 1.7)
    assert changed(state, untied) == ["lm_head.weight"]


class Squared(tf.LlamaForCausalLM):
    """The final hidden state goes into the logits once more, beside the head."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs, output_hidden_states=True)
        output.logits = output.logits + output.hidden_states[-1].square().sum(-1, keepdim=True)
        return output


class HardCapped(tf.LlamaForCausalLM):
    """A cap that no configuration speaks of, far above the logits of the probe."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = 300 * torch.tanh(output.logits / 300)
        return output


@pytest.mark.parametrize("own", [Squared, HardCapped])
def test_logits_that_are_more_than_head_times_norm_are_refused(own):
    torch.manual_seed(0)
    model = own(tf.LlamaConfig(**GQA)).eval()
    assert own is Squared or logits_of(model).abs().max() < 1, "the cap of 300 shows in no logit"
    refused(model, rf"into {own.__name__}: the final norm model\.norm leaves an error of .*; the head lm_head leaves")


def test_an_error_while_checking_leaves_the_model_as_it_was(monkeypatch):
    model = model_of("gemma2 capped")
    before, logits, calls = state_of(model), logits_of(model), []
    whole = type(model).forward

    def interrupted(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(type(model), "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fold_temperature(model, 1.7)
    monkeypatch.undo()
    assert_same(before, model)
    assert torch.equal(logits_of(model), logits)
