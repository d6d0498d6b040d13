"""Exports: a model in the layouts that inference engines read."""

from trueprune.models.exports.options import ExportOptions
from trueprune.models.exports.registry import EXPORTS, Export, find_export
from trueprune.models.exports.save import save_export

__all__ = ["EXPORTS", "Export", "ExportOptions", "find_export", "save_export"]
