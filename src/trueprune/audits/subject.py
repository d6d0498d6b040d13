"""A model under audit, and what its instruments share: activations on statements, computed once and cached.

Legend: N statements, L blocks, D residual width.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trueprune._support.environment import cache_folder, versions
from trueprune._support.errors import AuditError
from trueprune._support.hashing import hash_json, hash_model
from trueprune.audits.faithfulness.explain import Explanation
from trueprune.audits.predictions import Predictions
from trueprune.audits.qa.answers import Answers
from trueprune.audits.qa.choices import Choices
from trueprune.models.anatomy import Anatomy, read_anatomy
from trueprune.models.load import LoadedModel
from trueprune.observe.activations import encode, last_token_activations
from trueprune.plans.drop import Drop
from trueprune.texts.statements import StatementSet

CACHE_LIMIT_BYTES = 4 << 30


class Subject:
    """A model under audit.

    **Arguments:**

    - `name`: how tables call it.
    - `loaded`: the model.
    - `use_cache`: whether activations are read from and written to the cache.
    """

    def __init__(self, name: str, loaded: LoadedModel, use_cache: bool = True):
        self.name = name
        self.use_cache = use_cache
        self._loaded: LoadedModel | None = loaded
        self.predictions: dict[str, Predictions] = {}
        self.explanations: list[Explanation] | None = None
        self.answers: dict[str, Answers] = {}
        self.choices: dict[str, list[Choices]] = {}
        self._activations: tuple[StatementSet, Tensor] | None = None

    @property
    def loaded(self) -> LoadedModel:
        """The model, until it is released."""
        assert self._loaded is not None, f"{self.name} was released"
        return self._loaded

    @cached_property
    def anatomy(self) -> Anatomy:
        """The model's parts."""
        return read_anatomy(self.loaded.model)

    @cached_property
    def sha256(self) -> str:
        """The hash of the weights, in whatever folder they lie."""
        return hash_model(self.loaded.model)

    def release(self) -> None:
        """Let the weights go; activations and all that it answered stay."""
        self._loaded = None
        self.__dict__.pop("anatomy", None)

    def activations(self, statements: StatementSet) -> Tensor:
        """Last-token residual stream after every block, of shape `(N, L, D)`, float32.

        Where blocks were dropped, L counts those of the whole model: a block that is gone passes its input on, so that
        depths mean the same in both models. Cached in a safetensors file named by the hash of the weights, the token
        ids and the library versions.
        """
        if self._activations is None or self._activations[0] is not statements:
            acts_NLD = self._read_or_compute(encode(self.loaded, statements.texts))
            if not bool(torch.isfinite(acts_NLD).all()):
                raise AuditError(
                    f"activations of {self.name} on {statements.name} are not finite",
                    "Run it with --dtype float32; if it still overflows, it was pruned beyond use",
                )
            self._activations = statements, self._at_whole_depths(acts_NLD)
        return self._activations[1]

    @cached_property
    def dropped(self) -> Drop | None:
        """What was dropped from the model, if whole blocks went."""
        data = ((self.loaded.record or {}).get("plan") or {}).get("drop")
        drop = Drop.from_json(data) if data else None
        return drop if drop and drop.gone_blocks else None

    def _at_whole_depths(self, acts_NMD: Tensor) -> Tensor:
        """Activations at every block of the whole model, from those before and after the blocks that are left."""
        if self.dropped is None:
            return acts_NMD
        kept = self.dropped.kept
        if acts_NMD.shape[1] != len(kept) + 1:
            raise AuditError(
                f"by the record of {self.name} {len(kept)} blocks are left, the model has {acts_NMD.shape[1] - 1}",
                "Restore its trueprune.json",
            )
        passed_L = torch.bincount(torch.tensor(kept), minlength=self.dropped.n_blocks).cumsum(0)
        return acts_NMD[:, passed_L]

    def _read_or_compute(self, encoded: list[list[int]]) -> Tensor:
        description = f"statements through {self.name}"
        with_input = self.dropped is not None
        if not self.use_cache:
            return last_token_activations(self.anatomy, encoded, description=description, with_input=with_input)
        config = getattr(self.loaded.model, "config", None)
        key = hash_json([self.sha256, str(config), encoded, with_input, versions()])
        folder = cache_folder() / "activations"
        file = folder / f"{key[:40]}.safetensors"
        if (cached := _read(file)) is not None:
            return cached
        acts_NLD = last_token_activations(self.anatomy, encoded, description=description, with_input=with_input)
        _write(file, acts_NLD)
        return acts_NLD


def _read(file: Path) -> Tensor | None:
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as tensors:
            found = tensors.get_tensor("activations")
        file.touch()
        return found
    except (SafetensorError, OSError):
        # A file cut short by a crash is no reason to fail: it is written anew.
        return None


def _write(file: Path, acts_NLD: Tensor) -> None:
    """Keep activations for the next audit; a cache that cannot be written is only slower."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _make_room(file.parent, acts_NLD.numel() * 4)
        partial = file.with_suffix(".partial")
        save_file({"activations": acts_NLD.contiguous()}, partial)
        partial.rename(file)
    except (OSError, SafetensorError):
        pass
    finally:
        file.with_suffix(".partial").unlink(missing_ok=True)


def _make_room(folder: Path, need: int) -> None:
    """Drop the files that were used longest ago until the cache stays under its limit."""
    files: Sequence[Path] = sorted(folder.glob("*.safetensors"), key=lambda f: f.stat().st_mtime)
    total = sum(f.stat().st_size for f in files) + need
    for old in files:
        if total <= CACHE_LIMIT_BYTES:
            return
        total -= old.stat().st_size
        old.unlink()
