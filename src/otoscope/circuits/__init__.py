"""Circuits: which features made a model write what it wrote, and by which paths."""
