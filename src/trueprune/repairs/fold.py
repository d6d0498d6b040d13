"""Put a temperature into the weights, so that it holds wherever the model runs and costs nothing there.

Legend: B sequences, T tokens, V vocabulary, D residual width.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from trueprune._support.errors import ModelError, RepairError
from trueprune.models.anatomy import Anatomy, read_anatomy
from trueprune.models.probe import logit_error, probe_logits

# Greatest error, relative to the greatest logit: four roundings of a half-precision dtype, or a float32 sum over D.
TOLERANCES = {torch.float32: 1e-5, torch.float16: 2**-9, torch.bfloat16: 2**-6}
# A cap on the logits shows only in logits near it; those of the second probe are blown up to this.
STRESS = 300.0
# Caps of other things than the logits of the vocabulary.
CAP = re.compile(r"soft_?cap")
OTHER_CAP = re.compile(r"attn|attention|router|gate|moe|mlp|up_|key|query|audio|vision")


@dataclass(frozen=True, eq=False)
class _Place:
    """Where a temperature can go: parameters and their new values."""

    name: str
    values: tuple[tuple[nn.Parameter, Tensor], ...]


def fold_temperature(model: nn.Module, temperature: float) -> None:
    """Make the logits of a causal language model its logits divided by T, in place and with no code at inference.

    Tried in turn, each kept only if the logits of a few probe tokens come out right: the final norm (weight and bias;
    1 + w is told from w by running the norm), an untied head, a projection beside the decoder stack. The bias of the
    head is divided as well. A soft cap c of the logits becomes c / T in the configuration, for
    c·tanh(z/c) / T = (c/T)·tanh((z/T) / (c/T)). Scales of the logits in the configuration stay: what they multiply is
    divided. Hidden states that the model returns after its final norm are divided too; those before it are not.

    Temperature scaling is from Guo et al. 2017 (arXiv 1706.04599), section 4.2; to fold it is ours.

    The check compares old logits / T with the new ones. The greatest difference, relative to the greatest logit, may be
    1e-5 in float32, 2⁻⁹ in float16 and 2⁻⁶ in bfloat16, by the coarsest dtype of embeddings, norm, head and logits. It
    is done once more with the output of the head blown up so that caps show, by the mean difference relative to the
    mean logit: below the cap, rounding is blown up too. In bfloat16 a temperature within 0.4 % of 1 is lost in the
    rounding of the weights, and greedy tokens can change where two logits differ by as little.

    **Arguments:**

    - `model`: of transformers, under PEFT or not, whole or with dropped sublayers. A PEFT model is checked with its
        adapter as it is, on or off.
    - `temperature`: T, finite and above 0; 1 changes nothing.

    **Raises:** `RepairError` for another T; `ModelError` if no place gives the right logits. The model is then as it
    was, to the bit.
    """
    if not (isfinite(temperature) and temperature > 0):
        raise RepairError(f"a temperature of {temperature} is not above 0 and finite", "Fit it on held-out items")
    if temperature == 1:
        return
    anatomy = read_anatomy(model)
    owners = _owners(model)
    with _evaluating(model):
        plain_BTV = probe_logits(model)
        stress = max(1.0, STRESS / plain_BTV.float().abs().max().clamp_min(1e-6).item())
        stressed_BTV = _stressed_logits(anatomy, stress)
        tolerance = _tolerance(anatomy, plain_BTV)
        caps, tried = _caps(model), []
        for place in _places(anatomy, temperature):
            if shared := [names for p, _ in place.values if len(names := owners[_address(p)]) > 1]:
                tried.append(f"{place.name} has a weight that {' and '.join(shared[0][:3])} share")
                continue
            with _undone_unless_kept(place, caps) as kept:
                _write(place.values, [(owner, key, cap / temperature) for owner, key, cap in caps])
                error, _ = logit_error(plain_BTV.float() / temperature, probe_logits(model))
                strained = _mean_error(stressed_BTV.float() / temperature, _stressed_logits(anatomy, stress))
                if error <= tolerance and strained <= tolerance:
                    kept.append(place)
                    return
            tried.append(f"{place.name} leaves an error of {max(error, strained):.1e} (at most {tolerance:.1e})")
    raise ModelError(
        f"no temperature can be folded into {type(model).__name__}: "
        + ("; ".join(tried) or "it has neither a final norm with a weight, nor a head or projection of its own"),
        "Untie the head (tie_word_embeddings=False), or divide the logits by the temperature where they are used",
    )


def _places(anatomy: Anatomy, temperature: float) -> Iterator[_Place]:
    names = {id(module): name for name, module in anatomy.model.named_modules()}
    bias = _divided(anatomy.head, temperature, only="bias")
    norm, head = anatomy.final_norm, anatomy.head
    if norm is not None and (vectors := _divided_norm(norm, temperature)):
        yield _Place(f"the final norm {names[id(norm)]}", (*vectors, *bias))
    if head is not None and (values := _divided(head, temperature)):
        yield _Place(f"the head {names.get(id(head), '')}", values)
    above = anatomy.blocks[0].path.rpartition(".")[0].rpartition(".")[0]
    for child in anatomy.model.get_submodule(above).children():
        if isinstance(child, nn.Linear) and child is not head and (values := _divided(child, temperature)):
            yield _Place(f"the projection {names[id(child)]}", (*values, *bias))


def _divided(module: nn.Module | None, temperature: float, only: str = "") -> tuple[tuple[nn.Parameter, Tensor], ...]:
    """A linear module's parameters and what they become; only those of that name, if one is given."""
    named = [] if module is None else list(module.named_parameters())
    return tuple(
        (parameter, parameter.detach() / temperature)
        for name, parameter in named
        if only in ("", name.rpartition(".")[2]) and parameter.is_floating_point()
    )


