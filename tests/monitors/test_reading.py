"""Following a decoder changes nothing, and tells what a teacher-forced pass tells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.patching.worlds import hearing_whisper, spans

from otoscope.models.decoding import DecoderSession
from otoscope.models.transcribing import frames_of, transcribe_all
from otoscope.models.transcripts import DecodeOptions
from otoscope.monitors.collecting import _Collector
from otoscope.monitors.reading import followed_heads

OPTIONS = DecodeOptions(language="en", max_positions=24)
READS = {0: "decoder_blocks.0.ln3.hook_out", 1: "decoder_blocks.1.ln3.hook_out"}
"""What a dictionary of the decoder's MLPs reads."""


@pytest.fixture(scope="module")
def model():
    return hearing_whisper(dtype=torch.float64)


def collected(model, items, batch):
    collector = _Collector(model, READS)
    blocks = {}
    take = collector._take

    def keep(block):
        blocks.setdefault(block.row, []).append(block)
        take(block)

    collector._take = keep
    texts = list(transcribe_all(model, items, OPTIONS, batch=batch, watcher=collector))
    return texts, blocks, collector.done


def test_following_changes_no_text_and_leaves_no_hook(model):
    items = spans(5)
    plain = [t.ids for t in transcribe_all(model, items, OPTIONS, batch=5)]
    followed, _, _ = collected(model, items, 5)
    assert [t.ids for t in followed] == plain
    assert model.open_hooks == 0
    assert not model.hf.model.decoder._forward_pre_hooks


def test_each_step_is_that_of_a_teacher_forced_pass(model):
    for item in spans(3):
        (text,), blocks, _ = collected(model, [item], 1)
        residual = torch.cat([b.residual for b in blocks[0]])
        attention = torch.cat([b.attention for b in blocks[0]])
        tokens = torch.tensor([[*text.prompt, *text.ids]])
        heads = followed_heads(model)
        clip = next(item.windows(model.window_seconds))
        names = [f"decoder_blocks.{n}.hook_resid_post" for n in range(model.config.decoder_layers)]
        patterns = [f"decoder_blocks.{n}.cross_attn.hook_pattern" for n in heads]
        with torch.no_grad(), model.capturing([*names, *patterns, *READS.values()]) as cache:
            DecoderSession(model, model.encode(model.features(clip))).step(tokens)
        first, steps = len(text.prompt) - 1, len(residual)
        assert steps == len(text.ids) + text.segments[0].finished
        for n, name in enumerate(names):
            torch.testing.assert_close(residual[:, n], cache[name][0, first : first + steps])
        for layer, name in READS.items():
            read = torch.cat([b.read[layer] for b in blocks[0]])
            torch.testing.assert_close(read, cache[name][0, first : first + steps])
        wanted = torch.cat(
            [cache[f"decoder_blocks.{n}.cross_attn.hook_pattern"][0, of] for n, of in heads.items()]
        ).mean(dim=0)
        torch.testing.assert_close(attention.double(), wanted[first : first + steps], atol=1e-6, rtol=1e-5)
        assert blocks[0][-1].track.frames == frames_of(model, clip)


def test_rows_of_a_batch_are_followed_as_each_alone(model):
    items = spans(6)
    _, _, together = collected(model, items, 6)
    for i, item in enumerate(items):
        _, _, alone = collected(model, [item], 1)
        for name, values in alone[0, 0].items():
            np.testing.assert_allclose(
                together[i, 0][name].astype(float), values.astype(float), atol=1e-3, err_msg=name
            )


@pytest.mark.weights
def test_asking_for_the_language_first_changes_nothing_that_is_followed(base, jfk):
    """A multilingual model is asked for the language in a call that chooses no token."""
    from otoscope.audio import read

    clip = read(jfk).span(0, 3)
    told = []
    for language in (None, "en"):
        collector = _Collector(base, {})
        options = DecodeOptions(language=language)
        list(transcribe_all(base, [clip], options, watcher=collector))
        told.append(collector.done[0, 0])
    for name, values in told[0].items():
        np.testing.assert_allclose(values.astype(float), told[1][name].astype(float), atol=1e-2, err_msg=name)
