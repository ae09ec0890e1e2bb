"""Through cross-attention into the encoder: every row sums to its target, whatever the segments, and equals autograd's."""

from __future__ import annotations

import pytest
import torch
from tests.circuits.cases import Random
from tests.conftest import tiny

from otoscope.circuits.adjoint import Seeds, Sweep, feature_seeds, final_seeds
from otoscope.circuits.hearing import EncoderSources, EncoderSweep
from otoscope.circuits.sources import find_sources
from otoscope.circuits.tape import attention_out, record_speech
from otoscope.dictionaries.activation import Activation
from otoscope.dictionaries.neurons import NeuronBasis
from otoscope.dictionaries.transcoder import Transcoder, TranscoderSet

pytestmark = pytest.mark.usefixtures("one_thread")

IDS = [2, 5, 9, 11, 4, 7]
FRAMES, WIDTH, FEATURES = 50, 48, 40
SEGMENTS = {
    "one": torch.zeros(FRAMES, dtype=torch.long),
    "five": torch.arange(FRAMES) // 10,
    "scattered": torch.arange(FRAMES) % 7,
    "frames": torch.arange(FRAMES),
}


@pytest.fixture(scope="module")
def model():
    model = tiny("whisper", dtype=torch.float64)
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():  # random models come without biases, which must not be lost
        for name, weight in model.hf.named_parameters():
            if name.endswith("bias"):
                weight.copy_(torch.randn(weight.shape, generator=noise, dtype=weight.dtype) / 4)
    return model


