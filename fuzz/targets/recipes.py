"""Recipes of trainings in YAML."""

from __future__ import annotations

from pathlib import Path

from otoscope.dictionaries.training.config import TrainConfig
from otoscope.studies.feature_recipes import read_recipe, shipped_recipes

FILES = ("recipe.yaml",)


def seeds() -> list[tuple[bytes]]:
    """Those that come with otoscope."""
    return [(path.read_bytes(),) for path in shipped_recipes().values()]


def parse(folder: Path) -> None:
    """Read one, and the training that it asks for."""
    recipe = read_recipe(folder / FILES[0])
    config = TrainConfig.from_json({"name": recipe.point, **recipe.config})
    assert TrainConfig.from_json(config.to_json()) == config
