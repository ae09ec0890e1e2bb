"""Transcribing a corpus: what was written, how well, and what had to be skipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otoscope.audio import info
from otoscope.corpora import Item
from otoscope.errors import AudioError, ModelError, OptionError
from otoscope.files import atomic_write, require_writable
from otoscope.models.transcripts import DecodeOptions, Transcript
from otoscope.outcomes import NO_SPEECH, ErrorRates, error_rates_by_language, is_loop, script_mismatch
from otoscope.progress import notice
from otoscope.showing import Shows
from otoscope.studies.subtitles import Format, file_names, to_srt, to_vtt
from otoscope.versions import versions

if TYPE_CHECKING:
    from otoscope.models.base import Model
    from otoscope.models.transcribing import Watcher
    from otoscope.models.whisper import SpeechModel

_DIGITS = 6
_NAMED = 10  # recordings that a doubt names; the JSON has the figures of all


@dataclass(frozen=True)
class Skipped:
    """A recording that could not be read.

    Attributes:
        audio_filepath: As the manifest writes it.
        reason: Why not.
        remedy: What to do about it.
    """

    audio_filepath: str
    reason: str
    remedy: str


@dataclass(frozen=True, eq=False)
class CorpusTranscript(Shows):
    """Transcripts of recordings, with error rates where references are known.

    Attributes:
        model: Facts about the model, see `Model.describe`.
        settings: How it was decoded.
        batch: Windows decoded at once.
        items: The recordings that could be read.
        transcripts: One an item, in the same order.
        skipped: The recordings that could not be read.
        rates: "total", then each language; empty when no item has a reference text.
        versions: Package to version.
    """

    model: Mapping[str, Any]
    settings: DecodeOptions
    batch: int
    items: tuple[Item, ...]
    transcripts: tuple[Transcript, ...]
    skipped: tuple[Skipped, ...]
    rates: Mapping[str, ErrorRates]
    versions: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready results; `wer`, `cer` and `wer_interval` are null without references."""
        total = self.rates.get("total")
        return {
            "model": self.model["name"],
            "wer": _rounded(total and total.wer),
            "cer": _rounded(total and total.cer),
            "wer_interval": _interval(total),
            "languages": {key: _counts(rates) for key, rates in self.rates.items() if key != "total"},
            "items": [
                _described(item) | transcript.to_dict()
                for item, transcript in zip(self.items, self.transcripts, strict=True)
            ],
            "skipped": [asdict(skipped) for skipped in self.skipped],
            "settings": self.settings.to_dict() | {"batch": self.batch},
            "model_details": dict(self.model),
            "versions": dict(self.versions),
        }

    def doubts(self) -> list[str]:
        """Which recordings show signs that the text, or the reference, is not what was said."""
        signs = {
            "may hold no speech (no-speech probability above 0.6)": lambda t: t.no_speech_prob > NO_SPEECH,
            "repeat themselves": lambda t: any(is_loop(s.text, language=t.language) for s in t.segments),
            "ran out of positions before the text ended": lambda t: not all(s.finished for s in t.segments),
        }
        if mended := self.model.get("mended"):
            signs[f"are empty under the repair {mended}"] = lambda t: not t.text.strip()
        heard = list(zip(self.items, self.transcripts, strict=True))
        found = {f"transcripts {sign}": [i for i, t in heard if shows(t)] for sign, shows in signs.items()}
        found["references are in another script than their language or transcript"] = [
            item
            for item, t in heard
            if item.text and script_mismatch(item.text, t.text, language=item.language)
        ]
        return [
            f"{len(those)} of {len(heard)} {sign}{_named(those, heard)}."
            for sign, those in found.items()
            if those
        ]

    def to_srt(self) -> str:
        """SubRip subtitles of the only recording.

        Raises:
            OptionError: There are several recordings, or none.
        """
        if len(self.transcripts) != 1:
            raise OptionError(
                f"{len(self.transcripts)} recordings do not go into one subtitle file.",
                "Write one file a recording with save_subtitles(folder).",
            )
        return to_srt(self.transcripts[0])

    def save_subtitles(self, out: Path | str, format: Format) -> None:
        """Write subtitles.

        Args:
            out: The file for a single recording; for several, a folder (made if it is not there) that gets one
                file each, named after the recording.
            format: "srt" or "vtt".

        Raises:
            OutputError: A file cannot be written.
        """
        out = Path(out)
        texts = [(to_srt if format == "srt" else to_vtt)(transcript) for transcript in self.transcripts]
        paths = [out]
        if _is_folder(out, len(self.items) + len(self.skipped)):
            out.mkdir(exist_ok=True)
            paths = [out / name for name in file_names((item.audio_filepath for item in self.items), format)]
        for path, text in zip(paths, texts, strict=True):
            with atomic_write(path) as file:
                file.write(text)


def _named(those: Sequence[Item], heard: Sequence[object]) -> str:
    """Which of several recordings, as the manifest writes them; the first of many."""
    if len(heard) == 1:
        return ""
    names = [item.audio_filepath for item in those[:_NAMED]]
    further = f" and {len(those) - _NAMED} more" if len(those) > _NAMED else ""
    return f": {', '.join(names)}{further}"


