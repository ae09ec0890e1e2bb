"""The three hallucination rates in use, from one decode of audio in which nobody speaks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from otoscope.outcomes.intervals import Rate
from otoscope.outcomes.loops import LoopSigns, loop_signs
from otoscope.showing import Shows

NO_SPEECH = 0.6
"""No-speech probability above which Whisper takes a window for silence, unless it is sure of its text."""

SURE = -1.0
"""Mean log-probability above which Whisper is sure of its text."""


@dataclass(frozen=True)
class Written:
    """What was written for one non-speech clip of at most one decoding window (30 s).

    Attributes:
        text: The transcript.
        no_speech_prob: Probability of the no-speech token; None where the model has none.
        avg_logprob: Mean log-probability of the written tokens; None where it was not kept.
        language: Language decoded in, for the loop detectors.
        token_ids: Written tokens, for the loop detectors.
        vocab_size: Size of the vocabulary, for the loop detectors.
        seconds: Duration of the audio, for the loop detectors.
    """

    text: str
    no_speech_prob: float | None = None
    avg_logprob: float | None = None
    language: str | None = None
    token_ids: Sequence[int] | None = None
    vocab_size: int | None = None
    seconds: float | None = None

    def loop_signs(self) -> LoopSigns:
        """What the loop detectors say."""
        return loop_signs(
            self.text,
            language=self.language,
            token_ids=self.token_ids,
            vocab_size=self.vocab_size,
            seconds=self.seconds,
        )


@dataclass(frozen=True)
class HallucinationRates(Shows):
    """Rates over the same clips and one decode. Figures of different kinds must never share a column.

    Attributes:
        raw: The transcript is not empty: anything but whitespace, so that a lone "." counts, too (Calm-Whisper, arXiv
            2505.12969).
        words: The transcript has a letter or a digit, a bracketed sound event included: `raw` without lone punctuation.
        filtered: The transcript is not empty and passes Whisper's rule, which skips a window whose no_speech_prob is above
            0.6 unless its avg_logprob is above -1.0 (arXiv 2609.04561).
        gate: no_speech_prob is below 0.6 or avg_logprob above -1.0; the text is not looked at, even an empty one counts
            (arXiv 2606.07473).
        loops: The transcript loops, see `LoopSigns.is_loop`.
    """

    raw: Rate
    words: Rate
    filtered: Rate
    gate: Rate
    loops: Rate

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """JSON-ready: `Rate.to_dict` of each."""
        return {name: rate.to_dict() for name, rate in vars(self).items()}


def hallucination_rates(written: Iterable[Written]) -> HallucinationRates:
    """How often something was written though nothing was said, by every published rule.

    Clips without a no-speech probability or mean log-probability are left out of `filtered` and `gate`, whose `n` then
    is smaller.

    Args:
        written: What was written for each non-speech clip.
    """
    clips = list(written)
    scored = [
        (_is_written(clip), clip.no_speech_prob, clip.avg_logprob)
        for clip in clips
        if clip.no_speech_prob is not None and clip.avg_logprob is not None
    ]
    return HallucinationRates(
        raw=Rate.of([_is_written(clip) for clip in clips]),
        words=Rate.of([any(map(str.isalnum, clip.text)) for clip in clips]),
        filtered=Rate.of([text and (p <= NO_SPEECH or logprob > SURE) for text, p, logprob in scored]),
        gate=Rate.of([p < NO_SPEECH or logprob > SURE for _, p, logprob in scored]),
        loops=Rate.of([clip.loop_signs().is_loop for clip in clips]),
    )


def _is_written(clip: Written) -> bool:
    return bool(clip.text.strip())
