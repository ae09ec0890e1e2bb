"""A recogniser and a clip on which interventions are tried."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from otoscope.audio import Clip
from otoscope.audio.clip import SAMPLING_RATE
from otoscope.documents.intervention import RiskInfo, Written
from otoscope.errors import OptionError
from otoscope.lenses.listening import write
from otoscope.models.decoding import DecoderSession
from otoscope.monitors.monitor import Monitor
from otoscope.monitors.scoring import Progress
from otoscope.monitors.watching import Watch
from otoscope.studies.explain_parts import lens_info, transcript_info
from otoscope.studies.lab import Lab, Plan, Run

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.documents.changes import FeatureChange
    from otoscope.documents.intervention import Intervention
    from otoscope.models.decoding import Decoded
    from otoscope.models.transcripts import DecodeOptions, Transcript
    from otoscope.models.whisper import SpeechModel


class SpeechRun(Run):
    """What was heard and written under a plan; `encoded` is `(1, frame, d_model)`."""

    lab: SpeechLab

    def __init__(
        self,
        lab: SpeechLab,
        plan: Plan,
        encoded: Tensor,
        transcript: Transcript,
        decoded: Decoded,
        progress: Progress | None,
    ) -> None:
        super().__init__(lab, plan)
        self.encoded, self.transcript, self.decoded, self.progress = encoded, transcript, decoded, progress

    @property
    def text(self) -> str:
        """The transcript."""
        return self.transcript.text

    def forced(self, written: SpeechRun) -> Tensor:
        """See `Run.forced`."""
        ids, prompt = written.ids, len(written.decoded.prompt)
        if len(ids) == prompt:
            return torch.zeros(0)
        with self.lab.under(self.plan, ["decoder"]):
            logits = DecoderSession(self.lab.model, self.encoded).step(ids[None, :-1])[0, prompt - 1 :]
        return logits.float().log_softmax(-1).gather(-1, ids[prompt:, None])[:, 0].cpu()

    @property
    def ids(self) -> Tensor:
        """Prompt and text `(pos,)`."""
        return torch.tensor([*self.decoded.prompt, *self.decoded.ids], device=self.encoded.device)

    def replay(self, stack: str) -> None:
        """See `Run.replay`."""
        if stack == "encoder":
            self.lab.model.encode(self.lab.model.features(self.plan.clip or self.lab.clip))
        else:
            DecoderSession(self.lab.model, self.encoded).step(self.ids[None])

    def told(self) -> Written:
        """See `Run.told`."""
        # Nothing runs where nothing was written, and an edit that never takes place is an error.
        with self.lab.under(self.plan, ["decoder"] if self.decoded.ids else []):
            lens = lens_info(self.lab.model, self.encoded, self.ids, len(self.decoded.prompt))
        info = transcript_info(self.transcript, None, self.lab.clip.start)
        return Written(transcript=info, logit_lens=lens, risk=self._risk())

    def _risk(self) -> RiskInfo | None:
        if self.progress is None or self.lab.watch is None:
            return None
        return RiskInfo(
            tokens=self.progress.risks[: len(self.decoded.ids)],
            text=self.progress.risk,
            threshold=self.lab.watch.monitor.threshold,
            alarm=self.progress.alarm,
        )


class SpeechLab(Lab):
    """A recogniser and at most one window of sound.

    Args:
        model: The recogniser.
        clip: The sound.
        options: How to decode.
    """

    model: SpeechModel

    def __init__(self, model: SpeechModel, clip: Clip, options: DecodeOptions) -> None:
        super().__init__(model)
        self.clip, self.options, self.duration = clip, options, clip.duration
        self.watch = _watch(model)

    def plan(self, intervention: Intervention) -> Plan:
        """See `Lab.plan`; the sound is silenced, too."""
        return replace(super().plan(intervention), clip=silenced(self.clip, intervention.silence))

    def places(self, change: FeatureChange) -> tuple[int, ...] | None:
        """Frames of the encoder or positions of the text at which a feature is changed; None: all."""
        if change.stack != "encoder":
            return super().places(change)
        seconds = self.model.frame_seconds
        frames = [
            frame
            for t0, t1 in change.spans
            for frame in range(round(t0 / seconds), round(t1 / seconds))
            if frame < self.model.config.max_source_positions
        ]
        if change.spans and not frames:
            raise OptionError(f"{change} names no frame of the sound.", f"A frame lasts {seconds:g} s.")
        return tuple(sorted(set(frames))) or None

    def run(self, plan: Plan) -> SpeechRun:
        """Hear and write under a plan."""
        clip = plan.clip or self.clip
        # A monitor rates a text by the sound it was written from, and that is the changed one.
        watching = self.watch.over([clip]) if self.watch else nullcontext()
        with self.under(plan):
            encoded = self.model.encode(self.model.features(clip))
            with watching:
                transcript, decoded = write(self.model, clip, encoded, self.options)
        progress = self.watch.newest.get(0, Progress()) if self.watch else None
        return SpeechRun(self, plan, encoded, transcript, decoded, progress)


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


def _watch(model: SpeechModel) -> Watch | None:
    """What tells the risk, where a monitor comes with otoscope for the model."""
    try:
        return Watch(Monitor.shipped(model), model, keeping=False)
    except OptionError:
        return None
