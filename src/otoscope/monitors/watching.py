"""A monitor at work: it watches what `transcribe_all`, or anybody, decodes, and knows the risk of every token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from otoscope.models.transcribing import Window, frames_of
from otoscope.monitors.features import reads_of
from otoscope.monitors.monitor import Monitor
from otoscope.monitors.reading import EVERY, Block, Reader
from otoscope.monitors.scoring import Progress, Scorer

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.audio import Clip
    from otoscope.models.base import LogitFilter
    from otoscope.models.whisper import SpeechModel

Listener = Callable[[int, Progress], None]
"""Called with a row of the batch and how it stands, after each of its blocks."""


class Watch:
    """A watcher for `transcribe_all` that knows the risk of every token; see `otoscope.models.transcribing.Watcher`.

    Args:
        monitor: The monitor.
        model: The model it was fitted to.
        listener: Told of every block at once.
        keeping: Keep how windows went, to be taken.
        every: Steps that are looked at together: 1 rings soonest, more cost less.

    Raises:
        ModelError: It was fitted to another model.
    """

    def __init__(
        self,
        monitor: Monitor,
        model: SpeechModel,
        listener: Listener | None = None,
        keeping: bool = True,
        every: int = EVERY,
    ) -> None:
        monitor.check(model)
        self.monitor, self.model, self.listener, self.keeping = monitor, model, listener, keeping
        self.every = every
        self.newest: dict[int, Progress] = {}
        self._features = monitor.features_of(model)
        self.scorer = Scorer(monitor, self._features)
        self._done: dict[tuple[int, int], Progress] = {}
        self._reader = Reader(model, monitor.layers, self._take, every, reads_of(self._features))

    def _take(self, block: Block) -> None:
        progress = self.scorer.take(block)
        if self.listener:
            self.listener(block.row, progress)

    def begin(self) -> None:
        """Keep how windows go from here on, and forget what was kept."""
        self.keeping = True
        self._done.clear()

    def alarmed(self, row: int) -> bool:
        """Whether a row of the batch is in alarm at one of the newest steps, which are looked at together."""
        progress = self.scorer.rows.get(row)
        return progress is not None and max(progress.risks[-self.every :]) >= self.monitor.threshold

    @contextmanager
    def over(self, clips: Sequence[Clip]) -> Iterator[None]:
        """Watch what is decoded inside the block, whoever decodes; row i hears clip i. Other filters come after the monitor's."""
        self.scorer = Scorer(self.monitor, self._features)
        frames = [frames_of(self.model, clip) for clip in clips]
        try:
            with self._reader.following(frames) as follow, self.model.filtering(lambda _: follow, first=True):
                yield
        finally:
            # an alarm ends with its batch
            self.newest, self.scorer = self.scorer.rows, Scorer(self.monitor, self._features)

    @contextmanager
    def watching(self, features: Tensor, windows: Sequence[Window]) -> Iterator[Sequence[LogitFilter]]:
        """Watch one batch."""
        with self.over([window.clip for window in windows]):
            yield []
        for row, window in enumerate(windows if self.keeping else ()):
            self._done[window.recording, window.number] = self.newest.get(row, Progress())

    def take(self, recording: int) -> list[Progress]:
        """How the windows of a recording went, in order, and forget them."""
        numbers = sorted(number for of, number in self._done if of == recording)
        return [self._done.pop((recording, number)) for number in numbers]
