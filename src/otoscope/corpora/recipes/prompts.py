"""Real voices in many languages, from packages of Debian: telephone prompts, acted dialogue, letters, and sounds."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

from otoscope.audio import SAMPLING_RATE, Clip
from otoscope.corpora.recipes.debian import contents, fetched
from otoscope.corpora.recipes.recipe import Recipe, Sound, require_counts, require_known, rng_of
from otoscope.errors import AudioError, OptionError

Set = Literal["prompts", "dialogue", "letters", "nonspeech"]
SETS: tuple[Set, ...] = ("prompts", "dialogue", "letters", "nonspeech")

_PLACES = (
    "ar",
    "cs",
    "da",
    "de",
    "en",
    "en_GB",
    "es",
    "fr",
    "he",
    "hu",
    "it",
    "lt",
    "ml",
    "nb",
    "nds",
    "nl",
    "pt_BR",
    "ru",
    "tn",
    "uk",
)
_PIECE = 12.0  # seconds into which music is cut
_NO_SPEECH = re.compile(
    r"(^|/)(silence/|beep|ascending-|descending-|(tt-monkeys|confbridge-join|confbridge-leave)\.)"
)


@dataclass(frozen=True)
class _Voice:
    """One person (or kind of sound) in a package.

    Attributes:
        package: The package.
        pattern: Which files are theirs; the group `name` is what the transcript calls a file.
        speaker: Who speaks.
        licence: SPDX-like.
        language: Language code.
        gender: Where the package says it.
        transcript: The package with the texts, if there is one.
        labels: What else is known.
    """

    package: str
    pattern: str
    speaker: str
    licence: str
    language: str | None = None
    gender: str | None = None
    transcript: str | None = None
    labels: Mapping[str, object] = field(default_factory=dict)


def _core(language: str, folder: str, speaker: str, gender: str, licence: str = "CC-BY-SA-3.0") -> _Voice:
    package = f"asterisk-core-sounds-{language}"
    pattern = rf"usr/share/asterisk/sounds/{folder}/(?P<name>.+)\.g722"
    return _Voice(f"{package}-g722", pattern, speaker, licence, language, gender, package)


def _fish(language: str, letter: str, speaker: str, gender: str) -> _Voice:
    pattern = rf"usr/share/games/fillets-ng/sound/.+/{language}/[^/]+-{letter}-[^/]+\.ogg"
    return _Voice(
        f"fillets-ng-data-{language}", pattern, f"{speaker}-{language}", "GPL-2.0-or-later", language, gender
    )


_CATALOGUE: dict[Set, tuple[_Voice, ...]] = {
    "prompts": (
        _core("en", "en_US_f_Allison", "allison", "female"),
        _core("es", "es_MX_f_Allison", "allison", "female"),
        _core("fr", "fr_CA_f_June", "june", "female"),
        _core("it", "it_IT_m_Carlo", "carlo", "male"),
        _core("ru", "ru_RU_f_IvrvoiceRU", "ivrvoice", "female", "CC-BY-3.0"),
        _Voice(
            "asterisk-prompt-it-menardi-wav",
            r"usr/share/asterisk/sounds/it_IT_f_Menardi/(?P<name>.+)\.wav",
            "menardi",
            "CC-BY-SA-3.0",
            "it",
            "female",
        ),
        _Voice(
            "asterisk-prompt-fr-armelle",
            r"usr/share/asterisk/sounds/fr/(?P<name>.+)\.gsm",
            "armelle",
            "BSD-2-Clause",
            "fr",
            "female",
        ),
        _Voice(
            "asterisk-prompt-es-co",
            r"usr/share/asterisk/sounds/es/(?P<name>.+)\.gsm",
            "es-co",
            "GPL-2.0-only",
            "es",
        ),
    ),
    "dialogue": (
        _fish("cs", "m", "small-fish", "female"),
        _fish("cs", "v", "big-fish", "male"),
        _fish("nl", "m", "small-fish", "female"),
        _fish("nl", "v", "big-fish", "male"),
    ),
    "letters": tuple(
        _Voice(
            "klettres-data",
            rf"usr/share/klettres/{place}/(alpha|syllab)/.+\.ogg",
            f"klettres-{place.lower().replace('_', '-')}",
            "GPL-2.0-or-later",
            place.split("_")[0],
        )
        for place in _PLACES
    ),
    "nonspeech": (
        _Voice(
            "asterisk-moh-opsound-wav",
            r"usr/share/asterisk/moh/.+\.wav",
            "",
            "CC-BY-SA-3.0",
            labels={"kind": "music"},
        ),
        _Voice(
            "sound-theme-freedesktop",
            r"usr/share/sounds/freedesktop/stereo/(?!audio-channel|audio-test).+\.oga",  # those name loudspeakers aloud
            "",
            "CC-BY-SA-3.0 and others, see the package",
            labels={"kind": "sound"},
        ),
        _Voice(
            "sound-icons",
            r"usr/share/sounds/sound-icons/.+\.wav",
            "",
            "GPL-2.0-or-later",
            labels={"kind": "sound"},
        ),
    ),
}
LANGUAGES = tuple(sorted({v.language for voices in _CATALOGUE.values() for v in voices if v.language}))


@dataclass(frozen=True, kw_only=True)
class Prompts(Recipe):
    """Recordings of real people from Debian's archive, with transcripts where there are any.

    The prompts are studio recordings of telephone announcements by seven people in five languages (English, Spanish,
    French, Italian, Russian), four of them with exact transcripts; armelle and es-co are GSM at 8 kHz, so their band tells them
    apart. The dialogue is acted by two people each in Czech and Dutch. Letters are single letters and syllables in twenty
    languages, one voice each, unlabelled. Nonspeech is hold music in pieces of 12 s, and short sounds.

    One person speaks both English and Spanish (allison): hold out speakers, not languages alone. The recordings are under
    CC-BY-SA, GPL and the like, named in every line; mind that when you pass them on.

    Labels: speaker, gender (where the package says it), package, licence, file, kind ("speech", "music" or "sound").

    Attributes:
        sets: Among prompts, dialogue, letters and nonspeech.
        languages: Language codes; None takes all.
        per_speaker: Recordings of each speaker at most, drawn by the seed; None takes all.
        packages: A folder of `.deb` files; None fetches them with apt-get into the cache.
    """

    name: ClassVar[str] = "prompts"
    pace: ClassVar[float] = 0.02

    sets: tuple[Set, ...] = ("prompts",)
    languages: tuple[str, ...] | None = None
    per_speaker: int | None = None
    packages: Path | None = None

    def settings(self) -> dict[str, Any]:
        """The settings without the folder of packages, which does not matter to what is made."""
        return {key: value for key, value in super().settings().items() if key != "packages"}

    def sounds(self) -> list[Sound]:
        """Some or all recordings of every speaker; fetches packages that are missing."""
        require_known("set of recordings", self.sets, SETS)
        require_known("language", self.languages or LANGUAGES, LANGUAGES)
        require_counts(per_speaker=1 if self.per_speaker is None else self.per_speaker)
        voices = [voice for name in self.sets for voice in _CATALOGUE[name] if self._speaks(voice)]
        if not voices:
            raise OptionError(
                "Nobody in these sets speaks these languages.", "Choose other sets or languages."
            )
        if any(voice.package.endswith("-g722") for voice in voices) and find_spec("av") is None:
            raise OptionError("Reading G.722 needs PyAV.", "Run `pip install 'otoscope[g722]'`.")
        names = {name: None for voice in voices for name in (voice.package, voice.transcript) if name}
        paths = fetched(list(names), self.packages)
        return [sound for voice in voices for sound in self._of(voice, paths)]

    def _speaks(self, voice: _Voice) -> bool:
        return self.languages is None or voice.language is None or voice.language in self.languages

    def _of(self, voice: _Voice, paths: dict[str, Path]) -> list[Sound]:
        package = paths[voice.package]
        texts = transcripts(paths[voice.transcript]) if voice.transcript else None
        found = [
            (file, start, text)
            for file in _files(package, voice.pattern)
            for start, text in _spans(package, voice, file, texts)
        ]
        stem = f"{voice.speaker}-{voice.language}" if voice.language else voice.package
        order = rng_of(self.seed, voice.package, voice.pattern).permutation(len(found))
        chosen = sorted(int(i) for i in order[: self.per_speaker])
        return [_sound(f"{stem}-{i:04d}", package, voice, *found[i]) for i in chosen]


def transcripts(package: Path) -> dict[str, str]:
    """File name (without ending) to what is said, from a core sounds package; what is no plain speech is left out.

    Raises:
        OptionError: The package is damaged.
    """
    texts: dict[str, str] = {}
    for _, data in contents(package, lambda name: bool(re.search(r"/core-sounds-\w+\.txt\.gz$", name))):
        for line in _unzipped(data, package).splitlines():
            name, colon, text = line.partition(":")
            if colon and not line.startswith(";") and text.strip() and not re.search(r"[\[\](){}<>]", text):
                texts[name.strip()] = text.strip()
    return texts


def _unzipped(data: bytes, package: Path) -> str:
    try:
        return gzip.decompress(data).decode("utf-8-sig", "replace")
    except (OSError, EOFError, zlib.error) as error:
        raise OptionError(
            f"The texts in {package} are damaged: {error}.", "Delete it and fetch it again."
        ) from error


def decoded(data: bytes, suffix: str) -> Clip:
    """A recording from its bytes: G.722 at 16 kHz, GSM 06.10 at 8 kHz (both without a header), or what libsndfile reads.

    Raises:
        AudioError: It is damaged.
    """
    import soundfile

    try:
        if suffix == ".g722":
            return _g722(data)
        form = (
            {"format": "RAW", "subtype": "GSM610", "samplerate": 8000, "channels": 1}
            if suffix == ".gsm"
            else {}
        )
        return Clip.of(*soundfile.read(io.BytesIO(data), dtype="float32", **form))
    except (soundfile.SoundFileError, RuntimeError, ValueError, OSError) as error:
        raise AudioError(
            f"A {suffix} recording cannot be decoded: {error}.", "Fetch its package again."
        ) from error


def _g722(data: bytes) -> Clip:
    import av
    import numpy as np

    try:
        with av.open(io.BytesIO(data), "r", format="g722") as container:
            frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    except av.FFmpegError as error:
        raise ValueError(str(error)) from error
    return Clip.of(np.concatenate(frames), SAMPLING_RATE)


def _files(package: Path, pattern: str) -> list[str]:
    return sorted(
        name for name in _lengths(package) if re.fullmatch(pattern, name) and not _NO_SPEECH.search(name)
    )


def _spans(
    package: Path, voice: _Voice, file: str, texts: Mapping[str, str] | None
) -> Sequence[tuple[float, str | None]]:
    """Where a file's recordings begin and what is said in them: one at 0, several in music, none without its text."""
    if voice.labels.get("kind") == "music":
        seconds = _lengths(package)[file] / 16_000  # mono, 16 bits at 8 kHz
        return [(start * _PIECE, "") for start in range(int(seconds // _PIECE))]
    if voice.language is None:
        return [(0.0, "")]
    if texts is None:
        return [(0.0, None)]
    found = re.fullmatch(voice.pattern, file)
    text = texts.get(found["name"]) if found else None
    return [] if text is None else [(0.0, text)]


def _sound(name: str, package: Path, voice: _Voice, file: str, start: float, text: str | None) -> Sound:
    speech = {"speaker": voice.speaker, "gender": voice.gender, "kind": "speech"}
    more = {"package": package.stem, "licence": voice.licence, "file": Path(file).name}
    labels = (speech if voice.language else {}) | dict(voice.labels) | more
    make = partial(_read, package, file, start, _PIECE if labels["kind"] == "music" else None)
    return Sound(name, make, _PIECE if labels["kind"] == "music" else 3.0, text, voice.language, labels)


def _read(package: Path, file: str, start: float, seconds: float | None) -> Clip:
    data = _recordings(package).get(file)
    if data is None:
        raise AudioError(f"{package.name} holds no {file}.", "Fetch the package again.")
    clip = decoded(data, Path(file).suffix)
    return clip if seconds is None else clip.span(start, start + seconds)


@lru_cache(maxsize=1)  # sounds come package by package; unpacked they take at most 60 MB
def _recordings(package: Path) -> dict[str, bytes]:
    return dict(contents(package, lambda name: name.endswith((".g722", ".gsm", ".wav", ".ogg", ".oga"))))


@lru_cache
def _lengths(package: Path) -> dict[str, int]:
    """Bytes of every recording of a package."""
    return {name: len(data) for name, data in _recordings(package).items()}
