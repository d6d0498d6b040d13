"""EAVSS: closed forms of every reading, an honest test, and what scans, drops and allocations make of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from samples import write_corpus, write_statements
from scipy import stats

from trueprune import CalibrationOptions, DropOptions, PlanError, TextError, drop, load, prune, read_anatomy, scan
from trueprune.cli.main import run
from trueprune.jobs.hallucination import HallucinationOptions, collect_answers, observe_hallucination
from trueprune.observe.answers import AnswerProfile
from trueprune.plans.choose import by_rank, consecutive_blocks
from trueprune.plans.eavss import EavssOptions, EavssResult, eavss_of, prone_layers
from trueprune.plans.evidence import AllocationOptions, Evidence
from trueprune.plans.make import make_plan
from trueprune.plans.plan import Plan
from trueprune.plans.rankings import RANKINGS, LayerEvidence
from trueprune.plans.shuffles import benjamini_hochberg, shuffled_labels
from trueprune.texts.qa import QaOptions, find_set, set_questions

VARIANTS = ("delta", "conditional", "logratio", "effect")
BARE = EavssOptions(eavss_smoothing=False, eavss_shuffles=20)


def profile_of(variance_NL, zeros_NL, entries_N, hallucinated_N, clusters=None, token_NL=None) -> AnswerProfile:
    variance_NL = np.asarray(variance_NL, dtype=np.float64)
    names = tuple(str(i) for i in range(len(variance_NL)))
    return AnswerProfile(
        {"official": variance_NL, "token": variance_NL if token_NL is None else np.asarray(token_NL, dtype=np.float64)},
        np.asarray(zeros_NL, dtype=np.int64),
        np.asarray(entries_N, dtype=np.int64),
        np.asarray(hallucinated_N, dtype=bool),
        names if clusters is None else tuple(clusters),
        names,
    )


# Two hallucinated and two true answers in two blocks: AV_H = (6, 10), AV_T = (3, 20); AS_H = (.2, .1), AS_T = (.4, .2).
GOLDEN = profile_of(
    variance_NL=[[4, 8], [8, 12], [2, 25], [4, 15]],
    zeros_NL=[[30, 10], [10, 10], [20, 30], [60, 10]],
    entries_N=[100, 100, 100, 100],
    hallucinated_N=[True, True, False, False],
    token_NL=[[1, 1], [3, 1], [1, 1], [5, 9]],
)


# The readings


def test_delta_is_the_new_terms_put_into_avss():
    found = eavss_of(GOLDEN, replace(BARE, eavss_variant="delta"))
    assert found.hsav_L.tolist() == pytest.approx([3, 10])
    assert found.hss_L.tolist() == pytest.approx([0.2, 0.1])
    assert found.score_L.tolist() == pytest.approx([3 / (0.2 + 1e-8), 10 / (0.1 + 1e-8)])
    assert found.normalised_L.tolist() == pytest.approx([15 / 115, 100 / 115])
    assert found.answers == (2, 2)


def test_delta_is_finite_where_both_are_near_zero_equally_often():
    even = replace(GOLDEN, zeros_NL=np.full((4, 2), 10))
    assert eavss_of(even, replace(BARE, eavss_variant="delta")).score_L.tolist() == pytest.approx([3e8, 10e8])


def test_conditional_is_avss_of_hallucinated_answers():
    found = eavss_of(GOLDEN, replace(BARE, eavss_variant="conditional"))
    assert found.hsav_L.tolist() == pytest.approx([6, 10])
    assert found.hss_L.tolist() == pytest.approx([0.2, 0.1])
    assert found.score_L.tolist() == pytest.approx([30, 100])
    assert found.normalised_L.tolist() == pytest.approx([30 / 130, 100 / 130])


def test_logratio_is_the_ratio_of_avss_in_logarithms():
    found = eavss_of(GOLDEN, replace(BARE, eavss_variant="logratio"))
    assert found.hsav_L.tolist() == pytest.approx([math.log(2), math.log(0.5)])
    assert found.hss_L.tolist() == pytest.approx([math.log(0.5), math.log(0.5)])
    assert found.score_L.tolist() == pytest.approx([math.log(4), 0], abs=1e-12)
    assert found.normalised_L.tolist() == pytest.approx([1, -1]), "z-scores over blocks"


def test_effect_is_the_difference_of_means_over_the_pooled_deviation():
    found = eavss_of(GOLDEN, replace(BARE, eavss_variant="effect"))
    for values, of in (
        (found.hsav_L, lambda v, s: v),
        (found.hss_L, lambda v, s: s),
        (found.score_L, lambda v, s: v - s),
    ):
        for layer in range(2):
            v, s = np.log(GOLDEN.variance["official"][:, layer]), np.log(GOLDEN.zeros_NL[:, layer] / 100)
            x = of(v, s)
            within = ((x[:2] - x[:2].mean()) ** 2).sum() + ((x[2:] - x[2:].mean()) ** 2).sum()
            expected = 0.0 if within < 1e-20 else (x[:2].mean() - x[2:].mean()) / math.sqrt(within / 2)
            assert values[layer] == pytest.approx(expected)


def test_the_token_estimator_weighs_answers_by_their_tokens():
    uneven = replace(GOLDEN, entries_N=np.array([100, 300, 100, 100]))
    found = eavss_of(uneven, replace(BARE, eavss_variant="conditional", eavss_estimator="token"))
    assert found.hsav_L[0] == pytest.approx((1 * 100 + 3 * 300) / 400)
    assert found.hss_L.tolist() == pytest.approx([40 / 400, 20 / 400])
    official = eavss_of(uneven, replace(BARE, eavss_variant="conditional"))
    assert official.hsav_L[0] == pytest.approx(6)


def test_smoothing_is_laplaces_rule_for_sets_of_one_size():
    found = eavss_of(GOLDEN, EavssOptions(eavss_variant="conditional", eavss_shuffles=5))
    assert found.hss_L.tolist() == pytest.approx([41 / 202, 21 / 202])


@pytest.mark.parametrize("variant", VARIANTS)
def test_smoothing_does_not_tell_long_answers_from_short_ones(variant):
    """Without a single activation near zero, nothing is left but the variance."""
    long = replace(GOLDEN, zeros_NL=np.zeros((4, 2), dtype=np.int64), entries_N=np.array([900, 900, 100, 100]))
    short = replace(long, entries_N=np.array([100, 100, 100, 100]))
    found, expected = (eavss_of(p, EavssOptions(eavss_variant=variant, eavss_shuffles=5)) for p in (long, short))
    if variant == "conditional":
        assert found.hss_L.tolist() == pytest.approx([1 / 1002] * 2)
    else:
        assert found.hss_L.tolist() == pytest.approx([0, 0])
        assert found.score_L.tolist() == pytest.approx(expected.score_L.tolist())


def random_profile(seed=0, pairs=30, layers=5, paired=True, spread=1.0) -> AnswerProfile:
    rng = np.random.default_rng(seed)
    n = 2 * pairs
    return profile_of(
        np.exp(spread * rng.normal(size=(n, layers)) + 3),
        rng.poisson(30, size=(n, layers)),
        rng.integers(500, 1500, size=n),
        np.tile([False, True], pairs),
        [str(i // 2 if paired else i) for i in range(n)],
    )


@pytest.mark.parametrize("variant", ["logratio", "effect"])
def test_swapped_labels_turn_the_sign(variant):
    profile = random_profile()
    swapped = replace(profile, hallucinated_N=~profile.hallucinated_N)
    options = EavssOptions(eavss_variant=variant, eavss_shuffles=5)
    one, other = eavss_of(profile, options), eavss_of(swapped, options)
    for name in ("hsav_L", "hss_L", "score_L"):
        np.testing.assert_allclose(getattr(one, name), -getattr(other, name))
    assert np.abs(one.score_L).min() > 1e-3


@pytest.mark.parametrize("variant", VARIANTS)
def test_scaled_activations_change_only_readings_that_have_a_scale(variant):
    profile = random_profile()
    scaled = replace(profile, variance={name: 100 * values for name, values in profile.variance.items()})
    options = EavssOptions(eavss_variant=variant, eavss_shuffles=50)
    one, other = eavss_of(profile, options), eavss_of(scaled, options)
    factor = 1 if variant in ("logratio", "effect") else 100
    np.testing.assert_allclose(other.score_L, factor * one.score_L)
    np.testing.assert_allclose(other.normalised_L, one.normalised_L)
    assert np.array_equal(other.p_value_L, one.p_value_L)


# The test


def test_shuffles_stay_within_questions_that_have_both_labels():
    labels = np.array([True, False, False, True, True, True, False, False])
    clusters = ["a", "a", "b", "b", "c", "c", "d", "e"]
    shuffled = shuffled_labels(labels, clusters, 400, seed=1)
    assert shuffled.shape == (400, 8)
    assert (shuffled[:, :2].sum(1) == 1).all()
    assert (shuffled[:, 2:4].sum(1) == 1).all()
    assert 0.4 < shuffled[:, 0].mean() < 0.6
    assert (shuffled[:, 4] == shuffled[:, 5]).all(), "answers that are all wrong stay together"
    assert (shuffled[:, [4, 6, 7]].sum(1) == 1).all()
    assert all(0.25 < shuffled[:, i].mean() < 0.42 for i in (4, 6, 7))
    three = shuffled_labels(np.array([True, False, True, True, False]), ["a", "b", "b", "b", "a"], 100)
    assert (three[:, [0, 4]].sum(1) == 1).all()
    assert (three[:, 1:4].sum(1) == 2).all()
    assert np.array_equal(shuffled, shuffled_labels(labels, clusters, 400, seed=1))
    assert not np.array_equal(shuffled, shuffled_labels(labels, clusters, 400, seed=2))


def test_benjamini_hochberg():
    p = np.array([0.01, 0.04, 0.03, 0.005, 0.9])
    assert benjamini_hochberg(p).tolist() == pytest.approx([0.025, 0.05, 0.05, 0.025, 0.9])
    rng = np.random.default_rng(0)
    for size in (1, 7, 30):
        p = rng.random(size) ** 3
        np.testing.assert_allclose(benjamini_hochberg(p), stats.false_discovery_control(p))


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("variant", VARIANTS)
def test_p_values_are_uniform_where_labels_mean_nothing(variant, paired):
    options = EavssOptions(eavss_variant=variant, eavss_shuffles=199)
    p = np.concatenate([eavss_of(random_profile(s, 12, 8, paired), options).p_value_L for s in range(40)])
    assert stats.kstest(p, "uniform").pvalue > 1e-3
    assert (p <= 0.05).mean() < 0.09


@pytest.mark.parametrize("factor", [4, 0.25])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_block_that_differs_is_found(variant, factor):
    profile = random_profile(pairs=60, spread=0.2)
    variance = profile.variance["official"].copy()
    variance[profile.hallucinated_N, 2] *= factor
    planted = replace(profile, variance={"official": variance, "token": variance})
    found = eavss_of(planted, EavssOptions(eavss_variant=variant))
    if variant == "delta":
        # Its denominator is near zero by chance now and then, which hides much.
        assert found.p_value_L[2] < 0.2
        return
    assert found.p_value_L[2] == pytest.approx(1 / 1001)
    assert found.significant_L.tolist() == [False, False, True, False, False]
    assert prone_layers(found, significant=True) == [2]
    assert (found.adjusted_p_L >= found.p_value_L - 1e-12).all()


def test_the_p_value_counts_shuffles_that_lie_as_far():
    """All 16 swaps of four pairs: those of the true labels and of their mirror image lie as far, and no other."""
    profile = profile_of([[1], [2], [1], [2], [1], [2], [1], [2]], np.full((8, 1), 5), [10] * 8, [0, 1] * 4, "aabbccdd")
    found = eavss_of(profile, EavssOptions(eavss_shuffles=4000))
    assert found.p_value_L[0] == pytest.approx(2 / 16, abs=0.02)


def test_blocks_that_do_not_differ_at_all_have_p_one():
    same = replace(GOLDEN, variance={"official": np.full((4, 2), 3.0)}, zeros_NL=np.full((4, 2), 7))
    for variant in ("logratio", "effect", "conditional"):
        found = eavss_of(same, EavssOptions(eavss_variant=variant, eavss_shuffles=50))
        assert found.p_value_L.tolist() == [1, 1]
        assert not found.significant_L.any()


def test_a_thousand_shuffles_are_quick():
    import time

    profile = random_profile(pairs=200, layers=30)
    started = time.perf_counter()
    for variant in VARIANTS:
        eavss_of(profile, EavssOptions(eavss_variant=variant))
    assert time.perf_counter() - started < 4


# What is compared


def wrong(options, field, value):
    """Options as somebody without a type checker would make them."""
    object.__setattr__(options, field, value)
    options.__post_init__()


def test_as_many_of_each_are_compared():
    profile = random_profile(pairs=40, paired=False)
    kept = np.flatnonzero(profile.hallucinated_N | (np.arange(80) < 30))
    uneven = profile_of(
        profile.variance["official"][kept],
        profile.zeros_NL[kept],
        profile.entries_N[kept],
        profile.hallucinated_N[kept],
    )
    found = eavss_of(uneven, EavssOptions(seed=3, eavss_shuffles=5))
    assert found.answers == (15, 15)
    assert "15 hallucinated and 15 true answers" in found.notes[0]
    again, other = (eavss_of(uneven, EavssOptions(seed=s, eavss_shuffles=5)) for s in (3, 4))
    assert np.array_equal(found.score_L, again.score_L)
    assert not np.array_equal(found.score_L, other.score_L)
    everything = eavss_of(uneven, EavssOptions(eavss_balance=False, eavss_shuffles=5))
    assert everything.answers == (40, 15)


def test_balancing_keeps_pairs_together():
    profile = random_profile(pairs=10)
    alone = random_profile(seed=1, pairs=10, paired=False)
    wrong = alone.hallucinated_N
    extra = profile_of(
        alone.variance["official"][wrong],
        alone.zeros_NL[wrong],
        alone.entries_N[wrong],
        alone.hallucinated_N[wrong],
        [f"alone {i}" for i in range(10)],
    )
    options = EavssOptions(eavss_shuffles=5)
    assert np.array_equal(eavss_of(profile.merge(extra), options).score_L, eavss_of(profile, options).score_L)


def test_enough_answers_need_no_note():
    assert eavss_of(random_profile(pairs=200), EavssOptions(eavss_shuffles=5)).notes == ()


@pytest.mark.parametrize(("label", "kind"), [(True, "wrong"), (False, "right")])
def test_answers_of_one_kind_are_refused(label, kind):
    profile = replace(GOLDEN, hallucinated_N=np.full(4, label))
    with pytest.raises(
        PlanError, match=rf"every answer \(4\) is {kind}, and EAVSS compares the two. Use --answers-from pairs"
    ):
        eavss_of(profile)


def test_scores_that_are_not_finite_are_refused():
    none = replace(GOLDEN, zeros_NL=np.array([[1, 0]] * 4))
    for variant in ("conditional", "logratio", "effect"):
        with pytest.raises(PlanError, match=r"the EAVSS of block 1 is not finite.*Keep --eavss-smoothing"):
            eavss_of(none, replace(BARE, eavss_variant=variant))
    with pytest.raises(PlanError, match="there is one of each"):
        eavss_of(profile_of([[1], [2]], [[1], [1]], [9, 9], [0, 1]))
    lonely = profile_of([[1], [2], [3], [4]], [[1]] * 4, [9] * 4, [1, 0, 0, 0])
    for variant in VARIANTS:
        with pytest.raises(PlanError, match="there is one of each"):
            eavss_of(lonely, EavssOptions(eavss_variant=variant, eavss_shuffles=5))
        everything = EavssOptions(eavss_variant=variant, eavss_shuffles=5, eavss_balance=False)
        assert eavss_of(lonely, everything).answers == (1, 3)


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("eavss_variant", "ratio", "unknown EAVSS variant 'ratio'. Use one of delta, conditional, logratio, effect"),
        ("eavss_estimator", "neuron", "unknown EAVSS estimator 'neuron'. Use official or token"),
        ("eavss_shuffles", 0, "--eavss-shuffles 0 is not positive"),
        ("eavss_level", 1.5, "must be shares"),
        ("eavss_prone", 0.0, "must be shares"),
    ],
)
def test_options_that_mean_nothing_are_refused(field, value, problem):
    with pytest.raises(PlanError, match=problem):
        wrong(EavssOptions(), field, value)


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("answers_from", "them", "cannot take answers from 'them'. Use pairs, self or none"),
        ("answer_tokens", "first", "unknown answer tokens 'first'. Use all or last"),
        ("answer_near_zero", 0.0, "--answer-near-zero 0.0 is not positive"),
    ],
)
def test_answers_that_mean_nothing_are_refused(field, value, problem):
    with pytest.raises(PlanError, match=problem):
        wrong(HallucinationOptions(), field, value)


# Choosing by it


def result_of(*scores: float) -> EavssResult:
    score_L = np.array(scores)
    p_L = np.linspace(0.01, 0.9, len(scores))
    return EavssResult(score_L, score_L, score_L, score_L, p_L, p_L, p_L < 0.05, (9, 9))


def test_prone_blocks_are_a_quarter_by_size():
    result = result_of(0.1, -3, 2, -0.5, 2.5, 0, 1, -1)
    assert prone_layers(result) == [1, 4]
    assert prone_layers(result, 0.5) == [1, 2, 4, 6], "of two alike the first"
    assert prone_layers(result, 0.01) == [1]
    assert prone_layers(result, significant=True) == [0]


def test_a_ranking_takes_indifferent_or_prone_blocks_first():
    evidence = LayerEvidence(5, eavss=result_of(0.1, -3, 2, -0.5, 2.5))
    ranking = RANKINGS["eavss"]
    assert by_rank(ranking.importance(evidence, "block"), 2) == [0, 3]
    assert consecutive_blocks(ranking, evidence, 2) == [2, 3]
    prone = replace(evidence, eavss_first="prone")
    assert by_rank(ranking.importance(prone, "block"), 2) == [1, 4]
    assert consecutive_blocks(ranking, prone, 2) == [1, 2]
    with pytest.raises(PlanError, match=r"EAVSS is taken at the output of whole blocks.*--what block"):
        ranking.importance(evidence, "attention")
    with pytest.raises(PlanError, match="this ranking needs EAVSS"):
        ranking.importance(LayerEvidence(5), "block")


def test_an_allocation_keeps_more_where_answers_differ():
    evidence = Evidence((100,) * 4, eavss=(1.0, -4.0, 2.0, 1.0))
    plan = make_plan("eavss", evidence, 0.5, options=AllocationOptions(scale=0.1))
    # 0.5 + 0.1 (4 p - 1) with p = 1/8, 4/8, 2/8, 1/8.
    assert plan.keep == pytest.approx([0.45, 0.6, 0.5, 0.45])
    assert plan.evidence["eavss"] == [1, -4, 2, 1]
    assert plan.evidence["eavss_share"] == pytest.approx([1 / 8, 4 / 8, 2 / 8, 1 / 8])
    with pytest.raises(PlanError, match="this allocation needs the EAVSS of each block"):
        make_plan("eavss", Evidence((1, 1)), 0.5)
    with pytest.raises(PlanError, match="true and hallucinated answers coincide in every block"):
        make_plan("eavss", Evidence((1, 1), eavss=(0.0, 0.0)), 0.5)


# The jobs

COLUMNS = {"hsav", "hss", "eavss", "neavss", "eavss_p", "eavss_p_adjusted"}
QUICK = EavssOptions(eavss_shuffles=50)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    write_corpus(folder / "corpus.txt")
    write_statements(folder / "statements.csv")
    rows = [
        {"question": f"How much is {n} and {n}?", "right": [str(2 * n)], "wrong": [f"{n} or {n}"]} for n in range(40)
    ]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def asking(files) -> QaOptions:
    return QaOptions(qa=(str(files / "sums.jsonl"),))


@pytest.fixture
def calibration(files) -> CalibrationOptions:
    return CalibrationOptions(
        sources=(str(files / "corpus.txt"),), nsamples=4, seqlen=32, statements=str(files / "statements.csv")
    )


def hashes(files, side) -> set[str]:
    return {question.sha256 for question in set_questions(find_set(str(files / "sums.jsonl")), 0, side)}


def expected(loaded, asking, hallucination=HallucinationOptions(), contrast=QUICK) -> EavssResult:
    collected = collect_answers(loaded, hallucination, asking)
    return eavss_of(observe_hallucination(loaded, read_anatomy(loaded.model), collected), contrast)


def test_a_scan_tells_where_answers_differ(tiny, tiny_folder, files, asking, calibration, tmp_path):
    report = scan(tiny_folder, tmp_path / "scan", calibration=calibration, asking=asking, contrast=QUICK)
    saved = json.loads((tmp_path / "scan" / "scan.json").read_text())
    result = expected(tiny, asking)
    assert result.answers == (10, 10)
    for block in saved["blocks"]:
        assert set(block) >= COLUMNS
        assert block["eavss"] == pytest.approx(result.score_L[block["index"]])
        assert block["eavss_p"] == pytest.approx(result.p_value_L[block["index"]])
        assert block["eavss"] == pytest.approx(block["hsav"] - block["hss"])
    assert saved["hallucination_prone"] == prone_layers(result)
    plan = prune(load(tiny_folder), method="eavss", calibration=calibration, asking=asking, contrast=QUICK).plan
    assert [block["density"]["eavss"] for block in saved["blocks"]] == plan.keep
    how = saved["eavss"]
    assert how["compared"] == {"hallucinated": 10, "true": 10}
    assert "10 hallucinated and 10 true" in how["notes"][0]
    assert (how["answers_from"], how["eavss_variant"], how["side"]) == ("pairs", "logratio", "fit")
    assert set(how["fitted_on"]["sums"]) == hashes(files, "fit")
    assert not hashes(files, "audit") & set(how["fitted_on"]["sums"])
    pytest.importorskip("matplotlib")
    assert (tmp_path / "scan" / "eavss.png").stat().st_size > 1000
    assert report["eavss"]["qa"] == ["sums"]


def test_a_scan_without_answers_reads_none(tiny, calibration):
    nowhere = QaOptions(qa=("truthfulqa",))
    none = HallucinationOptions(answers_from="none")
    report = scan(tiny, calibration=calibration, asking=nowhere, hallucination=none)
    assert not COLUMNS & set(report["blocks"][0])
    assert set(report["blocks"][0]["density"]) == {"uniform", "owl", "swl", "tplo"}
    assert report["eavss"] is report["hallucination_prone"] is None


def test_which_tokens_and_what_counts_as_zero_reach_the_profile(tiny, asking):
    def profile(**options):
        collected = collect_answers(tiny, HallucinationOptions(**options), asking)
        return observe_hallucination(tiny, read_anatomy(tiny.model), collected)

    usual, last = profile(), profile(answer_tokens="last")
    assert (last.entries_N == 32).all()
    assert usual.entries_N.max() > 32
    wide, absolute = profile(answer_near_zero=0.5), profile(answer_near_zero=0.5, answer_near_zero_relative=False)
    assert usual.zeros_NL.sum() < absolute.zeros_NL.sum() < wide.zeros_NL.sum()


def test_few_zeros_are_told(tiny, asking, calibration):
    rare = HallucinationOptions(answer_near_zero=1e-9, answer_near_zero_relative=False)
    report = scan(tiny, calibration=calibration, asking=asking, contrast=QUICK, hallucination=rare)
    assert any("at most 0 activations of answers are near zero" in note for note in report["eavss"]["notes"])


def test_the_models_own_answers_are_compared(tiny, asking, calibration, monkeypatch):
    """What a random model says is wrong, so its grades are made up here."""
    from trueprune.audits.qa import answers as module

    graded = module.graded

    def made_up(text, question, **options):
        return replace(graded(text, question, **options), correct=int(question.id) % 2 == 0, abstained=False)

    monkeypatch.setattr(module, "graded", made_up)
    own = HallucinationOptions(answers_from="self")
    found = collect_answers(tiny, own, asking)
    assert 2 <= len(found.answers) <= 10, "one answer a question"
    assert all(one.id.startswith("sums:") and one.cluster.startswith("sums:") for one in found.answers)
    assert {one.hallucinated for one in found.answers} == {True, False}
    assert all(one.hallucinated == bool(int(one.id.removeprefix("sums:")) % 2) for one in found.answers)
    report = scan(tiny, calibration=calibration, asking=asking, contrast=QUICK, hallucination=own)
    assert report["eavss"]["answers_from"] == "self"
    assert min(report["eavss"]["compared"].values()) > 0


def test_a_model_that_says_nothing_is_refused(tiny, asking, monkeypatch):
    from trueprune.jobs import hallucination as module

    monkeypatch.setattr(module, "judged", lambda _questions, _answers: [])
    with pytest.raises(PlanError, match=r"the model gives no answer to any question. Use --answers-from pairs"):
        collect_answers(tiny, HallucinationOptions(answers_from="self"), asking)


def test_a_model_that_is_always_wrong_is_refused(tiny, asking, calibration):
    own = HallucinationOptions(answers_from="self")
    with pytest.raises(PlanError, match=r"every answer \(\d+\) is wrong, and EAVSS compares the two"):
        scan(tiny, calibration=calibration, asking=asking, contrast=QUICK, hallucination=own)


def test_blocks_are_dropped_by_eavss(tiny_folder, files, asking):
    loaded = load(tiny_folder)
    size_L = np.abs(expected(loaded, asking).score_L)
    indifferent = DropOptions(what="block", by="eavss", count=1)
    for choice, wanted in (
        (indifferent, int(size_L.argmin())),
        (replace(indifferent, eavss_first="prone"), int(size_L.argmax())),
    ):
        plan = drop(load(tiny_folder), choice=choice, asking=asking, contrast=QUICK).plan
        assert plan.drop is not None
        assert plan.drop.blocks == (wanted,)
        assert set(plan.evidence["answers"]["fitted_on"]["sums"]) == hashes(files, "fit")
        assert plan.evidence["answers"]["first"] == choice.eavss_first
        assert "10 hallucinated" in plan.notes[0]


def test_an_iterative_drop_scores_what_is_left(tiny_folder, asking):
    choice = DropOptions(what="block", by="eavss", count=2, schedule="iterative")
    result = drop(load(tiny_folder), choice=choice, asking=asking, contrast=QUICK)
    rounds = result.plan.drop.rounds
    loaded = load(tiny_folder)
    assert rounds[0]["importance"] == pytest.approx(np.abs(expected(loaded, asking).score_L).tolist())
    first = int(rounds[0]["dropped"][0].split()[1])
    drop(loaded, choice=DropOptions(what="block", by="last", count=1)) if first == 2 else None
    left = drop(load(tiny_folder), choice=replace(choice, count=1), asking=asking, contrast=QUICK).loaded
    assert rounds[1]["importance"] == pytest.approx(np.abs(expected(left, asking).score_L).tolist(), rel=1e-3)
    assert len(read_anatomy(result.loaded.model).blocks) == 1


def test_eavss_needs_no_calibration_texts(tiny, asking):
    nothing = CalibrationOptions(sources=("no such source",))
    choice = DropOptions(what="block", by="eavss", count=1)
    assert drop(tiny, choice=choice, asking=asking, contrast=QUICK, calibration=nothing).plan.drop is not None


@pytest.mark.parametrize(
    ("choice", "options", "problem"),
    [
        (DropOptions(by="eavss"), {}, "--by eavss is taken at the output of whole blocks. Use it with --what block"),
        (DropOptions(what="joint", by="eavss"), {}, "--by eavss is taken at the output of whole blocks"),
        (
            DropOptions(what="block", by="eavss"),
            {"hallucination": HallucinationOptions(answers_from="none")},
            "--answers-from none leaves EAVSS nothing to compare. Use pairs or self",
        ),
        (DropOptions(by="cosine", eavss_first="prone"), {}, "--by cosine takes no EAVSS. Leave --eavss-first out"),
        (DropOptions(by="cosine"), {"contrast": QUICK}, "--by cosine compares no answers"),
        (DropOptions(by="avss"), {"asking": QaOptions(qa_items=5)}, "--by avss compares no answers"),
    ],
)
def test_drops_that_contradict_themselves_are_refused(tiny, choice, options, problem):
    with pytest.raises(PlanError, match=problem):
        drop(tiny, choice=choice, **options)
    assert len(read_anatomy(tiny.model).blocks) == 3


def test_a_drop_by_something_else_may_have_a_seed(tiny):
    choice = DropOptions(what="block", by="random", count=1)
    assert drop(tiny, choice=choice, contrast=EavssOptions(seed=7)).plan.drop is not None


def test_weights_are_pruned_by_eavss(tiny_folder, files, asking, calibration, tmp_path):
    options = AllocationOptions(scale=0.2)
    result = prune(
        tiny_folder, tmp_path / "out", method="eavss", calibration=calibration, allocation=options, asking=asking
    )
    record = json.loads((tmp_path / "out" / "trueprune.json").read_text())
    assert record["method"] == record["plan"]["method"] == "eavss"
    assert record["plan"]["score"] == "wanda"
    assert record["measured_sparsity"] == pytest.approx(0.5, abs=1 / 32)
    scores = expected(load(tiny_folder), asking).score_L
    share_L = np.abs(scores) / np.abs(scores).sum()
    assert result.plan.keep == pytest.approx((0.5 + 0.2 * (3 * share_L - 1)).tolist())
    assert max(result.plan.keep) - min(result.plan.keep) > 0.01
    answers = record["plan"]["evidence"]["answers"]
    assert set(answers["fitted_on"]["sums"]) == hashes(files, "fit")
    assert (answers["side"], answers["eavss_variant"], answers["seed"]) == ("fit", "logratio", 0)
    assert any("10 hallucinated" in note for note in record["plan"]["notes"])
    assert Plan.from_json(record["plan"]).evidence["eavss"] == pytest.approx(scores.tolist())


def test_pruning_by_eavss_needs_answers(tiny, calibration):
    none = HallucinationOptions(answers_from="none")
    with pytest.raises(PlanError, match="--answers-from none leaves EAVSS nothing to compare"):
        prune(tiny, method="eavss", calibration=calibration, hallucination=none)
    with pytest.raises(PlanError, match="this allocation needs the EAVSS of each block"):
        weights = tuple(read_anatomy(tiny.model).weights)
        prune(tiny, method="eavss", calibration=calibration, evidence=Evidence(weights))


def test_a_pruning_that_compares_no_answers_refuses_their_options(tiny, calibration):
    for given in ({"hallucination": HallucinationOptions(answers_from="self")}, {"contrast": QUICK}):
        with pytest.raises(PlanError, match="--method wanda compares no answers"):
            prune(tiny, method="wanda", calibration=calibration, **given)
    plan = make_plan("eavss", Evidence(tuple(read_anatomy(tiny.model).weights), eavss=(1.0, 2.0, 3.0)), 0.5)
    with pytest.raises(PlanError, match="--plan compares no answers"):
        prune(tiny, plan=plan, calibration=calibration, asking=QaOptions(qa_items=5))
    assert prune(tiny, method="magnitude", contrast=EavssOptions(seed=7)).plan.sparsity == 0.5


def test_a_drop_after_a_drop_keeps_what_both_were_chosen_by(tiny, asking):
    first = drop(tiny, choice=DropOptions(what="attention", by="last", count=1))
    second = drop(first.loaded, choice=DropOptions(what="block", by="eavss", count=1), asking=asking, contrast=QUICK)
    assert second.plan.evidence["answers"]["fitted_on"]["sums"]
    assert second.plan.drop.by == "last, eavss"


def test_answers_longer_than_the_context_are_refused(tiny, calibration, tmp_path):
    file = tmp_path / "long.jsonl"
    rows = [{"question": f"Number {n}?", "right": ["yes " * 300], "wrong": ["no"]} for n in range(8)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(TextError, match=r"the question long:\w+ ends after \d+ tokens, over the model's limit of 256"):
        prune(tiny, method="eavss", calibration=calibration, asking=QaOptions(qa=(str(file),)))


def test_the_command_line(tiny_folder, files, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("trueprune.reports.plots.plots_available", lambda: False)
    sums = ["--qa", str(files / "sums.jsonl"), "--eavss-shuffles", "50"]
    small = ["--calibration", str(files / "corpus.txt"), "--nsamples", "4", "--seqlen", "32"]
    out = tmp_path / "scan"
    flags = [*small, *sums, "--statements", str(files / "statements.csv"), "--eavss-variant", "effect"]
    assert run(["scan", str(tiny_folder), "-o", str(out), *flags, "--answer-tokens", "last"]) == 0
    printed = capsys.readouterr().out
    assert all(
        word in printed
        for word in ("NEAVSS", "adjusted p", "EAVSS (effect)", "influence", "note: EAVSS compares 10 hallucinated")
    )
    report = json.loads((out / "scan.json").read_text())
    assert printed.count(" prone ") == 1 + len(report["hallucination_prone"]), "its column's heading, too"
    assert (report["eavss"]["eavss_variant"], report["eavss"]["answer_tokens"]) == ("effect", "last")
    out = tmp_path / "drop"
    assert (
        run(["drop", str(tiny_folder), "-o", str(out), "--what", "block", "--by", "eavss", "--count", "1", *sums]) == 0
    )
    assert "note: EAVSS compares 10 hallucinated" in capsys.readouterr().out
    assert len(json.loads((out / "trueprune.json").read_text())["plan"]["drop"]["blocks"]) == 1
    assert run(["drop", str(tiny_folder), "-o", str(tmp_path / "no"), "--by", "eavss", *sums]) == 2
    assert "Use it with --what block" in capsys.readouterr().err
