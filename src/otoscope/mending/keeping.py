"""Whether tuned heads still write speech: some of the speech lessons again, under the repair."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otoscope.mending.applying import repaired
from otoscope.mending.lessons import Lesson, write_heard
from otoscope.mending.repair import Repair
from otoscope.outcomes import Rate, error_rates_by_language
from otoscope.showing import Shows

if TYPE_CHECKING:
    from otoscope.models.whisper import SpeechModel

SAMPLE = 24
"""Speech lessons that are written again at most."""

BROKEN = 0.1
"""Rise of the word error rate, on speech that was taught, from which on speech counts as broken."""

REMEDY = "Give more speech with its text, tune for fewer epochs, or lower the learning rate with --lr."


@dataclass(frozen=True)
class SpeechKept(Shows):
    """What became of speech lessons. They were taught, so other speech fares no better: `mend price` tells.

    Attributes:
        changed: Share of the recordings whose text is another one.
        wer_before: Word error rate of the untouched model, against the references.
        wer_after: The same under the repair.
    """

    changed: Rate
    wer_before: float | None
    wer_after: float | None

    @property
    def broke(self) -> bool:
        """Whether the word error rate rose by `BROKEN` or more."""
        return None not in (self.wer_before, self.wer_after) and self.wer_after - self.wer_before >= BROKEN  # type: ignore[operator]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        wer = {"before": self.wer_before, "after": self.wer_after}
        return {"changed": self.changed.to_dict(), "wer": wer, "broke": self.broke}

    def __str__(self) -> str:
        wer = " -> ".join(
            "-" if rate is None else f"{rate:.3f}" for rate in (self.wer_before, self.wer_after)
        )
        return (
            f"speech lessons written again: WER {wer}, {self.changed.count} of {self.changed.n} texts changed"
        )


def write_again(
    model: SpeechModel,
    repair: Repair,
    lessons: Sequence[Lesson],
    *,
    max_tokens: int = 224,
    batch: int | None = None,
    seed: int = 0,
) -> SpeechKept | None:
    """Write a sample of the speech lessons under a repair, from the encoder's output that they hold.

    Args:
        model: The untouched model.
        repair: A repair of the decoder alone, that always acts.
        lessons: What it was taught; each speech lesson's target is what the untouched model writes.
        max_tokens: Tokens written at most.
        batch: Recordings at once.
        seed: Of the sample.

    Returns:
        None where no lesson is speech.
    """
    speech = [lesson for lesson in lessons if lesson.kind == "speech"]
    if not speech:
        return None
    sample = random.Random(seed).sample(speech, min(SAMPLE, len(speech)))
    with repaired(model, repair):
        decoded = write_heard(model, [lesson.heard for lesson in sample], max_tokens, batch)
    before = [_text(model, lesson.target[:-1]) for lesson in sample]
    after = [_text(model, d.ids) for d in decoded]
    old, new = (_wer(sample, texts) for texts in (before, after))
    return SpeechKept(Rate.of([a != b for a, b in zip(before, after, strict=True)]), old, new)


def imbalance(lessons: Sequence[Lesson]) -> str | None:
    """A warning where there is less speech to keep than there are failures to unlearn; else None."""
    speech = sum(lesson.kind == "speech" for lesson in lessons)
    failures = sum(lesson.kind in ("sound", "untold") for lesson in lessons)
    if speech >= failures:
        return None
    return (
        f"only {speech} of the lessons are speech that is got right, beside {failures} failures: the heads may forget "
        "how to write speech; give more speech with its text."
    )


def _text(model: SpeechModel, ids: Sequence[int]) -> str:
    return model.tokenizer.decode(ids, skip_special_tokens=True).strip()


def _wer(lessons: Sequence[Lesson], texts: Sequence[str]) -> float | None:
    told = [
        (lesson.heard.item.text or "", text, lesson.heard.language)
        for lesson, text in zip(lessons, texts, strict=True)
    ]
    return error_rates_by_language(told)["total"].wer
