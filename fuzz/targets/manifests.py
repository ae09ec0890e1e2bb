"""NeMo manifests and corpora of texts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from otoscope.corpora import read_manifest, read_texts, write_manifest
from otoscope.corpora.targets import items_or_texts
from otoscope.errors import ManifestError

FILES = ("manifest.jsonl",)


def seeds() -> list[tuple[bytes]]:
    """Recordings with every field, recordings with labels, and texts."""
    recordings = [
        {
            "audio_filepath": "a.wav",
            "text": "ask not",
            "duration": 1.5,
            "offset": 0.25,
            "language": "en",
            "speaker": "k",
        },
        {
            "audio_filepath": "b/ü.flac",
            "gender": "f",
            "noise": {"kind": "babble", "snr": -5},
            "parts": [1, 2.5, None],
        },
    ]
    texts = [{"text": "ask not", "topic": 3}, {"text": "what", "language": "en"}]
    return [("\n".join(map(json.dumps, rows)).encode(),) for rows in (recordings, texts, recordings[:1])]


def parse(folder: Path) -> None:
    """Read what it is; what was read is written and read again as it was."""
    path, again = folder / FILES[0], folder / "again.jsonl"
    items_or_texts(path)
    try:
        found, reader = read_manifest(path), read_manifest
    except ManifestError:
        found, reader = read_texts(path), read_texts
    write_manifest(found, again)
    assert list(map(repr, reader(again))) == [
        repr(replace(item, path=one.path)) for item, one in zip(found, reader(again), strict=True)
    ]
    assert [one.path.name for one in reader(again)] == [item.path.name for item in found]
