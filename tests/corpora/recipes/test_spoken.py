"""Texts of Debian's fortunes, and texts read aloud, with phonemes that are known."""

from __future__ import annotations

import numpy as np
import pytest
from tests.corpora.recipes.debs import deb

from otoscope.audio import espeak
from otoscope.corpora import read_manifest, read_texts
from otoscope.corpora.phonemes import phonemes_of
from otoscope.corpora.recipes import Spoken, make_corpus, make_texts
from otoscope.errors import OptionError

TEXT = "The ferry leaves the harbour at seven. Nobody noticed that the clock had stopped! Ah. Bring a warm jacket."


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text(f"{TEXT}\nThe old bridge was closed for most of the winter.\n")
    return path


needs_espeak = pytest.mark.skipif(not espeak.available(), reason="espeak-ng is not installed")


@needs_espeak
def test_every_sentence_is_read_by_some_voice_and_its_text_kept_together(texts, tmp_path):
    made = make_corpus(Spoken(source=texts, count=None), tmp_path / "out")
    assert [item.text for item in made.items] == [
        "The ferry leaves the harbour at seven.",
        "Nobody noticed that the clock had stopped!",
        "Bring a warm jacket.",
        "The old bridge was closed for most of the winter.",
    ]
    assert [item.labels["text_number"] for item in made.items] == [0, 0, 0, 1]
    again = make_corpus(Spoken(source=texts, count=None), tmp_path / "again")
    for a, b in zip(made.items, again.items, strict=True):
        np.testing.assert_array_equal(a.clip().samples, b.clip().samples)


@needs_espeak
def test_phonemes_of_what_was_spoken_lie_within_it_in_order(texts, tmp_path):
    make_corpus(Spoken(source=texts, count=2), tmp_path / "out")
    for item in read_manifest(tmp_path / "out" / "manifest.jsonl"):
        found = phonemes_of(item)
        assert len(found) > 8
        starts = [start for start, _, _ in found]
        assert starts == sorted(starts)
        assert all(0 <= start <= end <= item.duration + 0.05 for start, end, _ in found)
        whole = "".join(spelled for _, _, spelled in found)
        wanted = espeak.phonemes(item.text, str(item.labels["accent"]), stress=False).replace(" ", "")
        assert len(set(whole) & set(wanted)) >= 0.8 * len(set(wanted))


@needs_espeak
def test_phonemes_are_where_the_sound_is(texts, tmp_path):
    """A fricative has more high frequencies than a vowel."""
    text = "She sees six sheep."
    clip = espeak.speak(text, variant="m1")
    high = {}
    for start, end, spelled in espeak.timed_phonemes(text, variant="m1"):
        part = clip.samples[round(start * 16000) : round(end * 16000)]
        spectrum = np.abs(np.fft.rfft(part)) ** 2
        high.setdefault(spelled, []).append(
            float(spectrum[len(spectrum) // 2 :].sum() / max(spectrum.sum(), 1e-9))
        )
    assert min(high["s"]) > max(high["iː"])


@needs_espeak
def test_of_people_no_phonemes_are_known_and_settings_out_of_range_are_refused(texts, tmp_path):
    import otoscope as oto
    from otoscope.corpora import Item

    assert phonemes_of(Item("jfk.flac", oto.sample("jfk"), text="ask not")) is None
    for wrong in ({"source": None}, {"source": texts, "count": 0}, {"source": texts, "voices": ("nobody",)}):
        with pytest.raises(OptionError):
            Spoken(**wrong).sounds()


def test_texts_come_from_the_package_by_topic_without_drawings(tmp_path):
    folder = tmp_path / "debs"
    folder.mkdir()
    struck = "b\x08A second text, of which the first letter was struck over."
    long = "A text that is long enough to be kept, with a\ttab."
    deb(
        folder / "fortunes_1.0_all.deb",
        {
            "usr/share/games/fortunes/wisdom": f"{long}\n%\nshort\n%\n{struck}\n".encode(),
            "usr/share/games/fortunes/wisdom.dat": b"\0\0",
            "usr/share/games/fortunes/ascii-art": b"(o o)" * 20,
            "usr/share/doc/fortunes/copyright": b"elsewhere " * 10,
        },
    )
    found = make_texts(tmp_path / "texts.jsonl", packages=folder)
    assert [item.text for item in found] == [
        "A text that is long enough to be kept, with a tab.",
        "A second text, of which the first letter was struck over.",
    ]
    assert [item.text for item in read_texts(tmp_path / "texts.jsonl")] == [item.text for item in found]
    assert {item.labels["topic"] for item in found} == {"wisdom"}
    with pytest.raises(OptionError):
        make_texts(tmp_path / "x.jsonl", packages=folder, most=0)
