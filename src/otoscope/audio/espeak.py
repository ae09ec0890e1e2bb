"""Speech and phonemes made by espeak-ng, the same bytes for the same arguments.

espeak-ng is a library with global state: the phase of its oscillators goes on from one utterance to the next, and its random
generator begins with the time of day, so no two readings of a sentence are alike. Every call here therefore works on a freshly
loaded library, which takes 7 ms, with a seed of its own.
It is GPL-3 and an optional extra; nothing of it is loaded until it is needed.
"""

from __future__ import annotations

import ctypes
import os
import re
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ctypes.util import find_library
from functools import cache
from pathlib import Path
from types import MappingProxyType

import numpy as np

from otoscope.audio.clip import SHORTEST, Clip
from otoscope.errors import AudioError, OptionError, OtoscopeError

RATES = (80, 450)
"""Slowest and fastest speech, in words a minute."""

_SYNCHRONOUS, _DONT_EXIT, _UTF8, _IPA = 2, 0x8000, 1, 2  # of espeak-ng's speak_lib.h
_RATE, _PITCH = 1, 3  # espeak_PARAMETER
_PHONEME, _PHONEME_EVENTS = (
    7,
    3,
)  # espeak_EVENT_TYPE, and the options that ask for such events, spelled in IPA
_LONGEST_HOME = 120  # espeak-ng keeps its data path in 160 bytes and appends file names to it
_LONGEST_SPEECH = 600  # seconds; certain texts have made versions of espeak-ng babble without end
_STRESS = "ˈˌ"
_LOCK = threading.Lock()


class _Voice(ctypes.Structure):
    """espeak_VOICE; `languages` holds a priority byte and a name, again and again, up to a zero byte."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("xx1", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    """espeak_EVENT; of a phoneme `id.string` holds its spelling, as far as it fits."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


def available() -> bool:
    """Whether espeak-ng is installed, as the extra `synth` or by the system."""
    return _found() is not None


def version() -> str:
    """The version of espeak-ng, with the date that some builds add.

    Raises:
        OtoscopeError: espeak-ng is not installed.
    """
    with _library() as (lib, _):
        lib.espeak_Info.restype = ctypes.c_char_p
        return (lib.espeak_Info(None) or b"").decode("utf-8", "replace").strip()


def speak(text: str, *, accent: str = "en-us", variant: str = "m1", rate: int = 175, pitch: int = 50) -> Clip:
    """Speech from text; the same samples for the same arguments, whatever was spoken before and in every process.

    The text is read as it stands: no SSML, no phoneme brackets, no embedded commands.

    Args:
        text: What to say.
        accent: A language code among `accents()`.
        variant: A voice among `variants()`.
        rate: Words a minute, 80 to 450.
        pitch: 0 to 100; 50 is the variant's own.

    Returns:
        A clip with the labels accent, variant, gender, rate and pitch.

    Raises:
        OtoscopeError: espeak-ng is not installed.
        OptionError: It has no such accent or variant, or a number is out of range.
        AudioError: There is nothing to be said in the text, or no end to it.
    """
    samples, _, samples_a_second = _said(text, accent, variant, rate, pitch)
    if len(samples) < SHORTEST * samples_a_second:
        raise AudioError(f"There is nothing to be said in {text[:60]!r}.", "Give a text with words in it.")
    clip = Clip.of(samples, samples_a_second)
    labels = {
        "accent": accent,
        "variant": variant,
        "gender": variants()[variant],
        "rate": rate,
        "pitch": pitch,
    }
    return Clip(clip.samples, labels=labels)


def timed_phonemes(
    text: str, *, accent: str = "en-us", variant: str = "m1", rate: int = 175, pitch: int = 50
) -> list[tuple[float, float, str]]:
    """When each phoneme is said in what `speak` gives for the same arguments.

    Returns:
        Begin and end in seconds, and the spelling in the International Phonetic Alphabet, without stress marks.

    Raises:
        OtoscopeError: See `speak`.
    """
    samples, events, samples_a_second = _said(text, accent, variant, rate, pitch)
    starts = [
        (at / 1000, spelled.translate(str.maketrans("", "", _STRESS)))
        for kind, at, spelled in events
        if kind == _PHONEME
    ]
    ends = [at for at, _ in starts[1:]] + [len(samples) / samples_a_second]
    return [
        (start, max(start, end), spelled)
        for (start, spelled), end in zip(starts, ends, strict=True)
        if spelled.strip("_: ")
    ]


def _said(
    text: str, accent: str, variant: str, rate: int, pitch: int
) -> tuple[np.ndarray, list[tuple[int, int, str]], int]:
    """Samples, events (kind, milliseconds, spelling) and samples a second."""
    _check(accent, variant, rate, pitch)
    voice = f"{_spoken()[accent][1]}+{variant}"
    with _library() as (lib, samples_a_second):
        _set_voice(lib, voice)
        lib.espeak_SetParameter(_RATE, rate, 0)
        lib.espeak_SetParameter(_PITCH, pitch, 0)
        return *_synthesised(lib, text, samples_a_second * _LONGEST_SPEECH), samples_a_second


