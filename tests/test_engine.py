"""The streaming engine against whole-model forwards."""

from __future__ import annotations

import peft
import pytest
import torch
import transformers as tf
from plain import inputs_of, matrices, stack_of, token_rows
from torch import nn
from zoo import ARCHITECTURES, SPECIAL, tiny_model

from trueprune import LoadedModel, ModelError, TextError
from trueprune.models import read_anatomy
from trueprune.observe import (
    BlockStream,
    ColumnNorms,
    Gram,
    last_token_activations,
    observe_outliers,
    outlier_percentage,
)
from trueprune.observe.activations import encode
from trueprune.texts.tokens import TokenBatch

# PEFT asks transformers for a name that is going away; not ours to mend.
PEFT_NOTICE = "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
LENGTHS = [24, 7, 24, 19, 1]  # longer and shorter than the sliding windows of 16


def padded(side: str, ids_NT: torch.Tensor, lengths: list[int]) -> TokenBatch:
    mask_NT = torch.zeros(ids_NT.shape, dtype=torch.bool)
    out_NT = torch.zeros_like(ids_NT)
    for row, length in enumerate(lengths):
        where = slice(0, length) if side == "right" else slice(ids_NT.shape[1] - length, None)
        mask_NT[row, where] = True
        out_NT[row, where] = ids_NT[row, :length]
    return TokenBatch(out_NT, mask_NT)


def hidden_of(stream: BlockStream) -> torch.Tensor:
    return torch.cat([batch.hidden_BTD for batch in stream._batches])


