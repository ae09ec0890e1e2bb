"""`lens` on real clips, prompts and corpora: its numbers are those of the parts it is made of."""

import io
import json
import math
from collections import Counter

import numpy as np
import pytest
import torch
from tests.conftest import example_inputs, tiny

import otoscope as oto
from otoscope.audio import Clip, silence
from otoscope.corpora import Item
from otoscope.errors import AudioError, ModelError, OptionError
from otoscope.lenses.tuned_lens import Translators, TunedLens, TunedSettings, fingerprint, fit_tuned_lens
from otoscope.studies.lens import LensSettings, Reader
from otoscope.studies.lens_corpus import CorpusLens, lens_corpus


@pytest.fixture(scope="module")
def lens(tiny_en, jfk):
    return Reader(tiny_en, LensSettings(closeness=True, attribution=True)).recording(jfk)


def strict(text):
    return json.loads(text, parse_constant=lambda c: pytest.fail(f"{c} in JSON"))


# Whisper -----------------------------------------------------------------------------------------------------------------


@pytest.mark.weights
def test_the_tokens_are_those_of_the_ordinary_transcript(lens, tiny_en, jfk):
    ordinary = oto.transcribe(tiny_en, jfk)
    assert list(lens.ids) == ordinary.ids
    assert lens.text == ordinary.text


@pytest.mark.weights
def test_the_lens_says_what_explain_says(lens, tiny_en, jfk):
    from otoscope.lenses.listening import first_window, read_again, write
    from otoscope.lenses.logit_lens import logit_lens
    from otoscope.models.hearing import listen
    from otoscope.models.transcripts import DecodeOptions

    with torch.no_grad():
        heard = listen(tiny_en, first_window(jfk)[0])
        _, decoded = write(tiny_en, oto.read(jfk), heard.encoded, DecodeOptions())
        tokens = torch.tensor([*decoded.prompt, *decoded.ids])
        cache = read_again(
            tiny_en, heard.encoded, tokens, len(decoded.prompt), ["decoder_blocks.*.hook_resid_post"]
        )
    reading = logit_lens(tiny_en, [x[0] for x in cache.values()], tokens[len(decoded.prompt) :])
    assert reading.saturation == lens.reading.saturation
    torch.testing.assert_close(reading.p_final, lens.reading.p_final)


@pytest.mark.weights
def test_the_json_has_the_promised_keys(lens):
    data = strict(json.dumps(lens.to_dict(), allow_nan=False))
    assert [token["token"] for token in data["tokens"]] == list(range(len(lens.ids)))
    for token in data["tokens"]:
        assert {"token", "id", "text", "saturation_layer", "layers"} <= set(token)
        assert [layer["layer"] for layer in token["layers"]] == [0, 1, 2, 3]
        for layer in token["layers"]:
            assert len(layer["top"]) == 5
            assert {"text", "p"} <= set(layer["top"][0])
            p = [c["p"] for c in layer["top"]]
            assert p == sorted(p, reverse=True)
            assert (layer["rank_final"] == 0) == (layer["top"][0]["id"] == token["id"])
    assert [set(e) for e in data["encoder"]] == [{"layer", "text", "type"}] * 4
    assert {"model", "settings", "versions", "seed"} <= set(data)


@pytest.mark.weights
def test_the_last_encoder_layer_writes_the_transcript_and_is_correct_by_it(lens):
    assert lens.encoder[-1].text == lens.text
    assert [e.type for e in lens.encoder] == ["punctuation", "punctuation", "ungrounded", "correct"]
    assert lens.typed_against == "transcript"


@pytest.mark.weights
def test_attribution_sums_to_the_logits_within_the_models_own_rounding(lens):
    parts = lens.attribution
    torch.testing.assert_close(parts.component.sum(dim=0), parts.logits, atol=1e-4, rtol=0)
    told = lens.to_dict()["tokens"][3]["attribution"]
    assert sum(told["components"].values()) == pytest.approx(told["logit"], abs=1e-3)
    assert np.shape(told["heads"]["cross_attn"]) == (4, 6)


@pytest.mark.weights
def test_candidates_come_closer_to_the_token_from_the_first_layer_to_the_last(lens):
    sound, meaning = lens.closeness.phoneme_error.nanmean(dim=1), lens.closeness.cosine.nanmean(dim=1)
    assert sound[-1] < sound[0]
    assert meaning[-1] > meaning[0] + 0.1


@pytest.mark.weights
def test_a_reference_decides_the_types(tiny_en, jfk):
    reader = Reader(tiny_en, LensSettings(max_tokens=40))
    lens = reader.recording(jfk, reference="Nothing of the kind was ever said by anybody here.")
    assert lens.typed_against == "reference"
    assert lens.encoder[-1].type == "ungrounded"


