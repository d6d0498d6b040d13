"""Reliability diagrams and risk-coverage curves as PNG and SVG (needs matplotlib, the extra `plots`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trueprune.reports.plots import new_figure, plots_available, save_figure


def plot_reliability(
    models: Mapping[str, Mapping[str, Any]], title: str, file: Path, *, overlay: bool = False
) -> list[Path]:
    """Draw accuracy against confidence, bin by bin, as `file.png` and `file.svg`.

    Guo et al. 2017 (arXiv 1706.04599), Figure 1, with the interval of each bin and the number of its items below, so
    that a bin of three items does not look like a finding.

    **Arguments:**

    - `models`: by name, lists of one number a bin: `lower`, `upper`, `count`, `confidence`, `accuracy`, `low` and
        `high` (bounds of the accuracy); `None` in an empty bin. `ece` and `null_ece` (numbers), if there, go into the
        caption.
    - `title`: text.
    - `file`: path without suffix.
    - `overlay`: all models in one diagram; by default one beside the other.

    **Returns:** the files written; none when matplotlib is missing.
    """
    if not plots_available():
        return []
    figure, _ = new_figure()
    figure.clear()
    columns = 1 if overlay else len(models)
    figure.set_size_inches(max(5.0, 4.0 * columns), 5.5)
    axes = figure.subplots(2, columns, squeeze=False, sharex=True, sharey="row", height_ratios=[3, 1])
    for index, (name, table) in enumerate(models.items()):
        above, below = axes[:, 0 if overlay else index]
        _draw_bins(above, below, table, f"C{index}", _caption(name, table), bars=not overlay)
        if not overlay:
            above.set_title(_caption(name, table).replace(": ", "\n"), fontsize=10)
    for above, below in axes.T:
        above.plot([0, 1], [0, 1], color="0.5", linestyle="--", linewidth=1)
        above.set(xlim=(0, 1), ylim=(0, 1))
        above.grid(alpha=0.25)
        below.set_xlabel("confidence")
    axes[0, 0].set_ylabel("accuracy")
    axes[1, 0].set_ylabel("items")
    if overlay:
        # Above the diagram: inside, it would lie on the intervals of small bins.
        axes[0, 0].legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1))
    figure.suptitle(title)
    return save_figure(figure, file)


def plot_risk_coverage(
    curves: Mapping[str, Mapping[str, Any]], title: str, file: Path, *, log: bool = False
) -> list[Path]:
    """Draw the share of errors among the most confident answers, as `file.png` and `file.svg`.

    Geifman and El-Yaniv 2017 (arXiv 1705.08500).

    **Arguments:**

    - `curves`: by name, the lists `coverage` and `risk` of equal length; `aurc` (a number), if there, goes into the
        legend. The first is drawn heavier, as what the others are compared with.
    - `title`: text.
    - `file`: path without suffix.
    - `log`: logarithmic coverage, for the few most confident answers.

    **Returns:** the files written; none when matplotlib is missing.
    """
    if not plots_available():
        return []
    figure, axes = new_figure()
    for index, (name, curve) in enumerate(curves.items()):
        label = f"{name}: AURC {curve['aurc']:.3f}" if "aurc" in curve else name
        style: dict[str, Any] = {"linewidth": 1.2, "color": f"C{index - 1}"}
        if index == 0:
            style = {"linewidth": 2.6, "color": "black", "zorder": 3}
        axes.plot(curve["coverage"], curve["risk"], label=label, **style)
    axes.set(xlabel="coverage", ylabel="risk (share of errors)", title=title)
    axes.set_ylim(bottom=0)
    if log:
        axes.set_xscale("log")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    return save_figure(figure, file)


def _draw_bins(above: Any, below: Any, table: Mapping[str, Any], color: str, label: str, *, bars: bool) -> None:
    filled = [bin for bin, count in enumerate(table["count"]) if count]
    lower, upper, confidence, accuracy = (
        _of(table, key, filled) for key in ("lower", "upper", "confidence", "accuracy")
    )
    width = [b - a for a, b in zip(lower, upper, strict=True)]
    if bars:
        above.bar(lower, accuracy, width, align="edge", color=color, alpha=0.3, edgecolor="white")
    # Rounding may put a bound of 0 or 1 on the wrong side of the accuracy, which matplotlib refuses.
    down = [max(a - b, 0.0) for a, b in zip(accuracy, _of(table, "low", filled), strict=True)]
    up = [max(b - a, 0.0) for a, b in zip(accuracy, _of(table, "high", filled), strict=True)]
    line = "none" if bars else "-"
    above.errorbar(
        confidence, accuracy, [down, up], label=label, color=color, marker="o", markersize=4, linestyle=line, capsize=2
    )
    counts = _of(table, "count", filled)
    if bars:
        below.bar(lower, counts, width, align="edge", color=color, alpha=0.6, edgecolor="white")
    else:
        edges = [*table["lower"], table["upper"][-1]]
        below.stairs([count or 0 for count in table["count"]], edges, color=color)


def _of(table: Mapping[str, Any], key: str, bins: Sequence[int]) -> list[float]:
    return [float(table[key][bin]) for bin in bins]


def _caption(name: str, table: Mapping[str, Any]) -> str:
    parts = [f"{text} {table[key]:.3f}" for key, text in (("ece", "ECE"), ("null_ece", "null ECE")) if key in table]
    return f"{name}: {', '.join(parts)}" if parts else name
