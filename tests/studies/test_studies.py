"""The published experiments, end to end on small corpora of real synthetic speech and real noises."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.conftest import tiny

from otoscope.corpora.recipes import Noise, NonSpeech, Voices, make_corpus
from otoscope.errors import ManifestError, ModelError, OptionError, OutputError
from otoscope.figures.studies import study_figures
from otoscope.figures.style import save_figure
from otoscope.studies.corpora import named
from otoscope.studies.hallucination import length_matched, study_hallucination
from otoscope.studies.layers import study_lens
from otoscope.studies.probes import study_probes
from otoscope.studies.reports import table

VOICES = ("f1", "f2", "f5", "m1", "m3", "m7")


def test_matched_lengths_have_as_many_of_both_classes_in_every_band():
    rng = np.random.default_rng(0)
    y = rng.choice([-1, 0, 1], size=500)
    lengths = np.where(y == 1, rng.integers(1, 12, 500), rng.integers(4, 40, 500))
    rows = length_matched(y, lengths, rng)
    assert set(y[rows]) == {0, 1}
    assert np.sum(y[rows] == 1) == np.sum(y[rows] == 0) > 20
    assert abs(lengths[rows][y[rows] == 1].mean() - lengths[rows][y[rows] == 0].mean()) < 0.7
    assert len(np.unique(rows)) == len(rows)


def test_nothing_matches_where_lengths_never_meet():
    assert len(length_matched(np.array([0, 1]), np.array([3, 30]), np.random.default_rng(0))) == 0


def test_cells_cannot_break_a_table_of_the_report():
    assert table(("a",), [("x|y\n<b>",)]).splitlines()[-1] == "| x\\|y &lt;b> |"


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    pytest.importorskip("espeakng_loader")
    root = tmp_path_factory.mktemp("corpora")
    voices = make_corpus(
        Voices(voices=VOICES, accents=("en-us", "en-gb"), sentences=1), root / "voices"
    ).manifest
    noisy = Noise(source=voices, kinds=("white",), snrs=(-5.0,))
    return {
        "voices": voices,
        "noise": make_corpus(noisy, root / "noise").manifest,
        "sounds": make_corpus(
            NonSpeech(kinds=("silence", "white", "hum", "chords"), count=2, longest=3.0), root / "sounds"
        ).manifest,
    }


@pytest.mark.weights
@pytest.mark.slow
def test_the_probes_study_probes_what_the_corpora_have_labels_for(tiny_en, corpora, tmp_path):
    results = study_probes(
        tiny_en, [corpora["voices"], corpora["noise"]], tmp_path / "out", random_weights=False
    )
    found = {(one["property"], one["corpus"]) for one in results["findings"]}
    assert found == {("gender", "voices"), ("accent", "voices"), ("noisy", "noise")}
    again = study_probes(
        tiny_en, [corpora["voices"], corpora["noise"]], tmp_path / "out", random_weights=False
    )
    assert again == results
    with pytest.raises(OptionError, match="data"):
        study_probes(tiny_en, [corpora["voices"]], tmp_path / "out", random_weights=False)
    assert json.loads((tmp_path / "out" / "results.json").read_text())["findings"][0]["layers"]
    report = (tmp_path / "out" / "report.md").read_text()
    assert "shuffled labels" in report
    assert "94.6 %" in report
    for name, figure in study_figures(results).items():
        save_figure(figure, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.weights
@pytest.mark.slow
def test_the_hallucination_study_reports_three_rates_of_two_decodings_and_the_built_in_signals(
    tiny_en, corpora, tmp_path
):
    results = study_hallucination(tiny_en, [corpora["sounds"], corpora["noise"]], tmp_path / "out")
    for rates in results["rates"].values():
        assert {"raw", "filtered", "gate", "loops", "words"} <= rates.keys()
        assert rates["raw"]["n"] == rates["gate"]["n"] == 8
        assert rates["filtered"]["count"] <= rates["raw"]["count"]
        assert sum(kind["raw"]["n"] for kind in rates["by_kind"].values()) == rates["raw"]["n"]
    on, off = results["rates"].values()
    assert on["phrases"] != off["phrases"]
    assert "C gate only" in (tmp_path / "out" / "report.md").read_text()
    study_figures(results)


@pytest.mark.weights
@pytest.mark.slow
def test_the_lens_study_reads_every_layer_by_language(tiny_en, tmp_path, jfk):
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(
        json.dumps(
            {"audio_filepath": str(jfk), "language": "en", "text": "ask not what your country can do for you"}
        )
    )
    results = study_lens(tiny_en, [manifest], tmp_path / "out")
    layers = results["languages"]["en"]["layers"]
    assert len(layers) == 4
    assert layers[-1]["p_final"]["mean"] > layers[0]["p_final"]["mean"]
    assert len(results["languages"]["en"]["encoder"]) == 4
    assert (tmp_path / "out" / "report.md").exists()
    study_figures(results)


def test_corpora_get_names_of_their_own_even_from_one_folder(tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text('{"audio_filepath": "x.wav"}')
    assert list(named([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])) == [tmp_path.name, f"{tmp_path.name}-2"]


def test_a_study_leaves_other_peoples_files_alone(tmp_path):
    (tmp_path / "report.md").write_text("years of work")
    with pytest.raises(OutputError, match="not empty"):
        study_probes(tiny("whisper"), [], tmp_path, random_weights=False)
    assert (tmp_path / "report.md").read_text() == "years of work"


def test_studies_refuse_what_they_cannot_use(tmp_path):
    with pytest.raises(ModelError, match="does not transcribe"):
        study_hallucination(tiny("llama"), [], tmp_path / "a")
    plain = tmp_path / "m.jsonl"
    plain.write_text('{"audio_filepath": "a.wav", "mood": "good"}')
    with pytest.raises(ManifestError, match="No corpus has a label"):
        study_probes(tiny("whisper"), [plain], tmp_path / "b", random_weights=False)
