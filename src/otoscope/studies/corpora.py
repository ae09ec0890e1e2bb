"""Corpora that studies make by themselves, or are given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from otoscope.corpora import Item, items
from otoscope.corpora.recipes import NonSpeech, Prompts, Recipe, Repeats, make_corpus
from otoscope.errors import OtoscopeError
from otoscope.models.whisper import SpeechModel
from otoscope.progress import notice

if TYPE_CHECKING:
    from otoscope.models.base import Model

LANGUAGES = ("en", "es", "fr", "it", "ru")
"""Languages that there is people's speech of."""


def made(recipe: Recipe, folder: Path) -> Path | None:
    """The manifest of a recipe's corpus, made or found finished; None, and said, where it cannot be made."""
    try:
        return make_corpus(recipe, folder).manifest
    except OtoscopeError as error:
        notice(f"The corpus {folder.name} is left out: {error}")
        return None


def spoken_languages(model: Model) -> tuple[str, ...]:
    """Languages of the speech that a model is tried on."""
    multilingual = isinstance(model, SpeechModel) and model.is_multilingual
    return LANGUAGES if multilingual else ("en",)


def ordinary_corpora(model: Model, folder: Path, seed: int = 0) -> list[Path]:
    """Manifests that edits are priced on: people's speech, genuine repetitions, sounds without speech; those that can be made."""
    speech = made(Prompts(seed=seed, languages=spoken_languages(model), per_speaker=40), folder / "speech")
    kept = made(Repeats(seed=seed, count=15, speech=speech), folder / "repeats")
    sounds = made(NonSpeech(seed=seed, count=4), folder / "nonspeech")
    return [manifest for manifest in (speech, kept, sounds) if manifest]


def named(manifests: Sequence[Path | str]) -> dict[str, list[Item]]:
    """Corpora by a short name each: that of the folder, or of the manifest's folder, counted on where two have the same.

    Raises:
        ManifestError: One cannot be read.
    """
    out: dict[str, list[Item]] = {}
    for path in map(Path, manifests):
        folder = path.resolve() if path.is_dir() else path.resolve().parent
        name = "".join(c if c.isalnum() or c in "-_." else "-" for c in folder.name) or "corpus"
        same = [other for other in out if other == name or other.startswith(f"{name}-")]
        out[name if not same else f"{name}-{len(same) + 1}"] = items(path)
    return out
