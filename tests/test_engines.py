"""Exports in the engines that they are for: the same tokens and the same perplexity as transformers.

Legend: T positions, V vocabulary.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from test_export import drop, shaped
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from trueprune import LoadedModel, export, fold_temperature, load
from trueprune.models.demo import PACKAGE
from trueprune.models.exports.gguf_tokenizer import SPLITTINGS
from trueprune.texts.rows import embedded_file, read_documents

pytestmark = pytest.mark.engines
NEW = 32


@pytest.fixture(autouse=True)
def _own_cache():
    """Not the empty one of other tests: the demo model is converted once."""


@pytest.fixture(scope="module")
def documents() -> list[str]:
    return list(read_documents(embedded_file("calibration.jsonl")))[:20]


@pytest.fixture(scope="module", params=["whole", "blocks", "attention"])
def demo(request) -> LoadedModel:
    """The demo model: whole, without some blocks, without the attention of some."""
    if importlib.util.find_spec(PACKAGE) is None:
        pytest.skip("the demo model is not installed")
    loaded = load("demo")
    if request.param == "blocks":
        layers = loaded.model.model.layers
        for index in (24, 20):
            del layers[index]
        for index, layer in enumerate(layers):
            layer.self_attn.layer_idx = index
        loaded.model.config.num_hidden_layers = len(layers)
    if request.param == "attention":
        drop(loaded.model, [12, 18, 25])
    return loaded


def prompts_of(loaded: LoadedModel, documents: list[str]) -> list[list[int]]:
    return [loaded.tokenizer(text)["input_ids"][:length] for text, length in zip(documents, (9, 17, 5), strict=False)]


def greedy(loaded: LoadedModel, prompt: list[int]) -> list[int]:
    options = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    return loaded.model.generate(torch.tensor([prompt]), **options)[0, len(prompt) :].tolist()


def logits_of(model, ids: list[int]) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=False).logits[0].double().numpy()


def perplexity(logits_TV: np.ndarray, ids: list[int]) -> float:
    logprobs_TV = torch.log_softmax(torch.tensor(logits_TV[:-1]).double(), -1)
    return torch.exp(-logprobs_TV[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].mean()).item()


class LlamaCpp:
    """A GGUF file in llama.cpp, with keys and values in float32."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        llama_cpp = pytest.importorskip("llama_cpp")
        defaults = llama_cpp.llama_cpp.llama_model_default_params

        def plain():
            # Weights repacked for AMX crash llama.cpp on some virtual machines, whatever file they come from.
            parameters = defaults()
            parameters.use_extra_bufts = False
            return parameters

        monkeypatch.setattr(llama_cpp.llama_cpp, "llama_model_default_params", plain)
        [file] = folder.glob("*.gguf")
        self.engine = llama_cpp.Llama(
            str(file), n_ctx=512, n_batch=512, logits_all=True, verbose=False, n_threads=1, type_k=0, type_v=0
        )

    def logits(self, ids: list[int]) -> np.ndarray:
        self.engine.reset()
        self.engine.eval(ids)
        return np.array(self.engine.scores[: len(ids)], dtype=np.float64)

    def greedy(self, prompt: list[int]) -> list[int]:
        self.engine.reset()
        self.engine.eval(prompt)
        tokens: list[int] = []
        for _ in range(NEW):
            tokens.append(int(np.argmax(self.engine.scores[self.engine.n_tokens - 1])))
            self.engine.eval(tokens[-1:])
        return tokens

    def tokens(self, text: str) -> list[int]:
        return self.engine.tokenize(text.encode(), add_bos=False, special=True)


# The bound on the relative error of perplexity. Matrices in 8 bits are multiplied by activations in 8 bits.
BOUNDS = {"f32": 1e-4, "f16": 1e-3, "q8_0": 2e-2}


@pytest.mark.parametrize("kind", BOUNDS)
def test_llama_cpp_agrees(kind, demo, documents, tmp_path, monkeypatch, record_property):
    result = export(demo, tmp_path / "out", to="gguf", gguf_type=kind)
    assert result.record["export"]["architecture"] == (
        "deci" if result.record["export"]["without_attention"] else "llama"
    )
    engine = LlamaCpp(result.output, monkeypatch)
    ids = demo.tokenizer("\n\n".join(documents))["input_ids"][:400]
    assert len(ids) == 400
    expected, found = perplexity(logits_of(demo.model, ids), ids), perplexity(engine.logits(ids), ids)
    prompts = prompts_of(demo, documents)
    agree = [sum(map(int.__eq__, greedy(demo, prompt), engine.greedy(prompt))) for prompt in prompts]
    record_property("measured", f"{expected:.5f} {found:.5f} {abs(found / expected - 1):.1e} {agree}")
    print(f"\nllama.cpp {kind}: perplexity {expected:.5f}, {found:.5f}; tokens that agree {agree} of {NEW}")
    assert found == pytest.approx(expected, rel=BOUNDS[kind])
    if kind == "f32":
        assert agree == [NEW] * len(prompts)


def test_llama_cpp_splits_text_as_the_tokenizer_does(demo, documents, tmp_path, monkeypatch):
    engine = LlamaCpp(export(demo, tmp_path / "out", to="gguf").output, monkeypatch)
    chat = demo.tokenizer.apply_chat_template([{"role": "user", "content": "Is iron a metal?"}], tokenize=False)
    for text in [*documents, *TEXTS, chat]:
        assert engine.tokens(text) == demo.tokenizer(text)["input_ids"], text


TEXTS = [
    "Don't we'LL  count 12345 and 6,78?",
    "tabs\tand\n\nlines \r\n  of   space   ",
    "Grüße, naïve façade — 東京 café 🙂 Ελλάδα",
    "camelCase HTTPServer/path_to.file(x)==y;",
    "Ｆｕｌｌ １２３ ٣٤٥ x²",
]


