"""Features: what a model computes with, as directions that are read and written."""
