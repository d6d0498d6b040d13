"""A sweep: every cell made once, whole or not at all; what is found, what fails, and what is recommended."""

from __future__ import annotations

import importlib
import json
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import duckdb
import pandas as pd
import pytest
from zoo import tiny_model

from trueprune import AuditError, OutputError, PlanError
from trueprune.audits import AuditOptions, EfficiencyOptions
from trueprune.audits.confidence import null_error
from trueprune.cli.main import run
from trueprune.jobs.audit import audit
from trueprune.jobs.layer_choice import DropOptions
from trueprune.reports.gates.contract import Check, Gate
from trueprune.sweeps import Grid, sweep
from trueprune.sweeps.claims import claim, presence
from trueprune.sweeps.recommend import beyond
from trueprune.sweeps.report import read_summary
from trueprune.sweeps.sources import fingerprint
from trueprune.sweeps.table import TIMED
from trueprune.texts import CalibrationOptions
from trueprune.texts.tasks import TaskOptions

BENCH = importlib.import_module("trueprune.sweeps.bench")
WORK = importlib.import_module("trueprune.sweeps.work")
REPORT = importlib.import_module("trueprune.sweeps.report")
CONFIDENCE = importlib.import_module("trueprune.audits.calibration")
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*the AUROC of confidence is undefined:UserWarning"),
    pytest.mark.filterwarnings("ignore:calibration of .* items:UserWarning"),
    pytest.mark.filterwarnings("ignore:the best temperature lies at:UserWarning"),
]
CALIBRATION = CalibrationOptions(nsamples=2, seqlen=32)
MEASURING = AuditOptions(
    max_tokens=256, window=64, per_dataset=8, resamples=40, probes=("logistic",), protocols=("grouped",), repeats=1
)


def small(model, **options) -> Grid:
    """A grid whose cells take a moment."""
    given = {"methods": ("magnitude", "wanda"), "sparsities": (0.25, 0.5), "instruments": ("perplexity",)}
    given |= {"calibration": CALIBRATION, "measuring": MEASURING, **options}
    return Grid(models=(str(model),), **given)


def table(folder) -> pd.DataFrame:
    """The table, without what differs between two runs of the same."""
    return pd.read_parquet(Path(folder) / "sweep.parquet").drop(columns=list(TIMED))


