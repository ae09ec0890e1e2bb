"""Sweeps as documents: of a corpus, of tokens, and of one explained clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from otoscope.documents.base import JsonScalar
from otoscope.documents.sweep import SweepDoc, SweepItem, SweepOutcome, SweepPrice
from otoscope.errors import OptionError
from otoscope.figures.contents import grid_contents, sweep_contents
from otoscope.figures.grids import sweep_title
from otoscope.patching.price import named, price_rows
from otoscope.patching.results import PatchResult
from otoscope.patching.tokens import TokenResult

if TYPE_CHECKING:
    from otoscope.documents.explain import ExplainDoc

_CHARACTERS = 400
"""Characters kept of a text: loops are long and say the same."""

_OUTCOMES = 40_000
"""Outcomes kept in a document; of larger sweeps each component keeps those of the first items, and it is said."""

SEVERAL = 20
"""Cells from which on "among the largest 5 %" says something."""


def sweep_doc(result: PatchResult | TokenResult | Mapping[str, Any]) -> SweepDoc:
    """A sweep over a corpus as a document.

    Args:
        result: The result; its JSON will do, but has no texts of single items.
    """
    data = result if isinstance(result, Mapping) else result.to_dict()
    parts = sweep_contents(data)
    prices = _prices(data)
    winners = {(w["component"], w["head"]) for w in data["winners"]}
    for cell, effect in zip(parts["cells"], data["effects"], strict=True):
        place = (effect["component"], effect["head"])
        cell |= {"winner": place in winners, "price": prices.get(place)}
    notes = list(data["notes"])
    if isinstance(result, PatchResult):
        _add_texts(parts, result, notes)
    elif isinstance(result, TokenResult):
        _add_changes(parts, result, notes)
    told, price = data["options"], data["price"]
    return SweepDoc.model_validate(
        {
            "title": sweep_title(data),
            "model": data["model"]["name"],
            "headline": _headline(data),
            "about": _about(data),
            "items_name": "token" if told["outcome"] == "token" else "recording",
            **parts,
            "price_name": "rise of the error rate" if price else None,
            "prices": [
                SweepPrice(label=named(edit), rows=price_rows(edit["card"]))
                for edit in (price or {"edits": ()})["edits"]
            ],
            "price_note": price["note"] if price else None,
            "settings": _flat(told),
            "versions": {name: str(version) for name, version in data["versions"].items()},
            "notes": notes,
        }
    )


def _headline(data: Mapping[str, Any]) -> str:
    labels = {(e["component"], e["head"]): e["label"] for e in data["effects"]}
    found = [labels[w["component"], w["head"]] for w in data["winners"] if w["significant"]]
    if found:
        verb = "stands" if len(found) == 1 else "stand"
        return f"{', '.join(found)} {verb} out from random components on the discovery half."
    if not data["winners"]:
        return "No component does anything on the discovery half."
    best = data["winners"][0]
    strongest = labels[best["component"], best["head"]]
    found_none = f"Corrected for {len(data['effects'])} tries, no component stands out from random ones"
    return f"{found_none}; the strongest on the discovery half is {strongest}."


def _about(data: Mapping[str, Any]) -> str:
    options, model = data["options"], data["model"]["name"]
    what = (
        f"Components of {model} are patched with {options['reference']['kind']} (alpha {options['alpha']:g})"
    )
    if options["outcome"] == "token":
        return f"{what}, teacher-forced, and one token of each recording is looked at: {data['n_outcome']} of {data['n_items']}."
    rate = data["baseline_outcome"]
    return f"{what}, and what has the outcome “{options['outcome']}” is written again: {rate['count']} of {rate['n']} recordings."


def _prices(data: Mapping[str, Any]) -> dict[tuple[str, int | None], float]:
    """What each priced component adds to the error rate of ordinary speech, in the language that suffers most."""
    found = {}
    for edit in (data["price"] or {"edits": ()})["edits"]:
        rises = [
            told["difference"]
            for language, of in edit["card"]["speech"].items()
            if (told := of["wer" if language == "en" else "cer"])["difference"] is not None
        ]
        if rises:
            found[edit["component"], edit["head"]] = max(rises)
    return found


def _flat(options: Mapping[str, Any]) -> dict[str, JsonScalar]:
    """Settings as single values: nested ones with dotted names, lists joined."""
    out: dict[str, JsonScalar] = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            out |= {f"{name}.{inner}": of for inner, of in _flat(value).items()}
        elif isinstance(value, Sequence) and not isinstance(value, str):
            out[name] = ", ".join(map(str, value))
        else:
            out[name] = value
    return out


def _room(components: int, items: int, notes: list[str]) -> int:
    """How many items each component keeps."""
    room = max(1, min(items, _OUTCOMES // max(components, 1)))
    if room < items:
        notes.append(f"Details are kept of the first {room} of {items} items.")
    return room


def _add_texts(parts: dict[str, Any], result: PatchResult, notes: list[str]) -> None:
    """Every item's text before and after each patch; equal texts are kept once."""
    room = _room(len(result.components), result.n_outcome, notes)
    place = {item: i for i, item in enumerate(result.affected[:room])}
    parts["items"] = [
        SweepItem(
            name=str(result.names[item]),
            before=_shortened(result.lines[item]["text"]),
            half="discovery" if result.discovery[i] else "test",
        )
        for item, i in place.items()
    ]
    texts: dict[str, int] = {}
    for line in result.effects_table.to_dict("records"):
        if line["control"] or line["item"] not in place:
            continue
        verdict = next((v for v in ("restored", "collapsed", "resolved") if line[v]), "unchanged")
        text = texts.setdefault(_shortened(line["text"]), len(texts))
        outcome = SweepOutcome(item=place[line["item"]], verdict=verdict, text=text)  # type: ignore[arg-type]
        parts["cells"][line["component"]].setdefault("outcomes", []).append(outcome)
    parts["texts"] = list(texts)


