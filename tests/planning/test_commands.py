from __future__ import annotations

import pytest
from tests.conftest import tiny

from otoscope.errors import ModelError, OptionError
from otoscope.models.loading import load_model
from otoscope.planning import room
from otoscope.planning.commands import COMMANDS, plan
from otoscope.planning.machine import UNMEASURED
from otoscope.planning.room import require_room


@pytest.fixture(scope="module")
def small():
    return load_model("openai/whisper-tiny.en", "meta")


@pytest.fixture(scope="module")
def larger():
    return load_model("openai/whisper-base", "meta")


@pytest.mark.parametrize("command", list(COMMANDS))
def test_a_larger_model_takes_more_of_everything(small, larger, command):
    a, b = (plan(model, command, UNMEASURED, seconds=11) for model in (small, larger))
    assert 0 < a.seconds < b.seconds
    assert 0 < a.peak_bytes < b.peak_bytes
    assert a.to_dict()["seconds"] == a.seconds
    assert a.weight_bytes == 4 * a.parameters


def test_more_sound_takes_more_time_and_a_larger_batch_more_memory(small):
    one, many = (plan(small, "transcribe", UNMEASURED, seconds=s, batch=4) for s in (30, 3000))
    assert many.seconds > 20 * one.seconds - one.stages[0].seconds * 20
    assert plan(small, "transcribe", UNMEASURED, seconds=3000, batch=16).peak_bytes > many.peak_bytes


def test_a_sweep_is_planned_with_its_price_and_in_less_memory_with_fewer_rows(small):
    alone, many = (plan(small, "patch", UNMEASURED, seconds=s) for s in (30, 300))
    stages = [{stage.name: stage.seconds for stage in made.stages} for made in (alone, many)]
    assert list(stages[0]) == ["start and load", "hear", "write", "write again", "price"]
    assert stages[1]["write again"] == pytest.approx(10 * stages[0]["write again"])
    assert (
        stages[1]["price"] == stages[0]["price"] > 0
    )  # winners are priced once, however many recordings loop
    assert plan(small, "patch", UNMEASURED, seconds=30, batch=1).peak_bytes < alone.peak_bytes


def test_what_is_assumed_is_counted_in_words(small):
    one, many = (
        plan(small, "mend", UNMEASURED, seconds=s, units=n).assumptions for s, n in ((30, 1), (60, 2))
    )
    assert one[0].startswith("30 s of sound in 1 window of 30 s, ")
    assert one[0].endswith(" 1 row at once")
    assert many[0].startswith("60 s of sound in 2 windows of 30 s, ")
    assert (one[1], many[1]) == ("1 trial", "2 trials")


@pytest.mark.parametrize("command", ["trace", "probe"])
def test_an_audio_language_model_is_planned(command):
    model = load_model("Qwen/Qwen2-Audio-7B", "meta")
    made = plan(model, command, UNMEASURED, seconds=10)
    assert made.weight_bytes == pytest.approx(33.6e9, rel=0.01)
    assert made.flops > 1e12


@pytest.mark.parametrize("command", ["lens", "patch", "trace", "probe", "features"])
def test_a_language_model_is_planned(tmp_path, command):
    tiny("llama").config.save_pretrained(tmp_path)
    made = plan(load_model(tmp_path, "meta"), command, UNMEASURED, seconds=10)
    assert made.peak_bytes > made.weight_bytes > 0


def test_half_precision_takes_half_the_weights_and_is_too_coarse_to_trace():
    half = load_model("openai/whisper-tiny.en", "meta", "bfloat16")
    assert (
        plan(half, "transcribe", UNMEASURED).weight_bytes
        == 2 * plan(half, "transcribe", UNMEASURED).parameters
    )
    with pytest.raises(OptionError, match="too coarse"):
        plan(half, "trace", UNMEASURED)


def test_what_cannot_be_planned_is_refused(small):
    with pytest.raises(OptionError, match="Nothing is planned"):
        plan(small, "sing", UNMEASURED)
    with pytest.raises(OptionError, match="seconds"):
        plan(small, "lens", UNMEASURED, seconds=0)
    with pytest.raises(OptionError, match="no units"):
        plan(small, "lens", UNMEASURED, units=3)
    with pytest.raises(ModelError, match="for recognisers"):
        plan(load_model("Qwen/Qwen2-Audio-7B", "meta"), "transcribe", UNMEASURED)


def asked(name="openai/whisper-tiny", **changes):
    how = {"device": "cpu", "dtype": "auto", "batch": 20, "seconds": 600.0} | changes
    require_room("transcribe", name, **how)


@pytest.mark.parametrize(
    ("gigabytes", "remedy"),
    [(0.8, "--batch 1"), (0.65, "--dtype bfloat16"), (0.3, "smaller model")],
)
def test_what_does_not_fit_is_refused_with_what_does(monkeypatch, gigabytes, remedy):
    monkeypatch.setattr(room, "free_memory", lambda: gigabytes * 1e9)
    with pytest.raises(OptionError, match="GB are free") as caught:
        asked()
    assert remedy in caught.value.remedy


def test_what_fits_or_is_small_is_let_through(monkeypatch):
    monkeypatch.setattr(room, "free_memory", lambda: 64e9)
    asked()
    monkeypatch.setattr(room, "free_memory", lambda: 0.3e9)
    asked("smollm2-135m")  # of no known size until it is here


def test_a_plan_that_breaks_stops_nothing_and_is_told(monkeypatch, capsys):
    def broken(*_):
        raise KeyError("width")

    monkeypatch.setattr(room, "free_memory", lambda: 0.3e9)
    monkeypatch.setattr(room, "_plan", broken)
    asked()
    assert "could not be told (KeyError: 'width')" in capsys.readouterr().err