def contents(folder):
    """Bytes and times of all files of the cells."""
    files = sorted(file for file in Path(folder).rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


@pytest.fixture(autouse=True)
def _short_reports(request, monkeypatch):
    """Pages are slow under the type checks of tests; those who look at one ask for it."""
    monkeypatch.setattr(CONFIDENCE, "null_error", partial(null_error, draws=20))
    if "real_report" not in request.fixturenames:
        monkeypatch.setattr(REPORT, "render", lambda document: "")


@pytest.fixture
def real_report():
    """Comparison reports are written as they are."""


@contextmanager
def counted(monkeypatch, module, name):
    """How often a function of a module is called."""
    calls, made = [], getattr(module, name)

    def counting(*arguments, **options):
        calls.append(arguments)
        return made(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, counting)
        yield calls


@pytest.fixture(scope="module")
def model(tiny_folder, tmp_path_factory):
    """A model of its own folder, which tests of this module share. Read only."""
    return shutil.copytree(tiny_folder, tmp_path_factory.mktemp("sweep") / "tiny")


@pytest.fixture(scope="module")
def rich(model):
    """A grid with everything in it, but for what is slow."""
    return small(
        model,
        methods=("magnitude", "tplo"),
        patterns=("unstructured", "2:4"),
        sparsities=(0.25,),
        repairs=("none", "temperature"),
        seeds=(0, 1),
        drop=(DropOptions(what="block", count=1, by="last"),),
        instruments=("perplexity", "lie-detection", "separation", "accuracy"),
        answering=TaskOptions(items=12),
    )


@pytest.fixture(scope="module")
def finished(rich, tmp_path_factory):
    """A finished sweep. Read only."""
    out = tmp_path_factory.mktemp("finished") / "runs"
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setattr(CONFIDENCE, "null_error", partial(null_error, draws=20))
        return out, sweep(rich, out)


# What is found


def test_every_cell_has_its_rows_and_files(finished, rich):
    out, report = finished
    assert (report.exit_code, report.failed, report.passed) == (0, [], None)
    found = table(out)
    assert len(found.cell.dropna().unique()) == 14 == len(list((out / "cells").iterdir()))
    assert set(found.status) == {"complete"}
    assert set(found[found.method == "dense"].change.isna()) == {True}
    cells = found[found.method != "dense"]
    assert not cells[cells.headline].change.isna().any()
    assert set(cells.repair) == {"none", "temperature"}
    assert cells[cells.method == "tplo"].groupby("cell").seed.first().value_counts().to_dict() == {0: 4, 1: 4}
    for cell in (out / "cells").iterdir():
        assert sorted(file.name for file in cell.iterdir()) == ["cell.json", "measurements.parquet"]
        data = json.loads((cell / "cell.json").read_text())
        assert data["cell"] == cell.name
        assert data["seconds"]["total"] >= data["seconds"]["make"] > 0
        assert "fitted_on" not in json.dumps(data["record"])
        mine = found[found.cell == cell.name]
        assert set(mine.measured_sparsity) == {data["about"]["measured_sparsity"]}
    assert list(out.glob(".*")) == [out / ".lock"]
    assert not list((out / "running").iterdir())
    assert not list((out / "failed").iterdir())


def test_cells_are_what_an_audit_of_the_same_models_says(finished, model, tmp_path):
    out, report = finished
    wanted = next(cell for cell in report.models[0].cells if cell.name == "tplo 0.25 + temperature (seed 1)")
    flags = ["--nsamples", "2", "--seqlen", "32", "--seed", "1", "--sparsity", "0.25"]
    assert run(["prune", str(model), "-o", str(tmp_path / "pruned"), "--method", "tplo", *flags]) == 0
    repair = ["repair", str(tmp_path / "pruned"), "-o", str(tmp_path / "calm"), "--with", "temperature"]
    assert run([*repair, "--tasks", "facts", "--items", "12"]) == 0
    audited = audit(
        model,
        [tmp_path / "calm"],
        instruments=("perplexity", "lie-detection", "separation", "accuracy"),
        measuring=MEASURING,
        answering=TaskOptions(items=12),
    )
    found = table(out)
    mine = found[found.cell == wanted.cell].set_index("metric")
    rows = [row for row in audited.rows if row.model == "calm"]
    assert len(rows) == len(mine)
    assert wanted.data["about"]["sha256"] == audited.models[1].about["sha256"]
    for row in rows:
        assert (mine.value[row.metric], mine.low[row.metric]) == (row.estimate.value, row.estimate.interval[0])
        assert mine.change[row.metric] == row.change.value


def test_what_is_removed_counts_zeros_and_layers(finished):
    out, _ = finished
    found = table(out).drop_duplicates("cell").set_index("name")
    assert found.removed["tiny"] == 0
    assert found.removed["magnitude 2:4"] == found.measured_sparsity["magnitude 2:4"] == 0.5
    dropped = found.loc["drop block 1 by last"]
    assert dropped.measured_sparsity == 0
    assert dropped.removed == pytest.approx(1 / 3)
    assert dropped.parameters < found.parameters["tiny"]


def test_plans_name_the_weights_that_they_were_made_for(finished, model, tmp_path):
    _, report = finished
    cell = next(cell for cell in report.models[0].cells if cell.name == "tplo 0.25 (seed 0)")
    plan = cell.data["plan"]
    assert (plan["method"], len(plan["blocks"])) == ("tplo", 3)
    assert plan["evidence"]["statements"] == "embedded"
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    flags = ["--plan", str(tmp_path / "plan.json"), "--method", "tplo", "--nsamples", "2", "--seqlen", "32"]
    assert run(["prune", str(model), "-o", str(tmp_path / "again"), *flags]) == 0
    tiny_model("llama", seed=9).save_pretrained(tmp_path / "other")
    assert run(["prune", str(tmp_path / "other"), "-o", str(tmp_path / "no"), *flags]) == 2


def test_the_table_is_queried_by_duckdb_and_pandas(finished):
    out, _ = finished
    file = out / "sweep.parquet"
    best = duckdb.sql(
        f"select name, value from '{file}' where metric = 'perplexity' and method <> 'dense' order by value limit 3"
    ).fetchall()
    frame = pd.read_parquet(file).query("metric == 'perplexity' and method != 'dense'").sort_values("value")
    assert [value for _, value in best] == frame.value.head(3).tolist()
    means = duckdb.sql(
        f"select method, sparsity, avg(change) from '{file}' where headline and seed is not null group by all"
    ).fetchall()
    assert {method for method, *_ in means} == {"magnitude", "tplo", "drop block 1 by last"}


def test_fronts_hold_the_dense_model_and_means_over_seeds(finished):
    out, report = finished
    fronts = read_summary(out)["fronts"]["tiny"]
    (front,) = [one for one in fronts if (one["x"], one["y"]) == ("removed", "perplexity")]
    points = {point["name"]: point for point in front["points"]}
    assert not front["higher_is_better"]
    assert "tplo 0.25" in points
    assert "tplo 0.25 (seed 0)" not in points
    both = table(out).query("metric == 'perplexity' and name in ['tplo 0.25 (seed 0)', 'tplo 0.25 (seed 1)']")
    assert points["tplo 0.25"]["y"] == pytest.approx(both.value.mean())
    for name, point in points.items():
        better = [
            other
            for other in points.values()
            if (other["x"] >= point["x"] and other["y"] <= point["y"])
            and (other["x"], other["y"]) != (point["x"], point["y"])
        ]
        assert point["front"] == (not better), name
    assert {one["y"] for one in fronts} == {row.metric for row in report.report().rows if row.headline}


def test_the_comparison_report_is_written(finished):
    out, report = finished
    document = json.loads((out / "report.json").read_text())
    assert [model["name"] for model in document["models"]] == [model.name for model in report.report().models]
    page = (out / "report.html").read_text()
    assert "drop block 1 by last" in page


def test_speed_is_measured_beside_a_dense_model_that_stays_dense(model, tmp_path):
    timing = EfficiencyOptions(prompt_tokens=32, decode_tokens=2, timing_rounds=2)
    grid = small(model, methods=("magnitude",), instruments=("perplexity", "efficiency"), timing=timing)
    report = sweep(grid, tmp_path / "out")
    found = table(tmp_path / "out")
    assert set(found.metric) >= {"prefill-speedup", "perplexity"}
    assert {front["x"] for front in report.fronts["tiny"]} == {"removed", "prefill-speedup", "decode-speedup"}
    cells = read_summary(tmp_path / "out")["cells"]
    assert all("no engine here runs faster" in cell["usable_by"] for cell in cells)
    dense = found[(found.method == "dense") & (found.metric == "nonzero-parameters")].value.item()
    assert set(found[(found.method != "dense") & (found.metric == "nonzero-parameters")].value < dense) == {True}


# What is not made again


def test_a_finished_sweep_loads_no_model_and_gives_the_same_table(finished, rich, monkeypatch, tmp_path, real_report):
    out, _ = finished
    copied = Path(shutil.copytree(out, tmp_path / "out"))
    before = contents(copied / "cells") | contents(copied / "dense")
    with counted(monkeypatch, BENCH, "as_loaded") as loaded, counted(monkeypatch, WORK, "make") as made:
        report = sweep(rich, copied)
    assert (loaded, made) == ([], [])
    assert contents(copied / "cells") | contents(copied / "dense") == before
    assert table(copied).equals(table(out))
    assert (copied / "report.json").read_bytes() == (out / "report.json").read_bytes()
    assert report.rows == finished[1].rows


def test_the_dense_model_is_loaded_measured_and_observed_once(model, monkeypatch, tmp_path):
    grid = small(model, methods=("tplo", "swl"), sparsities=(0.5,), seeds=(0, 1))
    with (
        counted(monkeypatch, BENCH, "as_loaded") as loaded,
        counted(monkeypatch, BENCH, "measure_model") as measured,
        counted(monkeypatch, BENCH, "gather_evidence") as observed,
    ):
        sweep(grid, tmp_path / "out")
        assert [len(calls) for calls in (loaded, measured)] == [1, 1]
        # Outliers on the texts of each seed, the separation once.
        assert sorted(need for _, _, (need,), *_ in observed) == ["outliers", "outliers", "separation"]
        # More of the same grid: only the new cells are made, and of the dense model nothing is observed again.
        sweep(replace(grid, sparsities=(0.5, 0.6)), tmp_path / "out")
        assert [len(calls) for calls in (loaded, measured, observed)] == [2, 1, 3]
    assert len(list((tmp_path / "out" / "cells").iterdir())) == 2 * 2 * 2


def test_a_grid_that_grows_makes_only_what_is_new(model, monkeypatch, tmp_path):
    sweep(small(model), tmp_path / "out")
    before = contents(tmp_path / "out" / "cells")
    with counted(monkeypatch, WORK, "make") as made:
        sweep(small(model, sparsities=(0.5, 0.75)), tmp_path / "out")
    assert [config.sparsity for _, config, _ in made] == [0.75, 0.75]
    after = contents(tmp_path / "out" / "cells")
    assert {name: after[name] for name in before} == before
    # The table is of this grid: what another one left behind is kept and not listed.
    assert set(table(tmp_path / "out").sparsity.dropna()) == {0.5, 0.75}


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"measuring": replace(MEASURING, max_tokens=128)}, {"magnitude", "wanda"}),
        ({"measuring": replace(MEASURING, cache=False)}, set()),
        ({"calibration": replace(CALIBRATION, nsamples=3)}, {"wanda"}),
        ({"seeds": (5,)}, {"wanda"}),
        ({"answering": TaskOptions(items=3)}, set()),
        ({"instruments": ("perplexity", "separation")}, {"magnitude", "wanda"}),
        ({"batch_tokens": 64}, {"magnitude", "wanda"}),
    ],
)
def test_an_option_makes_again_what_looks_at_it(model, monkeypatch, tmp_path, change, again):
    sweep(small(model, sparsities=(0.5,)), tmp_path / "out")
    with counted(monkeypatch, WORK, "make") as made:
        sweep(small(model, sparsities=(0.5,), **change), tmp_path / "out")
    assert {config.method for _, config, _ in made} == again


