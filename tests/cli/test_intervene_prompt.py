from __future__ import annotations

import json

import pytest
from tests.conftest import tiny
from tests.models.tokenizers import word_tokenizer

from otoscope.cli.main import main


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    tiny("llama").hf.save_pretrained(folder)
    word_tokenizer(97).save_pretrained(folder)
    return str(folder)


def test_a_prompt_is_continued_as_it_is_and_changed(language_model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = [
        "intervene",
        "--prompt",
        "w5 w9 w11",
        "--model",
        language_model,
        "--scale",
        "blocks.1.attn.2x0.5",
    ]
    assert main([*given, "--tokens", "3", "--controls", "1", "--json", "a.json", "--page", "a.html"]) == 0
    out, _ = capsys.readouterr()
    told = json.loads((tmp_path / "a.json").read_text("utf-8"))
    first = told["next_tokens"][0]
    assert f"p({first['text']!r}) goes from {first['before']:.3f} to {first['after']:.3f}" in out
    assert told["python"] in out
    assert told["command"].startswith("otoscope intervene --prompt 'w5 w9 w11' --model ")
    assert "--scale blocks.1.attn.2x0.5 --tokens 3 --controls 1" in told["command"]
    assert (tmp_path / "a.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["a.wav", "--prompt", "w1", "--zero", "blocks.0.mlp"], "one recording or one prompt"),
        (["--zero", "blocks.0.mlp"], "one recording or one prompt"),
        (
            ["--prompt", "w1", "--zero", "blocks.0.mlp", "--language", "fr"],
            "--language says nothing of a prompt",
        ),
        (
            ["a.wav", "--zero", "decoder_blocks.0.mlp", "--tokens", "3"],
            "--tokens says nothing of a recording",
        ),
        (["--prompt", "w1", "--scale", "blocks.0.mlp"], "names no factor"),
    ],
)
def test_what_does_not_go_together_is_refused_before_a_model_is_loaded(options, words, capsys):
    assert main(["intervene", *options]) == 2
    assert words in capsys.readouterr().err
