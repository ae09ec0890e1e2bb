"""From recordings to transcripts: windows, batches, languages, words and their times."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import torch

from otoscope.audio import Clip, info, windows
from otoscope.corpora import Item
from otoscope.errors import AudioError, EditError, OptionError
from otoscope.models.alignment import attention_over_frames, token_frames
from otoscope.models.decoding import (
    Decoded,
    DecoderSession,
    LogitFilter,
    batches,
    decode,
    detect_languages,
    prompts_for,
)
from otoscope.models.transcripts import DecodeOptions, Segment, Token, Transcript, Word
from otoscope.outcomes import UNSPACED_LANGUAGES, compression_ratio
from otoscope.progress import track

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.models.whisper import SpeechModel

Source = Clip | Path | str | Item

_LOOK_AHEAD = 4
"""Batches of windows read ahead and sorted by length, so that rows of one batch end at about the same time."""


@dataclass(frozen=True, eq=False)
class Piece:
    """What was written for one window: all that a transcript needs, and neither sound nor cache.

    Attributes:
        start: Seconds into the recording.
        duration: Seconds of sound.
        language: Language decoded in.
        decoded: What was written, without what alignment needed.
        tokens: The tokens with their times.
    """

    start: float
    duration: float
    language: str
    decoded: Decoded
    tokens: tuple[Token, ...]


@dataclass(eq=False)
class _Recording:
    """A recording under way: windows come back out of order."""

    source: Source
    language: str | None
    index: int
    pieces: dict[int, Piece | float] = field(default_factory=dict)
    expected: int | None = None
    error: AudioError | None = None

    @property
    def done(self) -> bool:
        return self.error is not None or (self.expected is not None and len(self.pieces) == self.expected)

    @property
    def name(self) -> str | None:
        if isinstance(self.source, Clip):
            return self.source.source
        return self.source.audio_filepath if isinstance(self.source, Item) else str(self.source)

    def windows(self, seconds: float) -> Iterator[Clip]:
        return (
            self.source.windows(seconds) if isinstance(self.source, Item) else windows(self.source, seconds)
        )


@dataclass(frozen=True, eq=False)
class Window:
    """At most one window of sound.

    Attributes:
        clip: The sound.
        recording: Which of the sources it belongs to, from 0.
        number: Which window of its recording it is, from 0.
        language: Language of its recording, as far as it is known.
    """

    clip: Clip
    recording: int
    number: int
    language: str | None


class Watcher(Protocol):
    """Reads the model while it goes through recordings, batch by batch; see `transcribe_all` and `hear_all`."""

    def watching(
        self, features: Tensor, windows: Sequence[Window]
    ) -> AbstractContextManager[Sequence[LogitFilter]]:
        """Entered before a batch of windows is encoded and left when it has been written.

        Args:
            features: Log-mel spectrograms `(row, mel, column)`.
            windows: What each row hears. Windows come out of order.

        Returns:
            Logit filters to decode with; one that returns its logits as they are can follow the tokens.
        """
        ...


def transcribe(model: SpeechModel, source: Source, options: DecodeOptions | None = None) -> Transcript:
    """Transcribe one recording of any length; see `transcribe_all`."""
    transcript = next(iter(transcribe_all(model, [source], options)))
    assert isinstance(transcript, Transcript)
    return transcript


def transcribe_all(
    model: SpeechModel,
    sources: Iterable[Source],
    options: DecodeOptions | None = None,
    *,
    batch: int | None = None,
    keep_going: bool = False,
    watcher: Watcher | None = None,
    languages: Sequence[str | None] | None = None,
) -> Iterator[Transcript | AudioError]:
    """Transcribe recordings in batches of windows, in bounded memory, and yield their transcripts in order.

    A recording longer than 30 s is cut into windows at quiet places; each window is decoded by itself. Without a forced
    language, a multilingual model detects it on a recording's first window.

    Args:
        model: The recogniser.
        sources: Clips, paths or manifest items.
        options: How to decode.
        batch: Windows at once; None: `model.batch`.
        keep_going: Yield the `AudioError` of a recording that cannot be read in place of its transcript, and go on.
        watcher: What reads the model meanwhile.
        languages: Language code to decode each source in (None: detect); takes the place of `options.language`.

    Yields:
        One transcript (or error) a source, once all its windows have been watched.

    Raises:
        AudioError: A recording cannot be read, and `keep_going` is off.
        OptionError: The language or task does not fit the model.
        EditError: An edit with `rows` is in place: windows are sorted into batches by length.
    """
    options = checked_options(model, options)
    _refuse_row_edits(model)

    def work(chunk: Sequence[Window]) -> list[Piece]:
        return _decode_windows(model, chunk, options, watcher)

    def finish(recording: _Recording) -> Transcript:
        return transcript_of(model, _pieces(recording), options, recording.name)  # type: ignore[arg-type]

    recordings = _recordings(sources, options.language)
    for recording, language in zip(recordings, languages or (), strict=languages is not None):
        recording.language = model.check_language(language)
    yield from _in_order("Transcribing", model, recordings, work, finish, batch or model.batch, keep_going)


def checked_options(model: SpeechModel, options: DecodeOptions | None = None) -> DecodeOptions:
    """Options as a model understands them (its own code of the language), refused where they do not fit; None: the defaults.

    Raises:
        OptionError: The language or task does not fit the model.
    """
    options = options or DecodeOptions()
    options = replace(options, language=model.check_language(options.language))
    model.prompt(options.language or next(iter(model.languages), "en"), task=options.task)  # refuses a task
    return options


def seconds_of(source: Source) -> float:
    """Seconds of sound, as far as the file tells beforehand; 0 where it does not, or cannot be read."""
    if isinstance(source, Clip):
        return source.duration
    try:
        if not isinstance(source, Item):
            return info(source).duration or 0.0
        return source.duration or (info(source.path).duration or source.offset) - source.offset
    except AudioError:  # told when it is read
        return 0.0


def _refuse_row_edits(model: SpeechModel) -> None:
    if model.edits_rows:
        raise EditError(
            "An edit names rows, and which recording is in which row of a corpus is not known beforehand.",
            "Leave rows out, or call decode, where row i is prompt i.",
        )


def hear_all(
    model: SpeechModel,
    sources: Iterable[Source],
    watcher: Watcher,
    *,
    batch: int | None = None,
    keep_going: bool = False,
) -> Iterator[float | AudioError]:
    """Run the encoder alone over recordings, for what a watcher reads there.

    Args:
        model: The recogniser.
        sources: Clips, paths or manifest items.
        watcher: What reads the model.
        batch: Windows at once; None: `model.batch`.
        keep_going: Yield the `AudioError` of a recording that cannot be read, and go on.

    Yields:
        Seconds of sound of each source (or its error), in order, once all its windows have been watched.

    Raises:
        AudioError: A recording cannot be read, and `keep_going` is off.
        EditError: An edit with `rows` is in place: windows are sorted into batches by length.
    """
    _refuse_row_edits(model)

    def work(chunk: Sequence[Window]) -> list[float]:
        with torch.no_grad():
            features = model.features([window.clip for window in chunk])
            with watcher.watching(features, chunk):
                model.encode(features)
        return [window.clip.duration for window in chunk]

    # A language that is given keeps a multilingual model from detecting one on every long recording.
    recordings = _recordings(sources, "en")
    yield from _in_order("Listening", model, recordings, work, _seconds, batch or model.batch, keep_going)


def _seconds(recording: _Recording) -> float:
    return sum(_pieces(recording))  # type: ignore[arg-type]


def _recordings(sources: Iterable[Source], language: str | None) -> list[_Recording]:
    sources = list(sources)
    for source in sources:
        check_source(source)
    return [_Recording(source, language, i) for i, source in enumerate(sources)]


def check_source(source: object) -> None:
    """Refuse what is no recording.

    Raises:
        OptionError: It is an array, which does not tell its sampling rate, or something else altogether.
    """
    if not isinstance(source, (Clip, Path, str, Item)):
        raise OptionError(
            f"A {type(source).__name__} is no recording: it does not tell its sampling rate.",
            "Make a clip of samples with oto.Clip.of(samples, rate), or give a path.",
        )


_Result = TypeVar("_Result")


def _in_order(
    label: str,
    model: SpeechModel,
    recordings: list[_Recording],
    work: Callable[[Sequence[Window]], Sequence[Piece | float]],
    finish: Callable[[_Recording], _Result],
    size: int,
    keep_going: bool,
) -> Iterator[_Result | AudioError]:
    """What `work` makes of every window, batch by batch, put together by `finish` in the order of the recordings."""
    waiting = dict(enumerate(recordings))
    following = 0
    with track(label, sum(seconds_of(r.source) for r in recordings) or None, "s of sound") as task:
        for ahead in batches(_windows(model, recordings, keep_going), size * _LOOK_AHEAD):
            ahead.sort(key=lambda w: len(w.clip.samples))
            for chunk in batches(ahead, size):
                for window, piece in zip(chunk, work(chunk), strict=True):
                    recordings[window.recording].pieces[window.number] = piece
                    task.advance(window.clip.duration)
            while following in waiting and waiting[following].done:
                yield _outcome(waiting.pop(following), finish)
                following += 1
        # The reader learns how many windows a recording has only after its last one.
        for recording in waiting.values():
            yield _outcome(recording, finish)


def _outcome(recording: _Recording, finish: Callable[[_Recording], _Result]) -> _Result | AudioError:
    if recording.error:
        return recording.error
    result = finish(recording)
    recording.pieces.clear()  # a corpus must not pile up in memory
    return result


def _pieces(recording: _Recording) -> list[Piece | float]:
    return [recording.pieces[i] for i in range(len(recording.pieces))]


def _windows(model: SpeechModel, recordings: Iterable[_Recording], keep_going: bool) -> Iterator[Window]:
    for recording in recordings:
        try:
            yield from _windows_of(model, recording)
        except AudioError as error:
            if not keep_going:
                raise
            recording.error = error


def _windows_of(model: SpeechModel, recording: _Recording) -> Iterator[Window]:
    clips = recording.windows(model.window_seconds)
    number, clip = 0, next(clips)
    for following in clips:
        if number == 0 and recording.language is None and model.is_multilingual:
            recording.language = _language_of(model, clip)
        yield Window(clip, recording.index, number, recording.language)
        number, clip = number + 1, following
    recording.expected = number + 1
    yield Window(clip, recording.index, number, recording.language)


def _language_of(model: SpeechModel, clip: Clip) -> str:
    """Language of a long recording, from its first window, so that later windows agree with it."""
    with torch.no_grad():
        return detect_languages(model, DecoderSession(model, model.encode(model.features(clip))))[0]


def _decode_windows(
    model: SpeechModel, chunk: Sequence[Window], options: DecodeOptions, watcher: Watcher | None
) -> list[Piece]:
    with torch.no_grad():
        features = model.features([w.clip for w in chunk])
        with watcher.watching(features, chunk) if watcher else nullcontext(()) as filters:
            session = DecoderSession(model, model.encode(features))
            languages = _languages(model, chunk, session)
            prompts = prompts_for(model, languages, options)
            seeds = [options.seed + 1_000_003 * w.recording + w.number for w in chunk]
            decoded = decode(model, session, prompts, options, seeds=seeds, filters=filters, align=True)
    rows = zip(chunk, languages, decoded, strict=True)
    return [piece_of(model, window.clip, language, row) for window, language, row in rows]


def _languages(model: SpeechModel, chunk: Sequence[Window], session: DecoderSession) -> list[str]:
    if not model.is_multilingual:
        return ["en"] * len(chunk)
    known = [w.language for w in chunk]
    detected = [] if all(known) else detect_languages(model, session)
    return [language or detected[i] for i, language in enumerate(known)]


# From decoded windows to a transcript ------------------------------------------------------------------------------------


def piece_of(model: SpeechModel, clip: Clip, language: str, decoded: Decoded) -> Piece:
    """What one window gives to a transcript; `decoded` must hold what alignment needs."""
    tokens = tuple(_timed_tokens(model, clip, decoded))
    return Piece(clip.start, clip.duration, language, replace(decoded, queries=None, keys=None), tokens)


def transcript_of(
    model: SpeechModel, pieces: Sequence[Piece], options: DecodeOptions, source: str | None
) -> Transcript:
    """The transcript of a recording from its windows, in order."""
    language = pieces[0].language
    tokens = [token for piece in pieces for token in piece.tokens]
    segments: list[Segment] = []
    first = 0
    for piece in pieces:
        segments += _segments(model, piece, first)
        first += len(piece.tokens)
    text = model.tokenizer.decode([t.id for t in tokens], skip_special_tokens=True).strip()
    total = sum(sum(piece.decoded.logprobs) for piece in pieces)
    return Transcript(
        text=text,
        language=language,
        tokens=tuple(tokens),
        words=tuple(words_of(model, tokens, language)),
        segments=tuple(segments),
        duration=pieces[-1].start + pieces[-1].duration - pieces[0].start,
        no_speech_prob=pieces[0].decoded.no_speech_prob,
        avg_logprob=total / (len(tokens) + len(pieces)),
        compression_ratio=compression_ratio(text),
        source=source,
        prompt=tuple(pieces[0].decoded.prompt),
        settings=options,
        model=model.describe(),
    )


def _segments(model: SpeechModel, piece: Piece, first: int) -> list[Segment]:
    """One segment a window, or one a pair of timestamps where the model wrote them."""
    begin, ids = model.no_timestamps_token + 1, piece.decoded.ids
    end = piece.start + piece.duration
    marks = [i for i, token in enumerate(ids) if token >= begin]
    if not marks:
        return [_segment(model, piece, first, range(len(ids)), piece.start, end)]
    out = []
    for opening, closing in zip(marks, [*marks[1:], len(ids)], strict=True):
        if closing > opening + 1:
            start = piece.start + (ids[opening] - begin) * model.frame_seconds
            stop = piece.start + (ids[closing] - begin) * model.frame_seconds if closing < len(ids) else end
            part = range(opening + 1, closing)
            out.append(_segment(model, piece, first, part, min(start, end), min(stop, end)))
    return out


def _segment(model: SpeechModel, piece: Piece, first: int, part: range, start: float, end: float) -> Segment:
    decoded = piece.decoded
    text = model.tokenizer.decode([decoded.ids[i] for i in part], skip_special_tokens=True).strip()
    whole = len(part) == len(decoded.ids)
    logprobs = decoded.logprobs if whole else [decoded.logprobs[i] for i in part]
    return Segment(
        start=start,
        end=end,
        text=text,
        first_token=first + part.start,
        end_token=first + part.stop,
        no_speech_prob=decoded.no_speech_prob,
        avg_logprob=sum(logprobs) / (len(part) + whole),
        compression_ratio=compression_ratio(text),
        finished=decoded.finished,
    )


def frames_of(model: SpeechModel, clip: Clip) -> int:
    """Encoder positions that hold the clip's sound; the rest of the window is padding."""
    return max(
        1, min(model.config.max_source_positions, math.ceil(clip.duration / model.frame_seconds - 1e-6))
    )


