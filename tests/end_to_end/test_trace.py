"""`trace` on a real recording: the word's sound is where the word is, and taking it away takes the word away."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import otoscope as oto
from otoscope.circuits.heard import listen
from otoscope.circuits.hearing_runs import Change, react
from otoscope.circuits.speech import trace_speech
from otoscope.circuits.speech_tracing import SpeechSettings
from otoscope.cli.main import main

pytestmark = pytest.mark.weights


REST = "country can do for you, ask what you can do for your country."


@pytest.fixture(scope="module")
def heard(tiny_en):
    return listen(tiny_en, oto.sample("jfk"))


def test_the_command_tells_json_a_figure_and_a_graph_for_neuronpedia(tiny_en, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    clip, outputs = (
        str(oto.sample("jfk")),
        ["--json", "a.json", "--figure", "a.png", "--neuronpedia", "n.json"],
    )
    assert main(["trace", clip, "--token", "country", "--nodes", "60", *outputs, "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "6.02–6.36 s (country)" in out.replace("6.36 s (country),", "6.36 s (country)")
    told = json.loads((tmp_path / "a.json").read_text("utf-8"))
    assert {"targets", "nodes", "edges", "scores"} <= set(told)
    assert {"replacement", "completeness", "grounding"} <= set(told["scores"])
    assert {node["kind"] for node in told["nodes"]} >= {
        "feature",
        "frame",
        "token",
        "position",
        "bias",
        "target",
        "rest",
    }
    assert {node["stream"] for node in told["nodes"]} == {"decoder"}
    frame = next(node for node in told["nodes"] if node["kind"] == "frame")
    assert len(frame["span"]) == 2
    account = told["totals"][0]
    spans = told["record"]["segments"]["spans"]
    loudest = spans[int(np.argmax(account["sound"]))]
    assert loudest == pytest.approx([6.02, 6.36], abs=0.05)
    assert (tmp_path / "a.png").stat().st_size > 10_000
    assert json.loads((tmp_path / "n.json").read_text())["metadata"]["prompt_tokens"][0].startswith("0.00-")


def test_silence_where_the_word_is_takes_from_it_what_the_account_says_within_a_third(tiny_en, heard):
    graph = trace_speech(tiny_en, heard, "country", settings=SpeechSettings(nodes=20))
    sound = np.array(graph.record["totals"][0]["sound"])
    at = graph.tracer.segments.frames(int(sound.argmax()))
    change = float(react(graph.tracer, [Change(sound=graph.tracer.silenced(at))], graph.tracer.targets)[0, 0])
    assert -1.33 * sound.max() < change < -0.67 * sound.max()


def test_what_was_listened_to_is_not_heard_again_but_where_the_model_is_edited(tiny_en, heard, monkeypatch):
    runs, encode = [], tiny_en.encode
    monkeypatch.setattr(tiny_en, "encode", lambda x: runs.append(1) or encode(x))
    few = SpeechSettings(nodes=5)
    graph = trace_speech(tiny_en, heard, "country", settings=few)
    assert not runs
    assert torch.equal(graph.tracer.output, heard.encoded[0])
    with tiny_en.editing(oto.Edit.zero("encoder_blocks.2.hook_mlp_out")):
        edited = trace_speech(tiny_en, heard, "country", settings=few)
        assert listen(tiny_en, heard.clip).encoded is None
    assert runs
    assert (edited.tracer.output - heard.encoded[0]).abs().max() > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--token", "zebra"], "was not written"),
        (["--token", "99"], "There is no token 99"),
        (["--segments", "5ms"], "shorter than a frame"),
        (["--segments", "bits"], "no segments 'bits'"),
        (["--prompt", "x"], "--prompt is for a prompt"),
        (["--token", "country", "--against", REST], "is what was written"),
        (["--figure", "a.txt"], "no figure's name"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_told_in_a_sentence(tiny_en, options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["trace", str(oto.sample("jfk")), *options, "--quiet"]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "remedy:" in err
    assert "Traceback" not in err
