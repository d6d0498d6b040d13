"""The parts of every architecture, found by structure."""

from __future__ import annotations

import peft
import pytest
import torch
import transformers as tf
from plain import NORMS, matrices, stack_of, stack_path, token_rows
from torch import nn
from transformers.pytorch_utils import Conv1D
from zoo import ARCHITECTURES, GQA, tiny_model

from trueprune import ModelError, Plan, apply_plan, measured_sparsity
from trueprune.models import read_anatomy
from trueprune.observe import last_token_activations
from trueprune.plans import BlockPlan
from trueprune.texts.tokens import TokenBatch

PEFT_NOTICE = "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
SUBLAYERS = {
    "gpt_neox": (("attention",), ("mlp",)),
    "gpt2": (("attn",), ("mlp",)),
    "opt": (("self_attn",), ("fc1", "fc2")),
    "falcon": (("self_attention",), ("mlp",)),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_blocks_and_sublayers(name):
    model = tiny_model(name)
    anatomy = read_anatomy(model)
    assert [block.module for block in anatomy.blocks] == stack_of(model, name)
    assert len(anatomy.blocks) == 3
    for index, block in enumerate(anatomy.blocks):
        assert block.index == index
        assert block.path == f"{stack_path(name)}.{index}"
        assert model.get_submodule(block.path) is block.module
        attention, mlp = SUBLAYERS.get(name, (("self_attn",), ("mlp",)))
        assert block.attention.names == attention
        assert block.mlp.names == mlp
        for sublayer in (block.attention, block.mlp):
            assert sublayer.modules == tuple(getattr(block.module, part) for part in sublayer.names)
        for site in block.sites:
            owners = [part for part in (*attention, *mlp) if site.name.split(".")[0] == part]
            assert len(owners) == 1


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_matrix_of_a_block_is_a_site_exactly_once(name):
    model = tiny_model(name)
    anatomy = read_anatomy(model)
    for block, module in zip(anatomy.blocks, stack_of(model, name), strict=True):
        expected = matrices(module)
        names = [site.name for site in block.sites]
        assert len(names) == len(set(names))
        assert set(names) == expected.keys()
        for site in block.sites:
            assert site.shape == tuple(expected[site.name].shape)
            assert site.numel == expected[site.name].numel()
            assert torch.equal(site.weight_OI, expected[site.name])
        # What is left of the block's matrices is the router of a mixture.
        rest = sum(p.numel() for p in module.parameters() if p.dim() > 1) - block.numel
        assert rest == (4 * 32 if name in ("mixtral", "qwen3_moe") else 0)
    assert anatomy.weights == [sum(w.numel() for w in matrices(module).values()) for module in stack_of(model, name)]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_embeddings_norm_and_head(name):
    model = tiny_model(name)
    anatomy = read_anatomy(model)
    assert anatomy.model is model
    assert anatomy.embeddings is model.get_input_embeddings()
    assert anatomy.final_norm is model.get_submodule(NORMS.get(name, "model.norm"))
    assert anatomy.head is model.get_output_embeddings()
    assert anatomy.head.weight.shape == (320, 32)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_weight_is_a_view_of_out_by_in(name):
    model = tiny_model(name)
    heard: dict[nn.Module, tuple] = {}
    for module in model.modules():
        if isinstance(module, (nn.Linear, Conv1D)):
            module.register_forward_hook(lambda m, args, out: heard.__setitem__(m, (args[0], out.clone())))
    with torch.no_grad():
        model(token_rows(1, 5), use_cache=False)
    sites = [site for block in read_anatomy(model).blocks for site in block.sites]
    checked = 0
    for site in sites:
        if site.expert is None:
            x, y = heard[site.module]
            bias = 0 if site.module.bias is None else site.module.bias
            torch.testing.assert_close(x @ site.weight_OI.t() + bias, y, rtol=1e-4, atol=1e-5)
            checked += 1
    assert checked == len([s for s in sites if s.expert is None]) > 0
    for number, site in enumerate(sites):
        parameter = getattr(site.module, site.parameter)
        before = parameter.detach().clone()
        assert not site.weight_OI.requires_grad
        site.weight_OI[1, 2] = 1000.0 + number
        changed = (parameter != before).nonzero().tolist()
        where = [2, 1] if site.transposed else [1, 2]
        assert changed == [where if site.expert is None else [site.expert, *where]]
    assert any(site.transposed for site in sites) == (name == "gpt2")


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_routers_are_left_alone(name):
    model = tiny_model(name)
    for block in read_anatomy(model).blocks:
        assert block.module.mlp.gate.weight.shape == (4, 32)
        assert all(site.module is not block.module.mlp.gate for site in block.sites)
        assert sorted({site.expert for site in block.sites if site.expert is not None}) == [0, 1, 2, 3]


def test_routers_that_are_linears_are_left_alone():
    config = tf.Qwen2MoeConfig(
        **GQA,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=24,
        shared_expert_intermediate_size=40,
        decoder_sparse_step=1,
    )
    model = tf.AutoModelForCausalLM.from_config(config)
    for block in read_anatomy(model).blocks:
        assert isinstance(block.module.mlp.shared_expert_gate, nn.Linear)
        names = {site.name for site in block.sites}
        assert "mlp.shared_expert_gate" not in names
        assert "mlp.gate" not in names
        assert {f"mlp.shared_expert.{part}_proj" for part in ("gate", "up", "down")} <= names
        assert {f"mlp.experts.down_proj[{expert}]" for expert in range(4)} <= names


def test_experts_stored_transposed_are_seen_as_out_by_in():
    config = tf.GptOssConfig(
        **GQA, head_dim=8, num_local_experts=4, num_experts_per_tok=2, layer_types=["full_attention"] * 3
    )
    model = tf.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    shapes = {site.name: site.shape for site in read_anatomy(model).blocks[0].sites}
    assert shapes["mlp.experts.gate_up_proj[3]"] == (96, 32)
    assert shapes["mlp.experts.down_proj[0]"] == (32, 48)


def lora(name: str) -> peft.LoraConfig:
    # PEFT does not know what to do with "all-linear" where experts are stacked.
    targets = ["q_proj", "o_proj"] if name in ("mixtral", "qwen3_moe") else "all-linear"
    return peft.LoraConfig(target_modules=targets, fan_in_fan_out=name == "gpt2", task_type="CAUSAL_LM")


@pytest.mark.filterwarnings(PEFT_NOTICE)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_under_peft_only_base_weights_are_sites(name):
    bare = read_anatomy(tiny_model(name))
    config = lora(name)
    wrapped = peft.get_peft_model(tiny_model(name), config)
    anatomy = read_anatomy(wrapped)
    assert any("lora_A" in path for path, _ in anatomy.blocks[0].module.named_modules())
    for block, expected in zip(anatomy.blocks, bare.blocks, strict=True):
        assert wrapped.get_submodule(block.path) is block.module
        assert [site.name for site in block.sites] == [site.name for site in expected.sites]
        assert block.attention.names == expected.attention.names
        assert block.mlp.names == expected.mlp.names
        for site, want in zip(block.sites, expected.sites, strict=True):
            assert torch.equal(site.weight_OI, want.weight_OI)
    assert anatomy.embeddings.weight.shape == (320, 32)
    assert type(anatomy.final_norm) is type(bare.final_norm)
    assert anatomy.head is not None


@pytest.mark.filterwarnings(PEFT_NOTICE)
@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_adapters_on_experts_do_not_change_names(name):
    config = peft.LoraConfig(
        target_modules=["q_proj"],
        target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
        task_type="CAUSAL_LM",
    )
    anatomy = read_anatomy(peft.get_peft_model(tiny_model(name), config))
    for block, bare in zip(anatomy.blocks, read_anatomy(tiny_model(name)).blocks, strict=True):
        assert [site.name for site in block.sites] == [site.name for site in bare.sites]


# A decoder written by someone who never heard of self_attn, mlp or layers.


class Bazaar(nn.Module):
    """Causal single-head attention whose matrices have names of no model."""

    def __init__(self, width: int):
        super().__init__()
        self.spice, self.silk, self.salt, self.gold = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, goods, attention_mask=None):
        scores = self.spice(goods) @ self.silk(goods).transpose(-1, -2) / goods.shape[-1] ** 0.5
        causal = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        if attention_mask is not None:
            causal = causal & attention_mask[:, None, :].bool()
        return self.gold(scores.masked_fill(~causal, -1e9).softmax(-1) @ self.salt(goods))


