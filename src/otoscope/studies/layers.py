"""`study lens`: when a word is settled, and what would be written if the encoder ended earlier.

The logit lens and the encoder lens of "Beyond Transcription" (arXiv 2508.15882) over recordings of real people, by language. Each
measure is a mean over tokens with an interval over recordings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otoscope.audio.samples import NAMES, sample
from otoscope.corpora import Item, items
from otoscope.corpora.recipes import Prompts
from otoscope.errors import AudioError, ManifestError
from otoscope.models.whisper import SpeechModel
from otoscope.progress import notice
from otoscope.studies.corpora import made, spoken_languages
from otoscope.studies.lens import LensSettings, Reader
from otoscope.studies.lens_corpus import lens_corpus
from otoscope.studies.reports import (
    cell,
    interval,
    percent,
    study_directory,
    table,
    write_report,
    write_results,
)
from otoscope.versions import versions
from otoscope.wording import number

if TYPE_CHECKING:
    from otoscope.models.base import Model

EACH = 15
"""Recordings a language, as the study takes them by itself."""

PAPER = (
    "The paper, with whisper-large-v3 (32 layers) on six languages of Common Voice: the final token's probability is near 0 "
    "up to about layer 20, then steep, near certain in the last three layers. Encoder lens: layers 0 to 22 empty or lone "
    "punctuation, 20 to 27 fluent but ungrounded text, 27 to 30 repetition loops in about 60 % of samples, 31 to 32 correct "
    "(0 is the embedding)."
)

NOTES = (
    "The lens reads a layer as if it were the last; a layer may hold what the lens cannot read.",
    "Saturated: from this layer on the written token stays on top.",
    "Phoneme error: of the five candidates against the written token; cosine: of their static word vectors.",
    "Encoder texts are compared with what was said, where that is known, else with the final transcript; they are at most "
    "100 tokens long or twice the transcript.",
)


def study_lens(
    model: Model, data: Sequence[Path | str], out: Path | str, *, seed: int = 0, batch: int | None = None
) -> dict[str, Any]:
    """Read a corpus with every lens.

    Args:
        model: A Whisper model or Qwen2-Audio.
        data: Manifests; none: the study fetches recordings of real people with transcripts, of the languages the model knows, or
            takes the shipped ones.
        out: Directory for `results.json`, `report.md` and figures.
        seed: Of the choice of recordings and of intervals.
        batch: Encoder layers decoded at once.

    Returns:
        What `results.json` holds.

    Raises:
        ManifestError: No recording can be read.
        OutputError: The directory cannot be written.
    """
    with study_directory(out, "lens", model, data, seed) as out:
        return _study(model, data, out, seed, batch)


def _study(
    model: Model, data: Sequence[Path | str], out: Path, seed: int, batch: int | None
) -> dict[str, Any]:
    corpus = [item for path in data for item in items(path)] or _own(model, out / "data", seed)
    by_language: dict[str, list[Item]] = {}
    for item in corpus:
        by_language.setdefault(item.language or "unknown", []).append(item)
    languages = {}
    for language, recordings in by_language.items():
        settings = LensSettings(language=_told(model, language), closeness=True, batch=batch, seed=seed)
        try:
            read = lens_corpus(Reader(model, settings), recordings)
        except AudioError as error:
            notice(f"The recordings in {language} are left out: {error.reason}")
            continue
        languages[language] = read.summary() | {"skipped": len(read.skipped)}
    if not languages:
        raise ManifestError("None of the recordings can be read.", "Check them with `otoscope corpus check`.")
    results = {
        "study": "lens",
        "model": model.describe(),
        "seed": seed,
        "languages": languages,
        "paper": PAPER,
        "notes": list(NOTES),
        "versions": versions(),
    }
    write_results(out, results)
    write_report(out, f"What the layers of {model.origin.name} would write", _report(results))
    return results


def _own(model: Model, folder: Path, seed: int) -> list[Item]:
    languages = spoken_languages(model)
    manifest = made(Prompts(seed=seed, languages=languages, per_speaker=EACH), folder)
    if manifest:
        return items(manifest)
    notice("The shipped recordings are read.")
    return [Item(name, sample(name), language="en") for name in NAMES]


def _told(model: Model, language: str) -> str | None:
    """The language to decode in; None lets the model detect it."""
    if not isinstance(model, SpeechModel) or not model.is_multilingual:
        return None
    return language if language in model.languages else None


def _report(results: Mapping[str, Any]) -> list[str]:
    parts = ["Layers are counted from 0; a layer is the residual stream after its block.", results["paper"]]
    for language, summary in results["languages"].items():
        parts += [
            f"## {cell(language)}: {summary['recordings']} recordings, {summary['tokens']} tokens",
            _decoder_table(summary),
            _encoder_table(summary),
        ]
    return [*parts, *(f"- {note}" for note in results["notes"])]


def _decoder_table(summary: Mapping[str, Any]) -> str:
    names = ("p_final", "saturated", "phoneme_error", "cosine")
    rows = []
    for layer in summary["layers"]:
        cells = [layer.get(name) for name in names]
        told = (f"{number(c['mean'])} ({interval(c['ci_low'], c['ci_high'])})" if c else "–" for c in cells)
        rows.append((layer["layer"], *told))
    header = (
        "decoder layer",
        "probability of the written token",
        "share saturated",
        "phoneme error",
        "cosine",
    )
    return table(header, rows)


def _encoder_table(summary: Mapping[str, Any]) -> str:
    kinds = list(summary["encoder"][0]["types"]) if summary["encoder"] else []
    rows = [
        (layer["layer"], *(percent(layer["types"][kind]) for kind in kinds)) for layer in summary["encoder"]
    ]
    return table(("encoder layer", *kinds), rows)
