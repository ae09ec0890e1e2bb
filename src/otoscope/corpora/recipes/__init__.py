"""Corpora that anyone can make: recipes that write recordings and a manifest into a folder.

Each recipe is a frozen dataclass of settings; `make_corpus(recipe, folder)` makes it. See `otoscope corpus make --help`.
"""

from __future__ import annotations

from otoscope.corpora.recipes.ambiguous import Ambiguous
from otoscope.corpora.recipes.loops import Loops
from otoscope.corpora.recipes.noise import Noise
from otoscope.corpora.recipes.nonspeech import NonSpeech
from otoscope.corpora.recipes.prompts import Prompts
from otoscope.corpora.recipes.recipe import Made, Recipe, Sound, make_corpus
from otoscope.corpora.recipes.repeats import Repeats
from otoscope.corpora.recipes.spoken import Spoken
from otoscope.corpora.recipes.texts import make_texts
from otoscope.corpora.recipes.voices import Voices

__all__ = [
    "Ambiguous",
    "Loops",
    "Made",
    "Noise",
    "NonSpeech",
    "Prompts",
    "Recipe",
    "Repeats",
    "Sound",
    "Spoken",
    "Voices",
    "make_corpus",
    "make_texts",
]
