"""GGUF: one file for llama.cpp, written tensor by tensor, and read again.

Legend: O out features, I in features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trueprune._support.errors import ModelError
from trueprune._support.progress import track
from trueprune.models.exports.gguf_tokenizer import GgufTokenizer, read_gguf_tokenizer
from trueprune.models.exports.options import ExportOptions
from trueprune.models.exports.shape import LlamaShape
from trueprune.models.exports.twin import check_twin, plain_blocks, twin_of
from trueprune.models.load import LoadedModel

# The file types of llama.cpp: what most matrices are stored as.
FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7}
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def write_gguf(loaded: LoadedModel, shape: LlamaShape, work: Path, options: ExportOptions) -> dict[str, Any]:
    """Write `model-<type>.gguf`: architecture `llama`, or `deci` where blocks differ or lack attention.

    **Arguments:**

    - `loaded`: model and tokenizer.
    - `shape`: what was read from the model.
    - `work`: an empty folder.
    - `options`: how matrices are stored, and whether the tokenizer is.

    **Returns:** plain data about what was written.

    **Raises:** `ModelError` for what llama.cpp would compute differently, for a tokenizer that it does not know, or
    when the file does not hold what was written.
    """
    gguf = _package()
    if options.gguf_type not in FILE_TYPES:
        raise ModelError(f"unknown GGUF type {options.gguf_type!r}", f"Use one of {', '.join(FILE_TYPES)}")
    _refuse_traps(shape)
    tokenizer = read_gguf_tokenizer(loaded, shape.vocab) if options.gguf_tokenizer else None
    check_twin(shape, twin_of(shape, plain_blocks(shape)))
    architecture = architecture_of(shape)
    file = work / f"model-{options.gguf_type}.gguf"
    writer = gguf.GGUFWriter(file, architecture)
    try:
        _write_metadata(writer, shape, architecture, options, loaded.source)
        _write_tokenizer(writer, tokenizer)
        tensors = dict(gguf_tensors(shape))
        for name, (tensor, _) in tensors.items():
            kind = _kind(tensor, options.gguf_type)
            size, count = gguf.GGML_QUANT_SIZES[kind][1], gguf.GGML_QUANT_SIZES[kind][0]
            writer.add_tensor_info(
                name, tuple(tensor.shape), np.dtype(np.float32), tensor.numel() // count * size, raw_dtype=kind
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, (tensor, heads) in track(tensors.items(), "Writing tensors", len(tensors)):
            writer.write_tensor_data(_stored(name, tensor, heads, options.gguf_type))
    finally:
        writer.close()
    _check(file, tensors, options.gguf_type)
    notes = list(tokenizer.notes) if tokenizer else ["no tokenizer: the file takes and gives token ids"]
    pre = tokenizer.pre if tokenizer else None
    return {
        "architecture": architecture,
        "file": file.name,
        "type": options.gguf_type,
        "tokenizer": pre,
        "notes": notes,
    }


def architecture_of(shape: LlamaShape) -> str:
    """`deci` says dimensions block by block, and knows blocks without attention; `llama` is known more widely."""
    alike = len({(block.heads, block.kv_heads, block.width) for block in shape.blocks}) == 1
    return "llama" if alike else "deci"


def gguf_tensors(shape: LlamaShape) -> Iterator[tuple[str, tuple[Tensor, int]]]:
    """GGUF's names, each with the tensor and the number of heads whose rows are to be put in llama.cpp's order."""
    for path, tensor in shape.tensors():
        name, _, kind = path.rpartition(".")
        if name in OUTER:
            yield f"{OUTER[name]}.{kind}", (tensor, 0)
            continue
        index, _, inner = name.removeprefix("model.layers.").partition(".")
        block = shape.blocks[int(index)]
        heads = {"self_attn.q_proj": block.heads, "self_attn.k_proj": block.kv_heads}.get(inner, 0)
        yield f"blk.{index}.{NAMES[inner]}.{kind}", (tensor, heads)
    if shape.rope["rope_type"] == "llama3":
        yield "rope_freqs.weight", (llama3_factors(shape.rope, shape.head_dim), 0)


def llama3_factors(rope: dict[str, Any], head_dim: int) -> Tensor:
    """What llama.cpp divides each rotary frequency by; of shape `(head_dim / 2,)`.

    As in Llama 3.1: wavelengths above the original context are stretched by `factor`, short ones are left alone, and
    those between are interpolated.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    wavelength = 2 * math.pi * rope["rope_theta"] ** exponents
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    share = (rope["original_max_position_embeddings"] / wavelength - low) / (high - low)
    share = share.clamp(0, 1)
    return (1 / (share + (1 - share) / rope["factor"])).float()


