from __future__ import annotations

import json

import pytest

from otoscope.audio import espeak
from otoscope.cli.main import main
from otoscope.corpora import read_manifest

RECIPES = ("voices", "noise", "nonspeech", "loops", "repeats", "ambiguous", "prompts")

speaking = pytest.mark.skipif(not espeak.available(), reason="espeak-ng is not installed")


def make(*arguments) -> int:
    return main(["corpus", "make", *map(str, arguments)])


def test_the_help_lists_every_recipe(capsys):
    assert make("--help") == 0
    told = capsys.readouterr().out
    assert all(recipe in told for recipe in RECIPES)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_has_help_with_an_example(capsys, recipe):
    assert make(recipe, "--help") == 0
    assert f"Example: otoscope corpus make {recipe}" in capsys.readouterr().out


def test_a_corpus_is_made_and_the_manifest_named(capsys, tmp_path):
    out = tmp_path / "out"
    assert make("nonspeech", "--out", out, "--kinds", "hum, white", "--count", 2, "--longest", 1.5) == 0
    assert capsys.readouterr().out.startswith("4 recordings, 0.1 minutes: ")
    assert len(read_manifest(out / "manifest.jsonl")) == 4
    assert make("nonspeech", "--out", out, "--kinds", "hum,white", "--count", 2, "--longest", 1.5) == 0
    assert "4 recordings (4 of them were there)" in capsys.readouterr().out


def test_music_that_nobody_named_is_said_to_be_left_out(capsys, tmp_path):
    assert make("nonspeech", "--out", tmp_path / "all", "--count", 1, "--longest", 1.0) == 0
    told = capsys.readouterr()
    assert told.out.startswith("10 recordings")
    assert "Music is left out" in told.err


def test_json_alone_goes_to_stdout(capsys, tmp_path):
    assert (
        make("nonspeech", "--out", tmp_path / "o", "--kinds", "hum", "--count", 1, "--seed", 3, "--json", "-")
        == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert (told["recordings"], told["fresh"], told["skipped"]) == (1, 1, {})
    assert json.loads((tmp_path / "o" / "recipe.json").read_text())["settings"]["seed"] == 3


@speaking
def test_recipes_build_on_each_other(capsys, tmp_path):
    assert (
        make("voices", "--out", tmp_path / "v", "--voices", "f1,m1", "--accents", "en-us", "--sentences", 1)
        == 0
    )
    assert (
        make(
            "noise",
            tmp_path / "v",
            "--out",
            tmp_path / "n",
            "--kinds",
            "white,babble",
            "--snrs",
            "10,-5.5",
            "--grid",
        )
        == 0
    )
    assert make("repeats", "--out", tmp_path / "r", "--speech", tmp_path / "v", "--count", 1) == 0
    assert make("loops", "--out", tmp_path / "l", "--speech", tmp_path / "v", "--count", 1) == 0
    assert make("ambiguous", "--out", tmp_path / "a", "--pairs", 1) == 0
    sizes = [len(read_manifest(tmp_path / name / "manifest.jsonl")) for name in "vnrla"]
    assert sizes == [2, 10, 4, 5, 12]


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["nonspeech", "--kinds", "zzz"], "no kind of sound 'zzz'"),
        (["noise", "missing.jsonl"], "missing.jsonl"),
        (["noise", "missing.jsonl", "--snrs", "loud"], "'loud' is no list of numbers"),
        (["prompts", "--sets", "films"], "no set of recordings 'films'"),
        (["prompts", "--packages", "."], "holds no package"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is_written(
    capsys, tmp_path, monkeypatch, arguments, reason
):
    monkeypatch.chdir(tmp_path)
    assert make(*arguments, "--out", tmp_path / "out") == 2
    told = capsys.readouterr().err
    assert reason in told
    assert "remedy: " in told
    assert not (tmp_path / "out").exists()


def test_other_settings_in_the_same_folder_are_refused(capsys, tmp_path):
    assert make("nonspeech", "--out", tmp_path / "o", "--kinds", "hum", "--count", 1) == 0
    assert make("nonspeech", "--out", tmp_path / "o", "--kinds", "hum", "--count", 2) == 2
    assert "made with other settings (count 1)" in capsys.readouterr().err
