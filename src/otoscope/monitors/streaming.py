"""A stream of sound that goes on: what of it wants to be written down, and what its listener is told.

A stream keeps the sound since its last finished segment. While a segment is under way it is written again whenever enough new
sound has come (`partial`), and once more when it has ended (`segment`). What is asked for is fixed only when the recogniser is
free: on a slow machine partials become rarer, and nothing piles up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any

from otoscope.audio import Clip, Segmenter, is_silent
from otoscope.audio.clip import SAMPLING_RATE, SHORTEST

Event = dict[str, Any]
"""JSON-ready, with its `type`; see `Stream`."""

UNSENT = 16
"""Events that a listener may leave lying before nothing more is written for it."""


@dataclass(frozen=True)
class Pacing:
    """When a stream is written down.

    Attributes:
        window: Seconds a segment may last at most.
        pause: Seconds of quiet that end one (see `otoscope.audio.Segmenter`); None: only its length does, as in `transcribe`.
        every: Seconds of new sound, digital silence not counted, after which a segment under way is written again.
        first: Seconds of sound before it is written for the first time: of less, recognisers invent what it might become.
    """

    window: float = 30.0
    pause: float | None = 1.0
    every: float = 1.0
    first: float = 2.0


@dataclass(frozen=True, eq=False)
class Job:
    """What is to be written.

    Attributes:
        clip: The sound, whose `start` is in seconds of the stream.
        number: Which segment it belongs to, from 0.
        final: Whether the segment has ended.
        heard: Seconds of the stream that it rests on; of a segment that has ended, the pause that told so included.
    """

    clip: Clip
    number: int
    final: bool
    heard: float


class Stream:
    """One stream: fed by its source, written down by an `Engine`.

    Its listener is told events, in another thread than the one that feeds. Each has `type`, and all but the last have `segment`,
    its number, and `heard`, the seconds of the stream that the text rests on:

    - `alarm`, once a segment at most, while the text is still being written: `token` (its number in the text, from 0), `time`
      (seconds of the stream it attends to), `risk`, `kind` (of `otoscope.monitors.verdicts.TARGETS`), `text` so far.
    - `partial` and `segment`: what `Watched.to_dict` says of a segment; `rung`: whether its alarm was told, be it of an earlier
      text of it; and `stopped`: whether a loop was cut short.
    - `error`, with `reason`: the stream cannot go on.
    - `end`, with `seconds`: everything has been told.

    Args:
        tell: The listener.
        wake: Called when the stream wants to be written down.
        roomy: Called when there is room again.
        language: Code; None: detected on the first segment.
        pacing: When to write.
    """

    def __init__(
        self,
        tell: Callable[[Event], None],
        wake: Callable[[Stream], None],
        roomy: Callable[[], None] = lambda: None,
        language: str | None = None,
        pacing: Pacing | None = None,
    ) -> None:
        self.pacing, self.language = pacing or Pacing(), language
        self.closed = False
        self._tell, self._wake, self._roomy = tell, wake, roomy
        self._lock = Lock()
        self._segmenter = Segmenter(self.pacing.window, self.pacing.pause)
        self._number, self._written, self._rung = 0, 0.0, -1
        self._unsent = 0
        self._ending = False

    # The side of the source ----------------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """Samples that may be fed before something has to be written; a feed may go beyond it once."""
        return self._segmenter.room

    def feed(self, samples: Any) -> None:
        """Take the next samples, float32 `(n,)` at 16 kHz."""
        with self._lock:
            self._segmenter.feed(samples)
        self._rouse()

    def end(self) -> None:
        """Say that no more sound will come; what is there is written, then `end` is told."""
        self._ending = True
        self._rouse()

    def close(self) -> None:
        """Stop at once, tell nothing more, and let the sound go."""
        with self._lock:
            self.closed = True
            self._segmenter = Segmenter(self.pacing.window, self.pacing.pause)

    def sent(self) -> None:
        """Say that the listener is done with one event."""
        with self._lock:
            self._unsent -= 1
        self._rouse()

    def _rouse(self) -> None:
        if self.wants:
            self._wake(self)

    # The side of the engine ----------------------------------------------------------------------------------------------

    @property
    def wants(self) -> bool:
        """Whether there is something to write, and a listener that keeps up."""
        if self.closed or self._unsent >= UNSENT:
            return False
        return self.has_ended or self._is_due

    @property
    def has_ended(self) -> bool:
        """Whether a segment has ended that is still to be written, or the stream itself."""
        return self._ending or self._segmenter.cut is not None

    @property
    def _is_due(self) -> bool:
        """Whether a segment under way has enough new sound."""
        needed = self.pacing.every if self._written else max(self.pacing.first, self.pacing.every)
        return self._segmenter.audible - self._written >= needed

    def take(self) -> Job | None:
        """What to write now, all sound that has come so far included; None where nothing is wanted."""
        with self._lock:
            removed = self._segmenter.start
            job = self._job() if self.wants else None
            done = job is None and self._ending and not self.closed and not self._segmenter.count
            seconds = self._segmenter.start / SAMPLING_RATE
            roomier = self._segmenter.start > removed
        if roomier:
            self._roomy()
        if done:
            self.tell({"type": "end", "seconds": round(seconds, 3)})
            self.close()
        return job

    def _job(self) -> Job | None:
        sound = self._segmenter
        while (end := sound.count if self._ending and sound.cut is None else sound.cut) is not None and end:
            start, self._written = sound.start / SAMPLING_RATE, 0.0
            known = sound.start + end if sound.cut is None else sound.known
            passed = sound.is_tail or end < SHORTEST * SAMPLING_RATE
            samples = sound.take(end)
            if not passed and not is_silent(samples):
                self._number += 1
                return Job(Clip(samples, start=start), self._number - 1, True, known / SAMPLING_RATE)
        if not self._is_due:
            return None
        self._written = sound.audible
        clip = Clip(sound.peek().copy(), start=sound.start / SAMPLING_RATE)
        return Job(clip, self._number, False, clip.start + clip.duration)

    def tell(self, event: Event) -> None:
        """Tell an event, unless the stream is closed."""
        if self.closed:
            return
        with self._lock:
            self._unsent += 1
        self._tell(event)

    def ring(self, job: Job, event: Event) -> None:
        """Tell of an alarm, once a segment."""
        if self._rung < job.number:
            self._rung = job.number
            self.tell({"type": "alarm", "segment": job.number, "heard": round(job.heard, 3)} | event)

    def has_rung(self, job: Job) -> bool:
        """Whether an alarm was told of a job's segment."""
        return self._rung == job.number

    def fail(self, reason: str) -> None:
        """Tell that the stream cannot go on, and close it."""
        self.tell({"type": "error", "reason": reason})
        self.close()
