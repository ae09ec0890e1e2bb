"""A monitor for Hugging Face's `generate`: it warns, stops, or calls for help while a text is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal

import torch
from transformers import LogitsProcessor, StoppingCriteria

from otoscope.errors import OptionError
from otoscope.monitors.features import reads_of
from otoscope.monitors.monitor import Monitor
from otoscope.monitors.reading import EVERY, Block, Reader
from otoscope.monitors.scoring import Progress, Scorer
from otoscope.progress import notice

if TYPE_CHECKING:
    from types import TracebackType

    from torch import Tensor

    from otoscope.models.whisper import SpeechModel

Action = Literal["warn", "stop"]


class HallucinationMonitor(LogitsProcessor, StoppingCriteria):
    """Watches a Whisper model that Hugging Face's `generate` runs, as logits processor and stopping criterion in one.

    Use it in a `with` block, and pass it as both::

        with HallucinationMonitor(model) as monitor:
            ids = model.hf.generate(features, logits_processor=[monitor], stopping_criteria=[monitor])
        monitor.rows[0].risk, monitor.rows[0].alarm, monitor.rows[0].alarm_token

    Of a recording in several windows, or one that is decoded again at another temperature, the newest pass is told. Where
    `generate` goes on with some of several recordings alone, or moves texts between rows (beam search), it is refused. One block
    watches recordings in batches of one size.

    Args:
        model: A model of `otoscope.load_model`.
        monitor: None: the one that comes with otoscope.
        action: `warn` says so once a row; `stop` ends a row at its alarm.
        on_alarm: Called with the row and how it stands, once a row.
        mend: A logits processor that is applied to the rows in alarm, from the alarm on.
        seconds: Length of each recording, so that the padding is known; None: the whole window counts as sound.
        every: Steps that are looked at together: 1 rings soonest, more cost less.

    Raises:
        ModelError: The monitor was fitted to another model.
        OptionError: None comes with otoscope for this one.
    """

    def __init__(
        self,
        model: SpeechModel,
        monitor: Monitor | None = None,
        action: Action = "warn",
        *,
        on_alarm: Callable[[int, Progress], None] | None = None,
        mend: Callable[[Tensor, Tensor], Tensor] | None = None,
        seconds: Sequence[float] | None = None,
        every: int = EVERY,
    ) -> None:
        if action not in ("warn", "stop"):
            raise OptionError(f"There is no action {action!r}.", "Choose warn or stop.")
        self.monitor = monitor or Monitor.shipped(model)
        self.monitor.check(model)
        self.model, self.action, self.on_alarm, self.mend = model, action, on_alarm, mend
        features = self.monitor.features_of(model)
        self._scorer = Scorer(self.monitor, features)
        self._reader = Reader(model, self.monitor.layers, self._take, every, reads_of(features))
        self._frames = (
            None if seconds is None else [max(round(s / model.frame_seconds + 0.499), 1) for s in seconds]
        )
        self._rung: set[int] = set()
        self._last: list[list[int]] | None = None
        self._stack = ExitStack()
        self._follow: Callable[[Tensor, Tensor], Tensor] | None = None

    @property
    def rows(self) -> dict[int, Progress]:
        """How each row stands."""
        return self._scorer.rows

    def __enter__(self) -> HallucinationMonitor:
        self._follow = self._stack.enter_context(self._reader.following(self._frames))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        self._follow = None

    def _take(self, block: Block) -> None:
        if block.first == 0:
            self._rung.discard(block.row)
        progress = self._scorer.take(block)
        if progress.alarm and block.row not in self._rung:
            self._rung.add(block.row)
            if self.on_alarm:
                self.on_alarm(block.row, progress)
            elif self.action == "warn":
                notice(f"Row {block.row}: risk {progress.risk:.2f} at token {progress.alarm_token} (from 0).")

    def process(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Look at one step; scores come back as they were, but for a mend."""
        if self._follow is None:
            raise OptionError(
                "The monitor is not watching.", "Call generate inside `with HallucinationMonitor(...)`."
            )
        self._refuse_beams(input_ids)
        scores = self._follow(input_ids, scores)
        if self.mend is None or not self._rung:
            return scores
        rows = torch.tensor(sorted(row for row in self._rung if row < len(scores)), device=scores.device)
        return scores.index_copy(0, rows, self.mend(input_ids[rows], scores[rows].clone()))

    def stops(self, input_ids: Tensor) -> Tensor:
        """Which rows end now, `(row,)`."""
        ends = [self.action == "stop" and row in self._rung for row in range(len(input_ids))]
        return torch.tensor(ends, device=input_ids.device)

    def __call__(  # type: ignore[override]
        self, input_ids: Tensor, scores: Any
    ) -> Any:
        """As a logits processor: scores of the next token `(row, vocab)`. As a stopping criterion: which rows end.

        `generate` calls a stopping criterion with all scores so far (a tuple) or None, and a processor with a tensor.
        """
        return self.process(input_ids, scores) if isinstance(scores, torch.Tensor) else self.stops(input_ids)

    def _refuse_beams(self, input_ids: Tensor) -> None:
        tokens = input_ids.tolist()
        if self._last is not None and len(tokens) != len(self._last):
            raise OptionError(
                "`generate` goes on with some of the rows alone, and which ones they are it does not tell.",
                "Watch recordings of one window, without fallback to other temperatures, or one recording at a time.",
            )
        grown = (
            self._last is not None
            and len(tokens) == len(self._last)
            and all(len(new) == len(old) + 1 for new, old in zip(tokens, self._last, strict=True))
        )
        if grown and any(new[:-1] != old for new, old in zip(tokens, self._last or (), strict=True)):
            raise OptionError(
                "Texts move between rows: this is beam search, which a monitor cannot follow.",
                "Decode with num_beams=1.",
            )
        self._last = tokens
