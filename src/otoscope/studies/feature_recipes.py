"""What a training of features is told: from the command line, from a YAML file, or from a recipe that comes with otoscope."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from otoscope.dictionaries.places import Places
from otoscope.dictionaries.training.config import TrainConfig
from otoscope.errors import OptionError
from otoscope.text_values import is_number, yaml_of

_SHIPPED = Path(__file__).with_name("recipes")

_OWN = ("layers", "model_layers", "reads", "writes")
"""What follows from the point, and is not asked for."""


@dataclass(frozen=True)
class FeatureRecipe:
    """What is learned, from which place, and how the corpus is divided.

    Attributes:
        model: An alias, a hub id or a directory.
        point: Where, see `otoscope.dictionaries.places`.
        config: The training; layers and places are those of the point.
        held_out: Share of the corpus that is not trained on.
        group_by: Label whose values are never in both parts, or several with commas, of which the first one that an item has
            counts; None: every recording or text is for itself.
        precision: Of the vectors on disk.
        language: Language that a recogniser is told, where its decoder is read; None: detected.
        division: Seed of the division and of the order in which recordings are joined: trainings of other seeds share both.
        joined: How often each recording is also heard joined with others into whole windows (see `otoscope.corpora.joining`), in
            the part that is learned from.
        alone: Share of the recordings, drawn, that are heard by themselves, too, where they are also joined.
        drawn: Transcripts that are drawn beside the greedy one, where a decoder is read, in that part.
        temperature: Of the distribution that they are drawn from.
        about: What the recipe says of itself.
    """

    model: str
    point: str
    config: Mapping[str, Any]
    held_out: float = 0.1
    group_by: str | None = None
    precision: str = "float32"
    language: str | None = None
    division: int = 0
    joined: int = 0
    alone: float = 1.0
    drawn: int = 0
    temperature: float = 0.8
    about: str = ""

    def __post_init__(self) -> None:
        if not is_number(self.held_out) or not 0 < self.held_out < 1:
            raise OptionError(
                f"held_out cannot be {self.held_out!r}.", "Hold out a share between 0 and 1, such as 0.1."
            )
        if self.precision not in ("float32", "float16"):
            raise OptionError(f"Vectors cannot be {self.precision!r}.", "Choose float32 or float16.")
        if not is_number(self.alone) or not 0 <= self.alone <= 1:
            raise OptionError(f"alone cannot be {self.alone!r}.", "Give a share from 0 to 1.")
        for name in ("joined", "drawn"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 0:
                raise OptionError(f"{name} cannot be {value!r}.", "Give a whole number of at least 0.")
        known = {f.name for f in fields(TrainConfig)} - set(_OWN)
        for name in self.config:
            if name not in known:
                raise OptionError(
                    f"A training has no option {name!r}.", f"It has {', '.join(sorted(known))}."
                )

    def trained(self, places: Places) -> TrainConfig:
        """The whole configuration.

        Raises:
            OptionError: It does not fit the place.
        """
        kind = self.config.get("kind")
        if (kind == "sae") != (places.targets is None):
            raise OptionError(
                f"A {kind} dictionary cannot be trained at {self.point}.",
                "An SAE takes a point such as encoder_blocks.2.hook_resid_post, transcoders take an MLP such as "
                "decoder_blocks.*.mlp.",
            )
        where = {"layers": places.layers, "model_layers": places.model_layers}
        if places.targets is not None:
            where |= {"reads": places.reads, "writes": places.writes}
        name = f"{Path(self.model).name} {self.point}"
        return TrainConfig.from_json({"name": name, **self.config, **where})


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with otoscope, by name; each says at its top what data it was made for."""
    return {path.stem: path for path in sorted(_SHIPPED.glob("*.yaml"))}


def read_recipe(path: Path | str) -> FeatureRecipe:
    """A recipe from a YAML file: what `FeatureRecipe` has, the training's own options among them.

    Args:
        path: The file, or the name of a recipe that comes with otoscope; see `shipped_recipes`.

    Raises:
        OptionError: The file cannot be read, or it says what a recipe does not know.
    """
    try:
        told = yaml_of(shipped_recipes().get(str(path), Path(path)).read_text("utf-8"))
    except (OSError, ValueError) as error:
        reason = str(error)[:200]
        known = ", ".join(shipped_recipes())
        raise OptionError(
            f"The recipe {path} cannot be read: {reason}.",
            f"Write it as YAML, or name one that comes with otoscope: {known}.",
        ) from error
    if not isinstance(told, dict) or not all(isinstance(key, str) for key in told):
        raise OptionError(f"The recipe {path} is no table of options.", "Write `name: value` lines.")
    return recipe_of(told)


def recipe_of(told: Mapping[str, Any]) -> FeatureRecipe:
    """A recipe from a flat table.

    Raises:
        OptionError: Model or point are missing, or an option is unknown.
    """
    own = {f.name for f in fields(FeatureRecipe)} - {"config"}
    missing = [name for name in ("model", "point") if name not in told]
    if missing:
        raise OptionError(f"A recipe needs {missing[0]}.", "Add it.")
    of_recipe = {key: value for key, value in told.items() if key in own}
    return FeatureRecipe(**of_recipe, config={key: value for key, value in told.items() if key not in own})
