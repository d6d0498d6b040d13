"""The cells of a sweep in this process, one after the other."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from trueprune._support.errors import OutputError
from trueprune.sweeps.bench import Job
from trueprune.sweeps.claims import WAIT
from trueprune.sweeps.configs import Config
from trueprune.sweeps.index import is_done, look_up, remember
from trueprune.sweeps.keys import Known
from trueprune.sweeps.sources import fingerprint
from trueprune.sweeps.work import let_go, prepare, record_failure, run_cell


def run_here(job: Job, models: Mapping[str, Sequence[Config]], found: dict[str, Known]) -> Iterator[tuple[Config, str]]:
    """Make all cells that are not there yet.

    **Arguments:**

    - `job`: the sweep.
    - `models`: the cells of each model.
    - `found`: gets what names the cells of each model that could be read.

    **Returns:** each cell when it is done, and its error or nothing.
    """
    try:
        for source, configs in models.items():
            looks = fingerprint(source)
            known = look_up(job, looks, configs)
            if known is not None and is_done(job, known, configs):
                found[source] = known
                yield from ((config, "") for config in configs)
                continue
            try:
                found[source] = known = prepare(job, source, configs)
                remember(job, source, looks, known)
            except OutputError:
                raise
            except Exception as error:
                yield from ((config, record_failure(job, config, "", error)) for config in configs)
                continue
            yield from _cells(job, configs, known)
    finally:
        let_go()


def _cells(job: Job, configs: Sequence[Config], known: Known) -> Iterator[tuple[Config, str]]:
    waiting, passed = deque(configs), 0
    while waiting:
        config = waiting.popleft()
        outcome = run_cell(job, config, known)
        if outcome is not None:
            passed = 0
            yield config, outcome.error
            continue
        # Another sweep is at it: see to the others first.
        waiting.append(config)
        passed += 1
        if passed >= len(waiting):
            time.sleep(WAIT)
