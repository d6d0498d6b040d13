"""The command line: its spellings, and one line with exit code 2 for everything that a user can mend."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from samples import write_corpus, write_statements

from trueprune.cli.main import run

PROGRAM = Path(sys.executable).parent / "trueprune"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    write_statements(folder / "statements.csv")
    write_corpus(folder / "corpus.txt")
    return folder


@pytest.fixture
def small(files):
    """Options that keep a run short."""
    return ["--nsamples", "4", "--seqlen", "32", "--statements", str(files / "statements.csv")]


@pytest.fixture
def model(tiny_folder, tmp_path):
    """A copy of the tiny model, to be damaged or watched."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def contents(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def record_of(folder):
    return json.loads((folder / "trueprune.json").read_text())


# Spellings


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt", "owl", "swl", "tplo"])
def test_prune_by_each_method(tiny_folder, tmp_path, small, method, capsys):
    out = tmp_path / "out"
    arguments = ["prune", str(tiny_folder), "-o", str(out), "--method", method, "--sparsity", "0.5", *small]
    assert run([*arguments, "--pattern", "unstructured", "--calibration", "embedded", "--seed", "0"]) == 0
    record = record_of(out)
    assert record["method"] == method
    assert record["measured_sparsity"] == pytest.approx(0.5, abs=1 / 32)
    assert record["command"].startswith("trueprune prune ")
    captured = capsys.readouterr()
    assert f"{method} (allocation" in captured.out
    assert captured.err == ""


@pytest.mark.parametrize("pattern", ["2:4", "4:8"])
def test_prune_to_a_pattern_with_a_score(tiny_folder, tmp_path, small, pattern, capsys):
    out = tmp_path / "out"
    flags = ["--method", "owl", "--score", "sparsegpt", "--pattern", pattern, "--nm-levels", "0", *small]
    assert run(["prune", str(tiny_folder), "--output", str(out), *flags]) == 0
    n, m = map(int, pattern.split(":"))
    for name, weight in load_file(out / "model.safetensors").items():
        if "_proj" in name:
            assert ((weight == 0).reshape(weight.shape[0], -1, m).sum(-1) == n).all()
    assert record_of(out)["plan"]["score"] == "sparsegpt"
    assert f"every block gets {pattern}" in " ".join(capsys.readouterr().out.split())


def test_prune_on_several_sources_by_a_plan_over_an_old_output(tiny_folder, tmp_path, files, small):
    plan, out = tmp_path / "plan.json", tmp_path / "out"
    plan.write_text('{"blocks": [0.5, 0.25, {"sparsity": 0.5, "matrices": {"mlp.up_proj": 0}}]}')
    arguments = ["prune", str(tiny_folder), "-o", str(out), "--method", "wanda", "--plan", str(plan), *small]
    arguments += ["--calibration", f"{files / 'corpus.txt'}=3", "enriched-embedded"]
    assert run(arguments) == 0
    first = contents(out)
    assert record_of(out)["calibration"]["drawn"] == {str(files / "corpus.txt"): 3, "enriched-embedded": 1}
    assert record_of(out)["measured_sparsity_blocks"][1] == pytest.approx(0.25)
    assert run([*arguments, "--overwrite", "--seed", "1"]) == 0
    assert record_of(out)["seed"] == 1
    assert contents(out)["model.safetensors"] != first["model.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "plan.json"]


def test_the_papers_spellings(tiny_folder, tmp_path, files, small):
    flags = ["--prune_method", "owl_option2", "--Lamda", "0.07", "--Hyper_m", "4", "--sparsity_ratio", "0.5"]
    flags += [
        "--sparsity_type",
        "2:4",
        "--calibration_datasets",
        "embedded",
        str(files / "corpus.txt"),
    ]
    flags += ["--scaling_factor", "0.05", "--input_format", "concat", "--padding_side", "left"]
    out = tmp_path / "out"
    assert run(["prune", str(tiny_folder), "--save_model", str(out), *flags, *small]) == 0
    record = record_of(out)
    assert (record["method"], record["plan"]["method"], record["plan"]["pattern"]) == ("tplo", "tplo", "2:4")
    options = record["plan"]["options"]
    assert (options["lam"], options["outlier_threshold"], options["scale"]) == (0.07, 4.0, 0.05)
    assert record["calibration"]["sources"] == ["embedded", str(files / "corpus.txt")]
    assert record["calibration"]["padding_side"] == "left"


def test_the_papers_variant(tiny_folder, tmp_path, small):
    out = tmp_path / "out"
    assert run(["prune", str(tiny_folder), "-o", str(out), "--prune_method", "wanda", "--use_variant", *small]) == 0
    assert record_of(out)["edit"]["variant"] is True
    assert abs(record_of(out)["measured_sparsity"] - 0.5) < 0.02


def test_scan(tiny_folder, tmp_path, small, capsys):
    out = tmp_path / "scan"
    assert run(["scan", str(tiny_folder), "-o", str(out), "--pivot", "1", *small]) == 0
    report = json.loads((out / "scan.json").read_text())
    assert len(report["blocks"]) == 3
    assert report["pivot"] == 1
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("density", "tplo", "AVSS", "influence"))
    assert "TPLO's pivot: 1" in printed


