"""`otoscope patch` on a small random model: its answers, its JSON, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from tests.patching.worlds import hearing_whisper

from otoscope.audio import white_noise
from otoscope.cli.main import main

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def manifest(tmp_path, jfk):
    lines = [
        {
            "audio_filepath": str(jfk),
            "offset": 1.5 * i + 0.3,
            "duration": 0.9,
            "language": "en",
            "speaker": str(i // 2),
        }
        for i in range(5)
    ]
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.fixture(scope="module")
def loaded():
    return hearing_whisper(seed=1, dtype=torch.float64)


@pytest.fixture
def patch(loaded, tmp_path, manifest, monkeypatch):
    """Run the command with the random model, in a directory of its own."""
    monkeypatch.setattr("otoscope.models.loading.load_model", lambda *_: loaded)
    monkeypatch.setenv("OTOSCOPE_CACHE", str(tmp_path / "cache"))

    def run(*arguments, target=manifest):
        return main(["patch", str(target), "--max-tokens", "28", *map(str, arguments)])

    return run


def test_a_sweep_is_told_written_and_drawn(patch, manifest, tmp_path, capsys):
    priced = tmp_path / "speech.jsonl"
    priced.write_text(
        "\n".join(
            json.dumps(json.loads(x) | {"text": "w1 w2"}) for x in manifest.read_text().splitlines()[:2]
        )
    )
    files = [tmp_path / "p.json", tmp_path / "p.png", tmp_path / "p.html"]
    out = [
        "--out",
        tmp_path / "run",
        "--price",
        priced,
        "--json",
        files[0],
        "--figure",
        files[1],
        "--page",
        files[2],
    ]
    assert patch("--components", "cross_attn,self_attn,mlp", "--heads", "--sets", 2, *out) == 0
    shown, _ = capsys.readouterr()
    assert "counted from 0" in shown
    assert f"The page is {files[2]}." in shown
    assert files[2].read_text("utf-8").startswith("<!doctype html>")
    assert "random" in shown
    data = json.loads(files[0].read_text())
    assert {"n_items", "baseline_outcome_rate", "effects", "price"} <= data.keys()
    assert len(data["effects"]) == 2 * (6 + 6 + 1)
    keys = {
        "component",
        "head",
        "resolved",
        "restored",
        "n",
        "rate",
        "ci_low",
        "ci_high",
        "random_rate",
        "p_value",
        "discovery",
        "test",
    }
    assert all(keys <= effect.keys() for effect in data["effects"])
    assert data["price"]["edits"][0]["card"]["speech"]["en"]["n"] == 2
    assert data["price"]["note"] is None
    assert files[1].read_bytes().startswith(b"\x89PNG")


def test_json_alone_goes_to_stdout(patch, capsys):
    assert patch("--components", "mlp", "--json", "-", "--price", "gone.jsonl") == 2
    assert capsys.readouterr().out == ""
    assert patch("--components", "mlp", "--alpha", "0", "--json", "-") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["winners"] == []
    assert data["price"] is None


def test_where_nothing_loops_it_is_said_and_the_counts_are_written_all_the_same(patch, tmp_path, capsys):
    assert patch("--max-tokens", "2", "--json", tmp_path / "p.json") == 2
    err = capsys.readouterr().err
    assert "No clip of this manifest loops" in err
    assert "otoscope corpus make loops" in err
    assert json.loads((tmp_path / "p.json").read_text())["n_items"] == 5


def test_a_token_is_patched_under_teacher_forcing(patch, tmp_path, capsys):
    arguments = [
        "--outcome",
        "token",
        "--token",
        "1",
        "--against",
        "w9",
        "--components",
        "cross_attn",
        "--stack",
        "decoder,encoder",
    ]
    assert (
        patch(
            *arguments,
            "--reference",
            "silence",
            "--json",
            tmp_path / "p.json",
            "--figure",
            tmp_path / "p.svg",
        )
        == 0
    )
    data = json.loads((tmp_path / "p.json").read_text())
    assert data["measure"] == "logit_difference"
    assert [t["token"] for t in data["tokens"]] == [1] * 5
    assert "logit difference" in capsys.readouterr().out
    assert (tmp_path / "p.svg").exists()


def test_of_one_recording_it_is_said_first_how_little_it_tells(patch, manifest, tmp_path, capsys):
    one = tmp_path / "one.jsonl"
    one.write_text(manifest.read_text().splitlines()[0])
    asked = ["--outcome", "token", "--token", "1", "--components", "cross_attn"]
    assert patch(*asked, target=one) == 0
    out = capsys.readouterr().out
    assert out.startswith("One recording has no test half")
    assert "The strongest in this recording is" in out
    assert "discovery half" not in out


def test_unreadable_recordings_are_named_and_cannot_steer_the_terminal(patch, manifest, tmp_path, capsys):
    with manifest.open("a") as file:
        file.write("\n" + json.dumps({"audio_filepath": "gone\x1b[31m.wav"}))
    assert patch("--components", "mlp", "--alpha", "0") == 3
    out, err = capsys.readouterr()
    assert "gone\\x1b[31m.wav was skipped" in err
    assert "\x1b[31m" not in out + err


REFUSED = [
    (["--components", "norm"], "no component 'norm'", "cross_attn"),
    (["--components", ","], "no component", "cross_attn"),
    (["--stack", "text"], "no stack 'text'", "decoder"),
    (["--components", "cross_attn", "--stack", "encoder"], "no component 'cross_attn'", "mlp"),
    (["--reference", "pink"], "neither a kind nor a recording", "silence"),
    (["--alpha", "nan"], "alpha is nan", "finite"),
    (["--alpha", "x"], "alpha", "--help"),
    (["--token", "1"], "belong to --outcome token", "--outcome token"),
    (["--against", "w1"], "belong to --outcome token", "--outcome token"),
    (["--outcome", "token", "--sets", "2"], "does not belong to --outcome token", "Leave it out"),
    (["--outcome", "token", "--token", "²"], "No recording has the token", "transcribe"),
    (["--outcome", "word"], "lacks the label", "ambiguous"),
    (["--outcome", "fire"], "fire", "--help"),
    (["--figure", "p.jpg"], "no figure's name", ".png"),
    (["--price", "gone.jsonl"], "gone.jsonl", ""),
    (["--language", "tlh"], "no language", "code"),
    (["--max-tokens", "0"], "max-tokens", "--help"),
]


@pytest.mark.parametrize(
    "arguments, reason, remedy", REFUSED, ids=lambda x: " ".join(x) if isinstance(x, list) else ""
)
def test_what_cannot_be_done_is_refused_with_reason_and_remedy(patch, arguments, reason, remedy, capsys):
    assert patch(*arguments) == 2
    err = capsys.readouterr().err
    assert reason in err
    assert remedy in err
    assert "Traceback" not in err


def test_a_missing_an_empty_and_a_worthless_target_are_refused(patch, tmp_path, capsys):
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "noise.wav").write_bytes(b"no sound")
    for target, reason in [
        ("gone.wav", "does not exist"),
        ("empty.jsonl", "is empty"),
        ("noise.wav", "None of the 1"),
    ]:
        assert patch("--components", "mlp", target=tmp_path / target) == 2
        assert reason in capsys.readouterr().err


def test_a_reference_longer_than_a_window_is_refused_before_the_corpus_is_written(
    patch, loaded, tmp_path, capsys, monkeypatch
):
    import soundfile

    soundfile.write(tmp_path / "long.wav", white_noise(2.0, seed=0).samples, 16000)
    monkeypatch.setattr(loaded, "encode", lambda *_: pytest.fail("the encoder ran"))
    assert patch("--reference", tmp_path / "long.wav") == 2
    assert "one window holds" in capsys.readouterr().err


def test_another_sweep_in_the_same_directory_is_refused(patch, tmp_path, capsys):
    assert patch("--components", "mlp", "--alpha", "0", "--out", tmp_path / "run") == 0
    assert patch("--components", "mlp", "--alpha", "2", "--out", tmp_path / "run") == 2
    assert "begun with alpha" in capsys.readouterr().err


def test_help_loads_neither_torch_nor_transformers():
    told = "import sys; from otoscope.cli.main import main; main(['patch', '--help'])"
    command = [
        sys.executable,
        "-c",
        f"{told}; print([m for m in ('torch', 'transformers') if m in sys.modules])",
    ]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "--components" in shown
    assert shown.splitlines()[-1] == "[]"
