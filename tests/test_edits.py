"""The edits against plain implementations of the papers: same weights, bit for bit where nothing is recomputed."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from plain import inputs_of, matrices, stack_of, token_rows
from torch import Tensor, nn
from zoo import ARCHITECTURES, tiny_model

from trueprune import EditOptions, ModelError, Pattern, Plan, PlanError, apply_plan, measured_sparsity
from trueprune.edits import (
    cumulative_mass,
    lowest_in_group,
    lowest_in_matrix,
    lowest_in_row,
    magnitude_score,
    sparsegpt_solve,
    wanda_score,
)
from trueprune.edits.rule import Target
from trueprune.edits.sparsegpt import inverse_factor
from trueprune.models import read_anatomy
from trueprune.observe import BlockStream, ColumnNorms, Gram
from trueprune.plans import BlockPlan
from trueprune.texts.tokens import TokenBatch

PATTERNS = ["unstructured", "2:4", "4:8"]
# Two weights whose saliencies are closer than this cannot be told apart in float32 after a Cholesky factorisation.
ROUNDING = 5e-5
SPARSITIES = [0.6, 0.37, 0.53]  # as uneven as an allocation may be


def plan_of(sparsities: list[float], pattern: str = "unstructured") -> Plan:
    mean = sum(sparsities) / len(sparsities)
    return Plan("file", mean, tuple(BlockPlan(s) for s in sparsities), Pattern.parse(pattern))


def prune(model: nn.Module, plan: Plan, score: str, ids_NT: Tensor | None = None, **options) -> nn.Module:
    tokens = None if ids_NT is None else TokenBatch(ids_NT)
    apply_plan(read_anatomy(model), plan, score, tokens, options=EditOptions(**options))
    return model


def assert_same_weights(found: nn.Module, expected: nn.Module) -> None:
    found_state, expected_state = found.state_dict(), expected.state_dict()
    assert found_state.keys() == expected_state.keys()
    for key in expected_state:
        assert torch.equal(found_state[key], expected_state[key]), key


# The papers, written plainly.


def plain_row_mask(score: Tensor, sparsity: float) -> Tensor:
    mask = torch.zeros(score.shape, dtype=torch.bool)
    order = torch.sort(score, dim=1, stable=True).indices
    mask.scatter_(1, order[:, : int(score.shape[1] * sparsity)], True)
    return mask


def plain_matrix_mask(score: Tensor, sparsity: float) -> Tensor:
    mask = torch.zeros(score.numel(), dtype=torch.bool)
    order = torch.sort(score.flatten(), stable=True).indices
    mask[order[: int(score.numel() * sparsity)]] = True
    return mask.view(score.shape)


def plain_group_mask(score: Tensor, n: int, m: int) -> Tensor:
    mask = torch.zeros(score.shape, dtype=torch.bool)
    for start in range(0, score.shape[1], m):
        order = torch.sort(score[:, start : start + m], dim=1, stable=True).indices
        mask.scatter_(1, start + order[:, :n], True)
    return mask


def plain_mask(score: Tensor, sparsity: float, pattern: str, unstructured) -> Tensor:
    if pattern == "unstructured":
        return unstructured(score, sparsity)
    m = int(pattern.split(":")[1])
    return plain_group_mask(score, round(sparsity * m), m)


@torch.no_grad()
def plain_magnitude(model: nn.Module, name: str, sparsities: list[float], pattern: str) -> nn.Module:
    for block, sparsity in zip(stack_of(model, name), sparsities, strict=True):
        for weight in matrices(block).values():
            weight[plain_mask(weight.abs(), sparsity, pattern, plain_matrix_mask)] = 0
    return model


@torch.no_grad()
def plain_wanda(model: nn.Module, name: str, ids_NT: Tensor, sparsities: list[float], pattern: str) -> nn.Module:
    for block, sparsity in zip(stack_of(model, name), sparsities, strict=True):
        # One sequence at a time through the whole model, whose blocks before this one are pruned by now.
        inputs = inputs_of(model, block, list(ids_NT.split(1)))
        for matrix, weight in matrices(block).items():
            x_NC = inputs.get(matrix, torch.eye(weight.shape[1]))
            norm_C = x_NC.square().sum(0, dtype=torch.float64).sqrt().float()
            weight[plain_mask(weight.abs() * norm_C, sparsity, pattern, plain_row_mask)] = 0
    return model


def closest_call(saliency: Tensor, kept_after: int) -> float:
    """The least relative distance between the last that goes and the first that stays, over rows."""
    ordered = saliency.sort(dim=1).values
    goes, stays = ordered[:, kept_after - 1], ordered[:, kept_after]
    return float(((stays - goes) / stays.clamp_min(1e-30)).min())


def plain_sparsegpt_solve(
    weight: Tensor, x_NC: Tensor, sparsity: float, pattern: str, block_size: int
) -> tuple[Tensor, float]:
    """Spec 1b, one matrix, its own Gram matrix and Cholesky factor; float64, so that it is the more exact of the two.

    Also returns the closest call of all its decisions. The factor 2/N of H is left out: it changes nothing but the
    weight that the ones of dead columns have in the damping.
    """
    W, X = weight.double().clone(), x_NC.double()
    closest = 1.0
    H = X.t() @ X
    dead = H.diagonal() == 0
    H[dead, dead] = 1
    W[:, dead] = 0
    H += 0.01 * H.diagonal().mean() * torch.eye(len(H), dtype=H.dtype)
    U = torch.linalg.cholesky(torch.linalg.inv(H), upper=True)
    m = 0 if pattern == "unstructured" else int(pattern.split(":")[1])
    columns = W.shape[1]
    for start in range(0, columns, block_size):
        end = min(start + block_size, columns)
        errors = torch.zeros(W.shape[0], end - start, dtype=W.dtype)
        saliency = W[:, start:end] ** 2 / U.diagonal()[start:end] ** 2
        if m:
            mask = torch.zeros(saliency.shape, dtype=torch.bool)
        else:
            index = int(saliency.numel() * sparsity)
            mask = saliency <= saliency.flatten().sort().values[index]
            closest = min(closest, closest_call(saliency.reshape(1, -1), index + 1))
        for j in range(start, end):
            if m and j % m == 0:
                here = W[:, j : j + m] ** 2 / U.diagonal()[j : j + m] ** 2
                mask[:, j - start : j - start + m] = plain_group_mask(here, round(sparsity * m), m)
                closest = min(closest, closest_call(here, round(sparsity * m)))
            q = W[:, j].clone()
            q[mask[:, j - start]] = 0
            errors[:, j - start] = (W[:, j] - q) / U[j, j]
            W[:, j:end] -= errors[:, j - start, None] * U[j, None, j:end]
            W[:, j] = q
        W[:, end:] -= errors @ U[start:end, end:]
    return W.float(), closest


@torch.no_grad()
def plain_sparsegpt(
    pruned: nn.Module, name: str, ids_NT: Tensor, sparsities: list[float], pattern: str, block_size: int
) -> list[dict[str, tuple[Tensor, float]]]:
    """The weights that each block should have after the blocks of `pruned`, and how close the calls were.

    Following `pruned` block by block keeps rounding from adding up: a ReLU column that fires once, at the level of
    rounding, is dead for one implementation and alive for the other.
    """
    model = tiny_model(name)
    expected = []
    for block, done, sparsity in zip(stack_of(model, name), stack_of(pruned, name), sparsities, strict=True):
        inputs = inputs_of(model, block, list(ids_NT.split(1)))
        solved = {}
        for matrix, weight in matrices(block).items():
            if matrix in inputs:
                solved[matrix] = plain_sparsegpt_solve(weight, inputs[matrix], sparsity, pattern, block_size)
            else:
                mask = plain_mask(weight.abs(), sparsity, pattern, plain_row_mask)
                solved[matrix] = weight.masked_fill(mask, 0), 1.0
        expected.append(solved)
        block.load_state_dict(done.state_dict())
    return expected


# Whole models.


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_wanda_is_wanda(name, pattern):
    ids_NT = token_rows(6, 24)
    found = prune(tiny_model(name), plan_of([0.5] * 3, pattern), "wanda", ids_NT)
    assert_same_weights(found, plain_wanda(tiny_model(name), name, ids_NT, [0.5] * 3, pattern))
    # 50 % of every row, or of every group, exactly.
    assert measured_sparsity(read_anatomy(found)) == (0.5, [0.5] * 3)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_magnitude_is_magnitude(name, pattern):
    found = prune(tiny_model(name), plan_of([0.5] * 3, pattern), "magnitude")
    assert_same_weights(found, plain_magnitude(tiny_model(name), name, [0.5] * 3, pattern))
    assert measured_sparsity(read_anatomy(found)) == (0.5, [0.5] * 3)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_sparsegpt_is_sparsegpt(name, pattern):
    ids_NT = token_rows(6, 24)
    found = prune(tiny_model(name), plan_of([0.5] * 3, pattern), "sparsegpt", ids_NT, block_size=16)
    expected = plain_sparsegpt(found, name, ids_NT, [0.5] * 3, pattern, 16)
    compared, matrices_in_all = 0, 0
    for block, solved in zip(stack_of(found, name), expected, strict=True):
        found_weights = matrices(block)
        assert found_weights.keys() == solved.keys()
        matrices_in_all += len(solved)
        for matrix, (weight, closest) in solved.items():
            if closest < ROUNDING:
                continue
            compared += 1
            assert torch.equal(found_weights[matrix] == 0, weight == 0), matrix
            torch.testing.assert_close(found_weights[matrix], weight, rtol=1e-4, atol=1e-4)
    assert compared >= 0.8 * matrices_in_all
    if pattern != "unstructured":
        assert measured_sparsity(read_anatomy(found)) == (0.5, [0.5] * 3)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_score_takes_any_allocation(name):
    ids_NT = token_rows(6, 24)
    plan = plan_of(SPARSITIES)
    wanda = prune(tiny_model(name), plan, "wanda", ids_NT)
    assert_same_weights(wanda, plain_wanda(tiny_model(name), name, ids_NT, SPARSITIES, "unstructured"))
    magnitude = prune(tiny_model(name), plan, "magnitude")
    assert_same_weights(magnitude, plain_magnitude(tiny_model(name), name, SPARSITIES, "unstructured"))
    sparsegpt = prune(tiny_model(name), plan, "sparsegpt", ids_NT)
    for block, sparsity in zip(read_anatomy(sparsegpt).blocks, SPARSITIES, strict=True):
        for site in block.sites:
            if site.name not in inputs_of(sparsegpt, block.module, [ids_NT]):
                continue
            # No matrix here is wider than a block of 128 columns; the threshold itself goes as well.
            zeros = int((site.weight_OI == 0).sum())
            assert zeros == int(site.numel * sparsity) + 1, site.name


@pytest.mark.parametrize("score", ["wanda", "magnitude", "sparsegpt"])
def test_what_is_not_in_a_block_stays(score):
    model, ids_NT = tiny_model("mixtral"), token_rows()
    before = copy.deepcopy(model.state_dict())
    prune(model, plan_of(SPARSITIES), score, ids_NT)
    kept = [key for key, weight in model.state_dict().items() if torch.equal(weight, before[key])]
    expected = ["embed", "norm", "lm_head", "mlp.gate.weight"]
    assert all(any(part in key for part in expected) for key in kept)
    assert len(kept) == 1 + 2 * 3 + 1 + 1 + 3  # embeddings, norms of three blocks, final norm, head, routers


def test_blocks_see_the_pruned_blocks_before_them():
    model, ids_NT = tiny_model("llama"), token_rows()
    dense = inputs_of(model, model.model.layers[2], [ids_NT])["self_attn.q_proj"]
    found = prune(copy.deepcopy(model), plan_of([0.5] * 3), "wanda", ids_NT)
    # Were its statistics those of the dense model, the last block would lose other weights.
    weight = model.model.layers[2].self_attn.q_proj.weight.detach()
    wrong = plain_row_mask(weight.abs() * dense.square().sum(0).sqrt(), 0.5)
    assert not torch.equal(found.model.layers[2].self_attn.q_proj.weight == 0, wrong)


def test_grouping_can_be_chosen():
    ids_NT, plan = token_rows(), plan_of([0.4] * 3)
    rows = prune(tiny_model("llama"), plan, "magnitude", group="row")
    weight = tiny_model("llama").model.layers[0].mlp.up_proj.weight.detach()
    found = rows.model.layers[0].mlp.up_proj.weight
    assert torch.equal(found == 0, plain_row_mask(weight.abs(), 0.4))
    whole = prune(tiny_model("llama"), plan, "wanda", ids_NT, group="matrix")
    model = tiny_model("llama")
    norm_C = inputs_of(model, model.model.layers[0], [ids_NT])["mlp.up_proj"].square().sum(0).sqrt()
    found = whole.model.layers[0].mlp.up_proj.weight
    # The gate of the same block is pruned from the same pass, so the input is still that of the dense block.
    assert torch.equal(found == 0, plain_matrix_mask(weight.abs() * norm_C, 0.4))


def test_the_variant_is_used_when_asked_for():
    ids_NT = token_rows()
    model = tiny_model("llama")
    weight = model.model.layers[0].mlp.down_proj.weight.detach().clone()
    norm_C = inputs_of(model, model.model.layers[0], list(ids_NT.split(1)))["mlp.down_proj"]
    norm_C = norm_C.square().sum(0, dtype=torch.float64).sqrt().float()
    prune(model, plan_of([0.5] * 3), "wanda", ids_NT, variant=True)
    found = model.model.layers[0].mlp.down_proj.weight == 0
    assert torch.equal(found, cumulative_mass(weight.abs() * norm_C, 0.5))
    assert len(set(found.sum(1).tolist())) > 1, "rows lose different numbers of weights"
    assert float(found.float().mean()) == pytest.approx(0.5, abs=0.01)


def exceptional(pattern: str = "unstructured") -> Plan:
    blocks = (BlockPlan(0.5), BlockPlan(0.5, {"self_attn.q_proj": 0.25, "mlp.down_proj": 0.0}), BlockPlan(0.75))
    return Plan("file", 0.5, blocks, Pattern.parse(pattern))


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("score", ["wanda", "magnitude", "sparsegpt"])
def test_exceptions_of_single_matrices_are_obeyed(score, pattern):
    model = prune(tiny_model("llama"), exceptional(pattern), score, token_rows())
    dense = tiny_model("llama")
    extra = score == "sparsegpt" and pattern == "unstructured"  # the threshold itself goes as well
    for index, block in enumerate(read_anatomy(model).blocks):
        for site in block.sites:
            wanted = [0.5, {"self_attn.q_proj": 0.25, "mlp.down_proj": 0.0}.get(site.name, 0.5), 0.75][index]
            zeros = int((site.weight_OI == 0).sum())
            assert zeros == wanted * site.numel + (extra and wanted > 0), (index, site.name)
    untouched = model.model.layers[1].mlp.down_proj.weight
    torch.testing.assert_close(untouched, dense.model.layers[1].mlp.down_proj.weight, rtol=1e-5, atol=1e-5)


def send_all_tokens_to(model: nn.Module, experts: list[int]) -> None:
    def choose(_module, _args, out):
        logits, gates, chosen = out
        return logits, gates, torch.tensor(experts).expand_as(chosen)

    for layer in model.model.layers:
        layer.mlp.gate.register_forward_hook(choose)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("score", ["wanda", "sparsegpt"])
@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_idle_experts_are_pruned_by_magnitude_and_not_lost(name, score, pattern):
    model = tiny_model(name)
    send_all_tokens_to(model, [0, 1])
    dense = copy.deepcopy(model.state_dict())
    prune(model, plan_of([0.5] * 3, pattern), score, token_rows())
    for index, layer in enumerate(model.model.layers):
        for part in ("gate_up_proj", "down_proj"):
            for idle in (2, 3):
                before = dense[f"model.layers.{index}.mlp.experts.{part}"][idle]
                mask = plain_mask(before.abs(), 0.5, pattern, plain_row_mask)
                found = getattr(layer.mlp.experts, part)[idle]
                assert torch.equal(found, before.masked_fill(mask, 0))
            busy = getattr(layer.mlp.experts, part)[0]
            assert float((busy == 0).float().mean()) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("score", ["wanda", "sparsegpt"])
def test_half_precision_keeps_its_type_and_its_zeros(score):
    model = tiny_model("llama").to(torch.bfloat16)
    prune(model, plan_of([0.5] * 3), score, token_rows())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    overall, _ = measured_sparsity(read_anatomy(model))
    assert overall == pytest.approx(0.5, abs=0.01)
    if score == "wanda":
        assert overall == 0.5


# Errors change nothing.


@pytest.mark.parametrize("score", ["wanda", "magnitude", "sparsegpt"])
@pytest.mark.parametrize(
    ("name", "plan", "message"),
    [
        ("llama", plan_of([0.5] * 4), "the plan has 4 blocks, the model 3"),
        ("llama", plan_of([0.4] * 3, "2:5"), r"2:5 does not divide model\.layers\.0\.self_attn\.q_proj with 32 input"),
        (
            "gpt2",
            Plan("file", 0.5, (BlockPlan(0.5), BlockPlan(0.5, {"attn.q_proj": 0.1}), BlockPlan(0.5))),
            r"transformer\.h\.1\.attn\.q_proj, which the model has not.*attn\.c_attn",
        ),
    ],
)
def test_a_plan_that_does_not_fit_changes_nothing(name, plan, message, score):
    model = tiny_model(name)
    with pytest.raises(PlanError, match=message):
        prune(model, plan, score, token_rows())
    assert_same_weights(model, tiny_model(name))


def test_a_pattern_that_divides_only_some_matrices_is_refused_first():
    model = tiny_model("qwen3_moe")  # experts read 24 columns, attention 32
    with pytest.raises(PlanError, match=r"8:16 does not divide model\.layers\.0\.mlp\.experts\.down_proj\[0\] with 24"):
        prune(model, plan_of([0.5] * 3, "8:16"), "wanda", token_rows())
    assert_same_weights(model, tiny_model("qwen3_moe"))


@pytest.mark.parametrize("score", ["wanda", "magnitude", "sparsegpt"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("llama", "model.layers.2.mlp.down_proj.weight"),
        ("gpt2", "transformer.h.2.attn.c_proj.weight"),
        ("mixtral", "model.layers.2.mlp.experts.down_proj[0]"),
    ],
)
def test_a_damaged_weight_is_named_and_nothing_changes(name, tensor, value, score):
    model = tiny_model(name)
    parameter = dict(model.named_parameters())[tensor.partition("[")[0]]
    parameter.data.view(-1)[7] = value
    before = copy.deepcopy(model)
    with pytest.raises(ModelError, match="NaN or infinite") as caught:
        prune(model, plan_of([0.5] * 3), score, token_rows())
    assert caught.value.problem.split()[0] == tensor
    for key, weight in model.state_dict().items():
        torch.testing.assert_close(weight, before.state_dict()[key], rtol=0, atol=0, equal_nan=True)


def test_scores_are_known_and_calibrated(tiny):
    with pytest.raises(PlanError, match=r"unknown score 'wandaa'.*magnitude, wanda, sparsegpt"):
        prune(tiny.model, plan_of([0.5] * 3), "wandaa", token_rows())
    for score in ("wanda", "sparsegpt"):
        with pytest.raises(PlanError, match=f"{score} needs calibration tokens"):
            prune(tiny.model, plan_of([0.5] * 3), score)
    assert_same_weights(tiny.model, tiny_model("llama"))


# Masks: exact on ties.

FEW_VALUES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(1, 24)),
    elements=st.sampled_from([0.0, 0.25, 0.5, 1.0, 3.0]),
)


@settings(deadline=None)
@given(FEW_VALUES, st.floats(0, 1))
def test_the_lowest_of_each_row_are_those_of_a_stable_sort(scores, share):
    score_RC = torch.from_numpy(scores)
    count = int(share * score_RC.shape[1])
    expected = torch.zeros(score_RC.shape, dtype=torch.bool)
    expected.scatter_(1, score_RC.sort(dim=1, stable=True).indices[:, :count], True)
    found = lowest_in_row(score_RC, count)
    assert torch.equal(found, expected)
    assert torch.equal(lowest_in_row(score_RC.double(), count), expected), "kthvalue, the way of the GPU"


@settings(deadline=None)
@given(FEW_VALUES, st.floats(0, 1))
def test_the_lowest_of_a_matrix_are_those_of_a_stable_sort(scores, share):
    score_RC = torch.from_numpy(scores)
    count = int(share * score_RC.numel())
    expected = torch.zeros(score_RC.numel(), dtype=torch.bool)
    expected[score_RC.flatten().sort(stable=True).indices[:count]] = True
    assert torch.equal(lowest_in_matrix(score_RC, count), expected.view(score_RC.shape))


@settings(deadline=None)
@given(st.data(), st.integers(2, 8), st.integers(1, 4), st.integers(1, 5))
def test_the_lowest_of_each_group_are_those_of_a_stable_sort(data, m, groups, rows):
    n = data.draw(st.integers(1, m - 1))
    shape = (rows, groups * m)
    scores = data.draw(hnp.arrays(np.float32, shape, elements=st.sampled_from([0.0, 0.5, 1.0, 2.0])))
    score_RC = torch.from_numpy(scores)
    found = lowest_in_group(score_RC, Pattern(n, m))
    assert torch.equal(found, plain_group_mask(score_RC, n, m))
    assert (found.view(-1, m).sum(1) == n).all()


def test_a_group_must_divide():
    with pytest.raises(PlanError, match="2:4 does not divide a matrix with 10 input columns"):
        lowest_in_group(torch.rand(3, 10), Pattern(2, 4))


def plain_cumulative_mass(scores: np.ndarray, sparsity: float) -> tuple[np.ndarray, float]:
    """Spec 1, "Variant", weight by weight; scores are whole numbers, so that sums are exact."""

    def mask_at(alpha: float) -> np.ndarray:
        mask = np.zeros(scores.shape, dtype=bool)
        for r, row in enumerate(scores):
            limit = np.float32(alpha) * np.float32(row.sum())
            threshold, total = None, 0.0
            for value in sorted(row.tolist()):
                total += value
                if total <= limit:
                    threshold = value
            if threshold is not None:
                mask[r] = row <= threshold
        return mask

    low, high, alpha = 0.0, 0.8, 0.4
    mask = mask_at(alpha)
    while abs(mask.mean() - sparsity) > 0.001 and high - low >= 0.001:
        if mask.mean() > sparsity:
            high = alpha
        else:
            low = alpha
        alpha = (low + high) / 2
        mask = mask_at(alpha)
    return mask, alpha


@settings(deadline=None)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 20)), elements=st.integers(0, 40).map(float)),
    st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 0.9]),
)
def test_cumulative_mass_is_the_slow_bisection(scores, sparsity):
    expected, _ = plain_cumulative_mass(scores, sparsity)
    assert np.array_equal(cumulative_mass(torch.from_numpy(scores), sparsity).numpy(), expected)


def test_cumulative_mass_spares_a_row_whose_lowest_score_is_too_great():
    # The released code reads index -1 there and loses the row.
    score_RC = torch.tensor([[5.0, 5.0], [0.0, 1.0]])
    assert cumulative_mass(score_RC, 0.25).tolist() == [[False, False], [True, False]]


def test_scores_are_the_papers():
    weight_OI = torch.tensor([[1.0, -2.0], [0.5, 0.0]])
    assert torch.equal(magnitude_score(weight_OI), torch.tensor([[1.0, 2.0], [0.5, 0.0]]))
    score_OI = wanda_score(weight_OI.bfloat16(), torch.tensor([3.0, 0.5]))
    assert score_OI.dtype == torch.float32
    assert torch.equal(score_OI, torch.tensor([[3.0, 1.0], [1.5, 0.0]]))


# SparseGPT's solver.


def correlated(tokens: int = 400, columns: int = 48, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator) / columns**0.5
    scale = torch.rand(columns, generator=generator) + 0.1
    return torch.randn(tokens, columns, generator=generator) @ (mixing + torch.eye(columns)) * scale


def gram_of(x_NC: Tensor) -> Tensor:
    gram = Gram(x_NC.shape[1], x_NC.device)
    gram.add(x_NC)
    return gram.gram_CC


HALF = Target(0.5, Pattern())


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
@pytest.mark.parametrize("seed", range(5))
def test_the_solver_beats_a_mask_alone(seed, pattern):
    x_NC = correlated(seed=seed)
    weight_OC = torch.randn(64, 48, generator=torch.Generator().manual_seed(100 + seed))
    target = Target(0.5, Pattern.parse(pattern))
    solved_OC = sparsegpt_solve([weight_OC], gram_of(x_NC), [target])[0]
    mask_OC = plain_mask(weight_OC.abs() * x_NC.square().sum(0).sqrt(), 0.5, pattern, plain_row_mask)
    error = (x_NC @ (solved_OC - weight_OC).t()).norm()
    wanda_error = (x_NC @ weight_OC.masked_fill(mask_OC, 0).sub(weight_OC).t()).norm()
    assert error < wanda_error
    assert float((solved_OC == 0).float().mean()) == pytest.approx(0.5, abs=1e-3)


def test_nothing_pruned_changes_nothing():
    weight_OC = torch.randn(20, 48, generator=torch.Generator().manual_seed(1))
    solved_OC = sparsegpt_solve([weight_OC], gram_of(correlated()), [Target(0.0, Pattern())])[0]
    torch.testing.assert_close(solved_OC, weight_OC, rtol=1e-5, atol=1e-5)
    assert torch.count_nonzero(solved_OC) == solved_OC.numel()


@pytest.mark.parametrize("sparsity", [0.0, 0.5])
def test_dead_columns_become_zero(sparsity):
    x_NC = correlated()
    x_NC[:, [3, 17]] = 0
    weight_OC = torch.randn(20, 48, generator=torch.Generator().manual_seed(1))
    solved_OC = sparsegpt_solve([weight_OC], gram_of(x_NC), [Target(sparsity, Pattern())])[0]
    assert not solved_OC[:, [3, 17]].any()
    assert torch.isfinite(solved_OC).all()
    # They count towards the sparsity: 40 zeros that cost nothing; the threshold itself goes as well.
    assert int((solved_OC == 0).sum()) == (20 * 24 + 1 if sparsity else 2 * 20)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("block_size", [8, 16, 20, 128])
def test_the_solver_is_the_textbook_loop(block_size, pattern):
    x_NC = correlated()
    weight_OC = torch.randn(20, 48, generator=torch.Generator().manual_seed(2))
    target = Target(0.5, Pattern.parse(pattern))
    found_OC = sparsegpt_solve([weight_OC], gram_of(x_NC), [target], block_size=block_size)[0]
    m = target.pattern.m
    # Under n:m a block of columns holds whole groups.
    whole = block_size - block_size % m if m else block_size
    expected_OC, closest = plain_sparsegpt_solve(weight_OC, x_NC, 0.5, pattern, whole)
    assert closest > ROUNDING
    assert torch.equal(found_OC == 0, expected_OC == 0)
    torch.testing.assert_close(found_OC, expected_OC, rtol=1e-4, atol=1e-4)


def test_matrices_with_one_input_are_solved_together_as_if_alone():
    gram_CC = gram_of(correlated())
    generator = torch.Generator().manual_seed(3)
    weights = [torch.randn(rows, 48, generator=generator) * scale for rows, scale in [(20, 1.0), (8, 5.0), (30, 0.1)]]
    targets = [HALF, Target(0.2, Pattern()), Target(0.0, Pattern())]
    together = sparsegpt_solve(weights, gram_CC, targets, block_size=16)
    for weight_OC, target, found_OC in zip(weights, targets, together, strict=True):
        alone_OC = sparsegpt_solve([weight_OC], gram_CC, [target], block_size=16)[0]
        assert torch.equal(found_OC == 0, alone_OC == 0)
        torch.testing.assert_close(found_OC, alone_OC, rtol=1e-5, atol=1e-5)


def test_the_inverse_factor_is_that_of_the_damped_gram_matrix():
    gram_CC = gram_of(correlated())
    upper_CC = inverse_factor(gram_CC, 0.01).double()
    assert torch.equal(upper_CC, upper_CC.triu())
    damped_CC = gram_CC.double() + 0.01 * gram_CC.double().diagonal().mean() * torch.eye(48)
    identity = upper_CC.t() @ upper_CC @ damped_CC
    torch.testing.assert_close(identity, torch.eye(48, dtype=torch.float64), rtol=1e-3, atol=1e-3)


def test_fewer_tokens_than_columns_are_enough_and_damping_rises_where_it_must():
    x_NC = correlated(tokens=5)
    solved_OC = sparsegpt_solve([torch.randn(6, 48)], gram_of(x_NC), [HALF])[0]
    assert torch.isfinite(solved_OC).all()
    # Slightly indefinite, as rounding may leave it: damping of 1e-6 is too little, a thousand times that is enough.
    gram_CC = torch.diag(torch.tensor([1.0, 1.0, -1e-4]))
    gram_CC[0, 1] = gram_CC[1, 0] = 1.0
    assert torch.isfinite(inverse_factor(gram_CC, 1e-6)).all()
    with pytest.raises(PlanError, match="cannot be inverted"):
        inverse_factor(torch.diag(torch.tensor([1.0, -1e6, 1.0])), 0.01)


def test_statistics_of_a_block_prune_what_the_stream_prunes():
    """`apply_plan` in three lines: what the engine observes is what the edit uses."""
    model, ids_NT = tiny_model("llama"), token_rows()
    anatomy = read_anatomy(model)
    norms = BlockStream(anatomy, TokenBatch(ids_NT)).observe(anatomy.blocks[0], ColumnNorms)
    weight_OI = anatomy.blocks[0].sites[-1].weight_OI.clone()
    mask_OI = lowest_in_row(wanda_score(weight_OI, norms["mlp.down_proj"].norm_C), 24)
    prune(model, plan_of([0.5] * 3), "wanda", ids_NT)
    assert torch.equal(model.model.layers[0].mlp.down_proj.weight, weight_OI.masked_fill(mask_OI, 0))
