from __future__ import annotations

import json

import numpy as np
import pytest
from tests.corpora.sounds import write_sound

from otoscope.cli.main import main


@pytest.fixture
def manifest(tmp_path, monkeypatch):
    """Ten speakers of two clips each in `corpus/m.jsonl`, seen from the folder above."""
    monkeypatch.chdir(tmp_path)
    lines = []
    for n in range(20):
        write_sound(tmp_path / "corpus" / f"{n}.wav", 0.2, seed=n)
        facts = {
            "audio_filepath": f"{n}.wav",
            "text": "x",
            "speaker": f"s{n // 2}",
            "gender": "mf"[n // 2 % 2],
        }
        lines.append(json.dumps(facts))
    (tmp_path / "corpus" / "m.jsonl").write_text("\n".join(lines))
    return "corpus/m.jsonl"


def test_a_sound_corpus_is_summed_up(manifest, capsys):
    assert main(["corpus", "check", manifest, "--label", "speaker", "--label", "gender"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[:2] == [
        "20 items, 20 readable, 20 with text, 0.1 min",
        "0 errors, 0 warnings, 0 notes",
    ]
    assert [line.split() for line in out.splitlines() if line.startswith("gender")] == [
        ["gender", "f", "10", "0.0", "min"],
        ["gender", "m", "10", "0.0", "min"],
    ]
    assert err == ""


def test_errors_are_listed_and_exit_with_2(manifest, tmp_path, capsys):
    (tmp_path / "corpus" / "3.wav").write_text("nothing")
    assert main(["corpus", "check", manifest, "--label", "age", "--json", "r.json"]) == 2
    out, err = capsys.readouterr()
    assert "error     unreadable     3.wav" in out
    assert "… 10 more" in out  # of twenty ages that are missing
    assert err.startswith("error: corpus/m.jsonl has 21 errors.\nremedy: ")
    report = json.loads((tmp_path / "r.json").read_text())
    assert len(report["findings"]) == 21
    assert report["totals"]["speaker"]["s1"] == {"items": 2, "seconds": pytest.approx(0.2)}


def test_warnings_leave_the_exit_code_alone(manifest, tmp_path, capsys):
    write_sound(tmp_path / "corpus" / "3.wav", 0.05)
    assert main(["corpus", "check", manifest, "--json", "-"]) == 0
    assert [f["kind"] for f in json.loads(capsys.readouterr().out)["findings"]] == ["short"]


def test_hostile_names_do_not_steer_the_terminal(tmp_path, capsys):
    line = {"audio_filepath": "\x1b[31m\u202ex.wav", "speaker": "\x1b]0;owned\x07"}
    (tmp_path / "m.jsonl").write_text(json.dumps(line))
    assert main(["corpus", "check", str(tmp_path / "m.jsonl")]) == 2
    shown = "".join(capsys.readouterr())
    assert not {"\x1b", "\u202e", "\x07"} & set(shown)


def test_a_divided_corpus_shares_no_speaker_and_passes_the_check(manifest, tmp_path, capsys):
    command = ["corpus", "split", manifest, "--out", "parts.jsonl", "--stratify-by", "gender", "--seed", "3"]
    assert main(command) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()[1:]] == [
        ["train", "16", "8", "f", "8,", "m", "8"],
        ["test", "4", "2", "f", "2,", "m", "2"],
    ]
    lines = [json.loads(line) for line in (tmp_path / "parts.jsonl").read_text().splitlines()]
    assert [line["audio_filepath"] for line in lines] == [f"corpus/{n}.wav" for n in range(20)]
    split_of = {line["speaker"]: line["split"] for line in lines}
    assert all(split_of[line["speaker"]] == line["split"] for line in lines)
    assert main(["corpus", "check", "parts.jsonl"]) == 0
    first = (tmp_path / "parts.jsonl").read_bytes()
    assert main(command) == 0
    assert (tmp_path / "parts.jsonl").read_bytes() == first


def test_shares_are_named_on_the_command_line(manifest, tmp_path, capsys):
    command = [
        "corpus",
        "split",
        manifest,
        "--out",
        "p.jsonl",
        "--shares",
        "a=0.5, b=0.3,c=0.2",
        "--json",
        "-",
    ]
    assert main(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert {name: part["items"] for name, part in report["parts"].items()} == {"a": 10, "b": 6, "c": 4}
    assert np.all([part["classes"] == {} for part in report["parts"].values()])


def test_splits_that_are_there_are_replaced_with_a_notice(manifest, capsys):
    assert main(["corpus", "split", manifest, "--out", "p.jsonl"]) == 0
    assert main(["corpus", "split", "p.jsonl", "--out", "q.jsonl"]) == 0
    assert "these are replaced" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more, reason",
    [
        (["--shares", "train"], "names no parts"),
        (["--shares", "a=x,b=1"], "names no parts"),
        (["--shares", "a=0.5,a=0.5"], "names no parts"),
        (["--shares", "a=0.5,b=0.6"], "do not divide a corpus"),
        (["--group-by", "room"], "20 of 20 items have no room"),
        (["--stratify-by", "speaker"], "All items of the class s0 have the same speaker"),
        (["--out", "corpus/m.jsonl"], "would be overwritten"),
        (["--out", "p.txt"], "does not end like a manifest"),
        (["--out", "none/p.jsonl"], "cannot be written"),
    ],
)
def test_what_cannot_be_done_is_refused_and_leaves_no_file(manifest, tmp_path, capsys, more, reason):
    assert main(["corpus", "split", manifest, "--out", "p.jsonl", *more]) == 2
    assert reason in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_help_names_every_command_with_its_example(capsys):
    assert main(["corpus", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f" {name} " in shown for name in ("check", "split", "make"))
    for name in ("check", "split"):
        assert main(["corpus", name, "--help"]) == 0
        assert f"Example: otoscope corpus {name} " in capsys.readouterr().out
