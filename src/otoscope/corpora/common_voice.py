"""Mozilla Common Voice: tab-separated lists beside a folder `clips`."""

from __future__ import annotations

from pathlib import Path

from otoscope.corpora.item import Item
from otoscope.corpora.manifest import decoded, lines_of
from otoscope.corpora.tables import tsv_rows
from otoscope.errors import ManifestError

_REQUIRED = ("client_id", "path", "sentence")
_LABELS = {"client_id": "speaker", "accents": "accent"}


def lists_in(folder: Path) -> list[Path]:
    """The Common Voice lists in a folder, by their column names."""
    return [path for path in sorted(folder.glob("*.tsv")) if path.is_file() and _is_list(path)]


def read_common_voice(path: Path | str) -> list[Item]:
    """Read a Common Voice list (`validated.tsv`), or the only list in a folder.

    `path` names a file in `clips/` beside the list. `client_id` becomes the label `speaker`, `sentence` the text, `accents`
    the label `accent`; the language is what `locale` says before a hyphen, as the models' codes have no regions. Every
    other column that is not empty becomes a label, as text.

    Raises:
        ManifestError: A folder has no list or several, the list cannot be read, or a line (named by its number, from 1)
            cannot be used.
    """
    path = Path(path)
    if path.is_dir():
        path = _only_list(path)
    found = [_item(row, path.parent, where) for row, where in tsv_rows(path)]
    if not found:
        raise ManifestError(f"The list {path} has no rows.", "Choose another list of the corpus.")
    return found


def _only_list(folder: Path) -> Path:
    found = lists_in(folder)
    if not found:
        raise ManifestError(f"{folder} has no Common Voice list.", "Name the .tsv file.")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ManifestError(f"{folder} has several lists: {names}.", f"Name one, such as {found[-1]}.")
    return found[0]


def _is_list(path: Path) -> bool:
    try:
        line, where = next(lines_of(path, "Write rows"))
        return set(_REQUIRED) <= set(decoded(line, where).split("\t"))
    except ManifestError:
        return False


def _item(row: dict[str, str], folder: Path, where: str) -> Item:
    for column in _REQUIRED[:2]:
        if column not in row:
            raise ManifestError(
                f"{where} has no {column}.", "Name a Common Voice list with client_id, path and sentence."
            )
    name = f"clips/{row['path']}"
    labels = {_LABELS.get(key, key): value for key, value in row.items() if key not in ("path", "sentence")}
    language = row.get("locale", "").partition("-")[0] or None
    return Item(name, folder / name, row.get("sentence"), language=language, labels=dict(labels))
