"""Sounds on which recognisers fall into loops: like speech, but not to be understood."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from otoscope.audio import SAMPLING_RATE, Clip, mix, noises, read, white_noise
from otoscope.audio.samples import sample
from otoscope.corpora.item import Item
from otoscope.corpora.recipes.recipe import (
    Recipe,
    Sound,
    require_counts,
    require_known,
    rng_of,
)
from otoscope.corpora.recipes.sentences import SENTENCES
from otoscope.corpora.recipes.voices import ACCENTS, VOICES, say
from otoscope.corpora.targets import items

KINDS = ("long", "babble", "shuffled", "shaped", "reversed")
SNRS = (-8.0, 0.0)
"""Lowest and highest SNR of the long noisy speech, in dB."""

_LEVEL = 0.1  # RMS of all clips
_PIECE = 0.25  # seconds of the pieces that are shuffled
_PAUSE = 0.15  # seconds between utterances
_SAMPLES = ("jfk", "austen-0870", "austen-0880", "austen-0890")
_READERS = 5


@dataclass(frozen=True, kw_only=True)
class Loops(Recipe):
    """Five kinds of speech-like sounds on which Whisper models repeat themselves, some more than others.

    long: one reader for 15 to 28 s, under white noise at 0 to -8 dB. babble: five readers at once. shuffled: quarters of a
    second of speech in random order. shaped: noise with the spectrum of speech. reversed: speech backwards, and clipped so hard
    that up to 60 % of the samples are at the limit. Whether one of them sets off a loop depends on the model and its decoding.

    Labels: kind, snr_db (long). What ought to be written is not known; of `shaped`, which is no speech, nothing.

    Attributes:
        kinds: Among long, babble, shuffled, shaped and reversed.
        count: Recordings of each kind.
        speech: A corpus to take the speech from; None takes the sample recordings and espeak-ng.
    """

    name: ClassVar[str] = "loops"
    pace: ClassVar[float] = 0.15
    source_of: ClassVar[str | None] = "speech"

    kinds: tuple[str, ...] = KINDS
    count: int = 20
    speech: Path | None = None

    def sounds(self) -> list[Sound]:
        """`count` recordings of each kind."""
        require_known("kind", self.kinds, KINDS)
        require_counts(count=self.count)
        readers = items(self.speech) if self.speech else []
        return [self._sound(kind, number, readers) for kind in self.kinds for number in range(self.count)]

    def _sound(self, kind: str, number: int, readers: list[Item]) -> Sound:
        rng = rng_of(self.seed, kind, number)
        seconds = round(float(rng.uniform(15, 28)), 2)
        snr = round(float(rng.uniform(*SNRS)), 1) if kind == "long" else None
        make = partial(_made, kind, seconds, snr, (self.seed, kind, number), readers)
        labels = {"kind": kind, "snr_db": snr}
        return Sound(f"{kind}-{number:04d}", make, seconds, "" if kind == "shaped" else None, None, labels)


def _made(kind: str, seconds: float, snr: float | None, key: tuple, readers: list[Item]) -> Clip:
    rng = rng_of(*key, "sound")
    seed = int(rng.integers(2**32))
    if kind == "babble":
        crowd = [_speech(8.0, rng, readers) for _ in range(_READERS)]
        return noises.babble(crowd, seconds, seed=seed, rms=_LEVEL)
    speech = _speech(seconds, rng, readers)
    if kind == "shaped":
        return noises.speech_shaped_noise(speech, seconds, seed=seed, rms=_LEVEL)
    if kind == "long":
        changed = mix(speech, white_noise(seconds, seed=seed), snr or 0.0)
    elif kind == "shuffled":
        changed = _shuffled(speech, rng)
    else:
        changed = noises.clipped(noises.reversed_in_time(speech), float(rng.uniform(0.3, 0.6)))
    return noises.with_rms(changed, _LEVEL)


def _speech(seconds: float, rng: np.random.Generator, readers: list[Item]) -> Clip:
    """Utterances of one reader after each other at the same RMS, cut to a length."""
    voice, accent = str(rng.choice(VOICES)), str(rng.choice(ACCENTS))
    pause = np.zeros(round(_PAUSE * SAMPLING_RATE), np.float32)
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < seconds * SAMPLING_RATE:
        clip = _utterance(rng, readers, voice, accent)
        parts += [noises.with_rms(clip, _LEVEL).samples, pause]
    return Clip(np.concatenate(parts)[: round(seconds * SAMPLING_RATE)])


def _utterance(rng: np.random.Generator, readers: list[Item], voice: str, accent: str) -> Clip:
    if readers:
        return readers[rng.integers(len(readers))].clip()
    if rng.uniform() < 0.25:
        return read(sample(str(rng.choice(_SAMPLES))))
    return say(SENTENCES[rng.integers(len(SENTENCES))], accent, voice)


def _shuffled(clip: Clip, rng: np.random.Generator) -> Clip:
    size = round(_PIECE * SAMPLING_RATE)
    whole = clip.samples[: len(clip.samples) // size * size].reshape(-1, size)
    return replace(clip, samples=rng.permutation(whole).reshape(-1))
