"""What is known of models without loading them: their hashes, by what their files look like."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trueprune._support.hashing import hash_json
from trueprune.sweeps.bench import Job
from trueprune.sweeps.configs import Config
from trueprune.sweeps.keys import SCHEMA, Known, name_of
from trueprune.sweeps.steps import calibration_of
from trueprune.sweeps.store import DENSE, read_json, write_json


def look_up(job: Job, looks: str | None, configs: Sequence[Config]) -> Known | None:
    """What names the cells of a model, if it was loaded before and its files look as they did then.

    **Arguments:**

    - `job`: the sweep.
    - `looks`: its fingerprint.
    - `configs`: its cells.
    """
    if looks is None or (found := read_json(_file(job, "model", looks))) is None:
        return None
    tokens = {}
    for seed in sorted({config.seed for config in configs if "tokens" in config.needs}):
        if (drawn := read_json(_tokens(job, found["identity"], seed))) is None:
            return None
        tokens[seed] = drawn["sha256"]
    return Known(found["identity"], tokens)


def remember(job: Job, source: str, looks: str | None, known: Known) -> None:
    """Write down what names the cells of a model.

    **Arguments:**

    - `looks`: its fingerprint, taken before it was loaded.
    """
    if looks is not None:
        data = {"schema": SCHEMA, "source": source, "identity": dict(known.identity)}
        write_json(_file(job, "model", looks), data)
    for seed, sha256 in known.tokens.items():
        write_json(_tokens(job, known.identity, seed), {"schema": SCHEMA, "seed": seed, "sha256": sha256})


def is_done(job: Job, known: Known, configs: Sequence[Config]) -> bool:
    """Whether nothing of a model is left to do."""
    dense = job.store.dense(name_of(job.keys.measured(known))) / DENSE
    return dense.is_file() and all(job.store.has(name_of(job.keys.cell(config, known))) for config in configs)


def _tokens(job: Job, identity: object, seed: int) -> Path:
    return _file(job, "tokens", [identity, str(calibration_of(job.grid, seed)), dict(job.keys.inputs)])


def _file(job: Job, kind: str, of: object) -> Path:
    how = [SCHEMA, of, str(job.grid.loading), dict(job.keys.program)]
    return job.output / "dense" / "index" / f"{kind}-{hash_json(how)[:32]}.json"
