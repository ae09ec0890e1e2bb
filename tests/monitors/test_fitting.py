"""From a corpus to a monitor: parts that share no sentence, held-out probes, a report with controls, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.patching.worlds import hearing_whisper

from otoscope.audio.samples import sample
from otoscope.corpora import Item
from otoscope.errors import ManifestError, OptionError
from otoscope.models.transcribing import transcribe_all
from otoscope.models.transcripts import DecodeOptions
from otoscope.monitors import collecting, hindsight
from otoscope.monitors.collecting import collect
from otoscope.monitors.dividing import SHARES, origin
from otoscope.monitors.features import reads_of
from otoscope.monitors.fitting import FitOptions, fit, fit_monitor
from otoscope.monitors.inputs import Probed, step_targets
from otoscope.monitors.judging import best_f1_threshold, f1, over_divisions
from otoscope.monitors.monitor import Monitor
from otoscope.monitors.running import watch_all
from otoscope.monitors.scoring import calibrated, inputs_of, joined_risk
from otoscope.monitors.watching import Watch
from otoscope.progress import Silence, reporting_to

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def corpus(count=90):
    """Spans of a recording; what is heard in the later ones is called bad, so that the window's encoder probe can tell."""
    rng = np.random.default_rng(0)
    items = []
    for i in range(count):
        bad = i % 3 == 0
        start = rng.uniform(6, 10) if bad else rng.uniform(0, 5)
        labels = {"invented": "yes" if bad else "no", "loop": "yes" if bad else "no"}
        items.append(
            Item(f"jfk-{i}", sample("jfk"), text=f"sentence {i}", offset=round(float(start), 3), duration=0.9,
                 language="en", labels=labels)
        )  # fmt: skip
    return items


@pytest.fixture(scope="module")
def model():
    return hearing_whisper()


