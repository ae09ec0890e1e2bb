"""Hostile changes of valid files: in their bytes, and in the values of the JSON that they hold or begin with."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from random import Random
from typing import Any

from fuzz.target import SEPARATOR

DEEP = 3_000
"""Levels of nesting: more than Python's recursion, or a browser, takes."""

HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, -0.0, 1, 0.5, 2**31, 2**32 - 1, 2**53 + 1, 2**63, -(2**63) - 1, 2**64, 10**30, 1e308, 5e-324,
    float("inf"), float("-inf"), float("nan"), "", " ", ".", "..", "../../etc/passwd", "/etc/passwd", "C:\\con", "~", "\0",
    "\ud800", "\u202e", "\ufeff", "null", "NaN", "1e400", "-0", "<script>alert(1)</script>", "</script>", "'\"`$(id)", "%n%s",
    "http://127.0.0.1/", "file:///etc/passwd", "x" * 3_000, [], {}, [[]], [0] * 50, ["a"], {"": ""}, {"__class__": "x"},
)  # fmt: skip
"""Values to put where others are expected; NaN and the infinities as Python's JSON spells them."""

_INTEGERS = (
    0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**36, 2**62, 2**63 - 1, 2**63, 2**64 - 1,
)  # fmt: skip
_TOKENS = (
    b"\0", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\r", b"\n", b"\t", b'"', b",", b"\\", b"{", b"[", b"\xed\xa0\x80", b"1e400",
    b"NaN", b"-0", b"9" * 5_000, b"!!python/object/apply:os.system", b"&a [*a]", b"</script>", b"|", b"..",
)  # fmt: skip


def mutated(case: bytes, random: Random) -> bytes:
    """A changed case: one to three changes of one of its files."""
    parts = case.split(SEPARATOR)
    at = random.randrange(len(parts))
    for _ in range(random.choice((1, 1, 2, 3))):
        parts[at] = _changed(parts[at], random)
    if len(parts) > 1 and random.random() < 0.03:
        parts[at] = parts[random.randrange(len(parts))]
    return SEPARATOR.join(parts)


def _changed(part: bytes, random: Random) -> bytes:
    structured = [change for change in (_json_lines, _safetensors) if random.random() < 0.8]
    for change in structured:
        made = change(part, random)
        if made is not None:
            return made
    return _BYTES[random.randrange(len(_BYTES))](bytearray(part), random)


# JSON --------------------------------------------------------------------------------------------------------------------


def _json_lines(part: bytes, random: Random) -> bytes | None:
    """JSON, or one of its lines, with another value somewhere; None for what is no JSON."""
    if part.lstrip()[:1] not in (b"{", b"["):
        return None
    try:
        return _dumped(_value(json.loads(part), random), random)
    except (ValueError, RecursionError):
        pass
    lines = part.split(b"\n")
    at = random.randrange(len(lines))
    try:
        lines[at] = _dumped(_value(json.loads(lines[at]), random), random)
    except (ValueError, RecursionError):
        return None
    return b"\n".join(lines)


def _safetensors(part: bytes, random: Random) -> bytes | None:
    """A safetensors file with another value in its header; None for what is no such file."""
    if len(part) < 10 or part[8:9] != b"{":
        return None
    (size,) = struct.unpack("<Q", part[:8])
    try:
        header = _dumped(_value(json.loads(part[8 : 8 + size]), random), random)
    except (ValueError, RecursionError):
        return None
    told = len(header) if random.random() < 0.9 else random.choice(_INTEGERS)
    return struct.pack("<Q", told % 2**64) + header + part[8 + size :]


def _value(value: Any, random: Random) -> Any:
    """The value with one change in it, as likely at its top as at any depth."""
    if isinstance(value, dict) and value and random.random() < 0.85:
        key = random.choice(list(value))
        return _table(dict(value), key, random)
    if isinstance(value, list) and value and random.random() < 0.85:
        at = random.randrange(len(value))
        return _row(list(value), at, random)
    if isinstance(value, int | float) and not isinstance(value, bool) and random.random() < 0.4:
        return random.choice((value + 1, -value, value * 2, value * 1000, float(value), str(value)))
    return random.choice(HOSTILE)


def _table(value: dict[str, Any], key: str, random: Random) -> dict[str, Any]:
    kind = random.random()
    if kind < 0.12:
        del value[key]
    elif kind < 0.18:
        value[random.choice([*map(str, HOSTILE[20:30]), key + "x"])] = value[key]
    elif kind < 0.24:
        value[random.choice(list(value))] = value[key]
    else:
        value[key] = _value(value[key], random)
    return value


def _row(value: list[Any], at: int, random: Random) -> list[Any]:
    kind = random.random()
    if kind < 0.12:
        del value[at]
    elif kind < 0.24:
        value.insert(at, value[random.randrange(len(value))])
    else:
        value[at] = _value(value[at], random)
    return value


def _dumped(value: Any, random: Random) -> bytes:
    text = json.dumps(value)
    chance = random.random()
    if chance < 0.02:
        text = "[" * DEEP + "]" * DEEP
    elif chance < 0.04 and '": ' in text:  # the value of some key nested without end
        head, _, tail = text.partition('": ')
        text = f'{head}": {"[" * DEEP}{"]" * DEEP}, "x": {tail}'
    elif chance < 0.06 and text.startswith("{") and len(text) > 2:
        text = text[:-1] + "," + text[1:]  # every key twice
    return text.encode("utf-8", "surrogatepass")


# Bytes -------------------------------------------------------------------------------------------------------------------


def _flip(part: bytearray, random: Random) -> bytes:
    for _ in range(random.choice((1, 1, 2, 8))):
        if part:
            part[random.randrange(len(part))] ^= 1 << random.randrange(8)
    return bytes(part)


def _number(part: bytearray, random: Random) -> bytes:
    """A little- or big-endian integer of 1 to 8 bytes, most often in the head, where sizes stand."""
    size, value = random.choice((1, 2, 4, 8)), random.choice(_INTEGERS)
    reach = max(1, min(len(part), random.choice((16, 64, 512, len(part)))) - size + 1)
    at = random.randrange(reach)
    part[at : at + size] = (value % 2 ** (8 * size)).to_bytes(size, random.choice(("little", "big")))
    return bytes(part)


def _cut(part: bytearray, random: Random) -> bytes:
    return bytes(part[: random.randrange(len(part) + 1)])


def _removed(part: bytearray, random: Random) -> bytes:
    at = random.randrange(len(part) + 1)
    del part[at : at + random.choice((1, 2, 4, 8, 64))]
    return bytes(part)


def _repeated(part: bytearray, random: Random) -> bytes:
    at, size = random.randrange(len(part) + 1), random.choice((1, 4, 16, 64))
    return bytes(part[:at] + part[at : at + size] * random.choice((2, 3, 100)) + part[at:])


def _inserted(part: bytearray, random: Random) -> bytes:
    at = random.randrange(len(part) + 1)
    return bytes(part[:at] + random.choice(_TOKENS) + part[at:])


_BYTES: tuple[Callable[[bytearray, Random], bytes], ...] = (
    _flip,
    _flip,
    _number,
    _number,
    _cut,
    _removed,
    _repeated,
    _inserted,
)
