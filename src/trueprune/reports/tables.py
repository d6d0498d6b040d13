"""Tables for people: what each method did, the profile of a model's blocks, what a run made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from trueprune.reports.audit import AuditReport, Row

TITLES = {"perplexity": "perplexity", "ratio-at-dense-peak": "separation\n(dense peak)"}
PROTOCOL_WORDS = {"grouped": "", "leave-one-topic-out": "unseen topic"}
TRAINING_WORDS = {"retrained": "probe retrained", "frozen": "dense probe"}


def metric_title(metric: str) -> str:
    """The heading of a metric: `grouped/logistic/frozen` becomes `lie detection (dense probe)`."""
    parts = metric.split("/")
    if metric in TITLES or len(parts) < 3:
        return TITLES.get(metric, metric)
    protocol, probe, training = parts[:3]
    unseen = PROTOCOL_WORDS.get(protocol, protocol.replace("transfer-", "to "))
    words = [w for w in (unseen, "" if unseen and training == "retrained" else TRAINING_WORDS[training]) if w]
    if probe != "logistic":
        words.insert(0, probe)
    return f"lie detection\n({', '.join(words)})"


def audit_table(report: AuditReport) -> RenderableType:
    """Models by headline metrics: the value, and under it the paired change against the dense model with its interval.

    A change whose interval excludes zero is coloured.
    """
    metrics = list(dict.fromkeys(row.metric for row in report.rows if row.headline))
    table = Table(title=f"Audit against {report.models[0].name} (95 % intervals, paired by item)", show_lines=True)
    table.add_column("model")
    table.add_column("sparsity", justify="right")
    for metric in metrics:
        table.add_column(metric_title(metric), justify="right")
    rows = {(row.model, row.metric): row for row in report.rows}
    for model in report.models:
        sparsity = model.about.get("measured_sparsity")
        cells = [_cell(rows.get((model.name, metric))) for metric in metrics]
        table.add_row(model.name, "" if sparsity is None else f"{sparsity:.3f}", *cells)
    return table


def _cell(row: Row | None) -> Text:
    if row is None:
        return Text("-")
    estimate, change = row.estimate, row.change
    text = Text(_number(estimate.value))
    text.append(f" [{_number(estimate.interval[0])}, {_number(estimate.interval[1])}]", style="dim")
    if change is not None:
        worse = change.value < 0 if row.higher_is_better else change.value > 0
        certain = change.interval[0] > 0 or change.interval[1] < 0
        style = ("red" if worse else "green") if certain else "dim"
        low, high = (f"{'+' if v >= 0 else '-'}{_number(abs(v))}" for v in change.interval)
        sign = "+" if change.value >= 0 else "-"
        text.append(f"\n{sign}{_number(abs(change.value))} [{low}, {high}]", style=style)
    return text


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def scan_table(blocks: Sequence[Mapping[str, Any]]) -> RenderableType:
    """The profile of a model, a line a block."""
    table = Table(title="Profile of the blocks")
    densities = list(blocks[0].get("density", {}))
    for column in ("block", "weights", "outliers %", "separation", "share"):
        table.add_column(column, justify="right")
    for name in densities:
        table.add_column(f"density {name}", justify="right")
    for block in blocks:
        table.add_row(
            str(block["index"]),
            f"{block['weights']:,}",
            _optional(block.get("outlier_percentage"), 3),
            _optional(block.get("separation_mean"), 4),
            _optional(block.get("separation_share"), 4),
            *(f"{block['density'][name]:.4f}" for name in densities),
        )
    return table


def _optional(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def prune_table(record: Mapping[str, Any], output: str) -> RenderableType:
    """What a pruning run made."""
    plan = record["plan"]
    table = Table(title=f"Pruned {record['source']}", show_header=False)
    block_sparsities = record["measured_sparsity_blocks"]
    lines = {
        "method": f"{record['method']} (allocation {plan['method']}, score {plan['score']}, pattern {plan['pattern']})",
        "sparsity": f"{record['measured_sparsity']:.4f} (target {plan['sparsity']}; blocks "
        f"{min(block_sparsities):.4f} to {max(block_sparsities):.4f})",
        "pivot": str(plan["evidence"]["pivot"]) if "pivot" in plan["evidence"] else None,
        "calibration": _calibration_line(record.get("calibration")),
        "time": f"{record['wall_seconds']['total']:.1f} s, peak memory {record['peak_memory_bytes'] / 1e9:.2f} GB",
        "saved": output,
    }
    for name, value in lines.items():
        if value is not None:
            table.add_row(name, value)
    return Group(table, *(Text(f"note: {note}") for note in plan["notes"]))


def _calibration_line(calibration: Mapping[str, Any] | None) -> str | None:
    if not calibration or "sha256" not in calibration:
        return None
    drawn = ", ".join(f"{count} of {name}" for name, count in calibration.get("drawn", {}).items())
    return f"{drawn or 'token ids'} x {calibration['seqlen']} tokens, hash {calibration['sha256'][:12]}"
