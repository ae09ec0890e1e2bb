"""A repair that waits for the alarms of a monitor."""

from __future__ import annotations

import pytest
from tests.monitors.monitors_of import random_monitor
from tests.patching.worlds import hearing_whisper, spans

from otoscope.errors import OptionError
from otoscope.mending.applying import mended
from otoscope.mending.breaker import Breaker
from otoscope.mending.repair import Repair, load_repair
from otoscope.models.transcribing import transcribe_all
from otoscope.models.transcripts import DecodeOptions

OPTIONS = DecodeOptions(language="en", max_positions=40)


@pytest.fixture(scope="module")
def model():
    return hearing_whisper()


def texts(model, watcher=None):
    return [t.ids for t in transcribe_all(model, spans(6), OPTIONS, batch=6, watcher=watcher)]


def breaker(model, when):
    return Repair.of(model, "breaker", breaker=Breaker(copies=2, tokens=2), when=when)


def test_without_an_alarm_nothing_is_mended(model):
    plain = texts(model)
    with mended(model, breaker(model, "alarm"), random_monitor(model, threshold=2.0)) as watch:
        assert texts(model, watch) == plain
    with mended(model, breaker(model, "always")) as watch:
        assert watch is None
        assert texts(model) != plain


def test_in_alarm_it_acts_from_the_first_look_on(model):
    with mended(model, breaker(model, "always")):
        always = texts(model)
    plain = texts(model)
    with mended(model, breaker(model, "alarm"), random_monitor(model, threshold=0.0)) as watch:
        gated = texts(model, watch)
    assert sum(map(len, always)) <= sum(map(len, gated)) < sum(map(len, plain))
    assert model.open_hooks == 0
    assert not model.filters


def test_a_text_is_ended_at_its_alarm_be_it_before_the_first_token(model):
    def stopping(threshold):
        repair = Repair.of(model, "stop", when="alarm", stop=True)
        with mended(model, repair, random_monitor(model, threshold=threshold)) as watch:
            return texts(model, watch)

    assert all(ids == [] for ids in stopping(0.0))
    assert stopping(2.0) == texts(model)


def test_what_always_acts_asks_no_monitor(model):
    with pytest.raises(OptionError, match="asks no monitor"):
        Repair.of(model, "stop", stop=True)


def test_a_repair_that_stops_comes_back_from_disk(model, tmp_path):
    repair = Repair.of(model, "stop", when="alarm", stop=True, false_alarms=0.01)
    again = load_repair(repair.save(tmp_path / "r"))
    assert (again.stop, again.false_alarms, again.when) == (True, 0.01, "alarm")