def rotary_rows(tensor: Tensor, heads: int) -> Tensor:
    """Put the rows of each head in the order of llama.cpp.

    transformers turns feature i with feature i + d/2 of a head, llama.cpp's Llama turns neighbours.
    """
    if not heads:
        return tensor
    pairs = tensor.unflatten(0, (heads, 2, -1))
    return pairs.transpose(1, 2).reshape(tensor.shape)


def _package() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise ModelError("writing GGUF needs gguf", "Install it: pip install 'trueprune[gguf]'") from error
    return gguf


def _refuse_traps(shape: LlamaShape) -> None:
    for index, block in enumerate(shape.blocks):
        if block.mlp is None:
            raise ModelError(
                f"the MLP of block {index} was dropped: llama.cpp leaves out the attention of a block without MLP",
                "Drop attention or whole blocks, or export with --to nemotron-nas for other engines",
            )
    if shape.blocks[0].attention is None:
        raise ModelError(
            "the attention of the first block was dropped: llama.cpp takes the size of a head from that block",
            "Drop the attention of later blocks only, or drop the first block whole",
        )


def _write_metadata(writer: Any, shape: LlamaShape, architecture: str, options: ExportOptions, source: str) -> None:
    gguf = _package()
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(Path(source).name)
    writer.add_file_type(FILE_TYPES[options.gguf_type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(shape.vocab)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(len(shape.blocks))
    writer.add_layer_norm_rms_eps(shape.eps)
    writer.add_rope_freq_base(float(shape.rope["rope_theta"]))
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    heads = [block.heads for block in shape.blocks]
    kv_heads = [block.kv_heads for block in shape.blocks]
    widths = [block.width for block in shape.blocks]
    one = architecture == "llama"
    writer.add_head_count(heads[0] if one else heads)
    writer.add_head_count_kv(kv_heads[0] if one else kv_heads)
    writer.add_feed_forward_length(widths[0] if one else widths)


def _write_tokenizer(writer: Any, tokenizer: GgufTokenizer | None) -> None:
    if tokenizer is None:
        writer.add_tokenizer_model("no_vocab")
        return
    writer.add_tokenizer_model(tokenizer.model)
    writer.add_tokenizer_pre(tokenizer.pre)
    writer.add_token_list(tokenizer.tokens)
    writer.add_token_types(tokenizer.types)
    writer.add_token_merges(tokenizer.merges)
    for name, value in tokenizer.ids.items():
        getattr(writer, f"add_{name}_token_id")(value)
    writer.add_add_bos_token(tokenizer.add_bos)
    writer.add_add_eos_token(tokenizer.add_eos)
    if tokenizer.chat_template is not None:
        writer.add_chat_template(tokenizer.chat_template)


def _kind(tensor: Tensor, wanted: str) -> Any:
    kinds = _package().GGMLQuantizationType
    if tensor.dim() == 1 or wanted == "f32":
        return kinds.F32
    return kinds.Q8_0 if wanted == "q8_0" and tensor.shape[-1] % 32 == 0 else kinds.F16


def _stored(name: str, tensor: Tensor, heads: int, wanted: str) -> np.ndarray:
    gguf = _package()
    values = rotary_rows(tensor.detach().to("cpu", torch.float32), heads).contiguous().numpy()
    kind = _kind(tensor, wanted)
    if kind == gguf.GGMLQuantizationType.F16 and np.abs(values).max() > np.finfo(np.float16).max:
        raise ModelError(f"{name} holds values beyond the range of f16", "Export with --gguf-type f32")
    return gguf.quants.quantize(values, kind)


def _check(file: Path, tensors: dict[str, tuple[Tensor, int]], wanted: str) -> None:
    """Read the file again and compare every tensor with the model's."""
    gguf = _package()
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    wrong = sorted(found.keys() ^ tensors.keys())
    for name, (tensor, heads) in track(() if wrong else tensors.items(), "Reading them again", len(tensors)):
        values = rotary_rows(tensor.detach().to("cpu", torch.float32), heads).numpy()
        kind = _kind(tensor, wanted)
        read = gguf.quants.dequantize(found[name].data, kind).reshape(values.shape)
        # Half a unit in the last place: 11 bits of f16, or 127 steps to the largest value of a block of q8_0.
        step = {"F32": 0, "F16": 2**-11, "Q8_0": 1 / 200}[kind.name]
        if found[name].tensor_type != kind or not np.abs(read - values).max() <= step * np.abs(values).max() + 1e-7:
            wrong.append(name)
    if wrong:
        raise ModelError(f"the GGUF file does not hold what was written ({wrong[0]})", "Nothing was written; report it")
