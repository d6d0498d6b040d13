"""Tables for people: what each method did, the profile of a model's blocks, what a run made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from trueprune.reports.audit import AuditReport, Row
from trueprune.reports.significance import LEVEL

TITLES = {
    "perplexity": "perplexity",
    "ratio-at-dense-peak": "separation\n(dense peak)",
    "kv-cache-bytes-per-token": "KV cache\na token",
    "prefill-speedup": "speed-up\n(prefill)",
    "decode-speedup": "speed-up\n(decode)",
}
# Metrics of a task, and of an attribution: the rest of the name in brackets.
OF_TASKS = {
    "accuracy": "accuracy",
    "ece-15": "ECE",
    "brier": "Brier",
    "comprehensiveness": "comprehensiveness",
    "sufficiency": "sufficiency",
    "naopc-comprehensiveness": "NAOPC",
    "plausibility-auprc": "plausibility\nAUPRC",
    "spearman": "agreement with\nthe dense model",
    "correct": "right answers",
    "hallucination": "hallucinated",
    "mc1": "MC1",
    "mc2": "MC2",
    "bleu-acc": "nearer to truth\nby BLEU",
    "rougeL-acc": "nearer to truth\nby ROUGE-L",
    "judged": "judged true",
}
# More metrics than this, and than models, stand below one another.
WIDE = 7
COUNTS = ("parameters", "nonzero-parameters", "prefill-flops", "decode-flops")
BYTES = ("disk-bytes", "kv-cache-bytes-per-token", "peak-memory-bytes")
PROTOCOL_WORDS = {"grouped": "", "leave-one-topic-out": "unseen topic"}
GONE = {"blocks": "blocks", "attention": "attention", "mlp": "MLP"}
TRAINING_WORDS = {"retrained": "probe retrained", "frozen": "dense probe"}


def metric_title(metric: str) -> str:
    """The heading of a metric: `grouped/logistic/frozen` becomes `lie detection (dense probe)`."""
    parts = metric.split("/")
    if len(parts) > 1 and parts[0] in OF_TASKS:
        return f"{OF_TASKS[parts[0]]}\n({', '.join(parts[1:])})"
    if metric in TITLES or len(parts) < 3:
        return TITLES.get(metric, metric)
    protocol, probe, training = parts[:3]
    unseen = PROTOCOL_WORDS.get(protocol, protocol.replace("transfer-", "to "))
    words = [w for w in (unseen, "" if unseen and training == "retrained" else TRAINING_WORDS[training]) if w]
    if probe != "logistic":
        words.insert(0, probe)
    return f"lie detection\n({', '.join(words)})"


def audit_table(report: AuditReport, title: str = "") -> RenderableType:
    """Models by headline metrics: the value, and under it the paired change against the dense model with its interval.

    A change whose interval excludes zero is coloured; a star says that it stands after correction for all of them.

    **Arguments:**

    - `report`: the audit.
    - `title`: above the table; by default what it is compared with.
    """
    metrics = list(dict.fromkeys(row.metric for row in report.rows if row.headline))
    title = title or f"Audit against {report.models[0].name} (95 % intervals, paired by item)"
    tests = [row.test for row in report.rows if row.test is not None and row.headline]
    stars = (
        f"* p < {LEVEL} after Holm's correction for {len(tests)} comparisons"
        if any(test.significant for test in tests)
        else None
    )
    rows = {(row.model, row.metric): row for row in report.rows}
    sparsity = {model.name: model.about.get("measured_sparsity") for model in report.models}
    table = Table(title=title, caption=stars, show_lines=True)
    if len(metrics) > max(WIDE, len(report.models)):
        # What would be too wide stands on its side.
        table.add_column("metric")
        for model in report.models:
            table.add_column(model.name, justify="right")
        if any(value is not None for value in sparsity.values()):
            table.add_row("sparsity", *("" if value is None else f"{value:.3f}" for value in sparsity.values()))
        for metric in metrics:
            cells = [_cell(rows.get((model.name, metric))) for model in report.models]
            table.add_row(metric_title(metric).replace("\n", " "), *cells)
        return table
    table.add_column("model")
    table.add_column("sparsity", justify="right")
    for metric in metrics:
        table.add_column(metric_title(metric), justify="right")
    for model in report.models:
        value = sparsity[model.name]
        cells = [_cell(rows.get((model.name, metric))) for metric in metrics]
        table.add_row(model.name, "" if value is None else f"{value:.3f}", *cells)
    return table


def _cell(row: Row | None) -> Text:
    if row is None:
        return Text("-")
    estimate, change = row.estimate, row.change
    text = Text(_in_units(estimate.value, row.metric))
    # What has a single item is a count, and has no interval.
    if estimate.n > 1:
        low, high = (_in_units(bound, row.metric) for bound in estimate.interval)
        text.append(f" [{low}, {high}]", style="dim")
    if change is not None:
        worse = change.value < 0 if row.higher_is_better else change.value > 0
        certain = change.interval[0] > 0 or change.interval[1] < 0
        style = ("red" if worse else "green") if certain else "dim"
        low, high = (_signed(bound, row.metric) for bound in change.interval)
        interval = f" [{low}, {high}]" if estimate.n > 1 else ""
        star = " *" if row.test is not None and row.test.significant else ""
        text.append(f"\n{_signed(change.value, row.metric)}{interval}{star}", style=style)
    return text


def _signed(value: float, metric: str) -> str:
    return f"{'+' if value >= 0 else '-'}{_in_units(abs(value), metric)}"


def _in_units(value: float, metric: str) -> str:
    """A count as `134.5M`, bytes as `23.0 kB`, anything else as a plain number."""
    if metric not in (*COUNTS, *BYTES):
        return _number(value)
    steps = ("", "k", "M", "G", "T", "P") if metric in BYTES else ("", "k", "M", "B", "T", "P")
    step = 0
    # 999.95 would be written 1000.0.
    while value >= 999.95 and step < len(steps) - 1:
        value, step = value / 1000, step + 1
    number = f"{value:.1f}" if step else f"{value:.4g}"
    return f"{number} {steps[step]}B" if metric in BYTES else f"{number}{steps[step]}"


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def usable_lines(report: AuditReport) -> list[Text]:
    """For each model of which it is known, which engines can use what was removed."""
    return [Text(f"{m.name}: {m.about['usable_by']}") for m in report.models if "usable_by" in m.about]


def scan_table(blocks: Sequence[Mapping[str, Any]]) -> RenderableType:
    """The profile of a model, a line a block."""
    table = Table(title="Profile of the blocks")
    # What EAVSS says has a table of its own.
    densities = [name for name in blocks[0].get("density", {}) if name != "eavss"]
    for column in ("block", "weights", "outliers %", "separation", "share", "AVSS", "block\ninfluence"):
        table.add_column(column, justify="right")
    for unit in ("attention", "mlp"):
        table.add_column(f"1 - cos\n{'MLP' if unit == 'mlp' else unit}", justify="right")
    for name in densities:
        table.add_column(f"density\n{name}", justify="right")
    for block in blocks:
        table.add_row(
            str(block["index"]),
            f"{block['weights']:,}",
            _optional(block.get("outlier_percentage"), 3),
            _optional(block.get("separation_mean"), 4),
            _optional(block.get("separation_share"), 4),
            _scientific(block.get("avss")),
            _optional(block.get("block_influence"), 4),
            *(_turned(block.get("cosine", {}).get(unit)) for unit in ("attention", "mlp")),
            *(f"{block['density'][name]:.4f}" for name in densities),
        )
    return table


def _scientific(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _turned(cosine: float | None) -> str:
    return "-" if cosine is None else f"{1 - cosine:.4f}"


def _optional(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def prune_table(record: Mapping[str, Any], output: str) -> RenderableType:
    """What a pruning run made."""
    plan = record["plan"]
    block_sparsities = record["measured_sparsity_blocks"]
    lines = {
        "method": f"{record['method']} (allocation {plan['method']}, score {plan['score']}, pattern {plan['pattern']})",
        "sparsity": f"{record['measured_sparsity']:.4f} (target {plan['sparsity']}; blocks "
        f"{min(block_sparsities):.4f} to {max(block_sparsities):.4f})",
        "layers gone": _gone(plan.get("drop")),
        "pivot": str(plan["evidence"]["pivot"]) if "pivot" in plan["evidence"] else None,
    }
    table = run_table(f"Pruned {record['source']}", lines, record, output)
    return Group(table, *(Text(f"note: {note}") for note in plan["notes"]))


def run_table(title: str, lines: Mapping[str, str | None], record: Mapping[str, Any], output: str) -> Table:
    """What a run did, line by line, and what every run says: its calibration, its cost, where its model is.

    **Arguments:**

    - `title`: of the table.
    - `lines`: name and value; those that are `None` are left out.
    - `record`: what `trueprune.json` holds.
    - `output`: where the model was saved.
    """
    table = Table(title=title, show_header=False)
    every = {
        "calibration": _calibration_line(record.get("calibration")),
        "time": f"{record['wall_seconds']['total']:.1f} s, peak memory {record['peak_memory_bytes'] / 1e9:.2f} GB",
        "saved": output,
    }
    for name, value in {**lines, **every}.items():
        if value is not None:
            table.add_row(name, value)
    return table


def _gone(drop: Mapping[str, Any] | None) -> str | None:
    counts = {name: len(drop[kind]) for kind, name in GONE.items()} if drop else {}
    found = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return f"{found} of {drop['n_blocks']}" if drop and found else None


def _calibration_line(calibration: Mapping[str, Any] | None) -> str | None:
    if not calibration or "sha256" not in calibration:
        return None
    drawn = ", ".join(f"{count} of {name}" for name, count in calibration.get("drawn", {}).items())
    return f"{drawn or 'token ids'} x {calibration['seqlen']} tokens, hash {calibration['sha256'][:12]}"
