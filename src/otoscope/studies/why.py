"""`study why`: single words explained from graph to intervention to repaired output, with what the graph did not explain.

Four cases: a word that was heard rightly, a word that was written wrongly in real speech, a word that its sentence bent, and a
repetition loop. For each the word is traced against what ought to stand there (a loop against its end, a right word against the
runner-up). Features that speak for it are taken away in the model, those that speak against it doubled, as few as it takes; the
text is written again; and the same is done to random features of equal activation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from otoscope.audio.samples import sample
from otoscope.circuits.checking import random_features, total_effects
from otoscope.circuits.graph import FEATURE, HEARING, AttributionGraph
from otoscope.circuits.heard import END, Heard, listen, written_target
from otoscope.circuits.hearing_runs import Change, react
from otoscope.circuits.interventions import Intervention, intervening
from otoscope.circuits.speech import trace_speech
from otoscope.circuits.speech_tracing import SpeechSettings, SpeechTracer
from otoscope.circuits.summary import node_words, segment_words, summary_lines
from otoscope.circuits.swapping import swap
from otoscope.corpora import Item, items
from otoscope.corpora.recipes import Ambiguous, Loops
from otoscope.errors import ModelError, OptionError
from otoscope.lenses.listening import write
from otoscope.models.transcripts import DecodeOptions
from otoscope.models.whisper import SpeechModel
from otoscope.outcomes import loop_signs
from otoscope.progress import notice, track
from otoscope.studies.corpora import made
from otoscope.studies.reports import study_directory, table, write_report, write_results
from otoscope.versions import versions
from otoscope.wording import number

if TYPE_CHECKING:
    from otoscope.models.base import Model

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
"""Numbers of features that are changed at once, until the word is no longer written."""

WAYS = ("removed", "doubled", "both")
"""Features for the word removed; features against it doubled; as many of each."""

_CHECKED = 24
"""Features that are ablated one at a time, to tell how true a graph is."""

_COPIES = 3
"""Copies of what a loop repeats after which it is asked why it goes on."""

_FEWEST_WORDS = 4
"""A text of fewer words has collapsed."""

RANDOM = 8
"""Draws of random features beside each set."""

_MOST_POSITIONS = 128
"""Positions of the decoder that are used: loops would go on to the last."""

NOTES = (
    "Features are the model's own neurons at one position; what they supply is counted along all paths of the frozen model.",
    "Random features are of the same layers and positions, nearly as active, and no nodes of the graph.",
    "What ends a word here is told on the recording that it was found on: it is an explanation, no repair. Prices are those of "
    "`study repetition` and `study context-bias`.",
)


@dataclass(frozen=True, eq=False)
class Case:
    """One question.

    Attributes:
        name: Short name.
        question: In words.
        heard: The recording and its text.
        token: The written token, as `trace_speech` takes it.
        against: What it is compared with, or None.
        pair: The recording of the other word in the same sentence, or None.
    """

    name: str
    question: str
    heard: Heard
    token: int | str
    against: str | int | None
    pair: Item | None = None

    def answered(self, text: str) -> bool:
        """Whether a text written again is what was hoped for: without the word, with the right one, without a loop."""
        words = [word.strip(".,?!").casefold() for word in text.split()]
        if self.against == END:
            signs = loop_signs(text, seconds=self.heard.clip.duration)
            return not signs.is_loop and len(words) >= _FEWEST_WORDS
        if isinstance(self.against, str):
            return self.against.casefold() in words
        before = [word.strip(".,?!").casefold() for word in self.heard.transcript.text.split()]
        return words.count(str(self.token)) < before.count(str(self.token)) and len(words) >= _FEWEST_WORDS


def study_why(model: Model, data: Sequence[Path | str], out: Path | str, *, seed: int = 0) -> dict[str, Any]:
    """Explain single words.

    Args:
        model: A Whisper model in float32 or float64.
        data: Manifests of ambiguous words and of loops; none: the study makes its own below `out`.
        out: Directory for `results.json`, `report.md` and the graphs.
        seed: Of recipes and random features.

    Returns:
        What `results.json` holds.

    Raises:
        ModelError: The model is no recogniser.
        OutputError: The directory cannot be written.
    """
    if not isinstance(model, SpeechModel):
        raise ModelError("This model writes no transcripts.", "Explain a Whisper model.")
    with study_directory(out, "why", model, data, seed) as out:
        cases = [*_shipped(model), *_found(model, data, out / "data", seed)]
        with track("Explaining", len(cases), "words") as task:
            told = []
            for case in cases:
                told.append(_explained(model, case, out / "graphs" / case.name, seed))
                task.advance(1)
        results = {
            "study": "why",
            "model": model.describe(),
            "seed": seed,
            "cases": told,
            "notes": list(NOTES),
            "versions": versions(),
        }
        write_results(out, results)
        write_report(out, f"Why these words: {model.origin.name}", _report(results))
        return results


# Cases -------------------------------------------------------------------------------------------------------------------


def _options(model: SpeechModel) -> DecodeOptions:
    return DecodeOptions(language="en" if model.is_multilingual else None, max_positions=_MOST_POSITIONS)


def _shipped(model: SpeechModel) -> list[Case]:
    """Real speech that comes with the package."""
    heard = listen(model, sample("jfk"), _options(model))
    question = "Why was this word written, which was said, and not the next best?"
    cases = [Case("heard", question, heard, "country", _runner_up(model, heard, "country"))]
    heard = listen(model, sample("austen-0880"), _options(model))
    if "ill-disposed" not in heard.transcript.text.casefold():
        wrong = _word_after(heard, "an")
        if wrong:
            cases.append(
                Case("misheard", "Why was this written in place of what was said?", heard, wrong, "ill-disposed")
            )  # fmt: skip
    return cases


def _runner_up(model: SpeechModel, heard: Heard, word: str) -> int:
    """The best token of another word where a word begins."""
    index, _ = written_target(model, heard, word)
    with torch.no_grad():
        feed = {"input_features": heard.features, "decoder_input_ids": torch.tensor([heard.ids])}
        logits = model.forward(feed).logits[0, len(heard.prompt) + index - 1].clone()
    plain = word.strip().casefold()
    best = logits.argsort(descending=True)[:50].tolist()
    others = (
        t for t in best if not plain.startswith(model.tokenizer.decode([t]).strip().casefold() or plain)
    )
    return next(others)  # another word, not the same with a capital


def _word_after(heard: Heard, before: str) -> str | None:
    words = [word.text.strip() for word in heard.transcript.words]
    plain = [word.strip(".,").casefold() for word in words]
    return words[plain.index(before) + 1] if before in plain[:-1] else None


def _found(model: SpeechModel, data: Sequence[Path | str], folder: Path, seed: int) -> list[Case]:
    """A word that its sentence bent, and a loop, the first of each that the model writes."""
    manifests = [Path(path) for path in data] or [
        path
        for path in (
            made(Ambiguous(seed=seed), folder / "ambiguous"),
            made(Loops(seed=seed), folder / "loops"),
        )
        if path
    ]
    every = [item for path in manifests for item in items(path)]
    misled = [item for item in every if item.labels.get("bias") == "misleading"]
    others = [item for item in every if not item.text and "bias" not in item.labels]
    cases = []
    for what, tried, make in (("misled", misled, _misled), ("loop", others, _loop)):
        case = _first(model, tried, lambda heard, item, make=make: make(model, heard, item, every))
        if case:
            cases.append(case)
        else:
            notice(f"No recording for the case {what!r} was found among {len(tried)}.")
    return cases


def _first(
    model: SpeechModel, tried: Sequence[Item], make: Callable[[Heard, Item], Case | None]
) -> Case | None:
    with track("Looking for a case", len(tried), "recordings") as task:
        for item in tried:
            task.advance(1)
            try:
                heard = listen(model, item, _options(model))
            except ModelError:
                continue
            if (case := make(heard, item)) is not None:
                return case
    return None


def _misled(_model: SpeechModel, heard: Heard, item: Item, every: Sequence[Item]) -> Case | None:
    """The competing word in place of the one that was said, the rest of the sentence as it was."""
    spoken, competing = str(item.labels["spoken"]), str(item.labels["competing"])
    plain = heard.transcript.text.strip().casefold().rstrip(".")
    if plain != str(item.labels["competing_text"]).casefold().rstrip("."):
        return None
    pair = next(
        (
            other
            for other in every
            if other.text == item.labels["competing_text"]
            and other.labels.get("speaker") == item.labels.get("speaker")
        ),
        None,
    )
    question = f"“{spoken}” was said in a sentence that suggests “{competing}”: why was that written?"
    return Case("misled", question, heard, competing, spoken, pair=pair)


def _loop(model: SpeechModel, heard: Heard, _item: Item, _every: Sequence[Item]) -> Case | None:
    """Where a text begins to go round and round: after the third copy of what it repeats."""
    text, spell = heard.transcript, model.tokenizer.decode
    if not loop_signs(text.text, seconds=heard.clip.duration).is_loop:
        return None
    prefixes = (
        i for i in range(4, len(text.ids)) if (loop_signs(spell(text.ids[:i])).repeats or 0) >= _COPIES
    )
    start = next(prefixes, None)
    if start is None:
        return None
    return Case("loop", "What keeps it going, in place of the end of the text?", heard, start, END)


# Explaining --------------------------------------------------------------------------------------------------------------


def _explained(model: SpeechModel, case: Case, folder: Path, seed: int) -> dict[str, Any]:
    graph = trace_speech(
        model,
        case.heard,
        case.token,
        case.against,
        settings=SpeechSettings(nodes=500),
        options=_options(model),
    )
    graph.save(folder)
    tracer: SpeechTracer = graph.tracer  # type: ignore[assignment]
    totals, prompt = graph.record["totals"][0], int(graph.record["prompt_tokens"])
    tries = {way: _tries(graph, tracer, way, seed) for way in WAYS}
    return {
        "case": case.name,
        "question": case.question,
        "recording": Path(case.heard.clip.source or "recording").name,
        "text": case.heard.transcript.text.strip(),
        "target": graph.targets[0].label,
        "value": float(graph.values[-1]),
        "heard": float(sum(totals["sound"])),
        "from_text": float(sum(totals["tokens"][prompt:])),
        "in_any_case": float(totals["biases"] + totals["positions"] + sum(totals["tokens"][:prompt])),
        "grounding": graph.to_dict()["scores"]["grounding"],
        "rest": graph.scores().rest,
        "summary": summary_lines(graph),
        "sets": tries,
        "chosen": _chosen(model, case, graph, tracer, tries, seed),
        "silenced": _silenced(model, case, graph, tracer),
        "swapped": _swapped(model, case, graph) if case.pair else None,
        "check": {
            kind: {"n": len(each.free.measured), "correlation": each.free.correlation}
            for kind, each in graph.check(_CHECKED, seed).kinds.items()
        },
    }


def _ranked(graph: AttributionGraph, tracer: SpeechTracer) -> tuple[np.ndarray, np.ndarray]:
    """Decoder features, and what they supply along all paths: those that speak for the target most come first."""
    hearing = np.array([stream in HEARING for stream in graph.nodes.stream])
    nodes = np.flatnonzero((graph.nodes.kind == FEATURE) & ~hearing)
    supplied = total_effects(graph, tracer, nodes, tracer.targets)[:, 0]
    order = np.argsort(-supplied, kind="stable")
    return nodes[order], supplied[order]


def _set(
    graph: AttributionGraph, tracer: SpeechTracer, way: str, size: int
) -> tuple[list[tuple[int, float]], float]:
    """Nodes with the factor each is scaled by, and the change that the account predicts."""
    nodes, supplied = _ranked(graph, tracer)
    own, predicted = [], 0.0
    if way in ("removed", "both"):
        best = [i for i in range(min(size, len(nodes))) if supplied[i] > 0]
        own += [(int(nodes[i]), 0.0) for i in best]
        predicted -= float(supplied[best].sum())
    if way in ("doubled", "both"):
        worst = [i for i in range(len(nodes) - 1, max(len(nodes) - 1 - size, -1), -1) if supplied[i] < 0]
        own += [(int(nodes[i]), 2.0) for i in worst]
        predicted += float(supplied[worst].sum())
    return own, predicted


def _interventions(graph: AttributionGraph, chosen: Sequence[tuple[int, float]]) -> list[Intervention]:
    n = graph.nodes
    return [
        Intervention.scale(int(n.layer[i]), int(n.feature[i]), factor, (int(n.pos[i]),))
        for i, factor in chosen
    ]


def _at_random(
    graph: AttributionGraph,
    tracer: SpeechTracer,
    chosen: Sequence[tuple[int, float]],
    seed: int,
) -> list[list[Intervention]]:
    """The same done to random features, several draws."""
    nodes, draws = np.array([node for node, _ in chosen], dtype=np.int64), []
    for draw in range(RANDOM):
        rows = random_features(graph, tracer, nodes, seed + draw)
        draws.append([
            Intervention.scale(one.layer, one.feature, factor, one.positions)
            for row, (_, factor) in zip(rows, chosen, strict=True) for one in row
        ])  # fmt: skip
    return draws


def _tries(graph: AttributionGraph, tracer: SpeechTracer, way: str, seed: int) -> list[dict[str, Any]]:
    """The target under sets of growing size, and under random ones."""
    value, tries = float(graph.values[-1]), []
    for size in SIZES:
        chosen, predicted = _set(graph, tracer, way, size)
        if len(chosen) <= (tries[-1]["features"] if tries else 0):
            break  # there are no more
        rows = [_interventions(graph, chosen), *_at_random(graph, tracer, chosen, seed)]
        changes = react(tracer, [Change(decoder=tuple(row)) for row in rows], tracer.targets[:1])
        own, *others = changes[:, 0].double().tolist()
        tries.append(
            {
                "size": size,
                "features": len(chosen),
                "predicted_change": predicted,
                "change": own,
                "after": value + own,
                "random_change": float(np.mean(others)),
                "random_change_largest": float(np.abs(others).max()),
            }
        )
    return tries


def _chosen(
    model: SpeechModel,
    case: Case,
    graph: AttributionGraph,
    tracer: SpeechTracer,
    tries: dict[str, list[dict[str, Any]]],
    seed: int,
) -> dict[str, Any]:
    """The smallest set under which the text written again is what was hoped for, or else the one that lowers the target most."""
    ordered = sorted(((t["features"], way, t) for way in WAYS for t in tries[way]), key=lambda x: x[0])
    found = None
    for _, way, told in ordered:
        if told["after"] > 0:
            continue
        chosen, _ = _set(graph, tracer, way, told["size"])
        text = _written_again(model, case, tracer, _interventions(graph, chosen))
        if case.answered(text):
            found = way, told, chosen, text
            break
    if found is None:
        _, way, told = min(ordered, key=lambda x: x[2]["after"])
        chosen, _ = _set(graph, tracer, way, told["size"])
        text = _written_again(model, case, tracer, _interventions(graph, chosen))
        found = way, told, chosen, text
    way, told, chosen, text = found
    draws = _at_random(graph, tracer, chosen, seed)
    by_random = [_written_again(model, case, tracer, draw) for draw in draws]
    before = case.heard.transcript.text.strip()
    return {
        **told,
        "way": way,
        "answered": case.answered(text),
        "names": [node_words(graph, node) for node, _ in chosen[:6]],
        "text": text,
        "random_texts": by_random,
        "random_unchanged": sum(each == before for each in by_random),
        "random_answered": sum(case.answered(each) for each in by_random),
    }


def _written_again(
    model: SpeechModel,
    case: Case,
    tracer: SpeechTracer,
    features: Sequence[Intervention] = (),
    sound: torch.Tensor | None = None,
) -> str:
    """The text when features are changed, or with another spectrogram."""
    with torch.no_grad(), intervening(model, tracer.dictionary, [list(features)]):
        encoded = model.encode(case.heard.features if sound is None else sound)
        return write(model, case.heard.clip, encoded, _options(model))[0].text.strip()


def _silenced(
    model: SpeechModel, case: Case, graph: AttributionGraph, tracer: SpeechTracer
) -> dict[str, Any]:
    """The segment that speaks most for the target, silenced."""
    sound = np.array(graph.record["totals"][0]["sound"])
    segment = int(sound[:-1].argmax()) if len(sound) > 1 else 0
    at = tracer.segments.frames(segment)
    change = tracer.silenced(at)
    measured = float(react(tracer, [Change(sound=change)], tracer.targets[:1])[0, 0])
    quiet = case.heard.features.clone()
    quiet[..., 2 * int(at[0]) : 2 * (int(at[-1]) + 1)] = quiet.min()
    return {
        "segment": segment_words(graph, segment),
        "supplied": float(sound[segment]),
        "change": measured,
        "text": _written_again(model, case, tracer, sound=quiet),
    }


def _swapped(model: SpeechModel, case: Case, graph: AttributionGraph) -> dict[str, Any] | None:
    """Features set to what they are where the other word is said."""
    tracer: SpeechTracer = graph.tracer  # type: ignore[assignment]
    assert case.pair is not None
    other = listen(model, case.pair, _options(model))
    second = SpeechTracer(
        model, other.features, tracer.ids, tracer.segments, settings=tracer.settings, about=tracer.about
    )
    try:
        return swap(graph, second).to_dict() | {"recording": Path(str(case.pair.audio_filepath)).name}
    except OptionError as error:
        notice(f"The pair of {case.name!r} cannot be compared: {error}")
        return None


# The report --------------------------------------------------------------------------------------------------------------


def _report(results: dict[str, Any]) -> list[str]:
    parts = ["Layers, heads, positions and features are counted from 0; numbers without a unit are logits."]
    for case in results["cases"]:
        parts += _case_report(case)
    return [*parts, *(f"- {note}" for note in results["notes"])]


def _case_report(case: dict[str, Any]) -> list[str]:
    chosen, silenced = case["chosen"], case["silenced"]
    sets = table(
        ("way", "features", "predicted", "what happens", "left of the target", "random features (largest)"),
        [
            (
                way,
                t["features"],
                number(t["predicted_change"], 2),
                number(t["change"], 2),
                number(t["after"], 2),
                f"{number(t['random_change'], 2)} ({number(t['random_change_largest'], 2)})",
            )
            for way, tries in case["sets"].items()
            for t in tries
        ],
    )
    checks = ", ".join(
        f"{kind.replace('_', ' ')} {number(c['correlation'], 2)} (n = {c['n']})"
        for kind, c in case["check"].items()
    )
    draws = len(chosen["random_texts"])
    parts = [
        f"## {case['case'].capitalize()}: {case['target'].strip()}",
        f"{case['question']} ({case['recording']})",
        f"> {_short(case['text'])}",
        "\n".join(["```text", *case["summary"], "```"]),
        "Features that speak for it removed, features that speak against it doubled, or as many of both; at their positions:",
        sets,
        f"Written again with {chosen['features']} features {_WAYS[chosen['way']]}, the smallest set that "
        + (
            "gives what was hoped for:"
            if chosen["answered"]
            else "lowers it most, as none gives what was hoped for:"
        ),
        f"> {_short(chosen['text'])}",
        "The first of them: " + "; ".join(chosen["names"]) + ".",
        f"With as many random ones the text stays as it was in {chosen['random_unchanged']} of {draws} draws, and is what was "
        f"hoped for in {chosen['random_answered']}.",
        f"With {silenced['segment']} silenced, which supplied {silenced['supplied']:+.2f}, the target changes by "
        f"{silenced['change']:+.2f}, and written is:",
        f"> {_short(silenced['text'])}",
    ]
    if case["swapped"]:
        s = case["swapped"]
        parts.append(
            f"In {s['recording']}, where the other word is said in the same sentence, the target reads {s['other']:+.2f}. "
            "With the most influential decoder features set to what they are there it changes by "
            f"{s['all_decoder_features']:+.2f}, with that sound by {s['whole_sound']:+.2f}; one at a time, what is "
            f"predicted correlates with what happens by {number(s['each']['correlation'], 2)} "
            f"(random features: {number(s['random']['correlation'], 2)}; n = {s['each']['n']})."
        )
    parts.append(
        f"Not explained: {100 * case['rest']:.0f} % of the influence goes through features that are no nodes; predictions of "
        f"single interventions correlate with what happens by: {checks}."
    )
    return parts


_WAYS = {"removed": "removed", "doubled": "doubled", "both": "removed or doubled"}


def _short(text: str, most: int = 300) -> str:
    one = " ".join(text.split()).replace("<", "&lt;") or "(nothing)"
    return one if len(one) <= most else f"{one[:most]} …"