@pytest.mark.weights
def test_a_batch_of_layers_writes_what_all_at_once_write(tiny_en, jfk, lens):
    some = Reader(tiny_en, LensSettings(batch=3)).recording(jfk)
    assert some.encoder == lens.encoder


@pytest.mark.weights
def test_silence_has_a_reading(tiny_en):
    lens = Reader(tiny_en, LensSettings(max_tokens=10, attribution=True, closeness=True)).recording(
        silence(1.0)
    )
    strict(json.dumps(lens.to_dict(), allow_nan=False))
    assert len(lens.encoder) == 4


@pytest.mark.weights
def test_of_a_long_recording_one_window_is_read_and_said_so(tiny_en, jfk):
    speech = oto.read(jfk).samples
    reader = Reader(tiny_en, LensSettings(encoder=False))
    lens = reader.recording(Clip(np.concatenate([speech] * 4)), offset=11.0)
    assert lens.start == pytest.approx(11.0)
    assert lens.duration <= 30
    assert "Only 11.00 to" in lens.cautions()[0]
    assert "--offset" in lens.cautions()[0]
    assert lens.encoder == ()
    assert reader.recording(jfk).cautions() == []


@pytest.mark.weights
def test_a_tuned_lens_is_read_through_and_recorded(tiny_en, jfk, lens):
    nothing = Translators(torch.zeros(4, 384, 384), torch.zeros(4, 384))
    settings = LensSettings(max_tokens=10)
    plain = TunedLens({"decoder": nothing, "encoder": nothing}, fingerprint(tiny_en), TunedSettings(), {})
    same = Reader(tiny_en, settings, plain).recording(jfk)
    assert torch.equal(same.reading.p_final, lens.reading.p_final)
    assert same.record["settings"]["tuned"]["stacks"] == ["decoder", "encoder"]
    push = Translators(torch.zeros(4, 384, 384), torch.ones(4, 384) * torch.tensor([5.0, 0, 0, 0])[:, None])
    push.bias[0, :100] = 0
    other = Reader(
        tiny_en, settings, TunedLens({"decoder": push, "encoder": nothing}, {}, TunedSettings(), {})
    ).recording(jfk)
    assert not torch.equal(other.reading.p_final[0], lens.reading.p_final[0])
    assert torch.equal(other.reading.p_final[1:], lens.reading.p_final[1:])


# Language models and Qwen2-Audio -----------------------------------------------------------------------------------------


def test_a_prompt_is_read_at_each_position():
    model = tiny("llama", dtype=torch.float64)
    ids = example_inputs(model, batch=1)["input_ids"]
    lens = Reader(model, LensSettings(attribution=True, top=3)).prompt(ids[0])
    logits = model.forward(ids).logits[0]
    assert list(lens.ids) == logits.argmax(dim=-1).tolist()
    assert lens.after == tuple(f"<{i}>" for i in ids[0].tolist())
    p = logits.softmax(-1).max(dim=-1).values.detach()
    torch.testing.assert_close(lens.reading.p_final[-1], p)
    assert lens.attribution.error < 1e-9
    assert lens.to_dict()["tokens"][0]["after"] == lens.after[0]


def test_qwen2_audio_is_read_where_it_wrote():
    """Brute force: a forward pass without a cache over the prompt and what was written."""
    model = tiny("qwen2_audio", dtype=torch.float64)
    inputs = example_inputs(model, batch=1)
    lens = Reader(model, LensSettings(max_tokens=6, attribution=True)).audio_inputs(inputs)
    generated = model.generate(**inputs, do_sample=False, max_new_tokens=6)[0, 31:].tolist()
    assert list(lens.ids) == generated
    # The text a random model writes may hold its audio slot, so the prompt goes in as what the first layer receives.
    _, cache = model.run_with_cache(inputs, "blocks.0.hook_resid_pre")
    written = model.hf.get_input_embeddings()(torch.tensor([generated]))
    embedded = torch.cat([cache["resid_pre", 0], written], dim=1)
    logits = model.hf(inputs_embeds=embedded, use_cache=False).logits[0, 30:-1]
    p = logits.softmax(-1).gather(1, torch.tensor(generated)[:, None])[:, 0].detach()
    torch.testing.assert_close(lens.reading.p_final[-1], p, atol=1e-6, rtol=1e-5)
    assert lens.attribution.error < 1e-9
    assert lens.encoder[-1].text == lens.text
    assert len(lens.encoder) == 3


def test_what_cannot_be_read_is_refused(jfk):
    with pytest.raises(ModelError, match="does not listen"):
        Reader(tiny("llama")).recording(jfk)
    with pytest.raises(ModelError, match="reads no prompt"):
        Reader(tiny("whisper")).prompt("And so")
    with pytest.raises(OptionError, match="no tokenizer"):
        Reader(tiny("llama"), LensSettings(closeness=True))
    with pytest.raises(OptionError, match="top is 0"):
        LensSettings(top=0)


