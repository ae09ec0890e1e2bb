from __future__ import annotations

import json

import pytest

from otoscope.cli.main import main


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("OTOSCOPE_CACHE", str(tmp_path / "cache"))


def test_the_list_names_every_registered_model_and_whether_it_is_here(capsys):
    from otoscope.models.sources import REGISTRY

    assert main(["models", "list"]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [row.split()[0] for row in rows] == list(REGISTRY)
    assert all("not fetched" in row for row in rows)
    assert main(["models", "list", "--json", "-"]) == 0
    listed = json.loads(capsys.readouterr().out)["models"]
    assert [(m["alias"], m["cached"]) for m in listed] == [(alias, False) for alias in REGISTRY]
    assert [m["alias"] for m in listed if m["default"]] == ["whisper-tiny.en"]


def test_a_check_of_what_is_not_here_is_refused_with_the_way_to_get_it(capsys):
    assert main(["models", "check", "whisper-tiny.en"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "not fetched yet" in captured.err
    assert "`otoscope models get whisper-tiny.en`" in captured.err


def test_a_check_writes_its_problems_as_json_even_when_it_fails(capsys, tmp_path):
    assert main(["models", "check", "whisper-tiny.en", "--json", str(tmp_path / "x.json")]) == 2
    assert json.loads((tmp_path / "x.json").read_text())["problems"]


@pytest.mark.weights
def test_a_fetched_model_is_whole(capsys, monkeypatch):
    monkeypatch.delenv("OTOSCOPE_CACHE")
    assert main(["models", "get", "whisper-tiny.en", "--json", "-"]) == 0
    got = json.loads(capsys.readouterr().out)
    assert (got["name"], got["layout"], len(got["sha256"])) == ("whisper-tiny.en", "ctranslate2", 64)
    assert main(["models", "check", "whisper-tiny.en"]) == 0
    assert capsys.readouterr().out == "whisper-tiny.en is whole.\n"


def test_doctor_says_what_is_wrong_and_what_to_do(capsys, monkeypatch):
    from otoscope.doctor import Check

    checks = [Check("torch", "ok", "2"), Check("cache", "broken", "read-only", "Set OTOSCOPE_CACHE.")]
    monkeypatch.setattr("otoscope.doctor.examine", lambda: checks)
    assert main(["doctor"]) == 2
    assert capsys.readouterr().out.splitlines() == [
        "ok      torch  2",
        "BROKEN  cache  read-only — Set OTOSCOPE_CACHE.",
    ]
    assert main(["doctor", "--json", "-"]) == 2
    assert json.loads(capsys.readouterr().out)["checks"][1]["remedy"] == "Set OTOSCOPE_CACHE."
    monkeypatch.setattr("otoscope.doctor.examine", lambda: checks[:1])
    assert main(["doctor"]) == 0


def test_a_plan_needs_no_weights_and_says_what_it_assumed(capsys, monkeypatch):
    from otoscope.planning import machine

    monkeypatch.setattr(machine, "measured", lambda: machine.UNMEASURED)  # measuring takes ten seconds
    how = ["models", "check", "openai/whisper-tiny", "--plan", "trace", "--seconds", "11", "--units", "200"]
    assert main(how) == 0
    out = capsys.readouterr().out
    assert "38 M parameters in float32" in out
    assert "Assumed: 200 features." in out
    assert main([*how, "--dtype", "bfloat16"]) == 2
    assert "too coarse" in capsys.readouterr().err
    assert main([*how, "--json", "-"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["peak_bytes"] > told["weight_bytes"] == 4 * told["parameters"]
    assert told["fits"] is (told["peak_bytes"] <= told["free_bytes"])


def test_what_is_known_of_no_model_or_device_is_refused(capsys):
    assert main(["models", "check", "whisper-huge", "--plan", "lens"]) == 2
    assert "There is no model" in capsys.readouterr().err
    assert main(["transcribe", "any.wav", "--device", "meta"]) == 2
    assert "no weights" in capsys.readouterr().err
