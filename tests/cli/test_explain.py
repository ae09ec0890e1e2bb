from __future__ import annotations

import json

import pytest

from otoscope.cli.main import main

pytestmark = [pytest.mark.weights, pytest.mark.slow]


def test_explain_writes_one_page_and_says_what_it_found_and_how_long_it_took(
    jfk, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    clip = jfk.with_name("austen-0880.flac")
    quick = ["--without", "controls", "--without", "encoder-lens"]
    assert main(["explain", str(clip), "--json", "out.json", "--token", "2", *quick]) == 0
    out, _ = capsys.readouterr()
    assert "The page is austen-0880.token-2.explain.html." in out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["austen-0880.token-2.explain.html", "out.json"]
    data = json.loads((tmp_path / "out.json").read_text("utf-8"))
    for timing in data["timings"]:
        assert timing["stage"] in out
    assert data["transcript"]["text"] in out

    assert main(["explain", str(clip), "--token", "99", "--out", "other.html"]) == 2
    assert "Token 99 does not exist." in capsys.readouterr().err
    assert not (tmp_path / "other.html").exists()
