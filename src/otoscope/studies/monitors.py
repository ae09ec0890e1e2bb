"""The corpora that the monitors which come with otoscope were fitted on; `otoscope monitor fit` without a manifest makes them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from otoscope.corpora import Item, items
from otoscope.corpora.recipes import Loops, Noise, NonSpeech, Prompts, Repeats
from otoscope.errors import ManifestError
from otoscope.studies.corpora import made, spoken_languages

if TYPE_CHECKING:
    from otoscope.models.base import Model

NOISES, SNRS = ("white", "pink", "babble"), (10.0, 0.0, -5.0)
"""What speech is disturbed by, and how loud in dB: from what does little to what leaves little."""

PER_SPEAKER = {True: 30, False: 150}
"""Recordings of each speaker at most, where there are several languages and where there is one."""


def monitor_corpora(model: Model, folder: Path, seed: int = 0) -> list[Item]:
    """Make what a monitor is fitted on, or find it made.

    People's speech in the model's languages, each recording clean and disturbed; sounds of many kinds, some of them music; speech
    that is not to be understood, on which models loop; and things that are really said again and again.

    Args:
        model: Its languages are spoken.
        folder: Where the corpora are made.
        seed: Of the recipes.

    Raises:
        ManifestError: There is no speech, or nothing that makes models loop.
    """
    languages = spoken_languages(model)
    several = len(languages) > 1
    sets = ("prompts",) if several else ("prompts", "dialogue")
    speech = Prompts(seed=seed, sets=sets, languages=languages, per_speaker=PER_SPEAKER[several])
    people = made(speech, folder / "speech")
    loops = made(Loops(seed=seed, count=40, speech=people), folder / "loops")
    if people is None or loops is None:
        raise ManifestError(
            "The corpora cannot be made.",
            "Install `otoscope[synth,g722]` and fetch packages with apt-get, or name manifests.",
        )
    sounds = made(Prompts(seed=seed, sets=("nonspeech",)), folder / "sounds")
    manifests = [
        made(Noise(seed=seed, source=people, kinds=NOISES, snrs=SNRS), folder / "noisy"),
        loops,
        sounds,
        made(NonSpeech(seed=seed, count=10), folder / "nonspeech"),
        made(Repeats(seed=seed, count=12, speech=people), folder / "repeats"),
    ]
    return [item for manifest in manifests if manifest for item in items(manifest)]
