"""The studies that patch, end to end on a small random model that hears real recordings."""

from __future__ import annotations

import json

import pytest
import torch
from tests.patching.worlds import hearing_whisper

from otoscope.errors import ManifestError, OptionError
from otoscope.studies import repetition
from otoscope.studies.context_bias import study_context_bias
from otoscope.studies.repetition import study_repetition, sweep_report

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model():
    return hearing_whisper(seed=1, dtype=torch.float64)


def manifest(path, jfk, count, **more):
    lines = [
        {
            "audio_filepath": str(jfk),
            "offset": 1.5 * i + 0.3,
            "duration": 0.9,
            "language": "en",
            "speaker": str(i // 2),
        }
        | more
        for i in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.mark.slow
def test_the_study_of_repetition_sweeps_prices_reports_and_goes_on(model, jfk, tmp_path, monkeypatch):
    loops = manifest(tmp_path / "loops.jsonl", jfk, 5, kind="babble|<b>")
    speech = manifest(tmp_path / "speech.jsonl", jfk, 2, text="w1 w2 w3")
    results = study_repetition(model, [loops, speech], tmp_path / "out", seed=2)
    assert list(results["sweeps"]) == ["blocks zeroed", "heads zeroed", "blocks under white noise"]
    zeroed, heads, noise = results["sweeps"].values()
    assert zeroed["n_items"] == heads["n_items"] == noise["n_items"] == 5
    assert len(heads["effects"]) == 2 * 12
    assert all(e["head"] is None for e in zeroed["effects"])
    for sweep in (zeroed, heads, noise):
        assert bool(sweep["price"]) == bool(sweep["winners"])
        assert not sweep["price"] or sweep["price"]["n_items"] == 2
    assert results["kinds"] == {"babble|<b>": [zeroed["n_outcome"], 5]}
    report = (tmp_path / "out" / "report.md").read_text()
    assert "78.1 %" in report
    assert "## Heads zeroed" in report
    assert (
        json.loads((tmp_path / "out" / "results.json").read_text())["sweeps"].keys()
        == results["sweeps"].keys()
    )
    monkeypatch.setattr(model, "encode", lambda *_: pytest.fail("the encoder ran again"))
    assert study_repetition(model, [loops, speech], tmp_path / "out", seed=2) == results
    with pytest.raises(OptionError, match="seed"):
        study_repetition(model, [loops, speech], tmp_path / "out", seed=3)


def test_two_corpora_may_use_the_same_names(model, jfk, tmp_path, monkeypatch):
    monkeypatch.setattr(repetition, "SWEEPS", repetition.SWEEPS[:1])
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    corpora = [manifest(tmp_path / name / "m.jsonl", jfk, 3, kind=name) for name in "ab"]
    results = study_repetition(model, corpora, tmp_path / "out")
    first = next(iter(results["sweeps"].values()))
    assert sum(count for count, _ in results["kinds"].values()) == first["n_outcome"]
    assert [n for _, n in results["kinds"].values()] == [3, 3]


def test_a_sweep_in_which_nothing_loops_reports_just_that():
    assert sweep_report({"effects": [], "n_outcome": 0}) == ["Nothing had the outcome."]


def test_what_could_not_loop_is_refused(model, jfk, tmp_path):
    speech = manifest(tmp_path / "speech.jsonl", jfk, 2, text="w1")
    with pytest.raises(ManifestError, match="no recording that could loop"):
        study_repetition(model, [speech], tmp_path / "a")
    with pytest.raises(ManifestError, match="labels spoken and competing"):
        study_context_bias(model, [speech], tmp_path / "b")


@pytest.mark.slow
def test_the_study_of_context_bias_patches_both_stacks_beside_random_directions(model, jfk, tmp_path):
    from otoscope.corpora import items
    from otoscope.patching.writing import writer_of

    plain = manifest(tmp_path / "plain.jsonl", jfk, 4)
    writer = writer_of(model, 28)
    texts = [writer.write([writer.hear(item.clip(), "en")], None)[0].text for item in items(plain)]
    lines = [json.loads(line) for line in plain.read_text().splitlines()]
    labelled = [
        line
        | {"text": "w1 w2 w3", "competing": text.split()[0], "spoken": "w3", "bias": "wrong", "pair": i // 2}
        for i, (line, text) in enumerate(zip(lines, texts, strict=True))
    ]
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(map(json.dumps, [*labelled, lines[0]])))
    results = study_context_bias(model, [path], tmp_path / "out")
    assert list(results["sweeps"]) == [
        f"{stack}, {way}"
        for way in ("blocks under white noise", "blocks zeroed")
        for stack in ("encoder", "decoder")
    ]
    wrong = results["biases"]["wrong"]
    assert wrong["n"] == 4
    assert wrong["count"] > 0
    for sweep in results["sweeps"].values():
        assert sweep["n_items"] == 4  # what has no labels is not part of it
        assert sweep["any_direction"]["n"] == sweep["n_outcome"] == wrong["count"]
        assert bool(sweep["price"]) == bool(sweep["winners"])
    assert "85.0 %" in (tmp_path / "out" / "report.md").read_text()
