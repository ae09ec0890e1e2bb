"""What is wrong with a corpus, found before a model hears it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from otoscope.audio import SAMPLING_RATE, info
from otoscope.corpora.item import FIELDS, Item, key_of, labels_of
from otoscope.errors import AudioError
from otoscope.outcomes import script_mismatch
from otoscope.progress import track
from otoscope.showing import Shows

WINDOW = 30.0
"""Seconds that a Whisper model hears at once."""

SHORT = 0.1
"""Seconds below which hardly a syllable fits."""

SILENT = 1e-3
"""Largest distance from the mean, -60 dB of full scale, that counts as silence."""

FULL_SCALE = 0.999
CLIPPED = 1e-3
"""Share of samples at full scale from which a recording counts as clipped."""

DC_OFFSET = 0.02
"""Mean of the samples from which a recording counts as shifted; full scale is 1."""

_ROUNDING = 0.1  # seconds by which a manifest's duration may be off
_FEW = 20  # different values of a label that are worth a total each

Severity = Literal["error", "warning", "note"]
Kind = Literal[
    "unreadable",
    "missing label",
    "leak",
    "duration",
    "duplicate",
    "script",
    "silent",
    "clipped",
    "DC offset",
    "short",
    "long",
    "missing text",
]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing, about one item.

    Attributes:
        kind: What it is.
        severity: "error": results would be wrong or missing; "warning": look at it; "note": good to know.
        item: Index of the item.
        audio_filepath: The item's recording, as its manifest writes it.
        reason: One sentence: what is wrong.
        remedy: One sentence: what to do about it.
    """

    kind: Kind
    severity: Severity
    item: int
    audio_filepath: str
    reason: str
    remedy: str


@dataclass
class Total:
    """Items and seconds of sound."""

    items: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one more item."""
        self.items += 1
        self.seconds += seconds


@dataclass
class CorpusReport(Shows):
    """What `check` found.

    Attributes:
        items: How many items there are.
        readable: How many of them can be read.
        with_text: How many have a text, be it empty.
        seconds: Length of everything readable.
        findings: In the order of the items, those about the whole corpus last.
        totals: By label (`language`, the grouping label, `split`, those asked for, and those with at most 20
            values) and value as `key_of` writes it; "null" counts the items without the label. Unreadable items count
            with 0 s.
    """

    items: int
    readable: int = 0
    with_text: int = 0
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)
    totals: dict[str, dict[str, Total]] = field(default_factory=dict)

    def count(self, severity: Severity) -> int:
        """How many findings have this severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return asdict(self)


def check(items: Sequence[Item], labels: Sequence[str] = (), group_by: str = "speaker") -> CorpusReport:
    """Listen through a corpus and say what is wrong with it.

    One window of one recording is in memory at a time. Clipping and DC offset are those of the mono sound at 16 kHz that
    a model hears: a clipped recording that was turned down afterwards is not noticed.

    Args:
        items: The corpus.
        labels: Labels that every item must have; `FIELDS` count as labels.
        group_by: The label that two values of the label `split` must not share.
    """
    report = CorpusReport(len(items), with_text=sum(item.text is not None for item in items))
    alone = Counter(item.path for item in items)
    sounds: dict[bytes, int] = {}
    lengths = []
    with track("Checking", len(items), "recordings") as task:
        for index, item in enumerate(items):
            sound = _listen(item)
            report.findings += _about(index, item, sound, labels, alone[item.path] == 1, report.with_text > 0)
            if isinstance(sound, _Sound):
                report.readable += 1
                report.findings += _copies(index, items, sound, sounds)
            lengths.append(sound.seconds if isinstance(sound, _Sound) else 0.0)
            task.advance()
    report.findings += _leaks(items, group_by)
    report.seconds = sum(lengths)
    report.totals = _totals(items, lengths, ("language", group_by, "split", *labels))
    return report


@dataclass(frozen=True)
class _Sound:
    seconds: float
    low: float
    high: float
    mean: float
    at_full_scale: float  # share of samples
    digest: bytes

    @property
    def silent(self) -> bool:
        return max(self.high - self.mean, self.mean - self.low) < SILENT


def _listen(item: Item) -> _Sound | AudioError:
    count, full, total, low, high = 0, 0, 0.0, np.inf, -np.inf
    digest = hashlib.blake2b(digest_size=16)
    try:
        for clip in item.windows(WINDOW):
            samples = clip.samples
            digest.update(samples.tobytes())
            low, high = min(low, float(samples.min())), max(high, float(samples.max()))
            total += float(samples.sum(dtype=np.float64))
            full += int(np.count_nonzero(np.abs(samples) >= FULL_SCALE))
            count += len(samples)
    except AudioError as error:
        return error
    return _Sound(count / SAMPLING_RATE, low, high, total / count, full / count, digest.digest())


