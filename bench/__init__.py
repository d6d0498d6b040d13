"""Benchmarks: our procedures against the papers' reference procedures, each ratio within one run."""