def transcribe_corpus(
    model: Model,
    items: Sequence[Item],
    options: DecodeOptions | None = None,
    *,
    batch: int | None = None,
    watcher: Watcher | None = None,
    store: Path | str | None = None,
) -> CorpusTranscript:
    """Transcribe recordings; those that cannot be read are skipped and named.

    An item's `language` does not force what is decoded: it chooses the normalisation of its text and the total
    that it counts in; without one, the language decoded in does. Translations get no error rates.

    Args:
        model: A Whisper model.
        items: The recordings.
        options: How to decode.
        batch: Windows decoded at once; None: `model.batch`.
        watcher: What reads the model meanwhile.
        store: Directory that keeps the transcripts in parts, begun or finished, see `kept_transcripts`; None: nothing is kept.

    Raises:
        AudioError: None of the recordings can be read.
        ModelError: The model does not transcribe.
        OptionError: The language or task does not fit the model; or the directory belongs to other settings, or is given with a
            watcher.
        EditError: A hook, an edit or a repair is in place, and transcripts are to be kept.
        OutputError: The directory cannot be written.
    """
    from otoscope.models.transcribing import transcribe_all
    from otoscope.models.whisper import SpeechModel
    from otoscope.studies.kept_transcripts import kept_transcripts

    if not isinstance(model, SpeechModel):
        raise ModelError(
            f"{model.origin.name} does not transcribe speech by itself.",
            "Use a Whisper model, such as whisper-base.",
        )
    if store is not None and watcher is not None:
        raise OptionError("What a watcher reads is not kept.", "Transcribe without keeping, or without it.")
    batch = batch or model.batch
    foreign = [item for item in items if item.language and not _speaks(model, item.language)]
    if foreign and not (options and options.language):
        marked = ", ".join(sorted({str(item.language) for item in foreign}))
        notice(
            f"{len(foreign)} of {len(items)} recordings are marked {marked}, which {model.origin.name} does not know: "
            "use a multilingual model, such as whisper-base, for them."
        )
    if store is None:
        outcomes = list(transcribe_all(model, items, options, batch=batch, keep_going=True, watcher=watcher))
    else:
        outcomes = kept_transcripts(model, items, options, store, batch=batch)
    heard = [(i, t) for i, t in zip(items, outcomes, strict=True) if isinstance(t, Transcript)]
    lost = [(i, e) for i, e in zip(items, outcomes, strict=True) if isinstance(e, AudioError)]
    if not heard:
        raise none_readable([error for _, error in lost])
    settings = heard[0][1].settings
    return CorpusTranscript(
        model=model.describe(),
        settings=settings,
        batch=batch,
        items=tuple(item for item, _ in heard),
        transcripts=tuple(transcript for _, transcript in heard),
        skipped=tuple(Skipped(item.audio_filepath, error.reason, error.remedy) for item, error in lost),
        rates={} if settings.task == "translate" else _rates(heard),
        versions=versions(),
    )


def _speaks(model: SpeechModel, language: str) -> bool:
    code = language.lower().replace("_", "-").split("-")[0]
    return code in model.languages if model.is_multilingual else code in ("en", "english")


def require_readable(items: Sequence[Item]) -> None:
    """Refuse early, by their headers, recordings of which not one can be read.

    Raises:
        AudioError: Why the first cannot.
    """
    errors: list[AudioError] = []
    for item in items:
        try:
            info(item.path)
            return
        except AudioError as error:
            errors.append(error)
    raise none_readable(errors)


def require_subtitles(out: Path | str, count: int) -> None:
    """Refuse early a place that `CorpusTranscript.save_subtitles` could not write to.

    Args:
        out: The file or folder.
        count: Number of recordings.

    Raises:
        OutputError: It cannot be written, or a folder is needed where a file is.
    """
    out = Path(out)
    if _is_folder(out, count) and out.exists():
        require_writable(out / "subtitles")  # a file in the folder's place is refused by the name beneath it
    else:
        require_writable(out)


def _is_folder(out: Path, count: int) -> bool:
    return count != 1 or out.is_dir()


def none_readable(errors: Sequence[AudioError]) -> AudioError:
    """What to say of recordings of which none can be read."""
    if not errors:
        return AudioError("There are no recordings.", "Name at least one.")
    if len(errors) == 1:
        return errors[0]
    return AudioError(
        f"None of the {len(errors)} recordings can be read; the first: {errors[0].reason}", errors[0].remedy
    )


def _rates(heard: Sequence[tuple[Item, Transcript]]) -> dict[str, ErrorRates]:
    utterances = [
        (item.text, transcript.text, item.language or transcript.language)
        for item, transcript in heard
        if item.text is not None
    ]
    return error_rates_by_language(utterances) if utterances else {}


def _described(item: Item) -> dict[str, Any]:
    known = {"audio_filepath": item.audio_filepath}
    if item.offset:
        known |= {"offset": item.offset}
    return known if item.text is None else known | {"reference": item.text}


def _counts(rates: ErrorRates) -> dict[str, Any]:
    return {
        "wer": _rounded(rates.wer),
        "cer": _rounded(rates.cer),
        "wer_interval": _interval(rates),
        "recordings": rates.n,
        "reference_words": rates.reference_words,
        "insertions": rates.insertions,
        "deletions": rates.deletions,
        "substitutions": rates.substitutions,
    }


def _interval(rates: ErrorRates | None) -> list[float | None] | None:
    return [_rounded(end) for end in rates.wer_interval] if rates and rates.wer_interval else None


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, _DIGITS)
