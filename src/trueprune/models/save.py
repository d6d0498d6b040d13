"""Save a model whole or not at all: written aside, loaded again, logits compared, then renamed."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trueprune._support.errors import ModelError
from trueprune._support.folders import whole_folder
from trueprune.models.card import model_card
from trueprune.models.dropped import is_dropped, write_code
from trueprune.models.load import LoadedModel, from_folder, quiet_transformers
from trueprune.models.probe import logit_error, probe_logits
from trueprune.models.record import RECORD


def save(
    loaded: LoadedModel,
    path: str | Path,
    *,
    record: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    free_memory: bool = False,
    beside: Mapping[str, str] | None = None,
) -> Path:
    """Write a checkpoint that plain transformers loads, with `trueprune.json` and a model card beside the weights.

    The checkpoint is loaded again before it takes its name, and must give the logits of the model in memory.
    Under a PEFT wrapper the pruned base model is written, and the adapter to the subfolder `adapter`.

    **Arguments:**

    - `loaded`: model and tokenizer.
    - `path`: the folder to make.
    - `record`: plain data for `trueprune.json` (plan, seeds, token hash, versions ...).
    - `overwrite`: whether an existing folder may be replaced.
    - `free_memory`: give up the weights in memory before the check loads the saved ones, so that the two are never
        held at once; the model is unusable afterwards.
    - `beside`: further text files by name.

    **Returns:** the folder.

    **Raises:** `OutputError` when the folder exists or the disk is full, `ModelError` when the saved checkpoint does
    not give the same logits.
    """
    path = Path(path)
    model = loaded.model
    record = dict(record or {})
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    with quiet_transformers(), whole_folder(path, overwrite, need_bytes=int(size * 1.02)) as work:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            base = _write_weights(model, work)
        if loaded.tokenizer is not None:
            loaded.tokenizer.save_pretrained(work)
        (work / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        for name, text in (beside or {}).items():
            (work / name).write_text(text, encoding="utf-8")
        (work / "README.md").write_text(model_card(record, loaded.source), encoding="utf-8")
        with _adapter_disabled(model):
            expected_BTV = probe_logits(base)
        weights = next(base.parameters())
        dtype, device = weights.dtype, weights.device
        if free_memory:
            base.to("meta")
        _check(work, expected_BTV, dtype, device, loaded.trust_remote_code)
    return path


def _write_weights(model: nn.Module, work: Path) -> Any:
    """Write the (base) model and return it."""
    if not _is_peft(model):
        model.save_pretrained(work)  # type: ignore[operator]
        if is_dropped(model):
            write_code(model, work)
        return model
    base: Any = model.get_base_model()  # type: ignore[operator]
    adapters = {id(p) for name, p in model.named_parameters() if ".base_layer." not in name and "lora" in name.lower()}
    state: dict[str, Tensor] = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in base.state_dict(keep_vars=True).items()
        if id(tensor) not in adapters
    }
    base.save_pretrained(work, state_dict=state)
    if is_dropped(base):
        write_code(base, work)
    model.save_pretrained(work / "adapter")  # type: ignore[operator]
    return base


def _is_peft(model: nn.Module) -> bool:
    return hasattr(model, "get_base_model") and hasattr(model, "disable_adapter")


def _adapter_disabled(model: nn.Module) -> AbstractContextManager[Any]:
    return model.disable_adapter() if _is_peft(model) else nullcontext()  # type: ignore[operator]


def _check(folder: Path, expected_BTV: Tensor, dtype: torch.dtype, device: torch.device, trust: bool) -> None:
    """Load what was written, where the model was, and compare logits."""
    again, info = from_folder(folder, str(folder), dtype=dtype, trust_remote_code=trust)
    if info.get("missing_keys") or info.get("unexpected_keys"):
        keys = [*info["missing_keys"], *info["unexpected_keys"]][:3]
        raise ModelError(f"the saved checkpoint does not load as it was written ({', '.join(keys)})", _REPORT)
    error, tolerance = logit_error(expected_BTV, probe_logits(again.eval().to(device)))
    if not error <= tolerance:
        raise ModelError(f"the saved checkpoint gives other logits (relative error {error:.1e})", _REPORT)


_REPORT = "Nothing was written. Please report the architecture; its save_pretrained does not keep all weights"
