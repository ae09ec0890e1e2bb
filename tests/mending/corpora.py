"""A small discovery corpus for random models."""

from __future__ import annotations

from dataclasses import replace

from tests.patching.worlds import hearing_whisper, spans


def mixed_corpus(texts=("w1 w77 w2", "w3")):
    """Six spans: two of speech, one repetition, two sounds, one of unknown text."""
    a, b, c, d, e, f = spans(6)
    return [
        replace(a, text=texts[0], language="en"),
        replace(b, text=texts[1], language="en"),
        replace(c, text=" ".join(["w77"] * 4), labels={"times": 4, "speaker": 1}),
        replace(d, text=""),
        replace(e, text=""),
        f,
    ]


def talker(**kwargs):
    return hearing_whisper(seed=1, **kwargs)