def phonemes(text: str, language: str = "en", *, stress: bool = True, separator: str = "") -> str:
    """The International Phonetic Alphabet spelling of a text, as espeak-ng would say it.

    Args:
        text: Words.
        language: A code among `accents()`.
        stress: Keep the stress marks.
        separator: One ASCII character to put between phonemes, or nothing.

    Raises:
        OtoscopeError: espeak-ng is not installed.
        OptionError: It has no such language, or the separator is longer.
    """
    if len(separator) > 1 or not separator.isascii():
        raise OptionError(f"{separator!r} cannot separate phonemes.", "Give one ASCII character, or none.")
    if language not in accents():
        raise _no_such("language", language, accents())
    voice = _spoken()[language][1]
    with _library() as (lib, _):
        _set_voice(lib, voice)
        mode = _IPA | (ord(separator) << 8 if separator else 0)
        clauses = [clause for clause in _clauses(lib, _inert(text), mode) if clause]
    spelled = re.sub(r"\([a-z-]+\)", "", " ".join(clauses))  # "(en)" marks a switch of language
    if not stress:
        spelled = spelled.translate(str.maketrans("", "", _STRESS))
    return " ".join(spelled.split()) if separator != " " else spelled.strip()


def accents() -> Mapping[str, str]:
    """The languages and accents that can be spoken: code to name, as in `"en-gb-scotland": "English (Scotland)"`.

    Raises:
        OtoscopeError: espeak-ng is not installed.
    """
    return MappingProxyType({code: name for code, (name, _) in _spoken().items()})


@cache
def _spoken() -> Mapping[str, tuple[str, str]]:
    """Code to name and identifier ("gmw/en-US"): only the latter loads a voice whatever its file is called."""
    with _library() as (lib, _):
        voices = [v for v in _voices(lib) if not v.identifier.startswith(b"mb/")]  # MBROLA is not part of it
        spoken = [
            (priority, code, v.name.decode(), v.identifier.decode())
            for v in voices
            for priority, code in _languages(v)
        ]
    best = {
        code: (name, voice) for _, code, name, voice in sorted(spoken, reverse=True)
    }  # low numbers go first
    return MappingProxyType(dict(sorted(best.items())))


@cache
def variants() -> Mapping[str, str | None]:
    """The voices: name to "female", "male" or None where espeak-ng's voice file does not say.

    Raises:
        OtoscopeError: espeak-ng is not installed.
    """
    with _library() as (lib, _):
        home = ctypes.c_char_p()
        lib.espeak_Info.restype = ctypes.c_char_p
        lib.espeak_Info(ctypes.byref(home))
        folder = Path(os.fsdecode(home.value or b""), "voices", "!v")
        # espeak_ListVoices calls a voice male when its file names no gender, so the files are asked
        found = {path.name: _gender(path) for path in folder.iterdir()} if folder.is_dir() else {}
    return MappingProxyType(dict(sorted(found.items())))


def _gender(path: Path) -> str | None:
    said = re.search(
        r"^gender\s+(male|female)\b", path.read_text("utf-8", "replace"), re.MULTILINE | re.IGNORECASE
    )
    return said[1].lower() if said else None


def _check(accent: str, variant: str, rate: int, pitch: int) -> None:
    if accent not in accents():
        raise _no_such("accent", accent, accents())
    if variant not in variants():
        raise _no_such("voice variant", variant, variants())
    for name, value, (low, high) in (("rate", rate, RATES), ("pitch", pitch, (0, 100))):
        if not low <= value <= high:
            raise OptionError(f"A {name} of {value} cannot be spoken.", f"Give {low} to {high}.")


def _no_such(what: str, given: str, known: Mapping[str, object]) -> OptionError:
    from difflib import get_close_matches

    near = get_close_matches(given, known, n=5, cutoff=0.0)
    return OptionError(
        f"espeak-ng has no {what} {given!r}.", f"Choose one it has, such as {', '.join(near)}."
    )


def _inert(text: str) -> str:
    """Text without control characters: a NUL would end it, and ^A begins one of espeak-ng's commands."""
    whole = text.encode("utf-8", "replace").decode()  # unpaired surrogates are no text
    return "".join(" " if ord(c) < 32 or 127 <= ord(c) < 160 else c for c in whole)


def _set_voice(lib: ctypes.CDLL, name: str) -> None:
    if lib.espeak_SetVoiceByName(name.encode()) != 0:
        raise OptionError(f"espeak-ng cannot load its voice {name}.", "Choose another accent or variant.")


