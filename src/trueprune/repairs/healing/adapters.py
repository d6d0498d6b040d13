"""Trains matrices so that what is trained is what is saved: zeros are held in the forward, not put back at the end.

A plain LoRA computes `W x + s B A x`: merged into a pruned W and masked, that is another model than the one that was
trained. Here the forward of a matrix multiplies by `W + mask * (s B A)` itself, which holds the zeros of W at every
step and needs no other forward after the merge. `full` multiplies by `mask * W'` with W' trained, so that masked
gradients, momentum and weight decay cannot move a zero.
Legend: O out features, I in features, R rank.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from trueprune._support.errors import ModelError, RepairError
from trueprune.models.anatomy import Block
from trueprune.models.sites import WeightSite

NAME = "healing"
# The usual scale of LoRA's update (Hu et al. 2021, arXiv 2106.09685): alpha is twice the rank.
ALPHA_PER_RANK = 2


class MatrixUpdate(ABC):
    """One matrix while it is trained.

    **Arguments:**

    - `name`: from the model, e.g. `"model.layers.3.mlp.up_proj"`.
    - `site`: the matrix.
    - `dtype`: of the arithmetic. The mask is held in it: a product of two tensors of one dtype is several times faster
        on a CPU than anything with a bool in it.
    - `keep`: keep the weight that was made last until what is trained changes. Where activations are kept for the
        backward pass, so are these weights, and keeping them costs no more.
    """

    def __init__(self, name: str, site: WeightSite, dtype: torch.dtype, keep: bool = False):
        self.name = name
        self.site = site
        self.keep = keep
        self._kept: tuple[Any, Tensor] | None = None
        kept_OI = site.weight_OI != 0
        # A matrix without zeros needs no mask.
        self.mask_OI: Tensor | None = None if bool(kept_OI.all()) else kept_OI.to(dtype)

    @property
    @abstractmethod
    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by name."""

    @abstractmethod
    def raw(self) -> Tensor:
        """The trained weight before the mask, `(out, in)`, float32; a new tensor."""

    @abstractmethod
    def gradients(self, weight_OI: Tensor) -> tuple[Tensor, ...]:
        """Gradients of what is trained, in the order of `parameters`, given that of the weight."""

    def forward(self, x: Tensor) -> Tensor:
        """In place of the matrix's own forward."""
        return _MaskedProduct.apply(x, self, *self.parameters.values())  # type: ignore[return-value]

    def weight(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weight that the forward multiplies by, `(out, in)`, with the zeros held; not to be written to."""
        # Torch counts how often a tensor was written to in place.
        made_of = (dtype, *(parameter._version for parameter in self.parameters.values()))
        if self._kept is None or self._kept[0] != made_of:
            weight_OI = self.held(self.raw().to(dtype))
            if not self.keep:
                return weight_OI
            self._kept = (made_of, weight_OI)
        return self._kept[1]

    def held(self, tensor_OI: Tensor) -> Tensor:
        """A tensor with zeros put in where the weight has zeros, in place."""
        return tensor_OI if self.mask_OI is None else tensor_OI.mul_(self.mask_OI.to(tensor_OI.dtype))

    @torch.no_grad()
    def merge(self) -> None:
        """Write the trained weight into the model."""
        weight_OI = self.site.weight_OI
        weight_OI.copy_(self.weight())
        if self.mask_OI is not None and (moved := int((weight_OI[self.mask_OI == 0] != 0).sum())):
            raise RepairError(f"{moved} zeros of {self.name} were lost", "Please report this model")


class LowRank(MatrixUpdate):
    """LoRA (Hu et al. 2021, arXiv 2106.09685, equation 3) under the mask: `W + mask * (alpha / r) B A`.

    **Arguments:**

    - `name`, `site`, `dtype`, `keep`: as in `MatrixUpdate`.
    - `layer`: PEFT's layer around the matrix, which holds A and B.
    """

    def __init__(self, name: str, site: WeightSite, dtype: torch.dtype, layer: Any, keep: bool = False):
        super().__init__(name, site, dtype, keep)
        self.a_RI: nn.Parameter = layer.lora_A[NAME].weight
        self.b_OR: nn.Parameter = layer.lora_B[NAME].weight
        self.scale: float = layer.scaling[NAME]

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """A and B."""
        return {f"{self.name}.lora_A": self.a_RI, f"{self.name}.lora_B": self.b_OR}

    def raw(self) -> Tensor:
        """`W + (alpha / r) B A`, which is zero under the mask as the update is, for W is zero there."""
        return torch.addmm(self.site.weight_OI.float(), self.b_OR, self.a_RI, alpha=self.scale)

    def gradients(self, weight_OI: Tensor) -> tuple[Tensor, ...]:
        """Of A and B."""
        a_RI, b_OR = self.a_RI.to(weight_OI.dtype), self.b_OR.to(weight_OI.dtype)
        return (b_OR.T @ weight_OI).float() * self.scale, (weight_OI @ a_RI.T).float() * self.scale


class Full(MatrixUpdate):
    """The weight itself, held in float32 while it is trained."""

    def __init__(self, name: str, site: WeightSite, dtype: torch.dtype, keep: bool = False):
        super().__init__(name, site, dtype, keep)
        self.trained_OI = nn.Parameter(site.weight_OI.float().clone())

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The weight."""
        return {f"{self.name}.weight": self.trained_OI}

    def raw(self) -> Tensor:
        """W'; under the mask that is `mask * W'`."""
        return self.trained_OI.detach().clone()

    def gradients(self, weight_OI: Tensor) -> tuple[Tensor, ...]:
        """Of the weight."""
        return (weight_OI.float(),)


class _MaskedProduct(torch.autograd.Function):
    """`x W^T + b` for a weight that an update makes, with few large tensors on the way: these take the time on a CPU.

    Computed in the dtype of autocast where that is on, as a Linear would be.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, update: MatrixUpdate, *_parameters: Tensor) -> Tensor:
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        # A low-rank product rounded to bfloat16 would not be the one that is merged.
        with torch.autocast(device, enabled=False):
            weight_OI = update.weight(dtype)
            bias: Any = update.site.module.bias
            read = x.to(dtype)
            ctx.update, ctx.dtype = update, x.dtype
            ctx.save_for_backward(read, weight_OI)
            return F.linear(read, weight_OI, None if bias is None else bias.to(dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        grad, (x, weight_OI) = grads[0], ctx.saved_tensors
        grad_x = (grad @ weight_OI).to(ctx.dtype) if ctx.needs_input_grad[0] else None
        grad_OI = ctx.update.held(grad.flatten(0, -2).T @ x.flatten(0, -2))
        return grad_x, None, *ctx.update.gradients(grad_OI)


def make_updates(
    blocks: Sequence[Block],
    adapt: str,
    *,
    dtype: torch.dtype = torch.float32,
    keep: bool = False,
    rank: int = 8,
    seed: int = 0,
) -> list[MatrixUpdate]:
    """An update for each Linear matrix of some blocks. Nothing in the model is changed.

    Norms, embeddings, head and routers are never trained. Neither are experts that are stacked in one 3-D parameter:
    PEFT cannot adapt one expert of a stack; see `left_out`.

    **Arguments:**

    - `blocks`: the blocks that are trained.
    - `adapt`: `"lora"` or `"full"`.
    - `dtype`, `keep`: as in `MatrixUpdate`.
    - `rank`, `seed`: of LoRA's matrices.

    **Raises:** `RepairError` where there is nothing to train, or without PEFT; `ModelError` for a matrix whose module
    computes more than a product, or a model under a PEFT wrapper.
    """
    found = [(f"{block.path}.{site.name}", site) for block in blocks for site in block.sites if site.expert is None]
    if not found:
        raise RepairError(
            f"{', '.join(block.path for block in blocks)}: stacked experts alone, which are not trained",
            "Choose blocks with Linear matrices (--layers)",
        )
    if any(hasattr(module, "base_layer") for block in blocks for module in block.module.modules()):
        raise ModelError("the model carries an adapter already", "Merge it into the model first")
    for name, site in found:
        if type(site.module).forward not in (nn.Linear.forward, Conv1D.forward):
            raise ModelError(f"{name} is a {type(site.module).__name__}, not a plain matrix", "Choose other --layers")
    if adapt == "full":
        return [Full(name, site, dtype, keep) for name, site in found]
    layers = _peft_layers([site for _, site in found], rank, seed)
    return [LowRank(name, site, dtype, layer, keep) for (name, site), layer in zip(found, layers, strict=True)]


def left_out(blocks: Sequence[Block]) -> list[str]:
    """The stacked experts of some blocks, which are not trained: a name each, without the number of the expert."""
    names = [f"{block.path}.{site.name}" for block in blocks for site in block.sites if site.expert is not None]
    return list(dict.fromkeys(name.rpartition("[")[0] for name in names))


def _peft_layers(sites: Sequence[WeightSite], rank: int, seed: int) -> list[Any]:
    """PEFT's LoRA layers around the matrices, in a container of their own: the model is not changed."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise RepairError(
            f"LoRA needs {error.name}", "Install it: pip install 'trueprune[lora]', or use --adapt full"
        ) from error
    layers: list[Any] = [None] * len(sites)
    for transposed in (False, True):
        own = {f"m{i}": site.module for i, site in enumerate(sites) if site.transposed == transposed}
        if not own:
            continue
        container = nn.ModuleDict(own)
        config = LoraConfig(
            r=rank,
            lora_alpha=ALPHA_PER_RANK * rank,
            lora_dropout=0.0,
            target_modules=list(own),
            fan_in_fan_out=transposed,
        )
        with torch.random.fork_rng(devices=[]):
            # Not that of an accelerator, which is not put back.
            torch.default_generator.manual_seed(seed)
            inject_adapter_in_model(config, container, adapter_name=NAME)
        for name in own:
            # Of a half-precision model too, what is trained is held in float32.
            layer: Any = container[name]
            layers[int(name[1:])] = layer
            for matrices in (layer.lora_A, layer.lora_B):
                matrices.float()
    return layers


@contextmanager
def installed(updates: Sequence[MatrixUpdate]) -> Iterator[None]:
    """Let a model compute with its updates for a while."""
    modules = [update.site.module for update in updates]
    before = [module.__dict__.get("forward") for module in modules]
    try:
        for update in updates:
            update.site.module.forward = update.forward  # type: ignore[method-assign,assignment]
        yield
    finally:
        for module, old in zip(modules, before, strict=True):
            if old is None:
                module.__dict__.pop("forward", None)
            else:
                module.forward = old


def trainable(updates: Sequence[MatrixUpdate]) -> dict[str, nn.Parameter]:
    """All that is trained, by name."""
    return {name: parameter for update in updates for name, parameter in update.parameters.items()}
