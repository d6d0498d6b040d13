"""Load a causal language model: hub id, local folder, GGUF file or folder, or the packaged demo model."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file
from transformers.utils.quantization_config import GgufConfig

from trueprune._support.errors import ModelError
from trueprune.models.dropped import read_dropped
from trueprune.models.record import RECORD, read_record

# transformers types its factory too narrowly for what it accepts and returns.
AUTO_MODEL: Any = AutoModelForCausalLM
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "auto": "auto"}


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model, its tokenizer, and where they came from.

    **Arguments:**

    - `model`: the causal language model, in evaluation mode.
    - `tokenizer`: its tokenizer, or `None` when texts are given as token ids.
    - `source`: what was asked for, e.g. `"demo"` or a path.
    - `trust_remote_code`: whether code in the checkpoint may run, also when a pruned copy of it is checked.
    - `record`: what was done to it before (`trueprune.json`), or `None`.
    """

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase | None
    source: str
    trust_remote_code: bool = False
    record: Mapping[str, Any] | None = None

    @property
    def device(self) -> torch.device:
        """Where the embeddings lie, and so where token ids go."""
        return self.model.get_input_embeddings().weight.device  # type: ignore[operator,union-attr]

    @property
    def max_length(self) -> int | None:
        """The most positions that the model was made for, or `None` if its configuration does not say."""
        config = getattr(self.model, "config", None)
        return getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)


def load(
    model: str | Path,
    *,
    dtype: str = "auto",
    device: str | None = None,
    device_map: str | dict[str, Any] | None = None,
    trust_remote_code: bool = False,
) -> LoadedModel:
    """Load a model and its tokenizer.

    **Arguments:**

    - `model`: `"demo"`, a local folder, a GGUF file or a folder that holds one, or a hub id.
    - `dtype`: `"auto"` (that of the checkpoint; float32 for GGUF), `"float32"`, `"bfloat16"` or `"float16"`.
    - `device`: e.g. `"cpu"`, `"cuda:0"`; by default the CPU.
    - `device_map`: passed to transformers, which then places the model (needs `accelerate`).
    - `trust_remote_code`: whether code in the checkpoint may run. Off unless asked.

    **Returns:** a `LoadedModel` in evaluation mode.

    **Raises:** `ModelError` for a checkpoint that is missing, damaged or incomplete.
    """
    if dtype not in DTYPES:
        raise ModelError(f"unknown dtype {dtype!r}", f"Use one of {', '.join(DTYPES)}")
    if device is not None and device_map is not None:
        raise ModelError("--device and --device-map were both given", "Use one of them")
    check_source(model)
    source = str(model)
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if source == "demo":
        from trueprune.models.demo import demo_folder

        folder = demo_folder()
    elif gguf := _gguf_file(Path(source)):
        if device_map is not None:
            raise ModelError("a GGUF file cannot be loaded with --device-map", "Use --device, or convert it first")
        return _load_gguf(gguf, dtype, device, source)
    else:
        folder = Path(source)
    location = str(folder) if folder.exists() else source
    if folder.is_dir():
        check_folder(folder)
    if device_map is not None:
        options["device_map"] = device_map
    loaded, info = from_folder(location, source, dtype=DTYPES[dtype], **options)
    _refuse_missing(info, source)
    tokenizer = _load_tokenizer(location, trust_remote_code)
    if device is not None:
        _move(loaded, device)
    return LoadedModel(loaded.eval(), tokenizer, source, trust_remote_code, _record_of(folder, source))


def from_folder(location: str | Path, source: str, **options: Any) -> tuple[Any, Any]:
    """A model and transformers' report of what was missing, from a checkpoint of transformers or of ours.

    **Raises:** `ModelError`.
    """
    with errors_named(source):
        if dropped := read_dropped(Path(location)):
            # A checkpoint without some sublayers: its code is part of this package, that in the folder is not run.
            model_class: Any = dropped[0]
            config = dropped[1]
            options.pop("trust_remote_code", None)
            return model_class.from_pretrained(location, config=config, output_loading_info=True, **options)
        return AUTO_MODEL.from_pretrained(location, output_loading_info=True, **options)


def check_source(model: str | Path) -> None:
    """Refuse a model that is plainly a path and is not there, before anything slow starts.

    **Raises:** `ModelError`.
    """
    name = str(model)
    if name == "demo" or Path(name).exists():
        return
    is_hub_id = re.fullmatch(r"[\w][\w.-]*(/[\w][\w.-]*)?", name) is not None
    if name.endswith(".gguf"):
        raise ModelError(f"no GGUF file at {name}", "Check the path")
    if not is_hub_id:
        remedy = "Check the path; give 'demo', a folder with config.json and safetensors, a GGUF file, or a hub id"
        raise ModelError(f"there is no folder or file {name}", remedy)


