"""`intervene`: change the sound, components or features of a recogniser, and see what it writes instead.

Any perturbation moves a small model, so the same change is also made at random other places: other spans of the same length,
other components of the same kind, other active features of the same layer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from otoscope.audio import Clip
from otoscope.audio.clip import SAMPLING_RATE
from otoscope.circuits import interventions as circuit
from otoscope.dictionaries.loading import load_dictionary
from otoscope.documents.base import Array
from otoscope.documents.explain import ModelInfo
from otoscope.documents.intervention import (
    ControlRun,
    FeatureChange,
    Intervention,
    Outcome,
    RiskInfo,
    WordChange,
    Written,
    command_line,
    python_line,
)
from otoscope.errors import OptionError
from otoscope.lenses.listening import first_window, write
from otoscope.models.decoding import Decoded, DecoderSession
from otoscope.models.transcribing import check_source
from otoscope.models.transcripts import DecodeOptions, Transcript
from otoscope.models.whisper import SpeechModel, require_speech
from otoscope.models.wiring import stack_wiring
from otoscope.monitors.monitor import Monitor, Progress, Watch
from otoscope.patching.components import Component, components
from otoscope.progress import track
from otoscope.studies.explain_parts import lens_info, transcript_info
from otoscope.studies.random_places import elsewhere

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.dictionaries.base import Dictionary
    from otoscope.models.base import Model

NOTES = (
    "Any change takes a model off what it was trained on: read the difference beside the control, not alone.",
    "The spectrogram is scaled by its loudest place, so that silencing it moves the rest as well.",
    "Changes of log-probability are teacher-forced: the decoder is given the tokens that were written before.",
)

_USUAL = {"offset": 0.0, "language": None, "controls": 5, "seed": 0}
"""Values of `intervene` that need not be said."""


def intervene(
    model: Model,
    source: Clip | Path | str,
    intervention: Intervention,
    *,
    offset: float = 0.0,
    language: str | None = None,
    controls: int = 5,
    seed: int = 0,
) -> Outcome:
    """Write a clip twice, as it is and under an intervention, and compare.

    Args:
        model: A Whisper model.
        source: A clip or a path. Of a recording longer than one window, the window that begins at `offset` is heard.
        intervention: What is changed; its times count from the start of the window.
        offset: Seconds into the recording.
        language: Language code to force; None: detect (multilingual models).
        controls: How often the same is done at random other places; fewer where there are not so many.
        seed: Of these places.

    Returns:
        The document: texts, lenses and risks before and after, the words that differ, and the controls.

    Raises:
        AudioError: The recording cannot be read.
        ModelError: The model is no Whisper model.
        OptionError: A component, feature or span does not exist.
        DictionaryError: A dictionary cannot be read, or is of another model.
    """
    began = time.perf_counter()
    speech = require_speech(model)
    check_source(source)
    options = DecodeOptions(language=speech.check_language(language), seed=seed)
    clip, _ = first_window(source, speech.window_seconds, offset)
    lab = Lab(speech, clip, options)
    plan = lab.plan(intervention)  # refuses what does not exist before anything runs
    with torch.no_grad(), track("Intervening", 2 + controls, "runs") as task:
        before = lab.run(lab.plan(Intervention()))
        task.advance()
        after = lab.run(plan)
        change = (after.forced(before) - before.forced(before)).numpy()
        task.advance()
        runs: list[ControlRun] = []
        for other in elsewhere(lab, intervention, before, controls, seed):
            runs.append(_control(lab, other, before))
            task.advance()
        told = before.told(), after.told()
    how = {"offset": clip.start, "language": language, "controls": controls, "seed": seed}
    name = clip.source or "clip.wav"
    again = (speech.origin.name, name, intervention, {k: v for k, v in how.items() if v != _USUAL[k]})
    return Outcome(
        title=f"{Path(name).name} · {speech.origin.name} · changed",
        file=Path(name).name,
        offset=clip.start,
        duration=clip.duration,
        model=ModelInfo(**{k: v for k, v in speech.describe().items() if k != "device" and v != ""}),
        intervention=intervention,
        before=told[0],
        after=told[1],
        words=word_changes(before.transcript.text, after.transcript.text),
        change=Array.pack(change),
        size=_mean_size(change),
        controls=runs,
        seed=seed,
        python=python_line(*again),
        command=command_line(*again),
        notes=list(NOTES),
        seconds=round(time.perf_counter() - began, 3),
    )


@dataclass(frozen=True, eq=False)
class Plan:
    """An intervention made ready for a model: the sound, components and rows of feature changes by stack."""

    intervention: Intervention
    clip: Clip
    zeroed: tuple[Component, ...]
    changes: dict[str, circuit.Row]


@dataclass(frozen=True, eq=False)
class Run:
    """One text, written under a plan."""

    lab: Lab
    plan: Plan
    encoded: Tensor  # (1, frame, d_model)
    transcript: Transcript
    decoded: Decoded
    progress: Progress | None

    def forced(self, written: Run) -> Tensor:
        """Log-probability of each token that another run wrote, `(token,)`, float32: the decoder is given them."""
        ids = torch.tensor([*written.decoded.prompt, *written.decoded.ids], device=self.encoded.device)
        prompt = len(written.decoded.prompt)
        if len(ids) == prompt:
            return torch.zeros(0)
        with self.lab.under(self.plan, ["decoder"]):
            logits = DecoderSession(self.lab.model, self.encoded).step(ids[None, :-1])[0, prompt - 1 :]
        return logits.float().log_softmax(-1).gather(-1, ids[prompt:, None])[:, 0].cpu()

    def read_of(self, stack: str, dictionary: Dictionary, layer: int) -> Tensor:
        """What the features of a layer read, `(frame or pos, d)`."""
        mlp = stack_wiring(self.lab.model, stack).blocks[layer].mlp
        point = mlp.input_point if dictionary.reads == "mlp_in" else mlp.stream_point
        with self.lab.under(self.plan, [stack]), self.lab.model.capturing([point]) as cache:
            if stack == "encoder":
                self.lab.model.encode(self.lab.model.features(self.plan.clip))
            else:
                ids = torch.tensor([*self.decoded.prompt, *self.decoded.ids], device=self.encoded.device)
                DecoderSession(self.lab.model, self.encoded).step(ids[None])
        x = cache[point][0]
        return circuit.divided(x, mlp.norm) if dictionary.reads == "normalized" else x

    def told(self) -> Written:
        """What the document says of it."""
        ids = torch.tensor([*self.decoded.prompt, *self.decoded.ids], device=self.encoded.device)
        # Nothing runs where nothing was written, and an edit that never takes place is an error.
        with self.lab.under(self.plan, ["decoder"] if self.decoded.ids else []):
            lens = lens_info(self.lab.model, self.encoded, ids, len(self.decoded.prompt))
        return Written(
            transcript=transcript_info(self.transcript, None, self.lab.clip.start),
            logit_lens=lens,
            risk=self._risk(),
        )

    def _risk(self) -> RiskInfo | None:
        if self.progress is None or self.lab.watch is None:
            return None
        return RiskInfo(
            tokens=self.progress.risks[: len(self.decoded.ids)],
            text=self.progress.risk,
            threshold=self.lab.watch.monitor.threshold,
            alarm=self.progress.alarm is not None,
        )


class Lab:
    """A model and a clip on which interventions are tried.

    Args:
        model: The recogniser.
        clip: At most one window.
        options: How to decode.
    """

    def __init__(self, model: SpeechModel, clip: Clip, options: DecodeOptions) -> None:
        self.model, self.clip, self.options = model, clip, options
        self.watch = _watch(model)
        self._dictionaries: dict[tuple[str, str], Dictionary] = {}

    def plan(self, intervention: Intervention) -> Plan:
        """Make an intervention ready.

        Raises:
            OptionError: It names what the model or the clip does not have.
        """
        changes: dict[str, list[circuit.Intervention]] = {}
        for change in intervention.changes():
            changes.setdefault(change.stack, []).append(self._change(intervention, change))
        return Plan(
            intervention,
            silenced(self.clip, intervention.silence),
            tuple(_component(self.model, text) for text in intervention.zero),
            {stack: tuple(row) for stack, row in changes.items()},
        )

    def dictionary(self, intervention: Intervention, stack: str) -> Dictionary:
        """Features of a stack.

        Raises:
            OptionError: They stand for a place of the model and not for its MLPs.
            DictionaryError: They cannot be read, or are of another model.
        """
        name = intervention.encoder_dictionary if stack == "encoder" else intervention.dictionary
        if (name, stack) not in self._dictionaries:
            found = load_dictionary(name, self.model, stack)
            if found.reads == "point":
                raise OptionError(
                    f"{name} is an SAE, which stands for a place of the model and not for its MLPs.",
                    "Name a transcoder, or neurons for the model's own.",
                )
            self._dictionaries[name, stack] = found
        return self._dictionaries[name, stack]

    def _change(self, intervention: Intervention, change: FeatureChange) -> circuit.Intervention:
        dictionary = self.dictionary(intervention, change.stack)
        size = dictionary.size(change.layer) if change.layer < dictionary.layers else 0
        if change.feature >= size:
            raise OptionError(
                f"{change} names a feature that the {change.stack} does not have.",
                f"Layers are 0 to {dictionary.layers - 1}; layer {change.layer} has {size} features, counted from 0.",
            )
        return circuit.Intervention(
            change.layer, change.feature, change.op, change.value, self.places(change)
        )

    def places(self, change: FeatureChange) -> tuple[int, ...] | None:
        """Positions of a change: frames of the encoder or positions of the text; None: all."""
        if change.stack == "decoder":
            return change.positions or None
        frames = [
            frame
            for t0, t1 in change.spans
            for frame in range(round(t0 / self.model.frame_seconds), round(t1 / self.model.frame_seconds))
        ]
        limit = self.model.config.max_source_positions
        if change.spans and not any(frame < limit for frame in frames):
            raise OptionError(
                f"{change} names no frame of the sound.", f"A frame lasts {self.model.frame_seconds:g} s."
            )
        return tuple(sorted({frame for frame in frames if frame < limit})) or None

    @contextmanager
    def under(self, plan: Plan, stacks: Sequence[str] = ("encoder", "decoder")) -> Iterator[None]:
        """The model inside the block is changed as planned; the sound is not touched here.

        Args:
            plan: What is changed.
            stacks: Those that run inside the block.
        """
        zeroed = [component.zeroed() for component in plan.zeroed if component.stack in stacks]
        with ExitStack() as stack:
            stack.enter_context(self.model.editing(zeroed))
            for stream, row in plan.changes.items():
                if stream not in stacks:
                    continue
                dictionary = self.dictionary(plan.intervention, stream)
                stack.enter_context(circuit.intervening(self.model, dictionary, [row], stream=stream))
            yield

    def run(self, plan: Plan) -> Run:
        """Hear and write under a plan."""
        # A monitor rates a text by the sound it was written from, and that is the changed one.
        watching = self.watch.over([plan.clip]) if self.watch else nullcontext()
        with self.under(plan):
            encoded = self.model.encode(self.model.features(plan.clip))
            with watching:
                transcript, decoded = write(self.model, plan.clip, encoded, self.options)
        progress = self.watch.newest.get(0, Progress()) if self.watch else None
        return Run(self, plan, encoded, transcript, decoded, progress)


def silenced(clip: Clip, spans: tuple[tuple[float, float], ...]) -> Clip:
    """The clip with some spans set to zero.

    Args:
        clip: The sound.
        spans: Begin and end in seconds from the clip's start; an end beyond the clip means its end.

    Raises:
        OptionError: A span begins after the end of the clip.
    """
    if not spans:
        return clip
    samples = clip.samples.copy()
    for t0, t1 in spans:
        if t0 >= clip.duration:
            raise OptionError(
                f"Silence from {t0:g} s on lies behind the clip's end at {clip.duration:g} s.",
                "Choose a span inside.",
            )
        samples[round(t0 * SAMPLING_RATE) : round(t1 * SAMPLING_RATE)] = 0
    return replace(clip, samples=samples)


def _component(model: SpeechModel, text: str) -> Component:
    """The component of a spelling.

    Raises:
        OptionError: The model has none of that name.
    """
    for one in components(model, "encoder" if text.startswith("encoder") else "decoder"):
        if text == (one.id if one.head is None else f"{one.id}.{one.head}"):
            return one
    raise OptionError(
        f"{model.origin.name} has no component {text!r}.",
        f"It has {model.config.encoder_layers} encoder and {model.config.decoder_layers} decoder layers, "
        f"and {model.config.decoder_attention_heads} heads in each attention, all counted from 0.",
    )


def _watch(model: SpeechModel) -> Watch | None:
    """What tells the risk, where a monitor comes with otoscope for the model."""
    try:
        return Watch(Monitor.shipped(model), model, keeping=False)
    except OptionError:
        return None


def _control(lab: Lab, other: Intervention, before: Run) -> ControlRun:
    run = lab.run(lab.plan(other))
    change = run.forced(before) - before.forced(before)
    return ControlRun(
        intervention=other,
        text=run.transcript.text,
        changed=run.transcript.text != before.transcript.text,
        size=_mean_size(change.numpy()),
    )


def _mean_size(change: np.ndarray) -> float:
    return float(np.abs(change).mean()) if change.size else 0.0


def word_changes(before: str, after: str) -> list[WordChange]:
    """Runs of words that stayed, or were replaced, added or taken away."""
    ops = {"equal": "same", "replace": "replaced", "insert": "added", "delete": "removed"}
    old, new = before.split(), after.split()
    return [
        WordChange(op=ops[op], before=" ".join(old[i0:i1]), after=" ".join(new[j0:j1]))  # type: ignore[arg-type]
        for op, i0, i1, j0, j1 in SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    ]