def dense_norms(model, tokens: TokenBatch, batch_tokens: int = 2048) -> list[dict[str, ColumnNorms]]:
    anatomy = read_anatomy(model)
    stream = BlockStream(anatomy, tokens, batch_tokens=batch_tokens)
    return [stream.observe(block, ColumnNorms, advance=True) for block in anatomy.blocks]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_residual_stream_is_that_of_the_whole_model(name):
    model, ids_NT = tiny_model(name), token_rows()
    anatomy = read_anatomy(model)
    with torch.no_grad():
        expected = model(ids_NT, output_hidden_states=True, use_cache=False).hidden_states
    observed, advanced = (BlockStream(anatomy, TokenBatch(ids_NT), batch_tokens=48) for _ in range(2))
    for block in anatomy.blocks:
        torch.testing.assert_close(hidden_of(observed), expected[block.index], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(hidden_of(advanced), expected[block.index], rtol=1e-5, atol=1e-5)
        observed.observe(block, ColumnNorms, advance=True)
        advanced.advance(block)
    with torch.no_grad():
        last = anatomy.final_norm(hidden_of(observed))
    torch.testing.assert_close(last, expected[-1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_column_norms_are_those_of_hooks_on_the_whole_model(name):
    model, ids_NT = tiny_model(name), token_rows()
    for block, found in zip(stack_of(model, name), dense_norms(model, TokenBatch(ids_NT)), strict=True):
        expected = inputs_of(model, block, [ids_NT])
        assert found.keys() == expected.keys() == matrices(block).keys()
        for matrix, x_NC in expected.items():
            assert found[matrix].tokens == len(x_NC)
            want_C = x_NC.double().square().sum(0)
            # Squares are taken in float32, as Wanda does; only their sum is float64.
            torch.testing.assert_close(found[matrix].square_sum_C, want_C, rtol=1e-7, atol=0)
            exact_C = x_NC.square().sum(0, dtype=torch.float64)
            torch.testing.assert_close(found[matrix].square_sum_C, exact_C, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_grams_are_those_of_hooks_on_the_whole_model(name):
    model, ids_NT = tiny_model(name), token_rows()
    anatomy = read_anatomy(model)
    stream = BlockStream(anatomy, TokenBatch(ids_NT))
    found = stream.observe(anatomy.blocks[0], Gram)
    expected = inputs_of(model, anatomy.blocks[0].module, [ids_NT])
    assert found.keys() == expected.keys()
    for matrix, x_NC in expected.items():
        want_CC = (x_NC.double().t() @ x_NC.double()).float()
        torch.testing.assert_close(found[matrix].gram_CC, want_CC, rtol=1e-5, atol=1e-5 * float(want_CC.max()))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_matrices_with_one_input_share_one_statistic(name):
    model, ids_NT = tiny_model(name), token_rows()
    for parameter in model.parameters():
        if parameter.dim() == 1:
            # Two norms side by side (GPT-NeoX) give equal outputs as long as both are at their initial values.
            parameter.data.normal_(mean=1.0, std=0.2)
    found = dense_norms(model, TokenBatch(ids_NT), batch_tokens=24)[1]
    inputs = inputs_of(model, stack_of(model, name)[1], [ids_NT])
    for a in inputs:
        for b in inputs:
            same = inputs[a].shape == inputs[b].shape and torch.equal(inputs[a], inputs[b])
            assert (found[a] is found[b]) == same, (a, b)
    if "self_attn.q_proj" in found:
        assert found["self_attn.q_proj"] is found["self_attn.k_proj"] is found["self_attn.v_proj"]
    if "mlp.up_proj" in found:
        assert found["mlp.gate_proj"] is found["mlp.up_proj"]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_padding_takes_no_part(name, side):
    model, ids_NT = tiny_model(name), token_rows(len(LENGTHS))
    found = dense_norms(model, padded(side, ids_NT, LENGTHS), batch_tokens=60)
    rows = [ids_NT[i : i + 1, :length] for i, length in enumerate(LENGTHS)]
    for block, norms in zip(stack_of(model, name), found, strict=True):
        expected = inputs_of(model, block, rows)
        assert norms.keys() == expected.keys()
        for matrix, x_NC in expected.items():
            assert norms[matrix].tokens == len(x_NC)
            want_C = x_NC.double().square().sum(0)
            torch.testing.assert_close(norms[matrix].square_sum_C, want_C, rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_rows_may_be_padded_on_different_sides(name):
    model, ids_NT, lengths = tiny_model(name), token_rows(4), [20, 20, 20, 20]
    left, right = padded("left", ids_NT, lengths), padded("right", ids_NT, lengths)
    is_left_N1 = torch.tensor([True, False, False, True])[:, None]
    mixed = TokenBatch(
        torch.where(is_left_N1, left.ids_NT, right.ids_NT), torch.where(is_left_N1, left.mask_NT, right.mask_NT)
    )
    for norms, want in zip(dense_norms(model, mixed), dense_norms(model, TokenBatch(ids_NT[:, :20])), strict=True):
        assert norms.keys() == want.keys()
        for matrix in want:
            assert norms[matrix].tokens == want[matrix].tokens
            torch.testing.assert_close(norms[matrix].square_sum_C, want[matrix].square_sum_C, rtol=1e-4, atol=0)


@pytest.mark.filterwarnings(PEFT_NOTICE)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "opt"])
def test_padding_takes_no_part_under_a_peft_wrapper(name, side):
    # The wrapper's forward hides that of the model, which may still need positions (GPT-2 and OPT count them).
    ids_NT = token_rows(len(LENGTHS))
    config = peft.LoraConfig(target_modules="all-linear", fan_in_fan_out=name == "gpt2", task_type="CAUSAL_LM")
    found = dense_norms(peft.get_peft_model(tiny_model(name), config), padded(side, ids_NT, LENGTHS))
    expected = dense_norms(tiny_model(name), padded(side, ids_NT, LENGTHS))
    for norms, want in zip(found, expected, strict=True):
        assert norms.keys() == want.keys()
        for matrix in want:
            torch.testing.assert_close(norms[matrix].square_sum_C, want[matrix].square_sum_C, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("name", "seed"),
    # Which experts the first micro-batch leaves idle is a matter of luck.
    [(name, 0) for name in ARCHITECTURES] + [(name, seed) for name in ("mixtral", "qwen3_moe") for seed in (1, 2, 3)],
)
def test_ending_early_changes_no_statistic(name, seed):
    model = tiny_model(name)
    anatomy = read_anatomy(model)
    # Two tokens a micro-batch: with experts, most micro-batches leave some idle.
    tokens = TokenBatch(token_rows(12, 2, seed))
    early, whole = (BlockStream(anatomy, tokens, batch_tokens=2) for _ in range(2))
    for block in anatomy.blocks:
        short = early.observe(block, ColumnNorms)
        early.advance(block)
        full = whole.observe(block, ColumnNorms, advance=True)
        assert short.keys() == full.keys()
        for matrix in full:
            assert short[matrix].tokens == full[matrix].tokens, matrix
            assert torch.equal(short[matrix].square_sum_C, full[matrix].square_sum_C), matrix


class ExpertList(nn.Module):
    """A mixture of experts as it was written before transformers stacked them: a list, all called or only some."""

    def __init__(self, experts: list[nn.Module], width: int, call_idle: bool):
        super().__init__()
        self.gate = nn.Linear(width, len(experts), bias=False)
        self.experts = nn.ModuleList(experts)
        self.call_idle = call_idle

    def forward(self, hidden_BTD):
        x_ND = hidden_BTD.reshape(-1, hidden_BTD.shape[-1])
        chosen_N = self.gate(x_ND).argmax(-1)
        out_ND = torch.zeros_like(x_ND)
        for index, expert in enumerate(self.experts):
            rows = (chosen_N == index).nonzero()[:, 0]
            if len(rows) or self.call_idle:
                out_ND[rows] = expert(x_ND[rows])
        return out_ND.view_as(hidden_BTD)


@pytest.mark.parametrize("call_idle", [False, True])
def test_experts_in_a_list_are_observed_whichever_of_them_are_idle(call_idle):
    model, donor = tiny_model("llama"), tiny_model("llama", seed=1)
    for layer in model.model.layers:
        layer.mlp = ExpertList([layer.mlp, *(d.mlp for d in donor.model.layers)], 32, call_idle)
        donor = tiny_model("llama", seed=2 + len(layer.mlp.experts))
    anatomy = read_anatomy(model)
    ids_NT = token_rows(12, 2)
    stream = BlockStream(anatomy, TokenBatch(ids_NT), batch_tokens=2)
    for block in anatomy.blocks:
        found = stream.observe(block, ColumnNorms)
        stream.advance(block)
        expected = inputs_of(model, block.module, list(ids_NT.split(1)))
        expected = {matrix: x for matrix, x in expected.items() if len(x) and matrix != "mlp.gate"}
        assert {matrix for matrix, norms in found.items() if norms.tokens} == expected.keys()
        for matrix, x_NC in expected.items():
            assert found[matrix].tokens == len(x_NC), matrix
            want_C = x_NC.double().square().sum(0)
            torch.testing.assert_close(found[matrix].square_sum_C, want_C, rtol=1e-5, atol=0)


@pytest.mark.filterwarnings(PEFT_NOTICE)
@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_experts_that_cannot_be_observed_are_an_error(name):
    # PEFT multiplies with weight + adapter, a new tensor. Taking all experts for idle would prune them by magnitude.
    targets = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    config = peft.LoraConfig(target_modules=["q_proj"], target_parameters=targets, task_type="CAUSAL_LM")
    anatomy = read_anatomy(peft.get_peft_model(tiny_model(name), config))
    stream = BlockStream(anatomy, TokenBatch(token_rows()))
    with pytest.raises(ModelError, match=r"layers\.0\.mlp\.experts\.gate_up_proj cannot be observed.*adapter"):
        stream.observe(anatomy.blocks[0], ColumnNorms)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_size_of_a_micro_batch_does_not_matter(name):
    model, tokens = tiny_model(name), TokenBatch(token_rows())
    for small, large in zip(dense_norms(model, tokens, 24), dense_norms(model, tokens, 96), strict=True):
        assert small.keys() == large.keys()
        for matrix in large:
            assert small[matrix].tokens == large[matrix].tokens
            torch.testing.assert_close(small[matrix].norm_C, large[matrix].norm_C, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "last"), [("llama", "mlp.down_proj"), ("gpt2", "mlp.c_proj"), ("opt", "fc2"), ("gpt_neox", None)]
)
def test_the_last_matrix_is_not_multiplied_unless_the_output_is_wanted(name, last):
    model = tiny_model(name)
    anatomy = read_anatomy(model)
    stream = BlockStream(anatomy, TokenBatch(token_rows()), batch_tokens=24)
    calls = []
    for block in anatomy.blocks:
        matrix = block.module.get_submodule(last or "mlp.dense_4h_to_h")
        matrix.register_forward_hook(lambda *_, index=block.index: calls.append(index))
    for block in anatomy.blocks:
        stream.observe(block, ColumnNorms)
    # Four micro-batches and three blocks: only the very first call goes to the end, to learn which input is last.
    assert calls == [0]
    stream.observe(anatomy.blocks[2], ColumnNorms, advance=True)
    assert calls == [0, 2, 2, 2, 2]
    stream.advance(anatomy.blocks[2])
    assert calls == [0, 2, 2, 2, 2], "nobody reads the output of the last block"


@pytest.mark.parametrize("statistic", [ColumnNorms, Gram])
def test_merged_statistics_are_those_of_one_pass(statistic):
    x_NC = torch.randn(50, 12, generator=torch.Generator().manual_seed(0))
    whole, first, second = (statistic(12, x_NC.device) for _ in range(3))
    whole.add(x_NC)
    first.add(x_NC[:17])
    second.add(x_NC[17:])
    first.merge(second)
    assert first.tokens == whole.tokens == 50
    if statistic is ColumnNorms:
        torch.testing.assert_close(first.square_sum_C, whole.square_sum_C, rtol=1e-12, atol=0)
        assert torch.equal(whole.norm_C, x_NC.square().sum(0, dtype=torch.float64).sqrt().float())
    else:
        torch.testing.assert_close(first.gram_CC, whole.gram_CC, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(whole.gram_CC, x_NC.t() @ x_NC, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_observing_leaves_the_model_as_it_was(name):
    model, ids_NT = tiny_model(name), token_rows()
    implementation = getattr(model.config, "_experts_implementation", None)
    with torch.no_grad():
        before = model(ids_NT).logits
        dense_norms(model, padded("left", ids_NT, [24, 5, 9, 24]))
        last_token_activations(read_anatomy(model), [[5, 6], [7]])
        after = model(ids_NT).logits
    assert torch.equal(before, after)
    assert getattr(model.config, "_experts_implementation", None) == implementation
    assert not any("forward" in vars(module) for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_an_error_in_the_middle_leaves_no_hooks(tiny):
    class Broken(ColumnNorms):
        def add(self, x_NC):
            raise ValueError("broken")

    anatomy = read_anatomy(tiny.model)
    stream = BlockStream(anatomy, TokenBatch(token_rows()))
    with pytest.raises(ValueError, match="broken"):
        stream.observe(anatomy.blocks[0], Broken)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in tiny.model.modules())
    assert stream.observe(anatomy.blocks[0], ColumnNorms)["mlp.down_proj"].tokens == 96


@torch.no_grad()
def block_outputs(model: nn.Module, blocks: list[nn.Module], ids: list[int]) -> list[torch.Tensor]:
    outputs = []

    def keep(_module, _args, out):
        outputs.append(out[0] if isinstance(out, tuple) else out)

    hooks = [block.register_forward_hook(keep) for block in blocks]
    model(torch.tensor([ids]), use_cache=False)
    for hook in hooks:
        hook.remove()
    return outputs


@pytest.mark.parametrize("batch_tokens", [1, 40, 1024])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_last_token_activations_are_those_of_one_text_at_a_time(name, batch_tokens):
    model, ids_NT = tiny_model(name), token_rows(6)
    encoded = [ids_NT[i, :length].tolist() for i, length in enumerate([9, 24, 1, 9, 20, 2])]
    found_NLD = last_token_activations(read_anatomy(model), encoded, batch_tokens=batch_tokens)
    assert found_NLD.shape == (6, 3, 32)
    assert found_NLD.dtype == torch.float32
    blocks = stack_of(model, name)
    for row, ids in enumerate(encoded):
        outputs = block_outputs(model, blocks, ids)
        expected_LD = torch.stack([out[0, -1] for out in outputs])
        torch.testing.assert_close(found_NLD[row], expected_LD, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_tokenizers_padding_side_does_not_matter(tiny, side, monkeypatch):
    monkeypatch.setattr(tiny.tokenizer, "padding_side", side)
    texts = ["The city of Krasnodar is in Russia.", "Iron.", "The city of Lodz is in the Dominican Republic, they say."]
    encoded = encode(tiny, texts)
    assert encoded == [tiny.tokenizer(text)["input_ids"] for text in texts]
    found_NLD = last_token_activations(read_anatomy(tiny.model), encoded)
    for row, text in enumerate(texts):
        with torch.no_grad():
            ids = tiny.tokenizer(text, return_tensors="pt")["input_ids"]
            hidden = tiny.model(ids, output_hidden_states=True, use_cache=False).hidden_states
        for block in (0, 1):
            torch.testing.assert_close(found_NLD[row, block], hidden[block + 1][0, -1], rtol=1e-4, atol=1e-4)


def test_texts_that_cannot_be_read_are_named(tiny):
    with pytest.raises(TextError, match=r"300 tokens, the model's limit is 256"):
        encode(tiny, ["fine", "<s>" * 300])
    with pytest.raises(TextError, match="no tokens"):
        encode(tiny, ["fine", ""])
    with pytest.raises(ModelError, match="tiny-llama has no tokenizer"):
        encode(LoadedModel(tiny.model, None, "tiny-llama"), ["fine"])
    with pytest.raises(TextError, match="no statements"):
        last_token_activations(read_anatomy(tiny.model), [])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_outlier_percentages_pool_the_scores_of_a_block(name):
    model, ids_NT = tiny_model(name), token_rows()
    anatomy = read_anatomy(model)
    found = observe_outliers(anatomy, TokenBatch(ids_NT), 3.0)
    for block, percentage in zip(stack_of(model, name), found, strict=True):
        inputs = inputs_of(model, block, [ids_NT])
        scores = [w_OI.abs() * inputs[matrix].square().sum(0).sqrt() for matrix, w_OI in matrices(block).items()]
        pooled = torch.cat([score.flatten() for score in scores])
        expected = 100 * float((pooled > 3 * pooled.mean()).double().mean())
        assert percentage == pytest.approx(expected, abs=1e-9)
        assert 0 < percentage < 20


def test_idle_experts_count_among_the_weights_of_a_block():
    # Linear weights all one, four experts of which two never get a token: those score zero and lower the mean.
    model = tf.AutoModelForCausalLM.from_config(
        tf.MixtralConfig(
            vocab_size=320, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
            intermediate_size=8, num_local_experts=4, num_experts_per_tok=2, **SPECIAL,
        )
    )  # fmt: skip
    block = read_anatomy(model).blocks[0]
    norms = {}
    for site in block.sites:
        site.weight_OI.fill_(1.0)
        if not site.name.endswith(("[2]", "[3]")):
            norms[site.name] = ColumnNorms(site.shape[1], torch.device("cpu"))
            norms[site.name].square_sum_C.fill_(1.0)
    scoring = sum(site.numel for site in block.sites if site.name in norms)
    mean = scoring / block.numel
    assert outlier_percentage(block, norms, 1.0) == pytest.approx(100 * scoring / block.numel)
    assert outlier_percentage(block, norms, 1 / mean) == 0.0, "an outlier exceeds the threshold, it does not reach it"
