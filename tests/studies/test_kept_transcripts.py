"""Transcripts that are kept in parts: nothing is transcribed twice, and what comes back is what was written."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import pytest
import soundfile as sf
import torch
from tests.patching.worlds import hearing_whisper, spans

from otoscope.activations import Edit
from otoscope.audio.samples import sample
from otoscope.corpora import Item
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
    monkeypatch.setattr(kept, "part_windows", lambda batch: 2)


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


def test_a_long_recording_or_one_of_unknown_length_is_a_part_of_its_own_and_short_ones_share_one(items):
    seconds = {"a": 2.0, "long": 91.0, "b": 30.0, "c": 30.5, "d": 1.0, "unknown": 0.0, "e": 1.0}
    parts = kept._parts(dict.fromkeys(seconds, items[0]), seconds, 3)
    assert [list(part) for part in parts] == [["a"], ["long"], ["b", "c"], ["d"], ["unknown"], ["e"]]


def test_what_could_not_be_read_is_tried_again_and_the_others_are_not(
    model, items, heard, tmp_path, monkeypatch
):
    """The disk was away for a moment: neither size nor time of the file tells."""
    read = Item.windows

    def away(item, seconds):
        if item is items[1]:
            raise AudioError("It cannot be reached.", "Mount the disk.")
        return read(item, seconds)

    monkeypatch.setattr(Item, "windows", away)
    first, bad, *others = kept.kept_transcripts(model, items[:4], OPTIONS, tmp_path / "s")
    assert isinstance(bad, AudioError)
    assert bad.remedy == "Mount the disk."
    monkeypatch.undo()
    monkeypatch.setattr(kept, "part_windows", lambda batch: 2)
    heard.clear()
    again = kept.kept_transcripts(model, items[:4], OPTIONS, tmp_path / "s")
    assert isinstance(again[1], Transcript)
    assert [again[0], *again[2:]] == [first, *others]
    assert len(list((tmp_path / "s").glob("*.parquet"))) == 3


def test_a_file_that_is_replaced_while_it_is_heard_is_not_kept(model, items, tmp_path, monkeypatch):
    place = tmp_path / "a.wav"
    sf.write(place, items[0].clip().samples, 16000)
    corpus = [replace(items[0], audio_filepath="a.wav", path=place, offset=0.0), items[1]]
    transcribed = transcribe_all

    def replaced(*arguments, **more):
        heard = list(transcribed(*arguments, **more))
        sf.write(place, items[2].clip().samples[:8000], 16000)
        yield from heard

    monkeypatch.setattr(kept, "transcribe_all", replaced)
    changed, same = kept.kept_transcripts(model, corpus, OPTIONS, tmp_path / "s")
    assert "was changed while it was heard" in str(changed)
    assert isinstance(same, Transcript)
    monkeypatch.setattr(kept, "transcribe_all", transcribed)
    now, _ = kept.kept_transcripts(model, corpus, OPTIONS, tmp_path / "s")
    assert now.duration == 0.5


def test_a_recording_is_called_what_this_corpus_calls_it(model, items, heard, tmp_path):
    kept.kept_transcripts(model, items[:2], OPTIONS, tmp_path / "s")
    other = [replace(items[0], audio_filepath="other/jfk"), items[0]]
    found = kept.kept_transcripts(model, other, replace(OPTIONS, seed=5), tmp_path / "s")
    assert [one.source for one in found] == ["other/jfk", "jfk-0"]
    assert found[0].settings.seed == 5
    assert heard == [2]


def test_sampled_texts_are_not_kept(model, items, tmp_path):
    with pytest.raises(OptionError, match="Sampled texts"):
        kept.kept_transcripts(model, items, replace(OPTIONS, temperature=0.5), tmp_path / "s")
    assert not (tmp_path / "s").exists()


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

    whole = kept.kept_transcripts(model, items[:4], OPTIONS, tmp_path / "s")
    part = tmp_path / "s" / "transcripts-00001.parquet"
    data, table = part.read_bytes(), pd.read_parquet(part)

    def cut():
        part.write_bytes(data[:-100])

    def without_a_column():
        table.drop(columns="written").to_parquet(part)

    def holding(text):
        table.assign(written=text).to_parquet(part)

    other = json.loads(table["written"][0])
    texts = ["[]", "{", json.dumps(other | {"other": 1}), json.dumps(other | {"text": 5})]
    for damage in (cut, without_a_column, *(partial(holding, text) for text in texts)):
        damage()
        with pytest.raises(OptionError, match=r"transcripts-00001\.parquet is damaged") as told:
            kept.kept_transcripts(model, items[:4], OPTIONS, tmp_path / "s")
        assert "Delete this file" in told.value.remedy
    part.unlink()
    assert kept.kept_transcripts(model, items[:4], OPTIONS, tmp_path / "s") == whole


def test_progress_is_one_bar_in_seconds_of_sound_that_begins_where_it_was(
    model, items, tmp_path, monkeypatch
):
    class Told(Silence):
        def __init__(self):
            self.bars, self.notices = [], []

        def notice(self, text):
            self.notices.append(text.replace(str(tmp_path) + "/", ""))

        def start(self, label, total, unit):
            self.bars.append((label, round(total, 3), unit))
            return self

    corpus = [*items[:5], items[0]]  # what stands there twice is heard once
    seconds = sum(transcribing.seconds_of(item) for item in items[:5])
    told, begun = Told(), []
    monkeypatch.setattr(Told, "advance", lambda one, amount=1: begun.append(amount))
    kept.kept_transcripts(model, items[:2], OPTIONS, tmp_path / "s")
    with reporting_to(told):
        kept.kept_transcripts(model, corpus, OPTIONS, tmp_path / "s")
    assert told.bars == [("Transcribing", round(seconds, 3), "s of sound")]
    assert begun[0] == pytest.approx(1.8)
    assert sum(begun) == pytest.approx(seconds, abs=0.1)
    with reporting_to(told):
        kept.kept_transcripts(model, corpus, OPTIONS, tmp_path / "s")
    assert len(told.bars) == 1
    assert told.notices == [
        "2 of 5 recordings are there already: s.",
        "The transcripts are there already: s.",
    ]


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
    assert [vars(went) for one in again for went in one.progress] == [
        vars(went) for one in first for went in one.progress
    ]
    assert [one.transcript for one in again] == [one.transcript for one in first]
    with pytest.raises(OptionError, match="without timestamps"):
        kept.kept_watches(tiny_en, corpus, monitor, DecodeOptions(timestamps=True), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    rate = 0.5  # so high that some of them ring
    ringing = kept.kept_watches(tiny_en, corpus, monitor.at(rate), OPTIONS, tmp_path / "s")
    fresh = running.watch_all(tiny_en, corpus, monitor.at(rate), OPTIONS)
    assert [one.to_dict() for one in ringing] == [one.to_dict() for one in fresh]
    assert any(one.alarm for one in ringing)
    other = replace(monitor, slope=2 * monitor.slope)
    with pytest.raises(OptionError, match="begun with monitor = "):
        kept.kept_watches(tiny_en, corpus, other, OPTIONS, tmp_path / "s")
    with pytest.raises(OptionError, match="holds another job"):
        kept.kept_transcripts(tiny_en, corpus, OPTIONS, tmp_path / "s")
