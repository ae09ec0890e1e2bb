"""`otoscope transcribe` on real recordings with the real model."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from otoscope.cli.main import main

pytestmark = [pytest.mark.weights, pytest.mark.slow]

TEXTS = {
    "austen-0870.flac": "And Mister John Dashwood had then leisure to consider how much there might be prudently in his "
    "power to do for them.",
    "austen-0890.flac": "Unless to be rather cold hearted and rather selfish is to be ill-disposed.",
    "jfk.flac": "And so, my fellow Americans, ask not what your country can do for you, ask what you can do for your "
    "country.",
}  # fmt: skip
CUE = re.compile(r"(\d\d):(\d\d):(\d\d)[,.](\d{3}) --> (\d\d):(\d\d):(\d\d)[,.](\d{3})")


@pytest.fixture(scope="session")
def tiny_en():
    from otoscope.models.loading import load_model

    return load_model("whisper-tiny.en", "cpu")


@pytest.fixture
def loaded(tiny_en, monkeypatch):
    """The real model, loaded once for all tests."""
    monkeypatch.setattr("otoscope.models.loading.load_model", lambda name, *_, **__: tiny_en)


@pytest.fixture
def corpus(tmp_path, monkeypatch, jfk) -> Path:
    """A folder to work in, with `clips/` and a manifest; paths in the manifest are relative to it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    for name in TEXTS:
        shutil.copy(jfk.with_name(name), tmp_path / "clips" / name)
    lines = [
        {"audio_filepath": f"./clips/{n}", "text": t, "language": "en", "speaker": n[:3]} for n, t in TEXTS.items()
    ]  # fmt: skip
    write_manifest(tmp_path / "m.jsonl", lines)
    return tmp_path


