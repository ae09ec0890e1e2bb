"""Parts of a monitor's corpus, and whether there is enough of everything: before anything is written, and once it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from otoscope.corpora import Item, split
from otoscope.errors import ManifestError
from otoscope.monitors.collecting import Text
from otoscope.monitors.verdicts import TARGETS, possible

SHARES = {"train": 0.5, "calibrate": 0.2, "test": 0.3}

LEAST = 16
"""Texts of each kind that a corpus must have; about half are learnt from."""

ORIGINS = 6
"""Sentences or sources that the texts of a kind must come from, for no two parts share one."""

LONGEST = 30.0
"""Seconds of a recording beyond which nothing is kept of it."""

_TRIES = 20  # divisions at most, until every part has everything


@dataclass(frozen=True)
class _Kind:
    """One answer to what is true of a text: how many texts must have it is `LEAST`, of ordinary speech `ordinary_needed`."""

    target: str
    answer: bool
    name: str
    remedy: str


_SPEECH = "clear speech with its text, in a manifest"
_KINDS = (
    _Kind(
        "invented", True, "invented texts",
        'sounds in which nobody speaks, with the text "" (`otoscope corpus make nonspeech`)',
    ),
    _Kind("invented", False, "texts that are not invented", _SPEECH),
    _Kind(
        "loop", True, "texts that loop",
        "recordings that make the model loop (`otoscope corpus make loops`; whisper-tiny.en loops on a third of them)",
    ),
    _Kind("loop", False, "texts that do not loop", _SPEECH),
    _Kind("ordinary", True, "recordings of ordinary speech", _SPEECH),
)  # fmt: skip


def origin(item: Item) -> str:
    """What must not be in two parts: the sentence, or what is said again and again; without either its source, else itself."""
    if item.labels.get("unit"):
        return str(item.labels["unit"]).casefold()
    if item.text:
        return " ".join(item.text.casefold().split())
    return str(item.labels.get("source") or item.audio_filepath)


# Enough of everything ---------------------------------------------------------------------------------------------------


def ordinary_needed(rate: float) -> int:
    """Recordings of ordinary speech in a corpus with which a rate of false alarms can be promised.

    The calibrating part needs 1 / rate - 1 (see `otoscope.monitors.thresholds.conformal_threshold`), and gets its share
    only by and large: one more is asked for.
    """
    return int(np.ceil(np.ceil(1 / rate - 1e-9) / SHARES["calibrate"] - 1e-9))


def require_possible(items: Sequence[Item], rate: float) -> None:
    """Refuse recordings that cannot be enough whatever is written, by their references, labels and lengths alone.

    Args:
        items: The recordings.
        rate: Share of ordinary speech on which the monitor may ring.

    Raises:
        ManifestError: It says what is missing, and how many.
    """
    usable = [item for item in items if item.duration is None or item.duration <= LONGEST]
    answers = [possible(item) for item in usable]
    _require(answers, usable, rate, f"{len(items)} recordings", "there can be at most", "")


def require_enough(texts: Sequence[Text], items: Sequence[Item], rate: float) -> None:
    """Refuse texts of which too few are of one kind.

    Args:
        texts: What was written.
        items: The recordings.
        rate: Share of ordinary speech on which the monitor may ring.

    Raises:
        ManifestError: It says what is missing, and how many.
    """
    names = {kind.target for kind in _KINDS}
    answers = [{name: (getattr(text.verdict, name),) for name in names} for text in texts]
    kept = " What has been written is kept: give these recordings and more to the same folder."
    _require(answers, [items[text.item] for text in texts], rate, f"{len(texts)} texts", "there are", kept)


def _require(
    answers: Sequence[Mapping[str, Collection[bool | None]]],
    items: Sequence[Item],
    rate: float,
    what: str,
    there: str,
    kept: str,
) -> None:
    origins = [origin(item) for item in items]
    reasons, remedies, instead = [], {}, ""
    for kind in _KINDS:
        of = [o for told, o in zip(answers, origins, strict=True) if kind.answer in told[kind.target]]
        ordinary = kind.target == "ordinary"
        least = ordinary_needed(rate) if ordinary else LEAST
        if len(of) < least:
            why = f" for a false-alarm rate of {rate:g}" if ordinary else ""
            have = "there are" if ordinary else there  # what is ordinary no text changes
            reasons.append(f"{least} {kind.name} are needed{why}, {have} {len(of)}: {least - len(of)} more")
            remedies[kind.remedy] = None
            lower = _possible_rate(len(of)) if ordinary else None
            instead = f" Or ask for a false-alarm rate of {lower:g}." if lower else ""
        elif len(set(of)) < ORIGINS:
            reasons.append(
                f"the {kind.name} come from {len(set(of))} different sentences or sources, and {ORIGINS} are needed"
            )
            remedies[kind.remedy] = None
    if reasons:
        raise ManifestError(
            f"A monitor cannot be fitted to these {what}: {'; '.join(reasons)}.",
            f"Add {'; '.join(remedies)}.{instead}{kept}",
        )


def _possible_rate(count: int) -> float | None:
    """The least rate of false alarms, in whole per cent, that so many recordings can promise; None: none below half."""
    return next((n / 100 for n in range(1, 50) if ordinary_needed(n / 100) <= count), None)


# Parts ------------------------------------------------------------------------------------------------------------------


def divided(texts: Sequence[Text], items: Sequence[Item], rate: float, seed: int) -> dict[str, list[Text]]:
    """Texts by part, none of which shares an origin with another; each has its share of what is to be told apart.

    Args:
        texts: What was written, enough of everything.
        items: The recordings.
        rate: Share of ordinary speech on which the monitor may ring.
        seed: Of the division; the next seeds are tried where a part lacks something.

    Raises:
        ManifestError: However they are divided, a part lacks something.
    """
    kinds = classes(texts, [origin(items[text.item]) for text in texts])
    labelled = [
        replace(items[text.item], labels={"origin": origin(items[text.item]), "kind": kind})
        for text, kind in zip(texts, kinds, strict=True)
    ]
    lacking = ""
    for attempt in range(seed, seed + _TRIES):
        names = split(labelled, SHARES, "origin", "kind", attempt)
        parts = {
            part: [text for text, name in zip(texts, names, strict=True) if name == part] for part in SHARES
        }
        lacking = _lacking(parts, items, rate)
        if not lacking:
            return parts
    raise ManifestError(
        f"However the texts are divided by sentence and source, the part to {lacking}.",
        "Add recordings of this kind, of other sentences or sources.",
    )


def _lacking(parts: Mapping[str, Sequence[Text]], items: Sequence[Item], rate: float) -> str:
    """Which part lacks what; empty where none lacks anything."""
    for part, texts in parts.items():
        for kind in _KINDS:
            of = [text for text in texts if getattr(text.verdict, kind.target) is kind.answer]
            origins = len({origin(items[text.item]) for text in of})
            # Folds of the training part leave one out.
            if origins < (2 if part == "train" and kind.target in TARGETS else 1):
                return f"{part} by has too few {kind.name}"
            if part == "calibrate" and kind.target == "ordinary" and len(of) < np.ceil(1 / rate - 1e-9) - 1:
                return f"{part} by has too few {kind.name} for a false-alarm rate of {rate:g}"
    return ""


def classes(texts: Sequence[Text], origins: Sequence[str]) -> list[str | None]:
    """What parts and folds have equal shares of.

    Texts of which all the same is true are a class, if they have several origins; else a coarser one, for a class of one origin
    cannot be in two parts, and one odd text is no reason to refuse a corpus. None where that has one origin, too.
    """
    fine = _with_several_origins([_all_of(text) for text in texts], origins)
    coarse: list[str | None] = [_worst_of(text) for text in texts]
    mixed = [f if f is not None else c for f, c in zip(fine, coarse, strict=True)]
    return _with_several_origins(mixed, origins)


def _all_of(text: Text) -> str:
    v = text.verdict
    return f"{v.invented} {v.loop} {v.ordinary}"


def _worst_of(text: Text) -> str:
    return "loop" if text.verdict.loop else "invented" if text.verdict.invented else "neither"


def _with_several_origins(names: Sequence[str | None], origins: Sequence[str]) -> list[str | None]:
    of: dict[str | None, set[str]] = {}
    for name, where in zip(names, origins, strict=True):
        of.setdefault(name, set()).add(where)
    return [name if len(of[name]) > 1 else None for name in names]
