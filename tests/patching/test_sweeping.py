"""A sweep over a corpus: counts, controls, resuming, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.conftest import tiny
from tests.patching.worlds import hearing_qwen, hearing_whisper, spans

from otoscope.activations import Edit
from otoscope.audio import white_noise
from otoscope.audio.samples import sample
from otoscope.corpora import Item
from otoscope.errors import AudioError, EditError, ManifestError, ModelError, OptionError, OutputError
from otoscope.outcomes import compression_ratio
from otoscope.patching import sweeping
from otoscope.patching.references import Reference
from otoscope.patching.sweeping import SweepOptions, explain_empty, sweep_corpus
from otoscope.patching.writing import heard_of
from otoscope.runs import Run

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS = SweepOptions(parts=("cross_attn", "mlp"), max_tokens=28, sets=2, seed=3)


@pytest.fixture(scope="module")
def model():
    return hearing_whisper(seed=1, dtype=torch.float64)


def sweep(model, out, options=OPTIONS, corpus=None, **more):
    return sweep_corpus(model, corpus or spans(), options, out=out, **({"priced": None} | more))


def told(result):
    """The result without what is measured by the clock."""
    found = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    for edit in (found["price"] or {"edits": []})["edits"]:
        del edit["card"]["tokens_per_second"]
    return found


@pytest.fixture(scope="module")
def result(model, tmp_path_factory):
    return sweep(model, tmp_path_factory.mktemp("sweep"))


def test_every_component_has_counts_intervals_and_controls_on_all_and_both_halves(result):
    data = told(result)
    assert data["n_items"] == 6
    assert 0 < data["n_outcome"] == len(data["items"]) < 6
    assert data["baseline_outcome_rate"] == pytest.approx(data["n_outcome"] / 6)
    assert {(e["component"], e["head"]) for e in data["effects"]} == {
        *((f"decoder_blocks.{layer}.cross_attn", head) for layer in range(2) for head in range(6)),
        *((f"decoder_blocks.{layer}.mlp", None) for layer in range(2)),
    }
    assert len(data["effects"]) == 2 * (6 + 1)  # six heads and an MLP, which has none, a layer
    for effect in data["effects"]:
        parts = [effect, effect["discovery"], effect["test"]]
        assert effect["n"] == data["n_outcome"] == effect["discovery"]["n"] + effect["test"]["n"]
        assert effect["resolved"] == sum(part["resolved"] for part in parts[1:])
        for part in parts:
            assert 0 <= part["restored"] <= part["resolved"] <= part["n"]
            if part["n"]:
                assert part["ci_low"] <= part["rate"] == part["resolved"] / part["n"] <= part["ci_high"]
                assert 0 <= part["random_rate"] <= 1
                assert 0 < part["p_value"] <= 1
                assert 0 <= part["direction_rate"] <= 1


def test_no_group_is_in_both_halves(result):
    halves = {}
    for item in told(result)["items"]:
        halves.setdefault(spans()[item["item"]].labels["speaker"], set()).add(item["half"])
    assert all(len(found) == 1 for found in halves.values())


def test_a_sweep_through_the_encoder_and_another_sound_counts_alike(model, tmp_path):
    options = replace(
        OPTIONS, stacks=("encoder", "decoder"), heads=False, reference=Reference("noise"), alpha=3.0, sets=0
    )
    one, many = (told(sweep(model, tmp_path / str(b), options, batch=b)) for b in (1, 16))
    assert one == many
    assert any(e["resolved"] for e in one["effects"])


class Stopped(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize("after", [1, 4, 8])
def test_a_sweep_that_stopped_goes_on_and_gives_the_same(model, tmp_path, monkeypatch, after):
    monkeypatch.setattr(sweeping, "_SHARD", 4)
    corpus = spans()
    priced = [replace(item, text="w1 w2 w3 w4") for item in spans(3)]
    monkeypatch.setattr(sweeping, "priced_on", lambda _: priced)
    whole = sweep(model, tmp_path / "whole", corpus=corpus, priced=["m"])
    write_part, parts = Run.write_part, []

    def stopping(run, *rest):
        if len(parts) == after:
            raise Stopped
        parts.append(rest[:2])
        write_part(run, *rest)

    monkeypatch.setattr(Run, "write_part", stopping)
    with pytest.raises(Stopped):
        sweep(model, tmp_path / "part", corpus=corpus, priced=["m"])
    monkeypatch.setattr(Run, "write_part", write_part)
    again = sweep(model, tmp_path / "part", corpus=corpus, priced=["m"], batch=2)
    assert told(again) == told(whole)
    assert told(whole)["sets"]["greedy"]
    assert told(whole)["price"]["edits"]


KILLED = """
import sys, torch
from tests.patching.test_sweeping import OPTIONS, sweep
from tests.patching.worlds import hearing_whisper
torch.set_num_threads(1)
sweep(hearing_whisper(seed=1, dtype=torch.float64), sys.argv[1])
"""


@pytest.mark.slow
def test_a_sweep_that_the_system_killed_goes_on_and_gives_the_same(model, result, tmp_path):
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root / "src"), str(root)])
    job = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": path},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("effects-*.parquet")) and time.monotonic() < deadline and job.poll() is None:
        time.sleep(0.005)
    job.send_signal(signal.SIGKILL)
    job.wait()
    assert list(tmp_path.glob("effects-*.parquet"))
    assert told(sweep(model, tmp_path)) == told(result)


def test_a_finished_sweep_is_not_computed_again(model, result, tmp_path, monkeypatch):
    sweep(model, tmp_path)
    monkeypatch.setattr(model, "encode", lambda *_: pytest.fail("the encoder ran again"))
    assert told(sweep(model, tmp_path)) == told(result)


@pytest.mark.parametrize(
    "change, key",
    [
        ({"alpha": 0.5}, "alpha"),
        ({"reference": Reference("noise")}, "reference"),
        ({"max_tokens": 9}, "max_tokens"),
        ({"detector": "ngram"}, "detector"),
        ({"parts": ("mlp",)}, "components"),
    ],
)
def test_another_sweep_in_the_same_directory_is_refused(model, tmp_path, change, key):
    sweep(model, tmp_path)
    with pytest.raises(OptionError, match=f"begun with (other )?{key}"):
        sweep(model, tmp_path, replace(OPTIONS, **change))


def test_other_recordings_weights_prices_and_clips_are_other_sweeps(model, tmp_path, monkeypatch):
    sweep(model, tmp_path)
    with pytest.raises(OptionError, match="items"):
        sweep(model, tmp_path, corpus=spans(5))
    with pytest.raises(OptionError, match="priced"):
        sweep(model, tmp_path, priced=())
    other = hearing_whisper(seed=3, dtype=torch.float64)
    other.origin = model.origin  # made in memory: the weights alone tell them apart
    with pytest.raises(OptionError, match="sha256"):
        sweep(other, tmp_path)
    clips = [Reference("clip", white_noise(0.5, seed=seed)) for seed in (0, 1)]
    sweep(model, tmp_path / "clip", replace(OPTIONS, reference=clips[0]))
    with pytest.raises(OptionError, match="reference_clip"):
        sweep(model, tmp_path / "clip", replace(OPTIONS, reference=clips[1]))


def test_a_recording_that_was_replaced_under_its_name_is_another(model, tmp_path, monkeypatch):
    import soundfile

    monkeypatch.setenv("OTOSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sweeping, "cache_dir", lambda: tmp_path / "cache")
    texts = []
    for seed in (0, 1):
        soundfile.write(tmp_path / "a.wav", white_noise(0.9, seed=seed).samples, 16000)
        found = sweep(model, None, corpus=[Item("a.wav", tmp_path / "a.wav")])
        texts.append(found.baseline["ids"][0].tolist())
    assert texts[0] != texts[1]


def test_a_second_sweep_in_a_directory_is_refused_while_the_first_works(model, tmp_path):
    settings = {}
    with Run.opened(tmp_path, sweeping.KIND, settings), pytest.raises(OutputError, match="Another process"):
        sweep(model, tmp_path)


def test_unreadable_recordings_are_named_and_the_others_counted(model, tmp_path):
    (tmp_path / "empty.wav").write_bytes(b"")
    bad = [Item("gone\x1b[31m.wav", tmp_path / "gone.wav"), Item("empty.wav", tmp_path / "empty.wav")]
    corpus = [bad[0], *spans(4), bad[1]]
    data = told(sweep(model, tmp_path / "run", corpus=corpus))
    assert [skipped["audio_filepath"] for skipped in data["skipped"]] == ["gone\x1b[31m.wav", "empty.wav"]
    assert all(skipped["reason"] for skipped in data["skipped"])
    assert data["n_items"] == 4
    assert data["baseline_outcome_rate"] == pytest.approx(data["n_outcome"] / 4)
    with pytest.raises(AudioError, match="None of the 2 recordings"):
        sweep(model, tmp_path / "bad", corpus=bad)


def test_where_nothing_has_the_outcome_it_is_said_with_what_to_do(model, tmp_path):
    found = sweep(model, tmp_path, replace(OPTIONS, max_tokens=2))
    assert found.n_outcome == 0
    data = told(found)
    assert data["baseline_outcome_rate"] == 0
    assert data["winners"] == data["items"] == []
    error = explain_empty(found)
    assert error is not None
    assert "No clip of this manifest loops" in error.reason
    assert "otoscope corpus make loops" in error.remedy


def test_compression_counts_every_text_above_and_resolves_every_one_up_to_the_threshold(model, tmp_path):
    options = replace(OPTIONS, detector="compression", sets=0, parts=("cross_attn",))
    found = sweep(model, tmp_path, options)
    above = [i for i, text in enumerate(found.baseline["text"]) if compression_ratio(text) > 2.4]
    assert found.affected == above
    assert above
    table = found.effects_table
    assert (table["resolved"] == [compression_ratio(text) <= 2.4 for text in table["text"]]).all()


def test_no_change_at_all_resolves_nothing_and_has_no_winner(model, tmp_path):
    data = told(sweep(model, tmp_path, replace(OPTIONS, alpha=0.0)))
    assert all(e["resolved"] == 0 for e in data["effects"])
    assert data["winners"] == []


def test_corpus_means_are_taken_once_and_used(model, tmp_path):
    options = replace(
        OPTIONS, reference=Reference("mean"), stacks=("encoder", "decoder"), heads=False, sets=0
    )
    assert len(told(sweep(model, tmp_path, options))["effects"]) == 2 * 2 + 3


def test_qwen_is_swept_through_its_audio_tower_and_its_text(tmp_path):
    model = hearing_qwen(seed=3, dtype=torch.float64)
    options = SweepOptions(
        stacks=("audio_encoder", "text"),
        heads=False,
        max_tokens=16,
        reference=Reference("noise"),
        detector="ngram",
    )
    data = told(sweep(model, tmp_path, options, spans(3)))
    assert data["n_items"] == 3
    assert len(data["effects"]) == 3 * 2 + 2 * 2


def test_what_cannot_be_swept_is_refused_before_any_work(model, tmp_path, monkeypatch):
    monkeypatch.setattr(model, "encode", lambda *_: pytest.fail("the encoder ran"))
    with pytest.raises(ManifestError, match="no recordings"):
        sweep_corpus(model, [], OPTIONS, out=tmp_path)
    with pytest.raises(OptionError, match="lacks the label"):
        sweep(model, tmp_path, replace(OPTIONS, outcome="word"))
    with pytest.raises(OptionError, match="no stack"):
        sweep(model, tmp_path, replace(OPTIONS, stacks=("text",)))
    with pytest.raises(OptionError, match="no component"):
        sweep(model, tmp_path, replace(OPTIONS, parts=("norm",)))
    with pytest.raises(OptionError, match="no component"):
        sweep(model, tmp_path, replace(OPTIONS, parts=()))
    with pytest.raises(AudioError, match="one window holds"):
        sweep(model, tmp_path, replace(OPTIONS, reference=Reference("clip", white_noise(2.0, seed=0))))
    with pytest.raises(OptionError, match="alpha"):
        replace(OPTIONS, alpha=float("nan"))
    with pytest.raises(OptionError, match="language"):
        sweep(model, tmp_path, replace(OPTIONS, language="tlh"))
    with pytest.raises(ModelError, match="does not listen"):
        sweep(tiny("llama"), tmp_path)
    with (
        pytest.raises(EditError, match="in place"),
        model.editing(Edit.zero("decoder_blocks.0.hook_mlp_out")),
    ):
        sweep(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_was_said_in_a_long_recording_is_not_what_its_first_window_is_judged_by():
    """jfk is 11 s long."""
    whole = Item("jfk.flac", sample("jfk"), text="And so my fellow Americans", language="en")
    assert heard_of(whole, 30.0) is whole
    assert heard_of(whole, 5.0).text is None
    assert heard_of(replace(whole, offset=7.0), 5.0).text is not None
    assert heard_of(replace(whole, duration=4.0), 5.0).text is not None
    assert heard_of(replace(whole, text=""), 5.0).text == ""
