"""Real weights: a repair made on the command line is in force wherever `--mend` names it, and faster-whisper has it, too."""

from __future__ import annotations

import json

import pytest

import otoscope as oto
from otoscope.cli.main import main

pytestmark = [pytest.mark.weights, pytest.mark.slow]

DEAF = [f"--gate=L3H{head}" for head in range(6)]


@pytest.fixture(scope="module")
def deaf(tmp_path_factory):
    """A repair that shows: the last layer without self-attention."""
    folder = tmp_path_factory.mktemp("mend") / "deaf"
    assert main(["mend", "make", "--model", "whisper-tiny.en", *DEAF, "--out", str(folder), "--quiet"]) == 0
    return folder


def run(*arguments):
    assert main([*map(str, arguments), "--quiet"]) == 0


def test_transcribe_and_explain_apply_a_repair_and_say_so(deaf, jfk, tmp_path, capsys):
    run("transcribe", jfk, "--json", tmp_path / "plain.json")
    run("transcribe", jfk, "--mend", deaf, "--json", tmp_path / "mended.json")
    quick = ("--without", "encoder-lens", "--without", "ablation", "--circuits", "none")
    outputs = ("--out", tmp_path / "page.html", "--json", tmp_path / "page.json")
    run("explain", jfk, "--mend", deaf, *outputs, *quick)
    plain, mended, page = (
        json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("plain", "mended", "page")
    )
    assert plain["items"][0]["text"] != mended["items"][0]["text"]
    assert mended["model_details"]["mended"] == "deaf"
    assert "mended" not in plain["model_details"]
    assert page["transcript"]["text"].strip() == mended["items"][0]["text"]
    assert page["model"]["mended"] == "deaf"


def test_exported_checkpoints_write_what_the_repair_writes(deaf, tmp_path, capsys):
    pytest.importorskip("faster_whisper")
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(
        "".join(json.dumps({"audio_filepath": str(oto.sample(n))}) + "\n" for n in ("jfk", "austen-0880"))
    )
    arguments = ("--out", tmp_path / "hf", "--ct2", tmp_path / "ct2", "--check", manifest, "--max-tokens", 30)
    run("mend", "export", deaf, *arguments, "--json", tmp_path / "export.json")
    told = json.loads((tmp_path / "export.json").read_text())
    assert [p["program"] for p in told["parity"]] == ["transformers", "faster-whisper"]
    assert all(p["same"]["count"] == 2 for p in told["parity"]), told["parity"]
    assert oto.load_model(tmp_path / "ct2").config.d_model == 384
