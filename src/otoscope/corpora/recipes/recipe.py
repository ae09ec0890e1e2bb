"""What a recipe is, and the one way in which all of them are made into a folder of recordings with a manifest."""

from __future__ import annotations

import hashlib
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from otoscope.audio import SAMPLING_RATE, Clip, info
from otoscope.corpora.item import Item
from otoscope.corpora.manifest import write_manifest
from otoscope.corpora.targets import items_or_texts
from otoscope.errors import AudioError, OptionError, OutputError
from otoscope.files import atomic_write, output_error, remove_abandoned
from otoscope.progress import goes_on_in, notice, track
from otoscope.showing import Shows
from otoscope.text_values import object_in
from otoscope.versions import versions

MANIFEST, SETTINGS, AUDIO = "manifest.jsonl", "recipe.json", "audio"
"""What a corpus's folder holds: the manifest, what it was made with, and the folder of recordings."""

_PACKAGES = ("espeakng-loader", "scipy", "av")  # what samples depend on beside the packages of every result
_BYTES_A_SECOND = 18_000  # FLAC at 16 kHz and 16 bits, on average over speech and noise
_WORTH_SAYING = 5.0, 50e6  # seconds and bytes from which the size of the work is said first


@dataclass(frozen=True)
class Sound:
    """One recording that is going to be made.

    Attributes:
        name: File name without its ending; unique, and safe for every file system.
        make: Makes the clip; gives the same samples whenever it is called.
        seconds: About how long the clip will be.
        text: What is said: "" where nothing is, None where it is not known.
        language: Language code, if something is said.
        labels: Everything else that is known.
    """

    name: str
    make: Callable[[], Clip] = field(repr=False)
    seconds: float
    text: str | None
    language: str | None = None
    labels: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """Settings from which a corpus follows: the same settings and versions give the same bytes.

    Attributes:
        seed: Of everything random in it.
    """

    name: ClassVar[str]
    pace: ClassVar[float]
    """Seconds of work for one recording, measured on one core."""
    source_of: ClassVar[str | None] = None
    """The setting that names a corpus to make this one from."""

    seed: int = 0

    @abstractmethod
    def sounds(self) -> Sequence[Sound]:
        """Everything that will be made, in the order of the manifest.

        Raises:
            OtoscopeError: A setting cannot be used.
        """

    def settings(self) -> dict[str, Any]:
        """The settings as plain JSON values; of a source corpus what it lists, wherever it lies."""
        told = {f.name: _plain(getattr(self, f.name)) for f in fields(self)}
        if self.source_of and told[self.source_of] is not None:
            told[self.source_of] = digest_of(items_or_texts(getattr(self, self.source_of)))
        return told


@dataclass(frozen=True)
class Made(Shows):
    """A corpus that was made.

    Attributes:
        manifest: Its manifest.
        items: What the manifest lists.
        fresh: How many recordings were made this time; the others were there already.
        skipped: Reasons why some could not be made, by name.
    """

    manifest: Path
    items: list[Item]
    fresh: int
    skipped: dict[str, str]

    @property
    def seconds(self) -> float:
        """Length of all recordings."""
        return sum(item.duration or 0.0 for item in self.items)

    def to_dict(self) -> dict[str, Any]:
        """The corpus in numbers, as plain JSON values."""
        return {
            "manifest": str(self.manifest),
            "recordings": len(self.items),
            "seconds": round(self.seconds, 3),
            "fresh": self.fresh,
            "skipped": self.skipped,
        }


def make_corpus(recipe: Recipe, folder: Path | str) -> Made:
    """Make a recipe's recordings and their manifest in a folder of their own.

    A run that was killed goes on where it stopped: every recording appears whole or not at all, and what is there is not made
    again. The manifest is written last. A recording whose samples exceed full scale is scaled down as a whole to fit.

    Args:
        recipe: What to make.
        folder: A new or empty folder, or one in which the same recipe was begun.

    Raises:
        OutputError: The folder holds something else, or cannot be written to.
        OtoscopeError: A setting cannot be used, or nothing at all could be made.
    """
    folder = Path(folder)
    new = _require_free(folder, recipe)
    sounds = recipe.sounds()
    if new:
        _claim(folder, recipe)
    try:
        (folder / AUDIO).mkdir(
            exist_ok=True
        )  # a process that was killed may have come no further than its claim
    except OSError as error:
        raise output_error(folder, error) from error
    _announce([s for s in sounds if not (folder / AUDIO / f"{s.name}.flac").exists()], recipe.pace)
    listed, skipped, fresh = [], {}, 0
    with goes_on_in(folder), track("Making recordings", len(sounds), "recordings") as task:
        for sound in sounds:
            path = folder / AUDIO / f"{sound.name}.flac"
            try:
                fresh += _ensure(path, sound)
            except AudioError as error:  # a silent or broken source recording must not stop the others
                skipped[sound.name] = str(error)
            else:
                listed.append(_item(path, folder, sound, recipe))
            task.advance()
    if skipped:
        notice(f"{len(skipped)} of {len(sounds)} recordings were skipped: {next(iter(skipped.values()))}")
    write_manifest(listed, folder / MANIFEST)
    remove_abandoned(folder / AUDIO)
    return Made(folder / MANIFEST, listed, fresh, skipped)


