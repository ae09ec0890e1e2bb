"""Running a monitor over recordings: risk of every token and of every window."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from otoscope.errors import AudioError, OptionError
from otoscope.models.transcribing import Source, transcribe_all
from otoscope.models.transcripts import DecodeOptions, Segment, Token, Transcript
from otoscope.monitors.hindsight import told_of_segment
from otoscope.monitors.monitor import Monitor
from otoscope.monitors.reading import UNHURRIED
from otoscope.monitors.scoring import Progress, joined_risk
from otoscope.monitors.verdicts import TARGETS
from otoscope.monitors.watching import Watch
from otoscope.showing import Shows

if TYPE_CHECKING:
    from otoscope.documents.card import Card
    from otoscope.models.whisper import SpeechModel


@dataclass(frozen=True)
class Risk(Shows):
    """Risk of one token or window.

    Attributes:
        risk: That an alarm is due: of a window the highest of its steps, the end of the text included.
        parts: Probability of each of `otoscope.monitors.verdicts.TARGETS`.
    """

    risk: float
    parts: tuple[float, ...]

    def to_dict(self) -> dict[str, float]:
        """JSON-ready: `risk` and each part by its name."""
        return {"risk": round(self.risk, 4)} | {
            name: round(part, 4) for name, part in zip(TARGETS, self.parts, strict=True)
        }


@dataclass(frozen=True, eq=False)
class Watched(Shows):
    """A transcript and how far it can be trusted.

    Attributes:
        transcript: What was written.
        progress: How each of its windows went.
        monitor: What told it.
    """

    transcript: Transcript
    progress: tuple[Progress, ...]
    monitor: Monitor

    @property
    def alarm(self) -> bool:
        """Whether any window rang."""
        return any(progress.alarm for progress in self.progress)

    def segments(self) -> Iterator[tuple[Segment, list[tuple[Token, Risk]], Progress]]:
        """Each window with its tokens and their risks."""
        for segment, progress in zip(self.transcript.segments, self.progress, strict=True):
            tokens = self.transcript.tokens[segment.first_token : segment.end_token]
            risks = zip(progress.risks, progress.parts, strict=True)
            # The step after the last token wrote the end; its risk belongs to the window alone.
            told = [(token, Risk(r, tuple(p))) for token, (r, p) in zip(tokens, risks, strict=False)]
            yield segment, told, progress

    def in_hindsight(self) -> list[Risk]:
        """Risk of each window now that it is written; from `monitor.hindsight.threshold` on it is doubtful."""
        found = []
        for segment, progress in zip(self.transcript.segments, self.progress, strict=True):
            parts = np.zeros(len(TARGETS))
            if progress.parts:
                told = told_of_segment(self.transcript, segment)
                parts = self.monitor.hindsight.parts(progress.parts, told)
            found.append(Risk(float(joined_risk(parts)), tuple(parts.tolist())))
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        limit = self.monitor.hindsight.threshold
        return {
            "segments": [
                {
                    "start": round(segment.start, 3), "end": round(segment.end, 3), "text": segment.text,
                    **window_risk(progress).to_dict(),
                    "alarm": progress.alarm, "alarm_token": progress.alarm_token,
                    "hindsight": {**afterwards.to_dict(), "doubtful": afterwards.risk >= limit},
                    "tokens": [
                        {"token": token.id, "text": token.text, "start": round(token.start, 2), **risk.to_dict()}
                        for token, risk in tokens
                    ],
                }
                for (segment, tokens, progress), afterwards in zip(
                    self.segments(), self.in_hindsight(), strict=True
                )
            ],
            "threshold": self.monitor.threshold,
            "hindsight_threshold": limit,
            "false_alarm_rate": self.monitor.false_alarm_rate,
        }  # fmt: skip

    def dumps(self) -> str:
        """Everything but the monitor and the facts about the model as JSON, every number exact; see `Watched.loads`."""
        went = [[one.risks, one.parts] for one in self.progress]
        return json.dumps({"transcript": json.loads(self.transcript.dumps()), "progress": went})

    @classmethod
    def loads(cls, text: str, model: dict[str, Any], monitor: Monitor) -> Watched:
        """What `dumps` told.

        Args:
            text: What `dumps` gave.
            model: Facts about the model, see `Model.describe`.
            monitor: The monitor, or the same with another threshold.

        Raises:
            ValueError: It is none.
        """
        try:
            told = json.loads(text)
            progress = tuple(_gone(risks, parts, monitor.threshold) for risks, parts in told["progress"])
            return cls(Transcript.loads(json.dumps(told["transcript"]), model), progress, monitor)
        except (KeyError, TypeError) as error:
            raise ValueError("This is no transcript under a monitor.") from error

    def card(self) -> Card:
        """Each window's tokens, marked by their risk."""
        from otoscope.documents.card import Card, Mark

        limit, texts, signs = self.monitor.threshold, [], []
        for (segment, tokens, progress), afterwards in zip(self.segments(), self.in_hindsight(), strict=True):
            texts.append(
                [
                    Mark(
                        text=token.text,
                        amount=risk.risk,
                        told=f"risk {risk.risk:.2f}",
                        alarm=risk.risk >= limit,
                    )
                    for token, risk in tokens
                ]
            )
            sign = "alarm" if progress.alarm else "no alarm"
            doubtful = " (doubtful)" if afterwards.risk >= self.monitor.hindsight.threshold else ""
            signs.append(
                f"{segment.start:.1f}–{segment.end:.1f} s: {sign}, risk {progress.risk:.2f}, "
                f"in hindsight {afterwards.risk:.2f}{doubtful}"
            )
        return Card(
            title="Transcript under a monitor", texts=texts, lines=signs, note=f"Alarm from risk {limit:.2f}."
        )


