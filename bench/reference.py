"""The papers' released procedures, written plainly: what `make bench` measures against.

One sequence at a time, a statistic for every Linear, two forwards a block, a full stable sort of every row, one
statement at a time. Column norms are summed in float64, so that masks can be compared bit for bit.
"""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from trueprune.plans import auto_pivot, owl_keep, swl_keep, tplo_keep


class _Catch(Exception):  # noqa: N818
    pass


def _linears(block: nn.Module) -> dict[str, nn.Linear]:
    return {name: module for name, module in block.named_modules() if isinstance(module, nn.Linear)}


def _first_inputs(model: LlamaForCausalLM, ids_NT: Tensor) -> tuple[Tensor, dict]:
    """Inputs of the first block, caught by replacing it, and its keyword arguments."""
    caught, kwargs = [], {}
    first = model.model.layers[0]

    def catch(_module, args, kw):
        caught.append(args[0].clone())
        kwargs.update(kw)
        raise _Catch

    handle = first.register_forward_pre_hook(catch, with_kwargs=True)
    for row in ids_NT:
        with suppress(_Catch):
            model(row[None], use_cache=False)
    handle.remove()
    return torch.cat(caught), kwargs


def _observe(block: nn.Module, inputs: Tensor, outputs: Tensor, kwargs: dict) -> dict[str, Tensor]:
    """First forward of a block: column square sums of each Linear's own input."""
    sums = {name: torch.zeros(linear.in_features, dtype=torch.float64) for name, linear in _linears(block).items()}

    def hook(name):
        def add(_module, args, _output):
            sums[name] += args[0].reshape(-1, args[0].shape[-1]).square().sum(0, dtype=torch.float64)

        return add

    handles = [linear.register_forward_hook(hook(name)) for name, linear in _linears(block).items()]
    for i in range(len(inputs)):
        outputs[i] = block(inputs[i : i + 1], **kwargs)[0]
    for handle in handles:
        handle.remove()
    return sums


@torch.no_grad()
def wanda(model: LlamaForCausalLM, ids_NT: Tensor, sparsities: list[float]) -> None:
    """Wanda with a sparsity for each block; uniform Wanda when all are equal."""
    inputs, kwargs = _first_inputs(model, ids_NT)
    outputs = torch.zeros_like(inputs)
    for block, sparsity in zip(model.model.layers, sparsities, strict=True):
        sums = _observe(block, inputs, outputs, kwargs)
        for name, linear in _linears(block).items():
            score = linear.weight.abs() * sums[name].sqrt().float()
            order = torch.sort(score, dim=-1, stable=True).indices
            mask = torch.zeros_like(score, dtype=torch.bool)
            mask.scatter_(1, order[:, : int(score.shape[1] * sparsity)], True)
            linear.weight[mask] = 0
        for i in range(len(inputs)):
            outputs[i] = block(inputs[i : i + 1], **kwargs)[0]
        inputs, outputs = outputs, inputs


@torch.no_grad()
def outliers(model: LlamaForCausalLM, ids_NT: Tensor, threshold: float) -> list[float]:
    """OWL's dense pass: two forwards a block, the scores of a block joined into one vector."""
    inputs, kwargs = _first_inputs(model, ids_NT)
    outputs = torch.zeros_like(inputs)
    percentages = []
    for block in model.model.layers:
        sums = _observe(block, inputs, outputs, kwargs)
        scores = [linear.weight.abs() * sums[name].sqrt().float() for name, linear in _linears(block).items()]
        joined = torch.cat([score.flatten() for score in scores])
        percentages.append(100 * float((joined > threshold * joined.mean()).float().mean()))
        for i in range(len(inputs)):
            outputs[i] = block(inputs[i : i + 1], **kwargs)[0]
        inputs, outputs = outputs, inputs
    return percentages


@torch.no_grad()
def activations(model: LlamaForCausalLM, encoded: list[list[int]]) -> Tensor:
    """Last-token output of every block, one statement a forward, of shape `(N, L, D)`."""
    rows, taken = [], []
    handles = [
        block.register_forward_hook(lambda _module, _args, output: taken.append(output[0, -1].clone()))
        for block in model.model.layers
    ]
    for ids in encoded:
        taken.clear()
        model(torch.tensor([ids]), use_cache=False)
        rows.append(torch.stack(taken))
    for handle in handles:
        handle.remove()
    return torch.stack(rows)


def tplo(
    model: LlamaForCausalLM,
    ids_NT: Tensor,
    encoded: list[list[int]],
    labels_N: Tensor,
    datasets: list[str],
    sparsity: float = 0.5,
) -> list[float]:
    """TPLO: OWL's dense pass, separation statement by statement, then the pruning pass. Returns the sparsities."""
    outlier_L = torch.tensor(outliers(model, ids_NT, 5.0)).double().numpy()
    acts_NLD = activations(model, encoded)
    ratios = []
    for name in sorted(set(datasets)):
        rows = torch.tensor([dataset == name for dataset in datasets])
        true, false = acts_NLD[rows & (labels_N == 1)], acts_NLD[rows & (labels_N == 0)]
        mean = acts_NLD[rows].mean(0)
        between = ((false.mean(0) - mean) ** 2 + (true.mean(0) - mean) ** 2).mean(-1) / 2
        within = (false.var(0).mean(-1) + true.var(0).mean(-1)) / 2
        ratios.append(between / within)
    ratio_SL = torch.stack(ratios).double()
    share_L = (ratio_SL / ratio_SL.sum(1, keepdim=True)).mean(0).numpy()
    pivot = auto_pivot(owl_keep(outlier_L, sparsity), swl_keep(share_L, sparsity, 0.08))
    keep_L = tplo_keep(outlier_L, share_L, sparsity, pivot=pivot)
    sparsities = [max(1 - float(keep), 0.01) for keep in keep_L]
    wanda(model, ids_NT, sparsities)
    return sparsities
