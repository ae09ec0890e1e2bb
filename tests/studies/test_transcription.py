from __future__ import annotations

import json
from pathlib import Path

import pytest

from otoscope.corpora import Item
from otoscope.errors import AudioError, ModelError, OptionError, OutputError
from otoscope.models.transcripts import DecodeOptions, Token, Transcript, Word
from otoscope.outcomes import error_rates_by_language
from otoscope.studies.transcription import (
    CorpusTranscript,
    Skipped,
    require_readable,
    require_subtitles,
    transcribe_corpus,
)


def transcript(text: str) -> Transcript:
    token = Token(5, text, -0.25, 0.5, 0.0, 1.0)
    return Transcript(
        text, "en", (token,), (Word(text, 0.0, 1.0, token.p, 0, 0),), (), 1.0, 0.01, -0.2, 1.1, None, (50257,),
        DecodeOptions(), {"name": "tiny"},
    )  # fmt: skip


def corpus(*texts: str, reference: str | None = None, skipped: int = 0) -> CorpusTranscript:
    items = tuple(
        Item(f"{i}.wav", Path(f"{i}.wav"), text=reference, language="en") for i in range(len(texts))
    )
    rates = {} if reference is None else error_rates_by_language((reference, text, "en") for text in texts)
    lost = tuple(Skipped(f"bad{i}.wav", "It is empty.", "Copy it again.") for i in range(skipped))
    written = tuple(transcript(text) for text in texts)
    return CorpusTranscript({"name": "tiny"}, DecodeOptions(), 4, items, written, lost, rates, {"torch": "2"})


def test_the_result_has_the_promised_keys_and_is_json():
    data = json.loads(json.dumps(corpus("a b", "a c", reference="a b", skipped=1).to_dict(), allow_nan=False))
    assert (data["model"], data["wer"], data["cer"]) == ("tiny", 0.25, pytest.approx(1 / 6, abs=1e-6))
    assert data["wer_interval"] == [0.0, 0.5]
    item = data["items"][1]
    assert item["audio_filepath"] == "1.wav"
    assert item["reference"] == "a b"
    assert (item["text"], item["tokens"], item["avg_logprob"]) == ("a c", [5], -0.2)
    assert item["words"] == [{"word": "a c", "start": 0.0, "end": 1.0, "probability": 0.7788}]
    assert (item["no_speech_prob"], item["compression_ratio"]) == (0.01, 1.1)
    assert data["languages"]["en"]["recordings"] == 2
    assert data["languages"]["en"]["substitutions"] == 1
    assert data["skipped"] == [
        {"audio_filepath": "bad0.wav", "reason": "It is empty.", "remedy": "Copy it again."}
    ]
    assert data["settings"]["batch"] == 4
    assert data["versions"] == {"torch": "2"}


def test_doubts_name_the_recordings():
    from dataclasses import replace

    three = corpus("a", "b", "c")
    silent = tuple(replace(t, no_speech_prob=0.9) for t in three.transcripts[:2])
    doubted = replace(three, transcripts=(*silent, three.transcripts[2]))
    assert doubted.doubts() == [
        "2 of 3 transcripts may hold no speech (no-speech probability above 0.6): 0.wav, 1.wav."
    ]
    alone = replace(doubted, items=doubted.items[:1], transcripts=silent[:1])
    assert alone.doubts() == ["1 of 1 transcripts may hold no speech (no-speech probability above 0.6)."]


def test_an_empty_text_under_a_repair_is_doubted():
    from dataclasses import replace

    silent = corpus("", "said")
    assert silent.doubts() == []
    mended = replace(silent, model={"name": "tiny", "mended": "calm"})
    assert mended.doubts() == ["1 of 2 transcripts are empty under the repair calm: 0.wav."]


def test_without_references_the_rates_are_null():
    data = corpus("a").to_dict()
    assert (data["wer"], data["cer"], data["wer_interval"], data["languages"]) == (None, None, None, {})
    assert "reference" not in data["items"][0]


def test_subtitles_of_one_recording_are_a_file_and_of_several_a_folder(tmp_path):
    one = corpus("a")
    one.save_subtitles(tmp_path / "a.srt", "srt")
    assert (tmp_path / "a.srt").read_text() == one.to_srt()
    corpus("a", "b").save_subtitles(tmp_path / "subs", "vtt")
    assert sorted(p.name for p in (tmp_path / "subs").iterdir()) == ["0.vtt", "1.vtt"]
    assert (tmp_path / "subs" / "1.vtt").read_text().startswith("WEBVTT\n")
    with pytest.raises(OptionError):
        corpus("a", "b").to_srt()


def test_the_only_readable_of_several_recordings_still_goes_into_the_folder(tmp_path):
    corpus("a", skipped=1).save_subtitles(tmp_path / "subs", "srt")
    assert [p.name for p in (tmp_path / "subs").iterdir()] == ["0.srt"]


def test_a_file_where_a_folder_must_be_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError):
        require_subtitles(tmp_path / "file", 2)
    with pytest.raises(OutputError):
        require_subtitles(tmp_path / "no" / "subs", 2)
    require_subtitles(tmp_path / "file", 1)
    require_subtitles(tmp_path / "subs", 2)
    require_subtitles(tmp_path, 1)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_recordings_are_refused_only_when_none_can_be_read(tmp_path, jfk):
    (tmp_path / "empty.wav").touch()
    empty, good = Item("empty.wav", tmp_path / "empty.wav"), Item("jfk", jfk)
    require_readable([empty, good])
    with pytest.raises(AudioError, match=r"empty\.wav is empty"):
        require_readable([empty])
    with pytest.raises(AudioError, match="None of the 2 recordings"):
        require_readable([empty, empty])
    with pytest.raises(AudioError, match="no recordings"):
        require_readable([])


def test_a_language_model_cannot_transcribe(jfk):
    from otoscope.models.families import random_model

    with pytest.raises(ModelError, match="does not transcribe"):
        transcribe_corpus(random_model("llama"), [Item("jfk", jfk)])