def write_manifest(path: Path, lines: list[dict]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def spans(text: str) -> list[tuple[float, float]]:
    def seconds(hours: str, minutes: str, whole: str, thousandths: str) -> float:
        return 3600 * int(hours) + 60 * int(minutes) + int(whole) + int(thousandths) / 1000

    return [(seconds(*m[:4]), seconds(*m[4:])) for m in CUE.findall(text)]


def test_a_manifest_gives_texts_words_and_error_rates_under_its_own_paths(loaded, corpus, capsys):
    assert main(["transcribe", "m.jsonl", "--json", "out.json"]) == 0
    data = json.loads((corpus / "out.json").read_text("utf-8"))
    assert [item["audio_filepath"] for item in data["items"]] == [f"./clips/{name}" for name in TEXTS]
    assert data["model"] == "whisper-tiny.en"
    assert data["wer"] <= 0.035
    assert data["cer"] <= 0.02
    assert data["languages"]["en"]["wer"] == data["wer"]
    assert data["wer_interval"][0] <= data["wer"] <= data["wer_interval"][1]
    assert data["skipped"] == []
    jfk = data["items"][2]
    assert jfk["text"].startswith("And so my fellow Americans")
    assert max(jfk["tokens"]) < 50256
    assert -1 < jfk["avg_logprob"] < 0 <= jfk["no_speech_prob"] < 0.5
    assert [w["word"] for w in jfk["words"]] == jfk["text"].split()
    assert all(0 <= w["start"] <= w["end"] <= 11.0 and 0 < w["probability"] <= 1 for w in jfk["words"])
    shown = capsys.readouterr().out
    assert f"./clips/jfk.flac: {jfk['text']}" in shown
    assert re.search(r"^total +3 +\d+ +\d\.\d %", shown, re.MULTILINE)


def test_a_clip_alone_gives_its_text_and_subtitles(loaded, corpus, capsys):
    assert main(["transcribe", "clips/jfk.flac", "--quiet", "--srt", "jfk.srt", "--vtt", "jfk.vtt"]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    assert err == ""
    srt, vtt = (corpus / "jfk.srt").read_text(), (corpus / "jfk.vtt").read_text()
    assert spans(srt) == spans(vtt)
    assert len(spans(srt)) >= 2
    assert all(start < end for start, end in spans(srt))
    assert [int(block.split("\n")[0]) for block in srt.split("\n\n")] == list(range(1, len(spans(srt)) + 1))
    words = " ".join(line for line in srt.split("\n") if line and not line.isdigit() and "-->" not in line)
    assert words == out.strip()
    assert vtt.startswith("WEBVTT\n\n")


def test_json_on_stdout_is_json_alone(loaded, corpus, capsys):
    assert main(["transcribe", "clips/jfk.flac", "--json", "-"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["wer"], data["cer"], data["languages"]) == (None, None, {})


def test_a_folder_skips_names_and_counts_what_cannot_be_read(loaded, corpus, capsys):
    (corpus / "clips" / "empty.wav").touch()
    (corpus / "clips" / "evil\x1b[31m.wav").write_text(
        "not sound at all, though it is long enough to look at"
    )
    assert main(["transcribe", "clips", "--json", "out.json", "--srt", "subs"]) == 3
    err = capsys.readouterr().err
    assert "empty.wav was skipped" in err
    assert "evil\\x1b[31m.wav was skipped" in err
    assert "2 of 5 recordings were skipped." in err
    data = json.loads((corpus / "out.json").read_text("utf-8"))
    assert [s["audio_filepath"] for s in data["skipped"]] == ["empty.wav", "evil\x1b[31m.wav"]
    assert len(data["items"]) == 3
    assert sorted(p.name for p in (corpus / "subs").iterdir()) == [
        "austen-0870.srt", "austen-0890.srt", "jfk.srt"
    ]  # fmt: skip


def test_spans_of_one_recording_are_told_apart_and_timed_in_the_recording(loaded, corpus):
    halves = [{"audio_filepath": "clips/jfk.flac", "offset": o, "duration": 4.0} for o in (0.0, 7.0)]
    write_manifest(corpus / "halves.jsonl", halves)
    assert main(["transcribe", "halves.jsonl", "--json", "o.json", "--vtt", "subs", "--quiet"]) == 0
    items = json.loads((corpus / "o.json").read_text())["items"]
    assert [item.get("offset") for item in items] == [None, 7.0]
    assert items[1]["words"][0]["start"] >= 7.0
    assert sorted(p.name for p in (corpus / "subs").iterdir()) == ["clips_jfk.2.vtt", "clips_jfk.vtt"]


def test_the_language_of_an_item_chooses_its_total_and_filters_nothing(loaded, corpus):
    lines = [json.loads(line) for line in (corpus / "m.jsonl").read_text().splitlines()]
    lines[0]["language"] = "fr"
    del lines[1]["language"]
    write_manifest(corpus / "m.jsonl", lines)
    assert main(["transcribe", "m.jsonl", "--json", "o.json", "--language", "en", "--quiet"]) == 0
    data = json.loads((corpus / "o.json").read_text())
    assert len(data["items"]) == 3
    assert {key: value["recordings"] for key, value in data["languages"].items()} == {"en": 2, "fr": 1}


def test_batches_do_not_change_what_is_written(loaded, corpus):
    for batch in ("1", "3"):
        assert main(["transcribe", "m.jsonl", "--json", f"{batch}.json", "--batch", batch, "--quiet"]) == 0
    one, three = (json.loads((corpus / f"{b}.json").read_text())["items"] for b in "13")
    assert [i["tokens"] for i in one] == [i["tokens"] for i in three]


def test_decoding_options_reach_the_model(loaded, corpus):
    def tokens(*options: str) -> list[int]:
        assert main(["transcribe", "clips/jfk.flac", "--json", "o.json", "--quiet", *options]) == 0
        return json.loads((corpus / "o.json").read_text())["items"][0]["tokens"]

    plain = tokens()
    assert len(tokens("--max-positions", "8")) == 6  # two are the prompt
    assert any(token > 50362 for token in tokens("--timestamps"))
    sampled = tokens("--temperature", "1", "--seed", "3")
    assert sampled == tokens("--temperature", "1", "--seed", "3")
    assert len({tuple(plain), tuple(sampled), tuple(tokens("--temperature", "1", "--seed", "4"))}) == 3


# Bad input ------------------------------------------------------------------------------------------------------------


def bad_recordings(folder: Path, jfk: Path) -> dict[str, Path]:
    whole = jfk.read_bytes()
    soundfile.write(folder / "whole.wav", np.zeros(16000, np.float32), 16000)
    wav = (folder / "whole.wav").read_bytes()
    (folder / "whole.wav").unlink()
    soundfile.write(folder / "nan.wav", np.full(16000, np.nan, np.float32), 16000, subtype="FLOAT")
    soundfile.write(folder / "zero.wav", np.zeros(0, np.float32), 16000)
    soundfile.write(folder / "one.wav", np.zeros(1, np.float32), 16000)
    contents = {
        "empty.wav": b"",
        "truncated.flac": whole[: len(whole) // 2],
        "truncated.wav": wav[: len(wav) // 2],
        "header.wav": wav[:44],
        "header.flac": whole[:60],
        "text.wav": b"This is no sound. " * 100,
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {path.name: path for path in folder.iterdir()}


def test_every_bad_recording_is_one_reason_and_one_remedy_and_leaves_nothing(
    loaded, jfk, tmp_path, monkeypatch, capsys
):
    (tmp_path / "bad").mkdir()
    monkeypatch.chdir(tmp_path)
    bad = bad_recordings(tmp_path / "bad", jfk)
    assert len(bad) == 9
    for path in [*bad.values(), tmp_path / "missing.wav"]:
        outputs = ["--json", "o.json", "--srt", "o.srt", "--vtt", "o.vtt"]
        for arguments in (["transcribe", str(path), *outputs], ["explain", str(path), "--out", "o.html"]):
            code = main(arguments)
            out, err = capsys.readouterr()
            assert (code, out) == (2, ""), (arguments, err)
            assert [line.split(":")[0] for line in err.splitlines()] == ["error", "remedy"], err
            assert path.name in err
            assert [p.name for p in tmp_path.iterdir()] == ["bad"]
    assert main(["transcribe", "bad", "--json", "o.json"]) == 2
    assert "None of the 9 recordings can be read" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["bad"]


def test_an_english_model_refuses_another_language_and_translation(loaded, corpus, capsys):
    for option in (["--language", "fr"], ["--task", "translate"]):
        assert main(["transcribe", "m.jsonl", "--json", "o.json", *option]) == 2
        assert "English-only" in capsys.readouterr().err
    assert not (corpus / "o.json").exists()


@pytest.mark.parametrize(
    "options, word",
    [
        (["--model", "whisper-tinny"], "whisper-tinny"),
        (["--model", "m.jsonl"], "m.jsonl"),
        (["--device", "abacus"], "abacus"),
        (["--dtype", "float3"], "float3"),
        (["--max-positions", "1"], "max"),
    ],
)
def test_wrong_choices_are_refused_and_leave_nothing(corpus, capsys, options, word):
    assert main(["transcribe", "clips/jfk.flac", "--json", "o.json", *options]) == 2
    err = capsys.readouterr().err
    assert [line.split(":")[0] for line in err.splitlines()] == ["error", "remedy"]
    assert word in err
    assert not (corpus / "o.json").exists()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted; run as root where mounting is allowed")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_told_and_holds_no_half_written_file(loaded, corpus, small_disk, capsys):
    (small_disk / "filler").write_bytes(b"x" * 60_000)
    clips = [{"audio_filepath": "clips/jfk.flac"}] * 3  # 13 kB of JSON; one page of 4 kB is free
    write_manifest(corpus / "three.jsonl", clips)
    assert main(["transcribe", "three.jsonl", "--json", str(small_disk / "o.json")]) == 2
    err = capsys.readouterr().err
    assert "No space left" in err
    assert [line.split(":")[0] for line in err.splitlines()[-2:]] == ["error", "remedy"]
    assert [p.name for p in small_disk.iterdir()] == ["filler"]


def test_a_read_only_place_is_refused_before_any_work(corpus, small_disk, capsys, monkeypatch):
    def never(*_, **__):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("otoscope.models.loading.load_model", never)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for option in ("--json", "--srt", "--vtt"):
        assert main(["transcribe", "clips/jfk.flac", option, str(small_disk / "o")]) == 2
        assert "Read-only file system" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", [0.7, 2.0, 5.0])
def test_ctrl_c_at_any_moment_is_one_line_and_leaves_nothing(corpus, seconds):
    lines = [{"audio_filepath": "clips/jfk.flac", "offset": o / 1000, "duration": 9} for o in range(400)]
    write_manifest(corpus / "long.jsonl", lines)
    before = sorted(p.name for p in corpus.iterdir())
    command = [sys.executable, "-m", "otoscope", "transcribe", "long.jsonl", "--json", "o.json", "--quiet"]
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import otoscope.cli.main"], check=True)
    python_alone = time.perf_counter() - begun  # until then the signal meets Python, and not otoscope
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        time.sleep(max(seconds, 3 * python_alone))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, err
    assert out == ""
    assert err.splitlines() == ["Interrupted; no half-written file was left behind."]
    assert sorted(p.name for p in corpus.iterdir()) == before
