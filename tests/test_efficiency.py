"""Efficiency: counts that are exact, timings in turns, and changes against the dense model timed beside."""

from __future__ import annotations

import gc
import importlib
import itertools
import json
import shutil
import types

import numpy as np
import pytest
import torch
from transformers import DynamicCache, StaticCache
from zoo import ARCHITECTURES, tiny_model

from trueprune._support.errors import AuditError
from trueprune.audits import AuditOptions, AuditSettings, EfficiencyOptions, Measurement, measure_efficiency
from trueprune.audits import efficiency_runs as runs
from trueprune.audits.efficiency_costs import (
    LiveMemory,
    cache_bytes,
    cache_bytes_per_token,
    forward_flops,
    peak_memory,
    tensor_bytes,
)
from trueprune.audits.efficiency_runs import Runner, last_position_only, take_own_memory, time_rounds
from trueprune.audits.efficiency_size import (
    Structure,
    checkpoint_bytes,
    count_parameters,
    is_two_of_four,
    read_structure,
    weight_files,
)
from trueprune.cli.main import run
from trueprune.jobs import audit, prune
from trueprune.jobs.audit import audit_models
from trueprune.jobs.demo import each_from_dense
from trueprune.models import load, read_anatomy
from trueprune.models.load import LoadedModel
from trueprune.reports import AuditedModel, compare
from trueprune.reports.tables import audit_table, usable_lines
from trueprune.reports.usable import usable_by

SHORT = EfficiencyOptions(prompt_tokens=16, decode_tokens=3, timing_rounds=2)
SHORT_FLAGS = ["--prompt-tokens", "16", "--decode-tokens", "3", "--timing-rounds", "2", "--resamples", "50"]
ROUNDS = {"prefill-tokens-per-second", "decode-tokens-per-second", "prefill-speedup", "decode-speedup"}
COUNTS = {
    "parameters",
    "nonzero-parameters",
    "disk-bytes",
    "kv-cache-bytes-per-token",
    "prefill-flops",
    "decode-flops",
    "peak-memory-bytes",
}


def runner_of(model, prompt=16, more=3, batch=1):
    ids = torch.arange(batch * (prompt + more)).reshape(batch, -1) % 300 + 3
    return Runner(LoadedModel(model, None, "tiny"), ids, prompt)


def by_metric(measurements):
    return {m.metric: m for m in measurements}


# Counts


def kv_heads_and_width(config):
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    if getattr(config, "multi_query", False):
        kv_heads = 1
    return kv_heads, getattr(config, "head_dim", None) or config.hidden_size // heads


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_cache_of_a_token_is_keys_and_values_of_every_block(name, dtype):
    model = tiny_model(name).to(dtype)
    kv_heads, width = kv_heads_and_width(model.config)
    expected = 2 * kv_heads * width * dtype.itemsize * model.config.num_hidden_layers
    assert cache_bytes_per_token(runner_of(model)) == expected


def test_empty_slots_and_slots_allocated_ahead_hold_nothing():
    model = tiny_model("llama")
    ids = torch.arange(6)[None] + 3
    per_token = 2 * 2 * 8 * 4 * 3
    with torch.no_grad():
        dynamic = model(ids, use_cache=True).past_key_values
        static = StaticCache(config=model.config, max_cache_len=64)
        model(ids, past_key_values=static, use_cache=True)
    assert cache_bytes(dynamic, 6) == cache_bytes(static, 6) == 6 * per_token
    dynamic.layers.insert(1, type(dynamic.layers[0])())
    assert cache_bytes(dynamic, 6) == 6 * per_token
    dynamic.layers[2].keys = dynamic.layers[2].values = torch.zeros(1, 2, 0, 8)
    assert cache_bytes(dynamic, 6) == 6 * per_token * 2 / 3
    assert cache_bytes(DynamicCache(), 6) == 0
    pairs = tuple((torch.zeros(1, 2, 6, 8), torch.ones(1, 2, 6, 8)) for _ in range(3))
    assert cache_bytes(pairs, 6) == 6 * per_token


