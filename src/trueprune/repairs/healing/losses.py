"""The losses of healing, as pure functions, so that each can be checked against a slow loop.

The contrastive losses are our reading of the mitigation that arXiv 2411.10069 names: its abstract says "contrastive
learning" on the layers that EAVSS finds, and neither form nor constants. InfoNCE with labels follows Khosla et al. 2020
(arXiv 2004.11362), here with positives among true answers alone.
Legend: P true answers, N hallucinated answers, D width, B sequences, T tokens, V vocabulary, K counted tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


def info_nce(true_PD: Float[Tensor, "P D"], false_ND: Float[Tensor, "N D"], tau: float) -> Float[Tensor, ""]:
    """Supervised InfoNCE: true answers near each other, hallucinated ones away.

    `- mean_i 1/|P(i)| sum_{p in P(i)} ln( e^{z_i.z_p / tau} / (e^{z_i.z_p / tau} + sum_n e^{z_i.z_n / tau}) )`, where i
    runs over the true answers, P(i) are the other true answers and n all hallucinated ones.

    **Arguments:**

    - `true_PD`, `false_ND`: vectors of the answers, at least two and one; normalised here.
    - `tau`: temperature, above 0.
    """
    true_PD, false_ND = F.normalize(true_PD, dim=1), F.normalize(false_ND, dim=1)
    near_PP = true_PD @ true_PD.T / tau
    far_P1 = (true_PD @ false_ND.T / tau).logsumexp(1, keepdim=True)
    # -ln(e^a / (e^a + e^b)) = softplus(b - a).
    return F.softplus(far_P1 - near_PP)[_others(near_PP)].mean()


def triplet(true_PD: Float[Tensor, "P D"], false_ND: Float[Tensor, "N D"], margin: float) -> Float[Tensor, ""]:
    """Mean of `max(0, m + cos(z_a, z_n) - cos(z_a, z_p))` over all triplets of two true answers and a hallucinated one.

    Schroff et al. 2015 (arXiv 1503.03832), equation 1, with cosines; satisfied triplets count, as zeros, so that the
    loss falls as more of them are.

    **Arguments:**

    - `true_PD`, `false_ND`: vectors of the answers, at least two and one; normalised here.
    - `margin`: m.
    """
    true_PD, false_ND = F.normalize(true_PD, dim=1), F.normalize(false_ND, dim=1)
    near_PP, far_PN = true_PD @ true_PD.T, true_PD @ false_ND.T
    loss_PPN = F.relu(margin + far_PN[:, None, :] - near_PP[:, :, None])
    return loss_PPN[_others(near_PP)].mean()


def _others(near_PP: Tensor) -> Tensor:
    """All pairs but those of an answer with itself."""
    return ~torch.eye(len(near_PP), dtype=torch.bool, device=near_PP.device)


def answer_vectors(hidden_BTD: Float[Tensor, "B T D"], answer_BT: Bool[Tensor, "B T"]) -> Float[Tensor, "B D"]:
    """The mean of the hidden states over the tokens of each answer, in float32."""
    weight_BT1 = answer_BT[:, :, None].float()
    return (hidden_BTD.float() * weight_BT1).sum(1) / weight_BT1.sum(1)


def cross_entropy(
    logits_BTV: Float[Tensor, "B T V"], ids_BT: Int[Tensor, "B T"], counted_BT: Bool[Tensor, "B T"]
) -> Float[Tensor, ""]:
    """Mean negative log-likelihood of the counted tokens, in nats.

    **Arguments:**

    - `logits_BTV`: what the model says after each token.
    - `ids_BT`: the tokens.
    - `counted_BT`: which of them are to be predicted; never the first.
    """

    def of_row(row: int, logits_KV: Tensor) -> Tensor:
        return F.cross_entropy(logits_KV, ids_BT[row][counted_BT[row]], reduction="sum")

    return _mean_by_row(logits_BTV, counted_BT, of_row)


def distillation(
    teacher_BTV: Float[Tensor, "B T V"],
    student_BTV: Float[Tensor, "B T V"],
    counted_BT: Bool[Tensor, "B T"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Mean of `T^2 KL(teacher || student)` over what is said before the counted tokens, in nats.

    Hinton et al. 2015 (arXiv 1503.02531), section 2: both logits are divided by T, and T^2 keeps the gradients as large
    as they are at 1.

    **Arguments:**

    - `teacher_BTV`, `student_BTV`: logits; the teacher's get no gradient.
    - `counted_BT`: as in `cross_entropy`.
    - `temperature`: T.
    """

    def of_row(row: int, logits_KV: Tensor) -> Tensor:
        teacher_KV = teacher_BTV[row, :-1][counted_BT[row, 1:]].detach().float()
        student_KV = (logits_KV / temperature).log_softmax(1)
        teacher_KV = (teacher_KV / temperature).log_softmax(1)
        return temperature**2 * F.kl_div(student_KV, teacher_KV, reduction="sum", log_target=True)

    return _mean_by_row(student_BTV, counted_BT, of_row)


def _mean_by_row(logits_BTV: Tensor, counted_BT: Tensor, of_row: Callable[[int, Tensor], Tensor]) -> Tensor:
    """The mean over counted tokens of a loss that sums over those of a row, given their float32 logits `(K, V)`."""
    return _RowByRow.apply(logits_BTV, counted_BT, of_row)  # type: ignore[return-value]


class _RowByRow(torch.autograd.Function):
    """Takes loss and gradient one row at a time: a whole batch of float32 logits would be the largest tensor of all."""

    @staticmethod
    def forward(ctx: Any, logits_BTV: Tensor, counted_BT: Tensor, of_row: Callable[[int, Tensor], Tensor]) -> Tensor:
        count = int(counted_BT.sum())
        wanted = ctx.needs_input_grad[0]
        grad_BTV = torch.zeros_like(logits_BTV) if wanted else None
        total = torch.zeros((), device=logits_BTV.device)
        for row, counted_T in enumerate(counted_BT):
            with torch.set_grad_enabled(wanted), torch.autocast(logits_BTV.device.type, enabled=False):
                before_T = counted_T[1:]
                logits_KV = logits_BTV[row, :-1][before_T].float().requires_grad_(wanted)
                loss = of_row(row, logits_KV)
            total += loss.detach()
            if grad_BTV is not None:
                (grad_KV,) = torch.autograd.grad(loss, logits_KV)
                # Divided by the count they would be too small for float16, whose loss is not yet scaled here.
                grad_BTV[row, :-1][before_T] = grad_KV.to(grad_BTV.dtype)
        ctx.grad_BTV, ctx.count = grad_BTV, count
        return total / count

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        # A graph that is kept for a second pass would find it scaled: nothing here keeps one.
        return ctx.grad_BTV.div_(ctx.count / grads[0]), None, None
