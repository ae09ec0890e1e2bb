"""What a path on the command line stands for."""

from __future__ import annotations

from pathlib import Path

from otoscope.audio import SUFFIXES
from otoscope.audio.samples import where_else
from otoscope.corpora.audio_folder import metadata_files, read_audio_folder
from otoscope.corpora.common_voice import lists_in, read_common_voice
from otoscope.corpora.item import Item
from otoscope.corpora.kaldi import read_kaldi
from otoscope.corpora.manifest import MANIFEST_SUFFIXES, read_manifest, read_texts
from otoscope.errors import ManifestError
from otoscope.text_values import object_of

MANIFEST = "manifest.jsonl"
"""The manifest of a folder that has one."""


def items(target: Path | str) -> list[Item]:
    """The recordings that a path stands for.

    A folder is recognised by what is in it, in this order: with `manifest.jsonl` it is what that lists; with `wav.scp` it
    is a Kaldi data directory; with a `metadata.csv` or `metadata.jsonl` in it or below, an AudioFolder; with a `.tsv` file
    that has the columns `client_id`, `path` and `sentence`, Common Voice. Any other folder stands for every recording in it
    and below, sorted by path, hidden ones left out.

    Args:
        target: A manifest (`.jsonl`, `.json`, `.ndjson`), a Common Voice list (`.tsv`), a folder or one recording.

    Raises:
        ManifestError: The path does not exist, the manifest or folder cannot be used, or it holds no recordings.
    """
    target = Path(target)
    if target.is_dir():
        return _in_folder(target)
    if target.suffix.lower() in MANIFEST_SUFFIXES:
        return read_manifest(target)
    if target.suffix.lower() == ".tsv":
        return read_common_voice(target)
    if not target.exists():
        remedy = where_else(target, "Name a recording, a folder of recordings or a manifest.")
        raise ManifestError(f"{target} does not exist.", remedy)
    return [Item(str(target), target)]


def items_or_texts(target: Path | str) -> list[Item]:
    """The recordings that a path stands for, or the texts of a corpus for language models.

    Texts are a `.txt` file, one a line, or JSON lines of which the first has `text` and no `audio_filepath`.

    Raises:
        ManifestError: See `items` and `read_texts`.
    """
    target = Path(target)
    return read_texts(target) if _holds_texts(target) else items(target)


def _holds_texts(target: Path) -> bool:
    if not target.is_file() or target.suffix.lower() == ".txt":
        return target.is_file()
    if target.suffix.lower() not in MANIFEST_SUFFIXES:
        return False
    with target.open("rb") as file:
        first = next((line for line in file if line.strip()), b"")
    try:
        values = object_of(first)
    except ValueError:
        return False  # read_manifest tells what is wrong with it
    return "text" in values and "audio_filepath" not in values


def _in_folder(folder: Path) -> list[Item]:
    if (folder / MANIFEST).is_file():
        return read_manifest(folder / MANIFEST)
    if (folder / "wav.scp").is_file():
        return read_kaldi(folder)
    if metadata_files(folder):
        return read_audio_folder(folder)
    if lists_in(folder):
        return read_common_voice(folder)
    return _plain(folder)


def _plain(folder: Path) -> list[Item]:
    relative = sorted(path.relative_to(folder) for path in folder.rglob("*") if _is_recording(path))
    visible = [path for path in relative if not any(part.startswith(".") for part in path.parts)]
    if not visible:
        raise ManifestError(
            f"The folder {folder} holds no recordings.",
            f"Put files into it that end in {', '.join(sorted(SUFFIXES))}, or name another folder.",
        )
    return [Item(path.as_posix(), folder / path) for path in visible]


def _is_recording(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()