def test_audit(tiny_folder, tmp_path, files, capsys):
    pruned = []
    for share in ("0.5", "0.8"):
        pruned.append(str(tmp_path / f"magnitude-{share}"))
        assert run(["prune", str(tiny_folder), "-o", pruned[-1], "--method", "magnitude", "--sparsity", share]) == 0
    out = tmp_path / "audit"
    flags = ["--perplexity-text", str(files / "corpus.txt"), "--window", "32", "--per-dataset", "8", "--repeats", "1"]
    flags += ["--statements", str(files / "statements.csv"), "--resamples", "50"]
    flags += ["--instruments", "perplexity", "lie-detection"]
    assert run(["audit", str(tiny_folder), *pruned, "-o", str(out), *flags]) == 0
    data = json.loads((out / "audit.json").read_text())
    assert [m["name"] for m in data["models"]] == ["tiny-llama", "magnitude-0.5", "magnitude-0.8"]
    assert {row["instrument"] for row in data["measurements"]} == {"perplexity", "lie-detection"}
    assert data["settings"]["per_dataset"] == 8
    printed = capsys.readouterr().out
    assert "perplexity" in printed
    assert "magnitude-0.8" in printed


FLAGS = {
    "prune": "--output -o --method --score --sparsity --pattern --plan --calibration --nsamples --seqlen --seed --lam "
    "--outlier-threshold --pivot --nm-levels --variant --dtype --device --overwrite "
    "--prune_method --calibration_datasets",
    "scan": "--output -o --sparsity --calibration --nsamples --seqlen --scale --overwrite",
    "audit": "--output -o --instruments --perplexity-text --window --statements --probes --protocols --layer "
    "--overwrite",
    "demo": "--output -o --model --methods --sparsity --calibration",
}


