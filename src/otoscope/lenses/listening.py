"""One clip through a Whisper model once: what every layer heard, what was written, and the pass that lenses read.

The audio is read once, the encoder runs once and decoding happens once; each lens takes what it needs from here.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from otoscope.audio import Clip, info, read, windows
from otoscope.corpora import Item
from otoscope.models.decoding import Decoded, DecoderSession, decode, detect_languages, prompts_for
from otoscope.models.transcribing import piece_of, transcript_of

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.activations import ActivationCache
    from otoscope.models.transcripts import DecodeOptions, Transcript
    from otoscope.models.whisper import SpeechModel


def first_window(
    source: Clip | Path | str | Item, seconds: float = 30.0, offset: float = 0.0
) -> tuple[Clip, float]:
    """The window that begins at `offset`, and the length of the whole recording in seconds.

    Args:
        source: A clip, a path or a manifest item (which has an offset of its own).
        seconds: Length of a window; a longer recording is cut at a quiet place.
        offset: Seconds into the recording.

    Raises:
        AudioError: The recording cannot be read, or ends before the offset.
    """
    if isinstance(source, Item):
        clip = next(source.windows(seconds))
        known = source.duration or (info(source.path).duration or 0.0) - source.offset
        return clip, max(known, clip.duration)
    if isinstance(source, Clip):
        whole, clip = source.duration, source.span(offset, source.duration) if offset else source
    else:
        known = info(source).duration
        clip = read(source, offset=offset, duration=2 * seconds)
        whole = clip.start + clip.duration if known is None else known
    return next(windows(clip, seconds)), whole


def window_note(start: float, duration: float, whole: float, done: str) -> list[str]:
    """What to say of a window that is a part of its recording; nothing of one that is all of it.

    Args:
        start: Of the window in the recording, in seconds.
        duration: Of the window, in seconds.
        whole: Of the recording, in seconds.
        done: What was done with the window, such as "explained".
    """
    if whole - duration < 0.05:
        return []
    end = start + duration
    line = f"Only {start:.2f} to {end:.2f} s of {whole:.2f} s are {done}; a window ends at a quiet place."
    return [line if whole - end < 0.05 else f"{line} The next begins with --offset {end:.2f}."]


def write(
    model: SpeechModel, clip: Clip, encoded: Tensor, options: DecodeOptions
) -> tuple[Transcript, Decoded]:
    """Decode a clip that was listened to; the language is detected unless the options force one."""
    session = DecoderSession(model, encoded)
    language = options.language or (detect_languages(model, session)[0] if model.is_multilingual else "en")
    prompts = prompts_for(model, [language], options)
    decoded = decode(model, session, prompts, options, align=True)[0]
    return transcript_of(model, [piece_of(model, clip, language, decoded)], options, clip.source), decoded


def read_again(
    model: SpeechModel, encoded: Tensor, tokens: Tensor, prompt: int, points: Iterable[str]
) -> ActivationCache:
    """Give the decoder the whole text at once and read points where each token was written.

    Args:
        model: The recogniser.
        encoded: Encoder output `(1, frame, d_model)`.
        tokens: Prompt and at least one written token `(pos,)`.
        prompt: Length of the prompt.
        points: Names or globs.

    Returns:
        The cache; position i of every decoder point is the one that wrote token i.
    """
    with model.capturing(points, pos_slice=slice(prompt - 1, None)) as cache:
        DecoderSession(model, encoded).step(tokens[None, :-1])
    return cache
