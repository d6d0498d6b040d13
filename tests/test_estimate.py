"""Estimates: operations as torch counts them, shapes of every architecture, devices, variants, the command."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from zoo import ARCHITECTURES, CONFIGS, tiny_model

from trueprune import estimates
from trueprune._support.errors import AuditError, ModelError, PlanError
from trueprune.audits.context import AuditContext, AuditOptions, AuditSettings
from trueprune.audits.efficiency_costs import _formulas, cache_bytes_per_token
from trueprune.audits.efficiency_runs import Runner
from trueprune.audits.faithfulness.explain import ExplanationOptions
from trueprune.cli.main import run
from trueprune.edits.rule import EditOptions
from trueprune.estimates import asking, device, forward, observing, pruning, reading, variants, work
from trueprune.estimates.config import read_shape
from trueprune.estimates.table import duration, quantity
from trueprune.jobs.estimate import estimate
from trueprune.models import read_anatomy
from trueprune.models.load import LoadedModel
from trueprune.observe.engine import BlockStream
from trueprune.observe.statistics import ColumnNorms, Gram
from trueprune.plans.plan import Pattern
from trueprune.texts.calibration import CalibrationOptions
from trueprune.texts.qa import QaOptions
from trueprune.texts.tokens import TokenBatch

ROUND = device.Device(
    name="round",
    peak=1e12,
    rate=1e12,
    rate32=1e11,
    attention=1e12,
    pack=0.0,
    bandwidth=1e11,
    moved=1e11,
    made=1e11,
    memory=1e9,
    select=1e9,
    order=1e9,
    factor=1e10,
    host64=1e10,
    host_moved=1e10,
    hash=1e9,
    read=1e9,
    write=1e9,
    link=1e10,
    call=1e-6,
    ahead=True,
    how="made up",
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The configuration of each architecture, without weights."""
    root = tmp_path_factory.mktemp("configs")
    for name, config in CONFIGS.items():
        config().save_pretrained(root / name)
    return root


@pytest.fixture(autouse=True)
def _no_trials(monkeypatch):
    """A machine whose speed is known: nothing is measured."""
    monkeypatch.setattr(device, "_measured", lambda dtype: replace(ROUND, name="cpu", ahead=False))


def counted(function) -> int:
    with FlopCounterMode(display=False, custom_mapping=_formulas()) as counter, torch.no_grad():
        function()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_forward_flops_are_those_that_torch_counts(name, folders):
    shape = read_shape(folders / name)
    model = tiny_model(name)
    forwards = forward.Forwards(shape, "float32")
    texts = replace(reading.sequences(2, 24, 1024), positions=48)
    ids = torch.arange(48).reshape(2, 24) + 3
    found = forwards.whole(texts)
    assert found.flops + found.attended == counted(lambda: model(ids, use_cache=False))
    assert shape.parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_inputs_and_cache_are_those_of_the_model(name, folders):
    shape, model = read_shape(folders / name), tiny_model(name)
    anatomy = read_anatomy(model)
    stream = BlockStream(anatomy, TokenBatch(torch.arange(64).reshape(2, 32) + 3))
    heard = stream.observe(anatomy.blocks[0], ColumnNorms)
    distinct = sum(group[0].count for group in shape.blocks[0].inputs())
    # In Falcon's block attention and MLP read one tensor, which only running it shows.
    assert distinct - len({id(one) for one in heard.values()}) == (name == "falcon")
    runner = Runner(LoadedModel(model, None, name), torch.arange(40)[None] + 3, 32)
    assert sum(block.cache for block in shape.blocks) * 4 == cache_bytes_per_token(runner)


def test_experts_share_the_tokens_out(folders):
    block = read_shape(folders / "mixtral").blocks[0]
    experts = [matrix for matrix in block.matrices if matrix.count > 1]
    assert {(matrix.count, matrix.share) for matrix in experts} == {(4, 0.5)}
    assert block.has_experts and block.other == 4 * 32
    dense = replace(block, matrices=tuple(replace(m, share=1.0) for m in block.matrices))
    forwards = forward.Forwards(read_shape(folders / "mixtral"), "float32")
    text = reading.sequences(1, 8, 64)
    assert forwards.block(dense, text).flops > forwards.block(block, text).flops
    # A single token reads the experts that it meets, a long text all of them.
    one, many = (forwards._touched(list(block.matrices), block, n) for n in (1, 100))
    assert one < 0.7 * many