# A corpus ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(tiny_en, jfk, tmp_path_factory):
    """Two recordings with their text, and one that is not there."""
    folder = jfk.parent
    items = [
        Item(
            "austen-0880.flac",
            folder / "austen-0880.flac",
            "He was not an ill-disposed young man.",
            language="en",
        ),
        Item("gone.flac", folder / "gone.flac"),
        Item("jfk.flac", jfk, None),
    ]
    file = io.BytesIO()
    reader = Reader(tiny_en, LensSettings(max_tokens=40, closeness=True))
    result = lens_corpus(reader, items, file)
    return result, strict(file.getvalue())


@pytest.mark.weights
def test_every_readable_recording_is_an_item_and_the_others_are_named(corpus):
    result, data = corpus
    assert [item["audio_filepath"] for item in data["items"]] == ["austen-0880.flac", "jfk.flac"]
    assert data["items"][0]["reference"].startswith("He was")
    assert [e["encoder_typed_against"] for e in data["items"]] == ["reference", "transcript"]
    assert [s["audio_filepath"] for s in data["skipped"]] == ["gone.flac"]
    assert "does not exist" in data["skipped"][0]["reason"]
    assert {"model", "settings", "versions", "seed", "summary"} <= set(data)
    assert result.recordings == 2


@pytest.mark.weights
def test_the_summary_is_the_mean_over_tokens_of_the_items(corpus):
    _, data = corpus
    tokens = [token for item in data["items"] for token in item["tokens"]]
    assert data["summary"]["tokens"] == len(tokens)
    for layer, told in enumerate(data["summary"]["layers"]):
        assert told["p_final"]["mean"] == pytest.approx(
            np.mean([t["layers"][layer]["p_final"] for t in tokens]), abs=1e-5
        )
        assert told["p_final"]["ci_low"] <= told["p_final"]["mean"] <= told["p_final"]["ci_high"]
        saturated = [t["saturation_layer"] is not None and t["saturation_layer"] <= layer for t in tokens]
        assert told["saturated"]["mean"] == pytest.approx(np.mean(saturated), abs=1e-6)
        cosines = [t["layers"][layer]["cosine"] for t in tokens if t["layers"][layer]["cosine"] is not None]
        assert told["cosine"]["mean"] == pytest.approx(np.mean(cosines), abs=1e-5)
        assert told["cosine"]["n"] == len(cosines)


@pytest.mark.weights
def test_encoder_types_are_counted_by_layer_with_their_intervals(corpus):
    _, data = corpus
    for layer, told in enumerate(data["summary"]["encoder"]):
        counted = Counter(item["encoder"][layer]["type"] for item in data["items"])
        assert {k: v["count"] for k, v in told["types"].items() if v["count"]} == counted
        assert all(v["n"] == 2 for v in told["types"].values())
    last = data["summary"]["encoder"][-1]["types"]["correct"]
    assert (last["count"], last["ci_high"]) == (2, 1.0)
    assert 0 < last["ci_low"] < 1


@pytest.mark.weights
def test_a_corpus_of_which_nothing_can_be_read_is_refused(tiny_en, tmp_path):
    with pytest.raises(AudioError, match="None of the 1 recordings"):
        lens_corpus(Reader(tiny_en), [Item("gone.flac", tmp_path / "gone.flac")])


def test_a_corpus_without_a_token_has_a_summary_all_the_same():
    told = CorpusLens({"seed": 0}).summary()
    assert told == {"recordings": 0, "tokens": 0, "layers": [], "encoder": []}


def test_a_corpus_keeps_sums_and_no_readings():
    """Memory must not grow with the tokens of the recordings that were read."""
    model = tiny("llama")
    corpus = CorpusLens({"seed": 0})
    reader = Reader(model)
    for length in (5, 60):
        corpus.add(reader.prompt(torch.randint(3, 90, (length,))))
        assert [x.shape for x in corpus._sums[-1].values()] == [(2, 3), (2, 3)]
    assert corpus.summary()["tokens"] == 65
    assert math.isclose(corpus.summary()["layers"][-1]["saturated"]["mean"], 1.0)


def test_a_tuned_lens_of_a_language_model_raises_the_probability_of_what_it_predicts(one_thread):
    model = tiny("llama")
    g = torch.Generator().manual_seed(0)
    texts = [torch.randint(3, 90, (48,), generator=g) for _ in range(30)]
    tuned = fit_tuned_lens(model, texts, TunedSettings(steps=40, learning_rate=3e-3, ridge=1.0))
    fresh = torch.randint(3, 90, (48,), generator=g)
    plain, better = (Reader(model, None, lens).prompt(fresh).reading.p_final for lens in (None, tuned))
    assert (better[:2].mean(dim=1) > plain[:2].mean(dim=1)).all()
