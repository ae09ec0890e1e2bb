"""Harvesting streams a corpus to disk; a killed job goes on and gives the same numbers."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import tiny
from tests.models.tokenizers import word_tokenizer

from otoscope.activations import Edit
from otoscope.audio.samples import sample
from otoscope.corpora import Item, items
from otoscope.errors import AudioError, EditError, ManifestError, OptionError
from otoscope.models.families import untrained
from otoscope.models.transcripts import DecodeOptions
from otoscope.probes import harvesting
from otoscope.probes.corpus import probe_corpus
from otoscope.probes.harvesting import Pools, harvest
from otoscope.probes.probing import ProbeOptions
from otoscope.runs import ActivationStore

pytestmark = pytest.mark.weights

BOTH = Pools(("mean",), ("mean", "end"))


def spans(count=6):
    """Spans of two seconds of a shipped recording."""
    path = sample("jfk")
    return [Item(f"jfk-{i}", path, offset=1.5 * i, duration=2.0, labels={"n": i}) for i in range(count)]


def same(a: ActivationStore, b: ActivationStore) -> bool:
    return (
        a.names == b.names
        and all(np.array_equal(a.read(n), b.read(n)) for n in a.names)
        and a.index.equals(b.index)
    )


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(harvesting, "SHARD", 2)


def test_a_job_that_was_interrupted_goes_on_and_gives_the_same_numbers(
    tiny_en, tmp_path, small_shards, monkeypatch
):
    whole = harvest(tiny_en, spans(), tmp_path / "whole", BOTH, batch=2)
    append = ActivationStore.append

    def interrupted(store, shard, *rest):
        if shard == 1:
            raise KeyboardInterrupt
        append(store, shard, *rest)

    monkeypatch.setattr(ActivationStore, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        harvest(tiny_en, spans(), tmp_path / "part", BOTH, batch=2)
    assert ActivationStore.read_from(tmp_path / "part").shards == [0]
    monkeypatch.undo()
    monkeypatch.setattr(harvesting, "SHARD", 2)
    assert same(whole, harvest(tiny_en, spans(), tmp_path / "part", BOTH, batch=2))


def test_a_shard_that_is_written_is_no_longer_held(tiny_en, tmp_path, small_shards, monkeypatch):
    held, hear = [], harvesting._transcribe

    def counting(*args):
        for heard in hear(*args):
            yield heard
            gc.collect()
            held.append(sum(type(there) is harvesting._Heard for there in gc.get_objects()))

    monkeypatch.setattr(harvesting, "_transcribe", counting)
    harvest(tiny_en, spans(), tmp_path / "s", BOTH, batch=2)
    assert held == [1, 2] * 3


KILLED = """
import sys
from tests.probes.test_harvesting import BOTH, spans
from otoscope.models.loading import load_model
from otoscope.probes import harvesting
harvesting.SHARD = 2
harvesting.harvest(load_model("whisper-tiny.en"), spans(), sys.argv[1], BOTH, batch=2)
"""


@pytest.mark.slow
def test_a_job_that_was_killed_by_the_system_goes_on_and_gives_the_same_numbers(
    tiny_en, tmp_path, small_shards
):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    job = subprocess.Popen(
        [sys.executable, "-c", KILLED, tmp_path / "killed"], env=environment, stderr=subprocess.DEVNULL
    )
    first = tmp_path / "killed" / "index-00000.parquet"
    deadline = time.monotonic() + 120
    while not first.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    job.send_signal(signal.SIGKILL)
    job.wait()
    assert first.exists()
    resumed = harvest(tiny_en, spans(), tmp_path / "killed", BOTH, batch=2)
    assert not list(resumed.run.path.glob(".*.part"))
    whole = harvest(tiny_en, spans(), tmp_path / "whole", BOTH, batch=2)
    for name in whole.names:
        np.testing.assert_allclose(resumed.read(name), whole.read(name), atol=1e-4)
    assert resumed.index["written"].tolist() == whole.index["written"].tolist()


def test_a_finished_store_is_not_computed_again(tiny_en, tmp_path, monkeypatch):
    harvest(tiny_en, spans(2), tmp_path / "s", Pools())
    monkeypatch.setattr(tiny_en, "encode", lambda *_: pytest.fail("the encoder ran again"))
    assert len(harvest(tiny_en, spans(2), tmp_path / "s", Pools()).index) == 2


def test_other_settings_are_refused(tiny_en, tmp_path):
    harvest(tiny_en, spans(2), tmp_path / "s", Pools())
    with pytest.raises(OptionError, match=r"pools\.encoder"):
        harvest(tiny_en, spans(2), tmp_path / "s", Pools(("max",)))
    with pytest.raises(OptionError, match="items"):
        harvest(tiny_en, spans(3), tmp_path / "s", Pools())


def test_what_does_not_change_the_vectors_does_not_keep_from_going_on(tiny_en, tmp_path, monkeypatch):
    harvest(tiny_en, spans(2), tmp_path / "s", BOTH)
    monkeypatch.setattr(tiny_en, "encode", lambda *_: pytest.fail("the encoder ran again"))
    harvest(tiny_en, spans(2), tmp_path / "s", BOTH, DecodeOptions(seed=7), batch=1)
    harvest(
        tiny_en, spans(2), tmp_path / "s", Pools(("mean",))
    )  # the decoder's pools are more than is asked for


def test_the_cache_finds_a_store_that_holds_more(tiny_en, tmp_path, monkeypatch):
    monkeypatch.setenv("OTOSCOPE_CACHE", str(tmp_path))
    kept = harvest(tiny_en, spans(2), pools=Pools(("mean", "max")))
    assert kept.run.path.is_relative_to(tmp_path)
    monkeypatch.setattr(tiny_en, "encode", lambda *_: pytest.fail("the encoder ran again"))
    assert harvest(tiny_en, spans(2), pools=Pools(("max",))).run.path == kept.run.path


def test_activations_under_an_edit_are_not_mistaken_for_the_models_own(tiny_en, tmp_path):
    with (
        tiny_en.editing(Edit.zero("encoder_blocks.1.hook_resid_post")),
        pytest.raises(EditError, match="hook or an edit"),
    ):
        harvest(tiny_en, spans(2), tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_no_items_and_timestamps_are_refused(tiny_en, tmp_path):
    with pytest.raises(ManifestError, match="no recordings"):
        harvest(tiny_en, [], tmp_path / "s")
    with pytest.raises(OptionError, match="Timestamps"):
        harvest(tiny_en, spans(1), tmp_path / "s", BOTH, DecodeOptions(timestamps=True))


def test_a_damaged_shard_is_told_with_the_file_to_delete(tiny_en, tmp_path):
    store = harvest(tiny_en, spans(1), tmp_path / "s")
    (tmp_path / "s" / "vectors-00000.safetensors").write_bytes(b"short")
    store = ActivationStore.read_from(store.run.path)
    store.__dict__["names"] = ["encoder.mean.0"]
    with pytest.raises(OptionError, match="is damaged"):
        store.read("encoder.mean.0")


def test_names_that_are_not_unicode_are_kept_escaped(tiny_en, tmp_path):
    odd = Item("caf\udce9.wav", sample("jfk"), offset=1.0, duration=1.0, text="\ud800")
    store = harvest(tiny_en, [odd], tmp_path / "s")
    assert store.index["audio_filepath"].tolist() == ["caf\\udce9.wav"]


def test_unreadable_recordings_are_named_and_skipped(tiny_en, tmp_path):
    bad = Item("gone.wav", tmp_path / "gone.wav")
    store = harvest(tiny_en, [spans(1)[0], bad, *spans(3)[1:]], tmp_path / "s", BOTH)
    assert store.index["item"].tolist() == [0, 2, 3]
    assert store.skipped["audio_filepath"].tolist() == ["gone.wav"]
    assert store.read("decoder.end.3").shape == (3, 384)
    with pytest.raises(AudioError, match="None of the 1 recordings"):
        harvest(tiny_en, [bad], tmp_path / "t")


def test_what_was_written_stands_in_the_index(tiny_en, tmp_path):
    store = harvest(tiny_en, [Item("jfk", sample("jfk"))], tmp_path / "s", BOTH)
    row = store.index.iloc[0]
    assert "ask not what your country" in row["written"]
    assert row["finished"]
    assert row["seconds"] == pytest.approx(11.0, abs=0.01)
    assert len(row["tokens"][0]) > 20


def test_the_control_with_random_weights_is_given_the_same_texts(tiny_en, tmp_path):
    store = harvest(tiny_en, spans(3), tmp_path / "s", BOTH)
    control = harvest(untrained(tiny_en, 1), spans(3), tmp_path / "c", BOTH, written=store)
    assert [list(t[0]) for t in control.index["tokens"]] == [list(t[0]) for t in store.index["tokens"]]
    assert control.names == store.names
    assert not np.allclose(control.read("decoder.end.3"), store.read("decoder.end.3"))
    assert control.run.settings["weights"] != store.run.settings["weights"]


def test_untrained_weights_depend_on_the_seed_alone_and_leave_torch_as_it_was(tiny_en):
    before = torch.random.get_rng_state()
    one, two, other = untrained(tiny_en, 1), untrained(tiny_en, 1), untrained(tiny_en, 2)
    assert torch.equal(torch.random.get_rng_state(), before)
    name = "model.decoder.layers.0.fc1.weight"
    of = [model.hf.get_parameter(name) for model in (one, two, other, tiny_en)]
    assert torch.equal(of[0], of[1])
    assert not torch.equal(of[0], of[2])
    assert not torch.equal(of[0], of[3])


def test_texts_of_a_language_model_are_pooled_without_their_padding(tmp_path):
    model = tiny("llama")
    model.processor = word_tokenizer()
    texts = [Item("", Path(), text=text) for text in ("w3 w4 w5", "w6", "w7 w8 w9 w10 w11")]
    bad = [Item("", Path()), Item("", Path(), text=" "), Item("", Path(), text="w3 " * 100)]
    store = harvest(model, [*texts, *bad], tmp_path / "s", Pools((), ("mean", "last")))
    alone = harvest(model, texts[1:2], tmp_path / "t", Pools((), ("mean", "last")))
    np.testing.assert_allclose(store.read("text.mean.2")[1], alone.read("text.mean.2")[0], atol=1e-5)
    np.testing.assert_allclose(store.read("text.last.2")[1], alone.read("text.mean.2")[0], atol=1e-5)
    assert store.skipped["item"].tolist() == [3, 4, 5]
    assert "100 tokens" in store.skipped["reason"].iloc[2]


def test_an_audio_language_model_is_pooled_over_its_sound_and_its_audio_positions(tmp_path):
    from tests.models.tokenizers import audio_processor

    model = tiny("qwen2_audio")
    model.processor = audio_processor(model.config)
    clips = [Item(f"{i}", sample("jfk"), offset=float(i), duration=0.4 + 0.2 * i) for i in range(2)]
    store = harvest(model, clips, tmp_path / "s", Pools(("mean",), ("mean", "last")))
    assert store.names == sorted(
        ["mel"]
        + [f"audio_encoder.mean.{i}" for i in range(3)]
        + [f"text.{p}.{i}" for p in ("mean", "last") for i in range(2)]
    )
    assert np.isfinite(store.read("text.last.1")).all()


def test_probing_a_manifest_finds_what_a_second_label_needs_already_there(tiny_en, tmp_path):
    lines = [
        {
            "audio_filepath": str(sample("jfk")),
            "offset": 0.5 * i,
            "duration": 1.5,
            "kind": "ab"[i % 2],
            "speaker": str(i // 2),
        }
        for i in range(12)
    ]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("\n".join(map(json.dumps, lines)))
    options = ProbeOptions(shuffles=2)
    curve = probe_corpus(tiny_en, items(manifest), "kind", options, store=tmp_path / "s")
    assert len(curve.layers) == 4
    stamp = (tmp_path / "s" / "index-00000.parquet").stat().st_mtime_ns
    lines = [line | {"loud": "yn"[i % 2]} for i, line in enumerate(lines)]
    manifest.write_text("\n".join(map(json.dumps, lines)))
    probe_corpus(tiny_en, items(manifest), "loud", options, store=tmp_path / "s", random_model=True)
    assert (tmp_path / "s" / "index-00000.parquet").stat().st_mtime_ns == stamp
    assert (tmp_path / "s.random-0").is_dir()
