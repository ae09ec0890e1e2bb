"""A fitted monitor: the same risks however it is run, kept on disk, for one model alone."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.monitors.monitors_of import random_monitor
from tests.patching.worlds import hearing_whisper, spans

from otoscope.errors import ModelError, OptionError
from otoscope.models.transcripts import DecodeOptions
from otoscope.monitors.collecting import collect
from otoscope.monitors.hindsight import Hindsight
from otoscope.monitors.monitor import Monitor
from otoscope.monitors.running import watch_all
from otoscope.monitors.scoring import Progress, calibrated, inputs_of, joined_risk
from otoscope.monitors.thresholds import conformal_threshold
from otoscope.monitors.verdicts import TARGETS
from otoscope.monitors.watching import Watch

OPTIONS = DecodeOptions(language="en", max_positions=24)


@pytest.fixture(scope="module")
def model():
    return hearing_whisper(dtype=torch.float64)


@pytest.fixture(scope="module")
def monitor(model):
    return random_monitor(model)


def risks(model, items, monitor, batch):
    return [one.progress[0].risks for one in watch_all(model, items, monitor, OPTIONS, batch=batch)]


def test_a_batch_has_the_risks_of_each_recording_alone(model, monitor):
    items = spans(6)
    together = risks(model, items, monitor, 6)
    for item, found in zip(items, together, strict=True):
        (alone,) = risks(model, [item], monitor, 1)
        np.testing.assert_allclose(found, alone, atol=1e-6)


def test_running_it_gives_the_risks_of_what_was_collected(model, monitor, tmp_path):
    """What is fitted on is what is met later: probes, signals and head see the same numbers in both."""
    items, probes = spans(4), monitor.probes
    texts = collect(model, items, tmp_path / "steps", OPTIONS)
    for text, found in zip(texts, risks(model, items, monitor, 2), strict=True):
        layered = text.residual.astype(float).transpose(1, 0, 2)
        counts = np.arange(1, len(text.signals) + 1)[None, :, None]
        read = layered @ probes.now + np.cumsum(layered @ probes.mean, 1) / counts + probes.bias[:, None]
        heard = text.heard.astype(float) @ probes.heard + probes.heard_bias
        window = text.window @ probes.window + probes.window_bias
        _, logits = monitor.head.advance(
            monitor.head.start(), inputs_of(text.signals, read.transpose(1, 0, 2), heard, window)
        )
        wanted = joined_risk(calibrated(logits, monitor.slope, monitor.offset))
        np.testing.assert_allclose(found[: len(wanted)], wanted, atol=5e-3)  # kept in float16


def test_every_token_has_a_risk_and_the_window_the_highest(model, monitor):
    (watched,) = watch_all(model, spans(1), monitor, OPTIONS)
    told = watched.to_dict()
    (segment,) = told["segments"]
    assert [t["token"] for t in segment["tokens"]] == watched.transcript.ids
    assert segment["risk"] >= max(t["risk"] for t in segment["tokens"])
    assert segment["alarm"] == (segment["risk"] >= monitor.threshold)
    assert json.loads(json.dumps(told)) == told
    assert {"threshold", "false_alarm_rate"} <= set(told)
    assert watched._repr_html_().count("<span") == len(segment["tokens"])


def test_what_it_says_in_hindsight_is_saved_with_it(monitor, tmp_path):
    rng = np.random.default_rng(0)
    said = Hindsight(rng.normal(size=(2, 6)), rng.normal(size=2), np.sort(rng.uniform(size=30)), 0.7)
    again = Monitor.load(replace(monitor, hindsight=said).save(tmp_path / "m")).hindsight
    for name in ("weights", "bias", "ordinary"):
        np.testing.assert_array_equal(getattr(again, name), getattr(said, name))
    assert again.threshold == said.threshold
    about = tmp_path / "m" / "monitor.json"
    about.write_text(about.read_text().replace('"compression"', '"something else"'))
    with pytest.raises(OptionError, match="of another release"):
        Monitor.load(tmp_path / "m")


def test_another_rate_of_false_alarms_moves_both_thresholds(monitor):
    a, b = monitor.at(0.1), monitor.at(0.4)
    assert a.threshold > b.threshold
    assert a.hindsight.threshold > b.hindsight.threshold


def test_a_window_without_steps_is_not_doubtful(model, monitor):
    (watched,) = watch_all(model, spans(1), monitor, OPTIONS)
    nothing = replace(watched, progress=(Progress(),))
    assert [risk.risk for risk in nothing.in_hindsight()] == [0.0]


def test_an_alarm_at_the_first_token_is_an_alarm(model, monitor):
    (watched,) = watch_all(model, spans(1), replace(monitor, threshold=0.0), OPTIONS)
    (progress,) = watched.progress
    assert progress.alarm is True
    assert progress.alarm_token == 0
    assert progress.kind in TARGETS
    assert watched.to_dict()["segments"][0]["alarm_token"] == 0
    assert Progress().alarm is False
    assert Progress().kind is None


def test_a_text_that_rang_as_invented_and_then_loops_is_a_loop():
    parts = [[0.9, 0.1], [0.9, 0.2]]
    progress = Progress([0.9, 0.9], parts, 0)
    assert progress.kind == "invented"
    parts.append([0.9, 0.6])
    assert progress.kind == "loop"


@pytest.mark.parametrize(("every", "alarmed"), [(1, False), (2, False), (3, True), (32, True)])
def test_a_row_is_in_alarm_for_as_many_steps_as_are_looked_at_together(model, monitor, every, alarmed):
    watch = Watch(monitor, model, every=every)
    assert not watch.alarmed(0)
    watch.scorer.rows[0] = Progress(risks=[0.1, 0.99, 0.1, 0.1])
    assert watch.alarmed(0) == alarmed


def test_it_comes_back_from_disk_as_it_was(model, monitor, tmp_path):
    again = Monitor.load(monitor.save(tmp_path / "m"))
    np.testing.assert_allclose(
        risks(model, spans(2), again, 2)[0], risks(model, spans(2), monitor, 2)[0], atol=1e-5
    )
    assert (again.threshold, again.model) == (monitor.threshold, monitor.model)
    assert sum(f.stat().st_size for f in (tmp_path / "m").iterdir()) < 100_000


def test_another_model_is_refused(monitor):
    with pytest.raises(ModelError, match="has other weights"):
        next(iter(watch_all(hearing_whisper(seed=9), spans(1), monitor, OPTIONS)))


def test_a_model_without_a_shipped_monitor_says_how_to_fit_one(model):
    with pytest.raises(OptionError, match="comes with otoscope") as refused:
        Monitor.shipped(model)
    assert "monitor fit" in refused.value.remedy


@pytest.mark.parametrize("broken", ["{}", "[]", "not json"])
def test_a_folder_that_holds_no_monitor_is_refused(monitor, tmp_path, broken):
    folder = monitor.save(tmp_path / "m")
    (folder / "monitor.json").write_text(broken)
    with pytest.raises(OptionError, match="holds no monitor"):
        Monitor.load(folder)
    with pytest.raises(OptionError, match="nope does not exist"):
        Monitor.load(tmp_path / "nope")


def test_the_threshold_keeps_to_the_rate_of_false_alarms_that_is_asked_for():
    rng = np.random.default_rng(0)
    rung = [
        np.mean(rng.uniform(size=200) >= conformal_threshold(rng.uniform(size=60), 0.1)) for _ in range(300)
    ]
    assert np.mean(rung) == pytest.approx(0.1, abs=0.01)
    with pytest.raises(OptionError, match="rate"):
        conformal_threshold(np.zeros(3), 1.0)


def test_another_rate_moves_the_threshold(monitor):
    assert monitor.at(0.5).threshold < monitor.at(0.1).threshold
