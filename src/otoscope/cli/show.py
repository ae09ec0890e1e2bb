"""Text and JSON for people and programs."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Sequence
from typing import Any

_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def plain(text: str) -> str:
    """Text in which nothing steers the terminal: control, bidirectional and unpaired characters are escaped."""
    return "".join(_escaped(character) if _steers(character) else character for character in text)


def _steers(character: str) -> bool:
    return character in _BIDI_CONTROLS or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def say(*lines: str) -> None:
    """Print lines on stdout, whatever they hold."""
    for line in lines:
        print(plain(line))


def warn(line: str) -> None:
    """Print one warning on stderr."""
    print(f"warning: {plain(line)}", file=sys.stderr)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, columns two spaces apart; a column of numbers is aligned to the right by its caller."""
    shown = [[plain(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in shown
    ]


def write_json(data: Any, target: str, indent: int | None = 1) -> None:
    """Write JSON in UTF-8 to a file, whole or not at all, or to stdout.

    Args:
        data: Plain JSON values without NaN.
        target: A path, or "-" for stdout.
        indent: Spaces a level, or None for one line (a large result, which nobody reads).

    Raises:
        OutputError: The file cannot be written.
    """
    from otoscope.files import atomic_write

    text = json.dumps(data, ensure_ascii=False, allow_nan=False, indent=indent) + "\n"
    # File names need not be Unicode: "backslashreplace" writes their unpaired surrogates as JSON spells them.
    encoded = text.encode("utf-8", "backslashreplace")
    if target == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(encoded)
        return
    with atomic_write(target, "wb") as file:
        file.write(encoded)