def _add_changes(parts: dict[str, Any], result: TokenResult, notes: list[str]) -> None:
    """Every token's change under each patch."""
    room = _room(len(result.components), len(result.chosen), notes)
    parts["items"] = [
        SweepItem(
            name=str(result.names[c.item]),
            before=f"token {c.index}: {c.text}",
            half="discovery" if result.discovery[i] else "test",
        )
        for i, c in enumerate(result.chosen[:room])
    ]
    for i, cell in enumerate(parts["cells"]):
        cell["outcomes"] = [
            SweepOutcome(
                item=j,
                change=float(result.change[i, j]),
                verdict="resolved" if result.resolved[i, j] else "unchanged",
            )
            for j in range(room)
        ]


def _shortened(text: str | None) -> str:
    text = text or ""
    return text if len(text) <= _CHARACTERS else f"{text[: _CHARACTERS - 1]}…"


def ablation_doc(doc: ExplainDoc) -> SweepDoc:
    """The ablation of an explained clip as a document of its own, with all tokens as items.

    Raises:
        OptionError: Nothing was ablated, or no token was written.
    """
    change = doc.ablation.change.unpack().astype(float)
    if not change.size:
        raise OptionError("Nothing was ablated.", "Explain a clip in which something is said.")
    effects = [c.model_dump() | {"component": c.id} for c in doc.ablation.components]
    mean = change.mean(axis=1)
    kinds = [c.head is not None for c in doc.ablation.components]
    values = []
    for i, own in enumerate(mean):
        alike = [j for j, kind in enumerate(kinds) if kind == kinds[i] and j != i]
        beyond = np.quantile(np.abs(mean[alike]), 0.95) if len(alike) >= SEVERAL else np.inf
        others = float(mean[alike].mean()) if alike else None
        values.append(
            [
                {
                    "value": float(own),
                    "n": change.shape[1],
                    "random": others,
                    "stands_out": bool(abs(own) > beyond),
                }
            ]
        )
    parts = grid_contents(effects, values)
    for i, cell in enumerate(parts["cells"]):
        cell["outcomes"] = [{"item": j, "change": float(c)} for j, c in enumerate(change[i])]
    order = np.argsort(mean)
    return SweepDoc.model_validate(
        {
            "title": f"{doc.title}: ablation",
            "model": doc.model.name,
            "headline": f"Without {doc.ablation.components[order[0]].label} the written tokens lose most probability.",
            "about": "Each block and each head is zeroed in turn while the decoder is given the written tokens.",
            "items_name": "token",
            "measures": [
                {"name": "change", "title": "change of log p, mean over tokens", "unit": "nats", "control": "other cells",
                 "random": "the mean over the other blocks, or of a head over the other heads",
                 "stands_out": "its change is among the largest 5 % of the blocks, or of the heads"}
            ],
            **parts,
            "items": [{"name": f"token {t.index}", "before": t.text} for t in doc.transcript.tokens],
            "settings": doc.settings,
            "versions": doc.versions,
            "notes": ["Zero is no natural activation, and others may make up for what is zeroed."],
        }
    )  # fmt: skip
