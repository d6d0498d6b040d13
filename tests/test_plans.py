"""Plans: the papers' numbers, the projection onto the target, n:m, plan files, method names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from trueprune._support.errors import PlanError
from trueprune.plans import (
    AllocationOptions,
    BlockPlan,
    Evidence,
    Pattern,
    Plan,
    auto_pivot,
    make_plan,
    nm_zeros,
    owl_keep,
    project_keep,
    read_plan,
    resolve_method,
    swl_keep,
    tplo_keep,
)
from trueprune.plans.swl import separation_share
from trueprune.plans.tplo import tplo_wanted

GOLDEN = json.loads((Path(__file__).parent / "golden_tplo.json").read_text())
MODELS = [name for name, values in GOLDEN.items() if isinstance(values, dict) and "owl_keep_S0.5_lam0.08" in values]
BOUNDS = (0.01, 1.0)


def array(name, key):
    return np.array(GOLDEN[name][key], dtype=np.float64)


def golden_evidence(name):
    ratios = {dataset: tuple(values) for dataset, values in GOLDEN[name]["separation_ratio"].items()}
    outliers = tuple(GOLDEN[name]["lod_percent_c4_M5"])
    return Evidence((1000,) * len(outliers), outliers, ratios)


def plain(weights=(1,) * 4, outliers=(4.0, 2.0, 1.0, 3.0), separation=(1.0, 2.0, 6.0, 3.0)):
    return Evidence(weights, outliers, {"cities/affirmative": separation})


# The papers' numbers


def test_two_models_have_golden_outliers():
    assert len(MODELS) == 2


@pytest.mark.parametrize("name", MODELS)
def test_owl_is_golden(name):
    np.testing.assert_allclose(
        owl_keep(array(name, "lod_percent_c4_M5"), 0.5, 0.08), array(name, "owl_keep_S0.5_lam0.08"), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("scale", [0.04, 0.08])
@pytest.mark.parametrize("name", MODELS)
def test_swl_is_golden(name, scale):
    share = separation_share(golden_evidence(name))
    np.testing.assert_allclose(swl_keep(share, 0.5, scale), array(name, f"swl_keep_S0.5_k{scale}"), rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [0.04, 0.08])
@pytest.mark.parametrize("name", MODELS)
def test_tplo_is_golden(name, scale):
    outliers, share = array(name, "lod_percent_c4_M5"), array(name, "p")
    wanted = tplo_wanted(owl_keep(outliers, 0.5), swl_keep(share, 0.5, scale), GOLDEN[name]["pivot"])
    assert wanted.mean() == pytest.approx(GOLDEN[name][f"tplo_premean_k{scale}"], abs=1e-12)
    for pivot in (GOLDEN[name]["pivot"], None):
        keep = tplo_keep(outliers, share, 0.5, scale=scale, pivot=pivot)
        np.testing.assert_allclose(keep, array(name, f"tplo_keep_S0.5_k{scale}"), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [n for n, values in GOLDEN.items() if isinstance(values, dict) and "p" in values])
def test_separation_share_is_golden(name):
    ratios = {dataset: tuple(values) for dataset, values in GOLDEN[name]["separation_ratio"].items()}
    share = separation_share(Evidence((1,) * GOLDEN[name]["L"], None, ratios))
    np.testing.assert_allclose(share, array(name, "p"), rtol=0, atol=1e-12)
    assert share.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(("name", "pivot"), [("llama3-8b-instruct", 10), ("llama2-13b-chat", 12)])
def test_auto_pivot_is_the_released_one(name, pivot):
    outliers, share = array(name, "lod_percent_c4_M5"), array(name, "p")
    assert auto_pivot(owl_keep(outliers, 0.5), swl_keep(share, 0.5, 0.08)) == pivot == GOLDEN[name]["pivot"]


def test_pivot_where_the_curves_never_cross_is_two_before_the_peak():
    peak_at_five = np.array([0.1, 0.1, 0.1, 0.1, 0.2, 0.4, 0.1])
    assert auto_pivot(np.full(7, 0.9), peak_at_five) == 3
    assert auto_pivot(np.full(7, 0.9), peak_at_five[::-1].copy()) == 0


@pytest.mark.parametrize(
    ("method", "key"),
    [("owl", "owl_keep_S0.5_lam0.08"), ("swl", "swl_keep_S0.5_k0.04"), ("tplo", "tplo_keep_S0.5_k0.04")],
)
@pytest.mark.parametrize("name", MODELS)
def test_plan_is_the_papers_vector_where_no_bound_is_met(name, method, key):
    plan = make_plan(method, golden_evidence(name), 0.5)
    np.testing.assert_allclose(plan.keep, array(name, key), rtol=0, atol=1e-12)
    if method == "tplo":
        assert plan.evidence["pivot"] == GOLDEN[name]["pivot"]


# The projection

densities = st.lists(st.floats(-0.5, 1.5), min_size=1, max_size=12)
targets = st.floats(*BOUNDS)


@settings(max_examples=300, deadline=None)
@given(wanted=densities, target=targets, data=st.data())
def test_projection_hits_the_target_within_bounds_and_keeps_the_order(wanted, target, data):
    weights = np.array(
        data.draw(st.lists(st.integers(1, 10**9), min_size=len(wanted), max_size=len(wanted))), dtype=np.float64
    )
    u = np.array(wanted)
    keep = project_keep(u, target, weights, bounds=BOUNDS)
    assert keep.min() >= BOUNDS[0]
    assert keep.max() <= BOUNDS[1]
    assert np.average(keep, weights=weights) == pytest.approx(target, abs=1e-9)
    assert (np.diff(keep[np.argsort(u, kind="stable")]) >= 0).all()


@settings(max_examples=300, deadline=None)
@given(wanted=st.lists(st.floats(0.3, 0.7), min_size=1, max_size=12), target=st.floats(0.45, 0.55))
def test_projection_is_the_plain_shift_where_no_bound_is_met(wanted, target):
    u = np.array(wanted)
    plain_shift = u - (u.mean() - target)
    np.testing.assert_allclose(project_keep(u, target, bounds=BOUNDS), plain_shift, rtol=0, atol=1e-12)


@settings(max_examples=200, deadline=None)
@given(wanted=st.lists(st.floats(-0.5, 1.5), min_size=2, max_size=8), target=targets, data=st.data())
def test_projection_is_the_nearest_point(wanted, target, data):
    """No density may move from one block to another, and no random feasible point be taken, with profit."""
    u = np.array(wanted)
    keep = project_keep(u, target, bounds=BOUNDS)
    best = np.square(keep - u).sum()
    for i in range(len(u)):
        for j in range(len(u)):
            room = min(BOUNDS[1] - keep[i], keep[j] - BOUNDS[0])
            for step in (room, room / 10, room / 1000):
                other = keep.copy()
                other[i] += step if i != j else 0
                other[j] -= step if i != j else 0
                assert np.square(other - u).sum() >= best - 1e-9
    start = np.array(data.draw(st.lists(st.floats(*BOUNDS), min_size=len(u), max_size=len(u))))
    room = (BOUNDS[1] - start) if target > start.mean() else (start - BOUNDS[0])
    assume(room.sum() > 1e-9)
    feasible = start + np.sign(target - start.mean()) * room * abs(target - start.mean()) * len(u) / room.sum()
    assert feasible.min() >= BOUNDS[0] - 1e-9
    assert feasible.max() <= BOUNDS[1] + 1e-9
    assert np.square(feasible - u).sum() >= best - 1e-9


def test_projection_equals_a_general_solver():
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(0)
    for _ in range(5):
        u, target = rng.uniform(-0.3, 1.3, 6), rng.uniform(0.2, 0.8)
        solved = optimize.minimize(
            lambda k, u=u: np.square(k - u).sum(),
            np.full(6, target),
            jac=lambda k, u=u: 2 * (k - u),
            bounds=[BOUNDS] * 6,
            constraints={"type": "eq", "fun": lambda k, t=target: k.mean() - t, "jac": lambda k: np.full(6, 1 / 6)},
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        np.testing.assert_allclose(project_keep(u, target, bounds=BOUNDS), solved.x, rtol=0, atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(wanted=st.lists(st.floats(0.2, 0.8), min_size=3, max_size=10), n_fixed=st.integers(1, 2))
def test_fixed_blocks_stay(wanted, n_fixed):
    u = np.array(wanted)
    fixed = np.arange(len(u)) < n_fixed
    target = float((u[fixed].sum() + 0.5 * (~fixed).sum()) / len(u))
    keep = project_keep(u, target, bounds=BOUNDS, fixed_L=fixed)
    np.testing.assert_array_equal(keep[fixed], u[fixed])
    assert keep.mean() == pytest.approx(target, abs=1e-9)


def test_a_target_out_of_reach_is_refused():
    with pytest.raises(PlanError, match=r"0\.0010 cannot be reached .* \[0\.01, 1\.0\]"):
        project_keep(np.array([0.5, 0.5]), 0.001, bounds=BOUNDS)
    with pytest.raises(PlanError, match="cannot be reached"):
        project_keep(np.array([0.9, 0.5]), 0.1, bounds=BOUNDS, fixed_L=np.array([True, False]))
    with pytest.raises(PlanError, match="no block is free"):
        project_keep(np.array([0.5, 0.5]), 0.5, fixed_L=np.array([True, True]))


# make_plan


@pytest.mark.parametrize("method", ["uniform", "owl", "swl", "tplo"])
@pytest.mark.parametrize("sparsity", [0.0, 0.03, 0.5, 0.97])
def test_every_plan_hits_the_target_by_weight(method, sparsity):
    evidence = plain(weights=(10, 1000, 300, 50))
    plan = make_plan(method, evidence, sparsity)
    found = [block.sparsity for block in plan.blocks]
    assert np.average(found, weights=evidence.weights) == pytest.approx(sparsity, abs=1e-9)
    assert 0 <= min(found) <= max(found) < 1
    assert (plan.method, plan.sparsity) == (method, sparsity)


def test_plans_follow_their_evidence():
    owl, swl = make_plan("owl", plain(), 0.5), make_plan("swl", plain(), 0.5)
    assert np.argsort(owl.keep).tolist() == [2, 1, 3, 0]
    assert np.argsort(swl.keep).tolist() == [0, 1, 3, 2]
    assert np.ptp(owl.keep) == pytest.approx(0.16, abs=1e-12)
    assert owl.evidence["outliers"] == [4.0, 2.0, 1.0, 3.0]
    assert swl.evidence["separation_share"] == pytest.approx([1 / 12, 2 / 12, 6 / 12, 3 / 12])


def test_equal_outliers_give_a_uniform_plan():
    assert make_plan("owl", plain(outliers=(2.0,) * 4), 0.5).keep == pytest.approx([0.5] * 4, abs=1e-15)
    assert np.isfinite(make_plan("tplo", plain(outliers=(0.0,) * 4), 0.5).keep).all()


def test_tail_correction_leaves_the_blocks_before_the_pivot():
    evidence = golden_evidence("llama3-8b-instruct")
    tail = make_plan("tplo", evidence, 0.5, options=AllocationOptions(correction="tail"))
    everywhere = make_plan("tplo", evidence, 0.5)
    owl = owl_keep(np.array(evidence.outliers), 0.5)
    np.testing.assert_allclose(tail.keep[:10], owl[:10], rtol=0, atol=1e-15)
    assert np.mean(tail.keep) == pytest.approx(0.5, abs=1e-12)
    shifts = np.array(tail.keep[10:]) - swl_keep(array("llama3-8b-instruct", "p"), 0.5)[10:]
    assert np.ptp(shifts) < 1e-12
    assert tail.keep[0] > everywhere.keep[0]


def test_a_fixed_pivot_is_used_and_checked():
    plan = make_plan("tplo", plain(), 0.5, options=AllocationOptions(pivot=2))
    wanted = [*owl_keep(np.array([4.0, 2, 1, 3]), 0.5)[:2], *swl_keep(np.array([1, 2, 6, 3]) / 12, 0.5)[2:]]
    np.testing.assert_allclose(plan.keep, np.array(wanted) - np.mean(wanted) + 0.5, atol=1e-12)
    assert plan.evidence["pivot"] == 2
    for pivot in (4, -1):
        with pytest.raises(PlanError, match=f"pivot {pivot} is no block of 4"):
            make_plan("tplo", plain(), 0.5, options=AllocationOptions(pivot=pivot))


def test_bounds_hold_and_the_target_with_them():
    plan = make_plan("owl", plain(), 0.5, options=AllocationOptions(lam=0.4, bounds=(0.3, 0.7)))
    assert min(plan.keep) == pytest.approx(0.3, abs=1e-12)
    assert max(plan.keep) <= 0.7 + 1e-12
    assert np.mean(plan.keep) == pytest.approx(0.5, abs=1e-9)


def test_missing_evidence_is_named():
    nothing = Evidence((1, 1))
    with pytest.raises(PlanError, match="OWL needs the outlier percentage"):
        make_plan("owl", nothing, 0.5)
    with pytest.raises(PlanError, match="need true/false separation"):
        make_plan("swl", nothing, 0.5)
    with pytest.raises(PlanError, match="coincide in every block"):
        make_plan("swl", Evidence((1, 1), None, {"cities/affirmative": (0.0, 0.0)}), 0.5)


@pytest.mark.parametrize("sparsity", [1.0, -0.1, 1.5, float("nan")])
def test_sparsity_outside_the_range_is_refused(sparsity):
    with pytest.raises(PlanError, match=r"outside \[0, 1\)"):
        make_plan("uniform", plain(), sparsity)


# n:m


def test_nm_of_owl_by_hand():
    # r = 2 (D - 1) / 3 = (2, 2/3, 0, 4/3), of mean 1; rounded differences (1, 0, -1, 0).
    plan = make_plan("owl", plain(), 0.5, pattern=Pattern(2, 4))
    assert [block.sparsity for block in plan.blocks] == [0.25, 0.5, 0.75, 0.5]
    (note,) = plan.notes
    for words in (
        "owl with 2:4",
        "1 blocks 1:4",
        "2 blocks 2:4",
        "1 blocks 3:4",
        "mean sparsity 0.5000",
        "--nm-levels 0",
    ):
        assert words in note


def test_nm_of_swl_follows_the_separation():
    # r = 4 (p - min) / (max - min) = 4 (0, 1, 5, 2) / 5, of mean 1.6; differences (-1.6, -0.8, 2.4, 0).
    plan = make_plan("swl", plain(), 0.5, pattern=Pattern(4, 8), options=AllocationOptions(nm_levels=4.0))
    assert [block.sparsity * 8 for block in plan.blocks] == [6, 5, 2, 4]


@pytest.mark.parametrize(("method", "levels"), [("uniform", 2.0), ("owl", 0.0), ("tplo", 0.0)])
def test_nm_may_be_uniform(method, levels):
    plan = make_plan(method, plain(), 0.5, pattern=Pattern(2, 4), options=AllocationOptions(nm_levels=levels))
    assert {block.sparsity for block in plan.blocks} == {0.5}
    assert plan.notes == (f"{method}: every block gets 2:4",)


@settings(max_examples=200, deadline=None)
@given(
    wanted=st.lists(st.floats(0, 1), min_size=1, max_size=20),
    pattern=st.sampled_from(["1:2", "1:4", "2:4", "3:4", "4:8", "5:8"]),
    levels=st.floats(0, 6),
)
def test_nm_zeros_stay_in_range_and_follow_the_order(wanted, pattern, levels):
    pattern = Pattern.parse(pattern)
    zeros = nm_zeros(np.array(wanted), pattern, levels)
    assert zeros.min() >= 0
    assert zeros.max() <= pattern.m - 1
    assert (np.diff(zeros[np.argsort(wanted, kind="stable")]) <= 0).all()


def test_patterns_are_read():
    assert Pattern.parse("unstructured") == Pattern()
    assert (str(Pattern.parse("2:4")), Pattern.parse("4:8")) == ("2:4", Pattern(4, 8))
    assert not Pattern().structured


@pytest.mark.parametrize("text", ["4:2", "0:4", "4:4", "2-4", "", "half"])
def test_unreadable_patterns_are_refused(text):
    with pytest.raises(PlanError, match="unknown pattern"):
        Pattern.parse(text)


# Plan files


def test_a_plan_survives_json(tmp_path):
    plan = make_plan("tplo", golden_evidence("llama3-8b-instruct"), 0.6, score="sparsegpt")
    again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again.blocks == plan.blocks
    assert (again.method, again.score, again.sparsity, again.pattern) == ("tplo", "sparsegpt", 0.6, Pattern())
    assert json.dumps(again.to_json()) == json.dumps(plan.to_json())
    structured = make_plan("owl", plain(), 0.5, pattern=Pattern(2, 4))
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({"method": "owl", "plan": structured.to_json()}))
    assert read_plan(file).blocks == structured.blocks
    assert read_plan(file).pattern == Pattern(2, 4)
    assert read_plan(file).notes == structured.notes


def test_a_user_needs_only_blocks(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text('{"blocks": [0.5, {"sparsity": 0.4, "matrices": {"mlp.down_proj": 0.25}}]}')
    plan = read_plan(str(file))
    assert plan.blocks == (BlockPlan(0.5), BlockPlan(0.4, {"mlp.down_proj": 0.25}))
    assert (plan.method, plan.score, plan.pattern) == ("file", "", Pattern())
    assert plan.sparsity == pytest.approx(0.45)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[0.5]", "holds no JSON object"),
        ("{}", r"cannot be read .*blocks"),
        ('{"blocks": [0.5, "much"]}', "cannot be read"),
        ('{"blocks": [{"matrices": {}}]}', "cannot be read"),
        ('{"blocks": 0.5}', "cannot be read"),
        ('{"blocks": [0.5], "options": 3}', "cannot be read"),
        ('{"blocks": [0.5], "notes": 3}', "cannot be read"),
        ('{"blocks": [1.0]}', r"blocks\[0\] is 1.0, outside"),
        ('{"blocks": [0.5, {"sparsity": 0.5, "matrices": {"up": -0.5}}]}', r"blocks\[1\] up is -0.5, outside"),
        ('{"blocks": [NaN]}', "outside"),
        ('{"blocks": [0.4], "pattern": "2:4"}', "0.4 of block 0 is no n:4"),
        ('{"blocks": [0.5], "pattern": "4:2"}', "unknown pattern"),
    ],
)
def test_unreadable_plans_are_refused(tmp_path, text, message):
    file = tmp_path / "plan.json"
    file.write_text(text)
    with pytest.raises(PlanError, match=message):
        read_plan(file)


def test_missing_and_binary_plans_are_refused(tmp_path):
    with pytest.raises(PlanError, match="no plan file at"):
        read_plan(tmp_path / "none.json")
    (tmp_path / "plan.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PlanError, match="is not JSON"):
        read_plan(tmp_path / "plan.json")


# Methods


@pytest.mark.parametrize(
    ("method", "score", "expected"),
    [
        ("magnitude", None, ("magnitude", "uniform", "magnitude")),
        ("wanda", "wanda", ("wanda", "uniform", "wanda")),
        ("sparsegpt", None, ("sparsegpt", "uniform", "sparsegpt")),
        ("owl", None, ("owl", "owl", "wanda")),
        ("owl", "sparsegpt", ("owl", "owl", "sparsegpt")),
        ("tplo", "magnitude", ("tplo", "tplo", "magnitude")),
        ("wanda_option1", None, ("swl", "swl", "wanda")),
        ("owl_option2", "sparsegpt", ("tplo", "tplo", "sparsegpt")),
    ],
)
def test_methods_by_name(method, score, expected):
    assert resolve_method(method, score) == expected


def test_methods_that_contradict_or_are_unknown():
    with pytest.raises(PlanError, match=r"--method wanda and --score magnitude contradict.*--method magnitude"):
        resolve_method("wanda", "magnitude")
    with pytest.raises(PlanError, match=r"unknown method 'owl_option3'.*tplo.*owl_option2"):
        resolve_method("owl_option3", None)


def test_sparsity_and_pattern_may_not_contradict():
    from trueprune.jobs.prune import target_sparsity

    assert target_sparsity(None, Pattern()) == 0.5
    assert target_sparsity(None, Pattern(1, 4)) == 0.25
    assert target_sparsity(0.5, Pattern(2, 4)) == 0.5
    with pytest.raises(PlanError, match=r"--sparsity 0.6 contradicts --pattern 2:4, which zeroes 0.5"):
        target_sparsity(0.6, Pattern(2, 4))
    with pytest.raises(PlanError, match="outside"):
        target_sparsity(1.0, Pattern())
