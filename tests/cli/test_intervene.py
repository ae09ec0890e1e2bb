from __future__ import annotations

import json
import shlex

import pytest

from otoscope.cli.main import main

pytestmark = [pytest.mark.weights, pytest.mark.slow]


def test_intervene_tells_what_changed_and_its_command_gives_the_same(jfk, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "it's.flac").write_bytes(jfk.with_name("austen-0880.flac").read_bytes())
    first = ["intervene", "it's.flac", "--silence", "0.2-0.9", "--zero", "decoder_blocks.2.cross_attn.3"]
    assert main([*first, "--controls", "1", "--json", "a.json", "--page", "a.html"]) == 0
    out, _ = capsys.readouterr()
    told = json.loads((tmp_path / "a.json").read_text("utf-8"))
    assert told["after"]["transcript"]["text"] in out
    assert "1 random other places" in out
    assert told["python"] in out
    assert (tmp_path / "a.html").stat().st_size > 10_000

    program, *again = shlex.split(told["command"])
    assert program == "otoscope"
    assert main([*again, "--json", "b.json", "--quiet"]) == 0
    other = json.loads((tmp_path / "b.json").read_text("utf-8"))
    assert {k: v for k, v in other.items() if k != "seconds"} == {
        k: v for k, v in told.items() if k != "seconds"
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "Nothing is to be changed."),
        (["--silence", "2-1"], "no span of time"),
        (["--zero", "hook_embed"], "names no component"),
        (["--feature", "encoder:1"], "names no change of a feature"),
    ],
)
def test_what_is_spelled_wrongly_is_refused_before_a_model_is_loaded(jfk, options, words, capsys):
    assert main(["intervene", str(jfk), *options]) == 2
    assert words in capsys.readouterr().err
