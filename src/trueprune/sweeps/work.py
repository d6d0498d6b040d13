"""One piece of a sweep's work: a dense model prepared, or a cell made and measured. Run here, or on a worker."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trueprune._support.environment import peak_memory_bytes
from trueprune._support.errors import OutputError, TruepruneError
from trueprune._support.hashing import hash_json
from trueprune.audits.efficiency_size import read_structure
from trueprune.audits.subject import Subject
from trueprune.jobs.measuring import measure_model
from trueprune.reports.usable import usable_by
from trueprune.sweeps.bench import Bench, Job
from trueprune.sweeps.claims import claim
from trueprune.sweeps.configs import Config
from trueprune.sweeps.keys import SCHEMA, Known, name_of, needs_evidence
from trueprune.sweeps.make import make, slim
from trueprune.sweeps.sources import fingerprint
from trueprune.sweeps.store import CELL, write_audited

# One dense model a process: the next one takes its place.
_at_hand: dict[str, Bench] = {}


@dataclass(frozen=True)
class Outcome:
    """What became of a cell.

    **Arguments:**

    - `cell`: its name, the hash of all that determines it.
    - `error`: why it failed, or empty.
    """

    cell: str
    error: str = ""


def at_hand(job: Job, source: str) -> Bench:
    """The dense model, loaded unless this process has it already."""
    key = hash_json([str(job.output), source, fingerprint(source), str(job.grid)])
    if key not in _at_hand:
        let_go()
        _at_hand[key] = Bench(job, source)
    return _at_hand[key]


def let_go() -> None:
    """Let the dense model of this process go."""
    while _at_hand:
        _at_hand.popitem()[1].close()


def prepare(job: Job, source: str, configs: Sequence[Config]) -> Known:
    """Load a dense model, measure it, and observe on it what cells that are not there yet will need.

    **Arguments:**

    - `job`: the sweep.
    - `source`: the model.
    - `configs`: its cells.

    **Returns:** what names its cells.

    **Raises:** whatever keeps it from being loaded or measured: none of its cells can then be made.
    """
    bench = at_hand(job, source)
    known = bench.known(configs)
    bench.measure(known)
    refused: set[tuple[tuple[str, ...], int]] = set()
    for config in configs:
        needs = needs_evidence(config), config.seed
        if needs in refused or job.store.has(name_of(job.keys.cell(config, known))):
            continue
        try:
            bench.evidence(config, known)
        except OutputError:
            raise
        except Exception:
            # The cells that need it will fail for it and say so. The others need not.
            refused.add(needs)
    return known


def run_cell(job: Job, config: Config, known: Known, *, wait: bool = False) -> Outcome | None:
    """Make and measure one cell, unless it is there.

    **Arguments:**

    - `job`: the sweep.
    - `config`: the cell.
    - `known`: names it.
    - `wait`: for another sweep that is at it.

    **Returns:** what became of it; `None` if another sweep is at it.

    **Raises:** `OutputError` when nothing can be written; any other error is the cell's own and recorded.
    """
    name = name_of(job.keys.cell(config, known))
    with claim(job.store.folder / "running" / f"{name}.json", wait=wait) as mine:
        if not mine:
            return None
        if job.store.has(name):
            return Outcome(name)
        try:
            _make_and_measure(job, config, known, name)
        except OutputError:
            raise
        except Exception as error:
            return Outcome(name, record_failure(job, config, name, error))
        return Outcome(name)


def record_failure(job: Job, config: Config, name: str, error: BaseException) -> str:
    """Write down why a cell failed; it is tried again at the next start.

    **Arguments:**

    - `name`: of the cell, or empty if its model could not even be loaded.
    - `error`: what was raised.

    **Returns:** the error in one line.
    """
    said = " ".join(str(error).split()) or type(error).__name__
    line = said if isinstance(error, TruepruneError) else f"{type(error).__name__}: {said}"
    data = {
        "schema": SCHEMA,
        "cell": name,
        "what": config.to_json(),
        "error": type(error).__name__,
        "message": said,
        "line": line,
        "traceback": "".join(traceback.format_exception(error)),
    }
    job.store.fail(config.hash[:32], data)
    return line


def _make_and_measure(job: Job, config: Config, known: Known, name: str) -> None:
    started = time.perf_counter()
    bench = at_hand(job, config.model)
    if bench.identity != known.identity:
        raise TruepruneError(f"{config.model} changed while its cells were made", "Start the sweep again")
    try:
        _measure(job, config, known, name, bench, started)
    finally:
        bench.discard()


def _measure(job: Job, config: Config, known: Known, name: str, bench: Bench, started: float) -> None:
    context = bench.context
    at_make = time.perf_counter()
    made = make(bench, config, known)
    at_measure = time.perf_counter()
    # A cell is measured once: its activations need no cache.
    subject = Subject(config.label, made.loaded, use_cache=False)
    audited = measure_model(subject, context, job.keys.instruments)
    at_end = time.perf_counter()
    prunable = sum(subject.anatomy.weights)
    zeros = audited.about["measured_sparsity"] * prunable
    if "efficiency" in job.keys.instruments:
        audited.about["usable_by"] = usable_by(read_structure(bench.anatomy), read_structure(subject.anatomy))
    about: dict[str, Any] = {
        "file": CELL,
        "schema": SCHEMA,
        "cell": name,
        "what": config.to_json(),
        "plan": made.plan.to_json(),
        "record": slim(made.record),
        "parameters": sum(p.numel() for p in made.loaded.model.parameters()),
        "prunable": prunable,
        # Of the weights that the dense model could lose, those that are zero or gone.
        "removed": 1 - (prunable - zeros) / sum(bench.anatomy.weights),
        "seconds": {
            "make": round(at_measure - at_make, 3),
            "measure": round(at_end - at_measure, 3),
            "total": round(time.perf_counter() - started, 3),
        },
        "peak_memory_bytes": peak_memory_bytes(),
        "determined_by": job.keys.cell(config, known),
    }
    measuring = job.grid.measuring

    def write(work: Path) -> None:
        write_audited(audited, work, about, resamples=measuring.resamples, seed=measuring.seed)

    job.store.publish(job.store.cell(name), write)
