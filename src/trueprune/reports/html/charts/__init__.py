"""The charts of a report: from plain numbers to a `Figure` each."""

from trueprune.reports.html.charts.blocks import block_map
from trueprune.reports.html.charts.forest import Axis, axis_of, axis_picture, interval_picture
from trueprune.reports.html.charts.lines import Curve, line_figure
from trueprune.reports.html.charts.reliability import reliability_figure
from trueprune.reports.html.charts.scatter import Point, scatter_figure

__all__ = [
    "Axis",
    "Curve",
    "Point",
    "axis_of",
    "axis_picture",
    "block_map",
    "interval_picture",
    "line_figure",
    "reliability_figure",
    "scatter_figure",
]
