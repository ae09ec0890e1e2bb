"""Streams are written as recordings are, ring while they are written, and never wait in more than one place."""

from __future__ import annotations

import queue
import threading

import numpy as np
import pytest
from tests.monitors.ringing import echo_monitor
from tests.patching.worlds import hearing_whisper

from otoscope.audio import SAMPLING_RATE, Clip, read
from otoscope.errors import ModelError, OptionError
from otoscope.models.transcribing import transcribe
from otoscope.models.transcripts import DecodeOptions
from otoscope.monitors.engine import Engine
from otoscope.monitors.running import watch_all
from otoscope.monitors.streaming import UNSENT, Pacing, Stream

OPTIONS = DecodeOptions(language="en", max_positions=24)
PACING = Pacing(pause=None, every=0.3, first=0.3)


@pytest.fixture(scope="module")
def model():
    return hearing_whisper(seed=3)  # it loops


@pytest.fixture(scope="module")
def sound(jfk):
    return read(jfk, duration=3.4)


@pytest.fixture
def engine(model):
    with Engine(model, echo_monitor(model, tokens=2), OPTIONS, PACING) as running:
        yield running


def listened(engine, samples, piece=800, **more):
    """All events of a stream that is fed as fast as it takes sound."""
    events, roomy = queue.Queue(), threading.Event()
    stream = engine.open(events.put, roomy.set, **more)
    told = []
    for at in range(0, len(samples), piece):
        while not stream.room:
            roomy.wait(0.01)
            roomy.clear()
            told += drained(events, stream)
        stream.feed(samples[at : at + piece])
    stream.end()
    while not told or told[-1]["type"] not in ("end", "error"):
        told.append(events.get(timeout=60))
        stream.sent()
    return told


def drained(events, stream):
    told = []
    while not events.empty():
        told.append(events.get())
        stream.sent()
    return told


def of(events, kind):
    return [event for event in events if event["type"] == kind]


def test_finished_segments_are_what_a_watched_transcription_says(engine, model, sound):
    segments = of(listened(engine, sound.samples), "segment")
    (watched,) = watch_all(model, [sound], engine.monitor, OPTIONS)
    expected = watched.to_dict()["segments"]
    assert len(expected) > 3
    own = ("type", "segment", "heard", "stopped", "rung")
    assert [{k: v for k, v in s.items() if k not in own} for s in segments] == expected
    assert [s["segment"] for s in segments] == list(range(len(expected)))
    assert all(s["heard"] >= s["end"] for s in segments)
    assert segments[-1]["heard"] == segments[-1]["end"] == 3.4


def test_the_end_is_told_last_and_counts_the_sound(engine, sound):
    *_, last = listened(engine, sound.samples)
    assert last == {"type": "end", "seconds": 3.4}


def test_an_alarm_is_told_once_a_segment_before_its_text(engine, sound):
    events = listened(engine, sound.samples)
    rung = [s["segment"] for s in of(events, "segment") if s["rung"]]
    assert {s["segment"] for s in of(events, "segment") if s["alarm"]} <= set(rung)
    assert rung == [a["segment"] for a in of(events, "alarm")] != []
    for number in rung:
        own = [e["type"] for e in events if e.get("segment") == number]
        assert own.count("alarm") == 1
        assert own.index("alarm") < own.index("segment")
    alarm = of(events, "alarm")[0]
    assert alarm["kind"] == "loop"
    assert alarm["risk"] >= engine.monitor.threshold
    assert 0 <= alarm["time"] <= alarm["heard"]


def test_an_alarm_comes_while_the_text_is_still_being_written(model, sound):
    with Engine(model, echo_monitor(model, threshold=0.0), OPTIONS, Pacing(pause=None, every=9.0)) as engine:
        events = listened(engine, sound.samples)
    texts = [s["text"].split() for s in of(events, "segment")]
    known = [a["text"].split() for a in of(events, "alarm")]
    assert known == [text[: len(k)] for k, text in zip(known, texts, strict=True)]
    # A block has four steps, and the token of the last one is not known yet.
    assert max(map(len, known)) < 4 < max(map(len, texts))


def test_a_loop_in_alarm_is_cut_short(model, sound, monkeypatch):
    from otoscope.monitors import engine as module

    monkeypatch.setattr(module, "ENOUGH_TOKENS", 4)
    monkeypatch.setattr(module, "ENOUGH_COPIES", 1)
    with Engine(model, echo_monitor(model, tokens=2), OPTIONS, PACING) as engine:
        cut = of(listened(engine, sound.samples), "segment")
        whole = [s.text for s in transcribe(model, sound, OPTIONS).segments]
    stopped = [s["stopped"] for s in cut]
    assert any(stopped)
    for segment, text in zip(cut, whole, strict=True):
        assert text.startswith(segment["text"])
        assert (segment["text"] == text) or segment["stopped"]
    assert any(segment["text"] != text for segment, text in zip(cut, whole, strict=True))


