from __future__ import annotations

import json
import shutil

import pytest
from tests.conftest import tiny

from otoscope.cli.main import main


@pytest.fixture
def place(tmp_path, monkeypatch, jfk):
    """An empty current folder with one short recording in it."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(jfk.with_name("austen-0880.flac"), tmp_path / "clip.flac")
    return tmp_path


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    """The directory of a random Llama with a tokenizer of 97 words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("llama")
    tiny("llama").hf.save_pretrained(folder)
    raw = Tokenizer(WordLevel({f"w{i}": i for i in range(97)}, unk_token="w0"))
    raw.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="w0", pad_token="w0").save_pretrained(folder)
    return folder


def test_help_has_an_example_and_loads_no_model(capsys):
    assert main(["lens", "--help"]) == 0
    assert "Example: otoscope lens jfk.flac" in capsys.readouterr().out


@pytest.mark.weights
@pytest.mark.slow
def test_a_clip_gives_json_a_figure_and_tables(place, capsys):
    arguments = [
        "--json",
        "out.json",
        "--figure",
        "out.png",
        "--page",
        "out.html",
        "--closeness",
        "--attribution",
        "--max-tokens",
        "30",
    ]
    assert main(["lens", "clip.flac", *arguments]) == 0
    out, _ = capsys.readouterr()
    data = json.loads((place / "out.json").read_text("utf-8"))
    assert data["text"] in out
    assert "The page is out.html." in out
    assert (place / "out.html").read_text("utf-8").startswith("<!doctype html>")
    for token in data["tokens"]:
        assert {"token", "id", "text", "saturation_layer", "layers", "attribution"} <= set(token)
    assert data["encoder"][-1]["text"] == data["text"]
    assert "layer 3  correct" in out
    assert (place / "out.png").stat().st_size > 10_000
    assert sorted(p.name for p in place.iterdir()) == ["clip.flac", "out.html", "out.json", "out.png"]


@pytest.mark.weights
@pytest.mark.slow
def test_a_manifest_gives_items_and_a_summary_and_skips_what_is_not_there(place, capsys):
    lines = [
        {"audio_filepath": "clip.flac", "text": "He was not an ill-disposed young man."},
        {"audio_filepath": "gone.flac"},
    ]
    (place / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert main(["lens", "m.jsonl", "--json", "-", "--no-encoder"]) == 3
    out, err = capsys.readouterr()
    data = json.loads(out)
    assert [item["audio_filepath"] for item in data["items"]] == ["clip.flac"]
    assert [skipped["audio_filepath"] for skipped in data["skipped"]] == ["gone.flac"]
    assert len(data["summary"]["layers"]) == 4
    assert "gone.flac was skipped" in err
    assert main(["lens", "m.jsonl", "--max-tokens", "10"]) == 3
    out, _ = capsys.readouterr()
    assert "1 recording;" in out
    assert "punctuation" in out


@pytest.mark.weights
@pytest.mark.slow
def test_a_tuned_lens_is_trained_and_read_through_and_refused_for_another_model(place, jfk, capsys):
    shutil.copy(jfk.with_name("austen-0890.flac"), place / "other.flac")
    assert main(["lens", str(place), "--fit-tuned", "tuned", "--json", "fit.json", "--seed", "3"]) == 0
    out, _ = capsys.readouterr()
    assert "The tuned lens is in tuned." in out
    assert json.loads((place / "fit.json").read_text())["settings"]["seed"] == 3
    assert main(["lens", "clip.flac", "--tuned", "tuned", "--json", "out.json", "--max-tokens", "10"]) == 0
    assert json.loads((place / "out.json").read_text())["settings"]["tuned"]["seed"] == 3
    capsys.readouterr()
    assert (
        main(["lens", "clip.flac", "--tuned", "tuned", "--model", "whisper-base", "--json", "no.json"]) == 2
    )
    assert "belongs to whisper-tiny.en, not to whisper-base" in capsys.readouterr().err
    assert not (place / "no.json").exists()


def test_a_prompt_is_read_by_a_language_model(language_model, place, capsys):
    prompt = ["--prompt", "w5 w9 w11", "--model", str(language_model)]
    assert main(["lens", *prompt, "--json", "out.json", "--attribution", "--figure", "out.svg"]) == 0
    data = json.loads((place / "out.json").read_text())
    assert [token["after"] for token in data["tokens"]] == ["w5", "w9", "w11"]
    assert data["encoder"] == []
    assert data["tokens"][0]["layers"][-1]["rank_final"] == 0
    out, _ = capsys.readouterr()
    assert "after" in out
    assert "layer 2" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "nothing to read"),
        (["gone.flac"], "gone.flac"),
        (["clip.flac", "--figure", "out.gif"], "no figure's name"),
        (["clip.flac", "--figure", "no/out.png"], "cannot be written"),
        (["clip.flac", "--json", "clip.flac"], "would be overwritten"),
        (["clip.flac", "--json", "x.png", "--figure", "x.png"], "would be overwritten"),
        (["clip.flac", "--fit-tuned", "tuned"], "trained on a corpus"),
        ([".", "--figure", "out.png"], "one clip or prompt"),
        ([".", "--reference", "said"], "--reference is for one recording"),
        ([".", "--offset", "3"], "--offset is for one recording"),
        ([".", "--fit-tuned", "clip.flac"], "is a file, not a folder"),
        (["clip.flac", "--top", "0"], "--top"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(place, capsys, arguments, words):
    assert main(["lens", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert [p.name for p in place.iterdir()] == ["clip.flac"]


def test_a_language_model_is_given_no_recording(language_model, place, capsys):
    assert main(["lens", "clip.flac", "--model", str(language_model)]) == 2
    assert "does not listen" in capsys.readouterr().err


@pytest.mark.weights
def test_whisper_is_given_no_bare_prompt(capsys):
    assert main(["lens", "--prompt", "And so"]) == 2
    assert "needs a recording" in capsys.readouterr().err