def test_what_has_a_fixed_size_is_no_growth():
    class Recurrent(torch.nn.Module):
        weight = torch.nn.Parameter(torch.ones(1))

        def get_input_embeddings(self):
            return self

        def forward(self, ids, past_key_values=None, use_cache=True):
            cache = {"state": torch.zeros(1, 7), "keys": torch.zeros(1, 2, ids.shape[1], 4)}
            return types.SimpleNamespace(past_key_values=cache)

    assert cache_bytes_per_token(runner_of(Recurrent())) == 2 * 4 * 4


def linear_flops(model, read, scored):
    """2 x weights x tokens; the head for the scored positions alone."""
    matrices = [site.weight_OI for block in read_anatomy(model).blocks for site in block.sites]
    return 2 * read * sum(w.numel() for w in matrices) + 2 * scored * model.lm_head.weight.numel()


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "opt", "mistral"])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_flops_are_those_of_the_products(name, implementation):
    model = tiny_model(name)
    model.set_attn_implementation(implementation)
    prefill, decode = forward_flops(runner_of(model, prompt=12, batch=2))
    attention = 3 * 2 * 2 * 4 * 8  # blocks x two products x (multiply, add) x heads x width
    # Rotary angles are a product, too, and a tiny one.
    assert prefill == pytest.approx(linear_flops(model, 12, 1) + attention * 12 * 12, rel=0.005)
    assert decode == pytest.approx(linear_flops(model, 1, 1) + attention * 13, rel=0.005)


def test_flops_of_experts_are_those_of_the_chosen_ones():
    model = tiny_model("mixtral")
    block = 2 * 32 * 32 + 2 * 16 * 32 + 4 * 32 + 2 * 3 * 32 * 48  # q, o; k, v; router; two of four experts
    attention = 2 * 2 * 4 * 8
    prefill, decode = forward_flops(runner_of(model, prompt=12))
    head = 2 * 32 * 320
    assert prefill == pytest.approx(3 * (2 * 12 * block + attention * 144) + head, rel=0.005)
    assert decode == pytest.approx(3 * (2 * block + attention * 13) + head, rel=0.005)


def test_parameters_and_zeros_are_counted_once():
    model = tiny_model("llama")
    total, nonzero = count_parameters(model)
    assert total == nonzero == sum(p.numel() for p in model.parameters())
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[:10] = 0
    assert count_parameters(model) == (total, total - 320)
    model.lm_head.weight = model.model.embed_tokens.weight
    assert count_parameters(model)[0] == total - 320 * 32


def test_bytes_on_disk_are_those_of_the_weight_files(tiny_folder, tmp_path, tiny):
    loaded = load(tiny_folder)
    size = (tiny_folder / "model.safetensors").stat().st_size
    assert checkpoint_bytes(loaded) == size
    # In memory only: no file, so the parameters.
    assert checkpoint_bytes(tiny) == sum(p.numel() for p in tiny.model.parameters()) * 4
    sharded = tmp_path / "sharded"
    loaded.model.save_pretrained(sharded, max_shard_size="60KB")
    # Some checkpoints hold the same weights a second time, which transformers does not read.
    shutil.copy(tiny_folder / "model.safetensors", sharded / "consolidated.safetensors")
    files = weight_files(sharded)
    assert len(files) > 1
    assert all(file.name.startswith("model-0") for file in files)
    assert checkpoint_bytes(load(sharded)) == sum(file.stat().st_size for file in files)
    (tmp_path / "x.gguf").write_bytes(b"12345")
    assert weight_files(tmp_path) == [tmp_path / "x.gguf"]
    assert checkpoint_bytes(LoadedModel(loaded.model, None, str(tmp_path / "x.gguf"))) == 5


def test_live_memory_follows_storages():
    before = torch.zeros(100)
    with LiveMemory() as memory:
        a = before + 1
        assert (memory.live, memory.peak) == (400, 400)
        view = a[:50].view(5, 10)
        before.add_(1)
        assert memory.live == 400
        b = torch.cat([a, a])
        assert (memory.live, memory.peak) == (1200, 1200)
        del a
        assert memory.live == 1200  # the view still holds it
        del view
        assert memory.live == 800
        del b
        assert memory.live == 0
    assert memory.peak == 1200


