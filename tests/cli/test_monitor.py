"""`otoscope monitor run` with the monitors that come with otoscope, on real recordings."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile
from tests.monitors.monitors_of import plain_hindsight

from otoscope.audio import Clip
from otoscope.audio.noises import pink_noise
from otoscope.cli.main import main
from otoscope.cli.monitor import _lines, _summary
from otoscope.models.transcripts import Token
from otoscope.monitors.running import Watched
from otoscope.monitors.scoring import Progress

pytestmark = pytest.mark.weights


def test_a_clip_is_written_with_the_risk_of_every_token(jfk, tmp_path, capsys):
    out = tmp_path / "jfk.json"
    assert main(["monitor", "run", str(jfk), "--json", str(out), "--quiet"]) == 0
    told = json.loads(out.read_text())
    (segment,) = told["segments"]
    assert segment["text"].startswith("And so my fellow Americans")
    assert segment["alarm"] is False
    assert 0 <= max(t["risk"] for t in segment["tokens"]) <= segment["risk"] < told["threshold"] <= 1
    assert set(segment["hindsight"]) == {"risk", "invented", "loop", "doubtful"}
    assert set(segment["tokens"][0]) >= {"token", "text", "risk", "invented", "loop"}
    assert told["false_alarm_rate"] == 0.05
    shown = capsys.readouterr().out
    assert shown.startswith("ok")
    assert (
        f"An alarm is a risk from {told['threshold']:.2f} on, which at most 5 % of ordinary speech" in shown
    )


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
    shown = capsys.readouterr()
    assert "missing.wav was skipped" in shown.err
    assert "Alarms in 0 of 1 recordings." in shown.out


def test_calls_that_came_since_are_heard_and_the_others_are_not(jfk, tmp_path, capsys):
    calls, store = tmp_path / "calls.jsonl", tmp_path / "store"
    lines = [json.dumps({"audio_filepath": str(jfk), "offset": at, "duration": 2}) for at in (0, 3)]
    calls.write_text(lines[0])
    assert main(["monitor", "run", str(calls), "--store", str(store), "--json", "-", "--quiet"]) == 0
    first = json.loads(capsys.readouterr().out)
    calls.write_text("\n".join(lines))
    assert main(["monitor", "run", str(calls), "--store", str(store), "--json", "-", "--quiet"]) == 0
    both = json.loads(capsys.readouterr().out)
    assert both["items"][0] == first["items"][0]
    assert len(both["items"]) == 2
    assert [len(pd.read_parquet(part)) for part in sorted(store.glob("*.parquet"))] == [1, 1]
    assert main(["monitor", "run", str(calls), "--store", str(store), "--mend", str(tmp_path)]) == 2
    assert "is not kept" in capsys.readouterr().err


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


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--mend", "nope", "nope does not exist"),
        ("--monitor", "nomon", "nomon does not exist"),
        ("--false-alarms", "2", "A false-alarm rate of 2"),
    ],
)
def test_a_slip_of_the_pen_is_told_before_a_model_is_looked_for(jfk, capsys, option, value, said):
    assert main(["monitor", "run", str(jfk), "--model", "no-such-model", option, value]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", ["transcribe", "explain"])
def test_a_repair_that_is_not_there_is_told_before_a_model_is_looked_for(jfk, capsys, tmp_path, command):
    out = ["--out", str(tmp_path / "page.html")] if command == "explain" else []
    assert main([command, str(jfk), "--model", "no-such-model", "--mend", "nope", *out]) == 2
    assert "nope does not exist" in capsys.readouterr().err


def test_hopeless_recordings_are_told_before_a_model_is_looked_for(jfk, capsys, tmp_path):
    out = str(tmp_path / "m")
    assert main(["monitor", "fit", str(jfk), "--model", "no-such-model", "--out", out]) == 2
    assert "16 invented texts are needed, there can be at most 0: 16 more" in capsys.readouterr().err


def watched(words, parts, alarm_token, doubtful_from=0.6):
    """A text of these tokens, of which each has these probabilities of the monitor's targets; hindsight goes by the last."""
    tokens = [Token(i, word, 0.0, 0.0, 0.1 * i, 0.1 * i + 0.1) for i, word in enumerate(words)]
    segment = SimpleNamespace(
        start=0.0, end=3.0, text="".join(words).strip(), first_token=0, end_token=len(tokens)
    )
    segment.compression_ratio = 1.0
    transcript = SimpleNamespace(
        segments=[segment], tokens=tokens, ids=[token.id for token in tokens], language="en"
    )
    progress = Progress([max(part) for part in parts], parts, alarm_token)
    monitor = SimpleNamespace(threshold=0.6, hindsight=plain_hindsight(np.zeros(20), doubtful_from))
    return Watched(transcript, (progress,), monitor)


def test_a_loop_is_called_one_and_shown_in_part():
    name, line, at = _lines("a.wav", watched([" and so"] * 60, [[0.9, 0.8]] * 61, 0), False, False)
    assert name == "a.wav:"
    assert line.startswith("ALARM")
    assert "risk 0.90, loops:" in line
    assert "more characters" in line
    assert len(line) < 320
    assert at.strip() == "rang at 0.00 s, when “and so” was written (token 0, counted from 0)"


def test_a_text_that_a_repair_ended_says_so():
    line, at = _lines("a.wav", watched([], [[0.9, 0.1]], 0), True, True)
    assert line.endswith("may be invented:  nothing is written")
    assert at.strip() == "ended at its alarm, by the repair"


def test_hindsight_is_told_where_it_is_of_another_mind():
    rang = watched([" a"], [[0.7, 0.1]] * 2, 0, doubtful_from=0.9)
    assert _lines("a.wav", rang, True, False)[-1].strip() == "not doubtful in hindsight: 0.73, below 0.90"
    quiet = watched([" a"], [[0.3, 0.1]] * 2, None, doubtful_from=0.2)
    line, why = _lines("a.wav", quiet, True, False)
    assert line.startswith("CHECK")
    assert why.strip() == "did not ring, but is doubtful in hindsight: 0.37, from 0.20 on"
    assert len(_lines("a.wav", watched([" a"], [[0.3, 0.1]] * 2, None), True, False)) == 1
    stopped = watched([], [[0.7, 0.1]], 0, doubtful_from=0.9)
    assert "hindsight" not in "".join(_lines("a.wav", stopped, True, True))


def test_the_summary_counts_recordings_by_kind():
    used = SimpleNamespace(threshold=0.62, false_alarm_rate=0.05, hindsight=SimpleNamespace(threshold=0.4))
    assert _summary([["invented"], [], ["loop", "loop"], ["loop"]], 2, used, False) == [
        "Alarms in 3 of 4 recordings: 1 may be invented, 2 loop.",
        "Doubtful in hindsight: 2, from 0.40 on.",
        "An alarm is a risk from 0.62 on, which at most 5 % of ordinary speech reaches.",
    ]
