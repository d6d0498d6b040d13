"""One weight matrix seen as (out, in), whether a Linear, GPT-2's transposed Conv1D or a slice of a 3-D expert tensor.

Legend: O out features, I in features, E experts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from transformers.pytorch_utils import Conv1D

from trueprune._support.errors import ModelError


@dataclass(frozen=True, eq=False)
class WeightSite:
    """A prunable matrix of one block.

    **Arguments:**

    - `name`: within its block, e.g. `"self_attn.q_proj"` or `"mlp.experts.down_proj[3]"`.
    - `module`: the module that owns the parameter.
    - `parameter`: the attribute name of the parameter.
    - `transposed`: whether storage is (in, out).
    - `expert`: index into the first axis of a 3-D parameter, or `None`.
    """

    name: str
    module: nn.Module
    parameter: str = "weight"
    transposed: bool = False
    expert: int | None = None

    @property
    def weight_OI(self) -> Tensor:
        """A view of shape `(out, in)` that shares storage with the model: edits in place edit the model."""
        weight = getattr(self.module, self.parameter).detach()
        if self.expert is not None:
            weight = weight[self.expert]
        return weight.t() if self.transposed else weight

    @property
    def shape(self) -> tuple[int, int]:
        """`(out, in)`."""
        out_features, in_features = self.weight_OI.shape
        return out_features, in_features

    @property
    def numel(self) -> int:
        """The number of weights."""
        return self.weight_OI.numel()


def is_linear(module: nn.Module) -> bool:
    """Whether a module multiplies its input by one 2-D weight: a `Linear` or a `Conv1D`."""
    return isinstance(module, (nn.Linear, Conv1D))


def expert_parameters(module: nn.Module) -> list[str]:
    """Names of a module's own 3-D parameters: expert weights stacked over the first axis. A convolution has none."""
    if isinstance(module, _ConvNd):
        return []
    return [name for name, parameter in module.named_parameters(recurse=False) if parameter.dim() == 3]


def has_weights(module: nn.Module) -> bool:
    """Whether a module or anything in it owns a prunable matrix."""
    return any(is_linear(m) or expert_parameters(m) for m in module.modules())


def has_experts(block: nn.Module) -> bool:
    """Whether a block sends tokens to experts: stacked in 3-D parameters, or a list of modules that own matrices."""
    lists = [m for m in block.modules() if isinstance(m, nn.ModuleList) and len(m)]
    return any(expert_parameters(m) for m in block.modules()) or any(all(map(has_weights, m)) for m in lists)


def sites_in(block: nn.Module) -> Iterator[WeightSite]:
    """The prunable matrices of a block, in registration order.

    Adapters (LoRA matrices beside a `base_layer`) and routers are left alone: an adapter is not part of the checkpoint
    that is pruned, and a router has one row an expert, whose pruning saves nothing and misroutes tokens.

    **Raises:** `ModelError` for a quantised weight.
    """
    adapters = _adapter_modules(block)
    routers = _routers(block)
    for name, module in block.named_modules():
        if module in adapters:
            continue
        if is_linear(module):
            transposed = isinstance(module, Conv1D)
            site = WeightSite(_clean(name), module, transposed=transposed)
            if not site.weight_OI.is_floating_point():
                raise ModelError(
                    f"the weight of {name} is stored as {site.weight_OI.dtype}, which is quantised",
                    "Load the model without quantisation; prune first, quantise after",
                )
            if module not in routers:
                yield site
        for parameter in expert_parameters(module):
            for expert in range(getattr(module, parameter).shape[0]):
                yield WeightSite(
                    f"{_clean(name)}.{parameter}[{expert}]",
                    module,
                    parameter,
                    transposed=bool(getattr(module, "is_transposed", False)),
                    expert=expert,
                )


def _routers(block: nn.Module) -> set[nn.Module]:
    """Linears that stand beside experts and have one output for each of them, or one gate for a shared one."""
    routers: set[nn.Module] = set()
    for parent in block.modules():
        counts = {getattr(m, p).shape[0] for m in parent.children() for p in expert_parameters(m)}
        lists = [m for m in parent.children() if isinstance(m, nn.ModuleList) and len(m)]
        counts |= {len(m) for m in lists if all(has_weights(child) for child in m)}
        if counts:
            linears = [m for m in parent.children() if is_linear(m)]
            routers.update(m for m in linears if m.weight.shape[0] in counts | {1})  # type: ignore[union-attr,index]
    return routers


def _adapter_modules(block: nn.Module) -> set[nn.Module]:
    """Modules that hang beside a `base_layer`, the wrapper protocol of PEFT."""
    adapters: set[nn.Module] = set()
    for module in block.modules():
        base = getattr(module, "base_layer", None)
        if isinstance(base, nn.Module):
            adapters.update(set(module.modules()) - set(base.modules()))
    return adapters


def _clean(name: str) -> str:
    # PEFT nests one wrapper for each expert parameter that it adapts.
    return name.replace(".base_layer", "")


def check_finite(site: WeightSite, where: str) -> None:
    """Refuse a weight with NaN or infinity.

    **Raises:** `ModelError` that names the tensor.
    """
    if not torch.isfinite(site.weight_OI).all():
        tensor = site.name if site.expert is not None else f"{site.name}.{site.parameter}"
        raise ModelError(
            f"{where}.{tensor} holds NaN or infinite values",
            "The checkpoint is damaged or was saved from a diverged run; get it again from its source",
        )
