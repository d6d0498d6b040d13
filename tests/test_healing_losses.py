"""The losses of healing: against slow loops, closed forms and plain autograd."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from trueprune.repairs.healing.losses import answer_vectors, cross_entropy, distillation, info_nce, triplet


def vectors(count, seed):
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


def cosine(a, b):
    return float(F.cosine_similarity(a, b, dim=0))


def test_info_nce_is_the_sum_of_its_definition():
    true, false = vectors(4, 0), vectors(3, 1)
    for tau in (0.1, 1.0):
        outer = []
        for i in range(4):
            against = sum(math.exp(cosine(true[i], n) / tau) for n in false)
            inner = []
            for p in range(4):
                if p != i:
                    near = math.exp(cosine(true[i], true[p]) / tau)
                    inner.append(math.log(near / (near + against)))
            outer.append(-sum(inner) / len(inner))
        assert float(info_nce(true, false, tau)) == pytest.approx(sum(outer) / 4, rel=1e-5)


def test_info_nce_has_closed_forms():
    same, other = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    # All alike: each of n wrong answers is as near as the right one.
    for n in (1, 4):
        assert float(info_nce(same.repeat(3, 1), same.repeat(n, 1), 0.1)) == pytest.approx(math.log(1 + n), rel=1e-6)
    # Right answers alike, wrong ones orthogonal: ln(1 + n e^(-1/tau)).
    found = float(info_nce(same.repeat(2, 1), other.repeat(5, 1), 0.5))
    assert found == pytest.approx(math.log(1 + 5 * math.exp(-2)), rel=1e-5)
    # Length says nothing, and what is far apart at a low temperature stays finite.
    assert float(info_nce(same.repeat(2, 1), -100 * same, 0.001)) == pytest.approx(0.0, abs=1e-6)
    assert float(info_nce(torch.cat([same, -same]), same, 0.01)) == pytest.approx(100.0 + 0.5 * 100 - 50, rel=1e-2)


def test_triplet_is_the_mean_over_all_triplets():
    true, false = vectors(4, 2), vectors(3, 3)
    for margin in (0.0, 0.5):
        losses = [
            max(0.0, margin + cosine(true[a], n) - cosine(true[a], true[p]))
            for a in range(4)
            for p in range(4)
            if p != a
            for n in false
        ]
        assert 0 < sum(loss == 0 for loss in losses) < len(losses)
        assert float(triplet(true, false, margin)) == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_both_fall_when_followed_down():
    for loss in (lambda t, f: info_nce(t, f, 0.1), lambda t, f: triplet(t, f, 0.5)):
        true, false = vectors(4, 4).requires_grad_(), vectors(4, 5).requires_grad_()
        start = float(loss(true, false).detach())
        for _ in range(60):
            grads = torch.autograd.grad(loss(true, false), [true, false])
            with torch.no_grad():
                for tensor, grad in zip((true, false), grads, strict=True):
                    tensor -= 0.3 * grad
        assert float(loss(true, false).detach()) < 0.1 * start


def sequences():
    generator = torch.Generator().manual_seed(6)
    logits = torch.randn(3, 5, 11, generator=generator)
    ids = torch.randint(11, (3, 5), generator=generator)
    counted = torch.tensor([[0, 1, 1, 1, 1], [0, 0, 0, 1, 0], [0, 0, 1, 1, 0]], dtype=torch.bool)
    return logits, ids, counted


def test_cross_entropy_counts_what_is_said_before_the_counted_tokens():
    logits, ids, counted = sequences()
    values = [-logits[b, t - 1].log_softmax(0)[ids[b, t]] for b in range(3) for t in range(5) if counted[b, t]]
    assert len(values) == 7
    ours = logits.clone().requires_grad_()
    plain = logits.clone().requires_grad_()
    loss = cross_entropy(ours, ids, counted)
    assert float(loss.detach()) == pytest.approx(float(torch.stack(values).mean()), rel=1e-6)
    (3 * loss).backward()
    rows = plain[:, :-1][counted[:, 1:]]
    (3 * F.cross_entropy(rows, ids[counted])).backward()
    torch.testing.assert_close(ours.grad, plain.grad)
    with torch.no_grad():
        assert float(cross_entropy(logits, ids, counted)) == pytest.approx(float(loss.detach()))


def test_gradients_in_float16_are_scaled_before_they_are_too_small():
    """A loss scaler multiplies what comes into the backward pass: what is lost before that stays lost."""
    logits = torch.randn(2, 65, 4000, generator=torch.Generator().manual_seed(3)).half()
    ids = torch.randint(0, 4000, (2, 65), generator=torch.Generator().manual_seed(4))
    counted = torch.ones(2, 65, dtype=torch.bool)
    counted[:, 0] = False
    exact = logits.float().requires_grad_()
    cross_entropy(exact, ids, counted).backward()
    found = logits.clone().requires_grad_()
    (2.0**16 * cross_entropy(found, ids, counted)).backward()
    assert found.grad is not None and exact.grad is not None
    assert found.grad.dtype == torch.float16
    torch.testing.assert_close(found.grad.float() / 2**16, exact.grad, rtol=2e-3, atol=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_distillation_is_the_divergence_from_the_teacher(temperature):
    student, _, counted = sequences()
    teacher = torch.randn(student.shape, generator=torch.Generator().manual_seed(7))
    values = []
    for b in range(3):
        for t in range(5):
            if counted[b, t]:
                p, q = ((x[b, t - 1] / temperature).softmax(0) for x in (teacher, student))
                values.append(temperature**2 * float((p * (p / q).log()).sum()))
    ours = student.clone().requires_grad_()
    loss = distillation(teacher, ours, counted, temperature)
    assert float(loss.detach()) == pytest.approx(sum(values) / len(values), rel=1e-5)
    loss.backward()
    # d/ds T^2 KL = T (q - p), shared out over the counted tokens.
    p, q = ((x / temperature).softmax(2) for x in (teacher, student))
    before = torch.cat([counted[:, 1:], torch.zeros(3, 1, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(ours.grad, temperature * (q - p) * before[:, :, None] / 7, atol=1e-6, rtol=1e-4)
    assert float(distillation(student, student, counted, temperature)) == pytest.approx(0.0, abs=1e-6)


def test_answers_are_the_mean_of_their_own_tokens():
    hidden = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(8)).bfloat16()
    answer = torch.tensor([[0, 1, 1, 0], [0, 0, 0, 1]], dtype=torch.bool)
    found = answer_vectors(hidden, answer)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[0], hidden[0, 1:3].float().mean(0))
    torch.testing.assert_close(found[1], hidden[1, 3].float())
