"""Vectors for dictionaries: those that a hook sees, without padding and prompt; a killed harvest goes on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.conftest import tiny
from tests.models.tokenizers import word_tokenizer

import otoscope as oto
from otoscope.corpora import Item, joined
from otoscope.dictionaries.harvesting import Drawn, _agreeing, harvest_places, heard_vectors
from otoscope.dictionaries.places import places_of
from otoscope.errors import AudioError, EditError, ManifestError, OptionError
from otoscope.models.qwen2_audio import AUDIO_PROMPT
from otoscope.models.transcribing import frames_of

pytestmark = pytest.mark.usefixtures("one_thread")


def items_of(*names):
    return [Item(str(oto.sample(name)), oto.sample(name)) for name in names]


@pytest.fixture(scope="module")
def writer():
    model = tiny("llama")
    model.processor = word_tokenizer()
    return model


TEXTS = [
    Item("", __import__("pathlib").Path(), text=" ".join(f"w{i}" for i in range(3, 3 + n)))
    for n in (9, 4, 12)
]


def test_a_name_stands_for_an_mlp_or_a_point_of_one_layer_or_all():
    model = tiny("whisper")
    places = places_of(model, "encoder_blocks.*.mlp")
    assert places.layers == (0, 1, 2)
    assert places.inputs[1] == "encoder_blocks.1.ln2.hook_out"
    assert places.targets == tuple(f"encoder_blocks.{n}.hook_mlp_out" for n in range(3))
    point = places_of(model, "decoder_blocks.1.hook_resid_post")
    assert (point.layers, point.inputs, point.targets) == ((1,), ("decoder_blocks.1.hook_resid_post",), None)
    assert (point.reads, point.writes, point.model_layers) == ("point", "point", 2)
    for wrong in ("encoder_blocks.7.mlp", "nowhere.0.mlp", "decoder_blocks.0", "encoder_ln_final.hook_out"):
        with pytest.raises(OptionError):
            places_of(model, wrong)


@pytest.mark.weights
def test_of_an_encoder_the_frames_of_the_sound_are_kept(tiny_en, tmp_path):
    places = places_of(tiny_en, "encoder_blocks.*.mlp")
    store = harvest_places(
        tiny_en, items_of("austen-0880", "austen-0890"), places, tmp_path / "store", batch=2
    )
    clip = oto.read(oto.sample("austen-0880"))
    frames = frames_of(tiny_en, clip)
    assert store.index["vectors"].tolist()[0] == frames
    with torch.no_grad():
        _, cache = tiny_en.run_with_cache(clip, [*places.inputs, *places.targets])
    for layer in range(4):
        np.testing.assert_allclose(
            store.read(f"target.{layer}")[:frames], cache[places.targets[layer]][0, :frames], atol=2e-4
        )
        x = torch.from_numpy(store.read(f"input.{layer}"))
        mlp = tiny_en.hf.model.encoder.layers[layer]
        with torch.no_grad():
            y = mlp.fc2(torch.nn.functional.gelu(mlp.fc1(x)))
        np.testing.assert_allclose(store.read(f"target.{layer}"), y, atol=2e-4)


@pytest.mark.weights
def test_of_a_decoder_the_positions_of_the_text_are_kept(tiny_en, tmp_path):
    places = places_of(tiny_en, "decoder_blocks.*.mlp")
    items = items_of("austen-0880", "jfk")
    store = harvest_places(tiny_en, items, places, tmp_path / "store", dtype="float16", batch=2)
    transcripts = [oto.transcribe(tiny_en, item.path) for item in items]
    assert store.index["vectors"].tolist() == [len(t.ids) for t in transcripts]
    assert store.read("input.0").dtype == np.float16
    ids = [*tiny_en.prompt(), *transcripts[1].ids]
    feed = tiny_en.inputs(oto.read(items[1].path), ids)
    with torch.no_grad():
        _, cache = tiny_en.run_with_cache(feed, list(places.inputs))
    first = len(transcripts[0].ids)
    np.testing.assert_allclose(
        store.read("input.3")[first:], cache[places.inputs[3]][0, len(tiny_en.prompt()) :], atol=2e-2
    )


def test_of_a_text_every_position_is_kept_and_a_killed_harvest_goes_on(writer, tmp_path, monkeypatch):
    places = places_of(writer, "blocks.*.mlp")
    monkeypatch.setattr("otoscope.dictionaries.harvesting.SHARD", 2)
    whole = harvest_places(writer, TEXTS, places, tmp_path / "whole", batch=2)
    assert whole.index["vectors"].tolist() == [9, 4, 12]
    store = harvest_places(writer, TEXTS, places, tmp_path / "store", batch=2)
    (tmp_path / "store" / "index-00001.parquet").unlink()
    calls = []
    inner = type(writer).forward
    monkeypatch.setattr(type(writer), "forward", lambda *a: calls.append(1) or inner(*a))
    store = harvest_places(writer, TEXTS, places, tmp_path / "store", batch=2)
    assert len(calls) == 1  # the third text alone
    for name in whole.names:
        np.testing.assert_array_equal(store.read(name), whole.read(name))
    with torch.no_grad():
        _, cache = writer.run_with_cache(torch.tensor([range(3, 12)]), list(places.inputs))
    np.testing.assert_allclose(whole.read("input.1")[:9], cache[places.inputs[1]][0], atol=1e-5)


def test_what_cannot_be_harvested_is_refused(writer, tmp_path):
    places = places_of(writer, "blocks.*.mlp")
    with pytest.raises(ManifestError, match="nothing to read"):
        harvest_places(writer, [], places, tmp_path / "a")
    with writer.hooks([("blocks.0.hook_resid_post", lambda x, _: x)]), pytest.raises(EditError):
        harvest_places(writer, TEXTS, places, tmp_path / "b")
    store = harvest_places(writer, [*TEXTS, Item("", TEXTS[0].path, text="")], places, tmp_path / "c")
    assert store.skipped["reason"].tolist() == ["A text is empty."]
    assert AudioError


@pytest.mark.weights
def test_drawn_transcripts_come_after_the_greedy_one_and_depend_on_nothing_else_in_the_batch(
    tiny_en, tmp_path
):
    places = places_of(tiny_en, "decoder_blocks.3.mlp")
    items = items_of("austen-0880", "austen-0890")
    greedy = harvest_places(tiny_en, items, places, tmp_path / "greedy", batch=2)
    more = harvest_places(tiny_en, items, places, tmp_path / "more", batch=1, drawn=Drawn(2, 0.5))
    alone = harvest_places(tiny_en, items[1:], places, tmp_path / "alone", batch=1, drawn=Drawn(2, 0.5))
    first, whole = greedy.index["vectors"].tolist(), more.index["vectors"].tolist()
    assert all(b > a for a, b in zip(first, whole, strict=True))
    np.testing.assert_allclose(
        more.read("input.3")[: first[0]], greedy.read("input.3")[: first[0]], atol=2e-4
    )
    np.testing.assert_allclose(more.read("input.3")[whole[0] :], alone.read("input.3"), atol=2e-3)
    assert not np.allclose(
        more.read("input.3")[first[0] : whole[0]][: first[0]], greedy.read("input.3")[: first[0]]
    )


@pytest.mark.weights
def test_joined_recordings_are_heard_in_one_window(tiny_en, tmp_path):
    items = [
        Item(i.audio_filepath, i.path, duration=d, text="x")
        for i, d in zip(items_of("austen-0880", "austen-0890"), (3.0, 5.3), strict=True)
    ]
    (window,) = joined(items)
    store = harvest_places(tiny_en, [window], places_of(tiny_en, "encoder_blocks.0.mlp"), tmp_path / "store")
    (clip,) = window.windows()
    assert store.index["vectors"].tolist() == [frames_of(tiny_en, clip)]


def test_of_qwen2_audio_the_tower_gives_frames_and_the_text_positions_of_sound_and_answer(tmp_path):
    from tests.models.tokenizers import audio_processor

    model = tiny("qwen2_audio")
    model.processor = audio_processor(model.config)
    clips = [Item(f"{i}", oto.sample("jfk"), offset=float(i), duration=0.4 + 0.2 * i) for i in range(2)]
    tower = harvest_places(model, clips, places_of(model, "audio_encoder.blocks.*.mlp"), tmp_path / "tower")
    assert tower.index["vectors"].tolist() == [20, 30]
    places = places_of(model, "blocks.*.mlp")
    text = harvest_places(model, clips, places, tmp_path / "text")
    inputs = model.inputs([next(clips[1].windows())], AUDIO_PROMPT)
    heard = (inputs["input_ids"][0] == model.config.audio_token_index).nonzero().flatten()
    with torch.no_grad():
        _, cache = model.run_with_cache(inputs, list(places.inputs))
    first = text.index["vectors"].tolist()[0]
    np.testing.assert_allclose(
        text.read("input.1")[first : first + len(heard)], cache[places.inputs[1]][0, heard], atol=1e-5
    )
    assert text.index["vectors"].tolist()[1] >= len(heard)


def test_of_places_there_are_as_many_as_vectors_and_of_another_text_nothing_is_known():
    known = [(0.0, 0.1, "a", "b", "c"), (0.1, 0.2, "b", "c", "d")]
    unknown = (None, None, "", "", "")
    assert _agreeing(list(known), 2, "decoder") == known
    assert _agreeing(list(known), 3, "decoder") == [unknown] * 3
    assert _agreeing(list(known), 3, "encoder") == [*known, unknown]
    assert _agreeing(list(known), 1, "encoder") == known[:1]


def test_a_stream_gives_what_the_store_keeps(writer, tmp_path):
    places = places_of(writer, "blocks.*.mlp")
    store = harvest_places(writer, TEXTS, places, tmp_path / "store", batch=2)
    found = list(heard_vectors(writer, TEXTS, places, batch=2))
    for at, layer in enumerate(places.layers):
        np.testing.assert_array_equal(torch.cat([v.inputs[at] for v in found]), store.read(f"input.{layer}"))
        np.testing.assert_array_equal(
            torch.cat([v.targets[at] for v in found]), store.read(f"target.{layer}")
        )
