"""Timings of several methods side by side, run by hand: ``python -m benchmarks``."""