@pytest.mark.parametrize("command", FLAGS)
def test_help_names_the_flags(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert run([command, "--help"]) == 0
    words = capsys.readouterr().out.replace(",", " ").split()
    assert [flag for flag in FLAGS[command].split() if flag not in words] == []


def test_help_names_the_commands(capsys):
    assert run(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(command in printed for command in FLAGS)
    assert run(["--version"]) == 0
    assert "0.1.0" in capsys.readouterr().out


def test_help_does_not_wait_for_torch():
    code = (
        "import sys; from trueprune.cli.main import run; "
        "assert run(['--help']) == 0; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "prune" in done.stdout


# What a user can mend


@pytest.fixture
def refused(model, tmp_path, files, capsys):
    """Run a command that must be refused: one line, exit code 2, and nothing touched."""

    def check(arguments, *words, out="out"):
        before = sorted(path.name for path in tmp_path.iterdir())
        held = contents(tmp_path)
        capsys.readouterr()
        code = run([*map(str, arguments)])
        captured = capsys.readouterr()
        assert code == 2
        assert captured.out == ""
        assert captured.err.startswith("trueprune: error: ")
        assert captured.err.count("\n") == 1
        assert captured.err.endswith("\n")
        assert "Traceback" not in captured.err
        for word in words:
            assert word in captured.err
        assert sorted(path.name for path in tmp_path.iterdir()) == before
        assert contents(tmp_path) == held
        assert out is None or not (tmp_path / out).exists()

    return check


BAD_FLAGS = {
    "sparsity of one": (["--sparsity", "1.0"], ["sparsity 1.0", "[0, 1)", "such as 0.5"]),
    "negative sparsity": (["--sparsity", "-0.1"], ["sparsity -0.1", "[0, 1)"]),
    "sparsity in words": (["--sparsity", "half"], ["--sparsity", "half"]),
    "sparsity against the pattern": (
        ["--sparsity", "0.6", "--pattern", "2:4"],
        ["contradicts", "Leave --sparsity out"],
    ),
    "pattern that does not divide": (["--pattern", "3:7"], ["3:7", "q_proj"]),
    "unknown pattern": (["--pattern", "4:2"], ["unknown pattern '4:2'", "e.g. 2:4"]),
    "unknown method": (["--method", "owl3"], ["unknown method 'owl3'", "tplo"]),
    "unknown score": (["--method", "owl", "--score", "ria"], ["unknown score 'ria'", "sparsegpt"]),
    "contradicting score": (["--method", "wanda", "--score", "magnitude"], ["contradict", "--method magnitude"]),
    "unknown calibration": (["--calibration", "c5"], ["unknown calibration source 'c5'", "embedded"]),
    "unknown format": (["--calibration-format", "zero"], ["zero", "concat"]),
    "unknown flag": (["--sparsty", "0.5"], ["--sparsty"]),
    "unknown dtype": (["--dtype", "int8"], ["unknown dtype 'int8'", "bfloat16"]),
    "seqlen over the limit": (["--seqlen", "300"], ["seqlen 300", "limit of 256", "--seqlen 256"]),
    "no samples": (["--nsamples", "0"], ["nsamples 0", "16 x 512"]),
    "weights that are no weights": (["--calibration", "embedded=nan"], ["embedded=nan", "c4=3"]),
    "pivot that is no block": (["--pivot", "3", "--seqlen", "32"], ["pivot 3 is no block of 3", "Use 0 to 2"]),
    "missing plan": (["--plan", "none.json"], ["no plan file at none.json", "Check the path"]),
    "missing statements": (
        ["--method", "swl", "--statements", "none.csv"],
        ["no statements at 'none.csv'", "embedded"],
    ),
    "unreachable hub rows": (["--calibration", "c4"], ["allenai/c4", "TRUEPRUNE_DATA"]),
}


@pytest.mark.parametrize("name", BAD_FLAGS)
def test_bad_flags(model, tmp_path, refused, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "datasets", None)
    flags, words = BAD_FLAGS[name]
    flags = flags if "--seqlen" in flags else [*flags, "--seqlen", "32"]
    refused(["prune", model, "-o", tmp_path / "out", *flags], *words)


BAD_TEXTS = {
    "empty corpus": ("corpus.txt", " \n\n", ["corpus.txt holds no text", "not empty"]),
    "short corpus": ("corpus.txt", "Too short.", ["corpus.txt holds", "fewer than seqlen 64", "Lower --seqlen"]),
    "corpus without the column": ("corpus.csv", "body\nx\n", ["no column 'text'", "body", "COLUMN"]),
    "statements without a label": ("s.csv", "text,truth\nx,1\n", ["s.csv has no column 'label'", "text, truth"]),
    "statements without text": ("s.csv", "sentence,label\nx,1\n", ["'text' nor 'statement'", "Rename"]),
    "labels of one class": ("s.csv", "text,label\nx,1\ny,1\n", ["only the label 1", "false (0)"]),
    "labels in words": ("s.csv", "text,label\nx,true\n", ["row 1: the label is 'true'", "Use 1 for true"]),
    "too few statements": ("s.csv", "text,label\nx one,1\ny two,0\n", ["side 'choose'", "Give more statements"]),
    "plan that is no JSON": ("p.json", "{", ["p.json is not JSON", "docs/methods.md"]),
    "plan of another model": ("p.json", '{"blocks": [0.5]}', ["the plan has 1 blocks, the model 3"]),
    "plan beyond one": ("p.json", '{"blocks": [0.5, 0.5, 1]}', ["blocks[2] is 1.0", "Mend the plan"]),
}


@pytest.mark.parametrize("name", BAD_TEXTS)
def test_bad_files(model, tmp_path, refused, name):
    filename, text, words = BAD_TEXTS[name]
    file = tmp_path / filename
    file.write_text(text)
    flag = {"c": "--calibration", "s": "--statements", "p": "--plan"}[filename[0]]
    refused(["prune", model, "-o", tmp_path / "out", "--method", "swl", "--seqlen", "64", flag, file], *words)


def test_a_model_with_nan(model, tmp_path, refused, small):
    weights = load_file(model / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = torch.nan
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    for method in ("magnitude", "tplo"):
        arguments = ["prune", model, "-o", tmp_path / "out", "--method", method, *small]
        refused(arguments, "model.layers.1.mlp.up_proj.weight holds NaN", "from its source")


def test_a_truncated_checkpoint(model, tmp_path, refused):
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    for command in ("prune", "scan"):
        refused([command, model, "-o", tmp_path / "out"], "model.safetensors is truncated or damaged", "again")
    refused(["audit", model, "-o", tmp_path / "out"], "model.safetensors is truncated or damaged")


def test_a_checkpoint_that_lacks_tensors(model, tmp_path, refused):
    weights = load_file(model / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    refused(["prune", model, "-o", tmp_path / "out"], "lacks 1 tensors", "model.layers.1.mlp.up_proj.weight")


def test_a_model_that_is_not_there(tmp_path, refused):
    refused(["prune", tmp_path / "gone", "-o", tmp_path / "out"], "gone", "a folder with config.json")
    (tmp_path / "empty").mkdir()
    refused(["prune", tmp_path / "empty", "-o", tmp_path / "out"], "holds no config.json", "Give the folder")


@pytest.mark.parametrize("command", ["prune", "scan", "audit"])
def test_an_output_that_exists(model, tmp_path, refused, command):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    refused([command, model, "-o", tmp_path / "out"], "out exists and is not empty", "--overwrite", out=None)
    refused([command, model, "-o", tmp_path / "out" / "mine"], "mine is a file", "another folder", out=None)


def test_a_model_is_not_its_own_output(model, tmp_path, refused):
    for out in (model, str(Path(model).parent)):
        refused(["prune", model, "-o", out, "--method", "magnitude", "--overwrite"], "is or holds the input", out=None)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--instruments", "speed"], ["unknown instrument 'speed'", "perplexity"]),
        (["--window", "300"], ["window 300", "limit of 256"]),
        (["--window", "1"], ["window 1"]),
        (["--max-tokens", "20"], ["fewer than the window 32"]),
        (["--perplexity-text", "none.txt"], ["no text file at none.txt"]),
        (["--layer", "7"], ["layer 7", "0 to 2"]),
        (["--layer", "last"], ["unknown layer 'last'", "sweep"]),
        (["--probes", "svm"], ["'svm'", "logistic"]),
        (["--protocols", "random"], ["'random'", "grouped"]),
        (["--selection", "all"], ["all", "leak-free"]),
    ],
)
def test_bad_audits(model, tmp_path, files, refused, flags, words):
    settings = ["--window", "32", "--per-dataset", "4", "--statements", files / "statements.csv"]
    settings = [value for i, value in enumerate(settings) if settings[i - i % 2] != flags[0]]
    refused(["audit", model, model, "-o", tmp_path / "out", *settings, *flags], *words)


def test_missing_arguments(tmp_path, refused):
    refused(["prune"], "model")
    refused(["prune", tmp_path / "model"], "--output")
    refused(["prun", tmp_path / "model"], "prun")


def test_bugs_are_told_from_mistakes(model, tmp_path, capsys, monkeypatch):
    def broken(*_args, **_options):
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(importlib.import_module("trueprune.jobs.prune"), "apply_plan", broken)
    arguments = ["prune", str(model), "-o", str(tmp_path / "out"), "--method", "magnitude"]
    assert run(arguments) == 70
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "unexpected RuntimeError: first line second line. TRUEPRUNE_DEBUG=1 shows where" in line
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv("TRUEPRUNE_DEBUG", "1")
    with pytest.raises(RuntimeError, match="first line"):
        run(arguments)


# A process of its own


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def test_the_installed_program(model, tmp_path, files):
    """Literal arguments are checked there as users meet them, without the runtime types of the tests."""
    out = tmp_path / "out"
    arguments = ["prune", model, "-o", out, "--method", "wanda", "--nsamples", "4", "--seqlen", "32"]
    done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, env=environment(), timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "wanda (allocation uniform" in done.stdout
    assert record_of(out)["command"] == " ".join(["trueprune", *map(str, arguments)])


def test_a_full_disk(model, tmp_path):
    before = contents(model)

    def limit():
        # As a full disk: writing beyond 20 kB fails. Python ignores the signal that comes with it.
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    arguments = ["prune", model, "-o", tmp_path / "out", "--method", "magnitude"]
    done = subprocess.run(
        [PROGRAM, *arguments], capture_output=True, text=True, env=environment(), timeout=120, preexec_fn=limit
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("trueprune: error: the disk is full while writing")
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert contents(model) == before


INTERRUPTED = """
import importlib, signal, sys, time
from trueprune.cli.main import main

# A test run in the background of a script hands on an ignored SIGINT; a person's shell does not.
signal.signal(signal.SIGINT, signal.default_int_handler)

def stop(*args, **options):
    print("working", flush=True)
    time.sleep(60)

setattr(importlib.import_module("{module}"), "{name}", stop)
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("trueprune.models.save", "_check"),
        ("trueprune.jobs.prune", "apply_plan"),
    ],
)
def test_an_interrupt_leaves_nothing(model, tmp_path, module, name):
    """Ctrl-C while the weights are edited, and when the checkpoint is written but not yet renamed."""
    before = contents(model)
    arguments = ["prune", str(model), "-o", str(tmp_path / "out"), "--method", "magnitude"]
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED.format(module=module, name=name), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "working\n"
            hidden = [path for path in tmp_path.iterdir() if path.name.startswith(".out.")]
            assert len(hidden) == (name == "_check")
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert errors == "trueprune: error: interrupted; no model or report was written\n"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert contents(model) == before
