"""Curves and maps over the blocks as PNG and SVG (needs matplotlib, the extra `plots`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def plots_available() -> bool:
    """Whether matplotlib is installed."""
    import importlib.util

    return importlib.util.find_spec("matplotlib") is not None


def plot_curves(
    curves: Mapping[str, Sequence[float]],
    title: str,
    ylabel: str,
    file: Path,
    mark: int | None = None,
    log: bool = False,
) -> list[Path]:
    """Draw curves over the blocks, one line each, as `file.png` and `file.svg`.

    The separation curves of dense and pruned models are the paper's Figure 1 and its comparison (arXiv 2509.00096).

    **Arguments:**

    - `curves`: values per block by name; the first is drawn heavier, as what the others are compared with.
    - `title`, `ylabel`: texts.
    - `file`: path without suffix.
    - `mark`: a block to mark with a vertical line.
    - `log`: logarithmic values.

    **Returns:** the files written; none when matplotlib is missing.
    """
    if not plots_available():
        return []
    from matplotlib import colormaps

    figure, axes = new_figure()
    for index, (name, values) in enumerate(curves.items()):
        # Twenty colours in pairs; the first curve lies over the others.
        style: dict[str, Any] = {"linewidth": 1.2, "color": f"C{index - 1}"}
        if len(curves) > 8:
            style["color"] = colormaps["tab20"]((index - 1) % 20)
        if index == 0:
            style = {"linewidth": 2.6, "color": "black", "zorder": 3}
        axes.plot(range(len(values)), values, label=name, marker="o", markersize=3, **style)
    if mark is not None:
        axes.axvline(mark, color="0.6", linestyle="--", linewidth=1)
    axes.set_xlabel("block")
    axes.set_ylabel(ylabel)
    axes.set_title(title)
    axes.grid(alpha=0.25)
    if log:
        axes.set_yscale("log")
    if len(curves) > 8:
        axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    elif len(curves) > 1:
        axes.legend(frameon=False)
    return save_figure(figure, file)


def plot_marked(values: Sequence[float], marked: Sequence[int], title: str, ylabel: str, file: Path) -> list[Path]:
    """Draw one curve over the blocks, with a ring around some of them, as `file.png` and `file.svg`.

    **Arguments:**

    - `values`: per block.
    - `marked`: the blocks with a ring.
    - `title`, `ylabel`: texts.
    - `file`: path without suffix.

    **Returns:** the files written; none when matplotlib is missing.
    """
    if not plots_available():
        return []
    figure, axes = new_figure()
    axes.axhline(0, color="0.6", linewidth=1)
    axes.plot(range(len(values)), values, color="black", linewidth=1.6, marker="o", markersize=4)
    axes.plot(
        marked, [values[i] for i in marked], linestyle="", marker="o", markersize=11, fillstyle="none", color="C3"
    )
    axes.set_xlabel("block")
    axes.set_ylabel(ylabel)
    axes.set_title(title)
    axes.grid(alpha=0.25)
    return save_figure(figure, file)


def plot_map(values_YX: np.ndarray, title: str, labels: tuple[str, str, str], file: Path) -> list[Path]:
    """Draw a map of values as `file.png` and `file.svg`; NaN stays white.

    **Arguments:**

    - `values_YX`: of shape `(Y, X)`; row y is drawn at `y + 1`, column x at `x`.
    - `title`: text.
    - `labels`: of the horizontal axis, the vertical axis and the values.
    - `file`: path without suffix.

    **Returns:** the files written; none when matplotlib is missing.
    """
    if not plots_available():
        return []
    figure, axes = new_figure()
    rows, columns = values_YX.shape
    drawn = axes.imshow(values_YX, origin="lower", aspect="auto", extent=(-0.5, columns - 0.5, 0.5, rows + 0.5))
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.set_title(title)
    figure.colorbar(drawn, label=labels[2])
    return save_figure(figure, file)


def plot_steps(
    panels: Mapping[str, Mapping[str, Sequence[tuple[int, float, float, float]]]], title: str, file: Path
) -> list[Path]:
    """One panel a metric: values with their intervals against how much is gone, one line each.

    **Arguments:**

    - `panels`: by metric and line the points `(gone, value, low, high)`.
    - `title`: above all.
    - `file`: path without suffix.

    **Returns:** the files written; none when matplotlib is missing.
    """
    if not plots_available():
        return []
    figure, axes = new_figure(columns=len(panels), width=3.4 * len(panels))
    for axis, (metric, lines) in zip(axes, panels.items(), strict=True):
        for index, (name, points) in enumerate(lines.items()):
            gone, values, low, high = zip(*points, strict=True)
            axis.plot(gone, values, label=name, marker="o", markersize=3, color=f"C{index}")
            axis.fill_between(gone, low, high, alpha=0.15, color=f"C{index}", linewidth=0)
        axis.set_title(metric)
        axis.set_xlabel("dropped")
        axis.grid(alpha=0.25)
    axes[0].legend(fontsize=7)
    figure.suptitle(title)
    return save_figure(figure, file)


def new_figure(columns: int = 1, width: float = 8) -> tuple[Any, Any]:
    """A figure with one pair of axes, or an array of several side by side (needs matplotlib)."""
    # The object interface needs no display and touches no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns)


def save_figure(figure: Any, file: Path) -> list[Path]:
    """Write `file.png` and `file.svg`, and say which files these are."""
    from matplotlib import rc_context

    files = [file.with_suffix(suffix) for suffix in (".png", ".svg")]
    for path in files:
        # No date inside, and parts that are not named by random numbers: the same data give the same file.
        metadata = {"Date": None} if path.suffix == ".svg" else None
        with rc_context({"svg.hashsalt": "trueprune"}):
            figure.savefig(path, dpi=150, metadata=metadata)
    return files
