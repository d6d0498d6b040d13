"""A sweep on Ray: the same files and table as in one process, whatever becomes of a worker."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from trueprune import PlanError
from trueprune.audits import AuditOptions
from trueprune.jobs.layer_choice import DropOptions
from trueprune.sweeps import Grid, RayOptions, sweep
from trueprune.sweeps.bench import Job
from trueprune.sweeps.keys import Keys
from trueprune.sweeps.table import TIMED
from trueprune.texts import CalibrationOptions

ON_RAY = importlib.import_module("trueprune.sweeps.on_ray")
REPORT = importlib.import_module("trueprune.sweeps.report")


@pytest.fixture(scope="module")
def cluster():
    """Ray on this machine, with two processors."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)
        yield ray
        ray.shutdown()


@pytest.fixture(autouse=True)
def _short_reports(monkeypatch):
    monkeypatch.setattr(REPORT, "render", lambda document: "")


def table(folder) -> pd.DataFrame:
    return pd.read_parquet(Path(folder) / "sweep.parquet").drop(columns=list(TIMED))


def kill_a_worker(out: Path, killed: list[int], until: threading.Event) -> None:
    """Kill the first process that works on a cell."""
    while not killed and not until.is_set():
        for file in (out / "running").glob("*.json"):
            if file.name.startswith("dense-"):
                continue
            try:
                process = json.loads(file.read_text())["process"]
            except (OSError, ValueError):
                continue
            assert process != os.getpid()
            os.kill(process, signal.SIGKILL)
            killed.append(process)
            return
        time.sleep(0.002)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_killed_worker_changes_nothing(cluster, tiny_folder, tmp_path, monkeypatch):
    damaged = Path(shutil.copytree(tiny_folder, tmp_path / "damaged"))
    (damaged / "model.safetensors").write_bytes(b"no weights")
    grid = Grid(
        models=(str(tiny_folder), str(damaged)),
        methods=("wanda", "tplo"),
        sparsities=(0.3, 0.5),
        # This one fails: there are three blocks.
        drop=(DropOptions(what="block", count=5, by="last"),),
        instruments=("perplexity", "separation"),
        calibration=CalibrationOptions(nsamples=2, seqlen=32),
        measuring=AuditOptions(max_tokens=512, window=64, per_dataset=8, resamples=40, protocols=("grouped",)),
    )
    killed: list[int] = []
    over = threading.Event()
    watching = threading.Thread(target=kill_a_worker, args=(tmp_path / "ray", killed, over))
    watching.start()
    try:
        with pytest.warns(UserWarning, match="5 blocks are to be dropped|truncated or damaged"):
            report = sweep(grid, tmp_path / "ray", ray=True)
    finally:
        over.set()
        watching.join()
    assert len(killed) == 1
    assert cluster.is_initialized()
    with pytest.warns(UserWarning, match="5 blocks are to be dropped|truncated or damaged"):
        here = sweep(grid, tmp_path / "here")
    assert (report.exit_code, here.exit_code) == (1, 1)
    assert [cell.name for cell in report.failed] == [cell.name for cell in here.failed]
    assert len(report.failed) == 1 + 5
    assert table(tmp_path / "ray").equals(table(tmp_path / "here"))
    assert set(table(tmp_path / "ray").status) == {"complete", "failed"}
    for folder in ("cells", "dense"):
        mine, theirs = ((tmp_path / name / folder) for name in ("ray", "here"))
        assert sorted(path.name for path in mine.glob("*/*")) == sorted(path.name for path in theirs.glob("*/*"))
        for file in mine.glob("*/measurements.parquet"):
            assert file.read_bytes() == (theirs / file.parent.name / file.name).read_bytes()
    assert not list((tmp_path / "ray" / "running").iterdir())
    # Nothing is left but what failed: no cell is sent anywhere.
    whole = replace(grid, models=(str(tiny_folder),), drop=())
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "ray" / "cells").glob("*/*")}
    monkeypatch.setattr(ON_RAY, "_connected", None)
    assert sweep(whole, tmp_path / "ray", ray=True).exit_code == 0
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_a_cell_whose_workers_keep_dying_is_recorded(cluster, tiny_folder, tmp_path):
    grid = Grid(
        models=(str(tiny_folder),),
        methods=("magnitude",),
        instruments=("perplexity",),
        measuring=AuditOptions(max_tokens=16384, window=16, resamples=40),
        ray=RayOptions(retries=0),
    )
    killed: list[int] = []
    over = threading.Event()
    watching = threading.Thread(target=kill_a_worker, args=(tmp_path / "out", killed, over))
    watching.start()
    try:
        with pytest.warns(UserWarning, match="WorkerCrashedError"):
            report = sweep(grid, tmp_path / "out", ray=True)
    finally:
        over.set()
        watching.join()
    assert killed
    assert [cell.status for cell in report.models[0].cells] == ["failed"]
    (file,) = (tmp_path / "out" / "failed").iterdir()
    assert json.loads(file.read_text())["error"] == "WorkerCrashedError"


def test_cells_are_not_asked_more_than_a_machine_has(cluster, tiny_folder, tmp_path):
    grid = Grid(models=(str(tiny_folder),), methods=("magnitude",), ray=RayOptions(cpus=99.0))
    job = Job(grid, Keys(grid, (), {}), tmp_path, tmp_path)
    with pytest.raises(PlanError, match=r"99 CPUs and 0 GPUs a cell, and no machine of the cluster has them"):
        ON_RAY._check_room(cluster, job, ours=True)
    with pytest.warns(UserWarning, match="cells wait until one joins"):
        ON_RAY._check_room(cluster, job, ours=False)


def test_a_cluster_that_is_not_there_is_named(monkeypatch, cluster):
    class Nowhere:
        @staticmethod
        def init(**_options):
            raise ConnectionError("Could not find any running Ray instance")

    with pytest.raises(PlanError, match=r"--ray auto: no Ray cluster was found \(Could not find .* use --ray local"):
        ON_RAY._join(Nowhere, "auto")
