"""English texts for language models and for voices to read: the sayings, quotations and poems of Debian's `fortunes`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from otoscope.corpora.item import Item
from otoscope.corpora.manifest import require_manifest_name, write_manifest
from otoscope.corpora.recipes.debian import contents, fetched
from otoscope.errors import OptionError

_PACKAGE, _FOLDER = "fortunes", "usr/share/games/fortunes/"
_NO_PROSE = ("ascii-art", "translate-me", "perl")
_SHORTEST = 40
"""Characters."""


def make_texts(out: Path | str, *, packages: Path | None = None, most: int | None = None) -> list[Item]:
    """Write a corpus of English texts: about 14,000, from a line to a page, by topic.

    Args:
        out: The manifest; texts as they stand in the package, without its drawings and its programs.
        packages: A folder with the package; None fetches it with apt-get (0.8 MB).
        most: At most so many of each topic, the first ones; None: all.

    Returns:
        The texts; the label `topic` is the file they come from.

    Raises:
        OptionError: The package cannot be had.
        OutputError: The file cannot be written.
    """
    if most is not None and most < 1:
        raise OptionError(f"{most} is no number of texts.", "Give 1 or more.")
    out = Path(out)
    require_manifest_name(out)
    package = fetched([_PACKAGE], packages)[_PACKAGE]
    found = list(_texts(package, most))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_manifest(found, out)
    return found


def _texts(package: Path, most: int | None) -> Iterator[Item]:
    def wanted(name: str) -> bool:
        path = PurePosixPath(name)
        return name.startswith(_FOLDER) and not path.suffix and path.name not in _NO_PROSE

    for name, data in sorted(contents(package, wanted)):
        labels: dict[str, object] = {"topic": PurePosixPath(name).name, "licence": "see Debian's fortunes"}
        whole = data.decode("utf-8", "replace")
        texts = [_plain(text) for text in re.split(r"^%\s*$", whole, flags=re.MULTILINE)]
        for text in [text for text in texts if len(text) >= _SHORTEST][:most]:
            yield Item("", Path(), text=text, language="en", labels=labels)


def _plain(text: str) -> str:
    """One line, without overstriking and other control characters."""
    return " ".join(re.sub(r".\x08|[\x00-\x08\x0b-\x1f\x7f]", "", text).split())
