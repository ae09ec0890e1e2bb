"""`study context-bias`: does patching with noise turn a word that the context suggested into the word that was said?

The context-bias experiment of "Beyond Transcription" (arXiv 2508.15882): sentences with one acoustically ambiguous word and a
context that favours the wrong one; encoder and decoder components are replaced by what they are under white noise. What is
different here: each component stands beside random others on the same sentences and beside a random direction of the same
length, no pair of words is in both the discovery and the test half, and the winners are priced on ordinary speech.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otoscope.corpora import Item, items
from otoscope.corpora.recipes import Ambiguous
from otoscope.errors import ManifestError
from otoscope.outcomes import Rate
from otoscope.patching.judging import is_ambiguous
from otoscope.patching.references import Reference
from otoscope.patching.sweeping import SweepOptions, sweep_corpus, write_corpus
from otoscope.studies.corpora import made, ordinary_corpora
from otoscope.studies.repetition import sweep_report
from otoscope.studies.reports import percent, study_directory, table, write_report, write_results
from otoscope.versions import versions

if TYPE_CHECKING:
    import pandas as pd

    from otoscope.models.base import Model
    from otoscope.patching.components import Stack

PAPER = (
    "The paper, with white noise as reference, best of many interventions an item. Whisper-large-v3: 153 of 700 sentences wrong; "
    "some encoder intervention restores 85.0 %, some decoder intervention 82.4 %, any 88.9 %. Qwen2-Audio: 251 of 700 wrong; "
    "68.1 %, 58.6 %, 70.1 %. There is no random baseline."
)

NOTES = (
    "Speech is espeak-ng's, whose formant voices these models hear badly: many words are misheard in any context, see the "
    "neutral sentences.",
    "restored: the word that was said is written, the suggested one is not, and the sentence is nearer to what was said.",
    "Existence counts (some component restores it) rise with the number of components that are tried; the column of random "
    "directions tells how many disturbances of the same length do the same.",
)

_TOKENS = 60
"""Tokens written at most: the sentences have about a dozen words."""

WAYS: tuple[tuple[str, bool, str], ...] = (
    ("blocks under white noise", False, "noise"),
    ("blocks zeroed", False, "zero"),
)


def study_context_bias(
    model: Model, data: Sequence[Path | str], out: Path | str, *, seed: int = 0, batch: int | None = None
) -> dict[str, Any]:
    """Patch encoder and decoder where the context won over the sound.

    Args:
        model: A Whisper model or Qwen2-Audio.
        data: Manifests; none: the study makes its own below `out`. Sentences have the labels `spoken`, `competing` and `bias`;
            other recordings with a text (and sounds) are what winners are priced on.
        out: Directory for `results.json`, `report.md`, figures and the sweeps.
        seed: Of halves, random directions and noise.
        batch: Rows at once, which bounds the memory.

    Returns:
        What `results.json` holds.

    Raises:
        ManifestError: There are no such sentences.
        OutputError: The directory cannot be written.
    """
    with study_directory(out, "context-bias", model, data, seed) as out:
        corpus, priced = _corpora(model, data, out / "data", seed)
        written = write_corpus(
            model,
            corpus,
            SweepOptions(outcome="word", max_tokens=_TOKENS, seed=seed),
            out=out / "written",
            batch=batch,
        )
        misled = _misled(corpus)
        there = written.iloc[misled].assign(item=range(len(misled)))
        stacks: list[Stack] = list(reversed(model.points.stacks))  # type: ignore[arg-type]
        sweeps = {}
        for name, heads, reference in WAYS:
            for stack in stacks:
                options = SweepOptions(
                    stacks=(stack,),
                    heads=heads,
                    reference=Reference.of(reference, seed),
                    outcome="word",
                    max_tokens=_TOKENS,
                    group_by="pair",  # what helps "wheel" for "veal" must help other words, too
                    seed=seed,
                )
                where = out / "sweeps" / f"{stack}-{name.replace(' ', '-')}"
                found = sweep_corpus(
                    model,
                    [corpus[i] for i in misled],
                    options,
                    out=where,
                    priced=priced,
                    written=there,
                    batch=batch,
                )
                sweeps[f"{stack}, {name}"] = found.to_dict() | {
                    "any_direction": _any_direction(found).to_dict()
                }
        results = {
            "study": "context-bias",
            "model": model.describe(),
            "seed": seed,
            "biases": _by_bias(corpus, written),
            "sweeps": sweeps,
            "paper": PAPER,
            "notes": list(NOTES),
            "versions": versions(),
        }
        write_results(out, results)
        write_report(out, f"Context bias: {model.origin.name}", _report(results))
        return results


def _corpora(
    model: Model, data: Sequence[Path | str], folder: Path, seed: int
) -> tuple[list[Item], Sequence[Path | str]]:
    """The sentences, and the corpora that winners are priced on; none: the shipped recordings."""
    made_here = [] if data else [path for path in [made(Ambiguous(seed=seed), folder / "ambiguous")] if path]
    corpora = {path: items(path) for path in [*data, *made_here]}
    sentences = [item for found in corpora.values() for item in found if is_ambiguous(item)]
    if not sentences:
        raise ManifestError(
            "No recording has the labels spoken and competing.",
            "Make a corpus with `otoscope corpus make ambiguous`.",
        )
    if not data:
        return sentences, ordinary_corpora(model, folder, seed)
    return sentences, [
        path
        for path, found in corpora.items()
        if any(item.text is not None and not is_ambiguous(item) for item in found)
    ]


def _misled(corpus: Sequence[Item]) -> list[int]:
    """Items whose sentence suggests the other word; all, where the corpus does not tell."""
    misled = [i for i, item in enumerate(corpus) if item.labels.get("bias") == "misleading"]
    return misled or list(range(len(corpus)))


def _any_direction(found: Any) -> Rate:
    """Items that some random direction resolves: what the existence count has to be compared with."""
    return Rate.of(found.matrix("restored", control=True).any(axis=0).tolist())


def _by_bias(corpus: Sequence[Item], written: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """How often the other word is written, by what the sentence suggests."""
    wrong = {int(i) for i, has in zip(written["item"], written["has"], strict=True) if has}
    kinds = dict.fromkeys(str(item.labels.get("bias", "sentence")) for item in corpus)
    return {
        kind: Rate.of(
            [n in wrong for n, i in enumerate(corpus) if str(i.labels.get("bias", "sentence")) == kind]
        ).to_dict()
        for kind in kinds
    }


def _report(results: Mapping[str, Any]) -> list[str]:
    parts = [
        "How often the competing word is written in place of the spoken one:",
        table(
            ("the sentence is", "competing word written"),
            [(k, percent(r)) for k, r in results["biases"].items()],
        ),
        results["paper"],
        "Sentences that some component restores, and some random direction of the same length:",
        table(
            ("patched", "some component", "some random direction"),
            [
                (name, percent(s["any_component"]), percent(s["any_direction"]))
                for name, s in results["sweeps"].items()
            ],
        ),
    ]
    for name, sweep in results["sweeps"].items():
        parts += [f"## {name[0].upper()}{name[1:]}", *sweep_report(sweep, most=6)]
    return [*parts, *(f"- {note}" for note in results["notes"])]
