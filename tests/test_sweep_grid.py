"""The grid of a sweep: what it spreads out to, and every mistake refused in one line before a model is loaded."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from trueprune import PlanError
from trueprune.cli.main import app
from trueprune.jobs.layer_choice import DropOptions
from trueprune.repairs.healing import HealingOptions
from trueprune.sweeps import Grid, Point, expand, pareto_front, read_grid
from trueprune.sweeps.check import check_grid, instruments_of
from trueprune.sweeps.commands import commands, safe
from trueprune.texts import CalibrationOptions
from trueprune.texts.tasks import TaskOptions

GRID = """
models = ["demo"]
methods = ["magnitude", "wanda", "tplo"]
patterns = ["unstructured", "2:4"]
sparsities = [0.3, 0.5]
repairs = ["none", "temperature"]
seeds = [0, 1]
instruments = ["perplexity"]

[[drop]]
what = "attention"
fraction = 0.34

[[drop]]
what = "block"
by = "last"
count = 2

[calibration]
nsamples = 8
sources = ["embedded"]

[measuring]
max-tokens = 2048
probes = ["logistic"]

[allocation]
lam = 1
bounds = [0.1, 1]
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="grid.toml"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def refusal(file):
    with pytest.raises(PlanError) as found:
        check_grid(read_grid(file), str(file))
    message = str(found.value)
    assert "\n" not in message
    assert message.startswith(str(file)), message
    return message.removeprefix(f"{file}: ")


# What a grid says


def test_a_file_and_the_same_in_python_are_equal(write):
    grid = read_grid(write(GRID))
    assert (grid.models, grid.methods, grid.seeds) == (("demo",), ("magnitude", "wanda", "tplo"), (0, 1))
    assert grid.drop == (DropOptions(what="attention", fraction=0.34), DropOptions(what="block", by="last", count=2))
    assert grid.calibration == CalibrationOptions(nsamples=8)
    assert (grid.measuring.max_tokens, grid.measuring.probes) == (2048, ("logistic",))
    assert grid.allocation.lam == 1.0
    assert isinstance(grid.allocation.lam, float)
    assert grid.allocation.bounds == (0.1, 1.0)
    assert Grid(models=["demo"], methods=["wanda"], seeds=[0, 1]) == Grid(("demo",), ("wanda",), seeds=(0, 1))


def test_every_configuration_is_there_once(write):
    grid = read_grid(write(GRID))
    found = expand(grid)
    assert len(set(found)) == len(found)
    names = {(c.method, c.pattern, c.sparsity, c.repair, c.seed) for c in found}
    shares = [("unstructured", 0.3), ("unstructured", 0.5), ("2:4", 0.5)]
    drawn = itertools.product(("wanda", "tplo"), shares, ("none", "temperature"), (0, 1))
    expected = {(method, *share, repair, seed) for method, share, repair, seed in drawn}
    # Magnitude draws nothing, nor does a drop of the last blocks: one seed is all seeds.
    expected |= {("magnitude", *share, repair, 0) for share in shares for repair in ("none", "temperature")}
    expected |= {
        ("drop attention 0.34 by cosine", None, None, repair, seed) for repair in grid.repairs for seed in (0, 1)
    }
    expected |= {("drop block 2 by last", None, None, repair, 0) for repair in grid.repairs}
    assert names == expected


def test_what_is_the_same_twice_is_made_once():
    twice = Grid(
        models=("demo", "demo"),
        methods=("wanda", "wanda", "tplo", "owl_option2", "tplo+wanda"),
        patterns=("2:4", "2:4"),
        sparsities=(0.5, 0.5),
        repairs=("none", "none"),
        seeds=(3, 3),
        drop=(DropOptions(what="block"), DropOptions(what="block")),
    )
    found = [(c.method, c.pattern, c.seed) for c in expand(twice)]
    assert found == [("wanda", "2:4", 3), ("tplo", "2:4", 3), ("drop block 0.25 by cosine", None, 3)]


def test_seeds_count_where_something_is_drawn():
    def seeds(**options):
        return [c.seed for c in expand(Grid(models=("demo",), seeds=(4, 5), **options))]

    assert seeds(methods=("magnitude",)) == [4]
    assert seeds(methods=("owl+magnitude",)) == [4, 5]
    assert seeds(methods=("magnitude",), repairs=("lora",)) == [4, 5]
    assert seeds(methods=("magnitude",), repairs=("platt",)) == [4]
    assert seeds(drop=(DropOptions(by="random"),)) == [4, 5]
    assert seeds(drop=(DropOptions(by="first"),)) == [4]


def test_a_score_may_be_joined_to_a_method():
    (config,) = expand(Grid(models=("demo",), methods=("tplo+sparsegpt",)))
    assert config.method == "tplo+sparsegpt"
    assert config.rule == ("tplo", "sparsegpt")
    assert config.name((0,)) == "tplo+sparsegpt 0.5"
    assert replace(config, repair="platt", seed=1).name((0, 1)) == "tplo+sparsegpt 0.5 + platt (seed 1)"


