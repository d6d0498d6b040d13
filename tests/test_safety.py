"""What must not happen: outputs that replace inputs, leaks, contradictions, numbers out of range, overflows."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from plain import token_rows
from samples import TOWNS, write_statements
from zoo import tiny_model

from trueprune import (
    AuditError,
    AuditOptions,
    CalibrationOptions,
    EditOptions,
    LoadedModel,
    ModelError,
    OutputError,
    PlanError,
    Statement,
    StatementSet,
    TokenBatch,
    apply_plan,
    audit,
    demo,
    load,
    observe_outliers,
    prune,
    read_anatomy,
)
from trueprune._support import folders
from trueprune._support.folders import check_output, whole_folder
from trueprune.audits.draws import cluster_counts
from trueprune.audits.separation import SeparationMeasurement, measure_separation
from trueprune.audits.subject import Subject
from trueprune.cli.main import run
from trueprune.observe import ColumnNorms, Gram, separation_ratio
from trueprune.observe.separation import separation_by_dataset
from trueprune.plans import BlockPlan, Pattern, Plan
from trueprune.reports.paired import estimate, paired_change

SMALL = ["--nsamples", "4", "--seqlen", "32"]


@pytest.fixture
def model(tiny_folder, tmp_path) -> Path:
    """A copy of the tiny model that a mistake may replace."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "models" / "tiny"))


@pytest.fixture
def unloadable(monkeypatch):
    """Loading a model is an error: what is refused is refused before."""

    def loaded_too_early(*_args, **_options):
        raise AssertionError("a model was loaded")

    for name in ("prune", "scan", "audit", "demo"):
        monkeypatch.setattr(importlib.import_module(f"trueprune.jobs.{name}"), "as_loaded", loaded_too_early)


@pytest.fixture
def refused(capsys):
    """Run a command that must fail with exit code 2 and one line that holds some words."""

    def check(arguments, *words):
        capsys.readouterr()
        code = run([*map(str, arguments)])
        captured = capsys.readouterr()
        assert code == 2, captured.err
        assert captured.out == ""
        assert captured.err.startswith("trueprune: error: ")
        assert captured.err.count("\n") == 1
        for word in words:
            assert word in captured.err

    return check


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


# Outputs


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("out", ["models/tiny", "models", "models/other/../tiny", "link"])
def test_an_output_must_not_be_or_hold_an_input(model, tmp_path, out, overwrite):
    (tmp_path / "models" / "other").mkdir()
    (tmp_path / "link").symlink_to(model)
    with pytest.raises(OutputError, match=r"is or holds the input .*tiny\. Choose another folder with -o"):
        check_output(tmp_path / out, overwrite, ["demo", model])
    check_output(tmp_path / "models" / "new", overwrite, ["demo", model])
    check_output(model / "inside", overwrite, ["demo", model])


def test_an_input_given_by_a_link_is_not_replaced(model, tmp_path):
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "tiny"
    link.symlink_to(model)
    for out in (model, link, tmp_path / "links"):
        with pytest.raises(OutputError, match="is or holds the input"):
            check_output(out, True, [link])


def test_an_output_must_not_hold_a_gguf_file_that_is_read(tmp_path):
    file = tmp_path / "models" / "some.gguf"
    file.parent.mkdir()
    file.write_bytes(b"GGUF")
    with pytest.raises(OutputError, match="is or holds the input"):
        check_output(tmp_path / "models", True, [file])


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("out", [".", "..", "../work", "../..", "link"])
def test_an_output_must_not_be_or_hold_the_working_folder(tmp_path, monkeypatch, out, overwrite):
    (tmp_path / "a" / "work").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "work")
    Path("link").symlink_to(tmp_path / "a")
    with pytest.raises(OutputError, match="is or holds the working folder"):
        check_output(Path(out), overwrite)
    check_output(Path("new"), overwrite)
    check_output(Path("../new"), overwrite)


def test_an_output_must_not_be_or_hold_the_home_folder(tmp_path, monkeypatch):
    home = tmp_path / "users" / "me"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    for out in (home, home.parent):
        with pytest.raises(OutputError, match="is or holds the home folder"):
            check_output(out, True)
    check_output(home / "pruned", True)