def test_peak_memory_is_weights_and_what_a_run_holds():
    model = tiny_model("llama")
    weights, small = peak_memory(runner_of(model, prompt=16))
    _, large = peak_memory(runner_of(model, prompt=64))
    assert weights == tensor_bytes(model) >= sum(p.numel() * 4 for p in model.parameters())
    assert large > small > 16 * 2 * 2 * 8 * 4 * 3  # at least the cache
    assert peak_memory(runner_of(model, prompt=16)) == (weights, small)


# Timings


class Stub:
    """Notes when its turn comes."""

    def __init__(self, name, diary, seconds):
        self.name, self.diary, self.seconds = name, diary, itertools.count(*seconds)

    def prefill(self):
        self.diary.append(f"{self.name} prefill")
        assert not gc.isenabled()
        return float(next(self.seconds))

    def decode(self):
        self.diary.append(f"{self.name} decode")
        return float(next(self.seconds))


def test_weights_move_to_fresh_memory_and_stay_what_they_are(tiny_folder):
    model = load(tiny_folder).model
    model.lm_head.weight = model.model.embed_tokens.weight
    layers = model.model.layers
    layers[1].mlp.up_proj.weight = torch.nn.Parameter(layers[0].mlp.up_proj.weight.detach())  # tied by storage
    parameters = list(model.parameters())
    before = [(p.data_ptr(), p.detach().clone()) for p in parameters]
    take_own_memory(model)
    assert all(p is q for p, q in zip(model.parameters(), parameters, strict=True))
    for parameter, (place, value) in zip(parameters, before, strict=True):
        assert torch.equal(parameter, value)
        assert parameter.data_ptr() != place
        assert parameter.data_ptr() % 64 == 0
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert layers[1].mlp.up_proj.weight.data_ptr() == layers[0].mlp.up_proj.weight.data_ptr()


def test_models_take_turns_and_the_order_alternates():
    diary = []
    found = time_rounds([Stub("dense", diary, (0, 1)), Stub("pruned", diary, (100, 1))], 3)
    forwards = ["dense prefill", "pruned prefill", "dense decode", "pruned decode"]
    backwards = ["pruned prefill", "dense prefill", "pruned decode", "dense decode"]
    assert diary == backwards + forwards + backwards + forwards
    # The first round warms up and is not counted.
    assert found.prefill_MR.tolist() == [[2, 4, 6], [102, 104, 106]]
    assert found.decode_MR.tolist() == [[3, 5, 7], [103, 105, 107]]
    assert gc.isenabled()


def test_a_decode_step_is_the_median_of_the_steps(monkeypatch):
    # Prefill takes 5; the steps 1, 100 and 2.
    times = iter([0.0, 5, 10, 11, 20, 120, 200, 202])
    monkeypatch.setattr(runs, "perf_counter", lambda: next(times))
    runner = runner_of(tiny_model("llama"))
    assert runner.prefill() == 5.0
    assert runner.decode() == 2


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_decoding_goes_on_where_the_prompt_ended(name):
    model = tiny_model(name)
    runner = runner_of(model, batch=2)
    seen = []
    model.get_output_embeddings().register_forward_hook(lambda _m, _a, logits: seen.append(logits))
    runner.prefill()
    runner.decode()
    with torch.no_grad():
        whole = model(runner.ids_BT, use_cache=False).logits
    keep = 1 if last_position_only(model) else slice(None)
    assert keep == 1
    assert [logits.shape for logits in seen[:4]] == [(2, 1, 320)] * 4
    for step, logits in enumerate(seen[:4]):
        torch.testing.assert_close(logits[:, -1], seen[4][:, 15 + step], rtol=1e-3, atol=1e-4)
    assert whole.shape == (2, 19, 320)