def test_a_gate_brings_its_instruments(write):
    write('[[check]]\ninstrument = "separation"\nmetric = "ratio-at-dense-peak"\nchange_at_least = -0.1\n', "gate.toml")
    grid = read_grid(write('gate = "gate.toml"\nmodels = ["demo"]\nmethods = ["wanda"]\n'))
    # It lies beside the grid, wherever the command is started.
    assert instruments_of(grid) == ("perplexity", "lie-detection", "separation")
    only = replace(grid, instruments=("separation",))
    assert instruments_of(only) == ("separation",)


# What is refused


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('methods = ["magnitude", "wanda", "tplo"]', 'methods = ["wandaa"]'), "methods[0]: unknown method 'wandaa'."),
        (('methods = ["magnitude", "wanda", "tplo"]', 'methods = ["wandaa"]'), "Did you mean wanda?"),
        (("methods =", "method ="), "method is unknown. Write methods = [...]"),
        (("sparsities =", "sparsites ="), "sparsites is unknown. Did you mean sparsities?"),
        (("[0.3, 0.5]", "[0.3, 1.0]"), "sparsities[1]: the sparsity 1.0 is outside [0, 1)"),
        (("[0.3, 0.5]", "[-0.1]"), "sparsities[0]: the sparsity -0.1 is outside [0, 1)"),
        (("[0.3, 0.5]", "[nan]"), "sparsities[0]: the sparsity nan is outside [0, 1)"),
        (("[0.3, 0.5]", "0.5"), "sparsities is 0.5, not a list. Write it in brackets: [0.5]"),
        (("[0.3, 0.5]", '["half"]'), "sparsities[0] is 'half'. Give a number"),
        (("[0.3, 0.5]", "[true]"), "sparsities[0] is true. Give a number"),
        (('"2:4"]', '"4:2"]'), "patterns[1]: unknown pattern '4:2'"),
        (('"temperature"]', '"temprature"]'), "repairs[1]: unknown repair 'temprature'. Did you mean temperature?"),
        (("seeds = [0, 1]", "seeds = [0, -1]"), "seeds[1] is -1"),
        (("seeds = [0, 1]", "seeds = []"), "seeds is empty: there is no cell"),
        (
            ('["perplexity"]', '["perplexty"]'),
            "instruments[0]: unknown instrument 'perplexty'. Did you mean perplexity?",
        ),
        (('models = ["demo"]', "models = []"), "models is empty: there is no cell"),
        (('models = ["demo"]', ""), "there is no models"),
        (('models = ["demo"]', 'models = ["no/such/folder/at/all"]'), "models[0]: there is no folder or file no/such"),
        (("nsamples = 8", "nsample = 8"), "calibration.nsample is unknown. Did you mean nsamples?"),
        (("nsamples = 8", 'nsamples = "8"'), "calibration.nsamples is '8'. Give a whole number"),
        (("nsamples = 8", "seed = 8"), "calibration.seed is set by the grid's seeds"),
        (("nsamples = 8", 'gate = "gate.toml"'), "calibration.gate belongs to the whole grid"),
        (("[calibration]", "[calibrating]"), "calibrating is unknown. Did you mean calibration?"),
        (("bounds = [0.1, 1]", "bounds = [0.1, 1, 2]"), "allocation.bounds has 3 entries. Give 2"),
        (("bounds = [0.1, 1]", "bounds = [1, 0.1]"), "allocation: the bounds 1.0 0.1 of a density are not in (0, 1]"),
        (("bounds = [0.1, 1]", 'correction = "tial"'), "allocation.correction is 'tial'. Did you mean tail?"),
        (("fraction = 0.34", "fraction = 1.34"), "drop[0]: the fraction 1.34 is outside (0, 1)"),
        (("fraction = 0.34", 'by = "cosin"'), "drop[0]: unknown ranking 'cosin'"),
        (('what = "attention"', 'what = "atention"'), "drop[0].what is 'atention'. Did you mean attention?"),
        (("count = 2", "count = 0"), "drop[1]: count is 0"),
        (("count = 2", "count = 2\nfraction = 0.5"), "drop[1]: count is 2. Give a count of 1 or more, or a fraction"),
        (("1]\n", "1]\n[healing]\nsteps = 3\n"), "healing would not be looked at. Leave it out, or add a repair"),
        (("1]\n", '1]\n[scoring]\nsite = "mlp"\n'), "scoring would not be looked at"),
        (
            ("1]\n", "1]\n[ray]\ncpus = 0\n"),
            "ray: cpus 0.0, gpus 0.0, retries 3 are not what a cell can be given",
        ),
        (("seeds = [0, 1]", 'gate = "nowhere.toml"'), "gate: "),
        (("seeds = [0, 1]", 'profile = "stict"'), "unknown profile 'stict'. Did you mean strict?"),
        (("seeds = [0, 1]", 'gate = "g.toml"\nprofile = "strict"'), "gate and profile both say"),
        (("seeds = [0, 1]", 'profile = "strict"'), "instruments: gate strict, check"),
    ],
)
def test_a_mistake_is_refused_by_file_and_key(write, change, said):
    old, new = change
    head, _, tail = GRID.rpartition(old)
    text = head + new + tail
    assert text != GRID
    assert said in refusal(write(text))