def test_a_checkpoint_that_changed_is_noticed_and_one_that_moved_is_not(tiny_folder, tokenizer, monkeypatch, tmp_path):
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "tiny"))
    looks = fingerprint(str(folder))
    sweep(small(folder, sparsities=(0.5,)), tmp_path / "out")
    first = table(tmp_path / "out")
    # As large, with the same names.
    tiny_model("llama", seed=5).save_pretrained(folder)
    assert fingerprint(str(folder)) != looks
    sweep(small(folder, sparsities=(0.5,)), tmp_path / "out")
    assert not set(table(tmp_path / "out").cell.dropna()) & set(first.cell.dropna())
    shutil.copytree(tiny_folder, tmp_path / "elsewhere" / "tiny")
    with counted(monkeypatch, WORK, "make") as made:
        sweep(small(tmp_path / "elsewhere" / "tiny", sparsities=(0.5,)), tmp_path / "out")
    assert made == []
    assert table(tmp_path / "out").cell.tolist() == first.cell.tolist()


def test_files_that_a_grid_names_are_read_for_what_is_in_them(model, monkeypatch, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("One river rises in spring. " * 40)
    grid = small(model, sparsities=(0.5,), measuring=replace(MEASURING, text=str(text)))
    sweep(grid, tmp_path / "out")
    with counted(monkeypatch, WORK, "make") as made:
        text.touch()
        sweep(grid, tmp_path / "out")
        assert made == []
        text.write_text("Another river falls in autumn. " * 40)
        sweep(grid, tmp_path / "out")
        assert len(made) == 2


def test_explanations_of_the_dense_model_are_kept(model, monkeypatch, tmp_path):
    context = importlib.import_module("trueprune.audits.context")
    explaining = importlib.import_module("trueprune.audits.faithfulness.explain").ExplanationOptions(
        attributions=("leave-one-out",), explained=2, naopc_words=0
    )
    grid = small(model, sparsities=(0.5,), instruments=("faithfulness",), explaining=explaining)
    grid = replace(grid, answering=TaskOptions(items=2))
    with counted(monkeypatch, context, "explain") as explained:
        sweep(grid, tmp_path / "out")
        assert len(explained) == 3
        sweep(replace(grid, methods=("wanda", "magnitude", "sparsegpt")), tmp_path / "out")
        # One more cell, and the dense model from its file.
        assert len(explained) == 4
    sweep(replace(grid, methods=("wanda", "magnitude", "sparsegpt")), tmp_path / "fresh")
    assert table(tmp_path / "out").equals(table(tmp_path / "fresh"))


# What goes wrong


def test_a_cell_that_fails_is_recorded_and_tried_again(model, monkeypatch, tmp_path):
    out, made = tmp_path / "out", WORK.make

    def failing(bench, config, known):
        if config.method == "wanda" and config.sparsity == 0.5:
            raise RuntimeError("a bug in\nthe middle")
        return made(bench, config, known)

    monkeypatch.setattr(WORK, "make", failing)
    with pytest.warns(UserWarning, match=r"wanda 0.5: RuntimeError: a bug in the middle"):
        report = sweep(small(model), out)
    assert (report.exit_code, len(report.failed)) == (1, 1)
    (file,) = (out / "failed").iterdir()
    said = json.loads(file.read_text())
    assert (said["error"], said["message"]) == ("RuntimeError", "a bug in the middle")
    assert "in failing" in said["traceback"]
    assert said["what"]["method"] == "wanda"
    rows = table(out)
    failed = rows[rows.status == "failed"]
    assert (failed.error.item(), failed.name.item()) == ("RuntimeError: a bug in the middle", "wanda 0.5")
    assert failed.metric.isna().all()
    assert len(rows[rows.status == "complete"]) == 4
    before = contents(out / "cells")
    monkeypatch.setattr(WORK, "make", made)
    report = sweep(small(model), out)
    assert (report.exit_code, list((out / "failed").iterdir())) == (0, [])
    after = contents(out / "cells")
    assert len(after) == len(before) + 2
    assert {name: after[name] for name in before} == before


def test_a_cell_that_cannot_be_says_so_in_one_line(model, tmp_path):
    # The tiny model has three blocks, which only its configuration says.
    grid = small(model, methods=("magnitude",), drop=(DropOptions(what="block", count=7, by="last"),))
    with pytest.warns(UserWarning, match="7 blocks are to be dropped"):
        report = sweep(grid, tmp_path / "out")
    (failed,) = report.failed
    assert failed.error.startswith("7 blocks are to be dropped, and the model has 3. Drop at most 2")


def test_a_model_that_cannot_be_loaded_spoils_no_other(model, tmp_path, tiny_folder):
    damaged = Path(shutil.copytree(tiny_folder, tmp_path / "damaged"))
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    grid = replace(small(model, methods=("magnitude",), sparsities=(0.5,)), models=(str(damaged), str(model)))
    with pytest.warns(UserWarning, match="truncated or damaged"):
        report = sweep(grid, tmp_path / "out")
    assert report.exit_code == 1
    rows = table(tmp_path / "out")
    assert rows[rows.model == "damaged"].status.tolist() == ["failed"]
    assert set(rows[rows.model == "tiny"].status) == {"complete"}
    assert (tmp_path / "out" / "report-tiny.html").is_file()
    assert not (tmp_path / "out" / "report-damaged.html").exists()


def test_models_with_hostile_names_stay_in_their_place(tiny_folder, tmp_path, monkeypatch, real_report):
    (tmp_path / "work").mkdir()
    (tmp_path / "up").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    hostile = "<script>alert(1)</script>".replace("/", "\N{FRACTION SLASH}")
    shutil.copytree(tiny_folder, tmp_path / "work" / hostile)
    shutil.copytree(tiny_folder, tmp_path / "up" / "[bold]x")
    grid = replace(
        small("x", methods=("magnitude",), sparsities=(0.5,)), models=(hostile, "../up/[bold]x", "../up/../up/[bold]x")
    )
    report = sweep(grid, "out")
    assert report.exit_code == 0
    assert [model.name for model in report.models] == [hostile, "[bold]x", "[bold]x (2)"]
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == sorted([hostile, "out"])
    pages = sorted(path.name for path in Path("out").glob("report*.html"))
    assert pages == ["report-bold-x-2.html", "report-bold-x.html", "report-script-alert-1-script.html"]
    for page in pages:
        assert "<script>alert" not in (Path("out") / page).read_text()


def test_an_output_that_holds_something_else_is_refused(model, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("")
    with pytest.raises(OutputError, match="is no folder of a sweep"):
        sweep(small(model), tmp_path / "out")
    with pytest.raises(OutputError, match="is or holds the input"):
        sweep(small(model), Path(model).parent / "tiny" / "..")
    with pytest.raises(OutputError, match="lies in the model"):
        sweep(small(model), Path(model) / "runs")
    assert not (Path(model) / "runs").exists()
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["mine.txt"]


def test_a_mistake_is_found_before_a_model_is_loaded(model, monkeypatch, tmp_path):
    with counted(monkeypatch, BENCH, "as_loaded") as loaded, pytest.raises(PlanError, match="unknown method 'wandaa'"):
        sweep(small(model, methods=("wandaa",)), tmp_path / "out")
    assert loaded == []
    assert not (tmp_path / "out").exists()


# Cut off, and side by side

SCRIPT = """
import sys, torch
torch.set_num_threads(1)
from trueprune.sweeps import sweep
sweep(*sys.argv[1:])
"""


def test_a_sweep_that_was_killed_loses_the_running_cell_alone(model, tmp_path):
    grid = tmp_path / "grid.toml"
    grid.write_text(
        textwrap.dedent(f"""
        models = ['{model}']
        methods = ["magnitude", "wanda", "sparsegpt"]
        sparsities = [0.1, 0.2, 0.3, 0.4]
        instruments = ["perplexity"]
        [calibration]
        nsamples = 2
        seqlen = 32
        [measuring]
        resamples = 40
        window = 64
        max_tokens = 1024
        """)
    )
    out, cells = tmp_path / "out", tmp_path / "out" / "cells"
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", SCRIPT, str(grid), str(out)])
    try:
        while not list(cells.glob("[!.]*")) and process.poll() is None:
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = contents(cells)
    complete = {name.split("/")[0] for name in before if not name.startswith(".")}
    assert 1 <= len(complete) < 12
    # What a kill in the middle of writing leaves.
    (cells / ".abc.xyz.partial").mkdir()
    (cells / ".abc.xyz.partial" / "cell.json").write_text("{")
    (out / "running" / "abc.json").write_text("{}")
    assert not (out / "sweep.parquet").exists()
    sweep(grid, out)
    after = contents(cells)
    assert {name: found for name, found in before.items() if not name.startswith(".")}.items() <= after.items()
    assert len(after) == 2 * 12
    assert not list((out / "running").iterdir())
    sweep(grid, tmp_path / "whole")
    assert table(out).equals(table(tmp_path / "whole"))


def test_an_interrupt_leaves_complete_cells(model, monkeypatch, tmp_path):
    made = WORK.make

    def interrupted(bench, config, known):
        if config.method == "wanda":
            raise KeyboardInterrupt
        return made(bench, config, known)

    monkeypatch.setattr(WORK, "make", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep(small(model), tmp_path / "out")
    assert len(list((tmp_path / "out" / "cells").glob("[!.]*"))) == 2
    assert not list((tmp_path / "out" / "failed").iterdir())
    assert not list((tmp_path / "out" / "running").iterdir())


def test_two_sweeps_in_one_folder_share_out_the_cells(model, monkeypatch, tmp_path):
    grid, out = small(model, sparsities=(0.2, 0.4, 0.6)), tmp_path / "out"
    sweep(replace(grid, sparsities=(0.1,)), out)
    names, cell_name = [], WORK.name_of
    monkeypatch.setattr(WORK, "name_of", lambda determined: names.append(cell_name(determined)) or names[-1])
    sweep(replace(grid, sparsities=(0.1, 0.2)), out)
    names.clear()
    # Another one works on a cell, and is done after a while.
    other = tmp_path / "other"
    sweep(grid, other)
    taken = next(name for name in names if not (out / "cells" / name).exists())
    entered, leave = threading.Event(), threading.Event()

    def work():
        # It is known to be there, so that its claim is not cleaned away.
        with presence(out / ".lock", lambda: None), claim(out / "running" / f"{taken}.json") as mine:
            assert mine
            entered.set()
            leave.wait(60)
            shutil.copytree(other / "cells" / taken, out / "cells" / taken)

    thread = threading.Thread(target=work)
    thread.start()
    entered.wait(60)
    with counted(monkeypatch, WORK, "make") as made:
        threading.Timer(0.5, leave.set).start()
        report = sweep(grid, out)
    thread.join()
    made_here = {config.label for _, config, _ in made}
    assert len(made_here) == 3
    assert report.exit_code == 0
    assert table(out).equals(table(other))


def test_what_another_sweep_was_first_to_write_stays(model, monkeypatch, tmp_path):
    grid, out, made = small(model, methods=("magnitude",), sparsities=(0.5,)), tmp_path / "out", WORK.make
    sweep(grid, tmp_path / "first")
    (cell,) = (tmp_path / "first" / "cells").iterdir()

    def overtaken(bench, config, known):
        shutil.copytree(cell, out / "cells" / cell.name)
        return made(bench, config, known)

    monkeypatch.setattr(WORK, "make", overtaken)
    before = contents(cell)
    assert sweep(grid, out).exit_code == 0
    assert {name: data for name, (data, _) in contents(out / "cells" / cell.name).items()} == {
        name: data for name, (data, _) in before.items()
    }


# Under a gate


def gate(*checks):
    return Gate("mine", checks, "fail")


def bound(**limits):
    return Check("perplexity", "perplexity", "value", **limits)


def test_the_sparsest_that_passes_is_recommended_and_its_command_makes_it(model, tmp_path, monkeypatch):
    grid = small(
        model, methods=("magnitude", "wanda"), sparsities=(0.25, 0.5), seeds=(0, 1), repairs=("none", "temperature")
    )
    grid = replace(grid, answering=TaskOptions(items=12))
    report = sweep(replace(grid, gate=gate(bound(at_most=1e9))), tmp_path / "out")
    assert (report.passed, report.exit_code) == (True, 0)
    found = read_summary(tmp_path / "out")["recommended"]["tiny"]
    # All are kept: of the sparsest one without a repair, and of these the one with the widest margin.
    half = table(tmp_path / "out").query("metric == 'perplexity' and sparsity == 0.5 and repair == 'none'")
    best = half.groupby("method").value.max().idxmin()
    assert (found["passed"], found["name"]) == (True, f"{best} 0.5")
    assert found["seeds"] == ([0] if best == "magnitude" else [0, 1])
    assert json.loads((tmp_path / "out" / "recommended-plan.json").read_text()) == found["plan"]
    values = table(tmp_path / "out").query("metric == 'perplexity' and method == 'wanda' and repair == 'temperature'")
    assert set(values.passed) == {True}
    # Only what a temperature brought down keeps this one, so it takes two commands.
    plain = table(tmp_path / "out").query("metric == 'perplexity' and repair == 'none'").low.min()
    only = table(tmp_path / "out").query("metric == 'perplexity' and repair == 'temperature'").high.max()
    assert only < plain
    report = sweep(replace(grid, gate=gate(bound(at_most=(only + plain) / 2))), tmp_path / "out")
    found = report.recommended["tiny"]
    assert found["name"].endswith("0.5 + temperature")
    assert len(found["commands"]) == 2
    monkeypatch.chdir(tmp_path)
    for command in found["commands"]:
        assert run(shlex.split(command)[1:]) == 0
    again = audit(
        model, [tmp_path / shlex.split(found["commands"][1])[4]], instruments=("perplexity",), measuring=MEASURING
    )
    data = json.loads((tmp_path / "out" / "cells" / found["cells"][0] / "cell.json").read_text())
    assert again.models[1].about["sha256"] == data["about"]["sha256"]


def test_a_configuration_passes_only_with_all_its_seeds(model, tmp_path):
    grid = small(model, methods=("wanda",), sparsities=(0.5,), seeds=(0, 1, 2))
    sweep(grid, tmp_path / "out")
    found = table(tmp_path / "out").query("metric == 'perplexity' and method != 'dense'").set_index("name")
    ours = found.high[["wanda 0.5 (seed 0)", "wanda 0.5 (seed 1)", "wanda 0.5 (seed 2)"]].sort_values()
    report = sweep(replace(grid, gate=gate(bound(at_most=float(ours.iloc[:2].mean())))), tmp_path / "out")
    passed = {cell.name: cell.passed for cell in report.models[0].cells}
    assert sorted(passed[name] for name in ours.index) == [False, False, True]
    assert (report.passed, report.recommended["tiny"]["name"]) == (False, "wanda 0.5")
    assert {broken["seed"] for broken in report.recommended["tiny"]["broken"]} == {
        cell.config.seed for cell in report.models[0].cells if not cell.passed
    }


def test_where_none_passes_the_nearest_is_named_with_what_it_broke(model, tmp_path, capsys):
    (tmp_path / "gate.toml").write_text(
        textwrap.dedent("""
        [[check]]
        instrument = "perplexity"
        metric = "perplexity"
        ratio_at_most = 0.01
        reason = "nothing is that good"
        [[check]]
        instrument = "perplexity"
        metric = "perplexity"
        value_at_least = 2
        reason = "everything is"
        """)
    )
    grid = small(model, methods=("magnitude",), gate=str(tmp_path / "gate.toml"))
    report = sweep(grid, tmp_path / "out")
    assert (report.passed, report.exit_code) == (False, 1)
    found = report.recommended["tiny"]
    assert not found["passed"]
    ratios = {cell.name: cell for cell in report.models[0].cells}
    assert found["name"] in ratios
    (broken,) = found["broken"]
    assert (broken["metric"], broken["quantity"], broken["at_most"]) == ("perplexity", "ratio", 0.01)
    values = table(tmp_path / "out").query("metric == 'perplexity' and method != 'dense'").set_index("name").value
    assert found["name"] == values.idxmin()
    assert not (tmp_path / "out" / "recommended-plan.json").exists()
    assert report.report().verdict is not None


def test_a_gate_that_cannot_be_held_loses_no_cell(model, tmp_path):
    asked = replace(small(model, methods=("magnitude",)), instruments=("accuracy",), answering=TaskOptions(items=4))
    named = Check("accuracy", "accuracy/fac?s", "value", at_least=0.0)
    with pytest.raises((AuditError, PlanError)):
        sweep(replace(asked, gate=gate(named)), tmp_path / "out")


def test_how_far_a_bound_is_missed_is_in_parts_of_it():
    from trueprune.reports.gates.contract import Outcome

    def outcome(value, **limits):
        return Outcome("m", "x", Check("i", "x", "value", **limits), "fail", False, value, (value, value), 9)

    assert beyond(outcome(1.5, at_most=1.0)) == pytest.approx(0.5)
    assert beyond(outcome(-0.06, at_least=-0.02)) == pytest.approx(2.0)
    assert beyond(outcome(0.3, at_least=0.0, at_most=0.2)) == pytest.approx(0.5)
    assert beyond(outcome(0.1, at_most=0.2)) == pytest.approx(-0.5)
    assert beyond(outcome(0.1, at_least=0.0)) == pytest.approx(-0.1)
    assert beyond(outcome(float("nan"), at_most=0.2)) == float("inf")


def test_the_time_around_a_cell_is_little(model, tmp_path):
    grid = small(model, methods=("magnitude",), sparsities=tuple(i / 20 for i in range(16)))
    started = time.perf_counter()
    report = sweep(grid, tmp_path / "out")
    took = time.perf_counter() - started
    work = sum(cell.data["seconds"]["total"] for cell in report.models[0].cells)
    assert len(report.models[0].cells) == 16
    print(f"{(took - work) / 16:.3f} s around a cell")
    # A bound for a machine that is busy with other things; docs/sweeps.md has the number.
    assert (took - work) / 16 < 1.0