@pytest.mark.parametrize("job", ["prune", "scan", "audit", "audit a second model", "demo"])
def test_no_command_replaces_a_model_that_it_reads(model, tiny_folder, tmp_path, refused, unloadable, job):
    command = job.split()[0]
    inputs = {"audit a second model": [tiny_folder, model], "demo": ["--model", model]}.get(job, [model])
    before = files_below(tmp_path)
    for out in (model, model.parent):
        refused([command, *inputs, "-o", out, "--overwrite"], "is or holds the input")
    assert files_below(tmp_path) == before


def test_a_demo_does_not_replace_a_folder_unasked(tmp_path, refused, unloadable):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "notes").write_text("x")
    refused(["demo", "-o", out], "mine exists and is not empty", "--overwrite")
    assert files_below(tmp_path) == {"mine/notes": b"x"}
    with pytest.raises(OutputError, match="exists and is not empty"):
        demo(out)
    # With leave to replace it the job goes on, here to the loading that must not be.
    with pytest.raises(AssertionError, match="a model was loaded"):
        demo(out, overwrite=True)
    assert files_below(tmp_path) == {"mine/notes": b"x"}


@pytest.mark.parametrize("command", ["prune", "scan", "audit", "demo"])
def test_an_output_below_a_file_is_refused_at_once(model, tmp_path, refused, unloadable, command):
    file = tmp_path / "file"
    file.write_text("x")
    inputs = ["--model", model] if command == "demo" else [model]
    for out in (file / "out", file / "deep" / "out"):
        refused([command, *inputs, "-o", out], f"nothing can be written in {file}", "another folder with -o")
    assert file.read_text() == "x"


