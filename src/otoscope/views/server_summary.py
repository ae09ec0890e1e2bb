"""What a list of runs says of a document, read from its values without checking them all: hundreds are summed up in seconds."""

from __future__ import annotations

from typing import Any

from otoscope.runs.notes import LONGEST

_TEXT = 2000  # characters that can be searched
_LABEL = 300
_SILENT = 0.6  # Whisper's own threshold of no-speech
_MOST = 1e7  # of any number: what is larger, such as a recording of months, is taken for damage


def summary(data: Any) -> dict[str, Any] | None:
    """Kind, title, model, text, note, duration and flags of a document or a run's description, as far as it has them.

    Returns:
        The fields by name, whatever the values hold; None if it is nothing of ours.
    """
    if not isinstance(data, dict) or not isinstance(data.get("kind"), str):
        return None
    found: dict[str, Any] = {"kind": data["kind"][:40], "title": _text(data, "title")[:_LABEL]}
    models = (
        ("model", "name"),
        ("model",),
        ("graph", "model"),
        ("settings", "model"),
        ("settings", "model", "name"),
    )
    found["model"] = next(filter(None, (_text(data, *path) for path in models)), "")[:_LABEL]
    texts = (
        ("transcript", "text"),
        ("after", "transcript", "text"),
        ("graph", "text"),
        ("text",),
        ("corpus",),
        ("settings", "corpus"),
    )
    found["text"] = next(filter(None, (_text(data, *path).strip() for path in texts)), "")[:_TEXT]
    found["note"] = _text(data, "note").strip()[:LONGEST]
    lengths = (
        _at(data, *path) for path in (("audio", "duration"), ("sound", "audio", "duration"), ("duration",))
    )
    found["duration"] = next((float(value) for value in lengths if _is_number(value)), None)
    found["flags"] = tuple(_flags(data))
    return found


def _flags(data: dict[str, Any]) -> list[str]:
    """What to beware of in a run, the gravest first."""
    flags = []
    alarm = _at(data, "risk", "alarm")
    if _is_number(alarm):
        flags.append(f"alarm at token {alarm}")
    silent, wrong = _at(data, "transcript", "no_speech_prob"), _at(data, "transcript", "wer")
    if _is_number(silent) and silent > _SILENT:
        flags.append("perhaps no speech")
    if _is_number(wrong) and wrong > 0:
        flags.append(f"word error rate {100 * wrong:.0f} %")
    cautions = data.get("cautions")
    if isinstance(cautions, list) and cautions:
        flags.append("caution" if len(cautions) == 1 else f"{len(cautions)} cautions")
    if _text(data, "model", "mended"):
        flags.append("mended")
    return flags


def _at(data: Any, *path: str) -> Any:
    for step in path:
        data = data.get(step) if isinstance(data, dict) else None
    return data


def _text(data: Any, *path: str) -> str:
    value = _at(data, *path)
    return value if isinstance(value, str) else ""


def _is_number(value: Any) -> bool:
    """Whether it is a number that any of ours could be: finite, not below 0 and of a sane size."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value <= _MOST  # never true of NaN
