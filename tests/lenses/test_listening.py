"""What is listened to: one window, where it was asked for."""

import numpy as np
import pytest
import soundfile
import torch
from tests.conftest import tiny

from otoscope.audio import Clip
from otoscope.corpora import Item
from otoscope.errors import AudioError
from otoscope.lenses.listening import first_window, read_again


@pytest.fixture
def recording(tmp_path):
    """Five seconds of noise, silent from 2.4 to 2.8 s."""
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 5 * 16000).astype(np.float32)
    samples[38400:44800] = 0
    soundfile.write(tmp_path / "noise.wav", samples, 16000, subtype="FLOAT")
    return tmp_path / "noise.wav"


def test_a_window_of_a_longer_recording_begins_at_the_offset_and_ends_at_a_quiet_place(recording):
    clip, whole = first_window(recording, 3.0)
    assert clip.start == 0
    assert 2.4 < clip.duration < 2.8
    assert whole == pytest.approx(5)
    later, _ = first_window(recording, 3.0, offset=2.5)
    assert later.start == 2.5
    assert later.duration == pytest.approx(2.5)


def test_a_clip_gives_what_its_file_gives(recording):
    samples, _ = soundfile.read(recording, dtype="float32")
    a, _ = first_window(Clip(samples), 3.0, offset=1.0)
    b, _ = first_window(recording, 3.0, offset=1.0)
    np.testing.assert_array_equal(a.samples, b.samples)
    assert a.start == b.start


def test_an_item_has_an_offset_and_a_length_of_its_own(recording):
    clip, whole = first_window(Item("noise.wav", recording, offset=1.0, duration=2.0), 3.0)
    assert (clip.start, clip.duration, whole) == (1.0, 2.0, 2.0)
    assert clip.source == "noise.wav"
    _, rest = first_window(Item("noise.wav", recording, offset=1.0), 30.0)
    assert rest == pytest.approx(4)


def test_an_offset_beyond_the_end_is_refused(recording):
    with pytest.raises(AudioError, match="beyond the end"):
        first_window(recording, 3.0, offset=9.0)


def test_the_teacher_forced_pass_is_read_where_each_token_was_written():
    model = tiny("whisper", dtype=torch.float64)
    features = torch.randn(1, 16, 100, dtype=torch.float64)
    tokens = torch.tensor([2, 5, 9, 11, 4])  # a prompt of two and three written tokens
    with torch.no_grad():
        cache = read_again(model, model.encode(features), tokens, 2, ["decoder_blocks.1.hook_resid_post"])
        whole = model.forward({"input_features": features, "decoder_input_ids": tokens[None]}).logits[0]
        torch.testing.assert_close(model.unembed(cache["resid_post", 1][0]), whole[1:4])
