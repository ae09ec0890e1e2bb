"""Has a text the outcome that is looked for, and did a patch take it away, or put the right text in its place?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from otoscope.corpora import Item
from otoscope.errors import OptionError
from otoscope.outcomes import Detector, OutputType, error_rates, has_words, is_loop, normaliser, output_type
from otoscope.outcomes.repetition import units

Outcome = Literal["loop", "hallucination", "word", "token"]

_FEW_TOKENS = 5
_FEW_WORDS = 1 / 3


@dataclass(frozen=True)
class Text:
    """What was written for one clip.

    Attributes:
        text: The text.
        ids: Its tokens, without prompt and end token.
        language: Language code it was written in.
    """

    text: str
    ids: Sequence[int]
    language: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What a patch did to an item that had the outcome.

    Attributes:
        resolved: The outcome is gone.
        collapsed: Hardly anything is left: less than five tokens, or less than a third of the words that were said (characters in
            languages written without spaces).
        restored: Resolved and not collapsed; where it is known what was said, with a lower character error rate than before.
    """

    resolved: bool
    collapsed: bool
    restored: bool


class Judge(Protocol):
    """Decides about one kind of outcome."""

    def check(self, corpus: Sequence[Item]) -> None:
        """Refuse a corpus that cannot be judged.

        Raises:
            OptionError: An item lacks what is needed.
        """
        ...

    def has(self, text: Text, item: Item) -> bool:
        """Whether the text has the outcome."""
        ...

    def verdict(self, before: Text, after: Text, item: Item) -> Verdict:
        """What became of an item that had it."""
        ...


def judge_of(outcome: Outcome, detector: Detector = "combined") -> Judge:
    """The judge of an outcome that is decided by the text.

    Raises:
        OptionError: There is no such outcome.
    """
    judges: dict[str, Judge] = {
        "loop": LoopJudge(detector),
        "hallucination": HallucinationJudge(),
        "word": WordJudge(),
    }
    if outcome not in judges:
        raise OptionError(
            f"The outcome {outcome!r} is not decided by the text.",
            f"Choose one of: {', '.join(get_args(Outcome))}.",
        )
    return judges[outcome]


@dataclass(frozen=True)
class LoopJudge:
    """The text repeats itself, by one detector of `otoscope.outcomes.is_loop`.

    The combined decision leaves out what was really said so (the reference loops as well). A single detector is taken at its
    word: every text above its threshold counts.
    """

    detector: Detector = "combined"

    def check(self, corpus: Sequence[Item]) -> None:
        """Any corpus will do."""

    def has(self, text: Text, item: Item) -> bool:
        """Whether the text loops; under the combined decision, though the reference does not."""
        said = item.text if self.detector == "combined" else None
        if said and is_loop(said, self.detector, item.language or text.language):
            return False
        return is_loop(text.text, self.detector, text.language)

    def verdict(self, before: Text, after: Text, item: Item) -> Verdict:
        """See `Verdict`."""
        return _verdict(not self.has(after, item), before, after, item)


@dataclass(frozen=True)
class HallucinationJudge:
    """Words for a sound in which nobody speaks, or words that are not what was said (see `output_type`)."""

    def check(self, corpus: Sequence[Item]) -> None:
        """Any corpus will do."""

    def has(self, text: Text, item: Item) -> bool:
        """Whether the text is invented."""
        if is_sound(item):
            return has_words(text.text)
        kind = output_type(text.text, reference=item.text, language=item.language or text.language)
        return kind in (OutputType.UNGROUNDED, OutputType.LOOP)

    def verdict(self, before: Text, after: Text, item: Item) -> Verdict:
        """See `Verdict`; of a sound nothing is the right text, so that it cannot collapse."""
        resolved = not self.has(after, item)
        if is_sound(item):
            return Verdict(resolved, False, resolved)
        return _verdict(resolved, before, after, item)


@dataclass(frozen=True)
class WordJudge:
    """Of two words that sound alike the one is written that was not said: labels `spoken` and `competing`."""

    def check(self, corpus: Sequence[Item]) -> None:
        """Every item needs both labels."""
        for item in corpus:
            if not is_ambiguous(item):
                raise OptionError(
                    f"{item.audio_filepath} lacks the label spoken or competing.",
                    "Make a corpus with `otoscope corpus make ambiguous`, or label spoken and competing words.",
                )

    def has(self, text: Text, item: Item) -> bool:
        """Whether the competing word is written and the spoken one is not."""
        spoken, competing = self._written(text, item)
        return competing and not spoken

    def verdict(self, before: Text, after: Text, item: Item) -> Verdict:
        """Resolved: the spoken word is written, and the competing one is not."""
        spoken, competing = self._written(after, item)
        return _verdict(spoken and not competing, before, after, item)

    @staticmethod
    def _written(text: Text, item: Item) -> tuple[bool, bool]:
        """Whether the spoken word is there, and the competing one; both are normalised like the text."""
        plain = normaliser(item.language or text.language)
        padded = f" {plain(text.text)} "
        spoken, competing = (
            f" {plain(str(item.labels[label]))} " in padded for label in ("spoken", "competing")
        )
        return spoken, competing


def is_sound(item: Item) -> bool:
    """Whether nobody speaks in it: the text is empty, or the label `speech` is `no`."""
    return item.labels.get("speech") == "no" or item.text == ""


def is_ambiguous(item: Item) -> bool:
    """Whether it has the labels that the outcome `word` needs."""
    return bool(item.labels.get("spoken") and item.labels.get("competing"))


def collapsed(after: Text, reference: str | None) -> bool:
    """Whether hardly anything is left of a text."""
    if len(after.ids) < _FEW_TOKENS:
        return True
    said = len(units(reference or "", after.language))
    return len(units(after.text, after.language)) < _FEW_WORDS * said


def _verdict(resolved: bool, before: Text, after: Text, item: Item) -> Verdict:
    few = collapsed(after, item.text)
    return Verdict(resolved, few, resolved and not few and _nearer(before, after, item))


def _nearer(before: Text, after: Text, item: Item) -> bool:
    """Whether the new text is nearer to what was said; where that is not known, it is given the benefit of the doubt."""
    if not item.text:
        return True
    language = item.language or after.language
    old, new = (error_rates([item.text], [t.text], language).cer for t in (before, after))
    return old is None or new is None or new < old
