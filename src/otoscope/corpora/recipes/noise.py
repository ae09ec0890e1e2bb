"""A corpus again, clean and disturbed, with the kind and strength of the disturbance as labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from otoscope.audio import Clip, info, mix, noises, read, white_noise
from otoscope.corpora.item import Item
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

KINDS = ("white", "pink", "babble", "music", "hum", "reverb")
SNRS = (20.0, 10.0, 5.0, 0.0)
RT60S = (0.3, 0.6, 1.2)
"""Reverberation times in seconds, which take the place of SNRs: a reverberation has none."""

TALKERS = 4
"""How many other recordings make babble."""

_MUSIC_EXCERPT = 40.0  # seconds read of a music file at a random place; longer than any window of the models


@dataclass(frozen=True, kw_only=True)
class Noise(Recipe):
    """Every recording of a corpus once clean and some times disturbed.

    The disturbances are dealt like cards: each combination of kind and SNR (for reverberation, RT60) comes up equally often, and
    which recording gets which is drawn by the seed. So with one version each, half of the corpus is noisy.

    Level alone must not tell what is noisy: every disturbed recording is scaled to the RMS of its source. (A quiet source stays
    quiet, clean or noisy; pauses still tell, for noise fills them, and that is what noise is.)

    Labels: everything the source says, and noise (a kind, or "clean"), noisy ("yes" or "no"), snr_db, rt60 (both None where they
    have no meaning) and source.

    Attributes:
        source: A manifest, a folder or a recording.
        kinds: Among white, pink, babble (four other recordings of the corpus), music, hum and reverb.
        snrs: Signal-to-noise ratios in dB.
        versions: Disturbed versions of each recording; None makes the whole grid.
        music: Files or folders to take music from; without any, chords are made.
    """

    name: ClassVar[str] = "noise"
    pace: ClassVar[float] = 0.02
    source_of: ClassVar[str | None] = "source"

    source: Path
    kinds: tuple[str, ...] = KINDS
    snrs: tuple[float, ...] = SNRS
    versions: int | None = 1
    music: tuple[Path, ...] = ()

    def sounds(self) -> list[Sound]:
        """Clean and disturbed versions of every recording, one recording after the other."""
        require_known("kind of noise", self.kinds, KINDS)
        if self.versions is not None:
            require_counts(versions=self.versions)
        _require_finite(self.snrs)
        corpus = items(self.source)
        _require_clean(corpus)
        if "babble" in self.kinds and len(corpus) < 2:
            raise OptionError(
                "Babble needs other recordings.", "Give a corpus of at least two, or other kinds."
            )
        music = [item.path for path in self.music for item in items(path)]
        grid = [(kind, x) for kind in self.kinds for x in (RT60S if kind == "reverb" else self.snrs)]
        each = min(self.versions or len(grid), len(grid))
        deal = _dealt(grid, len(corpus) * each, self.seed) if each < len(grid) else grid * len(corpus)
        made = []
        for index, item in enumerate(corpus):
            made.append(self._clean(index, item))
            for kind, strength in deal[index * each : (index + 1) * each]:
                made.append(self._noisy(index, item, kind, strength, corpus, music))
        return made

    def _clean(self, index: int, item: Item) -> Sound:
        return _sound(f"{index:05d}-clean", item, item.clip, "clean", None)

    def _noisy(
        self,
        index: int,
        item: Item,
        kind: str,
        strength: float,
        corpus: Sequence[Item],
        music: Sequence[Path],
    ) -> Sound:
        make = partial(_disturbed, item, kind, strength, corpus, music, (self.seed, index, kind, strength))
        return _sound(f"{index:05d}-{kind}-{strength:g}", item, make, kind, strength)


def _require_clean(corpus: Sequence[Item]) -> None:
    noisy = sum(item.labels.get("noisy") == "yes" for item in corpus)
    if noisy:
        raise OptionError(
            f"{noisy} of {len(corpus)} recordings are noisy already.", "Give the corpus they were made from."
        )


def _require_finite(snrs: Sequence[float]) -> None:
    for snr in snrs or (math.nan,):
        if not -60 <= snr <= 60:
            raise OptionError(f"An SNR of {snr:g} dB cannot be mixed.", "Give -60 to 60 dB.")


def _dealt(grid: list[tuple[str, float]], count: int, seed: int) -> list[tuple[str, float]]:
    """`count` cards from as many shuffled packs as that takes."""
    packs = range(-(-count // len(grid)))
    order = [grid[i] for pack in packs for i in rng_of(seed, "deal", pack).permutation(len(grid))]
    return order[:count]


def _sound(name: str, item: Item, make: Any, kind: str, strength: float | None) -> Sound:
    labels = item.labels | {
        "noise": kind,
        "noisy": "no" if kind == "clean" else "yes",
        "snr_db": None if kind == "reverb" else strength,
        "rt60": strength if kind == "reverb" else None,
        "source": item.audio_filepath,
    }
    return Sound(name, make, item.duration or 5.0, item.text, item.language, labels)


def _disturbed(
    item: Item, kind: str, strength: float, corpus: Sequence[Item], music: Sequence[Path], key: tuple
) -> Clip:
    clip, seed = item.clip(), seed_of(*key)
    level = noises.rms_of(clip)
    if kind == "reverb":
        return noises.reverberated(clip, strength, seed=seed)
    disturbance = _disturbance(kind, clip.duration, item, corpus, music, seed)
    return noises.with_rms(mix(clip, disturbance, strength), level)


def _disturbance(
    kind: str, seconds: float, item: Item, corpus: Sequence[Item], music: Sequence[Path], seed: int
) -> Clip:
    rng = np.random.default_rng(seed)
    if kind == "white":
        return white_noise(seconds, seed=seed)
    if kind == "pink":
        return noises.pink_noise(seconds, seed=seed)
    if kind == "hum":
        return noises.hum(seconds, seed=seed, mains_hz=float(rng.choice([50.0, 60.0])))
    if kind == "babble":
        others = [other for other in corpus if other is not item]
        talkers = rng.permutation(len(others))[:TALKERS]
        return noises.babble([others[int(i)].clip() for i in talkers], seconds, seed=seed)
    return (
        excerpt(music[int(rng.integers(len(music)))], seconds, rng)
        if music
        else noises.chords(seconds, seed=seed)
    )


def excerpt(path: Path, seconds: float, rng: np.random.Generator) -> Clip:
    """A piece of a recording from a random place; all of it where it is shorter.

    Raises:
        AudioError: The recording cannot be read.
    """
    whole = info(path).duration or _MUSIC_EXCERPT
    start = float(rng.uniform(0, max(0.0, whole - seconds)))
    return read(path, offset=start, duration=min(seconds, whole))
