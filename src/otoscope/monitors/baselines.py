"""What users have without looking inside; every report of a monitor shows it beside them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.corpora import Item
from otoscope.outcomes import NO_SPEECH, REPETITIVE, SURE, loop_signs

PHRASES = (
    "thank you|thank you very much|thank you so much|thanks for watching|thank you for watching|thanks|you|bye|bye bye|so|okay",
    "oh|i m sorry|the end|silence|music|applause|please subscribe|subscribe|see you next time|see you in the next video|hmm|mm",
    "i ll see you next time|we ll be right back|uh|ah|yeah|and|the|what|subtitles by the amara org community",
    "transcription by castingwords|sous titres realises par la communaute d amara org|sous titrage st 501|merci",
    "merci d avoir regarde cette video|gracias|gracias por ver el video|suscribete",
    "subtitulos realizados por la comunidad de amara org|grazie|grazie a tutti|sottotitoli creati dalla comunita amara org",
    "sottotitoli e revisione a cura di qtss|спасибо|спасибо за просмотр|продолжение следует|субтитры сделал dimatorzok",
    "редактор субтитров а семкин корректор а егорова",
)
"""Texts, apart by bars, that Whisper is known to write where nothing is said, in lower case and without punctuation.

Reports of users; the list of Barański et al. 2025 (arXiv 2501.11378) is of this kind.
"""


def plain(text: str) -> str:
    """A text as phrases are listed: lower case, no punctuation, no accents on Latin letters."""
    bare = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    return " ".join(re.sub(r"[^\w\s]", " ", unicodedata.normalize("NFC", bare)).split())


_LISTED = frozenset(plain(phrase) for line in PHRASES for phrase in line.split("|"))


def baseline_scores(facts: Sequence[Mapping[str, Any]], items: Sequence[Item]) -> dict[str, np.ndarray]:
    """Scores of each text by what needs no look inside, higher for worse.

    Args:
        facts: What was written, a line a text (`written`, `tokens`, `avg_logprob`, `no_speech_prob`, `compression_ratio`, ...).
        items: Their recordings.

    Returns:
        By name, `(text,)`. An empty text is no error of writing, so that it gets the least score of all.
    """
    signs = [loop_signs(f["written"], language=f["language_written"], seconds=f["seconds"]) for f in facts]
    empty = np.array([not any(map(str.isalnum, f["written"])) for f in facts])
    column = {
        name: np.array([f[name] for f in facts], dtype=float)
        for name in ("no_speech_prob", "avg_logprob", "compression_ratio", "mean_entropy")
    }
    scores = {
        "no-speech probability": column["no_speech_prob"],
        "mean log-probability": -column["avg_logprob"],
        "mean entropy": column["mean_entropy"],
        "compression ratio": column["compression_ratio"],
        "Whisper's three thresholds": _thresholds(column),
        "repeated n-grams": np.array([s.run_length or 0 for s in signs], dtype=float),
        "characters a second": np.array([s.characters_per_second or 0.0 for s in signs]),
        "number of tokens": np.array([len(f["tokens"]) for f in facts], dtype=float),
        "phrase list": np.array([plain(f["written"]) in _LISTED for f in facts], dtype=float),
    }
    if find_spec("silero_vad"):
        scores["Silero VAD"] = -np.array([_share(item.path, item.offset, item.duration) for item in items])
    return {name: np.where(empty, values.min() - 1, values) for name, values in scores.items()}


def _thresholds(column: Mapping[str, np.ndarray]) -> np.ndarray:
    """How many of Whisper's rules a text breaks: repetitive, unsure, and silent where it is not sure."""
    unsure = column["avg_logprob"] < SURE
    silent = (column["no_speech_prob"] > NO_SPEECH) & unsure
    return (column["compression_ratio"] > REPETITIVE).astype(float) + unsure + silent


@cache
def _share(path: Path, offset: float, duration: float | None) -> float:
    """Share of a recording's first window that Silero VAD takes for speech."""
    import torch
    from silero_vad import get_speech_timestamps

    clip = next(Item(str(path), path, offset=offset, duration=duration).windows(30.0))
    spans = get_speech_timestamps(torch.from_numpy(clip.samples.copy()), _silero())
    return sum(span["end"] - span["start"] for span in spans) / max(len(clip.samples), 1)


@cache
def _silero() -> Any:
    from silero_vad import load_silero_vad

    return load_silero_vad()
