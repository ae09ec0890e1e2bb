"""`otoscope monitor run` with the monitors that come with otoscope, on real recordings."""

from __future__ import annotations

import json

import pytest
import soundfile

from otoscope.audio import Clip
from otoscope.audio.noises import pink_noise
from otoscope.cli.main import main

pytestmark = pytest.mark.weights


def test_a_clip_is_written_with_the_risk_of_every_token(jfk, tmp_path, capsys):
    out = tmp_path / "jfk.json"
    assert main(["monitor", "run", str(jfk), "--json", str(out), "--quiet"]) == 0
    told = json.loads(out.read_text())
    (segment,) = told["segments"]
    assert segment["text"].startswith("And so my fellow Americans")
    assert segment["alarm"] is False
    assert 0 <= max(t["risk"] for t in segment["tokens"]) <= segment["risk"] < told["threshold"] <= 1
    assert set(segment["tokens"][0]) >= {"token", "text", "risk", "invented", "loop"}
    assert told["false_alarm_rate"] == 0.05
    assert capsys.readouterr().out.startswith("ok")


def test_words_for_a_noise_ring(tmp_path, capsys):
    noise: Clip = pink_noise(6.0, seed=3, rms=0.05)
    soundfile.write(tmp_path / "noise.wav", noise.samples, 16_000)
    assert main(["monitor", "run", str(tmp_path / "noise.wav"), "--json", "-", "--quiet"]) == 0
    (segment,) = json.loads(capsys.readouterr().out)["segments"]
    assert segment["alarm"] or not segment["text"].strip(" .")


def test_of_a_manifest_every_recording_is_told_and_bad_ones_are_skipped(jfk, tmp_path, capsys):
    lines = [{"audio_filepath": str(jfk)}, {"audio_filepath": "missing.wav"}]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("\n".join(map(json.dumps, lines)))
    assert main(["monitor", "run", str(manifest), "--json", str(tmp_path / "m.json"), "--quiet"]) == 3
    told = json.loads((tmp_path / "m.json").read_text())
    assert [len(item["segments"]) for item in told["items"]] == [1]
    assert [one["audio_filepath"] for one in told["skipped"]] == ["missing.wav"]
    assert told["items"][0]["audio_filepath"] == str(jfk)
    assert "missing.wav was skipped" in capsys.readouterr().err


def test_a_lower_rate_of_false_alarms_has_a_higher_threshold(jfk, capsys):
    found = []
    for rate in ("0.3", "0.1"):
        assert main(["monitor", "run", str(jfk), "--false-alarms", rate, "--json", "-", "--quiet"]) == 0
        found.append(json.loads(capsys.readouterr().out)["threshold"])
    assert found[0] < found[1]
    assert main(["monitor", "run", str(jfk), "--false-alarms", "0.001", "--quiet"]) == 2
    assert "cannot promise a false-alarm rate of 0.001" in capsys.readouterr().err


def test_a_folder_without_a_monitor_is_refused(jfk, tmp_path, capsys):
    assert main(["monitor", "run", str(jfk), "--monitor", str(tmp_path)]) == 2
    assert "holds no monitor" in capsys.readouterr().err
