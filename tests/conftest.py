"""Shared fixtures: tiny models with a tokenizer, saved to disk once a session."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from zoo import tiny_model

from trueprune.models.load import LoadedModel
from trueprune.texts.rows import embedded_file, read_documents


@pytest.fixture(scope="session", autouse=True)
def _few_threads():
    # Workers share two cores; results of a test must not depend on how many there are.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Tests read and write a cache of their own, and no mirror unless they ask for one."""
    monkeypatch.setenv("TRUEPRUNE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("TRUEPRUNE_DATA", raising=False)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of 320 tokens, the vocabulary of the tiny models."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(read_documents(embedded_file("calibration.jsonl")), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=256
    )


@pytest.fixture
def tiny(tokenizer) -> LoadedModel:
    """A fresh tiny Llama with its tokenizer."""
    return LoadedModel(tiny_model("llama"), tokenizer, "tiny-llama")


@pytest.fixture(scope="session")
def tiny_folder(tokenizer, tmp_path_factory):
    """A saved tiny Llama with its tokenizer. Read only."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    tiny_model("llama").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
