"""A sweep at its edges: evidence that cannot be had, file systems without locks, files of others, odd texts."""

from __future__ import annotations

import errno
import fcntl
import importlib
import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from test_sweep import WORK, counted, small, table

from trueprune.jobs.common import LoadOptions, as_loaded
from trueprune.sweeps import expand, sweep
from trueprune.sweeps.claims import claim, presence
from trueprune.sweeps.commands import commands, safe
from trueprune.sweeps.keys import identity_of
from trueprune.sweeps.sources import inputs_of

BENCH = importlib.import_module("trueprune.sweeps.bench")
REPORT = importlib.import_module("trueprune.sweeps.report")


@pytest.fixture(autouse=True)
def _no_pages(monkeypatch):
    monkeypatch.setattr(REPORT, "render", lambda document: "")


def test_evidence_that_cannot_be_had_fails_its_own_cells_alone(tiny_folder, monkeypatch, tmp_path):
    def refused(*arguments, **options):
        raise RuntimeError("no such thing was seen")

    monkeypatch.setattr(BENCH, "gather_evidence", refused)
    grid = small(tiny_folder, methods=("magnitude", "owl"), sparsities=(0.5,))
    with pytest.warns(UserWarning, match=r"owl 0.5: RuntimeError: no such thing was seen"):
        report = sweep(grid, tmp_path / "out")
    assert [cell.name for cell in report.failed] == ["owl 0.5"]
    rows = table(tmp_path / "out")
    assert rows[rows.name == "magnitude 0.5"].status.tolist() == ["complete"]


def test_where_there_are_no_locks_nothing_of_others_is_removed(monkeypatch, tmp_path):
    def none(*_):
        raise OSError(errno.ENOSYS, "no locks here")

    monkeypatch.setattr(fcntl, "flock", none)
    cleaned = []
    with presence(tmp_path / ".lock", lambda: cleaned.append(1)), claim(tmp_path / "cell") as mine:
        assert (mine, cleaned) == (True, [])


def test_a_failure_is_forgotten_when_its_model_is_back(tiny_folder, tmp_path):
    model, out = Path(shutil.copytree(tiny_folder, tmp_path / "model")), tmp_path / "out"
    grid = small(model, methods=("magnitude",), sparsities=(0.5,))
    assert sweep(grid, out).exit_code == 0
    weights = model / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.warns(UserWarning, match="truncated or damaged"):
        assert sweep(grid, out).exit_code == 1
    assert len(list((out / "failed").iterdir())) == 1
    weights.write_bytes(whole)
    assert sweep(grid, out).exit_code == 0
    assert list((out / "failed").iterdir()) == []


def test_reports_of_others_stay_and_those_of_an_earlier_run_go(tiny_folder, tmp_path):
    models = [str(shutil.copytree(tiny_folder, tmp_path / name)) for name in ("one", "two")]
    grid, out = small(models[0], methods=("magnitude",), sparsities=(0.5,)), tmp_path / "out"
    sweep(replace(grid, models=tuple(models)), out)
    (out / "report-mine.html").write_text("notes")
    assert json.loads((out / "sweep.json").read_text())["files"] == [
        f"report-{name}.{kind}" for name in ("one", "two") for kind in ("html", "json")
    ]
    sweep(grid, out)
    assert sorted(file.name for file in out.glob("report*")) == ["report-mine.html", "report.html", "report.json"]


def test_texts_that_no_file_could_be_called_are_no_files(tiny_folder, tmp_path):
    grid = small(tiny_folder, methods=("m" * 300, "a\0b"), instruments=(str(tmp_path),))
    assert list(inputs_of(grid)) == [str(tmp_path)]


def test_commands_take_no_folder_for_a_flag(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-x").mkdir()
    grid = small("-x", methods=("magnitude",), sparsities=(0.5,), repairs=("distill",))
    first, second = map(shlex.split, commands(grid, expand(grid)[0]))
    assert (first[2], first[4]) == ("./-x", "x-magnitude-0.5")
    assert second[second.index("--teacher") + 1] == "./-x"


def test_long_names_make_names_of_files(tmp_path):
    (tmp_path / f"report-{safe('m' * 255)}.html").write_text("")
    assert len(safe("m" * 255)) == 100


def test_what_ends_an_answer_and_buffers_are_part_of_a_model(tiny_folder):
    loaded = as_loaded(tiny_folder, LoadOptions())
    before, model = identity_of(loaded), cast(Any, loaded.model)
    model.generation_config.eos_token_id = 3
    ended = identity_of(loaded)
    assert {key for key in before if before[key] != ended[key]} == {"ends"}
    model.register_buffer("offset", model.lm_head.weight.new_ones(2))
    assert {key for key in ended if ended[key] != identity_of(loaded)[key]} == {"buffers"}


def test_changed_end_tokens_make_the_cells_again(tiny_folder, monkeypatch, tmp_path):
    model = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    grid = small(model, methods=("magnitude",), sparsities=(0.5,))
    sweep(grid, tmp_path / "out")
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 3]}))
    with counted(monkeypatch, WORK, "make") as made:
        sweep(grid, tmp_path / "out")
    assert len(made) == 1
