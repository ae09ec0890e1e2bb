"""A sweep over a corpus: which components take an outcome away when they are patched, beyond what any disturbance does.

The corpus is written once; every item that has the outcome is written again under a patch of each component, and once more under
each patch's control, which moves the same activation as far in a random direction. The other half of the control is the sweep
itself: a component is compared with a random other one of its kind, item by item. Components are chosen on one half of the items
and told from the other half, and the chosen ones have a price.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from otoscope.corpora import Item
from otoscope.errors import AudioError, EditError, ManifestError, OptionError
from otoscope.models.cache import cache_dir
from otoscope.models.decoding import batches
from otoscope.models.transcribing import transcribe
from otoscope.models.whisper import SpeechModel
from otoscope.outcomes import Detector
from otoscope.patching.aligning import frame_alignment
from otoscope.patching.changes import Change, check_alpha
from otoscope.patching.components import Component, Stack, chosen_components, main_stack
from otoscope.patching.controls import greedy_set, minimal_set
from otoscope.patching.judging import Judge, Outcome, Text, judge_of
from otoscope.patching.means import Means
from otoscope.patching.price import price_told, priced_on
from otoscope.patching.references import Reference
from otoscope.patching.results import PatchResult
from otoscope.patching.writing import (
    MAX_TOKENS,
    AudioLanguageWriter,
    WhisperWriter,
    Writer,
    Written,
    first_window,
    heard_of,
    window_of,
    writer_of,
)
from otoscope.progress import Silence, track
from otoscope.runs import Run, computed, elsewhere

if TYPE_CHECKING:
    import pandas as pd

    from otoscope.audio import Clip
    from otoscope.models.base import Model

KIND = "patching"
_BASELINE, _EFFECTS, _SETS = "baseline", "effects", "sets"
_SHARD = 16
MEANS_OF = 64  # items that corpus means are taken over


@dataclass(frozen=True)
class SweepOptions:
    """What is patched, with what, and what is looked for.

    Attributes:
        stacks: Stacks of the model; None: the one that writes.
        parts: Of `self_attn`, `cross_attn`, `mlp` and `resid`; None: all but `resid`.
        heads: Single heads; else whole blocks.
        reference: What components are mixed with.
        alpha: Share of the reference.
        outcome: `loop`, `hallucination`, or `word` (labels `spoken` and `competing`).
        detector: Of loops.
        max_tokens: Tokens written at most.
        winners: How many components are priced at most.
        sets: How many of the best components of the discovery half are candidates for sets that are applied at once; 0: no sets.
        direction_control: Also write every patch's random-direction control, which doubles the work.
        group_by: Label whose values must not be in both halves; items without it stand alone.
        language: Language to write in; None: the item's, else detected.
        seed: Of halves, random directions and noise.
    """

    stacks: tuple[Stack, ...] | None = None
    parts: tuple[str, ...] | None = None
    heads: bool = True
    reference: Reference = field(default_factory=Reference)
    alpha: float = 1.0
    outcome: Outcome = "loop"
    detector: Detector = "combined"
    max_tokens: int = MAX_TOKENS
    winners: int = 3
    sets: int = 0
    direction_control: bool = True
    group_by: str = "speaker"
    language: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_alpha(self.alpha)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        told = {k: v for k, v in asdict(replace(self, reference=Reference())).items() if k != "reference"}
        return told | {"reference": self.reference.to_dict()}


def sweep_corpus(
    model: Model,
    corpus: Sequence[Item],
    options: SweepOptions | None = None,
    *,
    out: Path | str | None = None,
    priced: Sequence[Path | str] | None = (),
    written: pd.DataFrame | None = None,
    batch: int | None = None,
) -> PatchResult:
    """Patch every component on every item that has the outcome, with controls, and price the winners.

    Args:
        model: A Whisper model or Qwen2-Audio.
        corpus: Recordings, of each of which the first window is taken.
        options: What to patch and what to look for.
        out: Directory of the run, begun or finished; None: one in otoscope's cache, named after all that it depends on.
        priced: Corpora that the winners are priced on; none: the shipped recordings. None prices nothing.
        written: What the model writes without a patch, from `write_corpus` or another sweep's `baseline`, of the same corpus,
            outcome and settings; None: it is written here.
        batch: Rows at once, which bounds the memory; None: `model.batch`.

    Returns:
        The result; with `n_outcome` 0 it has no effects.

    Raises:
        ModelError: The model does not hear.
        OptionError: A component or stack does not exist, or the directory belongs to another sweep.
        OutputError: Another process works in the directory, or it cannot be written.
        EditError: An edit is in place already.
        AudioError: None of the recordings can be read.
    """
    options = options or SweepOptions()
    if model.open_hooks:
        raise EditError("A hook or an edit is in place.", "Sweep outside of the block.")
    if not corpus:
        raise ManifestError("There are no recordings.", "Name at least one.")
    judge = judge_of(options.outcome, options.detector)
    judge.check(corpus)
    options.reference.check(window_of(model))
    chosen = chosen_components(model, options.stacks or (main_stack(model),), options.parts, options.heads)
    writer = writer_of(model, options.max_tokens, options.language)
    price_corpus = None if priced is None else priced_on(priced)
    settings = sweep_settings(model, corpus, options, chosen, price_corpus)
    path = Path(out) if out is not None else cache_dir() / "patching" / digest(settings)[:24]
    with Run.opened(path, KIND, settings) as run:
        sweep = _Sweep(
            model, writer, judge, list(corpus), options, chosen, run, batch or model.batch, written
        )
        result = sweep.result()
        if options.sets and result.winners:
            result = replace(result, sets=sweep.sets(result))
        if price_corpus is not None and result.winners:
            result = replace(result, price=sweep.price(result, price_corpus, bool(priced)))
        return result


def write_corpus(
    model: Model,
    corpus: Sequence[Item],
    options: SweepOptions,
    *,
    out: Path | str,
    batch: int | None = None,
) -> pd.DataFrame:
    """Write a corpus without a patch, so that several sweeps can start from it.

    Returns:
        One line an item: `item`, `text`, `ids`, `language`, `has` (the outcome) and `reason` (it could not be read).

    Raises:
        OptionError: The directory belongs to another job.
        AudioError: None of the recordings can be read.
    """
    settings = sweep_settings(model, corpus, options, [], None)
    judge, writer = (
        judge_of(options.outcome, options.detector),
        writer_of(model, options.max_tokens, options.language),
    )
    with Run.opened(out, "written", settings) as run:
        return _Sweep(model, writer, judge, list(corpus), options, [], run, batch or model.batch).baseline()


def sweep_settings(
    model: Model,
    corpus: Sequence[Item],
    options: SweepOptions,
    chosen: Sequence[Component],
    priced: Sequence[Item] | None,
) -> dict[str, Any]:
    """All that the results of a sweep depend on, JSON-ready: it belongs to one run directory and to no other."""
    facts = {k: v for k, v in model.describe().items() if k not in ("device", "source")}
    facts["sha256"] = model.weights_digest()
    clip = options.reference.clip
    return {
        "model": facts,
        "items": digest([_stamp(item) for item in corpus]),
        "priced": None if priced is None else digest([_stamp(item) for item in priced]),
        "components": [[c.id, c.head] for c in chosen],
        "reference_clip": None if clip is None else hashlib.sha256(clip.samples.tobytes()).hexdigest(),
        **options.to_dict(),
    }


def _stamp(item: Item) -> list[Any]:
    return [
        item.audio_filepath,
        item.offset,
        item.duration,
        item.text,
        item.language,
        sorted(item.labels.items()),
        item.file_stamp(),
    ]


def digest(value: Any) -> str:
    """SHA-256 of a JSON-ready value, in hexadecimal."""
    told = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(told.encode("utf-8", "backslashreplace")).hexdigest()


class _Sweep:
    """The work of one sweep: each step asks the run what is there already."""

    def __init__(
        self,
        model: Model,
        writer: Writer,
        judge: Judge,
        corpus: list[Item],
        options: SweepOptions,
        chosen: list[Component],
        run: Run,
        batch: int,
        written: pd.DataFrame | None = None,
    ) -> None:
        self.written = written
        self.model, self.writer, self.judge, self.corpus = model, writer, judge, corpus
        self.options, self.components, self.run, self.batch = options, chosen, run, batch
        self._reference: Reference | None = None

    # The corpus as the model writes it -------------------------------------------------------------------------------

    def baseline(self) -> pd.DataFrame:
        """One line an item: what is written without a patch, and whether it has the outcome."""
        if self.written is not None and not self.run.has_part(_BASELINE, 0):
            self.run.write_part(_BASELINE, 0, self.written)
        if self.written is not None:
            return self.run.table(_BASELINE)
        with track("Writing the corpus", len(self.corpus), "recordings") as task:
            for number, chunk in enumerate(batches(enumerate(self.corpus), _SHARD)):
                if not self.run.has_part(_BASELINE, number):
                    self.run.write_part(_BASELINE, number, self._written(chunk))
                task.advance(len(chunk))
        table = self.run.table(_BASELINE)
        if bool(table["reason"].notna().all()):
            raise AudioError(
                f"None of the {len(table)} recordings can be read; the first: {table['reason'].iloc[0]}",
                "Check them with `otoscope corpus check`.",
            )
        return table

    def _written(self, chunk: Sequence[tuple[int, Item]]) -> pd.DataFrame:
        import pandas as pd

        lines: dict[int, dict[str, Any]] = {}
        for rows in batches(chunk, self.batch):
            heard = self._readable(rows, lines)
            for i, text in zip(heard, self.writer.write(list(heard.values()), None), strict=True):
                has = self.judge.has(text, self._judged(i))
                lines[i] |= {"text": text.text, "ids": list(text.ids), "language": text.language, "has": has}
        return pd.DataFrame(list(lines.values()))

    def _readable(self, rows: Sequence[tuple[int, Item]], lines: dict[int, dict[str, Any]]) -> dict[int, Any]:
        """What is heard of every item that can be read; begins the line of each."""
        heard: dict[int, Any] = {}
        for i, item in rows:
            lines[i] = {"item": i, "text": None, "ids": [], "language": None, "has": False, "reason": None}
            try:
                heard[i] = self.writer.hear(self._clip(item), item.language)
            except AudioError as error:
                lines[i]["reason"] = f"{error.reason} {error.remedy}"
        return heard

    def _clip(self, item: Item) -> Clip:
        return first_window(item, window_of(self.model))

    def _judged(self, item: int) -> Item:
        """What the text of an item is judged against."""
        return heard_of(self.corpus[item], window_of(self.model))

    # The sweep -------------------------------------------------------------------------------------------------------

    def result(self) -> PatchResult:
        """Everything but the price."""
        baseline = self.baseline()
        affected = [int(i) for i in baseline["item"][baseline["has"]]]
        with track("Patching", len(affected) * self._changes_an_item, "texts") as task:
            missing = [i for i in affected if not self.run.has_part(_EFFECTS, i)]
            task.advance((len(affected) - len(missing)) * self._changes_an_item)
            if missing:
                self.reference()  # once, and not by every worker
            far = elsewhere()
            job = partial(self._patched, baseline, Silence() if far else task)
            for i, table in computed(job, missing):
                self.run.write_part(_EFFECTS, i, table)
                task.advance(self._changes_an_item if far else 0)
        return PatchResult.of(
            self.model.describe(),
            self.options,
            self.components,
            self.corpus,
            baseline,
            self.run.table(_EFFECTS),
        )

    @property
    def _changes_an_item(self) -> int:
        return len(self.components) * (2 if self.options.direction_control else 1)

    def changes(self, item: int) -> list[Change]:
        """The patches of all components, and their controls after them."""
        reference = self._aligned(item)
        patches = [Change((c,), reference, self.options.alpha) for c in self.components]
        if not self.options.direction_control:
            return patches
        # Another direction for every component and item.
        seeds = np.random.SeedSequence([self.options.seed, item]).generate_state(len(patches))
        return [*patches, *(p.control(int(seed)) for p, seed in zip(patches, seeds, strict=True))]

    def _patched(self, baseline: pd.DataFrame, task: Any, item: int) -> pd.DataFrame:
        import pandas as pd

        before = _text(baseline, item)
        heard, elsewhere = self._heard(item)
        lines = []
        for i, text in self.writer.vary(heard, self.changes(item), elsewhere, before, self.batch):
            lines.append(self._line(item, i, before, text))
            task.advance()
        return pd.DataFrame(sorted(lines, key=lambda line: (line["control"], line["component"])))

    def _line(self, item: int, number: int, before: Text, text: Written) -> dict[str, Any]:
        verdict = self.judge.verdict(before, text, self._judged(item))
        count = len(self.components)
        place = {"item": item, "component": number % count, "control": number >= count}
        return place | asdict(verdict) | {"text": text.text, "tokens": len(text.ids)}

    def _heard(self, item: int) -> tuple[Any, Any]:
        entry = self.corpus[item]
        clip = self._clip(entry)
        heard = self.writer.hear(clip, entry.language)
        if not self.reference().is_heard:
            return heard, None
        return heard, self.writer.hear(self.reference().sound(clip, item), entry.language or "en")

    def _aligned(self, item: int) -> Reference:
        """The reference, with the frames of another recording matched to this one's by the times of the words."""
        reference = self.reference()
        if reference.clip is None or reference.align == "position":
            return reference
        if not isinstance(self.model, SpeechModel):
            raise OptionError("Words have times in Whisper models alone.", "Align by position.")
        own, other = (
            transcribe(self.model, clip).words for clip in (self._clip(self.corpus[item]), reference.clip)
        )
        frames = frame_alignment(own, other, self.model.config.max_source_positions, self.model.frame_seconds)
        return replace(reference, frames=frames)

    def reference(self) -> Reference:
        """The reference, with corpus means if it needs them."""
        if self._reference is None:
            reference = self.options.reference
            self._reference = reference.with_means(self._means()) if reference.kind == "mean" else reference
        return self._reference

    def _means(self) -> dict[str, Any]:
        means = Means(self.model, self.components)
        baseline = self.run.table(_BASELINE)
        there = baseline[baseline["reason"].isna()].head(MEANS_OF)
        with track("Averaging activations", len(there), "recordings") as task:
            for row in there.to_dict("records"):  # type: ignore[call-overload]
                item = self.corpus[row["item"]]
                clip = self._clip(item)
                means.add(*self._taught(clip, item, [int(t) for t in row["ids"]]), clip)
                task.advance()
        return means.result()

    def _taught(self, clip: Clip, item: Item, ids: list[int]) -> tuple[dict[str, Any], int]:
        """Inputs of a clip with its own text, and the first position that writes."""
        heard = self.writer.hear(clip, item.language)
        if isinstance(self.writer, WhisperWriter):
            assert isinstance(self.model, SpeechModel)
            prompt = self.model.prompt(heard.language)
            return self.model.inputs([clip], [*prompt, *ids]), len(prompt) - 1
        assert isinstance(self.writer, AudioLanguageWriter)
        first = heard["input_ids"].shape[1] - 1
        added = torch.tensor([ids], dtype=torch.long, device=self.model.device)
        told = torch.cat([heard["input_ids"], added], dim=1)
        mask = torch.cat([heard["attention_mask"], torch.ones_like(added)], dim=1)
        return heard | {"input_ids": told, "attention_mask": mask}, first

    # Sets that are applied at once -----------------------------------------------------------------------------------

    def sets(self, result: PatchResult) -> dict[str, Any]:
        """Greedy sets on the discovery half, a minimal one of them, and what they do on the test half."""
        halves = list(zip(result.affected, result.discovery, strict=True))
        found, test = [i for i, first in halves if first], [i for i, first in halves if not first]
        candidates = result.ranked[: self.options.sets]
        step = 0

        def scores(sets: Sequence[tuple[int, ...]], items: Sequence[int] = found) -> list[float]:
            nonlocal step
            table = self._together(step, sets, items)
            step += 1
            return [float(np.mean(table["restored"][table["set"] == i])) for i in range(len(sets))]

        grown = greedy_set(candidates, scores, len(candidates))
        members, best = grown[-1]
        minimal, least = minimal_set(members, scores, best)
        told = [*(m for m, _ in grown), minimal]
        tested = scores(told, test) if test else [None] * len(told)
        lines = [
            {"components": [self.components[i].to_dict() for i in m], "discovery": d, "test": t}
            for m, d, t in zip(told, [*(s for _, s in grown), least], tested, strict=True)
        ]
        return {"greedy": lines[:-1], "minimal": lines[-1], "n_discovery": len(found), "n_test": len(test)}

    def _together(self, step: int, sets: Sequence[tuple[int, ...]], items: Sequence[int]) -> pd.DataFrame:
        """Each set's members patched at once, on each item; one line a text."""
        import pandas as pd

        if not self.run.has_part(_SETS, step):
            lines: list[dict[str, Any]] = []
            baseline = self.run.table(_BASELINE)
            with track("Patching sets", len(items) * len(sets), "texts") as task:
                for item in items:
                    before = _text(baseline, item)
                    heard, elsewhere = self._heard(item)
                    changes = self._sets_as_changes(sets, item)
                    for i, text in self.writer.vary(heard, changes, elsewhere, before, self.batch):
                        verdict = asdict(self.judge.verdict(before, text, self._judged(item)))
                        lines.append({"item": item, "set": i, "text": text.text} | verdict)
                        task.advance()
            self.run.write_part(_SETS, step, pd.DataFrame(lines))
        return pd.read_parquet(self.run.part(_SETS, step))

    def _sets_as_changes(self, sets: Sequence[tuple[int, ...]], item: int) -> list[Change]:
        reference = self._aligned(item)
        members = [tuple(self.components[i] for i in of_set) for of_set in sets]
        return [Change(components, reference, self.options.alpha) for components in members]

    # The price -------------------------------------------------------------------------------------------------------

    def price(self, result: PatchResult, corpus: Sequence[Item], given: bool) -> dict[str, Any]:
        """What the winners cost."""
        changes = [
            Change((self.components[i],), self.reference(), self.options.alpha) for i in result.winner_indices
        ]
        window = window_of(self.model)
        winners = [w.to_dict() for w in result.winners]
        return price_told(self.writer, corpus, changes, winners, self.run, self.batch, window, given)


def _text(baseline: pd.DataFrame, item: int) -> Text:
    """What was written of an item without a patch."""
    row = baseline.iloc[item]
    language = row["language"] if isinstance(row["language"], str) else None
    return Text(row["text"], [int(t) for t in row["ids"]], language)


def explain_empty(result: PatchResult) -> OptionError | None:
    """What to do about a corpus in which nothing has the outcome; None if something has."""
    if result.n_outcome:
        return None
    what = {"loop": "loops", "hallucination": "has invented text", "word": "has the competing word"}
    remedy = {
        "loop": "Make one with `otoscope corpus make loops`, raise --max-tokens, or choose another --loop-detector.",
        "hallucination": "Make one with `otoscope corpus make nonspeech`.",
        "word": "Make one with `otoscope corpus make ambiguous`.",
    }
    word = what[result.options.outcome]
    return OptionError(
        f"No clip of this manifest {word} (written: {result.n_items}).", remedy[result.options.outcome]
    )