def test_a_segment_under_way_is_written_again_as_sound_comes_but_not_for_silence(engine, sound):
    events = queue.Queue()
    stream = engine.open(events.put)
    stream.feed(sound.samples[:6400])
    first = events.get(timeout=30)
    while first["type"] != "partial":
        first = events.get(timeout=30)
    assert first["heard"] == pytest.approx(0.4)
    for _ in range(10):
        stream.feed(np.zeros(800, np.float32))
    assert not stream.wants
    stream.feed(sound.samples[6400:12000])
    assert stream.room == 0
    stream.close()


def test_silence_alone_is_never_written(engine):
    assert listened(engine, np.zeros(3 * SAMPLING_RATE, np.float32)) == [{"type": "end", "seconds": 3.0}]


def test_a_stream_of_a_few_samples_ends_like_any_other(engine):
    assert listened(engine, np.full(100, 0.1, np.float32)) == [{"type": "end", "seconds": 0.006}]
    assert listened(engine, np.empty(0, np.float32)) == [{"type": "end", "seconds": 0.0}]


def test_a_stream_waits_for_its_turn_once_and_then_takes_all_sound():
    asked = []
    stream = Stream(
        lambda event: None, asked.append, pacing=Pacing(window=2.0, pause=None, every=0.5, first=1.0)
    )
    rng = np.random.default_rng(0)
    for _ in range(18):
        stream.feed(rng.standard_normal(1600).astype(np.float32))
    assert asked == [stream] * 9  # whoever is woken keeps it once
    job = stream.take()
    assert (job.clip.duration, job.final) == (1.8, False)
    assert stream.take() is None


def test_ended_segments_go_first_unless_others_have_waited_for_long(model, monkeypatch):
    from otoscope.monitors import engine as module

    now = [0.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    engine = Engine(model, echo_monitor(model), OPTIONS, PACING)
    streams = {name: engine.open(lambda event: None) for name in ("early", "late", "ended", "bulk")}
    for now[0], name in ((0.0, "early"), (1.9, "ended"), (2.5, "late"), (3.0, "bulk")):
        if name in ("ended", "bulk"):
            streams[name].end()
        engine.wake(streams[name])
    names = {stream: name for name, stream in streams.items()}
    assert [names[engine._next()] for _ in streams] == ["ended", "early", "bulk", "late"]


def test_a_listener_that_leaves_events_lying_is_not_written_for():
    told = []
    stream = Stream(
        told.append, lambda stream: None, pacing=Pacing(window=2.0, pause=None, every=0.1, first=0.1)
    )
    for _ in range(UNSENT):
        stream.tell({})
    stream.feed(np.full(3200, 0.1, np.float32))
    assert not stream.wants
    stream.sent()
    assert stream.wants


def test_a_closed_stream_is_told_nothing_and_holds_nothing(engine, sound):
    told = []
    stream = engine.open(told.append)
    stream.feed(sound.samples[:16000])
    stream.close()
    before = len(told)
    after = listened(engine, sound.samples[:16000])
    assert of(after, "segment")
    assert len(told) == before
    assert stream.take() is None
    assert stream.room > 15_000


def test_two_streams_get_what_each_gets_alone(engine, sound):
    other = Clip(sound.samples[::-1].copy())
    alone = [of(listened(engine, clip.samples), "segment") for clip in (sound, other)]
    got = {}
    threads = [
        threading.Thread(target=lambda i=i, c=c: got.update({i: of(listened(engine, c.samples), "segment")}))
        for i, c in enumerate((sound, other))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [got[0], got[1]] == alone


def test_a_stream_that_breaks_the_recogniser_ends_with_an_error_and_others_go_on(engine, sound, monkeypatch):
    from otoscope.monitors import engine as module

    broken = threading.Event()
    whole = module.transcribe_all

    def breaks_once(*arguments, **more):
        if not broken.is_set():
            broken.set()
            raise RuntimeError("boom")
        return whole(*arguments, **more)

    monkeypatch.setattr(module, "transcribe_all", breaks_once)
    assert listened(engine, sound.samples[:8000])[-1]["type"] == "error"
    assert listened(engine, sound.samples[:8000])[-1]["type"] == "end"


def test_wrong_monitors_languages_and_pauses_are_refused(model, engine):
    with pytest.raises(ModelError):
        Engine(hearing_whisper(seed=2), engine.monitor)
    with pytest.raises(OptionError):
        engine.open(print, language="xx")
    with pytest.raises(OptionError):
        engine.open(print, pause=0.01)


@pytest.mark.weights
@pytest.mark.slow
def test_a_clip_sent_in_whole_has_the_text_of_transcribe(tiny_en, jfk):
    with Engine(tiny_en, echo_monitor(tiny_en)) as engine:
        events = listened(engine, read(jfk).samples, piece=16_000, pause=0)
    assert " ".join(s["text"] for s in of(events, "segment")) == transcribe(tiny_en, jfk).text
