"""From frames to the spectrogram: the split is exact, and equals autograd's through the frozen convolutions."""

from __future__ import annotations

import torch
from tests.conftest import tiny

from otoscope.circuits.stem import Stem
from otoscope.circuits.tape import record_speech


def world():
    model = tiny("whisper", dtype=torch.float64)
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in model.hf.named_parameters():
            if "conv" in name and name.endswith("bias"):
                weight.copy_(torch.randn(weight.shape, generator=noise, dtype=weight.dtype))
    features = torch.randn(1, 16, 100, generator=noise, dtype=torch.float64)
    return model, features


def test_patches_floor_and_biases_sum_to_what_the_frames_supplied():
    model, features = world()
    tape = record_speech(model, features, torch.tensor([2, 5])).heard
    g = torch.randn(
        50, 3, tape.embed.shape[1], generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    stem = Stem.record(model.hf.model.encoder, features)
    for level in (None, 0.0, -0.7):
        found = stem.patches(g, level)
        total = found.parts.sum(dim=(1, 2)) + found.floor + found.biases
        torch.testing.assert_close(total, torch.einsum("snd,sd->n", g, tape.embed), rtol=1e-9, atol=1e-11)
    assert (stem.patches(g).parts[:, features[0] == features.min()] == 0).all()


def test_each_patch_is_its_gradient_times_its_loudness():
    model, features = world()
    stem = Stem.record(model.hf.model.encoder, features)
    d = stem.slopes[1].shape[0]
    g = torch.randn(50, 1, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mel = features.clone().requires_grad_()
    frames = (stem.second(stem.first(mel) * stem.slopes[0]) * stem.slopes[1])[0]
    (gradient,) = torch.autograd.grad((frames.T * g[:, 0]).sum(), mel)
    torch.testing.assert_close(stem.patches(g, 0.0).parts, gradient * features, rtol=1e-9, atol=1e-12)