@pytest.mark.parametrize("name", SPLITTINGS)
def test_llama_cpp_knows_the_splitting(name, documents, tmp_path, monkeypatch):
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    steps = {"gpt-2": [words], "smollm": [pre_tokenizers.Digits(individual_digits=True), words]}.get(name) or [
        pre_tokenizers.Split(Regex(SPLITTINGS[name].steps[0][1]), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    backend = Tokenizer(models.BPE(ignore_merges=SPLITTINGS[name].ignore_merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=640, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False
    )
    # Numbers, too: how many digits make a word is what the rules differ in.
    backend.train_from_iterator([*documents, *TEXTS, *(f"{n} {n}/ {n}\n" for n in range(0, 99999, 321))], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    model = shaped(vocab_size=640)
    engine = LlamaCpp(export(LoadedModel(model, tokenizer, name), tmp_path / "out", to="gguf").output, monkeypatch)
    for text in [*documents, *TEXTS, "".join(TEXTS)]:
        assert engine.tokens(text) == tokenizer(text)["input_ids"], text


TINY = {
    "llama": {},
    "tied": {},
    "llama3": {},
    "bias": {},
    "qwen2": {},
    "head of 16": {"head_dim": 16},
    "mlp bias": {"mlp_bias": True},
}


@pytest.mark.parametrize("dropped", [[], [1, 2]])
@pytest.mark.parametrize("name", TINY)
def test_llama_cpp_gives_the_logits_of_every_kind_of_llama(name, dropped, tokenizer, tmp_path, monkeypatch):
    model = drop(shaped(name if not TINY[name] else "llama", **TINY[name]), dropped)
    engine = LlamaCpp(
        export(LoadedModel(model, tokenizer, name), tmp_path / "o", to="gguf", gguf_type="f32").output, monkeypatch
    )
    ids = [(7919 * i + 11) % 320 for i in range(150)]
    expected = logits_of(model, ids)
    assert np.abs(engine.logits(ids) - expected).max() < 1e-4 * np.abs(expected).max()


def test_a_folded_temperature_is_served_by_llama_cpp(tokenizer, tmp_path, monkeypatch):
    model = shaped()
    ids = [(7919 * i + 11) % 320 for i in range(80)]
    before = logits_of(model, ids)
    fold_temperature(model, 1.7)
    engine = LlamaCpp(
        export(LoadedModel(model, tokenizer, "t"), tmp_path / "o", to="gguf", gguf_type="f32").output, monkeypatch
    )
    assert np.abs(engine.logits(ids) - before / 1.7).max() < 1e-4 * np.abs(before).max()


def test_the_trap_of_a_dropped_mlp_is_real(tokenizer, tmp_path, monkeypatch):
    """llama.cpp would leave out the attention of a block without MLP: what is refused really goes wrong."""
    monkeypatch.setattr("trueprune.models.exports.gguf_file._refuse_traps", lambda shape: None)
    model = drop(shaped(), (), [2])
    engine = LlamaCpp(
        export(LoadedModel(model, tokenizer, "t"), tmp_path / "o", to="gguf", gguf_type="f32").output, monkeypatch
    )
    ids = list(range(20, 60))
    without_the_block = drop(shaped(), [2], [2])
    assert np.abs(engine.logits(ids) - logits_of(model, ids)).max() > 0.1
    np.testing.assert_allclose(engine.logits(ids), logits_of(without_the_block, ids), atol=1e-4)


def mlx_model(folder: Path):
    pytest.importorskip("mlx_lm")
    import mlx.core as mx
    from mlx_lm.utils import load_model

    mx.set_default_device(mx.cpu)
    model, _ = load_model(folder)
    return mx, model


def mlx_greedy(mx, model, prompt: list[int]) -> list[int]:
    cache, last, tokens = model.make_cache(), prompt, []
    for _ in range(NEW):
        tokens.append(int(mx.argmax(model(mx.array([last]), cache=cache)[0, -1])))
        last = tokens[-1:]
    return tokens


def test_mlx_agrees(demo, documents, tmp_path):
    result = export(demo, tmp_path / "out", to="nemotron-nas")
    mx, model = mlx_model(result.output)
    ids = demo.tokenizer("\n\n".join(documents))["input_ids"][:200]
    found = perplexity(np.array(model(mx.array([ids]))[0], dtype=np.float64), ids)
    expected = perplexity(logits_of(demo.model, ids), ids)
    prompts = prompts_of(demo, documents)
    agree = [sum(map(int.__eq__, greedy(demo, prompt), mlx_greedy(mx, model, prompt))) for prompt in prompts]
    print(f"\nmlx-lm: perplexity {expected:.5f}, {found:.5f}; tokens that agree {agree} of {NEW}")
    assert found == pytest.approx(expected, rel=1e-4)
    assert agree == [NEW] * len(prompts)


@pytest.mark.parametrize(("attention", "mlp"), [((), ()), ((1, 3), ()), ((2,), (0, 3))])
@pytest.mark.parametrize("name", ["llama", "tied", "llama3", "bias", "qwen2"])
def test_mlx_gives_the_logits_of_every_kind_of_llama(name, attention, mlp, tmp_path):
    model = drop(shaped(name), attention, mlp)
    mx, engine = mlx_model(export(LoadedModel(model, None, name), tmp_path / "o", to="nemotron-nas").output)
    ids = [(7919 * i + 11) % 320 for i in range(150)]
    expected = logits_of(model, ids)
    found = np.array(engine(mx.array([ids]))[0], dtype=np.float64)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