def seed_of(seed: int, *what: object) -> int:
    """A seed of its own for one random thing, so that no thing depends on how many others were made before it."""
    told = json.dumps([seed, *map(str, what)]).encode()
    return int.from_bytes(hashlib.sha256(told).digest()[:6])


def rng_of(seed: int, *what: object) -> np.random.Generator:
    """A random generator of its own for one thing; see `seed_of`."""
    return np.random.default_rng(seed_of(seed, *what))


def require_known(what: str, given: Sequence[str], known: Sequence[str]) -> None:
    """Refuse names that a recipe does not know, and none at all.

    Raises:
        OptionError: A name is unknown or there is none.
    """
    for name in given or [""]:
        if name not in known:
            raise OptionError(
                f"There is no {what} {name!r} in this recipe.", f"Choose among {', '.join(known)}."
            )


def require_counts(**counts: int) -> None:
    """Refuse numbers of things that are below one.

    Raises:
        OptionError: One is.
    """
    for name, count in counts.items():
        if count < 1:
            raise OptionError(f"{count} is no number of {name}.", "Give 1 or more.")


def digest_of(corpus: Sequence[Item]) -> str:
    """A fingerprint of a source corpus's list, so that a changed one is noticed when a recipe goes on."""
    told = [[i.audio_filepath, i.text, i.duration, i.offset, i.language, i.labels] for i in corpus]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def _wanted(recipe: Recipe) -> dict[str, Any]:
    return json.loads(json.dumps({"recipe": recipe.name, "settings": recipe.settings()}))


def _require_free(folder: Path, recipe: Recipe) -> bool:
    """Refuse a folder that is something else's; whether it is still to be made this recipe's own."""
    if not folder.is_dir():
        return True
    there = [path.name for path in folder.iterdir() if not path.name.endswith(".part")]
    if SETTINGS in there:
        _require_same(folder, _wanted(recipe))
        return False
    if there:
        raise OutputError(f"{folder} holds something else already.", "Choose a new or an empty folder.")
    return True


def _claim(folder: Path, recipe: Recipe) -> None:
    text = json.dumps(_wanted(recipe) | {"versions": _versions()}, indent=1, ensure_ascii=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / SETTINGS, "wb") as file:
            file.write(text.encode("utf-8", "backslashreplace") + b"\n")
    except OSError as error:
        raise output_error(folder, error) from error


def _require_same(folder: Path, wanted: dict[str, Any]) -> None:
    try:
        found = object_in(folder / SETTINGS)
        found, made_with = {key: found[key] for key in wanted}, found["versions"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{folder / SETTINGS} is not a recipe's.", "Choose a new folder.") from error
    if found != wanted:
        raise OutputError(
            f"{folder} was made with other settings ({_difference(found, wanted)}).",
            "Repeat those settings to go on with it, or choose a new folder.",
        )
    if made_with != _versions():
        notice(f"{folder} was begun with other versions; recordings made now may differ in single samples.")


def _difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    if found["recipe"] != wanted["recipe"]:
        return f"recipe {found['recipe']}"
    before, now = found["settings"], wanted["settings"]
    names = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    return ", ".join(f"{key} {json.dumps(before.get(key))[:60]}" for key in names)


def _versions() -> dict[str, str]:
    found = versions()
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _announce(sounds: Sequence[Sound], pace: float) -> None:
    work, size = len(sounds) * pace, sum(s.seconds for s in sounds) * _BYTES_A_SECOND
    if work > _WORTH_SAYING[0] or size > _WORTH_SAYING[1]:
        notice(f"{len(sounds)} recordings: about {size / 1e6:.0f} MB, and {work:.0f} s of work.")


def _ensure(path: Path, sound: Sound) -> bool:
    """Make a recording unless it is there; whether it was made."""
    import soundfile

    if path.exists():
        return False
    samples = sound.make().samples.astype(np.float64)
    samples /= max(1.0, float(np.abs(samples).max()))
    whole = np.clip(np.round(samples * 32768), -32768, 32767).astype(np.int16)
    encoded = io.BytesIO()
    soundfile.write(encoded, whole, SAMPLING_RATE, format="FLAC", subtype="PCM_16")
    with atomic_write(path, "wb") as file:
        file.write(encoded.getbuffer())
    return True


def _item(path: Path, folder: Path, sound: Sound, recipe: Recipe) -> Item:
    return Item(
        audio_filepath=path.relative_to(folder).as_posix(),
        path=path,
        text=sound.text,
        duration=info(path).duration,
        language=sound.language,
        labels={**sound.labels, "recipe": recipe.name, "seed": recipe.seed},
    )
