"""Hostile input: every parser as a fuzz target, run by `python -m fuzz` and, quickly, by `tests/hostile`."""
