"""Kaldi data directories, whose shell pipes are never run."""

from __future__ import annotations

from pathlib import Path

from otoscope.corpora.kaldi import read_kaldi

FILES = ("wav.scp", "segments", "text", "utt2spk", "spk2gender", "utt2lang")


def seeds() -> list[tuple[bytes, ...]]:
    """With segments and everything that is known of them, and a bare list."""
    return [
        (b"rec1 a.wav\nrec2 /tmp/b.flac\n", b"utt1 rec1 0.0 1.5\nutt2 rec2 2.25 -1\n", b"utt1 ask not\nutt2 what\n",
         b"utt1 k\nutt2 l\n", b"k m\nl f\n", b"utt1 en\nutt2 de\n"),
        (b"rec1 a.wav\n",),
    ]  # fmt: skip


def parse(folder: Path) -> None:
    """Read it; what is no file of its own is nobody's recording."""
    for item in read_kaldi(folder):
        assert not item.audio_filepath.startswith("|")
        assert not item.audio_filepath.endswith("|")
        assert item.duration is None or item.duration > 0
