"""The sound that a document is about."""

from __future__ import annotations

from otoscope.documents.base import Count, Part, Seconds, Text


class AudioInfo(Part):
    """The explained window and where it lies in the recording."""

    file: Text
    duration: Seconds  # of the explained window, without padding
    sampling_rate: Count = 16_000
    window_seconds: Seconds = 30.0  # what the model was given, padding included
    mel_hop_seconds: Seconds = 0.01
    frame_seconds: Seconds = 0.02  # one encoder position
    start: Seconds = 0.0  # of the window in the recording
    recording_duration: Seconds  # longer than `duration` when only a window is explained
