"""JSON and YAML from files and messages that anybody may have made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeGuard

_DEEPEST = 100
"""Lists and mappings within each other in a YAML text; files of settings have three or four."""


def object_of(text: str | bytes) -> dict[str, Any]:
    """The JSON object that a text is. Of a key that comes twice the last value counts, and NaN and infinities are taken.

    Raises:
        ValueError: It is no UTF-8, no JSON, no object, or nested more deeply than it can be read; the message says which.
    """
    try:
        # Of bytes the reader itself would guess among UTF-8, UTF-16 and UTF-32.
        value = json.loads(text.decode("utf-8-sig") if isinstance(text, bytes) else text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    return value


def object_in(path: Path | str) -> dict[str, Any]:
    """The JSON object that a file holds.

    Raises:
        OSError: It cannot be read.
        ValueError: See `object_of`.
    """
    return object_of(Path(path).read_bytes())


def yaml_of(text: str) -> Any:
    """The plain values that a YAML text is: no tag makes anything else, and no alias is followed.

    Raises:
        ValueError: It is no YAML, names objects of a program, has a tag that does not fit its value, refers to its own
            parts, or is nested too deeply.
    """
    import yaml

    try:
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError("it has aliases, by which a few lines stand for any number of values")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:  # reading on takes time that grows with the square of the depth
                raise ValueError("it is nested too deeply")
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except (LookupError, AttributeError, TypeError):  # such as `!!bool x`
        raise ValueError("a tag does not fit its value") from None


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a number; True and False, which Python counts among them, are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
