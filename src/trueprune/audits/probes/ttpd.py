"""TTPD: a truth direction that holds across polarities, plus a polarity direction (arXiv 2407.12831).

Legend: N rows, D width, K features of the final regression (2, or 1 without polarity).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trueprune.audits.probes.base import ProbeData, ProbeOptions, require_both_classes
from trueprune.audits.probes.logistic import SMALL_PENALTY, solve


@dataclass(frozen=True, eq=False)
class TTPDProbe:
    """A fitted TTPD probe: logit = weight · (a · t_G, a · d_p) + bias.

    **Arguments:**

    - `general_D`: t_G, of shape `(D,)`, not normalised.
    - `polarity_truth_D`: t_P, of shape `(D,)`, not normalised; `None` where all rows had one polarity. Not used to
        predict, kept to be looked at.
    - `polarity_D`: d_p, of shape `(D,)`; `None` where all rows had one polarity.
    - `weight_K`: of shape `(2,)`, or `(1,)` without d_p.
    - `bias`: the intercept.
    """

    general_D: torch.Tensor
    polarity_truth_D: torch.Tensor | None
    polarity_D: torch.Tensor | None
    weight_K: torch.Tensor
    bias: float

    def features(self, acts_ND: torch.Tensor) -> torch.Tensor:
        """Projections of raw activations on t_G and d_p, of shape `(N, K)`."""
        directions = [self.general_D] if self.polarity_D is None else [self.general_D, self.polarity_D]
        return acts_ND.double() @ torch.stack(directions, 1)

    def logits(self, acts_ND: torch.Tensor, polarity_N: torch.Tensor | None = None) -> torch.Tensor:
        """Log-odds of "true", of shape `(N,)`; `polarity_N` is not read."""
        return self.features(acts_ND) @ self.weight_K + self.bias


def fit(data: ProbeData, options: ProbeOptions) -> TTPDProbe:
    """Training of Truth and Polarity Direction.

    1. ã = τ t_G + τ π t_P by least squares, τ = ±1 the truth, π the polarity, ã centred within each dataset
       (topic x polarity); ã = τ t_G alone where all rows have one polarity.
    2. d_p: coefficients of a logistic regression of [π = +1] on raw activations, intercept discarded. The paper's has
       no penalty, but polarity is linearly separable, so that its length and direction depend on where the solver
       stops; here it has `options.penalty` unless `options.reference`.
    3. Logistic regression of the label on (a · t_G, a · d_p), raw activations, with an intercept; a ridge of
       `SMALL_PENALTY` unless `options.reference`.

    **Arguments:**

    - `data`: the training rows.
    - `options`: penalty and reference mode.

    **Returns:**

    The probe.
    """
    require_both_classes(data.labels_N)
    acts_ND = data.acts_ND.double()
    general_D, polarity_truth_D = truth_directions(data)
    polarity_D = None
    if polarity_truth_D is not None:
        affirmative_N = (data.polarity_N == 1).long()
        polarity_D, _ = solve(data.acts_ND, affirmative_N, options.penalty, options.reference)
    unfitted = TTPDProbe(general_D, polarity_truth_D, polarity_D, general_D.new_zeros(0), 0.0)
    weight_K, bias = solve(unfitted.features(acts_ND), data.labels_N, SMALL_PENALTY, options.reference)
    return TTPDProbe(general_D, polarity_truth_D, polarity_D, weight_K, bias)


def truth_directions(data: ProbeData) -> tuple[torch.Tensor, torch.Tensor | None]:
    """t_G and t_P of ã = τ t_G + τ π t_P by ordinary least squares.

    **Arguments:**

    - `data`: the training rows.

    **Returns:**

    Two float64 tensors of shape `(D,)`; the second is `None` where all rows have one polarity.
    """
    centred_ND = centre_by_dataset(data)
    truth_N = 2.0 * data.labels_N.double() - 1.0
    if bool((data.polarity_N == data.polarity_N[0]).all()):
        return truth_N @ centred_ND / len(truth_N), None
    design_N2 = torch.stack([truth_N, truth_N * data.polarity_N], 1)
    general_D, polarity_truth_D = torch.linalg.lstsq(design_N2, centred_ND).solution
    return general_D, polarity_truth_D


def centre_by_dataset(data: ProbeData) -> torch.Tensor:
    """Activations less the mean of their dataset (topic x polarity), of shape `(N, D)`, float64."""
    centred_ND = data.acts_ND.double()  # a copy: activations are float32
    if centred_ND is data.acts_ND:
        centred_ND = centred_ND.clone()
    keys = list(zip(data.topics.tolist(), data.polarity_N.tolist(), strict=True))
    for dataset in set(keys):
        rows = torch.tensor([i for i, key in enumerate(keys) if key == dataset], device=centred_ND.device)
        centred_ND[rows] -= centred_ND[rows].mean(0)
    return centred_ND
