"""Grids of pruned models: cells that are whole or absent, in one process or on Ray."""
