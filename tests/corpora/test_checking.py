from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tests.corpora.sounds import write_samples, write_sound

from otoscope.corpora import Item, check
from otoscope.corpora.checking import Total
from otoscope.progress import Silence, reporting_to


@pytest.fixture
def item(tmp_path):
    """An item of two seconds of noise, other noise each time."""
    made = []

    def make(samples=None, **facts) -> Item:
        path = tmp_path / f"{len(made)}.wav"
        made.append(path)
        if samples is None:
            write_sound(path, seed=len(made))
        else:
            write_samples(path, samples)
        return Item(path.name, path, **facts)

    return make


def noise(seconds=2.0, level=0.1) -> np.ndarray:
    return level * np.random.default_rng(99).standard_normal(round(16_000 * seconds))


def kinds(report) -> list[tuple[str, str, int]]:
    return [(finding.kind, finding.severity, finding.item) for finding in report.findings]


def test_a_sound_corpus_gives_no_findings_and_right_totals(item):
    items = [
        item(text="Hi.", language="en", labels={"speaker": "a", "n": 1}),
        item(text="Ho.", language="en", labels={"speaker": "b", "n": 2}),
        item(noise(3.0), text="Да.", language="ru", labels={"speaker": "b"}),
    ]
    report = check(items, ["speaker", "language", "text"])
    assert report.findings == []
    assert (report.items, report.readable, report.with_text, report.seconds) == (3, 3, 3, 7.0)
    assert report.totals == {
        "language": {"en": Total(2, 4.0), "ru": Total(1, 3.0)},
        "speaker": {"a": Total(1, 2.0), "b": Total(2, 5.0)},
        "n": {"1": Total(1, 2.0), "2": Total(1, 2.0), "null": Total(1, 3.0)},
    }
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["totals"]["speaker"]["b"]["items"] == 2


def test_labels_of_many_values_are_totalled_only_when_asked_for(item):
    items = [item(labels={"sentence": n}) for n in range(21)]
    assert check(items).totals == {}
    assert len(check(items, ["sentence"]).totals["sentence"]) == 21


def test_what_cannot_be_read_is_an_error_and_the_others_are_still_heard(item, tmp_path):
    (tmp_path / "text.wav").write_text("hello")
    bad = [
        Item("none.wav", tmp_path / "none.wav"),
        Item("text.wav", tmp_path / "text.wav"),
        Item("", Path(), "Hi."),
    ]
    report = check([*bad, item(text="x")])
    assert kinds(report)[:2] == [("unreadable", "error", 0), ("missing text", "warning", 0)]
    assert [f.item for f in report.findings if f.kind == "unreadable"] == [0, 1, 2]
    assert (report.readable, report.seconds) == (1, 2.0)
    assert report.findings[0].reason.endswith("none.wav does not exist.")


