"""What a page may choose when it brings a recording: models with their languages, and monitors."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from otoscope.errors import OptionError
from otoscope.models.sources import status
from otoscope.monitors.monitor import Monitor
from otoscope.views.server_files import files_below

SHIPPED, NONE = "shipped", "none"
"""Monitors that have no folder: the one that comes with otoscope for the model, and no monitor at all."""

_ABOUT = "monitor.json"
_DEEPEST, _MOST = 6, 50  # folders in folders, and monitors, that are looked at
_LARGEST = 4 * 2**20  # bytes of a description


def models_offered(chosen: str) -> list[dict[str, Any]]:
    """Recognisers that a page may choose, ready for JSON: those known by a short name, and the one of this start.

    `languages` are the codes that it writes; empty: English alone; missing: nobody knows before it is opened.
    """
    listed = [
        {
            "name": s.entry.alias,
            "here": s.cached,
            "megabytes": round(s.size_bytes / 1e6),
            "languages": _languages(s.entry.alias),
        }
        for s in status()
        if s.entry.family == "whisper"
    ]
    if chosen not in {one["name"] for one in listed}:
        own = _languages_of_folder(Path(chosen))
        told = {} if own is None else {"languages": own}
        listed.insert(0, {"name": chosen, "here": True, "megabytes": 0} | told)
    return [one | {"chosen": one["name"] == chosen} for one in listed]


def _languages(alias: str) -> list[str]:
    """Codes of a Whisper model with a short name; OpenAI's English-only ones end in `.en`."""
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    return [] if alias.endswith(".en") else sorted(set(LANGUAGES) - {"yue"})  # that came with large-v3


def _languages_of_folder(folder: Path) -> list[str] | None:
    """Codes of a Transformers directory, where it says so."""
    with suppress(OSError, ValueError, AttributeError, KeyError, TypeError):
        told = json.loads((folder / "generation_config.json").read_text("utf-8"))
        if told.get("is_multilingual") is False:
            return []
        return sorted(str(token).strip("<|>") for token in told["lang_to_id"])
    return None


class Monitors:
    """Monitors that pages of a server may choose.

    Args:
        folder: The served folder, in which they are found.
        given: Further folders, named when the server was started.

    Raises:
        OptionError: A given folder holds none.
    """

    def __init__(self, folder: Path, given: Sequence[Path] = ()) -> None:
        self._folder = folder
        self._given = {path.resolve(): Monitor.load(path) for path in given}

    def offered(self) -> list[dict[str, Any]]:
        """Those with a folder, ready for JSON: an id, a name, the model that it was fitted to, and whether it was given."""
        return [
            {"id": id, "name": name, "model": model, "given": path in self._given}
            for id, (path, name, model) in self._found().items()
        ]

    def monitor(self, id: str) -> Monitor | Literal["shipped"] | None:
        """The one of an id; an id is never a path.

        Raises:
            OptionError: There is none, or it cannot be read.
        """
        if id in (SHIPPED, NONE):
            return SHIPPED if id == SHIPPED else None
        found = self._found().get(id)
        if found is None:
            raise OptionError("That monitor is not, or no longer, here.", "Reload the page and choose again.")
        return self._given.get(found[0]) or Monitor.load(found[0])

    def _found(self) -> dict[str, tuple[Path, str, str]]:
        named = [(path, path.name, str(monitor.model["name"])) for path, monitor in self._given.items()]
        abouts = (child for child in files_below(self._folder, _DEEPEST) if child.name == _ABOUT)
        for about in (Path(child.path) for child in islice(abouts, _MOST)):
            with suppress(OSError, ValueError, KeyError, TypeError):
                path = about.parent
                if path.resolve() in self._given or about.stat().st_size > _LARGEST:
                    continue
                told = json.loads(about.read_text("utf-8"))
                named.append((path, path.relative_to(self._folder).as_posix(), str(told["model"]["name"])))
        return {
            sha256(os.fsencode(path)).hexdigest()[:20]: (path, name, model) for path, name, model in named
        }
