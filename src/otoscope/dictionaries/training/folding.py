"""From what was learned to a dictionary that reads and writes as the model does: the units of training go into the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otoscope.dictionaries.activation import Activation
from otoscope.dictionaries.base import Origin
from otoscope.dictionaries.cross_layer import CrossLayer, CrossLayerTranscoder
from otoscope.dictionaries.transcoder import Transcoder, TranscoderSet

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from otoscope.dictionaries.training.modules import Coder, LayerCoder


def fold(coder: Coder) -> TranscoderSet | CrossLayerTranscoder:
    """The dictionary of a coder; its weights are copies."""
    config = coder.config
    reads, writes = config.places
    origin = Origin(config.name, "otoscope", config.to_json())
    if config.kind == "clt":
        parts = [_cross_layer(coder, at) for at in range(len(coder))]
        return CrossLayerTranscoder(parts, reads=reads, writes=writes, origin=origin)
    found = {layer: _transcoder(coder, at) for at, layer in enumerate(config.layers)}
    return TranscoderSet(found, layers=config.model_layers, reads=reads, writes=writes, origin=origin)


def _transcoder(coder: Coder, at: int) -> Transcoder:
    own = coder[at]
    w_enc, b_enc = _encoder(own)
    w_skip, b_dec = None, own.b_dec.detach().double() / own.gain.double()
    if coder.config.kind == "skip":
        w_skip = own.w_skip.detach().double() * own.scaled_by.double() / own.gain.double()
        b_dec = b_dec - w_skip @ own.shift.double()
        w_skip = _kept(w_skip, own)
    return Transcoder(w_enc, b_enc, _decoder(coder, at, at), _kept(b_dec, own), _activation(own), w_skip)


def _cross_layer(coder: Coder, at: int) -> CrossLayer:
    own = coder[at]
    w_enc, b_enc = _encoder(own)
    w_dec = [_decoder(coder, at, out) for out in range(at, len(coder))]
    return CrossLayer(
        w_enc, b_enc, w_dec, _kept(own.b_dec.double() / own.gain.double(), own), _activation(own)
    )


def _encoder(own: LayerCoder) -> tuple[Tensor, Tensor]:
    w_enc = own.w_enc.detach().double() * own.scaled_by.double()
    return _kept(w_enc, own), _kept(own.b_enc.double() - w_enc @ own.shift.double(), own)


def _decoder(coder: Coder, at: int, out: int) -> Tensor:
    rows = coder.decoder(at, out).detach().double()
    if coder.config.tying != "none":
        rows = rows * coder[at].scale[out - at].detach().double()[:, None]
    return _kept(rows / coder[out].gain.double(), coder[at])


def _activation(own: LayerCoder) -> Activation:
    if own.config.activation == "topk":
        return Activation("topk", own.config.k)
    return Activation("jumprelu", threshold=_kept(own.threshold.double().expand(own.config.width), own))


def _kept(tensor: Tensor, own: LayerCoder) -> torch.Tensor:
    """In the precision of training, whatever it was computed in, and on the CPU."""
    return tensor.detach().to("cpu", own.w_enc.dtype).contiguous()
