"""What a model consists of, in numbers, from its configuration alone: no weight is read and none takes memory.

Legend: O out features, I in features, D residual width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from trueprune.estimates.work import Number
from trueprune.models.anatomy import Anatomy, Block, read_anatomy
from trueprune.models.sites import WeightSite, has_weights

# Under these names configurations say how many experts a token meets.
EXPERTS_A_TOKEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_top_k", "moe_k", "top_k_experts")


@dataclass(frozen=True)
class Matrix:
    """Prunable matrices of a block that are alike: one, or the same matrix of every expert.

    **Arguments:**

    - `name`: within its block; of experts that of the first.
    - `rows`, `columns`: O and I.
    - `count`: how many there are.
    - `share`: which part of the tokens goes through each.
    - `source`: what names the input; matrices of one source share their input.
    """

    name: str
    rows: int
    columns: int
    count: int = 1
    share: Number = 1.0
    source: str = ""

    @property
    def numel(self) -> int:
        """Weights of all of them."""
        return self.rows * self.columns * self.count


@dataclass(frozen=True)
class BlockShape:
    """A block in numbers.

    **Arguments:**

    - `matrices`: what is pruned, in registration order.
    - `other`: weights of further matrices, which every token meets (routers).
    - `parameters`: all parameters, vectors included.
    - `attention`: O of the attention's output: heads times head width; 0 without attention.
    - `cache`: keys and values of a token, in numbers.
    """

    matrices: tuple[Matrix, ...]
    other: int
    parameters: int
    attention: int
    cache: int

    @property
    def prunable(self) -> int:
        """Weights that are pruned."""
        return sum(matrix.numel for matrix in self.matrices)

    @property
    def has_experts(self) -> bool:
        """Whether tokens part ways."""
        return any(matrix.share < 1 for matrix in self.matrices)

    def inputs(self) -> list[list[Matrix]]:
        """Matrices by the input that they share."""
        groups: dict[str, list[Matrix]] = {}
        for matrix in self.matrices:
            groups.setdefault(matrix.source, []).append(matrix)
        return list(groups.values())


@dataclass(frozen=True)
class ModelShape:
    """A model in numbers.

    **Arguments:**

    - `name`: what was asked for.
    - `blocks`: the decoder stack.
    - `width`: D.
    - `vocabulary`: V.
    - `head`: weights that a position meets on its way to logits; 0 without a head.
    - `parameters`: distinct parameters.
    - `max_length`: positions that the model was made for, or `None`.
    - `dtype`: that of the checkpoint, by its configuration.
    - `notes`: what had to be assumed.
    """

    name: str
    blocks: tuple[BlockShape, ...]
    width: int
    vocabulary: int
    head: int
    parameters: int
    max_length: int | None
    dtype: str
    notes: tuple[str, ...] = ()

    @property
    def prunable(self) -> int:
        """Weights that are pruned."""
        return sum(block.prunable for block in self.blocks)

    @property
    def active(self) -> Number:
        """Weights of the blocks that one token meets."""
        met = (m.numel * m.share for block in self.blocks for m in block.matrices)
        return sum(met) + sum(block.other for block in self.blocks)


def shape_of(model: nn.Module, name: str, dtype: str) -> ModelShape:
    """The shape of a model on the meta device.

    **Arguments:**

    - `model`: built on the meta device; its parameters are replaced.
    - `name`: how results call it.
    - `dtype`: that of its checkpoint.

    **Raises:** `ModelError` for an architecture that cannot be read by structure.
    """
    parameters = sum(p.numel() for p in model.parameters())
    _stretch(model)
    anatomy = read_anatomy(model)
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    notes: list[str] = []
    table = anatomy.embeddings.weight
    vocabulary, width = int(table.shape[0]), _width(anatomy)  # type: ignore[index,arg-type]
    blocks = tuple(_block(block, width, text, notes) for block in anatomy.blocks)
    head = 0 if anatomy.head is None else sum(p.numel() for p in anatomy.head.parameters() if p.dim() == 2)
    longest = next((v for n in ("max_position_embeddings", "n_positions") if (v := getattr(text, n, None))), None)
    return ModelShape(name, blocks, width, vocabulary, head, parameters, longest, dtype, tuple(dict.fromkeys(notes)))


def _stretch(model: nn.Module) -> None:
    """Put one number in the place of each parameter, stretched to its shape.

    Structure is read off tensors that lie in memory: on the meta device nothing tells a matrix that two blocks share
    from two matrices.
    """
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) not in made:
                one = torch.zeros(1, dtype=parameter.dtype).expand(parameter.shape)
                made[id(parameter)] = nn.Parameter(one, requires_grad=False)
            module._parameters[name] = made[id(parameter)]


def _width(anatomy: Anatomy) -> int:
    """The residual width: that of the last matrix back to the stream, else that of the embeddings."""
    config: Any = getattr(anatomy.model, "config", None)
    return int(getattr(config, "hidden_size", 0) or anatomy.embeddings.weight.shape[-1])  # type: ignore[union-attr,index]


def _block(block: Block, width: int, config: Any, notes: list[str]) -> BlockShape:
    lists = _expert_lists(block.module)
    stacks: dict[tuple[int, str], int] = {}
    for site in block.sites:
        if site.expert is not None:
            key = (id(site.module), site.parameter)
            stacks[key] = stacks.get(key, 0) + 1
    asked = next((v for n in EXPERTS_A_TOKEN if isinstance(v := getattr(config, n, None), int) and v > 0), None)
    if (stacks or lists) and asked is None:
        notes.append("the configuration does not say how many experts a token meets: all are counted")
    matrices: list[Matrix] = []
    for site in block.sites:
        if site.expert is not None:
            if site.expert == 0:
                count = stacks[id(site.module), site.parameter]
                matrices.append(_matrix(site, count, asked))
            continue
        listed = next(((path, size) for path, size in lists if site.name.startswith(path + ".")), None)
        if listed is None:
            matrices.append(_matrix(site, 1, None))
        elif site.name.startswith(f"{listed[0]}.0."):
            matrices.append(_matrix(site, listed[1], asked))
    attention = _of(block.attention, matrices)
    value = attention[-1].columns if attention else 0
    if attention and (back := [m for m in attention if m.rows == width and m.columns != width]):
        value = back[-1].columns
    known = sum(site.numel for site in block.sites)
    table = sum(p.numel() for p in block.module.parameters() if p.dim() in (2, 3))
    return BlockShape(
        matrices=_with_sources(matrices, block),
        other=max(0, table - known),
        parameters=sum(p.numel() for p in block.module.parameters()),
        attention=value,
        cache=_cache(attention, value, width),
    )


def _matrix(site: WeightSite, count: int, asked: int | None) -> Matrix:
    rows, columns = site.shape
    share = min(1.0, asked / count) if asked and count > 1 else 1.0
    return Matrix(site.name, rows, columns, count, share)


def _expert_lists(block: nn.Module) -> list[tuple[str, int]]:
    """Lists of modules that all own matrices: experts of models that do not stack them."""
    return [
        (path, len(module))
        for path, module in block.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) > 1 and all(map(has_weights, module))
    ]


def _of(sublayer: Any, matrices: list[Matrix]) -> list[Matrix]:
    names = () if sublayer is None else sublayer.names
    return [matrix for matrix in matrices if matrix.name.split(".")[0] in names]


def _cache(attention: list[Matrix], value: int, width: int) -> int:
    """Keys and values of a token: what reads the stream gives queries, keys and values, and queries are as wide as what
    goes back. Where that does not add up (keys and values of low rank), as if every query had its own."""
    if not attention:
        return 0
    read = [m for m in attention if m.columns == width and not (m.rows == width and m.columns == value)]
    if len(read) < len(attention) - 1:
        read = attention[:-1] if attention[-1].columns == value else attention[1:]
    rest = sum(m.rows for m in read) - value
    return rest if 0 < rest <= 2 * value else 2 * value


def _with_sources(matrices: list[Matrix], block: Block) -> tuple[Matrix, ...]:
    """Name the inputs: in a sublayer, matrices of one width share theirs, but for the last, which goes back.

    Which matrices read one tensor is only seen when a block runs; this rule is ours. It counts one input too many where
    attention and MLP read the same tensor (Falcon's blocks side by side).
    """
    found: list[Matrix] = []
    tops: dict[str, list[Matrix]] = {}
    for matrix in matrices:
        tops.setdefault(_sublayer_of(matrix, block), []).append(matrix)
    for matrix in matrices:
        top = _sublayer_of(matrix, block)
        last = len(tops[top]) > 1 and matrix is tops[top][-1]
        source = f"{top}/{matrix.columns}/{matrix.count}{'/back' if last else ''}"
        found.append(Matrix(matrix.name, matrix.rows, matrix.columns, matrix.count, matrix.share, source))
    return tuple(found)


def _sublayer_of(matrix: Matrix, block: Block) -> str:
    for kind, sublayer in (("attention", block.attention), ("mlp", block.mlp)):
        if sublayer is not None and matrix.name.split(".")[0] in sublayer.names:
            # A shared expert stands beside the others, and reads the same stream.
            return kind if matrix.count == 1 else f"{kind}/experts"
    return "block"
