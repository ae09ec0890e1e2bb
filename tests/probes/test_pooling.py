"""Pools read in passing equal the same pools of a plain forward pass, on real speech and on every family."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
from tests.conftest import example_inputs

from otoscope.audio import Clip, read, silence
from otoscope.audio.samples import sample
from otoscope.models.decoding import DecoderSession
from otoscope.models.transcribing import frames_of, hear_all, transcribe_all
from otoscope.models.transcripts import DecodeOptions
from otoscope.probes.pooling import MEL, Pooler, loud_frames, pool_forward, stack_points

ALL = ("mean", "max", "last", "end")


@pytest.fixture(scope="module")
def clips():
    return [read(sample(name)) for name in ("jfk", "austen-0880", "austen-0890")]


def states(model, clip, transcript):
    """Residual streams of every layer, from one teacher-forced pass: encoder `(layer, frame, d)`, decoder `(layer, pos, d)`."""
    tokens = torch.tensor([[*transcript.prompt, *transcript.ids]])
    with (
        torch.no_grad(),
        model.capturing(["encoder_blocks.*.hook_resid_post", "decoder_blocks.*.hook_resid_post"]) as cache,
    ):
        DecoderSession(model, model.encode(model.features(clip))).step(tokens)
    return [
        torch.cat([cache[name] for name in stack_points(model, stack)]) for stack in ("encoder", "decoder")
    ]


@pytest.mark.weights
def test_pools_of_a_batch_equal_those_of_a_teacher_forced_pass_of_each_clip(tiny_en, clips):
    pooler = Pooler(tiny_en, ("mean", "max", "last", "frames"), ALL)
    transcripts = list(transcribe_all(tiny_en, clips, batch=3, watcher=pooler))
    for i, (clip, transcript) in enumerate(zip(clips, transcripts, strict=True)):
        vectors = pooler.take(i, [True])
        encoder, decoder = states(tiny_en, clip, transcript)
        sound = encoder[:, : frames_of(tiny_en, clip)]
        text = decoder[
            :, len(transcript.prompt) - 1 : -1
        ]  # row t wrote token t; the last one wrote end-of-text
        wanted = {
            "encoder.mean": sound.mean(1), "encoder.max": sound.amax(1), "encoder.last": sound[:, -1], "encoder.frames": sound,
            "decoder.mean": text.mean(1), "decoder.max": text.amax(1), "decoder.last": text[:, -1], "decoder.end": decoder[:, -1],
        }  # fmt: skip
        for name, layers in wanted.items():
            for layer, vector in enumerate(layers):
                np.testing.assert_allclose(vectors[f"{name}.{layer}"], vector, atol=2e-3, rtol=1e-3)


@pytest.mark.weights
def test_a_text_that_ran_out_of_room_counts_every_state(tiny_en, clips):
    pooler = Pooler(tiny_en, ("mean",), ALL)
    options = DecodeOptions(max_positions=8)
    (transcript,) = transcribe_all(tiny_en, clips[:1], options, watcher=pooler)
    assert not transcript.segments[0].finished
    vectors = pooler.take(0, [False])
    _, decoder = states(tiny_en, clips[0], transcript)
    text = decoder[:, len(transcript.prompt) - 1 : -1]
    assert text.shape[1] == len(transcript.ids)
    np.testing.assert_allclose(vectors["decoder.mean.3"], text[3].mean(0), atol=2e-3)
    np.testing.assert_array_equal(vectors["decoder.last.3"], vectors["decoder.end.3"])


@pytest.mark.weights
def test_watching_changes_no_text_and_leaves_no_hook(tiny_en, clips):
    plain = [t.ids for t in transcribe_all(tiny_en, clips)]
    watched = [t.ids for t in transcribe_all(tiny_en, clips, watcher=Pooler(tiny_en, ("mean",), ALL))]
    assert watched == plain
    assert tiny_en.open_hooks == 0


def tensors() -> dict[int, int]:
    """Bytes by address of all memory that tensors hold."""
    gc.collect()
    there = [x.untyped_storage() for x in gc.get_objects() if issubclass(type(x), torch.Tensor)]
    return {memory.data_ptr(): memory.nbytes() for memory in there}


@pytest.mark.weights
def test_of_a_batch_its_vectors_are_kept_and_no_buffers_of_the_model(tiny_en, clips):
    before = tensors()
    pooler = Pooler(tiny_en, ("mean", "max", "last"), ALL)
    list(transcribe_all(tiny_en, clips, batch=3, watcher=pooler))
    kept = sum(size for address, size in tensors().items() if address not in before)
    vectors = [pooler.take(i, [True]) for i in range(3)]
    assert kept < 1.1 * sum(vector.nbytes for row in vectors for vector in row.values())


@pytest.mark.weights
def test_given_texts_are_written_whatever_the_model_would_write(tiny_en, clips):
    texts = {(0, 0): [2425, 13], (1, 0): []}
    pooler = Pooler(tiny_en, ("mean",), ALL, texts)
    transcripts = list(transcribe_all(tiny_en, clips[:2], watcher=pooler))
    assert [t.ids for t in transcripts] == [[2425, 13], []]
    vectors = pooler.take(1, [True])
    np.testing.assert_array_equal(
        vectors["decoder.mean.0"], vectors["decoder.end.0"]
    )  # no text: the only state


@pytest.mark.weights
def test_a_multilingual_model_that_detects_the_language_first_is_pooled_alike(base, clips):
    free, told = Pooler(base, ("mean",), ALL), Pooler(base, ("mean",), ALL)
    (transcript,) = transcribe_all(base, clips[1:2], watcher=free)
    list(transcribe_all(base, clips[1:2], DecodeOptions(language=transcript.language), watcher=told))
    one, other = free.take(0, [True]), told.take(0, [True])
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], atol=1e-3)


@pytest.mark.weights
def test_windows_of_a_long_recording_are_put_together_by_their_lengths(tiny_en, clips):
    long = Clip(np.concatenate([clips[0].samples] * 4))  # 44 s: two windows
    pooler = Pooler(tiny_en, ("mean", "max", "frames"))
    list(hear_all(tiny_en, [long], pooler))
    vectors = pooler.take(0)
    frames = vectors["encoder.frames.2"]
    assert abs(len(frames) - 2200) <= 2
    np.testing.assert_allclose(vectors["encoder.mean.2"], frames.mean(0), atol=1e-3)
    np.testing.assert_array_equal(vectors["encoder.max.2"], frames.max(0))


@pytest.mark.weights
def test_the_speech_pool_leaves_pauses_out(tiny_en, clips):
    word = clips[1].samples[:24_000]
    paused = Clip(np.concatenate([word, np.zeros(48_000, np.float32)]))
    pooler = Pooler(tiny_en, ("mean", "speech", "frames"))
    list(hear_all(tiny_en, [paused], pooler))
    vectors = pooler.take(0)
    frames = vectors["encoder.frames.0"]
    assert len(frames) == 225
    loud = loud_frames(tiny_en.features(paused), [225])[0].numpy()
    assert loud[:75].sum() > 20
    assert not loud[77:].any()
    np.testing.assert_allclose(vectors["encoder.speech.0"], frames[loud].mean(0), atol=1e-4)
    assert not np.allclose(vectors["encoder.speech.0"], vectors["encoder.mean.0"], atol=1e-2)


@pytest.mark.weights
def test_the_mel_baseline_is_over_the_sound_and_not_over_the_padding(tiny_en, clips):
    pooler = Pooler(tiny_en)
    list(hear_all(tiny_en, [clips[1], silence(2.0)], pooler))
    mel = tiny_en.features(clips[1])[0, :, : 2 * frames_of(tiny_en, clips[1])]
    np.testing.assert_allclose(pooler.take(0)[MEL][:80], mel.mean(dim=1), atol=1e-5)


def test_every_family_can_be_pooled_in_one_forward_pass(model):
    inputs = example_inputs(model)
    spans = {stack: [slice(0, 3), slice(2, 7)] for stack in model.points.stacks}
    pooled = pool_forward(model, inputs, spans, ("mean", "max", "last"))
    _, cache = model.run_with_cache(inputs, "*hook_resid_post")
    for row, span in ((0, slice(0, 3)), (1, slice(2, 7))):
        for stack in spans:
            for layer, name in enumerate(stack_points(model, stack)):
                there = cache[name][row, span]
                np.testing.assert_allclose(pooled[row][f"{stack}.mean.{layer}"], there.mean(0), atol=1e-5)
                np.testing.assert_allclose(pooled[row][f"{stack}.max.{layer}"], there.amax(0), atol=1e-6)
                np.testing.assert_allclose(pooled[row][f"{stack}.last.{layer}"], there[-1], atol=1e-6)