def test_a_configuration_that_does_not_say_how_many_experts_is_noted(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("trueprune.estimates.shape.EXPERTS_A_TOKEN", ())
    shape = read_shape(folders / "mixtral")
    assert "how many experts" in shape.notes[0]
    assert all(matrix.share == 1 for matrix in shape.blocks[0].matrices)


@pytest.mark.parametrize("score", ["wanda", "sparsegpt"])
def test_pruning_observes_what_the_engine_multiplies(score, folders):
    shape, model = read_shape(folders / "llama"), tiny_model("llama")
    anatomy = read_anatomy(model)
    tokens = TokenBatch(torch.arange(4 * 16).reshape(4, 16) + 3)
    forwards = forward.Forwards(shape, "float32")
    calibration = observing.Calibration(4, 16, 16)
    statistic = ColumnNorms if score == "wanda" else Gram

    def observe() -> None:
        stream = BlockStream(anatomy, tokens, batch_tokens=16)
        started.append(0)
        for block in anatomy.blocks:
            stream.observe(block, statistic)
            stream.advance(block)

    started: list[int] = []
    # Before the first block a token goes through it, to see what it returns.
    alone = counted(lambda: BlockStream(anatomy, tokens, batch_tokens=16))
    cost = pruning.PruneCost(forwards, calibration, [], [], Pattern.parse("unstructured"), EditOptions())
    step = cost.steps(score, None, 0.5)[-1]
    passing = step.parts[0].work
    assert passing.flops + passing.attended == counted(observe) - alone
    width, inner, n = 32, 48, 64
    grams = 2 * n * (3 * width**2 + inner**2) * 3
    assert passing.flops32 == (grams if score == "sparsegpt" else 0)
    sums = 4 * (3 * width**2 + inner**2) * 3 if score == "sparsegpt" else 8 * (3 * width + inner) * 3
    assert step.parts[0].sums == sums


def test_sparsegpt_factors_every_input_once(folders):
    forwards = forward.Forwards(read_shape(folders / "llama"), "float32")
    calibration = observing.Calibration(1, 16, 16)
    cost = pruning.PruneCost(forwards, calibration, [], [], Pattern.parse("unstructured"), EditOptions())
    step = cost.steps("sparsegpt", None, 0.5)[-1]
    assert step.work.factored == pytest.approx(3 * 4 / 3 * (3 * 32**3 + 48**3))
    assert step.work.ordered == forwards.shape.prunable
    grouped = replace(cost, pattern=Pattern.parse("2:4")).steps("sparsegpt", None, 0.5)[-1]
    assert grouped.work.ordered == 0
    # Gram matrices of a block are held together, and the solver needs four of the largest.
    assert step.working > 4 * 4 * 48**2 + 4 * (3 * 32**2 + 48**2)


def test_methods_observe_what_they_need(folders):
    report = estimate(folders / "llama", method=("magnitude", "wanda", "owl", "tplo", "eavss"), calibration=SHORT)
    steps: dict[str, list[str]] = {}
    for step in report["steps"]:
        steps.setdefault(step["run"], []).append(step["name"])
    ends = ["load", "check, hash, count"], ["save, load again, compare"]
    between = {run: names[2:-1] for run, names in steps.items()}
    assert all(names[:2] == ends[0] and names[-1:] == ends[1] for names in steps.values())
    assert between == {
        "prune magnitude": ["edit"],
        "prune wanda": ["observe and edit"],
        "prune owl": ["observe outliers", "observe and edit"],
        "prune tplo": ["observe statements", "observe outliers", "observe and edit"],
        "prune eavss": ["observe answers", "observe and edit"],
    }
    totals = {run: total["flops"] for run, total in report["totals"].items()}
    assert totals["prune magnitude"] < totals["prune wanda"] < totals["prune owl"] < totals["prune tplo"]


SHORT = CalibrationOptions(nsamples=4, seqlen=32)


def test_the_statements_of_an_estimate_are_those_of_an_audit(tiny, folders):
    options = AuditOptions(per_dataset=8)
    from trueprune.audits.subject import Subject

    context = AuditContext(AuditSettings(options), Subject("tiny", tiny, use_cache=False))
    assert asking.audited_statements(options).texts == context.statements.texts
    report = estimate(folders / "llama", audit=("lie-detection", "separation"), measuring=options)
    steps = {step["name"]: step for step in report["steps"]}
    assert steps["lie-detection"]["detail"]["statements"] == len(context.statements)
    # Activations are read once for both.
    assert steps["lie-detection"]["work_flops"] > 0 and steps["separation"]["work_flops64"] > 0
    assert "work_flops" not in steps["separation"]


def test_explanations_ask_for_as_many_texts_as_are_counted():
    from trueprune.audits.faithfulness.attributions.registry import attribute
    from trueprune.audits.faithfulness.removal import bin_sizes, measure_removal, order_words

    options = ExplanationOptions(attributions=("lime", "leave-one-out"), samples=32, naopc_words=0)
    found = asking.ask_explanations(9, options)
    masks: set[bytes] = set()

    def value(masks_SD):
        masks.update(mask.tobytes() for mask in masks_SD)
        return masks_SD.mean(1)

    scores = [attribute(name, value, 9, samples=32, seed=0) for name in options.attributions]
    import numpy as np

    orders = np.stack([order_words(one, seed=i) for i, one in enumerate(scores)])
    measure_removal(value, orders, bin_sizes(9, options.bins))
    count = sum(map(len, found.calls))
    assert abs(count - len(masks)) <= 0.2 * len(masks)
    # All texts of few words are asked for, and each once.
    assert sum(map(len, asking.ask_explanations(5, ExplanationOptions()).calls)) == 2**5
    gradients = asking.ask_explanations(4, ExplanationOptions(attributions=("integrated-gradients",), naopc_words=0))
    assert gradients.gradients == 20


def test_instruments_that_share_what_they_read_pay_once(folders):
    report = estimate(folders / "llama", audit=("accuracy", "calibration", "open-qa", "truthful-generation"))
    flops = {step["name"]: step["flops"] for step in report["steps"]}
    assert flops["accuracy"] > 0 and flops["open-qa"] > 0
    assert flops["calibration (read above)"] == flops["truthful-generation (read above)"] == 0


def test_shared_answers_cost_the_same_in_any_order(folders, tmp_path):
    # Questions without wrong answers are asked by open-qa alone.
    mine, both = tmp_path / "mine.jsonl", ("open-qa", "truthful-generation")
    mine.write_text("".join(f'{{"question": "What is {i} and one?", "right": ["{i + 1}"]}}\n' for i in range(12)))
    asking = QaOptions(qa=("misconceptions", str(mine)))
    reports = [estimate(folders / "llama", audit=order, asking=asking) for order in (both, both[::-1])]
    first, second = (report["totals"]["audit"]["flops"] for report in reports)
    assert first == second > 0


def test_decoding_is_bound_by_memory(folders):
    forwards = forward.Forwards(read_shape(folders / "llama"), "float32")
    decoded = forwards.decode(rows=1, context=8, steps=10)
    weights = sum(block.prunable for block in forwards.shape.blocks) + forwards.shape.head
    assert decoded.bytes >= 10 * 4 * weights
    assert decoded.flops == 2 * 10 * weights


def test_reading_batches_as_the_engine_does():
    assert reading.sequences(16, 512, 1024) == reading.Reading(16 * 512, 16 * 512**2, 8)
    assert reading.sequences(3, 512, 100).forwards == 3
    padded = reading.texts([4, 4, 8], 16)
    assert (padded.tokens, padded.forwards) == (16, 2)
    asks = [reading.Asked(10, (1, 3)), reading.Asked(10, (1, 3))]
    alone, shared = (reading.continuations(asks, n, 1024) for n in (0, 8))
    assert alone.tokens == 2 * 10 + 2 * 2
    assert shared.tokens == 8 + 2 * 2 + 2 * 2
    assert alone.positions == 2 + 2 * 2


def test_tokens_are_counted_within_a_tenth_of_words():
    assert reading.count_tokens("The city of Paris is in France.") == 8
    assert reading.count_tokens("incomprehensibilities") == 3
    assert reading.count_tokens("1234") == 4
    assert reading.count_tokens("") == 0


def test_time_is_the_longer_of_products_and_bytes():
    products, bytes_ = work.Work(flops=1e12), work.Work(bytes=1e11)
    assert products.seconds(ROUND) == bytes_.seconds(ROUND) == (products + bytes_).seconds(ROUND) == 1
    assert (2 * products + bytes_).seconds(ROUND) == 2
    assert (products + work.Work(plain=1e11)).seconds(ROUND) == 2
    assert (products + work.Work(calls=3e6)).seconds(ROUND) == 3
    assert (products + work.Work(calls=3e6)).seconds(replace(ROUND, ahead=False)) == 4
    assert work.Work(hashed=1e9, read=1e9, written=1e9, selected=1e9, ordered=1e9).seconds(ROUND) == 5


def test_workers_share_what_adds_up_and_nothing_else(folders):
    forwards = forward.Forwards(read_shape(folders / "llama"), "float32")
    step = work.Step(
        "run",
        "step",
        (work.Part(work.Work(flops=4e12), split=True, sums=1e10), work.Part(work.Work(flops=1e12))),
        held=4e6,
    )
    today, four = variants.variants_of(4, False)
    assert today.does and not four.does
    assert today.seconds(step, ROUND, forwards) == 5
    assert four.seconds(step, ROUND, forwards) == pytest.approx(1 + 1 + 2 * 0.75)
    assert today.memory(step, forwards) - four.memory(step, forwards) == 3e6


def test_streaming_holds_two_blocks_and_waits_for_the_link(folders):
    forwards = forward.Forwards(read_shape(folders / "llama"), "float32")
    step = work.Step("run", "step", (work.Part(work.Work(flops=1e6), passes=3),))
    today, streamed = variants.variants_of(1, True)
    stack = forwards.weights - forwards.ends
    assert streamed.seconds(step, ROUND, forwards) == pytest.approx(3 * stack / 1e10)
    assert today.memory(step, forwards) == forwards.weights
    assert streamed.memory(step, forwards) == forwards.ends + 2 * forwards.largest_block
    assert [one.name for one in variants.variants_of(2, True)][1:] == ["streamed", "2 workers", "streamed, 2 workers"]


def test_what_does_not_fit_is_said_and_what_to_do(folders):
    report = estimate(folders / "llama", method=("sparsegpt",), device="1e12,1e11,3e5", calibration=SHORT)
    today = report["variants"][0]
    assert not today["fits"] and today["memory"] > 3e5
    assert "do not fit" in report["advice"][0]
    roomy = estimate(folders / "llama", method=("sparsegpt",), device="1e12,1e11,8e10", calibration=SHORT)
    assert roomy["variants"][0]["fits"] and roomy["advice"] == []
    weights = roomy["model"]["bytes"]
    assert roomy["variants"][0]["memory"] > weights


def test_many_devices_hold_what_one_does_not(tmp_path):
    file = config_of(tmp_path, hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64)
    report = estimate(file, method=("wanda",), device="a100")
    assert report["model"]["parameters"] == pytest.approx(70e9, rel=0.01)
    assert report["variants"][0]["devices"] == 3
    assert any("3 such devices" in line and "--device-map auto" in line for line in report["advice"])


def config_of(folder, **sizes):
    shared = {"model_type": "llama", "vocab_size": 128256, "num_key_value_heads": 8, "dtype": "bfloat16"}
    file = folder / "config.json"
    file.write_text(json.dumps({**shared, **sizes}))
    return file


def test_a_very_large_model_takes_seconds_and_no_memory(tmp_path):
    import resource
    from time import perf_counter

    sizes = {"hidden_size": 16384, "intermediate_size": 53248, "num_hidden_layers": 126, "num_attention_heads": 128}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = perf_counter()
    report = estimate(config_of(tmp_path, **sizes), device="h100")
    assert perf_counter() - start < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
    assert report["model"]["parameters"] == pytest.approx(405.9e9, rel=0.001)
    assert report["dtype"] == "bfloat16"
    assert report["variants"][0]["devices"] > 10


def test_devices_are_data_sheets_with_our_shares():
    h100 = estimates.find_device("H100")
    assert (h100.peak, h100.bandwidth, h100.memory) == (989.5e12, 3.35e12, 80e9)
    assert h100.rate == 0.4 * h100.peak and h100.moved == pytest.approx(0.7 * h100.bandwidth)
    assert "our assumption" in h100.how
    assert estimates.find_device("h100", "float32").peak == 67e12
    own = estimates.find_device("312e12, 2.0e12,80e9")
    a100 = estimates.find_device("a100")
    assert (own.rate, own.memory) == (a100.rate, a100.memory)
    assert own.rate32 == own.rate > a100.rate32


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("tpu", "unknown device 'tpu'"),
        ("1e12,2e12", "the device '1e12,2e12' has 2 numbers, not 3"),
        ("1e12,fast,8e10", "BANDWIDTH of the device '1e12,fast,8e10' is no number: 'fast'"),
        ("1e12,0,8e10", "BANDWIDTH of the device '1e12,0,8e10' is 0, not above 0"),
        ("-1e12,1e12,8e10", "FLOPS of the device '-1e12,1e12,8e10' is -1e12, not above 0"),
        ("nan,1e12,8e10", "FLOPS of the device 'nan,1e12,8e10' is nan, not above 0"),
    ],
)
def test_a_malformed_device_is_refused(name, problem):
    with pytest.raises(PlanError, match="FLOPS,BANDWIDTH,MEMORY") as caught:
        estimates.find_device(name)
    assert caught.value.problem == problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "holds no JSON object"),
        ('{"hidden_size": 8}', "names no model_type"),
        ('{"model_type": "nonesuch"}', "is of the model_type 'nonesuch'"),
        ('{"model_type": "llama", "hidden_size": 0}', "has hidden_size 0"),
        ('{"model_type": "llama", "num_hidden_layers": -1}', "has num_hidden_layers -1"),
        ('{"model_type": "llama", "dtype": "int4"}', "names the dtype 'int4'"),
        ('{"model_type": "llama", "num_attention_heads": "many"}', "config.json"),
        ('{"model_type": "t5"}', "config.json"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(text, problem, tmp_path):
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(ModelError) as caught:
        read_shape(file)
    assert problem in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["no/such/folder/at/all", "missing.json", "org/never-downloaded", "empty"])