def test_a_file_that_is_no_grid_is_named(write, tmp_path):
    with pytest.raises(PlanError, match=r"cannot read the grid .*none.toml \(No such file"):
        read_grid(tmp_path / "none.toml")
    file = write("methods = [")
    with pytest.raises(PlanError, match=r"grid.toml is no TOML \("):
        read_grid(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(PlanError, match=r"grid.toml is no text in UTF-8"):
        read_grid(file)
    assert refusal(write("calibration = 3\n")) == "calibration is 3, not a table. Write [calibration]"
    assert refusal(write("[drop]\ncount = 2\n")) == "drop is {'count': 2}. Write [[drop]], once for each"


def test_a_grid_without_a_method_is_empty(write):
    assert refusal(write('models = ["demo"]')).startswith("there is no method: nothing would be pruned")


def test_options_of_healing_must_mean_something_to_a_way():
    grid = Grid(models=("demo",), methods=("wanda",), repairs=("lora",), healing=HealingOptions(weight=0.3))
    with pytest.raises(PlanError, match=r"healing.weight has no meaning for lora. Leave it out"):
        check_grid(grid)
    # To another it does: each is given what it looks at.
    check_grid(replace(grid, repairs=("lora", "contrastive")))
    with pytest.raises(PlanError, match=r"repairs\[0\]: --loss infonce|healing.margin has no meaning for contrastive"):
        check_grid(replace(grid, repairs=("contrastive",), healing=HealingOptions(margin=0.3)))


def test_a_recalibration_needs_a_task_of_ours():
    grid = Grid(
        models=("demo",), methods=("wanda",), repairs=("platt",), answering=TaskOptions(tasks=("lm-eval:hellaswag",))
    )
    with pytest.raises(PlanError, match=r"repairs\[0\]: platt is fitted on tasks of trueprune's own"):
        check_grid(grid)


# Pure functions


def test_the_front_is_what_nothing_beats_in_both():
    points = [Point("dense", 0.0, 1.0), Point("a", 0.3, 0.9), Point("b", 0.5, 0.9), Point("c", 0.5, 0.7)]
    points += [Point("d", 0.6, 0.2), Point("e", 0.55, 0.1), Point("bad", float("nan"), 2.0)]
    assert [p.name for p in pareto_front(points)] == ["dense", "b", "d"]
    # Order does not matter, and equals stand beside each other.
    assert [p.name for p in pareto_front([*reversed(points), Point("twin", 0.5, 0.9)])] == ["dense", "twin", "b", "d"]
    assert pareto_front([]) == []


def test_no_point_outside_the_front_is_undominated():
    points = [Point(f"{i}", float((i * 37) % 11), float((i * 53) % 13)) for i in range(60)]
    front = {p.name for p in pareto_front(points)}

    def beaten(p):
        return any(q.x >= p.x and q.y >= p.y and (q.x > p.x or q.y > p.y) for q in points)

    assert front == {p.name for p in points if not beaten(p)}


@pytest.mark.parametrize("name", ["../../etc", "<script>alert(1)</script>", "a b", "...", "", "ünïcode"])
def test_a_hostile_name_is_one_part_of_a_path(name):
    assert "/" not in safe(name)
    assert safe(name) not in ("", ".", "..")
    assert not set(safe(name)) & set("<> \\")


def test_commands_hold_every_option_that_differs():
    grid = Grid(
        models=("../<script>",),
        methods=("tplo+sparsegpt",),
        sparsities=(0.1 + 0.2,),
        repairs=("distill",),
        seeds=(7,),
        calibration=CalibrationOptions(sources=("embedded", "a b.txt=2"), nsamples=4, format="document"),
        healing=HealingOptions(steps=3, softness=2.0),
    )
    (config,) = expand(grid)
    first, second = commands(grid, config)
    assert first.startswith("trueprune prune '../<script>' -o ")
    assert "--method tplo --score sparsegpt --sparsity 0.30000000000000004" in first
    assert "--calibration embedded 'a b.txt=2' --nsamples 4 --seed 7 --calibration-format document" in first
    assert "--with distill" in second
    assert "--teacher '../<script>'" in second
    assert "--steps 3 --softness 2 --healing-seed 7" in second
    assert "--nsamples" not in second
    out = first.split(" -o ")[1].split()[0]
    assert second.startswith(f"trueprune repair {out} -o {out}-distill")


def test_the_command_line_understands_the_commands():
    grid = Grid(
        models=("demo",),
        methods=("owl", "eavss"),
        patterns=("2:4",),
        drop=(DropOptions(what="block", by="avss", count=1, schedule="iterative"),),
        repairs=("contrastive", "platt"),
        answering=TaskOptions(items=7),
    )
    for config in expand(grid):
        for said in commands(grid, config):
            words = said.split()
            _, bound, _ = app.parse_args(words[1:], print_error=False, exit_on_error=False)
            assert bound.arguments["model" if "model" in bound.arguments else "models"] == words[2]
