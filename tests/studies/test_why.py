"""Words explained to the end: what is taken away is what speaks for a word, and the text is written again."""

from __future__ import annotations

import json

import pytest

import otoscope as oto
from otoscope.audio import noises
from otoscope.audio.reading import read
from otoscope.circuits.heard import END
from otoscope.corpora import Item
from otoscope.studies import why
from otoscope.studies.why import Case, study_why

pytestmark = [pytest.mark.weights, pytest.mark.slow]


def test_one_feature_of_a_real_recording_stands_between_a_wrong_word_and_the_right_one(
    tiny_en, tmp_path, monkeypatch
):
    monkeypatch.setattr(why, "SIZES", (1, 4))
    monkeypatch.setattr(why, "RANDOM", 2)
    monkeypatch.setattr(why, "_CHECKED", 4)
    nothing = tmp_path / "none"
    nothing.mkdir()
    (nothing / "a.flac").write_bytes(oto.sample("jfk").read_bytes())
    results = study_why(tiny_en, [nothing], tmp_path / "out")
    heard, misheard = results["cases"]
    assert misheard["text"] == "He was not an old-sposed young man."
    assert misheard["chosen"]["features"] == 1
    assert misheard["chosen"]["answered"]
    assert misheard["chosen"]["text"] == "He was not an ill-disposed young man."
    assert misheard["chosen"]["random_unchanged"] == 2
    for case in results["cases"]:
        parts = case["heard"] + case["from_text"] + case["in_any_case"]
        assert parts == pytest.approx(case["value"], abs=1e-3)
        for tries in case["sets"].values():
            assert all(abs(t["change"]) > 3 * abs(t["random_change"]) for t in tries)
    assert not heard["chosen"]["answered"]  # what was really heard stays
    assert json.loads((tmp_path / "out" / "results.json").read_text())["study"] == "why"
    report = (tmp_path / "out" / "report.md").read_text()
    assert "ill-disposed" in report
    assert "Not explained" in report
    assert (tmp_path / "out" / "graphs" / "misheard" / "graph.json").exists()


def test_a_loop_is_asked_about_where_it_has_gone_round_three_times(tiny_en):
    import numpy as np

    speech = read(oto.sample("austen-0880")).samples
    clip = noises.with_rms(
        noises.clipped(noises.reversed_in_time(oto.Clip(np.resize(speech, 20 * 16000))), 0.25), 0.1
    )
    heard = why.listen(tiny_en, clip, why._options(tiny_en))
    case = why._loop(tiny_en, heard, Item("a", oto.sample("jfk")), [])
    assert isinstance(case, Case)
    assert case.against == END
    assert 4 <= case.token < len(heard.transcript.ids)
    assert not case.answered(heard.transcript.text)
    assert case.answered("he said that it was good")
    assert not case.answered("no")
