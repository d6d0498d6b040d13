"""The job `report`: audits made apart as one report, held against any gate; no model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from trueprune._support.folders import check_output, whole_folder
from trueprune.jobs.gating import GateOptions, announce, judged, write_verdict
from trueprune.reports.audit import AuditReport, write_report
from trueprune.reports.effect import check_cards, local_folders, write_effect
from trueprune.reports.join import join_audits
from trueprune.reports.stored import write_audited


def report(
    audits: Sequence[str | Path],
    output: str | Path | None = None,
    *,
    gating: GateOptions = GateOptions(),
    card: bool = False,
    overwrite: bool = False,
    command: str | None = None,
) -> AuditReport:
    """Report audits again, alone or joined: against another gate, or a dense model audited once and others later.

    **Arguments:**

    - `audits`: folders that audits wrote. The first model of the first is what all others are compared with. A later
        audit begins with the same dense model, or holds one other model that was audited alone.
    - `output`: the folder for `audit.json`, `report.html`, `items.jsonl` and `measurements.parquet`, and with a gate
        `junit.xml` and `summary.md`.
    - `gating`: what a pruned model must keep.
    - `card`: write what pruning changed into the README.md of every audited model whose folder is still there.
    - `overwrite`: replace the output folder if it exists.
    - `command`: recorded in the report.

    **Returns:** an `AuditReport`, with a `verdict` where there is a gate.

    **Raises:** `TruepruneError`; nothing is then written.
    """
    if output is not None:
        check_output(Path(output), overwrite, [*audits, *([] if gating.gate is None else [gating.gate])])
    gate = gating.read()
    joined = join_audits(audits)
    joined = judged(replace(joined, settings={**joined.settings, "reported_by": command}), gate)
    folders = local_folders(joined) if card else {}
    check_cards(folders)
    if output is not None:
        how = {"resamples": joined.settings["resamples"], "seed": joined.settings["seed"]}
        with whole_folder(Path(output), overwrite) as work:
            write_report(joined, work)
            write_audited(joined.models, work, **how, items=joined.items)
            write_verdict(joined, work)
    write_effect(joined, folders)
    announce(joined)
    return joined
