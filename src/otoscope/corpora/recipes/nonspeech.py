"""Sounds in which nobody speaks: whatever a recogniser writes for them is made up."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from otoscope.audio import Clip, noises, silence, white_noise
from otoscope.corpora.recipes.noise import excerpt
from otoscope.corpora.recipes.recipe import (
    Recipe,
    Sound,
    require_counts,
    require_known,
    rng_of,
    seed_of,
)
from otoscope.corpora.targets import items
from otoscope.errors import OptionError

KINDS = (
    "silence",
    "white",
    "pink",
    "brown",
    "tone",
    "chirp",
    "modulated",
    "hum",
    "clicks",
    "chords",
    "music",
)
LEVELS = (0.005, 0.1)
"""Lowest and highest RMS; full scale is 1. Speech has about 0.02 to 0.15."""

_CLICKS_LEVEL = 1 / 8  # of the others': single samples would else exceed full scale


@dataclass(frozen=True, kw_only=True)
class NonSpeech(Recipe):
    """Silence, noises, tones and music of various lengths and levels; the text of all is "".

    Lengths are uniform, levels log-uniform over `LEVELS`, both drawn for every recording alike, so that neither tells the kind;
    silence alone is digital zero, and clicks have an eighth of the level.

    Labels: kind, speech ("no"), rms.

    Attributes:
        kinds: Among silence, white, pink, brown, tone, chirp, modulated (noise at 4 Hz), hum, clicks, chords and music; None
            takes all, music if there are files for it.
        count: Recordings of each kind.
        shortest: Least length in seconds.
        longest: Greatest length in seconds.
        music: Files or folders for the kind music, cut at random places.
    """

    name: ClassVar[str] = "nonspeech"
    pace: ClassVar[float] = 0.03

    kinds: tuple[str, ...] | None = None
    count: int = 20
    shortest: float = 1.0
    longest: float = 10.0
    music: tuple[Path, ...] = ()

    def sounds(self) -> list[Sound]:
        """`count` recordings of each kind."""
        kinds = self.kinds or tuple(k for k in KINDS if k != "music" or self.music)
        require_known("kind of sound", kinds, KINDS)
        require_counts(count=self.count)
        if "music" in kinds and not self.music:
            raise OptionError("There is no music to cut.", "Name files or folders with --music.")
        if not 0.025 <= self.shortest <= self.longest <= 3600:
            raise OptionError(
                f"Sounds of {self.shortest:g} to {self.longest:g} s cannot be made.",
                "Give two lengths between 0.025 and 3600 s, the shorter one first.",
            )
        music = [item.path for path in self.music for item in items(path)]
        return [self._sound(kind, number, music) for kind in kinds for number in range(self.count)]

    def _sound(self, kind: str, number: int, music: list[Path]) -> Sound:
        rng = rng_of(self.seed, kind, number)
        seconds = round(float(rng.uniform(self.shortest, self.longest)), 3)
        scale = {"silence": 0.0, "clicks": _CLICKS_LEVEL}.get(kind, 1.0)
        rms = round(scale * float(np.exp(rng.uniform(*np.log(LEVELS)))), 5)
        make = partial(_made, kind, seconds, rms, seed_of(self.seed, kind, number), music)
        labels = {"kind": kind, "speech": "no", "rms": rms}
        return Sound(f"{kind}-{number:04d}", make, seconds, "", None, labels)


def _made(kind: str, seconds: float, rms: float, seed: int, music: list[Path]) -> Clip:
    rng = np.random.default_rng(seed)
    frequencies = np.exp(rng.uniform(np.log(100), np.log(6000), 2))
    if kind == "silence":
        return silence(seconds)
    if kind == "music":
        return noises.with_rms(excerpt(music[rng.integers(len(music))], seconds, rng), rms)
    if kind == "white":
        return white_noise(seconds, seed=seed, rms=rms)
    if kind in ("pink", "brown"):
        return noises.coloured_noise(seconds, 1 if kind == "pink" else 2, seed=seed, rms=rms)
    if kind == "tone":
        return noises.tone(seconds, float(frequencies[0]), rms=rms)
    if kind == "chirp":
        return noises.chirp(seconds, *map(float, frequencies), rms=rms)
    if kind == "hum":
        return noises.hum(seconds, seed=seed, mains_hz=float(rng.choice([50.0, 60.0])), rms=rms)
    make = {"modulated": noises.modulated_noise, "clicks": noises.clicks, "chords": noises.chords}[kind]
    return make(seconds, seed=seed, rms=rms)
