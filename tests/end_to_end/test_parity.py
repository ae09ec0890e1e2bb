"""Real weights, real recordings: the same tokens as Hugging Face `generate`, batched and one by one."""

import numpy as np
import pytest
import torch

import otoscope as oto
from otoscope.activations import Edit
from otoscope.audio import silence
from otoscope.corpora import read_manifest
from otoscope.errors import EditError
from otoscope.models.decoding import decode
from otoscope.models.transcribing import piece_of
from otoscope.outcomes import error_rates

pytestmark = [pytest.mark.weights, pytest.mark.slow]


SOON = 128
"""Decoder positions at most, prompt included: what loops does so by then, and `benchmarks/parity.py` goes on to the end."""


def generated(model, clips, size):
    out = []
    for i in range(0, len(clips), size):
        with torch.no_grad():
            features = model.features(clips[i : i + size])
            rows = model.hf.generate(features, max_new_tokens=SOON - len(model.prompt())).tolist()
        out += [[token for token in row if token < model.end_token] for row in rows]
    return out


ONE_OF_EACH = (0, 130, 180, 192, 240, 256)
"""Of the prepared recordings: English, Spanish, French, Italian, Russian, and music."""


@pytest.mark.parametrize("name, which", [("tiny_en", range(0, 260, 32)), ("base", ONE_OF_EACH)])
def test_greedy_tokens_equal_generate_on_some_of_the_recordings(name, which, shared_audio, request):
    model = request.getfixturevalue(name)
    prepared = read_manifest(shared_audio / "manifest.jsonl")
    items = [prepared[i] for i in which]
    clips = [item.clip() for item in items]
    options = oto.DecodeOptions(max_positions=SOON)
    ours = [t.ids for t in oto.transcribe_all(model, items, options, batch=4)]
    assert ours == generated(model, clips, 4)
    assert ours[-2:] == generated(model, clips[-2:], 1)
    assert ours[-2:] == [oto.transcribe(model, clip, options).ids for clip in clips[-2:]]


def test_features_made_one_by_one_are_those_the_extractor_makes_of_the_batch(tiny_en):
    names = ("jfk", "austen-0870", "austen-0880", "austen-0890")
    clips = [*(oto.read(oto.sample(name)) for name in names), silence(0.4)]
    whole = tiny_en.processor.feature_extractor(
        [clip.samples for clip in clips], sampling_rate=16000, return_tensors="pt"
    )
    assert torch.equal(tiny_en.features(clips), whole["input_features"])


@pytest.mark.parametrize("name", ["tiny_en", "base"])
def test_the_sample_clips_are_written_as_spoken(name, request):
    model = request.getfixturevalue(name)
    spoken = {
        "jfk": "And so my fellow Americans ask not what your country can do for you ask what you can do for your country",
        "austen-0870": "And Mister John Dashwood had then leisure to consider how much there might be prudently in his power "
        "to do for them",
    }
    heard = [oto.transcribe(model, oto.sample(clip)) for clip in spoken]
    assert all(t.language == "en" for t in heard)
    assert error_rates(list(spoken.values()), [t.text for t in heard], "en").wer < 0.05


def test_word_times_follow_the_pauses_of_the_speech(tiny_en, jfk):
    """He pauses after "Americans" (2.3 to 3.3 s) and after "for you" (7.7 to 8.1 s)."""
    words = {w.text.strip(",."): w for w in oto.transcribe(tiny_en, jfk).words}
    assert words["Americans"].end == pytest.approx(2.3, abs=0.3)
    assert words["not"].end == pytest.approx(4.4, abs=0.4)
    starts = [w.start for w in oto.transcribe(tiny_en, jfk).words]
    assert starts == sorted(starts)


def test_heads_zeroed_row_by_row_in_one_batch_write_what_generate_writes_with_a_hand_written_hook(
    tiny_en, jfk
):
    model = tiny_en
    with torch.no_grad():
        features = model.features(oto.read(jfk))
        encoded = model.encode(features)
    places = [(layer, head) for layer in (0, 2) for head in range(3)]
    edits = [
        Edit.zero(f"decoder_blocks.{layer}.cross_attn.hook_z", rows=i, heads=head)
        for i, (layer, head) in enumerate(places)
    ]
    prompts = torch.tensor([model.prompt()] * len(places))
    with model.editing(*edits):
        batched = decode(model, encoded, prompts, clip_of_row=[0] * len(places))
    for (layer, head), row in zip(places, batched, strict=True):

        def zero(_module, args, head=head):
            z = args[0].clone()
            z[..., 64 * head : 64 * (head + 1)] = 0
            return (z,)

        handle = model.hf.model.decoder.layers[layer].encoder_attn.out_proj.register_forward_pre_hook(zero)
        try:
            expected = generated_row(model, features)
        finally:
            handle.remove()
        assert row.ids == expected


