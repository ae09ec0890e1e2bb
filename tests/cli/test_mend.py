"""`otoscope mend` on a small random model: its answers, its JSON, and what it refuses."""

from __future__ import annotations

import json

import pytest
import torch
from tests.mending.corpora import mixed_corpus, talker

from otoscope.cli.main import main
from otoscope.corpora import write_manifest
from otoscope.mending.repair import load_repair

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def loaded():
    return talker(dtype=torch.float64)


@pytest.fixture
def mend(loaded, tmp_path, monkeypatch):
    """Run the command with the random model, in a directory of its own that holds a discovery and a test manifest."""
    monkeypatch.setattr("otoscope.models.loading.load_model", lambda *_: loaded)
    monkeypatch.setenv("OTOSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    corpus = mixed_corpus()
    write_manifest([*corpus[:1], *corpus[3:4], *corpus[5:]], tmp_path / "discovery.jsonl")
    write_manifest([corpus[i] for i in (1, 2, 4)], tmp_path / "test.jsonl")
    return lambda *arguments: main(["mend", *map(str, arguments), "--quiet"])


def test_a_repair_made_by_hand_is_priced_before_and_after(mend, tmp_path, capsys):
    gate = ("--gate", "L1H2", "--gate", "L0H1=0.5")
    assert mend("make", *gate, "--breaker", "forbid", "--copies", "4", "--out", "gate") == 0
    repair = load_repair("gate")
    assert [(e.point, e.heads, e.alpha) for e in repair.edits] == [
        ("decoder_blocks.1.self_attn.hook_z", (2,), 0.0),
        ("decoder_blocks.0.self_attn.hook_z", (1,), 0.5),
    ]
    assert repair.breaker.copies == 4
    capsys.readouterr()
    assert mend("price", "gate", "--on", "test.jsonl", "--max-tokens", "12", "--json", "price.json") == 0
    out = capsys.readouterr().out
    assert "price of gate" in out
    assert "WER en" in out
    assert "sure of its empty text counts, too" in out
    told = json.loads((tmp_path / "price.json").read_text())
    (priced,) = told["repairs"]
    assert {"before", "after", "difference", "ci_low", "ci_high"} <= set(
        priced["card"]["speech"]["en"]["wer"]
    )
    assert {"speech", "repeats", "nonspeech", "loops", "false_stops", "tokens_per_second"} <= set(
        priced["card"]
    )


def test_heads_are_tuned_and_what_they_were_tuned_on_is_no_test(mend, capsys):
    arguments = ("--heads", "H1", "--epochs", "2", "--max-tokens", "12", "--breaker", "end")
    assert mend("tune", "discovery.jsonl", *arguments, "--out", "calm") == 0
    repair = load_repair("calm")
    assert len(repair.weights) == 12
    assert repair.breaker
    assert len(repair.made["losses"]) == 2
    told = capsys.readouterr()
    assert "loss by epoch" in told.out
    assert "only 0 of the lessons are speech" in told.err
    assert repair.made["speech"] is None  # this model never ends a text, so none of its speech is right
    assert mend("price", "calm", "--on", "test.jsonl", "--max-tokens", "12") == 0
    assert mend("price", "calm", "--on", "discovery.jsonl") == 2
    assert "was made with 3 of these 3" in capsys.readouterr().err


def test_tuned_heads_that_break_speech_are_said_to(mend, monkeypatch, capsys):
    from dataclasses import replace

    from otoscope.mending.lessons import Lesson, write_heard

    def taught(model, heard, **_):
        """What the model writes for the first recording is right, and yet silence is taught for all."""
        (written,) = write_heard(model, heard[:1], 12)
        text = model.tokenizer.decode(written.ids, skip_special_tokens=True)
        first = replace(heard[0], item=replace(heard[0].item, text=text))
        kept = Lesson(first, written.prompt, [*written.ids, model.end_token], "speech")
        return [kept, *(Lesson(h, written.prompt, [model.end_token], "sound") for h in heard)]

    monkeypatch.setattr("otoscope.mending.lessons.lessons_of", taught)
    arguments = ("--heads", "H0,H1,H2,H3,H4,H5", "--epochs", "30", "--lr", "0.01", "--max-tokens", "12")
    assert mend("tune", "discovery.jsonl", *arguments, "--out", "broken") == 0
    told = capsys.readouterr()
    assert "1 of 1 texts changed" in told.out
    assert "breaks speech" in told.err
    assert "--lr" in told.err
    speech = load_repair("broken").made["speech"]
    assert speech["broke"]
    assert speech["wer"]["after"] > speech["wer"]["before"]


def test_a_search_says_what_no_trial_beats(mend, tmp_path, capsys):
    arguments = ("--trials", "3", "--max-tokens", "12", "--heads", "H1", "--json", "search.json")
    assert mend("search", "discovery.jsonl", *arguments, "--out", "searched") == 0
    out = capsys.readouterr().out
    assert "3 trials" in out
    told = json.loads((tmp_path / "search.json").read_text())
    assert len(told["trials"]) == 3
    assert told["front"]
    if told["repair"]:
        assert load_repair("searched").made["how"] == "searched"
    assert ("The repair is" in out) is bool(told["repair"])


def test_a_search_that_finds_nothing_says_so(mend, tmp_path, capsys):
    assert mend("search", "discovery.jsonl", "--trials", "1", "--max-tokens", "8", "--out", "searched") == 0
    out = capsys.readouterr().out
    assert "No trial beat doing nothing, so there is no repair." in out
    assert "The repair is" not in out


def test_what_cannot_be_mended_is_refused_before_any_work(mend, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    for arguments, why in [
        (("make", "--out", "nothing"), "Nothing is to be mended"),
        (("make", "--gate", "L9H0", "--out", "x"), "no head"),
        (("make", "--gate", "L0H0=much", "--out", "x"), "no factor"),
        (("make", "--gate", "L0H0", "--out", "full"), "not empty"),
        (("make", "--stop", "--false-alarms", "2", "--out", "x"), "false-alarm rate of 2"),
        (("price", "nowhere"), "does not exist"),
        (("search", "discovery.jsonl", "--parts", "strength", "--out", "x"), "start from"),
        (("search", "discovery.jsonl", "--parts", "prayer", "--out", "x"), "Choose of"),
    ]:
        assert mend(*arguments) == 2
        assert why in capsys.readouterr().err
