"""The last step down: from frames to the spectrogram, through the two convolutions an encoder begins with.

A convolution is linear, and a GELU is its input times the secant slope `gelu(z) / z`, frozen at the value it had. So what frames
supplied splits exactly over time and mel bands: a word points at a patch of sound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from otoscope.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from otoscope.models.whisper import SpeechModel


@dataclass(frozen=True, eq=False)
class Patches:
    """What each place of the spectrogram supplied.

    Attributes:
        parts: `(n, mel, column)` what its loudness above the floor supplied.
        floor: `(n,)` what the floor supplied, the same in all places.
        biases: `(n,)` what the convolutions' biases supplied.
        level: The floor, in the units of the spectrogram.
    """

    parts: Tensor
    floor: Tensor
    biases: Tensor
    level: float


@dataclass(frozen=True, eq=False)
class Stem:
    """Both convolutions, recorded for one spectrogram.

    Attributes:
        mel: `(mel, column)`.
        first: First convolution.
        second: Second convolution, of stride 2.
        slopes: Secant slopes of the GELU after each, `(d, column)` and `(d, frame)`.
    """

    mel: Tensor
    first: nn.Conv1d
    second: nn.Conv1d
    slopes: tuple[Tensor, Tensor]

    @classmethod
    def record(cls, model: SpeechModel, features: Tensor) -> Stem:
        """Pass a log-mel spectrogram `(1, mel, column)` through the convolutions.

        Raises:
            ModelError: The encoder does not begin with two convolutions, each with a GELU.
        """
        encoder: Any = model.hf.get_submodule("model.encoder")
        if not all(hasattr(encoder, name) for name in ("conv1", "conv2")):
            raise ModelError("The encoder does not begin with two convolutions.", "Trace a Whisper model.")
        first, second = encoder.conv1, encoder.conv2
        with torch.no_grad():
            before = first(features.to(first.weight))
            between = second(functional.gelu(before))
        return cls(features[0].to(first.weight), first, second, (_secant(before[0]), _secant(between[0])))

    def patches(self, g: Tensor, level: float | None = None) -> Patches:
        """Split what frames supplied over the spectrogram.

        Args:
            g: Adjoint at the frames, `(frame, n, d)`.
            level: Loudness that counts as nothing, in the units of the spectrogram; None: its least value.
        """
        with torch.no_grad():
            level = float(self.mel.min()) if level is None else level
            at_second = g.permute(1, 2, 0) * self.slopes[1]
            biases = _of_bias(at_second, self.second)
            at_first = _transposed(at_second, self.second, self.slopes[0].shape[1]) * self.slopes[0]
            biases = biases + _of_bias(at_first, self.first)
            adjoint = _transposed(at_first, self.first, self.mel.shape[1])
            floor = adjoint.sum(dim=(1, 2)) * level
            return Patches(adjoint * (self.mel - level), floor, biases, level)


def _secant(z: Tensor) -> Tensor:
    """`gelu(z) / z`, the normal distribution function."""
    return torch.special.ndtr(z)


def _of_bias(g: Tensor, convolution: nn.Conv1d) -> Tensor:
    return g.new_zeros(len(g)) if convolution.bias is None else g.sum(dim=2) @ convolution.bias.detach()


def _transposed(g: Tensor, convolution: nn.Conv1d, length: int) -> Tensor:
    """The adjoint of a convolution, for an input of some length."""
    stride, padding = convolution.stride[0], int(convolution.padding[0])
    kernel = convolution.kernel_size[0]
    missing = length - ((g.shape[2] - 1) * stride - 2 * padding + kernel)
    return functional.conv_transpose1d(
        g, convolution.weight.detach(), stride=stride, padding=padding, output_padding=missing
    )
