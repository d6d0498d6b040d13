"""CCS: a direction on which a statement contradicts its negation, found without labels (arXiv 2212.03827).

Legend: P pairs, D width, N rows.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch

from trueprune._support.errors import AuditError
from trueprune.audits.probes.base import ProbeData, ProbeOptions, require_both_classes

EPOCHS, LEARNING_RATE, WEIGHT_DECAY = 1000, 1e-3, 0.1
BETAS, EPSILON = (0.9, 0.999), 1e-8


@dataclass(frozen=True, eq=False)
class CCSProbe:
    """A fitted CCS probe: logit = (a - mean of a's polarity) · w + b.

    **Arguments:**

    - `weight_D`: of shape `(D,)`.
    - `bias`: the intercept.
    - `affirmative_D`, `negated_D`: training means of the affirmative and of the negated rows, of shape `(D,)`; rows of
        neither polarity are centred by their average.
    """

    weight_D: torch.Tensor
    bias: float
    affirmative_D: torch.Tensor
    negated_D: torch.Tensor

    def logits(self, acts_ND: torch.Tensor, polarity_N: torch.Tensor | None = None) -> torch.Tensor:
        """Log-odds of "true", of shape `(N,)`; `polarity_N` (+1, -1, 0 by default) chooses the centring of a row."""
        if polarity_N is None:
            polarity_N = acts_ND.new_zeros(len(acts_ND))
        middle_D, half_D = (self.affirmative_D + self.negated_D) / 2, (self.affirmative_D - self.negated_D) / 2
        offset_N = middle_D @ self.weight_D + polarity_N.double() * (half_D @ self.weight_D)
        return acts_ND.double() @ self.weight_D - offset_N + self.bias


def fit(data: ProbeData, options: ProbeOptions) -> CCSProbe:
    """Contrast-consistent search over pairs of an affirmative statement x⁺ and its negation x⁻.

    Minimises mean[(p⁺ - (1 - p⁻))² + min(p⁺, p⁻)²], p = sigmoid(x · w + b), x centred by the mean of its polarity,
    with 1,000 full-batch steps of AdamW. The direction's sign is not identified without labels: it is turned where
    fewer than half of the training affirmatives come out right. As in the code of arXiv 2407.12831, b is not turned
    with it.

    **Arguments:**

    - `data`: the training rows.
    - `options`: `seed` draws the initial weights. There is no regression, so that the other options change nothing.

    **Returns:**

    The probe.
    """
    require_both_classes(data.labels_N)
    affirmative, negated = pair_rows(data)
    acts_ND = data.acts_ND.double()
    mean_pos_D, mean_neg_D = acts_ND[data.polarity_N == 1].mean(0), acts_ND[data.polarity_N == -1].mean(0)
    x_pos_PD, x_neg_PD = acts_ND[affirmative] - mean_pos_D, acts_ND[negated] - mean_neg_D
    weight_D, bias = _descend(x_pos_PD.float(), x_neg_PD.float(), options.seed)
    right_P = ((x_pos_PD @ weight_D + bias) > 0) == (data.labels_N[affirmative] == 1)
    if float(right_P.double().mean()) < 0.5:
        weight_D = -weight_D
    return CCSProbe(weight_D, bias, mean_pos_D, mean_neg_D)


def pair_rows(data: ProbeData) -> tuple[torch.Tensor, torch.Tensor]:
    """Pair each affirmative row with its negation: the i-th affirmative of a topic's group with its i-th negated row.

    Pairs whose labels agree are no negations of each other and are left out.

    **Arguments:**

    - `data`: the training rows.

    **Returns:**

    Row numbers of the affirmatives and of their negations, two int64 tensors of shape `(P,)`.
    """
    rows_of: dict[tuple[str, str], tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    keys = zip(data.topics.tolist(), data.groups.tolist(), data.polarity_N.tolist(), strict=True)
    for row, (topic, group, polarity) in enumerate(keys):
        if polarity:
            rows_of[topic, group][0 if polarity > 0 else 1].append(row)
    labels = data.labels_N.tolist()
    pairs = [
        (i, j)
        for affirmative, negated in rows_of.values()
        for i, j in zip(affirmative, negated, strict=False)
        if labels[i] != labels[j]
    ]
    if not pairs:
        raise AuditError(
            "CCS found no statement together with its negation in the training set",
            "Give affirmative and negated statements that share a group, or choose another probe",
        )
    affirmative_P, negated_P = torch.tensor(pairs, device=data.acts_ND.device).unbind(1)
    return affirmative_P, negated_P


def _descend(x_pos_PD: torch.Tensor, x_neg_PD: torch.Tensor, seed: int) -> tuple[torch.Tensor, float]:
    """AdamW with the gradient written out: no autograd, so that it also runs inside `torch.inference_mode()`."""
    pairs, width = x_pos_PD.shape
    ones_P1 = x_pos_PD.new_ones(pairs, 1)
    x_PE = torch.cat([torch.cat([x_pos_PD, ones_P1], 1), torch.cat([x_neg_PD, ones_P1], 1)])  # the bias as a column
    bound = width**-0.5
    theta_E = torch.rand(width + 1, generator=torch.Generator().manual_seed(seed)) * 2 * bound - bound
    theta_E = theta_E.to(x_PE.device)
    first_E, second_E = torch.zeros_like(theta_E), torch.zeros_like(theta_E)
    for step in range(1, EPOCHS + 1):
        p_pos_P, p_neg_P = torch.sigmoid(x_PE @ theta_E).chunk(2)
        inconsistency_P = p_pos_P + p_neg_P - 1
        slope_2P = torch.cat(
            [inconsistency_P + p_pos_P * (p_pos_P < p_neg_P), inconsistency_P + p_neg_P * (p_neg_P <= p_pos_P)]
        )
        p_2P = torch.cat([p_pos_P, p_neg_P])
        gradient_E = (slope_2P * p_2P * (1 - p_2P)) @ x_PE * (2 / pairs)
        theta_E.mul_(1 - LEARNING_RATE * WEIGHT_DECAY)
        first_E.lerp_(gradient_E, 1 - BETAS[0])
        second_E.lerp_(gradient_E.square(), 1 - BETAS[1])
        root_E = (second_E / (1 - BETAS[1] ** step)).sqrt_().add_(EPSILON)
        theta_E.addcdiv_(first_E, root_E, value=-LEARNING_RATE / (1 - BETAS[0] ** step))
    return theta_E[:-1].double(), float(theta_E[-1])
