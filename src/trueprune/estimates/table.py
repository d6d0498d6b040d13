"""An estimate for people: steps, totals, ways to run, and what to do where it does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from trueprune.estimates.work import Number


def estimate_parts(report: Mapping[str, Any]) -> list[RenderableType]:
    """Tables and lines of an estimate.

    **Arguments:**

    - `report`: `Forecast.to_json`.
    """
    return [_steps(report), _variants(report), *(f"-> {line}" for line in report["advice"]), *_notes(report)]


def _steps(report: Mapping[str, Any]) -> Table:
    model, device = report["model"], report["device"]
    table = Table(
        title=f"{model['name']}: {quantity(model['parameters'])} parameters in {model['blocks']} blocks, "
        f"{report['dtype']}, on {device['name']}"
    )
    table.add_column("step")
    for heading in ("FLOPs", "bytes moved", "peak memory"):
        table.add_column(heading, justify="right")
    for variant in report["variants"]:
        table.add_column(variant["name"] if variant["does"] else f"{variant['name']}\n(projected)", justify="right")
    names = [variant["name"] for variant in report["variants"]]
    for run, total in report["totals"].items():
        table.add_row(run, *_row(total, names), style="bold")
        for step in report["steps"]:
            if step["run"] == run:
                table.add_row(f"  {step['name']}", *_row(step, names))
        table.add_section()
    return table


def _row(entry: Mapping[str, Any], names: list[str]) -> list[str]:
    counted = [quantity(entry["flops"]), f"{quantity(entry['bytes'])}B", f"{quantity(entry['memory'])}B"]
    return [*counted, *(duration(entry["seconds"][name]) for name in names)]


def _variants(report: Mapping[str, Any]) -> Table:
    held = quantity(report["device"]["memory"])
    table = Table(title=f"Does it fit into {held}B?")
    for heading, side in (("way", "left"), ("time in all", "right"), ("peak memory", "right")):
        table.add_column(heading, justify=side)  # type: ignore[arg-type]
    for heading in ("at", "fits", ""):
        table.add_column(heading)
    for one in report["variants"]:
        fits = "yes" if one["fits"] else "no"
        memory = f"{quantity(one['memory'])}B"
        table.add_row(one["name"], duration(one["seconds"]), memory, one["at"], fits, one["note"])
    return table


def _notes(report: Mapping[str, Any]) -> list[str]:
    host = max((total["host_memory"] for total in report["totals"].values()), default=0)
    found = [f"{report['device']['name']}: {report['device']['how']}"]
    if host > 1e9 and report["device"]["ahead"]:
        found.append(f"the host needs {quantity(host)}B for activations of statements")
    return [f"note: {line}" for line in [*found, *report["notes"]]]


def quantity(value: Number) -> str:
    """A number in three digits with its unit: `1.34 T`; of bytes add a `B`."""
    if value < 1000:
        return f"{value:.0f} "
    for unit in ("k", "M", "G", "T", "P"):
        value /= 1000
        if value < 999.5:
            return f"{value:.3g} {unit}"
    return f"{value / 1000:.3g} E"


def duration(seconds: Number) -> str:
    """Seconds as people say them."""
    if seconds < 0.095:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 99.5:
        return f"{seconds:.2g} s" if seconds < 9.95 else f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
