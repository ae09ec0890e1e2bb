"""Which place of one input stands for which of another: what a minimal pair of different lengths needs before it is patched.

Patching writes what the clean run held at a place into the corrupted run. In two recordings of nearly the same words the same
frame is another sound, so frames are matched by the times of the words, and text positions by the tokens.
"""

from __future__ import annotations

import string
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from otoscope.activations import ActivationCache, HookPoint
from otoscope.errors import OptionError

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.models.transcripts import Word


def identity_alignment(length_a: int, length_b: int) -> Tensor:
    """The alignment by position of two inputs of one length, `(length,)` int64.

    Raises:
        OptionError: The lengths differ.
    """
    if length_a != length_b:
        raise OptionError(
            f"One input has {length_a} positions, the other {length_b}.",
            "Align them with token_alignment or frame_alignment, or choose a pair of one length.",
        )
    return torch.arange(length_a)


def token_alignment(tokens_a: Sequence[Hashable], tokens_b: Sequence[Hashable]) -> Tensor:
    """For each token of a, the token of b that stands for it.

    Tokens are matched in order with the fewest substitutions, insertions and deletions; a token that b does not have is stood for
    by the partner of the one before it (at the beginning: of the one after it).

    Args:
        tokens_a: Tokens of the corrupted input, ids or texts.
        tokens_b: Tokens of the clean input.

    Returns:
        `(token of a,)` int64, never falling.

    Raises:
        OptionError: The inputs share no token.
    """
    pairs = _matched(tokens_a, tokens_b)
    out = np.full(len(tokens_a), -1)
    for i, j in pairs:
        out[i] = j
    out[: pairs[0][0]] = pairs[0][1]
    return torch.from_numpy(np.maximum.accumulate(out))


def frame_alignment(
    words_a: Sequence[Word], words_b: Sequence[Word], frames: int, frame_seconds: float
) -> Tensor:
    """For each encoder frame of clip a, the frame of clip b that stands for it.

    Words are matched in order with the fewest substitutions, insertions and deletions, case and punctuation aside. Time is linear
    inside a matched word, and between words from the end of one to the beginning of the next; before the first word it is linear
    from the beginning of both clips, after the last up to the end of both windows.

    Args:
        words_a: Words of the corrupted clip, with seconds from its beginning.
        words_b: Words of the clean clip.
        frames: Encoder frames of a window.
        frame_seconds: Length of a frame, for Whisper `model.frame_seconds`.

    Returns:
        `(frame,)` int64, never falling.

    Raises:
        OptionError: The clips share no word.
    """
    pairs = _matched([_plain(w.text) for w in words_a], [_plain(w.text) for w in words_b])
    window = frames * frame_seconds
    anchors = [(0.0, 0.0)]
    for i, j in pairs:
        anchors += [(words_a[i].start, words_b[j].start), (words_a[i].end, words_b[j].end)]
    # Estimated times overlap now and then; the later one then begins where the earlier one ends.
    times = np.maximum.accumulate(np.clip(np.array([*anchors, (window, window)]), 0, window), axis=0)
    centres = (np.arange(frames) + 0.5) * frame_seconds
    there = np.interp(centres, times[:, 0], times[:, 1]) / frame_seconds
    return torch.from_numpy(np.floor(there + 1e-9).astype(np.int64).clip(0, frames - 1))


def _plain(word: str) -> str:
    return word.strip().strip(string.punctuation + "…“”‘’«»¿¡").casefold()


def _matched(a: Sequence[Hashable], b: Sequence[Hashable]) -> list[tuple[int, int]]:
    """Pairs of equal or substituted entries of the cheapest edit, in order.

    Raises:
        OptionError: No entry is equal in both.
    """
    from rapidfuzz.distance import Levenshtein

    blocks = [block for block in Levenshtein.opcodes(a, b) if block.tag in ("equal", "replace")]
    if not any(block.tag == "equal" for block in blocks):
        raise OptionError(
            "The two inputs have nothing in common.", "Choose a pair that differs in a word or two."
        )
    return [
        pair
        for block in blocks
        for pair in zip(
            range(block.src_start, block.src_end), range(block.dest_start, block.dest_end), strict=True
        )
    ]


def aligned_cache(
    cache: ActivationCache, *, positions: Tensor | None = None, frames: Tensor | None = None
) -> ActivationCache:
    """A cache of the clean run whose entries stand where the corrupted run has theirs.

    Attention patterns are taken for the keys that stand for the corrupted run's, cut where a text would look ahead, and scaled to
    sum to 1 again.

    Args:
        cache: Activations of the clean run, one visit a point.
        positions: For each text position of the corrupted run, that of the clean run; None: the same.
        frames: The same for encoder frames.

    Raises:
        OptionError: An alignment points beyond a point's entries (as for points before the encoder's layers, whose frames are
            shorter), or attention scores are to be aligned, which cannot be scaled again.
        PointError: A point's visits do not join.
    """
    out = ActivationCache(cache.points, cache.attention)
    for name in cache:
        point, value = cache.points[name], cache[name]
        of_axis = {
            place: _alignment_of(cache, point, axis, positions, frames)
            for place, axis in enumerate(point.axes)
        }
        for place, index in of_axis.items():
            if index is not None:
                _check_reach(point, place, value, index)
                value = value.index_select(place, index.to(value.device))
        if point.at in ("scores", "pattern") and any(index is not None for index in of_axis.values()):
            value = _pattern(point, value, causal=point.stack == next(iter(cache.points.stacks)))
        out.store(name, value, cache.moments(name)[0])
    return out


def _alignment_of(
    cache: ActivationCache, point: HookPoint, axis: str, positions: Tensor | None, frames: Tensor | None
) -> Tensor | None:
    if axis == "key":
        return positions if point.stack == next(iter(cache.points.stacks)) else frames
    return {"pos": positions, "frame": frames, "source": frames}.get(axis)


def _check_reach(point: HookPoint, place: int, value: Tensor, index: Tensor) -> None:
    size, last = value.shape[place], int(index.max())
    if last >= size:
        raise OptionError(
            f"{point.name} has {size} entries along {point.axes[place]}, the alignment points to {last}.",
            "Read fewer points, or align with lengths of this run.",
        )


def _pattern(point: HookPoint, value: Tensor, causal: bool) -> Tensor:
    if point.at == "scores":
        raise OptionError(f"{point.name} cannot be aligned.", "Align the pattern instead.")
    if causal and "key" in point.axes:
        value = value.tril()
    total = value.sum(-1, keepdim=True)
    return torch.where(total > 0, value / total, value)
