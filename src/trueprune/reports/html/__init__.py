"""One self-contained page of an audit's document."""

from trueprune.reports.html.page import render

__all__ = ["render"]