def _gone(risks: list[float], parts: list[list[float]], threshold: float) -> Progress:
    """How a window went, under a threshold."""
    alarm = next((step for step, risk in enumerate(risks) if risk >= threshold), None)
    return Progress(risks, parts, alarm)


def window_risk(progress: Progress) -> Risk:
    """Of a window: the highest of its steps, part by part."""
    parts = tuple(max(column) for column in zip(*progress.parts, strict=True)) if progress.parts else ()
    return Risk(progress.risk, parts or (0.0,) * len(TARGETS))


def check_watched(options: DecodeOptions | None) -> None:
    """Refuse options that no monitor was fitted with.

    Raises:
        OptionError: Timestamps are asked for.
    """
    if options is not None and options.timestamps:
        raise OptionError("Monitors are fitted without timestamps.", "Decode without them.")


def watch_all(
    model: SpeechModel,
    sources: Sequence[Source],
    monitor: Monitor | None = None,
    options: DecodeOptions | None = None,
    *,
    batch: int | None = None,
    keep_going: bool = False,
    watch: Watch | None = None,
) -> Iterator[Watched | AudioError]:
    """Transcribe recordings under a monitor; see `transcribe_all`.

    Args:
        model: The recogniser.
        sources: Clips, paths or items.
        monitor: None: the one that comes with otoscope.
        options: How to decode, without timestamps.
        batch: Windows at once.
        keep_going: Yield the error of a recording that cannot be read, and go on.
        watch: A watch over the model that is there already, in place of a monitor.

    Raises:
        ModelError: The monitor was fitted to another model.
        OptionError: None comes with otoscope for this one, or timestamps are asked for.
    """
    check_watched(options)
    watch = watch or Watch(monitor or Monitor.shipped(model), model, every=UNHURRIED)
    watch.begin()
    transcripts = transcribe_all(model, sources, options, batch=batch, keep_going=keep_going, watcher=watch)
    for i, transcript in enumerate(transcripts):
        if isinstance(transcript, AudioError):
            yield transcript
        else:
            yield Watched(transcript, tuple(watch.take(i)), watch.monitor)
