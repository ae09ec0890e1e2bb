from __future__ import annotations

import json

import pytest

from otoscope.cli.main import main


@pytest.mark.weights
@pytest.mark.slow
def test_a_study_leaves_its_results_report_and_figures_in_one_directory(jfk, tmp_path, capsys):
    clip = jfk.with_name("austen-0880.flac")
    text = "He was not an ill-disposed young man."
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(json.dumps({"audio_filepath": str(clip), "language": "en", "text": text}))
    out = tmp_path / "lens"
    assert (
        main(
            ["study", "lens", "--data", str(manifest), "--out", str(out), "--json", str(tmp_path / "r.json")]
        )
        == 0
    )
    assert {"results.json", "report.md", "run.json", "lens-en.png"} <= {path.name for path in out.iterdir()}
    assert json.loads((tmp_path / "r.json").read_text()) == json.loads((out / "results.json").read_text())
    assert str(out / "report.md") in capsys.readouterr().out


def test_a_study_of_another_name_or_without_a_place_is_refused(capsys):
    assert main(["study", "dreams", "--out", "x"]) == 2
    assert main(["study", "lens"]) == 2
    assert "--out" in capsys.readouterr().err