def _about(
    index: int,
    item: Item,
    sound: _Sound | AudioError,
    labels: Sequence[str],
    alone: bool,
    texts_expected: bool,
) -> Iterator[Finding]:
    def found(kind: Kind, severity: Severity, reason: str, remedy: str) -> Finding:
        return Finding(kind, severity, index, item.audio_filepath, reason, remedy)

    if isinstance(sound, AudioError):
        yield found("unreadable", "error", sound.reason, sound.remedy)
    else:
        yield from (found(*complaint) for complaint in _heard(sound))
        yield from (found(*complaint) for complaint in _lasting(item, sound, alone))
    for label in labels:
        if labels_of([item], label) == [None]:
            yield found("missing label", "error", f"It has no {label}.", "Label it or leave it out.")
    if item.text is None and texts_expected and "text" not in labels:
        yield found("missing text", "warning", "It has no text, others have.", "Add what is said.")
    if item.text and (scripts := script_mismatch(item.text, language=item.language)):
        yield found(
            "script",
            "warning",
            f"Its text is in {scripts[0]} script, but its language {item.language} is written in {scripts[1]}.",
            "Correct the text or the language, or error rates mean nothing.",
        )


_Complaint = tuple[Kind, Severity, str, str]


def _heard(sound: _Sound) -> Iterator[_Complaint]:
    if sound.silent:
        yield "silent", "warning", "It is silent.", "Leave it out, unless silence is meant."
    if sound.at_full_scale >= CLIPPED:
        share = f"{100 * sound.at_full_scale:.2g} % of its samples are at full scale"
        yield "clipped", "warning", f"It is clipped: {share}.", "Record or export it at a lower level."
    if abs(sound.mean) >= DC_OFFSET:
        shifted = f"Its samples are {sound.mean:+.3f} off zero on average."
        yield "DC offset", "warning", shifted, "Filter out what is below 20 Hz."
    if sound.seconds < SHORT:
        length = f"It lasts {1000 * sound.seconds:.0f} ms; hardly a syllable fits."
        yield "short", "warning", length, "Leave it out, or check where it was cut."
    if sound.seconds > WINDOW:
        length = f"It lasts {sound.seconds:.1f} s, more than one window of {WINDOW:g} s."
        yield "long", "note", length, "Nothing has to be done: it is cut at quiet places."


def _lasting(item: Item, sound: _Sound, alone: bool) -> Iterator[_Complaint]:
    if item.duration is None:
        return
    claim = f"Its duration is given as {item.duration:g} s, but"
    whole = info(item.path).duration
    if item.duration > sound.seconds + _ROUNDING:
        reason = f"{claim} the recording holds {sound.seconds:.2f} s from there."
        yield "duration", "warning", reason, "Correct the duration, or copy the recording again."
    elif alone and not item.offset and whole is not None and item.duration < whole - _ROUNDING:
        reason = f"{claim} the recording lasts {whole:.2f} s, and the rest is not heard."
        yield "duration", "warning", reason, "Leave the duration out, unless this span is meant."


def _copies(index: int, items: Sequence[Item], sound: _Sound, sounds: dict[bytes, int]) -> Iterator[Finding]:
    """A finding when an earlier item sounds exactly the same; silence has no copies."""
    first = sounds.setdefault(sound.digest, index)
    if first == index or sound.silent:
        return
    one, other = items[index], items[first]
    same = (one.path, one.offset, one.duration) == (other.path, other.offset, other.duration)
    how = "is listed a second time" if same else f"sounds exactly like {other.audio_filepath}"
    splits = labels_of([one, other], "split")
    if None not in splits and key_of(splits[0]) != key_of(splits[1]):
        reason = f"It {how}, which is in another split."
        yield Finding("leak", "error", index, one.audio_filepath, reason, "Keep it in one of the two.")
    else:
        yield Finding("duplicate", "warning", index, one.audio_filepath, f"It {how}.", "Leave it out.")


def _leaks(items: Sequence[Item], group_by: str) -> Iterator[Finding]:
    """One finding for every group that lies in several splits, at the first item of a second split."""
    splits: dict[str, list[str]] = defaultdict(list)
    first: dict[str, int] = {}
    for index, (group, part) in enumerate(
        zip(labels_of(items, group_by), labels_of(items, "split"), strict=True)
    ):
        if group is None or part is None:
            continue
        group, part = key_of(group), key_of(part)
        if part not in splits[group]:
            splits[group].append(part)
            if len(splits[group]) == 2:
                first[group] = index
    for group, index in first.items():
        reason = f"The {group_by} {group} is in the splits {', '.join(splits[group])}."
        remedy = "Divide the corpus again: `otoscope corpus split` keeps groups apart."
        yield Finding("leak", "error", index, items[index].audio_filepath, reason, remedy)


def _totals(
    items: Sequence[Item], lengths: Sequence[float], always: Sequence[str]
) -> dict[str, dict[str, Total]]:
    names = dict.fromkeys([*always, *(name for item in items for name in item.labels)])
    totals = {}
    for name in (name for name in names if name == "language" or name not in FIELDS):
        by_value: dict[str, Total] = defaultdict(Total)
        for value, seconds in zip(labels_of(items, name), lengths, strict=True):
            by_value[key_of(value)].add(seconds)
        if by_value.keys() != {"null"} and (name in always or len(by_value) <= _FEW):
            totals[name] = dict(sorted(by_value.items()))
    return totals