@pytest.mark.parametrize("command", ["prune", "scan", "audit", "demo"])
def test_an_output_where_nothing_may_be_written_is_refused_at_once(
    model, tmp_path, refused, unloadable, monkeypatch, command
):
    # Root may write everywhere, so the system's answer is given here.
    locked = tmp_path / "locked"
    locked.mkdir()
    monkeypatch.setattr(folders.os, "access", lambda folder, mode: Path(folder) != locked)
    inputs = ["--model", model] if command == "demo" else [model]
    for out in (locked / "out", locked / "deep" / "out"):
        refused([command, *inputs, "-o", out], f"nothing can be written in {locked}", "another folder with -o")
    assert list(locked.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path, monkeypatch):
    def denied(self, *_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", denied)
    with (
        pytest.raises(OutputError, match=r"cannot make the folder .*new \(Permission denied\)"),
        whole_folder(tmp_path / "new" / "out"),
    ):
        pytest.fail("the folder was yielded")


# Leaks


@pytest.fixture(scope="module")
def papers_statements(tmp_path_factory) -> str:
    """Statements with the topics by which the paper chooses, and one by which it does not."""
    file = write_statements(tmp_path_factory.mktemp("statements") / "own.csv")
    lines = file.read_text().splitlines()
    more = [line.replace(",towns", ",cities").replace(",words", ",sp_en_trans") for line in lines[1:]]
    file.write_text("\n".join([*lines, *more]) + "\n")
    return str(file)


LEAKS = {
    "swl": {"method": "swl"},
    "tplo": {"method": "tplo"},
    "statements as a source": {"method": "wanda", "sources": ("statements",)},
    "statements among the sources": {"method": "wanda", "sources": ("embedded", "statements=2")},
}


def pruned_by(folder, out, statements, method, selection, sources=("embedded",)):
    options = CalibrationOptions(sources=sources, nsamples=4, seqlen=32, statements=statements, selection=selection)
    prune(folder, out, method=method, calibration=options)
    return out


def notes_of_audit(folder, pruned, statements, selection) -> list[str]:
    options = AuditOptions(statements=statements, selection=selection, resamples=10, per_dataset=8, cache=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        audit(folder, [pruned], instruments=("separation",), measuring=options)
    return [str(warning.message) for warning in caught if "audit" in str(warning.message).lower()]


@pytest.mark.parametrize("leak", LEAKS)
def test_statements_that_chose_may_test_only_with_a_warning(leak, tiny_folder, tmp_path, papers_statements):
    pruned = pruned_by(tiny_folder, tmp_path / "pruned", papers_statements, selection="paper", **LEAKS[leak])
    (note,) = notes_of_audit(tiny_folder, pruned, papers_statements, "leak-free")
    assert note.startswith("pruned was pruned with --selection paper and is audited with --selection leak-free")
    assert notes_of_audit(tiny_folder, pruned, papers_statements, "paper") == []


def test_a_plan_carried_out_again_remembers_what_chose_it(tiny_folder, tmp_path, papers_statements):
    first = pruned_by(tiny_folder, tmp_path / "first", papers_statements, "tplo", "paper")
    again = tmp_path / "pruned"
    options = CalibrationOptions(nsamples=4, seqlen=32)
    prune(tiny_folder, again, plan=first / "trueprune.json", calibration=options)
    (note,) = notes_of_audit(tiny_folder, again, papers_statements, "leak-free")
    assert "--selection paper" in note


@pytest.mark.parametrize("method", ["wanda", "magnitude", "owl"])
def test_what_no_statement_chose_is_audited_without_a_warning(method, tiny_folder, tmp_path, papers_statements):
    pruned = pruned_by(tiny_folder, tmp_path / "pruned", papers_statements, method, "paper")
    assert notes_of_audit(tiny_folder, pruned, papers_statements, "leak-free") == []


def test_another_collection_of_statements_is_a_warning(tiny_folder, tmp_path, papers_statements):
    pruned = pruned_by(tiny_folder, tmp_path / "pruned", papers_statements, "swl", "leak-free")
    other = str(write_statements(tmp_path / "other.csv"))
    (note,) = notes_of_audit(tiny_folder, pruned, other, "leak-free")
    assert f"--statements {papers_statements} and is audited with --statements {other}" in note


def test_the_command_line_says_it_in_one_note(tiny_folder, tmp_path, papers_statements):
    for name, method in (("pruned", "swl"), ("plain", "wanda")):
        pruned_by(tiny_folder, tmp_path / name, papers_statements, method, "paper")
    flags = ["--instruments", "separation", "--resamples", "10", "--statements", papers_statements]
    models = [tiny_folder, tmp_path / "pruned", tmp_path / "plain"]
    # A process of its own: the runtime types of the tests would stand between the warning and who is warned.
    done = subprocess.run(
        [Path(sys.executable).parent / "trueprune", "audit", *models, "-o", tmp_path / "audit", *flags],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=120,
    )
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("note: pruned was pruned with --selection paper")


# Few statements


def few_statements(per_label: int, datasets: int = 3) -> StatementSet:
    """So many true and as many false statements of each dataset, each its own fact."""
    rows = [
        Statement(f"{topic} {TOWNS[i]} {label}", label, f"topic{topic}", "affirmative", "en", f"{topic}:{i}:{label}")
        for topic in range(datasets)
        for label in (0, 1)
        for i in range(per_label)
    ]
    return StatementSet(rows, "few")


def few_activations(statements: StatementSet, shift: float, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    acts_NLD = torch.randn(len(statements), 1, 24, generator=generator)
    return acts_NLD + shift * torch.from_numpy(statements.labels)[:, None, None]


@pytest.mark.parametrize("per_label", [2, 3, 4])
def test_intervals_of_few_statements_are_bounded(per_label):
    statements = few_statements(per_label)
    dense, pruned = (
        measure_separation(statements, few_activations(statements, shift, seed), 0)
        for seed, shift in ((0, 2.0), (1, 1.0))
    )
    for found in (estimate(dense), estimate(pruned), paired_change(dense, pruned)):
        low, high = found.interval
        assert low < found.value < high
        # Between over within of 24 dimensions that differ by at most a few units.
        assert -10 < low < high < 10


def test_one_statement_drawn_again_and_again_has_no_variance():
    statements = few_statements(3, datasets=2)
    # Not at the origin and no short binary fractions: the variance of equal numbers is then a rounding error.
    acts_NLD = few_activations(statements, 0.7) * 0.1 + 0.3
    found = measure_separation(statements, acts_NLD, 0)
    # Of the first dataset one false and one true statement, three times each; the second as it is.
    counts_Rn = np.array([[3, 0, 0, 0, 3, 0] + [1] * 6, [1] * 12, [3, 0, 0, 0, 3, 0] * 2], dtype=float)
    one, both, none = found.resample(counts_Rn)
    ratios = [
        float(separation_ratio(acts_NLD[part], torch.tensor([0, 0, 0, 1, 1, 1]))) for part in (slice(6), slice(6, 12))
    ]
    assert one == pytest.approx(ratios[1], rel=1e-5)
    assert both == pytest.approx(np.mean(ratios), rel=1e-5)
    assert np.isnan(none)


def test_every_resample_of_few_statements_says_something_possible():
    statements = few_statements(2, datasets=4)
    found = measure_separation(statements, few_activations(statements, 1.0) * 0.1 + 0.3, 0)
    assert isinstance(found, SeparationMeasurement)
    ratios_R = found.resample(cluster_counts(np.arange(found.n), 2000, 0))
    known_R = np.isfinite(ratios_R)
    # Half of the draws give no dataset two statements of both labels: they are left out, not made infinite.
    assert 0.3 < known_R.mean() < 0.9
    # A repeated statement among others makes a class narrower, but never a point.
    assert 0 < ratios_R[known_R].min() < ratios_R[known_R].max() < 100


# Numbers that overflow


def overflowing(block: int = 1, matrix: str = "up_proj") -> LoadedModel:
    """A model whose weights are finite, but not what comes out of them."""
    model = tiny_model("llama")
    with torch.no_grad():
        getattr(model.model.layers[block].mlp, matrix).weight.mul_(1e30)
    return LoadedModel(model, None, "overflowing")


HALF = Plan("uniform", 0.5, (BlockPlan(0.5),) * 3)


@pytest.mark.parametrize("score", ["wanda", "sparsegpt"])
def test_pruning_on_activations_that_overflow_names_the_matrix(score):
    anatomy = read_anatomy(overflowing().model)
    with pytest.raises(ModelError, match=r"inputs of model.layers.1.mlp.down_proj are not finite.*--dtype float32"):
        apply_plan(anatomy, HALF, score, TokenBatch(token_rows()))


@pytest.mark.parametrize("score", ["wanda", "sparsegpt"])
def test_half_precision_that_overflows_names_the_matrix(score):
    model = tiny_model("llama").half()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight.mul_(2e4)
        model.model.layers[1].mlp.gate_proj.weight.mul_(2e4)
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
    with pytest.raises(ModelError, match=r"model.layers.1.mlp.down_proj are not finite: activations overflow"):
        apply_plan(read_anatomy(model), HALF, score, TokenBatch(token_rows()))


def test_outliers_of_activations_that_overflow_name_the_matrix():
    anatomy = read_anatomy(overflowing().model)
    with pytest.raises(ModelError, match=r"inputs of model.layers.1.mlp.down_proj are not finite"):
        observe_outliers(anatomy, TokenBatch(token_rows()), 5.0)


def test_activations_that_are_not_finite_are_not_audited(tokenizer):
    model = overflowing(1).model
    with torch.no_grad():
        # The output of the first block is infinite, and what the next makes of it no number at all.
        model.model.layers[1].mlp.down_proj.weight.mul_(1e30)
    statements = few_statements(2)
    subject = Subject("pruned", LoadedModel(model, tokenizer, "overflowing"), use_cache=False)
    with pytest.raises(AuditError, match=r"activations of pruned on few are not finite.*--dtype float32"):
        subject.activations(statements)


@pytest.mark.parametrize("statistic", [ColumnNorms, Gram])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_statistics_know_whether_they_are_finite(statistic, value):
    seen = statistic(3, torch.device("cpu"))
    seen.add(torch.ones(4, 3))
    assert seen.is_finite()
    other = statistic(3, torch.device("cpu"))
    other.add(torch.tensor([[1.0, value, 1.0]]))
    assert not other.is_finite()
    seen.merge(other)
    assert not seen.is_finite()


# Contradictions


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"sparsity": 0.6}, r"--sparsity 0.6 contradicts the plan, whose target is 0.5. Leave it out"),
        ({"pattern": "2:4"}, r"--pattern 2:4 contradicts the plan, whose pattern is unstructured"),
    ],
)
def test_a_plan_and_another_target_contradict_each_other(tiny, asked, message):
    before = [parameter.clone() for parameter in tiny.model.parameters()]
    with pytest.raises(PlanError, match=message):
        prune(tiny, method="magnitude", plan=HALF, **asked)
    assert all(torch.equal(a, b) for a, b in zip(before, tiny.model.parameters(), strict=True))
    assert prune(tiny, method="magnitude", plan=HALF, sparsity=0.5).record["measured_sparsity"] == 0.5


