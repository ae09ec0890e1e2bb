"""Look inside models that listen and speak."""

__version__ = "0.1.0"
