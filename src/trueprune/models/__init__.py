"""Models: load, read their anatomy by structure, save them whole."""

from trueprune.models.anatomy import Anatomy, Block, Sublayer, read_anatomy
from trueprune.models.load import LoadedModel, load
from trueprune.models.record import read_record
from trueprune.models.save import save
from trueprune.models.sites import WeightSite

__all__ = ["Anatomy", "Block", "LoadedModel", "Sublayer", "WeightSite", "load", "read_anatomy", "read_record", "save"]