def check_folder(folder: Path) -> None:
    """Open every safetensors file of a folder, so that a truncated one is named before anything is built.

    **Raises:** `ModelError`.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} holds no config.json", "Give the folder of a transformers checkpoint")
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt"):
                pass
        except SafetensorError as error:
            raise ModelError(f"{file} is truncated or damaged ({error})", "Copy or download the file again") from error


def _record_of(folder: Path, source: str) -> dict[str, Any] | None:
    """What was done to a checkpoint before, from its folder or from its files of the hub."""
    if not folder.is_dir():
        file = cached_file(
            source,
            RECORD,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if file is None:
            return None
        folder = Path(file).parent
    return read_record(folder)


def _gguf_file(path: Path) -> Path | None:
    if path.suffix == ".gguf":
        return path
    if path.is_dir() and not (path / "config.json").exists():
        files = sorted(path.glob("*.gguf"))
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise ModelError(f"{path} holds several GGUF files ({names})", "Give the path of one of them")
        return files[0] if files else None
    return None


def _load_gguf(file: Path, dtype: str, device: str | None, source: str) -> LoadedModel:
    torch_dtype = torch.float32 if dtype == "auto" else DTYPES[dtype]
    try:
        import accelerate  # noqa: F401
        import gguf  # noqa: F401
    except ImportError as error:
        raise ModelError(f"reading GGUF needs {error.name}", "Install it: pip install 'trueprune[gguf]'") from error
    folder = str(file.parent)
    with errors_named(source):
        model = AUTO_MODEL.from_pretrained(
            folder, gguf_file=file.name, dtype=torch_dtype, quantization_config=GgufConfig(dequantize=True)
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file.name)
    # The weights are plain floats now; what says otherwise would keep the model from being saved.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    if device is not None:
        _move(model, device)
    return LoadedModel(model.eval(), tokenizer, source, record=read_record(file.parent))


def _move(model: nn.Module, device: str) -> None:
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).strip().splitlines()[0]
        raise ModelError(
            f"cannot use --device {device} ({first[:200]})", "Use cpu, or e.g. cuda:0 where there is one"
        ) from error


def _load_tokenizer(location: str, trust_remote_code: bool) -> PreTrainedTokenizerBase | None:
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if dropped := read_dropped(Path(location)):
        # With the configuration at hand, transformers has no reason to look for the code in the folder.
        options = {"config": dropped[1], "trust_remote_code": False}
    try:
        return AutoTokenizer.from_pretrained(location, **options)
    except Exception as error:
        # A model without a tokenizer can still be pruned on token ids; whoever needs text says so by name.
        folder = Path(location)
        if folder.is_dir() and not any(folder.glob("*token*")) and not any(folder.glob("vocab*")):
            return None
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        problem = f"the tokenizer of {location} cannot be read ({first[:200]})"
        raise ModelError(problem, "Restore its files, or install what it needs") from error


def _refuse_missing(info: Any, source: str) -> None:
    missing = sorted(info.get("missing_keys", ()) or ())
    mismatched = sorted(str(key) for key in info.get("mismatched_keys", ()) or ())
    if missing or mismatched:
        names = ", ".join([*missing, *mismatched][:3])
        raise ModelError(
            f"{source} lacks {len(missing)} tensors and has {len(mismatched)} of a wrong shape (e.g. {names}); "
            "transformers would fill them with random numbers",
            "The checkpoint and its config.json do not belong together",
        )


@contextlib.contextmanager
def errors_named(source: str) -> Iterator[None]:
    """Turn what loading a checkpoint may raise into one `ModelError` that names it."""
    try:
        yield
    except (OSError, ValueError, SafetensorError, KeyError, RuntimeError, ImportError) as error:
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"{source} comes with code of its own, which runs only when asked",
                "Read it, and if you trust it use --trust-remote-code",
            ) from error
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"cannot load {source!r} ({first[:240]})",
            "Give 'demo', a folder with config.json and safetensors, a GGUF file, or a hub id that is reachable",
        ) from error


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' own bars and notices; ours say what matters."""
    verbosity, bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(verbosity)
        if bars:
            transformers.logging.enable_progress_bar()