class Caravan(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.dune, self.oasis = nn.LayerNorm(width), nn.LayerNorm(width)
        self.bazaar = Bazaar(width)
        self.camel, self.mule = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)

    def forward(self, goods, attention_mask=None):
        goods = goods + self.bazaar(self.dune(goods), attention_mask=attention_mask)
        return goods + self.mule(self.camel(self.oasis(goods)).relu())


class SilkRoad(nn.Module):
    def __init__(self, width: int = 16):
        super().__init__()
        torch.manual_seed(0)
        self.harbours = nn.ModuleList(nn.Identity() for _ in range(9))
        self.tolls = nn.ModuleList([nn.Linear(width, width)])
        self.atlas = nn.Embedding(320, width)
        self.stages = nn.ModuleList(Caravan(width) for _ in range(4))
        self.rest = nn.LayerNorm(width)
        self.ledger = nn.Linear(width, 320, bias=False)

    def get_input_embeddings(self):
        return self.atlas

    def get_output_embeddings(self):
        return self.ledger

    def forward(self, input_ids, attention_mask=None, use_cache=False):
        goods = self.atlas(input_ids)
        for stage in self.stages:
            goods = stage(goods, attention_mask=attention_mask)
        return self.ledger(self.rest(goods))


class Tent(nn.Module):
    """A wrapper with another name for everything."""

    def __init__(self, inside: nn.Module):
        super().__init__()
        self.inside = inside

    def get_input_embeddings(self):
        return self.inside.get_input_embeddings()

    def get_output_embeddings(self):
        return self.inside.get_output_embeddings()

    def forward(self, **inputs):
        return self.inside(**inputs)


