from __future__ import annotations

import numpy as np
import pytest
from tests.corpora.sounds import write_sound

from otoscope.corpora import Item, items
from otoscope.errors import ManifestError


@pytest.fixture
def data(tmp_path):
    def write(**files):
        for name, content in files.items():
            (tmp_path / name.replace("wav_scp", "wav.scp")).write_text(content, encoding="utf-8")
        return tmp_path

    return write


def test_utterances_get_text_speaker_gender_and_language(data, tmp_path):
    data(
        wav_scp="u1 a b.wav\nu2\t/abs/b.wav\n",
        text="u1 Hi you\u00a0there \nu2\n",
        utt2spk="u1 s1\nu2 s2\n",
        spk2gender="s1 f\ns2 m\ns3 m\n",
        utt2lang="u1 en\n",
    )
    assert items(tmp_path) == [
        Item(
            "a b.wav",
            tmp_path / "a b.wav",
            "Hi you\u00a0there",
            language="en",
            labels={"utterance": "u1", "speaker": "s1", "gender": "female"},
        ),
        Item(
            "/abs/b.wav",
            tmp_path / "/abs/b.wav",
            "",
            labels={"utterance": "u2", "speaker": "s2", "gender": "male"},
        ),
    ]


def test_segments_are_spans_of_recordings(data, tmp_path):
    samples = write_sound(tmp_path / "a.wav")
    folder = data(wav_scp="r1 a.wav\n", segments="u1 r1 0.5 1.25\nu2 r1 1.5 -1\n", text="u2 end\n")
    one, two = items(folder)
    np.testing.assert_array_equal(one.clip().samples, samples[8000:20000])
    np.testing.assert_array_equal(two.clip().samples, samples[24000:])
    assert (one.duration, two.duration, one.text, two.text) == (0.75, None, None, "end")


def test_a_relative_path_may_start_where_the_program_runs(data, tmp_path, monkeypatch):
    write_sound(tmp_path / "audio" / "a.wav")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "wav.scp").write_text("u1 audio/a.wav\n")
    monkeypatch.chdir(tmp_path)
    (item,) = items("data")
    assert item.clip().duration == 2.0
    write_sound(tmp_path / "data" / "audio" / "a.wav", 1.0)
    (item,) = items("data")
    assert item.clip().duration == 1.0


@pytest.mark.parametrize(
    "command", ["touch OWNED |", "touch OWNED|", "| touch OWNED", "sph2pipe -f wav a.sph |"]
)
def test_a_shell_command_is_refused_and_never_run(data, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    data(wav_scp=f"u1 a.wav\nu2 {command}\n")
    with pytest.raises(
        ManifestError, match=r"^Line 2 of .*wav\.scp is a shell command, which is unsafe"
    ) as caught:
        items(tmp_path)
    assert "Write its output to a file" in caught.value.remedy
    assert [path.name for path in tmp_path.iterdir()] == ["wav.scp"]


@pytest.mark.parametrize(
    "files, reason",
    [
        ({"wav_scp": "u1\n"}, r"Line 1 of .*wav\.scp names no recording"),
        ({"wav_scp": "u1 -\n"}, r"Line 1 of .*wav\.scp is not a file of its own"),
        ({"wav_scp": "u1 a.ark:123\n"}, r"Line 1 of .*wav\.scp is not a file of its own"),
        ({"wav_scp": "u1 a.wav\nu1 b.wav\n"}, r"Line 2 of .*wav\.scp has u1 for the second time"),
        ({"wav_scp": "\n"}, "is empty"),
        ({"wav_scp": "u1 a.wav\n", "text": "u1 x\n\nu2 y\n"}, r"Line 3 of .*text is about u2"),
        ({"wav_scp": "u1 a.wav\n", "utt2spk": "u2 y\n"}, r"Line 1 of .*utt2spk is about u2"),
        ({"wav_scp": "r a.wav\n", "segments": "u r 0\n"}, r"Line 1 of .*segments is not an utterance"),
        ({"wav_scp": "r a.wav\n", "segments": "u q 0 1\n"}, r"Line 1 of .*segments is not an utterance"),
        ({"wav_scp": "r a.wav\n", "segments": "u r 2 1\n"}, r"Line 1 of .*segments has times"),
        ({"wav_scp": "r a.wav\n", "segments": "u r x 1\n"}, r"Line 1 of .*segments has times"),
        ({"wav_scp": "r a.wav\n", "segments": "u r -1 1\n"}, r"Line 1 of .*segments has times"),
        ({"wav_scp": "r a.wav\n", "segments": "u r 0 -2\n"}, r"Line 1 of .*segments has times"),
        ({"wav_scp": "r a.wav\n", "segments": "u r 0 inf\n"}, r"Line 1 of .*segments has times"),
    ],
)
def test_a_line_that_cannot_be_used_is_named_by_its_number(data, tmp_path, files, reason):
    data(**files)
    with pytest.raises(ManifestError, match=reason):
        items(tmp_path)


def test_white_space_that_kaldi_does_not_know_does_not_separate(data, tmp_path):
    data(wav_scp="u1 a.wav\n\u00a0\n")
    with pytest.raises(ManifestError, match=r"Line 2 of .* names no recording"):
        items(tmp_path)