def generated_row(model, features):
    with torch.no_grad():
        return [token for token in model.hf.generate(features)[0].tolist() if token < model.end_token]


def test_a_long_recording_is_cut_where_it_is_quiet_and_every_word_is_there(tiny_en, jfk):
    speech = oto.read(jfk).samples
    pause = np.zeros(8000, np.float32)
    long = oto.Clip(np.concatenate([speech, pause] * 6))
    transcript = oto.transcribe(tiny_en, long)
    assert len(transcript.segments) >= 3
    assert transcript.text.count("my fellow Americans") == 6
    assert all(
        a.end == pytest.approx(b.start)
        for a, b in zip(transcript.segments, transcript.segments[1:], strict=False)
    )


def test_timestamps_split_a_window_into_parts_that_lie_within_it(base, jfk):
    transcript = oto.transcribe(base, jfk, oto.DecodeOptions(timestamps=True))
    assert transcript.segments
    assert all(0 <= s.start < s.end <= 11.01 for s in transcript.segments)
    assert "ask not what your country" in transcript.text


def test_sampling_is_reproducible_and_does_not_depend_on_the_batch(tiny_en):
    clips = [oto.sample(name) for name in ("austen-0880", "austen-0890")]
    options = oto.DecodeOptions(temperature=0.8, seed=3)
    together = [t.ids for t in oto.transcribe_all(tiny_en, clips, options, batch=2)]
    apart = [t.ids for t in oto.transcribe_all(tiny_en, clips, options, batch=1)]
    other = [
        t.ids for t in oto.transcribe_all(tiny_en, clips, oto.DecodeOptions(temperature=0.8, seed=4), batch=2)
    ]
    assert together == apart
    assert together != other


def test_forcing_a_language_and_translating_work_on_the_multilingual_model(base, shared_audio):
    french = next(
        i
        for i in read_manifest(shared_audio / "manifest.jsonl")
        if i.language == "fr" and (i.duration or 0) > 4
    )
    assert oto.transcribe(base, french).language == "fr"
    forced = oto.transcribe(base, french, oto.DecodeOptions(language="German"))
    assert forced.language == "de"
    translated = oto.transcribe(base, french, oto.DecodeOptions(language="fr", task="translate"))
    english = {"the", "to", "you", "is", "of", "your", "a", "and", "in", "for"}
    assert english & set(translated.text.lower().replace(",", " ").split())
    assert not english & set(oto.transcribe(base, french).text.lower().replace(",", " ").split()) - {"a"}


def test_own_language_detection_is_told_apart_from_the_prompt(base, jfk):
    """It is a call of its own, so a capture of a whole transcription is not one position longer for it."""
    name = "decoder_blocks.0.hook_resid_post"
    with base.capturing(name) as cache:
        transcript = oto.transcribe(base, jfk)
    assert [visit.phase for visit in cache.moments(name)][:3] == ["detect_language", "prefill", "decode"]
    assert cache[name].shape[1] == len(transcript.prompt) + len(transcript.ids)


def test_edits_of_rows_are_refused_where_rows_are_sorted(tiny_en, jfk):
    with (
        tiny_en.editing(Edit.zero("decoder_blocks.0.hook_mlp_out", rows=1)),
        pytest.raises(EditError, match="names rows"),
    ):
        oto.transcribe(tiny_en, jfk)


def test_further_logit_filters_act_at_every_step(tiny_en, jfk):
    clip = oto.read(jfk)
    with torch.no_grad():
        encoded = tiny_en.encode(tiny_en.features(clip))
    comma = tiny_en.tokenizer.convert_tokens_to_ids(",")

    def no_commas(_tokens, logits):
        return logits.index_fill(1, torch.tensor([comma]), -torch.inf)

    prompt = torch.tensor([tiny_en.prompt()])
    assert comma in decode(tiny_en, encoded, prompt)[0].ids
    assert comma not in decode(tiny_en, encoded, prompt, filters=[no_commas])[0].ids


def test_what_is_kept_of_a_window_is_neither_sound_nor_cache(tiny_en, jfk):
    """Hours of sound must fit: a window's samples and alignment keys are megabytes."""
    clip = oto.read(jfk)
    with torch.no_grad():
        encoded = tiny_en.encode(tiny_en.features(clip))
    decoded = decode(tiny_en, encoded, torch.tensor([tiny_en.prompt()]), align=True)[0]
    assert decoded.keys is not None
    piece = piece_of(tiny_en, clip, "en", decoded)
    assert piece.decoded.keys is None
    assert piece.decoded.queries is None
    assert not any(isinstance(value, (oto.Clip, torch.Tensor)) for value in vars(piece).values())
    assert [t.id for t in piece.tokens] == decoded.ids