def test_a_recording_damaged_beyond_its_first_window_is_found(item, tmp_path):
    soundfile.write(tmp_path / "a.flac", noise(40.0), 16_000)
    whole = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(whole[: len(whole) * 9 // 10])
    assert kinds(check([Item("a.flac", tmp_path / "a.flac")])) == [("unreadable", "error", 0)]


@pytest.mark.parametrize(
    "samples, kind",
    [
        (np.zeros(16_000), "silent"),
        (np.full(16_000, 0.01), "silent"),
        (noise(level=1e-4), "silent"),
        (np.clip(noise(level=0.5), -1, 1), "clipped"),
        (noise() + 0.03, "DC offset"),
        (noise() - 0.03, "DC offset"),
        (noise(0.09), "short"),
    ],
)
def test_odd_sound_is_a_warning(item, samples, kind):
    assert kinds(check([item(), item(samples)])) == [(kind, "warning", 1)]


@pytest.mark.parametrize(
    "samples", [noise(level=1e-3), np.append(noise(), [1.0, -1.0]), noise() + 0.01, noise(0.1), noise(30.0)]
)
def test_sound_within_the_bounds_is_no_finding(item, samples):
    assert check([item(samples)]).findings == []


def test_the_share_at_full_scale_is_counted(item):
    samples = noise()
    samples[:320] = 1.0
    (finding,) = check([item(samples)]).findings
    assert finding.reason == "It is clipped: 1 % of its samples are at full scale."


def test_more_than_one_window_is_a_note_and_is_measured_over_all_windows(item):
    samples = np.concatenate([np.ones(5 * 16_000), np.zeros(35 * 16_000)])
    report = check([item(samples)])
    assert kinds(report) == [
        ("clipped", "warning", 0),
        ("DC offset", "warning", 0),
        ("long", "note", 0),
    ]
    assert report.findings[0].reason.startswith("It is clipped: 12 %")
    assert "+0.125" in report.findings[1].reason
    assert report.seconds == 40.0


@pytest.mark.parametrize("second", [1, 38])
def test_a_long_recording_with_one_sound_somewhere_is_not_silent(item, second):
    samples = np.zeros(40 * 16_000)
    samples[second * 16_000 :][:1600] = noise(0.1)
    assert kinds(check([item(samples)])) == [("long", "note", 0)]


def test_missing_labels_are_errors_only_when_asked_for(item):
    items = [item(labels={"speaker": "a"}), item(labels={"speaker": None}), item(language="en", text="")]
    assert kinds(check(items)) == [("missing text", "warning", 0), ("missing text", "warning", 1)]
    assert kinds(check(items, ["speaker", "language", "text"])) == [
        ("missing label", "error", 0),
        ("missing label", "error", 0),
        ("missing label", "error", 1),
        ("missing label", "error", 1),
        ("missing label", "error", 1),
        ("missing label", "error", 2),
    ]


def test_a_corpus_without_texts_is_not_told_so_for_every_item(item):
    report = check([item(), item()])
    assert (report.findings, report.with_text) == ([], 0)


def test_a_text_in_another_script_than_its_language_is_a_warning(item):
    items = [item(text="Privet, mir", language="ru"), item(text="Привет", language="ru"), item(text="Привет")]
    (finding,) = check(items).findings
    assert (finding.kind, finding.item) == ("script", 0)
    assert "in Latin script, but its language ru is written in Cyrillic" in finding.reason


def test_the_same_sound_is_found_under_another_name_format_and_span(item, tmp_path):
    samples = np.round(noise() * 2**15).clip(-(2**15), 2**15 - 1) / 2**15
    first = item(samples)
    soundfile.write(tmp_path / "copy.flac", samples, 16_000, subtype="PCM_16")
    longer = item(np.concatenate([noise(1.0), samples]))
    copies = [Item("copy.flac", tmp_path / "copy.flac"), Item(longer.audio_filepath, longer.path, offset=1.0)]
    report = check([first, *copies, item()])
    assert kinds(report) == [("duplicate", "warning", 1), ("duplicate", "warning", 2)]
    assert report.findings[0].reason == "It sounds exactly like 0.wav."


def test_a_recording_listed_twice_is_told_from_two_spans_of_one_recording(item):
    one = item()
    spans = [Item(one.audio_filepath, one.path, offset=start, duration=0.5) for start in (0.0, 0.5, 1.0)]
    assert check(spans).findings == []
    (finding,) = check([one, one]).findings
    assert (finding.kind, finding.item, finding.reason) == ("duplicate", 1, "It is listed a second time.")


def test_recordings_that_only_begin_alike_are_no_copies(item):
    samples = noise()
    assert (
        check([item(samples), item(np.append(samples, 0.1)), item(np.append(samples[:-1], 0.1))]).findings
        == []
    )


def test_silences_are_no_copies_of_each_other(item):
    assert {kind for kind, *_ in kinds(check([item(np.zeros(16_000)), item(np.zeros(16_000))]))} == {"silent"}


def test_a_copy_in_another_split_is_a_leak(item):
    one = item(labels={"split": "train"})
    same, other = (Item("copy.wav", one.path, labels={"split": name}) for name in ("train", "test"))
    report = check([one, same, other])
    assert kinds(report) == [("duplicate", "warning", 1), ("leak", "error", 2)]


def test_a_speaker_in_two_splits_is_one_error(item):
    parts = ["train", "test", "train", "dev", "test", None, "test"]
    items = [
        item(labels={"speaker": speaker, "room": n, **({"split": part} if part else {})})
        for n, (speaker, part) in enumerate(zip("abaabca", parts, strict=True))
    ]
    report = check(items)
    assert kinds(report) == [("leak", "error", 3)]
    assert report.findings[0].reason == "The speaker a is in the splits train, dev, test."
    assert check(items, group_by="room").findings == []


@pytest.mark.parametrize("duration, wrong", [(1.85, True), (1.95, False), (2.05, False), (2.15, True)])
def test_a_duration_that_is_not_the_recordings_is_a_warning(item, duration, wrong):
    found = [("duration", "warning", 0)] if wrong else []
    assert kinds(check([item(duration=duration)])) == found


def test_a_span_within_a_recording_is_none_unless_it_goes_beyond_the_end(item):
    assert check([item(offset=0.5, duration=1.0)]).findings == []
    (finding,) = check([item(offset=0.5, duration=2.0)]).findings
    assert "holds 1.50 s from there" in finding.reason


def test_memory_does_not_grow_with_the_length_or_number_of_recordings(item):
    items = [item(np.tile(noise(10.0), 30)) for _ in range(3)]
    check(items[:1])
    tracemalloc.start()
    check(items)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 15e6  # a recording of five minutes is 19 MB of samples, three are 58 MB


def test_progress_counts_every_recording(item):
    class Counting(Silence):
        total, done = None, 0

        def start(self, label, total, unit):
            self.total = total
            return self

        def advance(self, amount=1):
            self.done += amount

    counting = Counting()
    with reporting_to(counting):
        check([item(), item(), Item("none.wav", Path("none.wav"))])
    assert (counting.total, counting.done) == (3, 3)


def test_the_prepared_recordings_are_sound(shared_audio):
    from otoscope.corpora import read_manifest

    report = check(read_manifest(shared_audio / "manifest.jsonl"))
    assert (report.readable, report.findings) == (260, [])
    assert report.totals["language"]["ru"].items == 30