def test_speeds_follow_from_the_seconds(tiny, monkeypatch):
    module = importlib.import_module("trueprune.audits.efficiency")
    prefill = np.array([[2.0, 4.0, 4.0], [1.0, 4.0, 2.0]])
    decode = np.array([[0.5, 0.5, 0.5], [0.25, 1.0, 0.5]])
    monkeypatch.setattr(module, "time_rounds", lambda *_: runs.Rounds(prefill, decode))
    options = EfficiencyOptions(prompt_tokens=16, decode_tokens=2, timing_rounds=3, timing_batch=4)
    other = LoadedModel(tiny_model("llama", seed=1), None, "other")
    found = by_metric(measure_efficiency(other, tiny, options))
    assert set(found) == ROUNDS | COUNTS
    speed = found["prefill-tokens-per-second"]
    assert speed.values.tolist() == [64, 16, 32]
    assert speed.baseline.values.tolist() == [32, 16, 16]
    assert found["decode-tokens-per-second"].values.tolist() == [16, 4, 8]
    speedup = found["prefill-speedup"]
    np.testing.assert_allclose(np.exp(speedup.values), [2, 1, 2])
    assert speedup.value == pytest.approx(2 ** (2 / 3))
    assert speedup.baseline.value == 1
    assert found["decode-speedup"].value == pytest.approx(1)  # twice as fast and half as fast cancel
    assert speedup.item_ids == ["round-0", "round-1", "round-2"]
    assert {name for name, m in found.items() if m.headline} == {
        "prefill-speedup",
        "decode-speedup",
        "kv-cache-bytes-per-token",
        "parameters",
    }
    assert {name for name, m in found.items() if m.higher_is_better} == ROUNDS
    assert all(m.n == (3 if name in ROUNDS else 1) for name, m in found.items())
    assert speed.details["batch"] == 4


def test_the_dense_model_is_as_fast_as_itself(tiny):
    found = by_metric(measure_efficiency(tiny, options=SHORT))
    assert found["prefill-speedup"].value == found["decode-speedup"].value == 1
    assert found["prefill-speedup"].values.tolist() == [0, 0]
    assert all(m.baseline is None for m in found.values())
    assert found["prefill-tokens-per-second"].value > 0


# The baseline


def test_a_change_is_taken_against_the_baseline_where_there_is_one():
    def speed(values, baseline=None):
        ids = ["round-0", "round-1"]
        return Measurement("efficiency", "speed", ids, np.array(values), baseline=baseline)

    pruned = speed([12.0, 14.0], baseline=speed([10.0, 11.0]))
    models = [AuditedModel("dense", [speed([100.0, 100.0])]), AuditedModel("pruned", [pruned])]
    report = compare(models, {}, resamples=50, seed=0)
    assert report.change("pruned", "speed").value == pytest.approx(2.5)
    assert report.change("dense", "speed") is None
    other = Measurement("efficiency", "speed", ["a", "b"], np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="the baseline has other items"):
        speed([1.0, 2.0], baseline=other)


# What is refused


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("prompt_tokens", 7, "--prompt-tokens 7 is below 8"),
        ("decode_tokens", 0, "--decode-tokens 0 is below 1"),
        ("timing_rounds", 1, "--timing-rounds 1 is below 2"),
        ("timing_batch", 0, "--timing-batch 0 is below 1"),
    ],
)
def test_options_are_checked(field, value, message):
    with pytest.raises(AuditError, match=message):
        EfficiencyOptions(**{field: value})


def test_a_prompt_over_the_limit_is_refused(tiny):
    with pytest.raises(AuditError, match=r"--prompt-tokens 240 and --decode-tokens 24 .* limit of 256 of tiny-llama"):
        measure_efficiency(tiny, options=EfficiencyOptions(prompt_tokens=240))


def test_a_model_without_a_cache_is_refused(tiny):
    forward = tiny.model.forward
    tiny.model.forward = lambda *args, **kwargs: forward(*args, **{**kwargs, "use_cache": False})
    with pytest.raises(AuditError, match="LlamaForCausalLM returns no key-value cache"):
        measure_efficiency(tiny, options=SHORT)


def test_models_made_in_place_are_refused(tiny):
    runs = {"magnitude": lambda dense: prune(dense, method="magnitude")}
    with pytest.raises(AuditError, match=r"tiny-llama shares its weights .*Save it and audit the folder"):
        audit_models(
            each_from_dense(tiny, runs, {}),
            None,
            instruments=("efficiency",),
            settings=AuditSettings(AuditOptions(resamples=50), timing=SHORT),
        )


# The audit


@pytest.fixture
def sparse_folder(tiny_folder, tmp_path):
    prune(tiny_folder, tmp_path / "sparse", method="magnitude", sparsity=0.5)
    return tmp_path / "sparse"


@pytest.fixture
def shallow_folder(tiny_folder, tmp_path):
    """The tiny model without its last block."""
    loaded = load(tiny_folder)
    del loaded.model.model.layers[-1]
    loaded.model.config.num_hidden_layers = 2
    loaded.model.save_pretrained(tmp_path / "shallow")
    return tmp_path / "shallow"