@pytest.fixture(scope="module")
def tape(model):
    features = torch.randn(1, 16, 2 * FRAMES, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return record_speech(model, features, torch.tensor(IDS))


def transcoders(layers: int, kind: str = "relu", skip: bool = False) -> TranscoderSet:
    make = Random(5)
    return TranscoderSet([
        Transcoder(
            make(FEATURES, WIDTH), make(FEATURES), make(FEATURES, WIDTH), make(WIDTH),
            Activation(kind, k=6 if kind == "topk" else None), make(WIDTH, WIDTH) if skip else None,
        )
        for _ in range(layers)
    ])  # fmt: skip


def decoder(model, tape, segments=None, dictionary=None):
    dictionary = dictionary or NeuronBasis(model)
    sources = find_sources(tape, dictionary, segments=segments)
    return Sweep(tape, dictionary, sources), sources


def seeds_of(sweep, sources) -> tuple[Seeds, torch.Tensor]:
    """Features of all layers and logits, and what they are."""
    unembedding = sweep.tape.wiring.unembedding.weight.detach()
    columns = torch.randperm(sources.features, generator=torch.Generator().manual_seed(1))[:20]
    features = feature_seeds(sweep.tape, sweep.dictionary, sources, columns)
    logits = final_seeds(sweep.tape, torch.tensor([5, 3]), unembedding[[4, 5]])
    values = (sweep.tape.final(sweep.tape.last)[[5, 3]] * unembedding[[4, 5]]).sum(dim=1)
    return Seeds.join([features, logits]), torch.cat([sources.activation[columns], values])


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("segments", SEGMENTS)
def test_decoder_rows_sum_to_their_targets_with_frames_as_sources(model, tape, segments):
    for dictionary in (NeuronBasis(model), transcoders(2), transcoders(2, "topk", skip=True)):
        sweep, sources = decoder(model, tape, SEGMENTS[segments], dictionary)
        seeds, values = seeds_of(sweep, sources)
        close(sweep.rows(seeds).sum(dim=1), values)


@pytest.mark.parametrize("segments", SEGMENTS)
def test_a_segment_is_the_sum_of_its_frames(model, tape, segments):
    sweep, sources = decoder(model, tape)
    seeds, _ = seeds_of(sweep, sources)
    frames = sweep.rows(seeds)[:, sources.frames.first : sources.biases]
    pooled_sweep, pooled = decoder(model, tape, SEGMENTS[segments])
    found = pooled_sweep.rows(seeds)[:, pooled.frames.first : pooled.biases]
    expected = frames.new_zeros(found.shape).index_add_(1, SEGMENTS[segments], frames)
    close(found, expected)


def test_what_frames_supply_is_the_adjoint_at_the_encoders_output_times_that_output(model, tape):
    sweep, sources = decoder(model, tape)
    seeds, _ = seeds_of(sweep, sources)
    heard = sweep.heard(seeds)
    frames = sweep.rows(seeds)[:, sources.frames.first : sources.biases]
    close(torch.einsum("snd,sd->ns", heard, tape.cross[0].x), frames)


def encoder_sweep(model, tape, segments, dictionary=None):
    dictionary = dictionary or NeuronBasis(model, stream="encoder")
    return EncoderSweep(EncoderSources.of(tape.heard, dictionary, SEGMENTS[segments]))


@pytest.mark.parametrize("segments", SEGMENTS)
def test_encoder_rows_sum_to_what_the_frames_supplied(model, tape, segments):
    sweep, sources = decoder(model, tape)
    seeds, _ = seeds_of(sweep, sources)
    supplied = sweep.rows(seeds)[:, sources.frames.first : sources.biases].sum(dim=1)
    for dictionary in (None, transcoders(3), transcoders(3, "topk")):
        rows = encoder_sweep(model, tape, segments, dictionary).from_output(sweep.heard(seeds))
        close(rows.sum(dim=1), supplied)


@pytest.mark.parametrize("segments", SEGMENTS)
def test_rows_of_encoder_features_sum_to_their_activations_over_the_segment(model, tape, segments):
    for dictionary in (None, transcoders(3)):
        sweep = encoder_sweep(model, tape, segments, dictionary)
        pooled = torch.cat([sweep.sources.pooled(layer).flatten() for layer in range(3)])
        columns = torch.randperm(sweep.sources.features, generator=torch.Generator().manual_seed(2))[
            :25
        ].tolist()
        close(sweep.of_features(columns).sum(dim=1), pooled[columns])


def test_pooled_encoder_columns_are_sums_over_frames(model, tape):
    sweep, sources = decoder(model, tape)
    heard = sweep.heard(seeds_of(sweep, sources)[0])
    by_frame = encoder_sweep(model, tape, "frames")
    rows, s = by_frame.from_output(heard), by_frame.sources
    for name in ("one", "five", "scattered"):
        pooled = encoder_sweep(model, tape, name)
        found, p = pooled.from_output(heard), pooled.sources
        count = len(p.segments)
        for first, start in ((s.frames, p.frames), (s.positions, p.positions)):
            expected = heard.new_zeros(len(rows), count).index_add_(
                1, SEGMENTS[name], rows[:, first : first + FRAMES]
            )
            close(found[:, start : start + count], expected)
        for layer in range(3):
            size = s.dictionary.size(layer)
            frames = rows[:, s.starts[layer] : s.starts[layer + 1]].view(len(rows), FRAMES, size)
            expected = heard.new_zeros(len(rows), count, size).index_add_(1, SEGMENTS[name], frames)
            close(found[:, p.starts[layer] : p.starts[layer + 1]], expected.flatten(1))
        close(found[:, p.biases :], rows[:, s.biases :])


def test_autograd_through_the_frozen_encoder_gives_the_same_columns(model, tape):
    sweep, sources = decoder(model, tape)
    heard = sweep.heard(seeds_of(sweep, sources)[0])[:, :4]
    by_frame = encoder_sweep(model, tape, "frames")
    rows, s, t = by_frame.from_output(heard), by_frame.sources, tape.heard
    start = t.embed.clone().requires_grad_(True)
    outs = [mlp.out.clone().requires_grad_(True) for mlp in t.mlp]
    stream = start + t.positions
    for attention, out in zip(t.attention, outs, strict=True):
        stream = stream + attention_out(attention, attention.norm(stream)) + out
    final = t.final(stream)
    for i in range(heard.shape[1]):
        gradients = torch.autograd.grad((final * heard[:, i]).sum(), [start, *outs], retain_graph=True)
        close(rows[i, s.frames : s.frames + FRAMES], (gradients[0] * t.embed).sum(dim=1))
        for layer, g in enumerate(gradients[1:]):
            expected = (g @ s.dictionary.decoder(layer, layer, None).T) * s.activation[layer]
            close(rows[i, s.starts[layer] : s.starts[layer + 1]], expected.flatten())


def test_the_replacement_is_the_model_frames_changed_under_freeze_move_targets_by_their_columns(model, tape):
    """The convolutions' output of one frame, added again, while patterns, scales and MLPs are held."""
    sweep, sources = decoder(model, tape)
    seeds, _ = seeds_of(sweep, sources)
    rows = encoder_sweep(model, tape, "frames").from_output(sweep.heard(seeds))
    t = tape.heard
    for frame in (0, 17, 49):
        change = torch.zeros_like(t.embed)
        change[frame] = t.embed[frame]
        stream = change.clone()
        for attention in t.attention:
            x = attention.norm.factor * (stream - stream.mean(dim=-1, keepdim=True))
            v = (x @ attention.wiring.v.weight.T).unflatten(-1, (attention.wiring.heads, -1))
            z = torch.einsum("hqk,khd->qhd", attention.pattern, v).flatten(1)
            stream = stream + z @ attention.wiring.o.weight.T
        encoded = t.final.factor * (stream - stream.mean(dim=-1, keepdim=True))
        moved = torch.einsum("snd,sd->n", sweep.heard(seeds), encoded)
        close(rows[:, encoder_sweep(model, tape, "frames").sources.frames + frame], moved)


@pytest.mark.parametrize("segments", ["five", "frames"])
def test_total_effects_of_frames_positions_and_biases_sum_to_what_the_encoder_supplied(model, tape, segments):
    sweep, sources = decoder(model, tape)
    seeds, _ = seeds_of(sweep, sources)
    heard = sweep.heard(seeds)
    supplied = sweep.rows(seeds)[:, sources.frames.first : sources.biases].sum(dim=1)
    for dictionary in (NeuronBasis(model, stream="encoder"), transcoders(3)):
        pooled = EncoderSources.of(tape.heard, dictionary, SEGMENTS[segments])
        through = EncoderSweep(pooled, through=True)
        rows = through.from_output(heard)
        close(rows[:, pooled.features :].sum(dim=1), supplied)
        start = through.at_start(heard)
        close(
            torch.einsum("snd,sd->n", start, tape.heard.embed),
            rows[:, pooled.frames : pooled.positions].sum(dim=1),
        )
