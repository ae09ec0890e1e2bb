from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otoscope.audio import espeak
from otoscope.errors import AudioError, OptionError, OtoscopeError

SENTENCE = "The farmer carried seven heavy sacks to the market on Tuesday."

pytestmark = pytest.mark.skipif(not espeak.available(), reason="espeak-ng is not installed")


def digest(**more) -> str:
    return hashlib.sha256(espeak.speak(SENTENCE, **more).samples.tobytes()).hexdigest()


def pitch_of(samples: np.ndarray) -> float:
    """Median fundamental frequency of the voiced frames in Hz, by autocorrelation between 60 and 400 Hz."""
    found = []
    for start in range(0, len(samples) - 1024, 320):
        frame = samples[start : start + 1024].astype(np.float64)
        if frame.std() > 0.03:
            same = np.correlate(frame - frame.mean(), frame - frame.mean(), "full")[1023:]
            lag = 40 + int(np.argmax(same[40:267]))
            found += [16000 / lag] if same[lag] > 0.5 * same[0] else []
    return float(np.median(found))


def test_the_same_words_sound_the_same_whatever_was_spoken_before():
    """For every variant: breathy ones take noise from generators, which are seeded with the second of the day."""
    first = {name: digest(variant=name) for name in espeak.variants()}
    espeak.speak("Something else entirely!", accent="ru", variant="croak", rate=300)
    espeak.phonemes("and this", "fr")
    time.sleep(1.1)
    assert {name: digest(variant=name) for name in reversed(first)} == first


def test_another_process_speaks_with_the_same_samples():
    program = (
        "import sys, hashlib; from otoscope.audio import espeak; espeak.speak('warming up', variant='f3');"
        "print(*(hashlib.sha256(espeak.speak(sys.argv[1], variant=v).samples.tobytes()).hexdigest() for v in sys.argv[2:]))"
    )
    voices = ["m1", "f3", "whisper", "Reed"]
    told = subprocess.run(
        [sys.executable, "-c", program, SENTENCE, *voices], capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == [digest(variant=voice) for voice in voices]


def test_threads_wait_for_each_other():
    alone = {variant: digest(variant=variant) for variant in ("m1", "f3", "Reed", "whisper")}
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda v: (v, digest(variant=v)), list(alone) * 5))
    assert all(alone[variant] == heard for variant, heard in together)


def test_a_clip_says_how_it_was_spoken():
    clip = espeak.speak("hello", accent="en-gb", variant="f2", rate=150, pitch=60)
    assert clip.source is None
    assert clip.labels == {"accent": "en-gb", "variant": "f2", "gender": "female", "rate": 150, "pitch": 60}
    assert clip.sampling_rate == 16_000


@pytest.mark.parametrize(
    "more",
    [{"accent": "en-gb"}, {"variant": "f2"}, {"rate": 120}, {"pitch": 70}],
    ids=lambda more: next(iter(more)),
)
def test_every_argument_is_heard(more):
    assert digest(**more) != digest()


def test_every_variant_is_a_voice_of_its_own():
    heard = {
        name: hashlib.sha256(espeak.speak("hello", variant=name).samples).digest()
        for name in espeak.variants()
    }
    assert len(heard) > 80
    assert len(set(heard.values())) == len(heard)


def test_every_accent_can_be_loaded():
    """An unknown accent would be an error of espeak-ng; a sound that is the same as English would show a fallback."""
    english = espeak.speak("tomato", accent="en-gb").samples.tobytes()
    for accent in ("de", "fr", "fr-fr", "es", "it", "ru", "en-029", "en-us", "pt-pt", "no"):
        assert espeak.speak("tomato", accent=accent).samples.tobytes() != english
    assert espeak.accents()["en"] == espeak.accents()["en-gb"] == "English (Great Britain)"