def test_nothing_depends_on_names():
    model = SilkRoad()
    anatomy = read_anatomy(model)
    assert [block.path for block in anatomy.blocks] == [f"stages.{i}" for i in range(4)]
    assert anatomy.blocks[0].attention.names == ("bazaar",)
    assert anatomy.blocks[0].mlp.names == ("camel", "mule")
    names = ["bazaar.spice", "bazaar.silk", "bazaar.salt", "bazaar.gold", "camel", "mule"]
    assert [site.name for site in anatomy.blocks[3].sites] == names
    assert anatomy.weights == [4 * 16 * 16 + 2 * 3 * 16 * 16] * 4
    assert anatomy.embeddings is model.atlas
    assert anatomy.final_norm is model.rest
    assert anatomy.head is model.ledger
    assert last_token_activations(anatomy, [[4, 5, 6], [7]]).shape == (2, 4, 16)
    ids_NT = token_rows(3, 9)
    apply_plan(anatomy, Plan("uniform", 0.5, (BlockPlan(0.5),) * 4), "wanda", TokenBatch(ids_NT))
    assert measured_sparsity(anatomy) == (0.5, [0.5] * 4)
    assert torch.count_nonzero(model.tolls[0].weight) == 16 * 16, "a smaller list of Linears is not the stack"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_wrapper_of_another_name_changes_nothing_but_paths(name):
    bare, wrapped = read_anatomy(tiny_model(name)), read_anatomy(Tent(tiny_model(name)))
    for block, inner in zip(wrapped.blocks, bare.blocks, strict=True):
        assert block.path == f"inside.{inner.path}"
        assert [site.name for site in block.sites] == [site.name for site in inner.sites]
    assert type(wrapped.final_norm) is type(bare.final_norm)
    plan = Plan("uniform", 0.5, (BlockPlan(0.5),) * 3)
    for anatomy in (bare, wrapped):
        apply_plan(anatomy, plan, "wanda", TokenBatch(token_rows()))
    for block, inner in zip(wrapped.blocks, bare.blocks, strict=True):
        for site, want in zip(block.sites, inner.sites, strict=True):
            assert torch.equal(site.weight_OI, want.weight_OI)


def test_a_model_without_a_stack_says_what_was_found():
    class Perceptron(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 2)
            self.extras = nn.ModuleList([nn.ReLU(), nn.Linear(4, 4)])

    with pytest.raises(ModelError, match="no decoder stack found in Perceptron") as caught:
        read_anatomy(Perceptron())
    message = str(caught.value)
    assert "first: Linear" in message
    assert "second: Linear" in message
    assert "extras: ModuleList" in message


def test_blocks_that_share_weights_are_refused():
    model = tiny_model("llama")
    model.model.layers[2].mlp.up_proj.weight = model.model.layers[0].mlp.up_proj.weight
    with pytest.raises(
        ModelError, match=r"model\.layers\.2\.mlp\.up_proj shares its weight with model\.layers\.0"
    ) as caught:
        read_anatomy(model)
    assert caught.value.remedy
    model = tiny_model("gpt2")
    model.transformer.h[1] = model.transformer.h[0]
    with pytest.raises(ModelError, match=r"transformer\.h\.1\.attn\.c_attn shares its weight"):
        read_anatomy(model)


def test_a_quantised_weight_is_refused():
    model = tiny_model("llama")
    weight = model.model.layers[1].self_attn.o_proj
    weight.weight = nn.Parameter(weight.weight.data.to(torch.int8), requires_grad=False)
    with pytest.raises(ModelError, match=r"self_attn\.o_proj is stored as torch\.int8"):
        read_anatomy(model)


def test_a_model_without_embeddings_is_refused():
    class Headless(SilkRoad):
        get_input_embeddings = None

    with pytest.raises(ModelError, match="Headless has no input embeddings"):
        read_anatomy(Headless())