def test_a_plan_of_a_pattern_is_not_carried_out_as_another(tiny):
    plan = Plan("uniform", 0.5, (BlockPlan(0.5),) * 3, Pattern(2, 4))
    with pytest.raises(PlanError, match="--pattern 4:8 contradicts the plan, whose pattern is 2:4"):
        prune(tiny, method="magnitude", plan=plan, pattern="4:8")
    result = prune(tiny, method="magnitude", plan=plan, pattern="2:4")
    for block in read_anatomy(result.loaded.model).blocks:
        for site in block.sites:
            assert ((site.weight_OI == 0).reshape(site.shape[0], -1, 4).sum(-1) == 2).all()


IDLE = [
    ({"method": "wanda", "pattern": "2:4", "edit": EditOptions(variant=True)}, "--variant has no meaning for wanda"),
    ({"method": "sparsegpt", "edit": EditOptions(variant=True)}, "--variant has no meaning for sparsegpt"),
    ({"method": "sparsegpt", "edit": EditOptions(group="row")}, "--group has no meaning for sparsegpt"),
    ({"method": "owl", "score": "sparsegpt", "edit": EditOptions(group="matrix")}, "--group has no meaning"),
    ({"method": "wanda", "pattern": "2:4", "edit": EditOptions(group="matrix")}, "--group has no meaning for wanda"),
    ({"method": "wanda", "edit": EditOptions(variant=True, group="row")}, "--group has no meaning for wanda"),
]


