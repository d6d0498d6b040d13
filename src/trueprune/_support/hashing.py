"""Content hashes that name cached activations, calibration tokens and models."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def hash_tensor(tensor: Tensor) -> str:
    """SHA-256 of a tensor's shape, dtype and bytes."""
    return hash_tensors({"": tensor})


def hash_tensors(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over named tensors in name order: names, shapes, dtypes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def hash_model(model: nn.Module) -> str:
    """SHA-256 over all parameters of a model, whatever it is called and wherever it lies."""
    return hash_tensors({name: parameter for name, parameter in model.named_parameters() if parameter.numel()})


def hash_json(value: Any) -> str:
    """SHA-256 of plain data, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()
