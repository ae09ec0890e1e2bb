"""A clip that the encoder has passed once: what every later stage takes up, whether it reads, writes or patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from otoscope.models.replay import Replay

if TYPE_CHECKING:
    from torch import Tensor

    from otoscope.audio import Clip
    from otoscope.models.whisper import SpeechModel


@dataclass(frozen=True, eq=False)
class Heard:
    """A clip as the encoder took it.

    Attributes:
        features: Log-mel spectrogram `(1, mel, column)`, columns of 10 ms.
        encoded: Encoder output `(1, frame, d_model)`, frames of 20 ms.
        audio: The encoder's pass, layer by layer.
    """

    features: Tensor
    encoded: Tensor
    audio: Replay

    @property
    def resid_post(self) -> list[Tensor]:
        """What left each encoder layer, `(1, frame, d_model)`."""
        return self.audio.residuals[1:]


def listen(model: SpeechModel, clip: Clip) -> Heard:
    """Run the encoder once over a clip of at most one window, and keep its pass."""
    with torch.no_grad():
        features = model.features(clip)
        audio = Replay.of(model, "encoder", lambda: model.encode(features))
        return Heard(features, model.normed(audio.residuals[-1]), audio)