@pytest.mark.parametrize(("options", "message"), IDLE)
def test_an_option_that_would_be_ignored_is_refused(tiny_folder, unloadable, options, message):
    with pytest.raises(PlanError, match=message):
        prune(tiny_folder, **options)


def test_an_option_that_a_plans_pattern_would_ignore_is_refused(tiny_folder, unloadable):
    plan = Plan("uniform", 0.5, (BlockPlan(0.5),) * 3, Pattern(2, 4))
    with pytest.raises(PlanError, match="--variant has no meaning for wanda with 2:4"):
        prune(tiny_folder, method="wanda", plan=plan, edit=EditOptions(variant=True))


PRUNING_FLAGS = {
    "sparsity against the plan": (["--plan", "p.json", "--sparsity", "0.6"], "contradicts the plan"),
    "pattern against the plan": (["--plan", "p.json", "--pattern", "2:4"], "contradicts the plan"),
    "variant of 2:4": (["--variant", "--method", "wanda", "--pattern", "2:4"], "--variant has no meaning"),
    "variant of sparsegpt": (["--variant", "--method", "sparsegpt"], "--variant has no meaning"),
    "group of sparsegpt": (["--group", "row", "--method", "sparsegpt"], "--group has no meaning"),
    "no columns": (["--block-size", "0", "--method", "sparsegpt"], "--block-size 0"),
    "no damping": (["--damping", "0", "--method", "sparsegpt"], "--damping 0"),
    "bounds beyond one": (["--bounds", "0.4", "1.9"], "--bounds 0.001 1"),
    "bounds the wrong way round": (["--bounds", "0.9", "0.4"], "the bounds 0.9 0.4"),
    "bounds of nothing": (["--bounds", "0", "1"], "the bounds 0"),
    "no threshold": (["--outlier-threshold", "0"], "--outlier-threshold 0"),
    "negative lambda": (["--lam", "-1"], "must not be negative"),
    "negative levels": (["--nm-levels", "-1", "--pattern", "2:4"], "must not be negative"),
}


