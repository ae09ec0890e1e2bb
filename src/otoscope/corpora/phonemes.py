"""When each phoneme is said, where a corpus lets it be known: in speech that espeak-ng made."""

from __future__ import annotations

from otoscope.audio import espeak
from otoscope.corpora.item import Item

_MADE = {"spoken": ("rate", "pitch"), "voices": ()}
"""Recipes whose recordings are what `espeak.speak` gives for their labels, and the labels that are arguments beside the voice."""


def phonemes_of(item: Item) -> list[tuple[float, float, str]] | None:
    """Begin and end in seconds of every phoneme of a recording, and its spelling in the International Phonetic Alphabet.

    Returns:
        None where it is not known: recordings of people, spans of recordings, and everything without espeak-ng.
    """
    labels = item.labels
    recipe = str(labels.get("recipe"))
    if recipe not in _MADE or item.offset or not item.text or not espeak.available():
        return None
    accent, variant = str(labels.get("accent")), str(labels.get("speaker"))
    if accent not in espeak.accents() or variant not in espeak.variants():
        return None
    more = {name: int(str(labels[name])) for name in _MADE[recipe] if name in labels}
    return espeak.timed_phonemes(item.text, accent=accent, variant=variant, **more)
