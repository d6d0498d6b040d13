"""The cells of a sweep as Ray tasks: the same work and the same files as in one process, on as many as there are.

Tasks share the output folder and the models, so all machines must see one file system. What a task returns is a name;
results lie in files.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch

from trueprune._support.errors import OutputError, PlanError
from trueprune.sweeps.bench import Job
from trueprune.sweeps.configs import Config
from trueprune.sweeps.index import is_done, look_up, remember
from trueprune.sweeps.keys import Known, name_of
from trueprune.sweeps.sources import fingerprint
from trueprune.sweeps.work import Outcome, prepare, record_failure, run_cell

# What a worker that was started elsewhere must be told.
PASSED_ON = ("TRUEPRUNE_CACHE", "TRUEPRUNE_DATA")
# Results do not travel through it.
OBJECT_STORE_BYTES = 100 << 20


@dataclass(frozen=True)
class Place:
    """What makes a worker compute as the process that started the sweep would.

    **Arguments:**

    - `threads`: of torch.
    - `environment`: variables.
    """

    threads: int
    environment: Mapping[str, str]

    def take(self, job: Job) -> None:
        """Go there."""
        os.environ.update(self.environment)
        os.chdir(job.folder)
        torch.set_num_threads(self.threads)


def prepare_task(job: Job, place: Place, source: str, configs: Sequence[Config]) -> tuple[Known | None, str]:
    """`prepare` on a worker: what names the cells, or why there can be none."""
    place.take(job)
    try:
        return prepare(job, source, configs), ""
    except OutputError:
        raise
    except Exception as error:
        lines = [record_failure(job, config, "", error) for config in configs]
        return None, lines[0]


def cell_task(job: Job, place: Place, config: Config, known: Known) -> Outcome | None:
    """`run_cell` on a worker."""
    place.take(job)
    return run_cell(job, config, known, wait=True)


def run_on_ray(
    job: Job, models: Mapping[str, Sequence[Config]], found: dict[str, Known], address: str
) -> Iterator[tuple[Config, str]]:
    """Make all cells that are not there yet, as Ray tasks.

    **Arguments:**

    - `job`, `models`, `found`: as for `run_here`.
    - `address`: `local` starts Ray here, `auto` or an address joins a cluster; empty joins one if there is one, else
        starts it here. Where this process is part of one already, that is used.

    **Returns:** each cell when it is done, and its error or nothing.

    **Raises:** `PlanError` if Ray is not installed or no cluster is found; `OutputError` when nothing can be written.
    """
    looks = {source: fingerprint(source) for source in models}
    left: dict[str, Sequence[Config]] = {}
    for source, configs in models.items():
        known = look_up(job, looks[source], configs)
        if known is not None and is_done(job, known, configs):
            found[source] = known
            yield from ((config, "") for config in configs)
        else:
            left[source] = configs
    if not left:
        return
    options = job.grid.ray
    place = Place(max(1, int(options.cpus)), {name: os.environ[name] for name in PASSED_ON if name in os.environ})
    with _connected(address) as ray:
        _check_room(ray, job, ours=address == "local")
        how = {"num_cpus": options.cpus, "num_gpus": options.gpus, "max_retries": options.retries}
        preparing, making = (ray.remote(**how)(task) for task in (prepare_task, cell_task))
        shared = ray.put(job)
        running: dict[Any, tuple[str, Config | None]] = {
            preparing.remote(shared, place, source, list(configs)): (source, None) for source, configs in left.items()
        }
        try:
            while running:
                (done,), _ = ray.wait(list(running), num_returns=1)
                source, config = running.pop(done)
                result, error = _result(ray, done)
                if config is not None:
                    yield config, _said(job, config, found[source], result, error)
                    continue
                known, said = (None, "") if error is not None else result
                if known is None:
                    for one in left[source]:
                        yield one, said if error is None else record_failure(job, one, "", error)
                    continue
                found[source] = known
                remember(job, source, looks[source], known)
                for one in left[source]:
                    running[making.remote(shared, place, one, known)] = source, one
        finally:
            for task in running:
                with suppress(Exception):
                    ray.cancel(task, force=True)


def _said(job: Job, config: Config, known: Known, result: Outcome | None, error: Exception | None) -> str:
    """The error of a cell; one whose workers kept dying could not write it down itself."""
    if error is None:
        return "" if result is None else result.error
    name = name_of(job.keys.cell(config, known))
    return "" if job.store.has(name) else record_failure(job, config, name, error)


def _result(ray: Any, task: Any) -> tuple[Any, Exception | None]:
    try:
        return ray.get(task), None
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, OutputError):
            raise cause from error
        return None, error


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Ray, joined or started here; what was started or joined here is left at the end."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with warnings.catch_warnings():
        # Ray's own, which nobody here can mend.
        warnings.simplefilter("ignore")
        try:
            import ray
        except ImportError as error:
            raise PlanError("--ray needs Ray", "Install it: pip install 'trueprune[ray]'") from error
        ours = not ray.is_initialized()
        if ours:
            _join(ray, address)
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()


def _join(ray: Any, address: str) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address != "local":
        try:
            ray.init(address=address or "auto", **quiet)
            return
        except (ConnectionError, ValueError, RuntimeError) as error:
            if address:
                said = " ".join(str(error).split())[:200]
                remedy = "Start one with ray start --head, or use --ray local"
                raise PlanError(f"--ray {address}: no Ray cluster was found ({said})", remedy) from error
    ray.init(address="local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)


def _check_room(ray: Any, job: Job, *, ours: bool) -> None:
    """Say so if no machine of the cluster could run a cell; one that was started here never will.

    **Raises:** `PlanError`.
    """
    options = job.grid.ray
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(node.get("CPU", 0) >= options.cpus and node.get("GPU", 0) >= options.gpus for node in nodes):
        return
    problem = (
        f"[ray] asks for {options.cpus:g} CPUs and {options.gpus:g} GPUs a cell, and no machine of the cluster has them"
    )
    if ours:
        raise PlanError(problem, "Lower cpus or gpus in the grid")
    warnings.warn(f"{problem}: cells wait until one joins", stacklevel=2)