@pytest.fixture(scope="module")
def fitted(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("fit") / "m"
    return (*fit_monitor(model, corpus(), out, FitOptions(language="en", false_alarms=0.1)), out)


def test_a_report_sets_the_monitor_beside_its_parts_and_beside_baselines(fitted):
    _, told, out = fitted
    for target in ("invented", "loop", "loop, early"):
        scorers = {s["name"]: s for s in told["targets"][target]["scorers"]}
        assert {
            "monitor",
            "cross-attention",
            "token statistics",
            "encoder",
            "residual stream, all layers",
        } <= set(scorers)
        assert {"Whisper's three thresholds", "compression ratio", "phrase list"} <= set(scorers)
        for s in scorers.values():
            assert s["ci_low"] <= s["auc"] <= s["ci_high"]
            assert 0 <= s["f1"] <= 1
    names = [[s["name"] for s in found["scorers"]] for found in told["targets"].values()]
    assert ["monitor, while writing" in each for each in names] == [True, True, False]
    assert 0 <= told["hindsight"]["false_alarms"]["rate"] <= 1
    assert told["asked_false_alarms"] == 0.1
    assert 0 <= told["false_alarms"]["rate"] <= 1
    assert json.loads((out / "monitor.json").read_text())["about"]["report"] == told


def test_what_it_saved_is_what_it_runs(fitted, model):
    monitor, _, out = fitted
    again = Monitor.load(out)
    a, b = ([one.progress[0].risk for one in watch_all(model, corpus(4), m)] for m in (monitor, again))
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_what_is_said_in_hindsight_is_what_was_fitted(fitted, model, tmp_path, monkeypatch):
    """Of texts longer than what is kept, too; 5e-3, as that is in float16."""
    monitor, options = fitted[0], DecodeOptions(language="en")
    for module in (collecting, hindsight):
        monkeypatch.setattr(module, "LONGEST", 3)
    texts, probed = collect(model, corpus(4), tmp_path / "s", options), Probed(monitor.probes, None, None)
    assert max(len(text.tokens) for text in texts) > 3
    for text, watched in zip(texts, watch_all(model, corpus(4), monitor, options), strict=True):
        (risk,) = watched.in_hindsight()
        logits = monitor.head.advance(monitor.head.start(), inputs_of(text.signals, *probed.read(text)))[1]
        steps = calibrated(logits, monitor.slope, monitor.offset)
        np.testing.assert_allclose(risk.parts, monitor.hindsight.parts(steps, text.facts), atol=5e-3)
        assert watched.to_dict()["segments"][0]["hindsight"]["doubtful"] == (
            risk.risk >= monitor.hindsight.threshold
        )


def test_a_second_fit_goes_on_with_what_was_collected(fitted, model):
    monitor, told, out = fitted
    before = {p: p.stat().st_mtime_ns for p in (out / "steps").glob("*.safetensors")}
    again, same = fit_monitor(model, corpus(), out, FitOptions(language="en", false_alarms=0.1))
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert same == told
    assert again.threshold == monitor.threshold


@pytest.fixture(scope="module")
def with_features(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("features") / "m"
    options = FitOptions(language="en", false_alarms=0.1, dictionary="neurons")
    return (*fit_monitor(model, corpus(), out, options), out)


def test_features_of_a_dictionary_are_one_more_input_and_one_more_line_of_the_report(with_features):
    monitor, told, _ = with_features
    assert monitor.features.chosen.shape[1] == 2
    assert len(np.unique(monitor.features.chosen, axis=0)) == len(monitor.features.chosen)
    names = [s["name"] for s in told["targets"]["loop"]["scorers"]]
    assert names.count("dictionary features") == 1


def test_features_met_while_running_are_those_that_were_fitted_on(with_features, model, tmp_path):
    """Block by block or all at once, in memory or from disk; 5e-3, as what was collected is kept in float16."""
    monitor, _, out = with_features
    again, features = Monitor.load(out), monitor.features_of(model)
    items, probed = corpus(3), Probed(monitor.probes, features, monitor.features)
    texts = collect(model, items, tmp_path / "s", DecodeOptions(language="en"), reads=reads_of(features))
    for every in (1, 32):
        watched = watch_all(
            model, items, options=DecodeOptions(language="en"), watch=Watch(again, model, every=every)
        )
        for text, found in zip(texts, watched, strict=True):
            _, logits = monitor.head.advance(
                monitor.head.start(), inputs_of(text.signals, *probed.read(text))
            )
            wanted = joined_risk(calibrated(logits, monitor.slope, monitor.offset))
            np.testing.assert_allclose(found.progress[0].risks[: len(wanted)], wanted, atol=5e-3)


def test_a_dictionary_of_the_encoder_is_refused_before_any_work(model, tmp_path):
    options = FitOptions(0.1, language="en", dictionary="neurons", point="encoder_blocks.*.mlp")
    with pytest.raises(OptionError, match="encoder") as refused:
        fit_monitor(model, corpus(), tmp_path / "m", options)
    assert "decoder_blocks" in refused.value.remedy
    assert not (tmp_path / "m").exists()


def test_no_sentence_is_in_two_parts(model, tmp_path):
    items = [item for item in corpus() for _ in range(2)]
    options = FitOptions(language="en")
    texts = collect(model, items, tmp_path / "s", DecodeOptions(language="en"))
    parts = fit(model, items, texts, options).parts
    sentences = {name: {origin(items[t.item]) for t in kept} for name, kept in parts.items()}
    assert set(sentences) == set(SHARES)
    assert not sentences["train"] & sentences["test"]
    assert not sentences["calibrate"] & sentences["test"]
    assert not sentences["train"] & sentences["calibrate"]


def test_a_loop_is_due_from_its_second_copy_on(model, tmp_path):
    (text, *_) = collect(model, corpus(1), tmp_path / "s", DecodeOptions(language="en"))
    goals = step_targets(text)
    assert (goals[:, 0] == 1).all()
    onset = np.flatnonzero(goals[:, 1] == 1)
    assert len(onset) == 0 or (goals[onset[0] :, 1] == 1).all()


def test_recordings_that_cannot_be_enough_are_refused_before_any_work(model, tmp_path):
    calm = [item for item in corpus() if item.labels["invented"] == "no"]
    with pytest.raises(ManifestError, match="16 invented texts are needed, there can be at most 0"):
        fit_monitor(model, calm, tmp_path / "m", FitOptions(0.1, language="en"))
    assert not (tmp_path / "m").exists()


def test_a_fit_that_failed_goes_on_with_more_recordings_in_the_same_folder(model, tmp_path, monkeypatch):
    """Without the labels it is known only afterwards that too few texts loop; what was written then is not written again."""
    first, rest = corpus()[:60], corpus()[60:]
    first = [replace(item, labels={"invented": item.labels["invented"]}) for item in first]
    options = FitOptions(0.1, language="en")
    with pytest.raises(ManifestError, match="texts that loop are needed") as refused:
        fit_monitor(model, first, tmp_path / "m", options)
    assert "is kept" in refused.value.remedy
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "m" / "steps").glob("*.safetensors")}
    written = []
    monkeypatch.setattr(
        "otoscope.monitors.collecting.transcribe_all",
        lambda model, items, *args, **more: (
            written.extend(items) or transcribe_all(model, items, *args, **more)
        ),
    )
    monitor, _ = fit_monitor(model, [*rest, *corpus()[:60]], tmp_path / "m", options)
    assert [item.audio_filepath for item in written] == [item.audio_filepath for item in rest]
    assert {p: p.stat().st_mtime_ns for p in before} == before
    at_once, _ = fit_monitor(model, [*rest, *corpus()[:60]], tmp_path / "new", options)
    assert monitor.threshold == pytest.approx(at_once.threshold, abs=1e-4)


