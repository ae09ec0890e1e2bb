"""`study repetition`: which components keep a repetition loop going, beyond what any disturbance would end, and at what price.

The repetition experiment of "Beyond Transcription" (arXiv 2508.15882): zero a component, or replace it by what it is under white
noise, and write again. What is different here: a loop counts as restored only if the text has not collapsed; every component is
compared with a random other one on the same recordings and with a random direction of the same length; components are chosen on
one half of the loops and told from the other; and the chosen ones are priced on ordinary speech and on genuine repetitions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otoscope.corpora import Item, items
from otoscope.corpora.recipes import Loops
from otoscope.errors import ManifestError
from otoscope.patching.price import is_repeat, named, price_rows
from otoscope.patching.references import Reference
from otoscope.patching.sweeping import SweepOptions, sweep_corpus
from otoscope.studies.corpora import made, ordinary_corpora
from otoscope.studies.reports import (
    interval,
    percent,
    study_directory,
    table,
    write_report,
    write_results,
)
from otoscope.versions import versions
from otoscope.wording import number

if TYPE_CHECKING:
    from otoscope.models.base import Model

PAPER = (
    "The paper, with whisper-large-v3 (32 layers of 20 heads) on 102 utterances: cross-attention of layer 23 resolves 76 %, "
    "with layer 18 together 89 %; head 13 of layer 18 alone 78.1 %; self-attention and feed-forward have no measurable effect. "
    "It does not say how often a random component resolves a loop, nor what becomes of ordinary speech."
)

NOTES = (
    "Loops are made: speech backwards, babble, shuffled speech, long noisy speech. What ought to be written is not known, so "
    "restored means: no loop, and at least five tokens. It does not mean that the text is right.",
    "Decoding is greedy, without temperature fallback, with the checkpoint's suppress lists, at most 224 tokens.",
    "p: chance that a random other component of the same kind restores as many of the same recordings (exact, one-sided), "
    "corrected by Holm over all components of the sweep.",
)


@dataclass(frozen=True)
class Sweep:
    """One sweep of the study."""

    name: str
    heads: bool
    reference: str
    sets: int = 0


SWEEPS = (
    Sweep("blocks zeroed", heads=False, reference="zero"),
    Sweep("heads zeroed", heads=True, reference="zero", sets=6),
    Sweep("blocks under white noise", heads=False, reference="noise"),
)


def own_corpora(model: Model, folder: Path, seed: int = 0) -> tuple[list[Path], list[Path]]:
    """Make the study's corpora.

    Args:
        model: The languages of the ordinary speech are the model's.
        folder: Where.
        seed: Of the recipes.

    Returns:
        Manifests of loops, and those that edits are priced on.

    Raises:
        ManifestError: The loops cannot be made.
    """
    loops = made(Loops(seed=seed), folder / "loops")
    if loops is None:
        raise ManifestError(
            "The loops cannot be made.", "Install `otoscope[synth]`, or give manifests with --data."
        )
    return [loops], ordinary_corpora(model, folder, seed)


def study_repetition(
    model: Model, data: Sequence[Path | str], out: Path | str, *, seed: int = 0, batch: int | None = None
) -> dict[str, Any]:
    """Find and price the components behind repetition loops.

    Args:
        model: A Whisper model or Qwen2-Audio.
        data: Manifests; none: the study makes its own below `out`. Recordings without a text, and sounds, are tried for loops;
            recordings with a text (and sounds) are what edits are priced on.
        out: Directory for `results.json`, `report.md`, figures and the sweeps.
        seed: Of recipes, halves, random directions and noise.
        batch: Rows at once, which bounds the memory.

    Returns:
        What `results.json` holds.

    Raises:
        ManifestError: There is nothing that could loop.
        OutputError: The directory cannot be written.
    """
    with study_directory(out, "repetition", model, data, seed) as out:
        tried, priced = _corpora(model, data, out / "data", seed)
        sweeps, written = {}, None
        for sweep in SWEEPS:
            options = SweepOptions(
                heads=sweep.heads, reference=Reference.of(sweep.reference, seed), sets=sweep.sets, seed=seed
            )
            where = out / "sweeps" / sweep.name.replace(" ", "-")
            found = sweep_corpus(
                model, tried, options, out=where, priced=priced, written=written, batch=batch
            )
            written = found.baseline  # the same for all
            sweeps[sweep.name] = found.to_dict()
        results = {
            "study": "repetition",
            "model": model.describe(),
            "seed": seed,
            "sweeps": sweeps,
            "kinds": _by_kind(tried, next(iter(sweeps.values()))),
            "paper": PAPER,
            "notes": list(NOTES),
            "versions": versions(),
        }
        write_results(out, results)
        write_report(out, f"Repetition loops: {model.origin.name}", _report(results))
        return results


def _corpora(
    model: Model, data: Sequence[Path | str], folder: Path, seed: int
) -> tuple[list[Item], Sequence[Path | str]]:
    if not data:
        loops, priced = own_corpora(model, folder, seed)
        return [item for path in loops for item in items(path)], priced
    corpora = {path: items(path) for path in data}
    tried = [item for found in corpora.values() for item in found if not item.text and not is_repeat(item)]
    if not tried:
        raise ManifestError(
            "There is no recording that could loop: all have a text.",
            "Add a manifest of `otoscope corpus make loops`.",
        )
    return tried, [path for path, found in corpora.items() if any(item.text is not None for item in found)]


def _by_kind(tried: Sequence[Item], result: Mapping[str, Any]) -> dict[str, list[int]]:
    """Of every kind of recording how many loop, and how many there are."""
    looping = {item["item"] for item in result["items"]}
    out: dict[str, list[int]] = {}
    for i, item in enumerate(tried):
        count = out.setdefault(str(item.labels.get("kind", "recording")), [0, 0])
        count[0] += i in looping
        count[1] += 1
    return out


# The report -------------------------------------------------------------------------------------------------------------


def _report(results: Mapping[str, Any]) -> list[str]:
    first = next(iter(results["sweeps"].values()))
    kinds = ", ".join(f"{kind} {count} of {n}" for kind, (count, n) in results["kinds"].items())
    parts = [
        f"{first['n_outcome']} of {first['n_items']} recordings loop ({kinds}). Layers and heads are counted from 0.",
        results["paper"],
    ]
    for name, sweep in results["sweeps"].items():
        parts += [f"## {name[0].upper()}{name[1:]}", *sweep_report(sweep)]
    return [*parts, *(f"- {note}" for note in results["notes"])]


def sweep_report(sweep: Mapping[str, Any], most: int = 10) -> list[str]:
    """Tables of one sweep: the strongest components, what sets cover, what the winners cost."""
    if not sweep["effects"] or not sweep["n_outcome"]:
        return ["Nothing had the outcome."]
    order = sorted(sweep["effects"], key=lambda e: (-e["restored"], -e["resolved"]))[:most]
    rows = [
        (
            e["label"],
            f"{e['resolved']} of {e['n']}",
            f"{e['restored']} ({interval(e['restored_ci_low'], e['restored_ci_high'], 2)})",
            number(e["restored_random_rate"], 2),
            number(e["restored_direction_rate"], 2),
            number(e["p_adjusted"]),
            f"{e['test']['restored']} of {e['test']['n']}",
        )
        for e in order
    ]
    head = (
        "component",
        "resolved",
        "restored",
        "random component",
        "random direction",
        "corrected p",
        "test half",
    )
    every = sweep["any_component"]
    return [
        table(head, rows),
        f"Some component or other restores {percent(every)} (the best of {len(sweep['effects'])} tries an item).",
        *_sets(sweep),
        *_prices(sweep),
    ]


def _sets(sweep: Mapping[str, Any]) -> list[str]:
    parts = []
    if sweep["cumulative"]:
        rows = [
            (i + 1, named(c), percent(c["discovery"]), percent(c["test"]), number(c["random_rate"], 2))
            for i, c in enumerate(sweep["cumulative"])
        ]
        head = ("components", "added", "covered, discovery half", "test half", "as many random ones, all")
        parts += ["Items that one of the components restores by itself:", table(head, rows)]
    if sweep["sets"]:
        lines = [*sweep["sets"]["greedy"], sweep["sets"]["minimal"]]
        names = [*("greedy" for _ in sweep["sets"]["greedy"]), "minimal"]
        rows = [
            (
                kind,
                " + ".join(map(named, line["components"])),
                number(line["discovery"], 2),
                number(line["test"], 2),
            )
            for kind, line in zip(names, lines, strict=True)
        ]
        parts += [
            "Patched at once:",
            table(("set", "components", "restored, discovery half", "test half"), rows),
        ]
    return parts


def _prices(sweep: Mapping[str, Any]) -> list[str]:
    if not sweep["price"]:
        return []
    rows = [
        (named(edit) + ("" if edit["significant"] else " (not significant)"), *row)
        for edit in sweep["price"]["edits"]
        for row in price_rows(edit["card"])
    ]
    parts = ["What the chosen edits cost:", table(("edit", "measure", "before", "after"), rows)]
    return [*parts, sweep["price"]["note"]] if sweep["price"]["note"] else parts
