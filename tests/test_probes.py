"""Truth probes: solvers against scikit-learn and autograd, directions against planted ones."""

from __future__ import annotations

import builtins
import warnings

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

from trueprune._support.errors import AuditError
from trueprune.audits.probes import (
    PROBES,
    LinearProbe,
    ProbeData,
    ProbeOptions,
    ccs,
    fit_logistic,
    fit_probe,
    logistic,
    ttpd,
)
from trueprune.audits.probes.reference import fit_reference

TRUTH, POLARITY_TRUTH, POLARITY = 0, 1, 2  # planted axes


def planted(n_groups=150, width=24, strength=1.5, noise=0.5, polarities=(1, -1), topics=("a", "b", "c"), seed=0):
    """a = mu_topic + tau t_G + tau pi t_P + pi d_p + noise, in pairs of a statement and its negation."""
    g = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(width, width, generator=g)).Q
    acts, labels, signs, names, groups = [], [], [], [], []
    off_axes = basis[3:].T @ basis[3:]  # topics differ, but not along the planted axes
    means = {topic: off_axes @ torch.randn(width, generator=g) * 2 for topic in topics}
    for number in range(n_groups):
        fact = number % 2
        topic = topics[(number // 2) % len(topics)]
        for polarity in polarities:
            label = fact if polarity == 1 else 1 - fact
            tau = 2 * label - 1
            signal = tau * basis[TRUTH] + tau * polarity * basis[POLARITY_TRUTH] + polarity * basis[POLARITY]
            acts.append(means[topic] + strength * signal + noise * torch.randn(width, generator=g))
            labels.append(label)
            signs.append(polarity)
            names.append(topic)
            groups.append(f"{topic}:{number}")
    data = ProbeData(
        torch.stack(acts),
        torch.tensor(labels),
        torch.tensor(signs),
        np.array(names, dtype=object),
        np.array(groups, dtype=object),
    )
    return data, basis


def accuracy(probe, data):
    return float(((probe.logits(data.acts_ND, data.polarity_N) > 0) == (data.labels_N == 1)).double().mean())


@pytest.mark.parametrize(("n", "d"), [(200, 20), (60, 150), (40, 40)])
@pytest.mark.parametrize("penalty", [0.1, 10.0])
def test_logistic_equals_scikit_learn(n, d, penalty):
    linear_model = pytest.importorskip("sklearn.linear_model")
    g = torch.Generator().manual_seed(n + d)
    x = torch.randn(n, d, generator=g) * torch.logspace(-2, 2, d) + 5
    x[:, 3] = 7.0  # a constant feature
    y = (torch.randn(n, generator=g) + 0.5 * (x[:, 0] - 5) * 100 > 0.3).long()
    weight, bias = fit_logistic(x, y, penalty)
    _, scale, z = logistic.standardise(x)
    model = linear_model.LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=1000, solver="newton-cholesky")
    expected = model.fit(z.numpy(), y.numpy())
    np.testing.assert_allclose((weight * scale).numpy(), expected.coef_[0], atol=1e-4)
    np.testing.assert_allclose((x.double() @ weight + bias).numpy(), expected.decision_function(z.numpy()), atol=1e-4)
    assert weight[3] == 0


def test_primal_and_dual_agree_at_the_border():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(50, 50, generator=g)
    y = (x[:, 0] + torch.randn(50, generator=g) > 0).long()
    padded = torch.cat([x, torch.zeros(50, 5)], 1)  # constant columns change nothing but the form that is solved
    primal, dual = fit_logistic(x, y, 1.0), fit_logistic(padded, y, 1.0)
    torch.testing.assert_close(primal[0], dual[0][:50], atol=1e-8, rtol=0)
    assert primal[1] == pytest.approx(dual[1], abs=1e-8)


def test_logistic_converges_in_few_steps_even_when_separable():
    x = torch.cat([torch.randn(50, 5, generator=torch.Generator().manual_seed(0)), torch.full((50, 1), 10.0)], 1)
    x[25:, -1] = -10
    y = torch.tensor([1] * 25 + [0] * 25)
    few, many = fit_logistic(x, y, 1e-3, max_steps=15), fit_logistic(x, y, 1e-3)
    torch.testing.assert_close(few[0], many[0], atol=1e-6, rtol=0)
    assert bool((((x.double() @ many[0] + many[1]) > 0) == (y == 1)).all())


def test_reference_mode_is_scikit_learn_unpenalised():
    linear_model = pytest.importorskip("sklearn.linear_model")
    data, _ = planted(strength=0.3, noise=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = linear_model.LogisticRegression(C=np.inf, max_iter=100).fit(
            data.acts_ND.numpy(), data.labels_N.numpy()
        )
    probe = fit_probe("logistic", data, ProbeOptions(reference=True))
    assert isinstance(probe, LinearProbe)
    np.testing.assert_allclose(probe.weight_D.numpy(), expected.coef_[0], rtol=1e-5)
    for name in ("mass-mean", "ttpd"):
        assert accuracy(fit_probe(name, data, ProbeOptions(reference=True)), data) > 0.55


def test_reference_mode_without_scikit_learn_says_what_to_install(monkeypatch):
    real_import = builtins.__import__

    def no_sklearn(name, *args, **kwargs):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_sklearn)
    with pytest.raises(AuditError, match=r"pip install trueprune\[reference\]"):
        fit_reference(torch.randn(4, 2), torch.tensor([0, 1, 0, 1]))


def test_mass_mean_recovers_the_truth_direction():
    data, basis = planted(n_groups=400)
    probe = fit_probe("mass-mean", data)
    assert isinstance(probe, LinearProbe)
    assert cosine_similarity(probe.weight_D, basis[TRUTH].double(), dim=0) > 0.95
    assert accuracy(probe, planted(n_groups=100, seed=0, noise=0.6)[0]) > 0.9


def test_ttpd_recovers_its_directions():
    data, basis = planted()
    probe = fit_probe("ttpd", data)
    assert isinstance(probe, ttpd.TTPDProbe)
    assert probe.polarity_truth_D is not None
    assert probe.polarity_D is not None
    assert cosine_similarity(probe.general_D, basis[TRUTH].double(), dim=0) > 0.95
    assert cosine_similarity(probe.polarity_truth_D, basis[POLARITY_TRUTH].double(), dim=0) > 0.95
    assert cosine_similarity(probe.polarity_D, basis[POLARITY].double(), dim=0) > 0.8
    assert probe.general_D.norm() == pytest.approx(1.5, rel=0.05)  # the planted strength: not normalised


def test_ttpd_generalises_to_a_polarity_that_is_rare_in_training():
    data, _ = planted()
    keep = torch.tensor([p == 1 or i < 40 for i, p in enumerate(data.polarity_N.tolist())])
    mostly_affirmative = subset(data, keep)
    flipped = subset(data, data.polarity_N == -1)
    # The common polarity's own truth direction t_G + t_P is useless on negations (it cancels there); t_G is not.
    assert accuracy(fit_probe("ttpd", mostly_affirmative), flipped) > 0.9
    assert accuracy(fit_probe("mass-mean", subset(data, data.polarity_N == 1)), flipped) < 0.7


def test_ttpd_of_one_polarity_has_one_feature():
    data, basis = planted(polarities=(1,))
    probe = fit_probe("ttpd", data)
    assert isinstance(probe, ttpd.TTPDProbe)
    assert probe.polarity_D is None
    assert probe.polarity_truth_D is None
    assert probe.weight_K.shape == (1,)
    assert cosine_similarity(probe.general_D, (basis[TRUTH] + basis[POLARITY_TRUTH]).double(), dim=0) > 0.95
    assert accuracy(probe, data) > 0.9


def test_centring_is_within_topic_and_polarity():
    data, _ = planted()
    centred = ttpd.centre_by_dataset(data)
    for topic in "abc":
        for polarity in (1, -1):
            rows = torch.tensor((data.topics == topic) & (data.polarity_N == polarity).numpy())
            torch.testing.assert_close(centred[rows].mean(0), torch.zeros(24).double(), atol=1e-6, rtol=0)


def test_ccs_beats_chance_and_centres_by_polarity():
    data, _ = planted(topics=("a",), noise=0.2)
    probe = fit_probe("ccs", data)
    assert accuracy(probe, data) > 0.8
    neither = probe.logits(data.acts_ND)
    by_polarity = [probe.logits(data.acts_ND, torch.full_like(data.polarity_N, p)) for p in (1, -1)]
    torch.testing.assert_close(neither, (by_polarity[0] + by_polarity[1]) / 2)


def test_ccs_descent_equals_autograd_and_torch_adamw(monkeypatch):
    monkeypatch.setattr(ccs, "EPOCHS", 60)
    g = torch.Generator().manual_seed(1)
    x_pos, x_neg = torch.randn(30, 8, generator=g), torch.randn(30, 8, generator=g)
    weight, bias = ccs._descend(x_pos, x_neg, seed=5)
    theta = (torch.rand(9, generator=torch.Generator().manual_seed(5)) * 2 - 1) * 8**-0.5
    theta.requires_grad_()
    optimizer = torch.optim.AdamW([theta], lr=ccs.LEARNING_RATE, weight_decay=ccs.WEIGHT_DECAY)
    for _ in range(60):
        p_pos, p_neg = torch.sigmoid(x_pos @ theta[:8] + theta[8]), torch.sigmoid(x_neg @ theta[:8] + theta[8])
        loss = ((p_pos - (1 - p_neg)) ** 2 + torch.minimum(p_pos, p_neg) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(weight.float(), theta[:8].detach(), atol=1e-5, rtol=0)
    assert bias == pytest.approx(float(theta[8].detach()), abs=1e-5)


def test_ccs_pairs_rows_of_a_group_in_order():
    data = ProbeData(
        torch.randn(6, 3),
        torch.tensor([1, 0, 0, 1, 1, 1]),
        torch.tensor([1, 1, -1, -1, 1, -1]),
        np.array(["a"] * 6, dtype=object),
        np.array(["x", "x", "x", "x", "y", "y"], dtype=object),
    )
    affirmative, negated = ccs.pair_rows(data)
    assert (affirmative.tolist(), negated.tolist()) == ([0, 1], [2, 3])  # y's labels agree: no negations of each other


def test_ccs_without_pairs_is_an_error():
    with pytest.raises(AuditError, match="negation"):
        fit_probe("ccs", planted(polarities=(1,))[0])


@pytest.mark.parametrize("name", list(PROBES))
def test_one_class_is_an_error(name):
    data, _ = planted()
    with pytest.raises(AuditError, match="of one class"):
        fit_probe(name, subset(data, data.labels_N == 1))


@pytest.mark.parametrize("name", list(PROBES))
def test_probes_are_deterministic_and_run_in_inference_mode(name):
    data, _ = planted(n_groups=40)
    first = fit_probe(name, data).logits(data.acts_ND, data.polarity_N)
    before = data.acts_ND.clone()
    with torch.inference_mode():
        second = fit_probe(name, data).logits(data.acts_ND, data.polarity_N)
    assert torch.equal(first, second)
    assert torch.equal(before, data.acts_ND)
    assert first.shape == data.labels_N.shape


def test_unknown_probe_and_bad_penalties_are_errors():
    data, _ = planted(n_groups=8)
    with pytest.raises(AuditError, match="logistic, mass-mean, ccs, ttpd"):
        fit_probe("svm", data)
    for penalty in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(AuditError, match="penalty"):
            ProbeOptions(penalty=penalty)
    with pytest.raises(AuditError, match="penalty"):
        fit_logistic(data.acts_ND, data.labels_N, 0.0)
    with pytest.raises(AuditError, match="3 labels_N"):
        ProbeData(data.acts_ND, data.labels_N[:3], data.polarity_N, data.topics, data.groups)


def subset(data, keep):
    mask = np.asarray(keep)
    return ProbeData(
        data.acts_ND[keep], data.labels_N[keep], data.polarity_N[keep], data.topics[mask], data.groups[mask]
    )
