"""What a model consists of: parameters, bytes of its checkpoint, and which of its parts are there.

Legend: O out features, G groups of 4 consecutive inputs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from trueprune.models.anatomy import Anatomy
from trueprune.models.demo import demo_folder
from trueprune.models.load import LoadedModel
from trueprune.models.record import read_record

# What transformers would read, in its order of preference: one file, or the files that an index names.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
OTHER_WEIGHT_FILES = ("*.safetensors", "*.bin", "*.gguf")


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Distinct parameters, and how many of them are not zero."""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters), sum(int(torch.count_nonzero(p)) for p in parameters)


def checkpoint_bytes(loaded: LoadedModel) -> int:
    """Bytes of the weight files that a model was loaded from; of its distinct parameters if it was changed since."""
    source = demo_folder() if loaded.source == "demo" else Path(loaded.source)
    there = source.parent if source.is_file() else source
    if loaded.record != read_record(there):
        return sum(p.numel() * p.element_size() for p in loaded.model.parameters())
    if source.is_file():
        return source.stat().st_size
    files = weight_files(source) if source.is_dir() else []
    if files:
        return sum(file.stat().st_size for file in files)
    return sum(p.numel() * p.element_size() for p in loaded.model.parameters())


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a checkpoint folder, each once."""
    for name in WEIGHT_FILES:
        file = folder / name
        if file.is_file() and file.suffix == ".json":
            shards = json.loads(file.read_text(encoding="utf-8"))["weight_map"].values()
            return [folder / shard for shard in sorted(set(shards))]
        if file.is_file():
            return [file]
    for pattern in OTHER_WEIGHT_FILES:
        if files := sorted(folder.glob(pattern)):
            return files
    return []


@dataclass(frozen=True)
class Structure:
    """Which parts of a model are there, in numbers.

    **Arguments:**

    - `blocks`: decoder blocks.
    - `attention`, `mlp`: blocks that have an attention sublayer, an MLP sublayer.
    - `weights`: prunable weights.
    - `zeros`: how many of them are zero.
    - `matrices`: prunable matrices that hold zeros.
    - `two_of_four`: how many of those hold at least two zeros in every four consecutive inputs.
    """

    blocks: int
    attention: int
    mlp: int
    weights: int
    zeros: int
    matrices: int
    two_of_four: int


def read_structure(anatomy: Anatomy) -> Structure:
    """Count a model's parts and its zeros."""
    sites = [site for block in anatomy.blocks for site in block.sites]
    zeros = [site.numel - int(torch.count_nonzero(site.weight_OI)) for site in sites]
    sparse = [site for site, count in zip(sites, zeros, strict=True) if count]
    return Structure(
        blocks=len(anatomy.blocks),
        attention=sum(block.attention is not None for block in anatomy.blocks),
        mlp=sum(block.mlp is not None for block in anatomy.blocks),
        weights=sum(anatomy.weights),
        zeros=sum(zeros),
        matrices=len(sparse),
        two_of_four=sum(is_two_of_four(site.weight_OI) for site in sparse),
    )


def is_two_of_four(weight_OI: Tensor) -> bool:
    """Whether every four consecutive inputs of every row hold at least two zeros."""
    if weight_OI.shape[1] % 4:
        return False
    zeros_OG4 = (weight_OI == 0).reshape(weight_OI.shape[0], -1, 4)
    return bool((zeros_OG4.sum(-1) >= 2).all())
