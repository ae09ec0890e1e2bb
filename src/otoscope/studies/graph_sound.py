"""The sound of a traced recording, as the page of its graph draws and plays it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from otoscope.audio import Clip, read
from otoscope.circuits.speech_tracing import SpeechTracer
from otoscope.documents.audio import AudioInfo
from otoscope.documents.base import Array
from otoscope.documents.graph import Sound
from otoscope.errors import AudioError
from otoscope.studies.sound_pictures import wav_of, waveform_of

if TYPE_CHECKING:
    from otoscope.circuits.graph import AttributionGraph
    from otoscope.documents.base import Resource


def sound_of(
    graph: AttributionGraph, clip: Clip | None, resources: dict[str, Resource], name: str
) -> Sound | None:
    """The traced window, read again where it was not handed over; nothing where it is gone.

    Args:
        graph: The graph.
        clip: The window.
        resources: Takes it as a WAV file.
        name: What it is called there.
    """
    told = graph.record.get("audio")
    if told is None:
        return None
    start, seconds = float(told["start"]), float(told["duration"])
    if clip is None:
        try:
            clip = read(str(told["source"]), offset=start, duration=seconds)
        except AudioError:
            return None
    resources[name] = wav_of(clip)
    mel = None
    if isinstance(graph.tracer, SpeechTracer):
        seen = graph.tracer.features[0].float().cpu().numpy()
        mel = Array.pack(seen[:, : round(100 * seconds)], "u8")
    return Sound(
        audio=AudioInfo(
            file=Path(str(told["source"] or "clip")).name,
            duration=seconds,
            frame_seconds=float(told["frame_seconds"]),
            start=start,
            recording_duration=max(start + seconds, clip.duration),
        ),
        waveform=waveform_of(clip),
        mel=mel,
    )