def test_a_missing_configuration_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError):
        read_shape(name)


@pytest.mark.parametrize(
    ("arguments", "kind", "problem"),
    [
        ({"workers": 0}, PlanError, "--workers 0"),
        ({"models": 0, "audit": ("perplexity",)}, PlanError, "--models 0"),
        ({"batch_tokens": -5}, PlanError, "--batch-tokens -5"),
        ({"calibration": CalibrationOptions(nsamples=0)}, PlanError, "--nsamples 0"),
        ({"calibration": CalibrationOptions(seqlen=100_000)}, PlanError, "over the model's limit of 256"),
        ({"method": ("nonesuch",)}, PlanError, "unknown method 'nonesuch'"),
        ({"method": ("wanda",), "sparsity": 1.5}, PlanError, "1.5"),
        ({"method": ("wanda",), "score": "sparsegpt"}, PlanError, "contradict"),
        ({"audit": ("nonesuch",)}, AuditError, "unknown instrument 'nonesuch'"),
        (
            {"audit": ("perplexity",), "measuring": AuditOptions(text="wikitext2", window=64, max_tokens=0)},
            AuditError,
            "wikitext2",
        ),
        ({"audit": ("perplexity",)}, AuditError, "window 512 is over the model's limit of 256"),
        ({"dtype": "int8"}, ModelError, "unknown dtype 'int8'"),
        ({"pattern": "2:"}, PlanError, "2:"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(arguments, kind, problem, folders):
    with pytest.raises(kind) as caught:
        estimate(folders / "llama", **{"calibration": SHORT, **arguments})
    assert problem in str(caught.value)


def test_the_command_prints_tables_and_writes_json(folders, tmp_path, capsys):
    output = tmp_path / "estimate"
    words = [
        "estimate",
        str(folders / "llama"),
        "-o",
        str(output),
        "--method",
        "wanda",
        "sparsegpt",
        "--scan",
        "--drop",
        "--count",
        "1",
    ]
    words += ["--audit", "perplexity", "faithfulness", "efficiency", "--workers", "4", "--streamed"]
    words += ["--nsamples", "4", "--seqlen", "64", "--window", "64"]
    assert run([*words, "--device", "a100"]) == 0
    shown = capsys.readouterr().out
    assert "projected: not something trueprune does yet" in shown and "what trueprune does" in shown
    assert "prune sparsegpt" in shown and "observe blocks" in shown and "faithfulness" in shown
    report = json.loads((output / "estimate.json").read_text())
    assert [one["does"] for one in report["variants"]] == [True, False, False, False]
    assert report["schema"] == 1 and list(report["totals"]) == [
        "scan",
        "prune wanda",
        "prune sparsegpt",
        "drop attention",
        "audit",
    ]
    for run_name, total in report["totals"].items():
        parts = [step for step in report["steps"] if step["run"] == run_name]
        assert total["flops"] == pytest.approx(sum(step["flops"] for step in parts))
        assert total["memory"] == max(step["memory"] for step in parts)
    assert run([*words, "--overwrite", "--device", "fast"]) == 2
    assert "unknown device 'fast'" in capsys.readouterr().err
    assert (output / "estimate.json").is_file()


def test_nothing_asked_is_the_usual_run(folders):
    report = estimate(folders / "llama", calibration=SHORT, measuring=AuditOptions(window=64))
    assert list(report["totals"]) == ["prune tplo", "audit"]
    names = [step["name"] for step in report["steps"] if step["run"] == "audit"]
    assert names[2:] == ["perplexity", "lie-detection", "separation"]


def test_iterative_drops_observe_again_and_random_ones_never(folders):
    from trueprune.jobs.layer_choice import DropOptions

    def flops(choice):
        report = estimate(folders / "llama", drop=True, choice=choice, calibration=SHORT)
        return sum(
            step["flops"] for step in report["steps"] if step["name"] in ("observe layers", "nothing is observed")
        )

    once = flops(DropOptions(count=2))
    assert flops(DropOptions(count=2, schedule="iterative")) == 2 * once > 0
    assert flops(DropOptions(count=1, by="random")) == 0


def test_numbers_are_said_shortly():
    assert [quantity(value) for value in (12, 1500, 405.9e9, 2e15)] == ["12 ", "1.5 k", "406 G", "2 P"]
    assert [duration(value) for value in (0.02, 5, 80, 600, 7200, 4e5)] == [
        "20 ms",
        "5 s",
        "80 s",
        "10.0 min",
        "2.0 h",
        "4.6 days",
    ]


def test_this_machine_is_measured_once(monkeypatch):
    from trueprune.estimates import microbench

    monkeypatch.setattr(microbench, "TRIAL_SECONDS", 0.001)
    microbench.measure_cpu.cache_clear()
    found = microbench.measure_cpu("float32")
    assert microbench.measure_cpu("float32") is found
    assert all(value > 0 for name, value in vars(found).items() if name != "pack")
    assert 1e8 < found.products < 1e15 and 1e7 < found.moved < 1e13
    microbench.measure_cpu.cache_clear()


def test_the_tables_of_the_bench_are_markdown():
    from bench.estimates import runs_table, sizes_table

    run_row = {"model": "demo", "run": "scan", "flops": 9.0, "flops_measured": 10.0, "seconds": 30.0}
    run_row |= {"seconds_measured": 40.0, "memory": 1e9, "memory_measured": 2e9}
    assert runs_table([run_row]).splitlines()[-1] == "| demo | scan | 0.900 | 40 s | 0.75 | 2.00 GB | 0.50 |"
    assert "| - |" in runs_table([{**run_row, "flops_measured": 0.0}])
    runs = {"scan": {"seconds": 600.0, "memory": 2e9}, "prune wanda": {"seconds": 7200.0, "memory": 3e9}}
    lines = sizes_table([{"size": "1B", "device": "h100", "weights": 2.5e9, "runs": runs}]).splitlines()
    assert lines[0] == "| model | weights | device | scan | prune wanda |"
    assert lines[-1] == "| 1B | 2.5 GB | h100 | 10.0 min, 2 GB | 2.0 h, 3 GB |"


def test_chat_templates_are_noted_and_not_counted(folders):
    from trueprune.texts.tasks.questions import TaskOptions

    plain, chat = (
        estimate(folders / "llama", audit=("accuracy",), answering=TaskOptions(chat=given)) for given in (False, True)
    )
    assert "chat templates" in chat["notes"][0]
    assert [step["flops"] for step in plain["steps"]] == [step["flops"] for step in chat["steps"]]