def test_women_speak_higher_than_men():
    tagged = [
        name
        for name, gender in espeak.variants().items()
        if gender and name[0] in "fm" and name[1:].isdigit()
    ]
    assert len(tagged) == 13
    for name in tagged:
        high = pitch_of(espeak.speak(SENTENCE, variant=name).samples) > 150
        assert high == (espeak.variants()[name] == "female"), name


def test_a_voice_without_a_gender_in_its_file_has_none():
    assert espeak.variants()["klatt"] is None
    assert espeak.variants()["Andy"] == "male"  # written "Male" there


@pytest.mark.parametrize(
    "text, same",
    [
        ("one\x00two", "one two"),
        ("\x01+30Phello", " +30Phello"),
        ("hello\x01 20S there", "hello  20S there"),
    ],
)
def test_control_characters_command_nothing(text, same):
    np.testing.assert_array_equal(espeak.speak(text).samples, espeak.speak(same).samples)


def test_markup_and_phoneme_brackets_are_read_out_not_obeyed():
    tagged = espeak.speak('<prosody rate="x-slow">hi</prosody>')
    assert tagged.duration > 4 * espeak.speak("hi").duration  # "less than, prosody rate equals ..."
    assert espeak.phonemes("[[h@'loU]]", stress=False) != espeak.phonemes("hello", stress=False)
    assert espeak.speak("[[h@'loU]]").duration > 1.5 * espeak.speak("hello").duration


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_no_text_breaks_it(text):
    with suppress(AudioError):  # nothing to be said in it
        assert espeak.speak(text).duration < 600
    assert isinstance(espeak.phonemes(text), str)


@pytest.mark.parametrize("text", ["", "   ", "\n", "\x00"])
def test_nothing_cannot_be_said(text):
    with pytest.raises(AudioError, match="nothing to be said"):
        espeak.speak(text)


@pytest.mark.parametrize(
    "more, what",
    [
        ({"accent": "en-mars"}, "accent"),
        ({"accent": "en+f2"}, "accent"),
        ({"variant": "../m1"}, "variant"),
        ({"variant": "zzz"}, "variant"),
        ({"rate": 20}, "rate"),
        ({"pitch": 101}, "pitch"),
    ],
)
def test_what_espeak_would_silently_ignore_is_refused(more, what):
    with pytest.raises(OptionError, match=what):
        espeak.speak("hello", **more)


def test_speech_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(espeak, "_LONGEST_SPEECH", 1)
    with pytest.raises(AudioError, match="over 1 s"):
        espeak.speak(SENTENCE)


@pytest.mark.parametrize(
    "word, language, ipa",
    [
        ("wheel", "en-us", "wiːl"),
        ("veal", "en-us", "viːl"),
        ("bath", "en-gb-x-rp", "bɑːθ"),
        ("Tag", "de", "tɑːk"),
    ],
)
def test_phonemes_are_those_of_the_language(word, language, ipa):
    assert espeak.phonemes(word, language, stress=False) == ipa


def test_stress_and_separators_are_a_choice():
    assert espeak.phonemes("farmer", "en-us") == "fˈɑːɹmɚ"
    assert espeak.phonemes("farmer", "en-us", stress=False, separator="_") == "f_ɑːɹ_m_ɚ"
    assert len(espeak.phonemes("One. Two! Three? Four, five", stress=False).split()) == 5
    with pytest.raises(OptionError):
        espeak.phonemes("farmer", separator="--")


def test_a_data_folder_far_down_is_reached_by_a_link(monkeypatch, tmp_path):
    library, home = espeak._found()
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    shutil.copytree(Path(home), deep / "espeak-ng-data")
    here = digest()
    monkeypatch.setattr(espeak, "_found", lambda: (library, str(deep / "espeak-ng-data")))
    assert digest() == here


def test_without_espeak_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(espeak, "_found", lambda: None)
    assert not espeak.available()
    with pytest.raises(OtoscopeError, match=r"pip install 'otoscope\[synth\]'"):
        espeak.speak("x")