def _divided_norm(norm: nn.Module, temperature: float) -> list[tuple[nn.Parameter, Tensor]]:
    """The vectors of a norm and what they become; none if it is not x̂·(w + constant) + b.

    Its parameters are set to 0 and 1 in turn: one that adds itself to every output is b; what another's does at 0,
    in units of what it does from 0 to 1, is the constant of 1 + w.
    """
    parameters = dict(norm.named_parameters())
    zeros = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in parameters.items()}
    some = next(iter(zeros.values()))
    x_BTD = torch.randn(1, 4, len(some), generator=torch.Generator().manual_seed(0)).to(some.device)

    def given(name: str = "") -> Tensor:
        values = {**zeros, **({name: torch.ones_like(zeros[name])} if name else {})}
        return functional_call(norm, values, (x_BTD,))

    try:
        with torch.no_grad():
            at_zero_BTD = given()
            effects = {name: given(name) - at_zero_BTD for name in parameters}
            scales = [name for name, effect_BTD in effects.items() if (effect_BTD - 1).abs().max() > 1e-3]
    except (TypeError, RuntimeError):
        # It takes more than the residual stream, or its weights are not in memory.
        return []
    if len(scales) != 1:
        return []
    unit_BTD = effects[scales[0]]
    constant = round(((at_zero_BTD * unit_BTD).sum() / unit_BTD.square().sum().clamp_min(1e-12)).item())
    if (at_zero_BTD - constant * unit_BTD).abs().max() > 1e-3:
        return []
    constants = {name: constant if name in scales else 0 for name in parameters}
    return [
        (p, ((p.detach().double() + constants[name]) / temperature - constants[name]).to(p.dtype))
        for name, p in parameters.items()
    ]


def _caps(model: nn.Module) -> list[tuple[Any, str, float]]:
    """Soft caps of the logits: in the configuration, and in modules that keep a copy of it."""
    config: Any = getattr(model, "config", None)
    decoder = config.get_text_config() if hasattr(config, "get_text_config") else config
    found: dict[str, float] = {}
    caps: list[tuple[Any, str, float]] = []
    for owner in [config] if decoder is config else [config, decoder]:
        for key, value in vars(owner).items() if owner is not None else ():
            named = CAP.search(key) and not OTHER_CAP.search(key)
            if named and isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
                found[key] = value
                caps.append((owner, key, value))
    for module in model.modules():
        caps += [(module, key, value) for key, value in found.items() if vars(module).get(key) == value]
    return caps


def _write(values: Iterable[tuple[nn.Parameter, Tensor]], caps: Iterable[tuple[Any, str, float]]) -> None:
    with torch.no_grad():
        for parameter, value in values:
            parameter.copy_(value)
    for owner, key, cap in caps:
        setattr(owner, key, cap)


@contextmanager
def _undone_unless_kept(place: _Place, caps: list[tuple[Any, str, float]]) -> Iterator[list[_Place]]:
    """Give parameters and caps their values back, also after an error, unless the place was put into the list."""
    before = [(parameter, parameter.detach().clone()) for parameter, _ in place.values]
    kept: list[_Place] = []
    try:
        yield kept
    finally:
        if not kept:
            _write(before, caps)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    # Dropout would make two probes of the same weights differ.
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _stressed_logits(anatomy: Anatomy, factor: float) -> Tensor:
    """Probe logits with the output of the head multiplied."""
    if anatomy.head is None:
        return probe_logits(anatomy.model)

    def blow_up(module: nn.Module, given: Any, output: Tensor) -> Tensor:
        return output * factor

    handle = anatomy.head.register_forward_hook(blow_up)
    try:
        return probe_logits(anatomy.model)
    finally:
        handle.remove()


def _mean_error(want_BTV: Tensor, got_BTV: Tensor) -> float:
    want, got = want_BTV.double(), got_BTV.double()
    return ((want - got).abs().mean() / want.abs().mean().clamp_min(1e-6)).item()


def _tolerance(anatomy: Anatomy, logits_BTV: Tensor) -> float:
    parts = [part for part in (anatomy.embeddings, anatomy.final_norm, anatomy.head) if part is not None]
    dtypes = {logits_BTV.dtype, *(p.dtype for part in parts for p in part.parameters())}
    return max(TOLERANCES.get(dtype, TOLERANCES[torch.float32]) for dtype in dtypes)


def _owners(model: nn.Module) -> dict[int, list[str]]:
    """The modules that own each parameter, by its address: tied weights have several."""
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(_address(parameter), []).append(name)
    return owners


def _address(parameter: nn.Parameter) -> int:
    # Weights that are not in memory have no address.
    return parameter.data_ptr() or id(parameter)
