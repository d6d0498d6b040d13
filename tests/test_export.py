"""Exports: what engines read gives the model's logits, and what they would misread is refused by name."""

from __future__ import annotations

import copy
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as tf
from safetensors.torch import load_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from zoo import ARCHITECTURES, GQA, tiny_model

from trueprune import LoadedModel, ModelError, OutputError, export, load, read_anatomy
from trueprune.cli.main import run
from trueprune.models.exports.gguf_file import llama3_factors, rotary_rows
from trueprune.models.exports.gguf_tokenizer import SPLITTINGS, splitting_of
from trueprune.models.exports.nemotron_nas import block_configs
from trueprune.models.exports.shape import read_llama_shape
from trueprune.models.stubs import take_away

gguf = pytest.importorskip("gguf")
nemotron_nas = importlib.import_module("trueprune.models.exports.nemotron_nas")
gguf_file = importlib.import_module("trueprune.models.exports.gguf_file")
IDS = torch.tensor([[5, 17, 200, 31, 8], [9, 9, 300, 4, 77]])
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
WIDE = {**GQA, "intermediate_size": 256}
SHAPES = {
    "llama": lambda: tf.LlamaConfig(**WIDE),
    "tied": lambda: tf.LlamaConfig(**WIDE, tie_word_embeddings=True),
    "llama3": lambda: tf.LlamaConfig(**WIDE, rope_parameters=LLAMA3),
    "bias": lambda: tf.LlamaConfig(**WIDE, attention_bias=True),
    "mistral": lambda: tf.MistralConfig(**WIDE, sliding_window=None),
    "mistral-window-of-all": lambda: tf.MistralConfig(**WIDE, sliding_window=256),
    "qwen2": lambda: tf.Qwen2Config(**WIDE),
}


def shaped(name: str = "llama", layers: int = 4, **changes) -> torch.nn.Module:
    """A Llama-shaped tiny model, whose norms and biases are not neutral either."""
    torch.manual_seed(3)
    config = SHAPES[name]()
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = ["full_attention"] * layers
    for key, value in changes.items():
        setattr(config, key, value)
    model = tf.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in path else 0.0, 0.2)
    return model


def drop(model, attention=(), mlp=()) -> torch.nn.Module:
    """Take sublayers away by hand, as `trueprune drop` does."""
    layers = "model.layers"
    kept = [i for i in range(len(model.model.layers)) if i not in attention]
    zero = {f"{layers}.{i}.self_attn": 2 for i in attention} | {f"{layers}.{i}.mlp": 0 for i in mlp}
    passed = [f"{layers}.{i}.input_layernorm" for i in attention]
    passed += [f"{layers}.{i}.post_attention_layernorm" for i in mlp]
    slots = {f"{layers}.{i}.self_attn": slot for slot, i in enumerate(kept)}
    take_away(model, {"zero": zero, "pass": passed, "slots": slots})
    return model


def logits_of(model, ids=IDS, **options) -> torch.Tensor:
    with torch.no_grad():
        return model(ids, use_cache=False, **options).logits


@pytest.fixture
def remote(tmp_path_factory, monkeypatch):
    """Load a folder with the code in it, by plain transformers, without leaving copies of that code anywhere else."""
    cache = str(tmp_path_factory.mktemp("modules"))
    for module in ("transformers.dynamic_module_utils", "transformers.utils.hub"):
        monkeypatch.setattr(f"{module}.HF_MODULES_CACHE", cache)
    monkeypatch.syspath_prepend(cache)
    yield lambda folder, **options: tf.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, **options)
    for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
        del sys.modules[name]