def test_an_audit_of_efficiency(tiny_folder, sparse_folder, shallow_folder, tmp_path, capsys):
    out = tmp_path / "audit"
    arguments = ["audit", str(tiny_folder), str(sparse_folder), str(shallow_folder), "-o", str(out)]
    assert run([*arguments, "--instruments", "efficiency", *SHORT_FLAGS, "--timing-batch", "2"]) == 0
    data = json.loads((out / "audit.json").read_text())
    rows = {(row["model"], row["metric"]): row for row in data["measurements"]}
    assert {metric for _, metric in rows} == ROUNDS | COUNTS
    dense, sparse, shallow = (
        {m: rows[name, m] for m in ROUNDS | COUNTS} for name in ("tiny-llama", "sparse", "shallow")
    )
    assert dense["prefill-speedup"]["value"] == 1
    assert sparse["parameters"]["change"]["value"] == 0
    assert sparse["nonzero-parameters"]["change"]["value"] < 0
    assert sparse["prefill-flops"]["value"] == dense["prefill-flops"]["value"]
    for metric in ("parameters", "disk-bytes", "prefill-flops", "decode-flops", "peak-memory-bytes"):
        assert shallow[metric]["change"]["value"] < 0, metric
    assert shallow["kv-cache-bytes-per-token"]["value"] == 2 / 3 * dense["kv-cache-bytes-per-token"]["value"] == 256
    assert dense["disk-bytes"]["value"] == (tiny_folder / "model.safetensors").stat().st_size
    assert data["settings"]["efficiency"]["prompt_tokens"] == 16
    assert data["settings"]["efficiency"]["timing_batch"] == 2
    usable = [m.get("usable_by") for m in data["models"]]
    assert usable[0] is None
    assert usable[1] == "Unstructured zeros: no engine here runs faster or smaller for them."
    assert usable[2] == "1 whole block fewer: any engine that runs the dense model."
    items = [json.loads(line) for line in (out / "items.jsonl").read_text().splitlines()]
    for item in items:
        timed = item["metric"] in ROUNDS and item["model"] != "tiny-llama"
        assert (item["baseline"] is not None) == timed
        if timed:
            change = rows[item["model"], item["metric"]]["change"]["value"]
            means = [np.mean(item[key]) for key in ("values", "baseline")]
            after, before = np.exp(means) if item["metric"].endswith("speedup") else means
            assert change == pytest.approx(after - before, rel=1e-6)
    printed = " ".join(capsys.readouterr().out.split())
    assert f"sparse: {usable[1]}" in printed
    assert "KV cache" in printed
    assert "384 B" in printed
    assert "speed-up" in printed


def test_the_dense_model_stays_only_for_efficiency(tiny_folder, monkeypatch):
    subjects = importlib.import_module("trueprune.audits.subject")
    module = importlib.import_module("trueprune.jobs.measuring")
    released = []
    release = subjects.Subject.release
    monkeypatch.setattr(subjects.Subject, "release", lambda self: (released.append(self.name), release(self)))
    monkeypatch.setitem(module.INSTRUMENTS, "perplexity", lambda *_: [])
    monkeypatch.setitem(module.INSTRUMENTS, "efficiency", lambda *_: [])
    audit(tiny_folder, [tiny_folder], instruments=("perplexity",))
    assert released == ["tiny-llama", "tiny-llama (2)"]
    released.clear()
    audit(tiny_folder, [tiny_folder], instruments=("perplexity", "efficiency"))
    assert released == ["tiny-llama (2)"]


def test_efficiency_is_not_measured_unless_asked(tiny_folder):
    from trueprune.jobs.audit import DEFAULT_INSTRUMENTS

    assert DEFAULT_INSTRUMENTS == ("perplexity", "lie-detection", "separation")


def test_bad_flags_are_refused(tiny_folder, tmp_path, capsys):
    arguments = ["audit", str(tiny_folder), "-o", str(tmp_path / "out"), "--instruments", "efficiency"]
    assert run([*arguments, "--timing-rounds", "0"]) == 2
    assert "--timing-rounds 0 is below 2. Use 2 or more" in capsys.readouterr().err
    assert run([*arguments, "--prompt-tokens", "1000"]) == 2
    assert "limit of 256" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# Tables


