"""The ear: recordings as clips, long ones window by window, reference sounds, mixing at an SNR.

`otoscope.audio.noises` has further sounds and disturbances, `otoscope.audio.espeak` makes speech.
"""

from __future__ import annotations

from otoscope.audio import espeak, noises
from otoscope.audio.clip import SAMPLING_RATE, Clip
from otoscope.audio.mixing import mix, silence, white_noise
from otoscope.audio.pcm import Pcm
from otoscope.audio.reading import SUFFIXES, AudioInfo, info, read, windows
from otoscope.audio.segmenting import Segmenter, is_silent

__all__ = [
    "SAMPLING_RATE",
    "SUFFIXES",
    "AudioInfo",
    "Clip",
    "Pcm",
    "Segmenter",
    "espeak",
    "info",
    "is_silent",
    "mix",
    "noises",
    "read",
    "silence",
    "white_noise",
    "windows",
]