# nemotron-nas


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(("attention", "mlp"), [((), ()), ((1, 3), ()), ((2,), (0, 3))])
def test_the_export_gives_the_models_logits(name, attention, mlp, tokenizer, tmp_path, remote):
    model = drop(shaped(name), attention, mlp)
    expected = logits_of(model)
    result = export(LoadedModel(model, tokenizer, "tiny"), tmp_path / "out", to="nemotron-nas")
    about = result.record["export"]
    assert (about["blocks"], about["without_attention"], about["without_mlp"]) == (4, [*attention], [*mlp])
    assert about["logit_error"] < 1e-6
    again = remote(result.output)
    assert type(again).__module__.startswith("transformers_modules")
    torch.testing.assert_close(logits_of(again), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(logits_of(model), expected), "the model in memory is as it was"
    blocks = read_anatomy(again).blocks
    assert [block.index for block in blocks if block.attention is None] == [*attention]
    assert [block.index for block in blocks if block.mlp is None] == [*mlp]
    again = tf.AutoTokenizer.from_pretrained(result.output, trust_remote_code=True)
    assert again("Iron")["input_ids"] == tokenizer("Iron")["input_ids"]


def test_the_layout_is_the_one_that_engines_read(tmp_path):
    model = drop(shaped("llama3"), [1], [3])
    config_file = export(LoadedModel(model, None, "tiny"), tmp_path / "out", to="nemotron-nas").output / "config.json"
    config = json.loads(config_file.read_text())
    assert (config["model_type"], config["architectures"]) == ("nemotron-nas", ["DeciLMForCausalLM"])
    attention = {"n_heads_in_group": 2, "no_op": False, "replace_with_linear": False}
    ffn = {"ffn_mult": 12.0, "no_op": False, "replace_with_linear": False}
    assert config["block_configs"] == [
        {"attention": attention, "ffn": ffn},
        {"attention": {**attention, "n_heads_in_group": None, "no_op": True}, "ffn": ffn},
        {"attention": attention, "ffn": ffn},
        {"attention": attention, "ffn": {**ffn, "ffn_mult": None, "no_op": True}},
    ]
    # Where transformers 5 keeps it, and where engines and transformers 4 look for it.
    assert config["rope_parameters"] == LLAMA3
    assert config["rope_theta"] == 5000.0
    assert config["rope_scaling"] == {key: value for key, value in LLAMA3.items() if key != "rope_theta"}
    assert (config["hidden_size"], config["num_attention_heads"], config["head_dim"]) == (32, 4, 8)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    missing = {"model.layers.1.self_attn", "model.layers.1.input_layernorm", "model.layers.3.mlp"}
    missing |= {"model.layers.3.post_attention_layernorm"}
    whole = set(shaped("llama3").state_dict())
    assert set(tensors) == {name for name in whole if not any(name.startswith(f"{part}.") for part in missing)}


def test_block_configs_have_attributes_for_engines_and_survive_a_round_trip(tmp_path, remote):
    export(LoadedModel(drop(shaped(), [2]), None, "tiny"), tmp_path / "out", to="nemotron-nas")
    config = remote(tmp_path / "out").config
    assert config.block_configs[2].attention.no_op
    assert config.block_configs[1].attention.n_heads_in_group == 2
    assert config.block_configs[2].ffn.ffn_mult == 12.0
    # vLLM asks so whether the width is given in another way.
    assert not hasattr(config.block_configs[2].ffn, "intermediate_size")
    assert config.rope_theta == 10000.0
    again = type(config).from_dict(json.loads(config.to_json_string()))
    assert again.block_configs == config.block_configs


def test_a_tied_head_is_stored_once_and_an_untied_one_is_kept(tmp_path):
    for name, stored in (("tied", False), ("llama", True)):
        export(LoadedModel(shaped(name), None, "tiny"), tmp_path / name, to="nemotron-nas")
        assert ("lm_head.weight" in load_file(tmp_path / name / "model.safetensors")) is stored
        assert json.loads((tmp_path / name / "config.json").read_text())["tie_word_embeddings"] is not stored


def test_half_precision_is_kept(tmp_path, remote):
    model = drop(shaped(), [1])
    for parameter in model.parameters():
        # As loaded: the frequencies of the rotary embeddings stay float32.
        parameter.data = parameter.data.bfloat16()
    export(LoadedModel(model, None, "tiny"), tmp_path / "out", to="nemotron-nas")
    assert {t.dtype for t in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.bfloat16}
    assert torch.equal(logits_of(remote(tmp_path / "out", dtype="auto")), logits_of(model))


@pytest.mark.parametrize("attention", [[1, 3], [1, 2], []])
def test_generation_with_a_cache_is_generation_without(attention, tmp_path, remote):
    export(LoadedModel(drop(shaped(), attention), None, "tiny"), tmp_path / "out", to="nemotron-nas")
    model = remote(tmp_path / "out")
    # A left-padded batch of unequal lengths.
    ids = torch.tensor([[0, 0, 0, 5, 17], [9, 9, 300, 4, 77], [0, 8, 200, 31, 8]])
    options = {"attention_mask": (ids != 0).long(), "max_new_tokens": 12, "do_sample": False, "eos_token_id": None}
    cached = model.generate(ids, use_cache=True, return_dict_in_generate=True, **options)
    assert torch.equal(cached.sequences, model.generate(ids, use_cache=False, **options))
    assert len(cached.past_key_values.layers) == 4 - len(attention)
    assert {layer.get_seq_length() for layer in cached.past_key_values.layers} == {ids.shape[1] + 11}
    for row, length in ((0, 2), (2, 4)):
        alone = model.generate(
            ids[row : row + 1, -length:], **{**options, "attention_mask": torch.ones(1, length).long()}
        )
        assert torch.equal(cached.sequences[row, -12:], alone[0, -12:])
    beams = [model.generate(ids, use_cache=use, num_beams=3, **options) for use in (True, False)]
    assert torch.equal(*beams)


def test_a_forward_with_a_cache_fills_one_slot_for_each_attention(tmp_path, remote):
    export(LoadedModel(drop(shaped(), [1, 2]), None, "tiny"), tmp_path / "out", to="nemotron-nas")
    model = remote(tmp_path / "out")
    with torch.no_grad():
        first = model(IDS[:, :3])
        rest = model(IDS[:, 3:], past_key_values=first.past_key_values)
    assert len(first.past_key_values.layers) == 2
    torch.testing.assert_close(rest.logits, logits_of(model)[:, 3:], rtol=1e-5, atol=1e-5)


def test_a_fresh_process_loads_the_folder_without_trueprune(tmp_path):
    model = drop(shaped(), [2])
    export(LoadedModel(model, None, "tiny"), tmp_path / "out", to="nemotron-nas")
    torch.save(logits_of(model), tmp_path / "expected.pt")
    code = (
        "import sys, torch, transformers as tf\n"
        "model = tf.AutoModelForCausalLM.from_pretrained(sys.argv[1] + '/out', trust_remote_code=True).eval()\n"
        f"found = model(torch.tensor({IDS.tolist()})).logits\n"
        "torch.testing.assert_close(found, torch.load(sys.argv[1] + '/expected.pt'), rtol=1e-5, atol=1e-5)\n"
        "assert not [name for name in sys.modules if name.startswith('trueprune')]\n"
    )
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ran.returncode == 0, ran.stderr


# What is refused


REFUSED = {
    "mistral": "sliding window of 16 of 256 positions",
    "qwen3": "QK-norm",
    "gemma3": "the activation of .* is not SiLU",
    "phi3": "no attention with separate projections .* it holds o_proj, qkv_proj",
    "gpt_neox": "no attention with separate projections .* query_key_value",
    "gpt2": "no attention with separate projections .* c_attn",
    "opt": "no attention with separate projections .* out_proj",
    "falcon": "no attention with separate projections .* query_key_value",
    "olmo2": "no input_layernorm before its sublayer .*post_feedforward_layernorm",
    "stablelm": "no RMS norms",
    "mixtral": "mixture of experts",
    "qwen3_moe": "mixture of experts",
}


def test_every_architecture_of_the_zoo_is_accounted_for():
    assert set(REFUSED) | {"llama", "qwen2"} == set(ARCHITECTURES)


@pytest.mark.parametrize("to", ["nemotron-nas", "gguf"])
@pytest.mark.parametrize("name", REFUSED)
def test_other_architectures_are_refused_by_the_feature(name, to, tmp_path):
    with pytest.raises(ModelError, match=REFUSED[name]) as refused:
        export(LoadedModel(tiny_model(name), None, name), tmp_path / "out", to=to, gguf_tokenizer=False)
    assert refused.value.remedy
    assert list(tmp_path.iterdir()) == []


def scaled_attention(model):
    model.model.layers[1].self_attn.scaling *= 2


def scaled_residual(model):
    module = model.model.layers[1].mlp
    module.register_forward_hook(lambda _module, _inputs, output: 0.5 * output)


def one_plus_weight(model):
    norm = model.model.layers[2].input_layernorm
    weight = norm.weight

    class OnePlus(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = weight

        def forward(self, x):
            return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * (1 + self.weight)

    model.model.layers[2].input_layernorm = OnePlus()


def layer_norm(model):
    norm = torch.nn.LayerNorm(32, bias=False)
    model.model.layers[1].post_attention_layernorm = norm


def other_eps(model):
    model.model.layers[0].input_layernorm.variance_epsilon = 1e-3


def other_activation(model):
    model.model.layers[1].mlp.act_fn = torch.nn.GELU()


def sandwich(model):
    model.model.layers[1].post_feedforward_layernorm = torch.nn.RMSNorm(32)


def more_weights(model):
    model.model.layers[1].mlp.extra_proj = torch.nn.Linear(32, 32)


def head_bias(model):
    model.lm_head.bias = torch.nn.Parameter(torch.ones(320))


def setting(name, value):
    def change(model):
        setattr(model.config, name, value)

    return change


CHANGES = {
    "attention scale": (scaled_attention, "computes something else than a Llama"),
    "residual scale": (scaled_residual, "computes something else than a Llama"),
    "1 + weight": (one_plus_weight, r"model.layers.2.input_layernorm scales by 1 \+ weight"),
    "layer norm": (layer_norm, r"model.layers.1.post_attention_layernorm is no RMS norm .*LayerNorm"),
    "eps": (other_eps, r"model.layers.0.input_layernorm is no RMS norm with eps"),
    "activation": (other_activation, r"activation of model.layers.1.mlp is not SiLU \(GELU\)"),
    "sandwich": (sandwich, "more norms in a block than a Llama: model.layers.1.post_feedforward_layernorm.weight"),
    "weights": (more_weights, "more weights than a Llama: model.layers.1.mlp.extra_proj.weight"),
    "head bias": (head_bias, "no head without a bias"),
    "yarn": (setting("rope_parameters", {"rope_type": "yarn", "rope_theta": 1e4}), "of type yarn"),
    "no rope": (setting("rope_parameters", None), "position embeddings are absent"),
    "partial rope": (
        setting("rope_parameters", {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}),
        "only a part of each head",
    ),
    "other theta": (
        setting("rope_parameters", {"rope_type": "default", "rope_theta": 77.0}),
        "computes something else than a Llama",
    ),
    "multiplier": (setting("logits_scaling", 8.0), "logits_scaling = 8.0"),
    "softcap": (setting("final_logit_softcapping", 30.0), "final_logit_softcapping = 30.0"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_llama_that_computes_something_else_is_refused(change, tmp_path):
    model = shaped()
    alter, message = CHANGES[change]
    alter(model)
    with pytest.raises(ModelError, match=message):
        export(LoadedModel(model, None, "odd"), tmp_path / "out", to="gguf", gguf_tokenizer=False)
    assert list(tmp_path.iterdir()) == []


def test_traps_of_nemotron_nas_are_named(tmp_path):
    cases = {
        "attention of the first block was dropped: vLLM, SGLang": drop(shaped(), [0]),
        "MLP of block 0 is 48 wide, .* round up to 256.*--to gguf": tiny_model("llama"),
        "both sublayers of model.layers.2 were dropped.*block whole": drop(shaped(), [2], [2]),
        "4 heads of 16 make no hidden size of 32.*--to gguf": shaped(head_dim=16),
        "MLP has biases": shaped(mlp_bias=True),
    }
    for message, model in cases.items():
        with pytest.raises(ModelError, match=message):
            export(LoadedModel(model, None, "tiny"), tmp_path / "out", to="nemotron-nas")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("hidden", [576, 2048, 4096, 5120, 8192])
@pytest.mark.parametrize("width", [256, 1536, 5632, 11008, 14336, 28672])
def test_ffn_mult_survives_the_rounding_of_every_engine(hidden, width):
    ffn_mult = nemotron_nas._ffn_mult(0, width, hidden)
    for read in (ffn_mult, round(ffn_mult, 6)):
        rounded = int(2 * read * hidden / 3)
        assert rounded + -rounded % 256 == width
    with pytest.raises(ModelError, match=f"is {width - 8} wide, .* round up to {width}"):
        nemotron_nas._ffn_mult(0, width - 8, hidden)


def test_traps_of_gguf_are_named(tmp_path):
    cases = {
        "MLP of block 2 was dropped: llama.cpp leaves out the attention": drop(shaped(), (), [2]),
        "attention of the first block was dropped: llama.cpp takes the size of a head": drop(shaped(), [0]),
        "both sublayers of model.layers.1": drop(shaped(), [1], [1]),
    }
    for message, model in cases.items():
        with pytest.raises(ModelError, match=message):
            export(LoadedModel(model, None, "tiny"), tmp_path / "out", to="gguf", gguf_tokenizer=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapter_is_to_be_merged_first():
    peft = pytest.importorskip("peft")
    wrapped = peft.get_peft_model(shaped(), peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    with pytest.raises(ModelError, match=r"wrapped by an adapter.*merge_and_unload"):
        read_llama_shape(wrapped.eval())


def test_a_shape_is_read_block_by_block():
    shape = read_llama_shape(drop(shaped(), [1], [3]))
    assert [(b.heads, b.kv_heads, b.width) for b in shape.blocks] == [(4, 2, 256), (0, 0, 256), (4, 2, 256), (4, 2, 0)]
    assert (shape.hidden, shape.vocab, shape.head_dim, shape.context, shape.tied) == (32, 320, 8, 256, False)
    assert [entry["ffn"]["ffn_mult"] for entry in block_configs(shape)] == [12.0, 12.0, 12.0, None]


# GGUF


def read_gguf(folder: Path) -> tuple[dict, dict]:
    [file] = folder.glob("*.gguf")
    reader = gguf.GGUFReader(file)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    return fields, {tensor.name: tensor for tensor in reader.tensors}


@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0"])
def test_a_gguf_file_holds_the_model(kind, tokenizer, tmp_path):
    model = drop(shaped("llama"), [1, 3])
    result = export(LoadedModel(model, tokenizer, "folder/tiny"), tmp_path / "out", to="gguf", gguf_type=kind)
    assert {file.name for file in result.output.iterdir()} == {f"model-{kind}.gguf", "trueprune.json", "README.md"}
    fields, tensors = read_gguf(result.output)
    assert (fields["general.architecture"], fields["general.name"]) == ("deci", "tiny")
    assert fields["deci.attention.head_count"] == [4, 0, 4, 0]
    assert fields["deci.attention.head_count_kv"] == [2, 0, 2, 0]
    assert fields["deci.feed_forward_length"] == [256] * 4
    assert (fields["deci.block_count"], fields["deci.embedding_length"], fields["deci.vocab_size"]) == (4, 32, 320)
    assert (fields["deci.context_length"], fields["deci.rope.dimension_count"]) == (256, 8)
    assert (fields["deci.attention.key_length"], fields["deci.attention.value_length"]) == (8, 8)
    assert fields["deci.rope.freq_base"] == 10000.0
    assert fields["deci.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)
    assert fields["general.file_type"] == {"f32": 0, "f16": 1, "q8_0": 7}[kind]
    state = model.state_dict()
    names = {f"blk.{i}.attn_{part}.weight" for i in (0, 2) for part in ("q", "k", "v", "output", "norm")}
    names |= {f"blk.{i}.ffn_{part}.weight" for i in range(4) for part in ("gate", "up", "down", "norm")}
    assert set(tensors) == names | {"token_embd.weight", "output_norm.weight", "output.weight"}
    for name, tensor in tensors.items():
        stored = "F32" if "norm" in name or kind == "f32" else kind.upper()
        assert tensor.tensor_type.name == stored
    assert list(tensors["blk.0.ffn_down.weight"].shape) == [256, 32], "GGUF names the input first"
    for name, path in {
        "token_embd": "model.embed_tokens",
        "output": "lm_head",
        "blk.1.ffn_up": "model.layers.1.mlp.up_proj",
        "blk.2.attn_v": "model.layers.2.self_attn.v_proj",
        "blk.2.attn_norm": "model.layers.2.input_layernorm",
    }.items():
        tensor, want = tensors[f"{name}.weight"], state[f"{path}.weight"].numpy()
        found = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_allclose(found, want, atol={"f32": 0, "f16": 1e-3, "q8_0": 6e-3}[kind])


def test_rows_of_queries_and_keys_are_in_the_order_of_llama_cpp():
    # Two heads of four features: halves (0 1 | 2 3) become pairs (0 2)(1 3).
    rows = rotary_rows(torch.arange(8.0)[:, None], 2)[:, 0]
    assert rows.tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert torch.equal(rotary_rows(torch.arange(8.0), 2), rows), "biases too"
    assert rotary_rows(torch.arange(8.0), 0).tolist() == list(range(8))


def test_a_whole_model_is_plain_llama_and_its_tied_head_is_left_out(tmp_path):
    model = shaped("tied")
    del model.model.layers[1]
    model.config.num_hidden_layers = 3
    export(LoadedModel(model, None, "tiny"), tmp_path / "out", to="gguf", gguf_type="f32", gguf_tokenizer=False)
    fields, tensors = read_gguf(tmp_path / "out")
    assert fields["general.architecture"] == "llama"
    assert (fields["llama.attention.head_count"], fields["llama.attention.head_count_kv"]) == (4, 2)
    assert (fields["llama.feed_forward_length"], fields["llama.block_count"]) == (256, 3)
    assert fields["tokenizer.ggml.model"] == "no_vocab"
    assert "output.weight" not in tensors


@pytest.mark.parametrize("name", ["tied", "llama"])
def test_transformers_reads_the_file_back(name, tokenizer, tmp_path):
    model = shaped(name)
    export(LoadedModel(model, tokenizer, "tiny"), tmp_path / "out", to="gguf", gguf_type="f32")
    again = load(tmp_path / "out")
    torch.testing.assert_close(logits_of(again.model), logits_of(model), rtol=1e-5, atol=1e-5)
    text = "Iron has the symbol Fe."
    assert again.tokenizer(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_llama3_frequencies_are_divided_as_transformers_does(tmp_path):
    model = shaped("llama3")
    default = 1 / 5000.0 ** (torch.arange(0, 8, 2) / 8)
    expected = default / model.model.rotary_emb.inv_freq
    torch.testing.assert_close(llama3_factors(LLAMA3, 8), expected)
    assert expected.min() == 1
    assert expected.max() == 8
    export(LoadedModel(model, None, "tiny"), tmp_path / "out", to="gguf", gguf_tokenizer=False)
    _, tensors = read_gguf(tmp_path / "out")
    np.testing.assert_allclose(tensors["rope_freqs.weight"].data, expected.numpy(), rtol=1e-6)


def test_rows_that_q8_0_cannot_store_are_f16(tmp_path):
    export(
        LoadedModel(tiny_model("llama"), None, "t"), tmp_path / "out", to="gguf", gguf_type="q8_0", gguf_tokenizer=False
    )
    _, tensors = read_gguf(tmp_path / "out")
    kinds = {name: tensor.tensor_type.name for name, tensor in tensors.items()}
    assert (kinds["blk.0.ffn_down.weight"], kinds["blk.0.ffn_up.weight"]) == ("F16", "Q8_0")


def test_values_beyond_f16_are_refused(tmp_path):
    model = shaped()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = 1e6
    with pytest.raises(ModelError, match=r"blk.1.ffn_up.weight holds values beyond the range of f16.*f32"):
        export(LoadedModel(model, None, "tiny"), tmp_path / "out", to="gguf", gguf_tokenizer=False)
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_read_again_and_compared(tmp_path, monkeypatch):
    quantize = gguf.quants.quantize

    def damaged(values, kind):
        return quantize(values * 1.01, kind)

    monkeypatch.setattr(gguf.quants, "quantize", damaged)
    with pytest.raises(ModelError, match="does not hold what was written"):
        export(LoadedModel(shaped(), None, "tiny"), tmp_path / "out", to="gguf", gguf_tokenizer=False)
    assert list(tmp_path.iterdir()) == []


# Tokenizers


def test_the_tokenizer_is_written(tokenizer, tmp_path):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    export(LoadedModel(shaped(), tokenizer, "tiny"), tmp_path / "out", to="gguf")
    fields, _ = read_gguf(tmp_path / "out")
    assert (fields["tokenizer.ggml.model"], fields["tokenizer.ggml.pre"]) == ("gpt2", "gpt-2")
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    assert tokens == [tokenizer.convert_ids_to_tokens(i) for i in range(320)]
    assert types == [3, 3, 3, *[1] * 317]
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    assert fields["tokenizer.ggml.merges"] == [" ".join(pair) for pair in merges]
    roles = ("bos", "eos", "padding")
    assert [fields[f"tokenizer.ggml.{role}_token_id"] for role in roles] == [1, 2, 0]
    assert (fields["tokenizer.ggml.add_bos_token"], fields["tokenizer.ggml.add_eos_token"]) == (False, False)
    assert fields["tokenizer.chat_template"] == "{{ messages[0]['content'] }}"


def byte_level(pre=None, model=None, **more) -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(model or models.BPE({token: i for i, token in enumerate(["</s>", *alphabet])}, []))
    backend.pre_tokenizer = pre or pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    for name, value in more.items():
        setattr(backend, name, value)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")


def write_with(tokenizer, folder) -> dict:
    export(LoadedModel(shaped(layers=1), tokenizer, "tiny"), folder, to="gguf")
    return read_gguf(folder)[0]


def sequence(*steps):
    return pre_tokenizers.Sequence(list(steps))


def regex_of(name):
    return pre_tokenizers.Split(Regex(SPLITTINGS[name].steps[0][1]), "isolated")


BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
WORDS = pre_tokenizers.ByteLevel(add_prefix_space=False)


@pytest.mark.parametrize("name", SPLITTINGS)
def test_splittings_are_found_by_structure(name):
    rule = {
        "gpt-2": lambda: WORDS,
        "smollm": lambda: sequence(pre_tokenizers.Digits(individual_digits=True), WORDS),
    }.get(name, lambda: sequence(regex_of(name), BYTES))()
    data = json.loads(byte_level(rule).backend_tokenizer.to_str())["pre_tokenizer"]
    assert splitting_of(data, SPLITTINGS[name].ignore_merges) == name
    with pytest.raises(ModelError, match="is not one of gpt-2"):
        splitting_of(data, not SPLITTINGS[name].ignore_merges)


def test_the_regular_expressions_are_the_published_ones():
    llama3, qwen2 = (SPLITTINGS[name].steps[0][1] for name in ("llama-bpe", "qwen2"))
    published = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )
    assert llama3 == published
    assert qwen2 == published.replace("{1,3}", "")
    assert SPLITTINGS["tekken"].steps[0][1] == (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?"
        r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )


def test_rows_without_a_token_are_unused_and_added_tokens_are_typed(tmp_path):
    tokenizer = byte_level()
    tokenizer.add_tokens(["<tool>"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    fields = write_with(tokenizer, tmp_path / "out")
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    assert (tokens[257:260], types[257:260]) == (["<tool>", "<turn>", "[PAD259]"], [4, 3, 5])
    assert len(tokens) == len(types) == 320


@pytest.mark.parametrize(("before", "after"), [(True, False), (True, True), (False, True), (False, False)])
def test_tokens_that_every_text_gets_are_named(before, after, tmp_path):
    special = [("</s>", 0), ("!", 1)]
    template = "! " * before + "$A" + " </s>" * after
    tokenizer = byte_level(post_processor=processors.TemplateProcessing(single=template, special_tokens=special))
    tokenizer.bos_token = "!"
    fields = write_with(tokenizer, tmp_path / "out")
    assert (fields["tokenizer.ggml.add_bos_token"], fields["tokenizer.ggml.add_eos_token"]) == (before, after)


def test_composition_of_characters_is_noted(tmp_path):
    tokenizer = byte_level(normalizer=normalizers.NFC())
    result = export(LoadedModel(shaped(layers=1), tokenizer, "tiny"), tmp_path / "out", to="gguf")
    [note] = result.record["export"]["notes"]
    assert "NFC" in note
    assert note in (result.output / "README.md").read_text()


def no_eos() -> PreTrainedTokenizerFast:
    tokenizer = byte_level()
    tokenizer.eos_token = None
    return tokenizer


TOKENIZERS = {
    "has no tokenizer": lambda: None,
    "is no byte-level BPE .WordLevel.": lambda: byte_level(model=models.WordLevel({"</s>": 0}, unk_token="</s>")),
    "is no byte-level BPE .BPE with byte fallback.": lambda: byte_level(
        model=models.BPE({"</s>": 0}, [], byte_fallback=True)
    ),
    "pre-tokenizer .Metaspace. is not one of": lambda: byte_level(pre_tokenizers.Metaspace()),
    "pre-tokenizer .Digits, ByteLevel. is not one of": lambda: byte_level(
        sequence(pre_tokenizers.Digits(individual_digits=False), WORDS)
    ),
    "changes text before it splits it .Lowercase.": lambda: byte_level(normalizer=normalizers.Lowercase()),
    "adds other tokens to a text": lambda: byte_level(
        post_processor=processors.TemplateProcessing(single="# $A", special_tokens=[("#", 3)])
    ),
    "no end-of-sequence token": no_eos,
}


@pytest.mark.parametrize("message", TOKENIZERS)
def test_a_tokenizer_that_llama_cpp_does_not_know_is_refused(message, tmp_path):
    with pytest.raises(ModelError, match=rf"{message}.*--no-gguf-tokenizer"):
        write_with(TOKENIZERS[message](), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_more_tokens_than_embeddings_are_refused(tmp_path):
    tokenizer = byte_level()
    tokenizer.add_tokens([f"<{i}>" for i in range(70)])
    with pytest.raises(ModelError, match="has a token 326 and the model 320 embeddings"):
        write_with(tokenizer, tmp_path / "out")


def test_a_token_that_takes_spaces_with_it_is_refused(tmp_path):
    tokenizer = byte_level()
    tokenizer.add_tokens([tf.AddedToken("<mask>", lstrip=True)])
    with pytest.raises(ModelError, match="'<mask>' takes spaces with it"):
        write_with(tokenizer, tmp_path / "out")


# Whole or absent, and the command


class Interrupted:
    def __init__(self, error: BaseException):
        self.error = error

    def __call__(self, *_args, **_kwargs):
        raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(5, "I/O error")])
@pytest.mark.parametrize(
    ("module", "where", "to"),
    [
        (nemotron_nas, "probe_logits", "nemotron-nas"),
        (nemotron_nas, "_say_rope_scaling", "nemotron-nas"),
        (gguf_file, "_stored", "gguf"),
        (gguf_file, "_check", "gguf"),
    ],
)
def test_an_export_that_fails_leaves_what_there_was(module, where, to, error, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("three years of work")
    monkeypatch.setattr(module, where, Interrupted(error))
    with pytest.raises(type(error)):
        export(LoadedModel(shaped(), None, "tiny"), tmp_path / "out", to=to, gguf_tokenizer=False, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_a_checkpoint_that_gives_other_logits_is_not_kept(tmp_path, monkeypatch):
    probe, calls = nemotron_nas.probe_logits, []

    def second_differs(model, context):
        calls.append(model)
        return probe(model, context) + 0.1

    monkeypatch.setattr(nemotron_nas, "probe_logits", second_differs)
    with pytest.raises(ModelError, match="the export gives other logits"):
        export(LoadedModel(shaped(), None, "tiny"), tmp_path / "out", to="nemotron-nas")
    assert len(calls) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_memory_of_the_model_is_freed_before_the_check_when_asked(tmp_path, remote):
    model = shaped()
    expected = logits_of(model)
    export(LoadedModel(model, None, "tiny"), tmp_path / "out", to="nemotron-nas", free_memory=True)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    torch.testing.assert_close(logits_of(remote(tmp_path / "out")), expected, rtol=1e-5, atol=1e-5)


def test_gguf_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ModelError, match=r"writing GGUF needs gguf.*trueprune\[gguf\]"):
        export(LoadedModel(shaped(), None, "tiny"), tmp_path / "out", to="gguf")


@pytest.fixture
def folder(tokenizer, tmp_path) -> Path:
    shaped().save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "trueprune.json").write_text('{"method": "wanda", "command": "trueprune prune x -o model"}')
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("to", "flags", "line"),
    [
        ("nemotron-nas", [], "out: DeciLMForCausalLM, 4 blocks"),
        ("gguf", ["--gguf-type", "q8_0"], "out/model-q8_0.gguf: llama, 4 blocks"),
        ("gguf", ["--no-gguf-tokenizer"], "Note: no tokenizer: the file takes and gives token ids"),
    ],
)
def test_the_command(to, flags, line, folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(["export", str(folder), "-o", str(out), "--to", to, *flags]) == 0
    captured = capsys.readouterr()
    assert line in " ".join(captured.out.split())
    assert captured.err == ""
    record = json.loads((out / "trueprune.json").read_text())
    assert record["export"]["command"].startswith(f"trueprune export {folder} -o ")
    assert (record["method"], record["command"]) == ("wanda", "trueprune prune x -o model"), "what was done before"
    assert record["export"]["command"] in (out / "README.md").read_text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--to", "tensorrt"], 'Invalid value "tensorrt" for --to'),
        ([], "parameter --to requires an argument"),
        (["--to", "gguf", "--gguf-type", "q4_0"], 'Invalid value "q4_0" for --gguf-type'),
    ],
)
def test_wrong_flags_are_one_line(flags, message, folder, tmp_path, capsys):
    assert run(["export", str(folder), "-o", str(tmp_path / "out"), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_wrong_names_are_refused_in_python(tmp_path):
    loaded = LoadedModel(shaped(), None, "tiny")
    with pytest.raises(ModelError, match=r"unknown export target 'onnx'.*--to nemotron-nas or --to gguf"):
        export(loaded, tmp_path / "out", to="onnx")
    with pytest.raises(ModelError, match=r"unknown GGUF type 'q2'.*f32, f16, q8_0"):
        export(loaded, tmp_path / "out", to="gguf", gguf_type="q2")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_kept_unless_it_may_be_overwritten(folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("three years of work")
    with pytest.raises(OutputError, match=r"exists and is not empty.*--overwrite"):
        export(folder, out, to="gguf")
    with pytest.raises(OutputError, match="is or holds the input"):
        export(folder, folder, to="gguf", overwrite=True)
    export(folder, out, to="gguf", overwrite=True)
    assert not (out / "thesis.txt").exists()
