"""Recipes of trainings in YAML."""

from __future__ import annotations

from pathlib import Path

from otoscope.dictionaries.training.config import TrainConfig
from otoscope.studies.feature_training import read_recipe

FILES = ("recipe.yaml",)
_SHIPPED = Path(__file__).parents[2] / "recipes"


def seeds() -> list[tuple[bytes]]:
    """Those that the repository has."""
    return [(path.read_bytes(),) for path in sorted(_SHIPPED.rglob("*.yaml"))[:6]]


def parse(folder: Path) -> None:
    """Read one, and the training that it asks for."""
    recipe = read_recipe(folder / FILES[0])
    config = TrainConfig.from_json({"name": recipe.point, **recipe.config})
    assert TrainConfig.from_json(config.to_json()) == config