def _synthesised(lib: ctypes.CDLL, text: str, most: int) -> tuple[np.ndarray, list[tuple[int, int, str]]]:
    """int16 samples, shape (n,), at the library's own rate, and what is said when."""
    blocks: list[bytes] = []
    told: list[tuple[int, int, str]] = []
    count = 0

    @_Callback
    def collect(wave, number, events) -> int:  # noqa: ANN001 - called from C
        nonlocal count
        if wave and number > 0:
            blocks.append(ctypes.string_at(wave, 2 * number))
            count += number
        index = 0
        while events and events[index].type:  # up to the one that ends the list
            event = events[index]
            spelled = bytes(event.id.string) if event.type == _PHONEME else b""
            told.append((event.type, event.audio_position, spelled.decode("utf-8", "ignore")))
            index += 1
        return int(count > most)

    data = _inert(text).encode()
    lib.espeak_SetSynthCallback(collect)
    lib.espeak_Synth(data, ctypes.c_size_t(len(data) + 1), 0, 0, 0, _UTF8, None, None)
    lib.espeak_Synchronize()
    if count > most:
        raise AudioError(f"The speech would last over {_LONGEST_SPEECH} s.", "Give a shorter text.")
    return np.frombuffer(b"".join(blocks), np.int16), told


def _clauses(lib: ctypes.CDLL, text: str, mode: int) -> Iterator[str]:
    """espeak_TextToPhonemes takes one clause at a time and moves the pointer on; NULL says that all is done."""
    translate = lib.espeak_TextToPhonemes
    translate.restype = ctypes.c_char_p
    translate.argtypes = (ctypes.POINTER(ctypes.c_void_p), ctypes.c_int, ctypes.c_int)
    buffer = ctypes.create_string_buffer(text.encode())
    pointer = ctypes.c_void_p(ctypes.addressof(buffer))
    while pointer.value:
        yield (translate(ctypes.byref(pointer), _UTF8, mode) or b"").decode("utf-8", "replace").strip()


def _voices(lib: ctypes.CDLL) -> Iterator[_Voice]:
    lib.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
    listed = lib.espeak_ListVoices(None)
    index = 0
    while listed[index]:
        yield listed[index].contents
        index += 1


def _languages(voice: _Voice) -> Iterator[tuple[int, str]]:
    address = voice.languages
    while priority := ctypes.string_at(address, 1)[0]:
        code = ctypes.string_at(address + 1)
        yield priority, code.decode()
        address += len(code) + 2


def _found() -> tuple[str, str | None] | None:
    """The library and its data folder (None: the library knows), or None when there is none."""
    try:
        import espeakng_loader
    except ImportError:
        name = find_library("espeak-ng")
        return (name, None) if name else None
    return espeakng_loader.get_library_path(), espeakng_loader.get_data_path()


@contextmanager
def _library() -> Iterator[tuple[ctypes.CDLL, int]]:
    """A freshly loaded espeak-ng and its sampling rate; unloaded again after the block."""
    found = _found()
    if found is None:
        raise OtoscopeError("espeak-ng is not installed.", "Run `pip install 'otoscope[synth]'`.")
    with _LOCK, _short(found[1]) as home:
        lib = ctypes.CDLL(found[0])
        try:
            yield lib, _initialised(lib, home)
            lib.espeak_Terminate()
        finally:
            _unload(lib)


def _initialised(lib: ctypes.CDLL, home: str | None) -> int:
    rate = lib.espeak_Initialize(
        _SYNCHRONOUS, 0, os.fsencode(home) if home else None, _DONT_EXIT | _PHONEME_EVENTS
    )
    if rate <= 0:
        raise OtoscopeError(
            "espeak-ng does not start.", "Install it anew: `pip install --force-reinstall espeakng-loader`."
        )
    _seed(lib)
    return rate


def _seed(lib: ctypes.CDLL) -> None:
    """Begin the noise of breathy voices at the same place.

    espeak-ng seeds its own generator with the time of day, and takes some noise from the C library's, which stays loaded.
    """
    if hasattr(lib, "espeak_ng_SetRandSeed"):  # since 1.52
        lib.espeak_ng_SetRandSeed(ctypes.c_long(1))
    if os.name == "posix":
        ctypes.CDLL(None).srand(1)


@contextmanager
def _short(home: str | None) -> Iterator[str | None]:
    """A path to the data folder that fits into espeak-ng's buffer: a link to it where the real one is too long."""
    if home is None or len(os.fsencode(home)) <= _LONGEST_HOME:
        yield home
        return
    with tempfile.TemporaryDirectory(prefix="espeak") as folder:
        link = Path(folder, "espeak-ng-data")
        link.symlink_to(home, target_is_directory=True)
        yield str(link)


def _unload(lib: ctypes.CDLL) -> None:
    """Unload, which ctypes never does by itself; without it the next load finds the old state."""
    import _ctypes

    close = getattr(_ctypes, "dlclose", None) or _ctypes.FreeLibrary  # pyright: ignore[reportAttributeAccessIssue]
    close(lib._handle)