def test_progress_moves_with_every_text_and_ends_with_the_last(model, tmp_path):
    class Told(Silence):
        def __init__(self):
            self.labels, self.steps = [], []

        def start(self, label, total, unit):
            self.labels.append((label, total))
            return self

        def advance(self, amount=1):
            self.steps.append(amount)

    told = Told()
    with reporting_to(told):
        texts = collect(model, corpus(8), tmp_path / "s", DecodeOptions(language="en"))
    assert told.labels == [("Transcribing", 8)]  # no second bar beside it
    assert len({len(t.tokens) for t in texts}) > 1
    assert len([n for n in told.steps if n]) > 1  # one batch, yet not all at once
    assert sum(told.steps) == 8


def test_a_rate_that_is_none_is_refused_before_any_work(model, tmp_path):
    with pytest.raises(OptionError, match="rate"):
        fit_monitor(model, corpus(), tmp_path / "m", FitOptions(false_alarms=0.0))
    assert not (tmp_path / "m").exists()


def test_recordings_longer_than_a_window_are_left_out_and_said(model, tmp_path, capsys):
    items = [*corpus(3), Item("long", sample("jfk"), text="long", language="en")]
    texts = collect(model, items, tmp_path / "s", DecodeOptions(language="en"))
    assert [t.item for t in texts] == [0, 1, 2]
    assert "longer than a window" in capsys.readouterr().err


def test_further_divisions_tell_what_of_a_report_is_chance(fitted, model):
    _, told, out = fitted
    assert "divisions" not in told
    options = FitOptions(language="en", false_alarms=0.1, divisions=2)
    monitor, again = fit_monitor(model, corpus(), out, options)
    assert again["targets"] == told["targets"]  # the monitor is the first division's
    assert again["divisions"]["seeds"] == [0, 1]
    for target, lines in again["divisions"]["targets"].items():
        first = {line["name"]: line for line in told["targets"][target]["scorers"]}
        assert {line["name"] for line in lines} == set(first)
        ours = next(line for line in lines if line["name"] == "monitor")
        assert ours["auc_beaten"] == ours["f1_beaten"] == 0.5
        assert any(line["auc_sd"] > 0 for line in lines)
    assert "divisions" in monitor.about["report"]


def test_the_spread_over_divisions_is_of_means_and_of_who_did_better():
    def told(seed, monitor, other):
        lines = [
            {"name": n, "kind": "inside", "auc": x, "f1": x}
            for n, x in (("monitor", monitor), ("other", other))
        ]
        return {"seed": seed, "targets": {"loop": {"scorers": lines}}}

    found = over_divisions([told(4, 0.9, 0.8), told(5, 0.7, 0.7), told(6, 0.8, 0.9)])
    monitor, other = found["targets"]["loop"]
    assert found["seeds"] == [4, 5, 6]
    assert (monitor["auc"], other["auc"]) == (pytest.approx(0.8), pytest.approx(0.8))
    assert monitor["f1_sd"] == pytest.approx(0.1)
    assert other["f1_beaten"] == 0.5


def test_no_division_at_all_is_refused_before_any_work(model, tmp_path):
    with pytest.raises(OptionError, match="0 divisions are none"):
        fit_monitor(model, corpus(), tmp_path, FitOptions(divisions=0))


def test_f1_is_that_of_precision_and_recall():
    y = np.array([1, 1, 1, 0, 0])
    scores = np.array([0.9, 0.8, 0.1, 0.7, 0.0])
    assert f1(y, scores >= 0.75) == pytest.approx(2 * 1 * (2 / 3) / (1 + 2 / 3))
    assert best_f1_threshold(y, scores) == 0.1
    assert torch.isnan(torch.tensor(f1(np.zeros(3, int), np.ones(3, bool))))
