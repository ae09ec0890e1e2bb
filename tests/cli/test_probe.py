"""`otoscope probe` on synthetic voices: one run answers, names what it skipped, and refuses what cannot be probed."""

from __future__ import annotations

import json

import pytest

from otoscope.cli.main import main
from otoscope.corpora.recipes import Voices, make_corpus

pytestmark = [pytest.mark.weights, pytest.mark.slow]


@pytest.fixture(scope="module")
def voices(tmp_path_factory):
    """Twelve sentences by six voices."""
    pytest.importorskip("espeakng_loader")
    folder = tmp_path_factory.mktemp("voices") / "v"
    recipe = Voices(voices=("f1", "f2", "f5", "m1", "m3", "m7"), accents=("en-us",), sentences=2)
    return make_corpus(recipe, folder).manifest


@pytest.fixture(scope="module")
def store(voices):
    """What the encoder heard, once for the probes of this file."""
    return voices.parent / "store"


def lines(manifest):
    return [json.loads(line) for line in manifest.read_text("utf-8").splitlines()]


def written(manifest, changed):
    path = manifest.with_name("changed.jsonl")
    path.write_text("\n".join(map(json.dumps, changed)), "utf-8")
    return path


def test_a_probe_of_gender_says_at_which_layer_and_how_far_above_its_controls(
    voices, store, tmp_path, capsys
):
    files = {name: tmp_path / f"gender.{name}" for name in ("json", "png", "safetensors", "html")}
    options = [
        "--json",
        files["json"],
        "--figure",
        files["png"],
        "--page",
        files["html"],
        "--save",
        files["safetensors"],
        "--store",
        store,
    ]
    assert main(["probe", str(voices), "--label", "gender", *map(str, options)]) == 0
    out, err = capsys.readouterr()
    assert "Best layer" in out
    assert "Activations take about" in err
    data = json.loads(files["json"].read_text("utf-8"))
    assert [layer["layer"] for layer in data["layers"]] == [0, 1, 2, 3]
    assert data["n_groups"] == 6
    best = data["layers"][data["best_layer"]]
    assert best["balanced_accuracy"] > best["control_accuracy"]
    assert all(path.stat().st_size for path in files.values())


def test_unreadable_recordings_are_named_skipped_and_counted(voices, tmp_path, capsys):
    changed = list({line["speaker"]: line for line in lines(voices)}.values())  # one sentence a voice
    (voices.parent / "noise.flac").write_bytes(b"no sound at all")
    changed.insert(3, {"audio_filepath": "noise.flac", "gender": "female", "speaker": "f1"})
    del changed[5]["gender"]
    out = tmp_path / "p.json"
    arguments = [
        "probe",
        str(written(voices, changed)),
        "--label",
        "gender",
        "--json",
        str(out),
        "--store",
        str(tmp_path / "s"),
    ]
    assert main(arguments) == 3
    _, err = capsys.readouterr()
    data = json.loads(out.read_text("utf-8"))
    assert [one["audio_filepath"] for one in data["skipped"]] == ["noise.flac"]
    assert "noise.flac was skipped" in err
    assert "1 of 6 recordings have no gender" in err
    assert data["missing_labels"] == 1
    assert data["n_items"] == 5


@pytest.mark.parametrize(
    "label, more, reason, remedy",
    [
        ("language", [], "Every recording has the language en", "two classes"),
        ("speaker", [], "recordings of one speaker only", "--group-by none"),
        ("mood", [], "No recording has the label mood", "gender"),
        ("gender", ["--group-by", "hat"], "have no hat", "--group-by none"),
    ],
)
def test_what_cannot_be_probed_is_refused_before_a_model_is_loaded(
    voices, label, more, reason, remedy, capsys, monkeypatch
):
    monkeypatch.setattr("otoscope.models.loading.load_model", lambda *_: pytest.fail("a model was loaded"))
    assert main(["probe", str(voices), "--label", label, *more]) == 2
    err = capsys.readouterr().err
    assert reason in err
    assert remedy in err


def test_speakers_may_be_shared_and_the_output_says_so(voices, store, tmp_path, capsys):
    out = tmp_path / "p.json"
    arguments = [
        "--label",
        "speaker",
        "--group-by",
        "none",
        "--json",
        str(out),
        "--store",
        str(store),
    ]
    assert main(["probe", str(voices), *arguments]) == 0
    assert json.loads(out.read_text("utf-8"))["groups_disjoint"] is False
    assert "share speakers" in capsys.readouterr().err


def test_the_decoder_is_probed_at_the_state_that_writes_end_of_text(voices, tmp_path):
    out = tmp_path / "p.json"
    arguments = ["--label", "gender", "--site", "decoder", "--json", str(out), "--store", str(tmp_path / "s")]
    assert main(["probe", str(voices), *arguments]) == 0
    data = json.loads(out.read_text("utf-8"))
    assert (data["site"], data["pool"]) == ("decoder", "end")


def test_an_empty_manifest_and_a_wrong_pool_are_refused(voices, tmp_path, capsys):
    (tmp_path / "empty.jsonl").write_text("")
    assert main(["probe", str(tmp_path / "empty.jsonl"), "--label", "gender"]) == 2
    assert "is empty" in capsys.readouterr().err
    assert main(["probe", str(voices), "--label", "gender", "--pool", "end"]) == 2
    assert "not pooled by 'end'" in capsys.readouterr().err
