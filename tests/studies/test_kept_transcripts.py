"""Transcripts that are kept in parts: nothing is transcribed twice, and what comes back is what was written."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import soundfile as sf
import torch
from tests.patching.worlds import hearing_whisper, spans

from otoscope.activations import Edit
from otoscope.audio.samples import sample
from otoscope.errors import AudioError, EditError, OptionError
from otoscope.models import transcribing
from otoscope.models.transcribing import transcribe_all
from otoscope.models.transcripts import DecodeOptions, Transcript
from otoscope.progress import Silence, reporting_to
from otoscope.studies import kept_transcripts as kept
from otoscope.studies.transcription import transcribe_corpus

OPTIONS = DecodeOptions(max_positions=24)


@pytest.fixture(scope="module")
def model():
    return hearing_whisper(seed=1, dtype=torch.float64)


@pytest.fixture(scope="module")
def items():
    return spans(7)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(kept, "PART_RECORDINGS", 2)


@pytest.fixture
def heard(monkeypatch):
    """How many recordings are transcribed, part by part."""
    counts = []

    def counted(model, sources, *rest, **more):
        counts.append(len(sources))
        return transcribe_all(model, sources, *rest, **more)

    monkeypatch.setattr(kept, "transcribe_all", counted)
    return counts


def test_kept_transcripts_are_those_of_one_go_in_every_number(model, items, tmp_path):
    plain = list(transcribe_all(model, items, OPTIONS, batch=2))
    assert kept.kept_transcripts(model, items, OPTIONS, tmp_path / "s", batch=2) == plain
    assert kept.kept_transcripts(model, items, OPTIONS, tmp_path / "s", batch=2) == plain


def test_only_what_is_new_is_transcribed(model, items, heard, tmp_path):
    first = kept.kept_transcripts(model, items[:5], OPTIONS, tmp_path / "s")
    assert heard == [2, 2, 1]
    assert kept.kept_transcripts(model, items[:5][::-1], OPTIONS, tmp_path / "s") == first[::-1]
    assert heard == [2, 2, 1]
    assert kept.kept_transcripts(model, [*items, items[0]], OPTIONS, tmp_path / "s")[:5] == first
    assert heard == [2, 2, 1, 2]


def test_what_was_stopped_goes_on_and_ends_the_same(model, items, heard, tmp_path, monkeypatch):
    whole = kept.kept_transcripts(model, items, OPTIONS, tmp_path / "whole")
    count, decode = [0], transcribing._decode_windows

    def stopped(*arguments):
        count[0] += 1
        if count[0] == 3:
            raise KeyboardInterrupt
        return decode(*arguments)

    monkeypatch.setattr(transcribing, "_decode_windows", stopped)
    with pytest.raises(KeyboardInterrupt) as interrupt:
        kept.kept_transcripts(model, items, OPTIONS, tmp_path / "s")
    assert "goes on with what is kept in" in interrupt.value.__notes__[0]
    heard.clear()
    assert kept.kept_transcripts(model, items, OPTIONS, tmp_path / "s") == whole
    assert heard == [2, 1]
    parts = [{f.name: f.read_bytes() for f in (tmp_path / d).glob("*.parquet")} for d in ("whole", "s")]
    assert parts[0] == parts[1]
    assert len(parts[0]) == 4


def test_a_long_recording_is_a_part_of_its_own_and_short_ones_share_one(items, monkeypatch):
    monkeypatch.setattr(kept, "PART_RECORDINGS", 100)
    monkeypatch.setattr(kept, "PART_SECONDS", 5.0)
    long = replace(items[1], duration=9.0)
    corpus = [replace(item, duration=2.0) for item in items]
    corpus[1] = long
    parts = kept._parts({str(i): item for i, item in enumerate(corpus)})
    assert [list(part) for part in parts] == [["0"], ["1"], ["2", "3"], ["4", "5"], ["6"]]


def test_a_recording_that_was_changed_or_mended_is_heard_again_and_the_others_are_not(
    model, items, heard, tmp_path
):
    clip, place = items[0].clip(), tmp_path / "a.wav"
    place.write_bytes(b"no sound")
    corpus = [replace(items[0], audio_filepath="a.wav", path=place, offset=0.0), *items[1:3]]
    bad, *others = kept.kept_transcripts(model, corpus, OPTIONS, tmp_path / "s")
    assert isinstance(bad, AudioError)
    assert bad.remedy
    assert str(kept.kept_transcripts(model, corpus, OPTIONS, tmp_path / "s")[0]) == str(bad)
    sf.write(place, clip.samples, 16000)
    heard.clear()
    good, *same = kept.kept_transcripts(model, corpus, OPTIONS, tmp_path / "s")
    assert isinstance(good, Transcript)
    assert same == others
    assert heard == [1]


def test_other_settings_are_refused_with_what_differs(model, items, tmp_path):
    kept.kept_transcripts(model, items[:1], OPTIONS, tmp_path / "s")
    with pytest.raises(OptionError, match=r"begun with decoding\.max_positions = 24, now it is 20"):
        kept.kept_transcripts(model, items[:1], DecodeOptions(max_positions=20), tmp_path / "s")
    with pytest.raises(OptionError, match="knows no language"):
        kept.kept_transcripts(model, items[:1], DecodeOptions(language="xx"), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_changed_model_keeps_nothing(model, items, tmp_path):
    with (
        model.editing(Edit.zero("decoder_blocks.0.hook_mlp_out")),
        pytest.raises(EditError, match="own texts"),
    ):
        kept.kept_transcripts(model, items[:1], OPTIONS, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_part_that_holds_no_transcripts_is_refused(model, items, tmp_path):
    import pandas as pd

    kept.kept_transcripts(model, items[:1], OPTIONS, tmp_path / "s")
    [part] = (tmp_path / "s").glob("*.parquet")
    table = pd.read_parquet(part)
    for text in ("[]", "{", json.dumps(json.loads(table["written"][0]) | {"other": 1})):
        table["written"] = text
        table.to_parquet(part)
        with pytest.raises(OptionError, match="no transcript") as told:
            kept.kept_transcripts(model, items[:1], OPTIONS, tmp_path / "s")
        assert "begin again" in told.value.remedy


def test_progress_is_one_bar_in_seconds_of_sound_that_begins_where_it_was(model, items, tmp_path):
    class Told(Silence):
        def __init__(self):
            self.bars, self.done = [], 0.0

        def start(self, label, total, unit):
            self.bars.append((label, round(total, 3), unit))
            return self

        def advance(self, amount=1):
            self.done += amount

    corpus, seconds = items[:5], sum(transcribing.seconds_of(item) for item in items[:5])
    for _ in range(2):
        told = Told()
        with reporting_to(told):
            kept.kept_transcripts(model, corpus, OPTIONS, tmp_path / "s")
        assert told.bars == [("Transcribing", round(seconds, 3), "s of sound")]
        assert told.done == pytest.approx(seconds, abs=0.1)


def test_a_corpus_that_is_kept_is_reported_as_one_that_is_not(model, items, tmp_path):
    plain = transcribe_corpus(model, items, OPTIONS, batch=2)
    kept_ones = transcribe_corpus(model, items, OPTIONS, batch=2, store=tmp_path / "s")
    assert kept_ones.to_dict() == plain.to_dict()


@pytest.mark.weights
def test_what_a_monitor_says_is_kept_with_the_texts(tiny_en, monkeypatch, tmp_path):
    from otoscope.corpora import items
    from otoscope.monitors import running
    from otoscope.monitors.monitor import Monitor

    corpus = items(sample("jfk").parent)[:3]
    monitor = Monitor.shipped(tiny_en)
    plain = [one.to_dict() for one in running.watch_all(tiny_en, corpus, monitor, OPTIONS)]
    first = kept.kept_watches(tiny_en, corpus, monitor, OPTIONS, tmp_path / "s")
    assert [one.to_dict() for one in first] == plain
    monkeypatch.setattr(kept, "watch_all", lambda *_, **__: pytest.fail("heard again"))
    again = kept.kept_watches(tiny_en, corpus, monitor, OPTIONS, tmp_path / "s")
    assert [one.to_dict() for one in again] == plain
    assert [one.alarm for one in again] == [one.alarm for one in first]
    with pytest.raises(OptionError, match="begun with monitor = "):
        kept.kept_watches(tiny_en, corpus, monitor.at(0.2), OPTIONS, tmp_path / "s")
    with pytest.raises(OptionError, match="holds another job"):
        kept.kept_transcripts(tiny_en, corpus, OPTIONS, tmp_path / "s")
