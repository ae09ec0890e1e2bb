"""One recogniser for many streams: a thread that writes for them in turn, and rings while it writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import Condition, Thread
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np
import torch

from otoscope.errors import OtoscopeError
from otoscope.models.transcribing import Window, transcribe_all
from otoscope.models.transcripts import DecodeOptions, Transcript
from otoscope.monitors.monitor import Monitor
from otoscope.monitors.reading import Block
from otoscope.monitors.running import Watched
from otoscope.monitors.scoring import Progress
from otoscope.monitors.signals import SIGNALS
from otoscope.monitors.streaming import Event, Job, Pacing, Stream
from otoscope.monitors.watching import Watch
from otoscope.progress import notice

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.models.decoding import LogitFilter
    from otoscope.models.whisper import SpeechModel

ENOUGH_TOKENS, ENOUGH_COPIES = 32, 4
"""A text in alarm that repeats what it wrote for so many tokens, so many times over, is ended: the rest would say nothing new,
and every other stream would have to wait for it."""

PATIENCE = 2.0
"""Seconds by which a segment under way may wait longer than one that has ended, whose sound will not come again."""

_ECHO, _COPIES = SIGNALS.index("echo"), SIGNALS.index("copies")


class _AbandonedError(Exception):
    """Nobody waits any longer for what is being written."""


class _Ear(Watch):
    """Watches one job, rings for its stream, and ends loops."""

    def __init__(self, monitor: Monitor, model: SpeechModel, stream: Stream, job: Job) -> None:
        super().__init__(monitor, model)
        self.stream, self.job = stream, job
        self.looping = False

    def _take(self, block: Block) -> None:
        super()._take(block)
        progress = self.scorer.rows[block.row]
        if progress.alarm_token is None:
            return
        if progress.alarm_token >= block.first:
            self.stream.ring(self.job, self._alarm(block, progress, progress.alarm_token))
        echo, copies = np.expm1(block.signals[-1, [_ECHO, _COPIES]])
        self.looping = bool(echo >= ENOUGH_TOKENS and copies >= ENOUGH_COPIES)

    def _alarm(self, block: Block, progress: Progress, token: int) -> Event:
        attention = block.attention[token - block.first, : block.track.frames]
        return {
            "token": token,
            "time": round(self.job.clip.start + int(attention.argmax()) * self.model.frame_seconds, 2),
            "risk": round(progress.risks[token], 4),
            "kind": progress.kind,
            "text": self.model.tokenizer.decode(block.track.tokens, skip_special_tokens=True).strip(),
        }

    @contextmanager
    def watching(self, features: Tensor, windows: Sequence[Window]) -> Iterator[Sequence[LogitFilter]]:
        with super().watching(features, windows) as filters:
            yield [*filters, self._steer]

    def _steer(self, _tokens: Tensor, logits: Tensor) -> Tensor:
        if self.stream.closed:
            raise _AbandonedError
        if not self.looping:
            return logits
        ended = torch.full_like(logits, -torch.inf)
        ended[:, self.model.end_token] = 0
        return ended


class Engine:
    """Writes for streams in turn; inside its `with` block.

    Who asked first is served first, but segments that have ended go before those under way, unless these have waited for long. A
    stream waits in one place at most, and is written alone: in a batch, every alarm would wait for the encoder to have heard all.

    Args:
        model: The recogniser.
        monitor: None: the one that comes with otoscope.
        options: How to decode, without timestamps.
        pacing: When to write.

    Raises:
        ModelError: The monitor was fitted to another model.
        OptionError: None comes with otoscope for this one.
    """

    def __init__(
        self,
        model: SpeechModel,
        monitor: Monitor | None = None,
        options: DecodeOptions | None = None,
        pacing: Pacing | None = None,
    ) -> None:
        self.monitor = monitor or Monitor.shipped(model)
        self.monitor.check(model)
        self.model, self.options = model, options or DecodeOptions()
        self.pacing = replace(pacing or Pacing(), window=model.window_seconds)
        self._waiting: dict[Stream, float] = {}  # since when
        self._changed = Condition()
        self._stopping = False
        self._thread = Thread(target=self._work, name="otoscope-engine", daemon=True)

    def __enter__(self) -> Engine:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._stopping = True
            for stream in self._waiting:
                stream.close()
            self._changed.notify()
        self._thread.join()

    def open(
        self,
        tell: Callable[[Event], None],
        roomy: Callable[[], None] = lambda: None,
        language: str | None = None,
        pause: float | None = None,
    ) -> Stream:
        """A new stream; see `Stream`.

        Args:
            tell: Told every event, in the engine's thread.
            roomy: Called when the stream has room again.
            language: Code; None: the options', or detected on the first segment.
            pause: Seconds of quiet that end a segment; 0: only its length does; None: the engine's.

        Raises:
            OptionError: The model does not know the language, or the pause cannot be used.
        """
        language = self.model.check_language(language or self.options.language)
        pacing = self.pacing if pause is None else replace(self.pacing, pause=pause or None)
        return Stream(tell, self.wake, roomy, language, pacing)

    def wake(self, stream: Stream) -> None:
        """Let a stream wait for its turn, if it does not yet."""
        with self._changed:
            if stream not in self._waiting:
                self._waiting[stream] = monotonic()
                self._changed.notify()

    def _next(self) -> Stream | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            if self._stopping:
                return None
            stream = min(self._waiting, key=lambda s: self._waiting[s] + (0 if s.has_ended else PATIENCE))
            del self._waiting[stream]
            return stream

    def _work(self) -> None:
        while (stream := self._next()) is not None:
            try:
                if (job := stream.take()) is not None:
                    self._write(stream, job)
            except _AbandonedError:
                continue
            except OtoscopeError as error:
                stream.fail(error.reason)
            except Exception as error:
                notice(f"A stream was given up: {type(error).__name__}: {str(error)[:200]}")
                stream.fail("The recogniser failed on this stream.")
            if stream.wants:
                self.wake(stream)

    def _write(self, stream: Stream, job: Job) -> None:
        ear = _Ear(self.monitor, self.model, stream, job)
        options = replace(self.options, language=stream.language)
        transcript = next(iter(transcribe_all(self.model, [job.clip], options, batch=1, watcher=ear)))
        assert isinstance(transcript, Transcript)
        if job.final:
            stream.language = transcript.language
        told = Watched(transcript, tuple(ear.take(0)), self.monitor).to_dict()["segments"][0]
        if not job.final:
            del told["hindsight"]  # it is of texts that are there as a whole
        kind = "segment" if job.final else "partial"
        stream.tell(
            {"type": kind, "segment": job.number, "heard": round(job.heard, 3)}
            | told
            | {"rung": stream.has_rung(job), "stopped": ear.looping}
        )
