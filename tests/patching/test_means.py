"""Corpus means equal direct ones, and references say what they are."""

from __future__ import annotations

import pytest
import torch
from tests.patching.worlds import hearing_qwen, hearing_whisper, spans

from otoscope.audio import noises, silence, white_noise
from otoscope.errors import OptionError
from otoscope.patching.components import Component, components
from otoscope.patching.means import Means
from otoscope.patching.references import Reference
from otoscope.patching.writing import writer_of


def test_means_are_over_written_positions_and_frames_that_hold_sound():
    model = hearing_whisper(dtype=torch.float64)
    chosen = [
        Component("decoder", 0, "cross_attn", 2),
        Component("decoder", 1, "mlp"),
        Component("encoder", 1, "attn"),
    ]
    means = Means(model, chosen)
    sums = {c.point: [] for c in chosen}
    for n, item in enumerate(spans(3)):
        clip = item.clip().span(0, 0.4)
        inputs = model.inputs([clip], [*model.prompt("en"), *range(10, 14 + n)])
        means.add(inputs, 3, clip)
        _, cache = model.run_with_cache(inputs, list(sums))
        for c in chosen:
            sums[c.point].append(cache[c.point][0, 3:] if c.stack == "decoder" else cache[c.point][0, :20])
    for point, mean in means.result().items():
        torch.testing.assert_close(mean, torch.cat(sums[point]).mean(dim=0))
    assert means.result()[chosen[0].point].shape == (6, 8)


def test_half_precision_is_averaged_in_double():
    model = hearing_whisper(dtype=torch.bfloat16)
    chosen = components(model, "decoder", ["mlp"])
    means = Means(model, chosen)
    clip = spans(1)[0].clip()
    means.add(model.inputs([clip], [*model.prompt("en"), 5, 6]), 3, clip)
    assert {total.dtype for total in means._sums.values()} == {torch.float64}
    assert {mean.dtype for mean in means.result().values()} == {torch.bfloat16}


def test_words_on_the_command_line_stand_for_references(tmp_path):
    assert [Reference.of(kind).kind for kind in ("zero", "mean", "noise", "silence")] == [
        "zero",
        "mean",
        "noise",
        "silence",
    ]
    for wrong in ("clip", "pink", str(tmp_path), str(tmp_path / "gone.wav"), ""):
        with pytest.raises(OptionError, match="neither a kind nor a recording"):
            Reference.of(wrong)
    with pytest.raises(OptionError, match="missing"):
        Reference("clip")
    with pytest.raises(OptionError, match="no reference"):
        Reference("pink")


def test_noise_is_as_long_and_as_loud_as_the_clip_and_another_for_each():
    clip = spans(1)[0].clip()
    first, second = (Reference("noise", seed=5).sound(clip, n) for n in (0, 1))
    assert len(first.samples) == len(clip.samples)
    assert noises.rms_of(first) == pytest.approx(noises.rms_of(clip), rel=1e-3)
    assert (first.samples != second.samples).any()
    assert (Reference("noise", seed=5).sound(clip, 0).samples == first.samples).all()
    assert noises.rms_of(Reference("noise").sound(silence(0.5))) == pytest.approx(0.01, rel=1e-3)
    assert not Reference("silence").sound(clip).samples.any()
    other = white_noise(0.7, seed=0)
    assert Reference("clip", other).sound(clip) is other


@pytest.mark.parametrize("make", [hearing_whisper, hearing_qwen])
def test_nothing_to_write_is_nothing_written(make):
    assert writer_of(make(), 4).write([], None) == []