def alignment_of(model: SpeechModel, clip: Clip, decoded: Decoded) -> Tensor:
    """Attention of the alignment heads `(head, token, frame)` over the clip's frames, the end token's row included."""
    assert decoded.queries is not None
    assert decoded.keys is not None
    return attention_over_frames(decoded.queries, decoded.keys, frames_of(model, clip))


def _timed_tokens(model: SpeechModel, clip: Clip, decoded: Decoded) -> list[Token]:
    if not decoded.ids:
        return []
    starts = token_frames(alignment_of(model, clip, decoded).cpu()) * model.frame_seconds
    bounds = np.minimum(np.append(starts, clip.duration), clip.duration) + clip.start
    pieces = [model.tokenizer.decode([i]) for i in decoded.ids]
    return [
        Token(token, piece, decoded.logprobs[i], decoded.entropies[i], float(bounds[i]), float(bounds[i + 1]))
        for i, (token, piece) in enumerate(zip(decoded.ids, pieces, strict=True))
    ]


_PUNCTUATION = frozenset("\"'“”‘’¿¡([{-–—….,;:!?)]}。、，！？：；「」『』（）")
"""What is written beside a word and not said: a certain full stop says nothing of a doubtful word."""


def words_of(model: SpeechModel, tokens: Sequence[Token], language: str) -> list[Word]:
    """Group tokens into words: a word begins with a space, or in languages without spaces with every whole character."""
    words: list[Word] = []
    group: list[int] = []
    for i, token in enumerate(tokens):
        if token.id >= model.end_token:  # timestamps and other special tokens are no words
            continue
        whole = "\ufffd" not in model.tokenizer.decode([tokens[j].id for j in group])
        starts_word = token.text.startswith(" ") or (language in UNSPACED_LANGUAGES and whole)
        if group and starts_word:
            words.append(_word(model, tokens, group))
            group = []
        group.append(i)
    return [*words, _word(model, tokens, group)] if group else words


def _word(model: SpeechModel, tokens: Sequence[Token], group: list[int]) -> Word:
    text = model.tokenizer.decode([tokens[i].id for i in group]).strip()
    spoken = [i for i in group if not _PUNCTUATION.issuperset(tokens[i].text.strip())]
    p = float(np.mean([tokens[i].p for i in spoken or group]))
    return Word(text, tokens[group[0]].start, tokens[group[-1]].end, p, group[0], group[-1])