def test_tables_write_counts_and_bytes_in_units(capsys):
    from trueprune.cli.show import show

    def counted(parameters, kv):
        values = {"parameters": parameters, "kv-cache-bytes-per-token": kv}
        return [
            Measurement("efficiency", name, ["model"], np.array([v]), headline=True, higher_is_better=False)
            for name, v in values.items()
        ]

    about = {"usable_by": "Nobody [at all]."}
    models = [
        AuditedModel("dense", counted(134_515_008.0, 23_040.0)),
        AuditedModel("b", counted(999.0, 999_960), about),
    ]
    report = compare(models, {}, resamples=10, seed=0)
    show(audit_table(report), *usable_lines(report))
    printed = capsys.readouterr().out
    for words in ("134.5M ", "23.0 kB ", "999 ", "1.0 MB", "-134.5M", "+976.9 kB", "b: Nobody [at all]."):
        assert words in printed
    assert "134.5M [" not in printed


# Who can use it

WHOLE = Structure(blocks=12, attention=12, mlp=12, weights=1000, zeros=2, matrices=1, two_of_four=0)


def changed(**parts):
    return Structure(**{**vars(WHOLE), **parts})


@pytest.mark.parametrize(
    ("pruned", "words"),
    [
        ({}, ["Nothing was removed"]),
        ({"zeros": 500, "matrices": 84}, ["Unstructured zeros: no engine here runs faster or smaller for them."]),
        ({"zeros": 500, "matrices": 84, "two_of_four": 84}, ["Zeros in a 2:4 pattern:", "TensorRT-LLM", "semi-struc"]),
        ({"zeros": 500, "matrices": 84, "two_of_four": 80}, ["2:4 pattern in 80 of 84 matrices"]),
        (
            {"blocks": 9, "attention": 9, "mlp": 9, "weights": 750},
            ["3 whole blocks fewer: any engine that runs the dense model."],
        ),
        (
            {"attention": 9, "mlp": 11, "weights": 800},
            ["3 attention sublayers and 1 MLP sublayer dropped", "llama.cpp", "vLLM", "trueprune.load"],
        ),
        ({"attention": 8, "weights": 900}, ["4 attention sublayers dropped:"]),
        ({"weights": 900}, ["Smaller matrices"]),
        (
            {"blocks": 10, "attention": 9, "mlp": 10, "zeros": 400, "weights": 800},
            ["2 whole blocks fewer", "; 1 attention sublayer dropped", "; unstructured zeros"],
        ),
    ],
)
def test_who_can_use_what_was_removed(pruned, words):
    sentence = usable_by(WHOLE, changed(**pruned))
    assert all(word in sentence for word in words)
    assert sentence.count(".") - sentence.count("trueprune.load") - sentence.count("llama.cpp") == 1
    assert "MLP" in sentence or "MLP" not in "".join(words)


def test_the_structure_is_measured(tiny):
    whole = read_structure(read_anatomy(tiny.model))
    assert whole == Structure(3, 3, 3, sum(read_anatomy(tiny.model).weights), 0, 0, 0)
    prune(tiny, method="magnitude", pattern="2:4")
    halved = read_structure(read_anatomy(tiny.model))
    assert (halved.zeros, halved.matrices, halved.two_of_four) == (whole.weights // 2, 21, 21)
    weight = tiny.model.model.layers[0].mlp.up_proj.weight
    with torch.no_grad():
        weight[3, 4:8] = 1
    assert read_structure(read_anatomy(tiny.model)).two_of_four == 20


def test_two_of_four():
    assert is_two_of_four(torch.tensor([[0.0, 1, 0, 2, 0, 0, 0, 3]]))
    assert not is_two_of_four(torch.tensor([[0.0, 1, 0, 2, 0, 4, 5, 3]]))
    assert not is_two_of_four(torch.zeros(2, 6))


def test_the_folder_is_not_touched(tiny_folder, tmp_path):
    copy = shutil.copytree(tiny_folder, tmp_path / "copy")
    before = {file.name: file.read_bytes() for file in copy.iterdir()}
    audit(copy, [tiny_folder], instruments=("efficiency",), measuring=AuditOptions(resamples=50), timing=SHORT)
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == before
