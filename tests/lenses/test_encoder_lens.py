"""The encoder lens: at the last layer it is the model, for Whisper and for Qwen2-Audio."""

import pytest
import torch
from tests.conftest import example_inputs, tiny

from otoscope.errors import OptionError
from otoscope.lenses.encoder_lens import audio_encoder_lens, encoder_lens
from otoscope.models.transcripts import DecodeOptions


@pytest.mark.weights
def test_the_encoder_lens_at_the_last_layer_gives_the_ordinary_transcript(tiny_en, jfk):
    import otoscope as oto

    clip = oto.read(jfk)
    with tiny_en.capturing("encoder_blocks.*.hook_resid_post") as cache, torch.no_grad():
        tiny_en.encode(tiny_en.features(clip))
    layers = encoder_lens(tiny_en, list(cache.values()), tiny_en.prompt(), DecodeOptions(max_positions=60))
    ordinary = oto.transcribe(tiny_en, clip)
    assert layers[-1].ids == ordinary.ids
    assert layers[0].ids != ordinary.ids


@pytest.fixture
def heard():
    """A random Qwen2-Audio, one recording, and what each layer of the tower made of it."""
    model = tiny("qwen2_audio", dtype=torch.float64)
    inputs = example_inputs(model, batch=1)
    _, cache = model.run_with_cache(inputs, "audio_encoder.blocks.*.hook_resid_post")
    return model, inputs, list(cache.values())


def test_the_last_layer_of_qwen2_audios_tower_writes_what_generate_writes(heard):
    model, inputs, residuals = heard
    layers = audio_encoder_lens(model, residuals, inputs, max_new_tokens=12)
    generated = model.generate(**inputs, do_sample=False, max_new_tokens=12)
    assert len(layers) == 3
    assert layers[-1] == generated[0, inputs["input_ids"].shape[1] :].tolist()
    assert layers[0] != layers[-1]


def test_all_layers_as_one_batch_write_what_each_writes_alone(heard):
    model, inputs, residuals = heard
    together = audio_encoder_lens(model, residuals, inputs, max_new_tokens=8)
    assert together == [audio_encoder_lens(model, [r], inputs, max_new_tokens=8)[0] for r in residuals]


def test_a_layers_text_ends_before_the_end_token(heard):
    model, inputs, residuals = heard
    whole = audio_encoder_lens(model, residuals, inputs, max_new_tokens=8)
    model.hf.generation_config.eos_token_id = whole[0][3]
    cut = audio_encoder_lens(model, residuals, inputs, max_new_tokens=8)
    assert cut[0] == whole[0][: whole[0].index(whole[0][3])]


def test_inputs_of_two_recordings_are_refused(heard):
    model, _, residuals = heard
    with pytest.raises(OptionError, match="2 rows with 50 audio slots"):
        audio_encoder_lens(model, residuals, example_inputs(model, batch=2))


def test_slots_that_do_not_go_with_the_recording_are_refused(heard):
    model, inputs, residuals = heard
    inputs["feature_attention_mask"][:, 60:] = 0
    with pytest.raises(OptionError, match="25 audio slots do not go with 15 audio positions"):
        audio_encoder_lens(model, residuals, inputs)
