"""Layer scores: moments, wirings and turns of the residual stream against slow, obvious versions and closed forms."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers as tf
from plain import token_rows
from samples import write_corpus, write_statements
from sublayers import PARTS, VARIANTS, deep_model, hear, lively_model
from torch import nn
from torch.nn.functional import cosine_similarity
from zoo import ARCHITECTURES, COMMON, tiny_model

from trueprune import PlanError, scan
from trueprune._support.errors import AuditError, ModelError
from trueprune.jobs.hallucination import HallucinationOptions
from trueprune.jobs.layer_scores import layer_scores
from trueprune.models import read_anatomy
from trueprune.observe import LayerMoments, LayerProfile, NearZero, observe_blocks, observe_outliers
from trueprune.observe.moments import ESTIMATORS
from trueprune.observe.wiring import read_wirings
from trueprune.plans import RANKINGS, AvssOptions, LayerEvidence, avss
from trueprune.plans.avss import cumulative, normalised, profile_avss
from trueprune.plans.choose import by_mass, by_rank, consecutive_blocks, how_many
from trueprune.plans.rankings import find_ranking, window_importance
from trueprune.texts import CalibrationOptions
from trueprune.texts.tokens import TokenBatch

LENGTHS = [24, 7, 24, 19, 1]  # longer and shorter than the sliding windows of 16
ZERO = NearZero(0.05)

# AVSS

VARIANCE, SHARE = np.array([0.5, 0.2, 1.0, 0.4]), np.array([0.05, 0.10, 0.02, 0.20])


def test_avss_by_hand():
    score_L = avss(VARIANCE, SHARE)
    np.testing.assert_allclose(score_L, [10, 2, 50, 2])
    share_L = normalised(score_L)
    np.testing.assert_allclose(share_L, [0.15625, 0.03125, 0.78125, 0.03125])
    # In layer order a quarter is a prefix of the network: blocks 0 and 1.
    np.testing.assert_allclose(cumulative(share_L, "layer"), [0.15625, 0.1875, 0.96875, 1])
    np.testing.assert_allclose(cumulative(share_L, "rank"), [0.21875, 0.03125, 1, 0.0625])
    assert by_rank(score_L, 4) == [1, 3, 0, 2]
    assert by_mass(score_L, 0.25) == [1, 3, 0]
    assert by_rank(score_L, how_many(4, 0.25, None, "block")) == [1]


def test_a_quarter_of_the_layers_is_not_a_quarter_of_the_mass():
    growing_L = 1.15 ** np.arange(32)
    assert by_mass(growing_L, 0.25) == list(range(22))
    assert by_rank(growing_L, how_many(32, 0.25, None, "block")) == list(range(8))
    assert how_many(30, 1 / 3, None, "joint") == 10
    assert how_many(10, None, None, "mlp") == 2


@pytest.mark.parametrize("importance_K", [np.array([0.5, -0.1, 0.2]), np.zeros(3)])
def test_mass_needs_mass(importance_K):
    with pytest.raises(PlanError, match=r"--rule mass needs a ranking with positive scores. Use --rule rank"):
        by_mass(importance_K, 0.25)


def golden_profile() -> LayerProfile:
    zeros_L2 = np.stack([100 * SHARE, np.full(4, 100.0)], axis=1)
    return LayerProfile(
        variance={"output": dict.fromkeys(ESTIMATORS, VARIANCE)},
        zeros={"output": dict.fromkeys(ESTIMATORS, zeros_L2)},
        cosine={"block": np.full(4, 0.75)},
        angle={"block": np.full(4, 0.25)},
        angle_gap=np.full((4, 4), 0.5),
    )


def test_a_scan_says_avss_in_every_way():
    blocks = layer_scores(golden_profile(), AvssOptions(smoothing=False))
    assert [block["avss"] for block in blocks] == pytest.approx([10, 2, 50, 2])
    assert [block["navss"] for block in blocks] == pytest.approx([0.15625, 0.03125, 0.78125, 0.03125])
    assert [block["cavss"] for block in blocks] == pytest.approx([0.15625, 0.1875, 0.96875, 1])
    assert [block["cavss_by_rank"] for block in blocks] == pytest.approx([0.21875, 0.03125, 1, 0.0625])
    assert [block["block_influence"] for block in blocks] == [0.25] * 4
    assert blocks[0]["avss_by_site"]["output"].keys() == set(ESTIMATORS)


def test_laplace_smoothing_keeps_scores_finite():
    found_L = profile_avss(golden_profile(), "block", AvssOptions())
    np.testing.assert_allclose(found_L, VARIANCE / ((100 * SHARE + 1) / 102))
    none = LayerProfile(
        variance={"output": {"official": VARIANCE}},
        zeros={"output": {"official": np.array([[1.0, 64]] * 3 + [[0, 64]])}},
    )
    assert profile_avss(none, "block", AvssOptions())[3] == pytest.approx(0.4 * 66)
    with pytest.raises(
        PlanError, match=r"no activation of layer 3 is near zero, so its AVSS is infinite. Keep --avss-"
    ):
        profile_avss(none, "block", AvssOptions(smoothing=False))
    with pytest.raises(PlanError, match=r"no block of this model has the site 'hidden'. Use --avss-site output"):
        profile_avss(none, "block", AvssOptions(site="hidden"))


# Moments


def slow_moments(rows: list[torch.Tensor], zero: NearZero) -> dict[str, tuple[float, int, int]]:
    """Variance, zeros and entries by estimator, from the definitions, over rows of shape (tokens, units)."""
    rows = [row.double() for row in rows]
    tokens_NC = torch.cat(rows)
    pooled_C = tokens_NC.mean(0)

    def near(x_NC: torch.Tensor) -> int:
        cut = zero.near_zero * (x_NC.square().mean(-1, keepdim=True).sqrt() if zero.relative else 1.0)
        return int((x_NC.abs() < cut).sum())

    entries = (near(tokens_NC), tokens_NC.numel())
    return {
        "official": (float(torch.stack([row.mean(0).var() for row in rows]).mean()), *entries),
        "aifeducation": (float(pooled_C.var(correction=0)), near(pooled_C), len(pooled_C)),
        "token": (float(tokens_NC.var(1).mean()), *entries),
        "neuron": (float(tokens_NC.var(0, correction=0).mean()), *entries),
    }


def assert_moments(found: LayerMoments, want: dict[str, tuple[float, int, int]]) -> None:
    for estimator, (variance, near, entries) in want.items():
        assert found.variance(estimator) == pytest.approx(variance, rel=1e-5), estimator
        assert found.zeros(estimator) == (near, entries), estimator


@pytest.mark.parametrize("zero", [ZERO, NearZero(0.1, relative=True)], ids=["absolute", "relative"])
@pytest.mark.parametrize("side", ["none", "left", "right"])
def test_moments_in_parts_are_those_of_the_definitions(side, zero):
    x_BTC = torch.randn(5, 24, 12, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.2, 3, 12) + 0.3
    lengths = [24] * 5 if side == "none" else LENGTHS
    place = [slice(24 - n, None) if side == "left" else slice(0, n) for n in lengths]
    mask_BT = torch.zeros(5, 24, dtype=torch.bool)
    for row, where in enumerate(place):
        mask_BT[row, where] = True
    # What stands in padding must not matter, whatever it is.
    filled_BTC = torch.where(mask_BT[..., None], x_BTC, math.nan)
    first, second = (LayerMoments(12, torch.device("cpu"), zero) for _ in range(2))
    for moments, rows in ((first, [0]), (first, [1, 2]), (second, [3, 4])):
        found_N = moments.add(filled_BTC[rows], None if side == "none" else mask_BT[rows])
        torch.testing.assert_close(found_N, x_BTC[rows][mask_BT[rows]].square().sum(1))
    first.merge(second)
    assert (first.tokens, first.sequences, first.width) == (sum(lengths), 5, 12)
    want = slow_moments([x_BTC[row, where] for row, where in enumerate(place)], zero)
    assert 0 < want["token"][1] < want["token"][2] / 2
    assert_moments(first, want)


def test_what_is_unknown_or_undefined_is_refused():
    with pytest.raises(AuditError, match=r"--near-zero 0\.0 is not positive"):
        NearZero(0.0)
    with pytest.raises(AuditError, match=r"unknown estimator 'mean'. Use one of official, aifeducation, token, neuron"):
        LayerMoments(4, torch.device("cpu")).variance("mean")
    with pytest.raises(
        PlanError, match=r"unknown ranking 'best', .* avss, block-influence, cosine, angular, eavss, random, f"
    ):
        find_ranking("best")
    with pytest.raises(PlanError, match="this ranking needs a layer profile"):
        RANKINGS["avss"].importance(LayerEvidence(3), "block")


# Wirings


@pytest.mark.parametrize("name", [*ARCHITECTURES, *VARIANTS])
def test_how_sublayers_are_joined_is_seen(name):
    model, parts = lively_model(name), PARTS[name]
    anatomy = read_anatomy(model)
    for block, wiring in zip(anatomy.blocks, read_wirings(anatomy), strict=True):

        def with_weights(names, block=block):
            return tuple(n for n in names if list(block.module.get_submodule(n).parameters()))

        assert wiring.residual
        assert wiring.parallel == parts.parallel
        assert (wiring.attention.core, wiring.mlp.core[-1:]) == ((parts.attention,), (parts.mlp,))
        for branch, norms in ((wiring.attention, parts.attention_norms), (wiring.mlp, parts.mlp_norms)):
            assert (with_weights(branch.before), with_weights(branch.after)) == norms


def test_what_serves_both_sublayers_serves_none_alone():
    wiring = read_wirings(read_anatomy(lively_model("phi")))[0]
    served = {*wiring.attention.before, *wiring.attention.after, *wiring.mlp.before, *wiring.mlp.after}
    assert not served & {"input_layernorm", "resid_dropout"}


def post_norm_opt() -> nn.Module:
    config = tf.OPTConfig(**COMMON, ffn_dim=48, word_embed_proj_dim=32, do_layer_norm_before=False)
    torch.manual_seed(0)
    return tf.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def test_norms_on_the_stream_itself_are_seen():
    anatomy = read_anatomy(post_norm_opt())
    assert [wiring.residual for wiring in read_wirings(anatomy)] == [False] * 3
    _, profile = observe_blocks(anatomy, TokenBatch(token_rows()), zero=ZERO)
    assert set(profile.cosine) == {"block"}
    assert set(profile.variance) == {"output", "update", "hidden"}
    with pytest.raises(PlanError, match="no attention of this model adds to the residual stream and does nothing else"):
        RANKINGS["cosine"].importance(LayerEvidence(3, profile), "attention")


# The profile of whole models


def batch_of(ids_NT: torch.Tensor, lengths: list[int], side: str) -> TokenBatch:
    mask_NT = torch.zeros(ids_NT.shape, dtype=torch.bool)
    out_NT = torch.zeros_like(ids_NT)
    for row, length in enumerate(lengths):
        where = slice(0, length) if side == "right" else slice(ids_NT.shape[1] - length, None)
        mask_NT[row, where], out_NT[row, where] = True, ids_NT[row, :length]
    return TokenBatch(out_NT, mask_NT)


def assert_profile(profile: LayerProfile, name: str, rows: list[list], gap: int, slack: int) -> None:
    """Compare with what `hear` heard of each sequence; `slack` entries may lie just on the other side of near zero."""
    parallel = PARTS[name].parallel
    n_blocks = len(rows[0])
    stream = [[*(heard.x for heard in row), row[-1].y] for row in rows]

    def turned(pairs) -> tuple[float, float]:
        cosines = [cosine_similarity(a, b, dim=-1) for a, b in pairs]
        angles = [float(c[-1].clamp(-1, 1).arccos()) / math.pi for c in cosines]
        return float(torch.cat(cosines).mean()), sum(angles) / len(angles)

    for index in range(n_blocks):
        here = [row[index] for row in rows]
        turns = {
            "block": turned([(h.x, h.y) for h in here]),
            "attention": turned([(h.x, h.x + h.attention) for h in here]),
            "mlp": turned([(base := h.x if parallel else h.x + h.attention, base + h.mlp) for h in here]),
        }
        for unit, (cosine, angle) in turns.items():
            assert profile.cosine[unit][index] == pytest.approx(cosine, abs=2e-6), (unit, index)
            assert profile.angle[unit][index] == pytest.approx(angle, abs=2e-6), (unit, index)
        sites = {
            "output": [h.y for h in here],
            "update": [h.y - h.x for h in here],
            "attention": [h.attention for h in here],
            "mlp": [h.mlp for h in here],
            "hidden": [h.hidden for h in here],
        }
        for site, values in sites.items():
            if values[0] is None:
                assert site not in profile.variance
                continue
            for estimator, (variance, near, entries) in slow_moments(values, ZERO).items():
                assert profile.variance[site][estimator][index] == pytest.approx(variance, rel=1e-4), (site, estimator)
                assert profile.zeros[site][estimator][index, 0] == pytest.approx(near, abs=slack), (site, estimator)
                assert profile.zeros[site][estimator][index, 1] == entries
    assert profile.angle_gap.shape == (n_blocks, n_blocks)
    for start in range(n_blocks):
        for n in range(1, n_blocks + 1):
            found = profile.angle_gap[start, n - 1]
            if start + n > n_blocks:
                assert math.isnan(found)
                continue
            cosine, angle = turned([(x[start], x[start + n]) for x in stream])
            assert found == pytest.approx(angle, abs=2e-6)
            if n == gap:
                assert profile.gap_cosine[gap][start] == pytest.approx(cosine, abs=2e-6)
    assert {n: len(values) for n, values in profile.gap_cosine.items()} == {gap: n_blocks + 1 - gap}


@pytest.mark.parametrize("name", [*ARCHITECTURES, *VARIANTS])
def test_the_profile_is_that_of_hooks_on_the_whole_model(name):
    model, ids_NT = lively_model(name), token_rows()
    _, profile = observe_blocks(read_anatomy(model), TokenBatch(ids_NT), zero=ZERO, gap=2, batch_tokens=48)
    assert_profile(profile, name, [hear(model, name, ids_1T) for ids_1T in ids_NT.split(1)], gap=2, slack=1)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_padding_takes_no_part_in_the_profile(name, side):
    model, ids_NT = lively_model(name), token_rows(len(LENGTHS))
    tokens = batch_of(ids_NT, LENGTHS, side)
    _, profile = observe_blocks(read_anatomy(model), tokens, zero=ZERO, gap=3, batch_tokens=60)
    rows = [hear(model, name, ids_NT[i : i + 1, :length]) for i, length in enumerate(LENGTHS)]
    assert_profile(profile, name, rows, gap=3, slack=2)


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "mixtral"])
def test_watching_changes_nothing_and_costs_no_pass(name):
    model, tokens = tiny_model(name), TokenBatch(token_rows())
    anatomy = read_anatomy(model)
    forwards: dict[str, int] = {}
    for block in anatomy.blocks:
        # Blocks are never really run while inputs are captured; the probe of the wiring is a few tokens long.
        def count(_module, _args, kwargs, output, path=block.path):
            y_BTD = output[0] if isinstance(output, tuple) else output
            forwards[path] = forwards.get(path, 0) + (y_BTD.shape[1] == 24)

        block.attention.modules[0].register_forward_hook(count, with_kwargs=True)
    outliers, profile = observe_blocks(anatomy, tokens, outlier_threshold=3.0, zero=ZERO, batch_tokens=48)
    assert forwards == {block.path: 2 for block in anatomy.blocks}, "two micro-batches, each once"
    assert outliers == observe_outliers(anatomy, tokens, 3.0, batch_tokens=48)
    alone = observe_blocks(anatomy, tokens, zero=ZERO, batch_tokens=48)
    assert alone[0] is None
    assert all(np.array_equal(alone[1].cosine[unit], profile.cosine[unit]) for unit in profile.cosine)
    hooks = [module._forward_hooks | module._forward_pre_hooks for module in model.modules()]
    assert sum(map(len, hooks)) == 3, "only the test's own are left"


def test_a_scan_runs_the_calibration_tokens_once(tiny, tmp_path):
    statements = write_statements(tmp_path / "statements.csv")
    calibration = CalibrationOptions(
        sources=(str(write_corpus(tmp_path / "corpus.txt")),), nsamples=4, seqlen=37, statements=str(statements)
    )
    rows = []
    for layer in tiny.model.model.layers:
        layer.self_attn.q_proj.register_forward_pre_hook(
            lambda _module, args, layer=layer: rows.append((layer, *args[0].shape[:2]))
        )
    # Answers are no calibration tokens.
    report = scan(
        tiny, calibration=calibration, hallucination=HallucinationOptions(answers_from="none"), batch_tokens=74
    )
    for layer in tiny.model.model.layers:
        assert [row[1:] for row in rows if row[0] is layer].count((2, 37)) == 2
    block = report["blocks"][1]
    assert block["block_influence"] == pytest.approx(1 - block["cosine"]["block"])
    assert [len(b["angular_distance"]) for b in report["blocks"]] == [3, 2, 1]
    assert set(block["avss_by_site"]) == {"output", "update", "attention", "mlp", "hidden"}
    assert sum(b["navss"] for b in report["blocks"]) == pytest.approx(1)


def test_activations_that_overflow_are_named():
    model = tiny_model("llama")
    model.model.layers[1].mlp.down_proj.weight.data[0, 0] = math.nan
    with pytest.raises(
        ModelError, match=r"activations of model\.layers\.1 \(\w+\) are not finite.*Use --dtype float32"
    ):
        observe_blocks(read_anatomy(model), TokenBatch(token_rows()), zero=ZERO)


# Closed forms


def turn(angle: float) -> torch.Tensor:
    return torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


class Turner(nn.Module):
    """Gives what turns its input by an angle."""

    def __init__(self, angle: float):
        super().__init__()
        self.proj = nn.Linear(2, 2, bias=False)
        self.proj.weight.data = turn(angle) - torch.eye(2)

    def forward(self, x):
        return self.proj(x)


class Attention(Turner):
    def forward(self, x, attention_mask=None):
        return super().forward(x)


class TurningBlock(nn.Module):
    def __init__(self, attention: float, mlp: float, parallel: bool, scale: float):
        super().__init__()
        self.attn, self.mlp = Attention(attention), Turner(mlp)
        self.parallel, self.scale = parallel, scale

    def forward(self, x, attention_mask=None):
        if self.parallel:
            return x + self.scale * (self.attn(x, attention_mask) + self.mlp(x))
        x = x + self.scale * self.attn(x, attention_mask)
        return x + self.scale * self.mlp(x)


class Carousel(nn.Module):
    """A network in the plane whose layers turn the stream by known angles, in degrees, whatever the tokens."""

    def __init__(self, angles: list[tuple[float, float]], *, parallel: bool = False, scale: float = 1.0):
        super().__init__()
        self.config = SimpleNamespace(hidden_size=2)
        self.embed = nn.Embedding(320, 2)
        turns = [(math.radians(a), math.radians(m)) for a, m in angles]
        self.layers = nn.ModuleList(TurningBlock(a, m, parallel, scale) for a, m in turns)

    def get_input_embeddings(self):
        return self.embed

    def forward(self, input_ids, attention_mask=None, use_cache=None):
        x = self.embed(input_ids)
        for layer in self.layers:
            x = layer(x, attention_mask=attention_mask)
        return SimpleNamespace(logits=x)


def ride(angles, gap=None, **joined) -> LayerProfile:
    torch.manual_seed(0)
    return observe_blocks(read_anatomy(Carousel(angles, **joined)), TokenBatch(token_rows()), zero=ZERO, gap=gap)[1]


def cos(*degrees: float) -> list[float]:
    return [math.cos(math.radians(d)) for d in degrees]


def test_known_turns_one_after_the_other():
    profile = ride([(30, 15), (10, -50), (0.5, 60)], gap=2)
    np.testing.assert_allclose(profile.cosine["block"], cos(45, -40, 60.5), atol=1e-6)
    np.testing.assert_allclose(profile.cosine["attention"], cos(30, 10, 0.5), atol=1e-6)
    np.testing.assert_allclose(profile.cosine["mlp"], cos(15, -50, 60), atol=1e-6)
    np.testing.assert_allclose(profile.angle["block"], np.array([45, 40, 60.5]) / 180, atol=1e-6)
    np.testing.assert_allclose(profile.angle["attention"], np.array([30, 10, 0.5]) / 180, atol=1e-6)
    expected_LL = np.array([[45, 5, 65.5], [40, 20.5, math.nan], [60.5, math.nan, math.nan]]) / 180
    np.testing.assert_allclose(profile.angle_gap, expected_LL, atol=1e-6)
    np.testing.assert_allclose(profile.gap_cosine[2], cos(5, 20.5), atol=1e-6)


def test_known_turns_side_by_side():
    # x becomes R(90) x + R(30) x - x: components (cos 90 + cos 30 - 1, sin 90 + sin 30).
    profile = ride([(90, 30), (20, 40)], parallel=True)
    along, across = math.cos(math.radians(30)) - 1, 1.5
    assert profile.cosine["block"][0] == pytest.approx(along / math.hypot(along, across), abs=1e-6)
    np.testing.assert_allclose(profile.cosine["attention"], cos(90, 20), atol=1e-6)
    np.testing.assert_allclose(profile.cosine["mlp"], cos(30, 40), atol=1e-6)


@pytest.mark.parametrize("parallel", [False, True])
def test_what_a_model_scales_is_heard_as_it_is_added(parallel):
    # Half of a turn by 90 degrees: x + (R(90) x - x) / 2, at 45 degrees.
    profile = ride([(90, 90), (90, 90)], parallel=parallel, scale=0.5)
    np.testing.assert_allclose(profile.cosine["attention"], cos(45, 45), atol=1e-6)
    np.testing.assert_allclose(profile.cosine["mlp"], cos(45, 45), atol=1e-6)
    np.testing.assert_allclose(profile.cosine["block"], cos(90, 90), atol=1e-6)


def test_small_turns_are_not_lost_in_rounding():
    profile = ride([(0.01, 0), (0, 0.02)])
    np.testing.assert_allclose(1 - profile.cosine["block"], 1 - np.array(cos(0.01, 0.02)), rtol=0.02)
    np.testing.assert_allclose(profile.angle["block"], np.array([0.01, 0.02]) / 180, rtol=0.01)


# Windows of blocks

TURNS = [(4, 0), (1, 0), (9, 0), (2, 0), (2, 0)]


@pytest.mark.parametrize("name", ["angular", "cosine", "block-influence"])
def test_consecutive_blocks_are_found_at_their_own_gap(name):
    # Pairs turn by 5, 10, 11, 4 degrees; triples by 14, 12, 13: one column further, the search would start at 1.
    evidence = LayerEvidence(5, ride(TURNS, gap=2))
    windows = window_importance(RANKINGS[name], evidence, 2)
    expected = np.array([5, 10, 11, 4]) / 180 if name == "angular" else 1 - np.array(cos(5, 10, 11, 4))
    np.testing.assert_allclose(windows, expected, atol=1e-6)
    assert consecutive_blocks(RANKINGS[name], evidence, 2) == [3, 4]
    further = window_importance(RANKINGS["angular"], evidence, 3)
    assert int(np.argmin(further)) == 1


def test_other_rankings_sum_over_the_window():
    evidence = LayerEvidence(4, golden_profile(), AvssOptions(smoothing=False), seed=3)
    np.testing.assert_allclose(
        window_importance(RANKINGS["avss"], evidence, 2), [0.1875, 0.8125, 0.8125], err_msg="shares of AVSS"
    )
    assert consecutive_blocks(RANKINGS["avss"], evidence, 2) == [0, 1]
    assert consecutive_blocks(RANKINGS["first"], evidence, 3) == [0, 1, 2]
    assert consecutive_blocks(RANKINGS["last"], evidence, 3) == [1, 2, 3]
    order_L = RANKINGS["random"].importance(evidence, "block")
    assert sorted(order_L) == [0, 1, 2, 3]
    start = int(np.argmin(order_L[:-1] + order_L[1:]))
    assert consecutive_blocks(RANKINGS["random"], evidence, 2) == [start, start + 1]


def test_random_orders_follow_the_seed_and_the_kind():
    def order(seed, unit):
        return RANKINGS["random"].importance(LayerEvidence(16, seed=seed), unit).tolist()

    assert order(0, "attention") == order(0, "attention")
    assert order(0, "attention") != order(1, "attention")
    assert order(0, "attention") != order(0, "mlp")


def test_windows_of_a_whole_model():
    model, tokens = deep_model(), TokenBatch(token_rows())
    heard = [hear(model, "llama", ids_1T) for ids_1T in tokens.ids_NT.split(1)]
    for count in (1, 3, 5):
        _, profile = observe_blocks(read_anatomy(model), tokens, zero=ZERO, gap=count)
        evidence = LayerEvidence(6, profile)
        stream = [[*(h.x for h in row), row[-1].y] for row in heard]
        turned = [
            1 - float(torch.cat([cosine_similarity(x[i], x[i + count], dim=-1) for x in stream]).mean())
            for i in range(7 - count)
        ]
        np.testing.assert_allclose(window_importance(RANKINGS["cosine"], evidence, count), turned, atol=2e-6)
        start = int(np.argmin(turned))
        assert consecutive_blocks(RANKINGS["cosine"], evidence, count) == list(range(start, start + count))
        assert len(window_importance(RANKINGS["angular"], evidence, count)) == 7 - count