@pytest.mark.parametrize("name", PRUNING_FLAGS)
def test_prune_refuses_what_makes_no_sense(model, tmp_path, refused, unloadable, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("p.json").write_text(json.dumps({"blocks": [0.5, 0.5, 0.5]}))
    flags, words = PRUNING_FLAGS[name]
    refused(["prune", model, "-o", "out", *flags], words)
    assert not Path("out").exists()


@pytest.mark.parametrize("command", ["audit", "demo"])
@pytest.mark.parametrize(
    "flags",
    [
        ["--resamples", "0"],
        ["--resamples", "9"],
        ["--seed", "-1"],
        ["--repeats", "0"],
        ["--per-dataset", "-1"],
        ["--max-tokens", "-5"],
    ],
)
def test_an_audit_refuses_numbers_out_of_range(model, tmp_path, refused, unloadable, command, flags):
    inputs = ["--model", model] if command == "demo" else [model]
    refused([command, *inputs, "-o", tmp_path / "out", *flags], f"{flags[0]} {flags[1]} is below", "or more")
    assert not (tmp_path / "out").exists()


def test_no_probe_and_no_protocol_is_refused(tiny, tmp_path):
    statements = str(write_statements(tmp_path / "s.csv"))
    for nothing in ({"probes": ()}, {"protocols": ()}):
        options = AuditOptions(statements=statements, per_dataset=4, **nothing)
        with pytest.raises(AuditError, match="no probe or no protocol"):
            audit(tiny, instruments=("lie-detection",), measuring=options)


# Collections, tokenizers, memory


def test_a_topic_with_too_few_of_a_label_is_left_out():
    rows = [
        *few_statements(2, datasets=1),
        *[Statement(f"lone {i}", int(i > 0), "lone", "affirmative", "en", f"lone:{i}") for i in range(5)],
        *[Statement(f"one-sided {i}", 1, "one-sided", "negated", "en", f"one:{i}") for i in range(4)],
    ]
    statements = StatementSet(rows, "mixed")
    acts_NLD = few_activations(statements, 1.0)
    found = separation_by_dataset(acts_NLD, statements)
    assert list(found) == ["topic0/affirmative"]
    assert torch.equal(found["topic0/affirmative"], separation_ratio(acts_NLD[:4], torch.tensor([0, 0, 1, 1])))
    lone = statements.where(lambda row: row.topic != "topic0")
    with pytest.raises(AuditError, match="no topic of mixed has two true and two false statements"):
        separation_by_dataset(acts_NLD[4:], lone)


@pytest.mark.parametrize("damage", [b"{", b'{"model": {"type": "none"}}'])
def test_a_damaged_tokenizer_is_named(model, tmp_path, refused, damage):
    (model / "tokenizer.json").write_bytes(damage)
    with pytest.raises(ModelError, match=r"the tokenizer of .*tiny cannot be read .*Restore its files"):
        load(model)
    refused(["prune", model, "-o", tmp_path / "out", *SMALL], f"the tokenizer of {model} cannot be read")


def test_a_model_without_tokenizer_is_no_model_with_a_damaged_one(model, tmp_path):
    for file in model.glob("*token*"):
        file.unlink()
    loaded = load(model)
    assert loaded.tokenizer is None
    with pytest.raises(ModelError, match="has no tokenizer"):
        prune(loaded, method="wanda", calibration=CalibrationOptions(nsamples=4, seqlen=32))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nGPU 0 has ..."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        MemoryError(),
    ],
    ids=["accelerator", "cpu", "python"],
)
def test_out_of_memory_is_one_line(model, tmp_path, refused, monkeypatch, error):
    def too_much(*_args, **_options):
        raise error

    monkeypatch.setattr(importlib.import_module("trueprune.jobs.prune"), "apply_plan", too_much)
    refused(["prune", model, "-o", tmp_path / "out", "--method", "magnitude"], "out of memory. Lower --batch-tokens")
    assert not (tmp_path / "out").exists()
