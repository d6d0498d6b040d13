"""Sweeps: whole grids of methods, each cell made and measured once, whatever happens in between."""

from trueprune.sweeps.configs import Config, expand
from trueprune.sweeps.grid import Grid, RayOptions
from trueprune.sweeps.pareto import Point, pareto_front
from trueprune.sweeps.read import read_grid
from trueprune.sweeps.report import SweepReport
from trueprune.sweeps.sweep import sweep

__all__ = [
    "Config",
    "Grid",
    "Point",
    "RayOptions",
    "SweepReport",
    "expand",
    "pareto_front",
    "read_grid",
    "sweep",
]
