"""Frames are pooled into words, pauses, lengths; each frame is in one segment, and the padding is one."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from otoscope.circuits.segments import (
    PADDING,
    SILENCE,
    fixed,
    named_segments,
    of_similarity,
    of_words,
    single_frames,
)
from otoscope.errors import OptionError


@dataclass
class Word:
    text: str
    start: float
    end: float


WORDS = [Word(" and", 0.1, 0.3), Word(" so", 0.3, 0.5), Word(" my", 0.62, 0.8)]


def is_partition(segments, frames):
    assert len(segments.index) == frames
    assert sorted(set(segments.index.tolist())) == list(range(len(segments)))
    assert sum(len(segments.frames(s)) for s in range(len(segments))) == frames
    assert len(segments.spans) == len(segments.labels) == len(segments)


def test_each_word_and_each_pause_is_a_segment_and_the_padding_is_one():
    segments = of_words(WORDS, 100, 45)
    is_partition(segments, 100)
    assert segments.labels == (SILENCE, "and", "so", SILENCE, "my", SILENCE, PADDING)
    assert segments.spans[1] == (0.1, 0.3)
    assert segments.spans[-1] == (0.9, 2.0)
    assert segments.frames(4).tolist() == list(range(31, 40))


def test_words_that_overlap_leave_no_frame_out_and_none_twice():
    segments = of_words([Word("a", 0.0, 0.4), Word("b", 0.2, 0.6), Word("c", 0.6, 9.0)], 50, 50)
    is_partition(segments, 50)
    assert segments.labels == ("a", "b", "c")
    assert segments.spans == ((0.0, 0.4), (0.4, 0.6), (0.6, 1.0))


def test_segments_of_equal_length():
    segments = named_segments("80ms", [], 50, 30)
    is_partition(segments, 50)
    assert [len(segments.frames(s)) for s in range(len(segments))] == [4] * 7 + [2, 20]
    assert len(single_frames(50, 30)) == 31
    assert len(single_frames(50, 50)) == 50
    assert fixed(50, 0, 0.1).labels == (PADDING,)


def test_a_segment_can_be_opened_into_its_frames():
    closed = of_words(WORDS, 100, 45)
    opened = closed.opened(1, 0.02)
    is_partition(opened, 100)
    assert len(opened) == len(closed) + 9
    assert opened.spans[1] == (0.1, 0.12)
    assert [s for s in opened.labels if s] == [s for i, s in enumerate(closed.labels) if i != 1]
    pooled = torch.zeros(len(opened), dtype=torch.long)
    for frame in range(100):
        pooled[opened.index[frame]] = closed.index[frame]
    assert torch.equal(pooled[opened.index], closed.index)  # each of the new ones lies in one of the old
    with pytest.raises(OptionError, match="no segment 7"):
        closed.opened(7, 0.02)


def test_borders_lie_where_neighbours_are_least_alike():
    hidden = torch.zeros(60, 3)
    for start, end, axis in ((0, 20, 0), (20, 35, 1), (35, 60, 2)):
        hidden[start:end, axis] = 1.0
    segments = of_similarity(hidden, 50, seconds=50 * 0.02 / 3)
    is_partition(segments, 60)
    assert segments.spans == ((0.0, 0.4), (0.4, 0.7), (0.7, 1.0), (1.0, 1.2))


def test_what_is_no_segmentation_is_refused():
    for name in ("syllables", "-80ms", "80", ""):
        with pytest.raises(OptionError, match="There are no segments"):
            named_segments(name, [], 50, 30)
    with pytest.raises(OptionError, match="shorter than a frame"):
        named_segments("5ms", [], 50, 30)
