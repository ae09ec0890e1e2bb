from __future__ import annotations

import json

import pytest
import torch
from tests.cli.test_trace import language_model

from otoscope.cli.main import main

__all__ = ["language_model"]  # a fixture


@pytest.fixture
def texts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    g = torch.Generator().manual_seed(0)
    lines = [" ".join(f"w{int(i)}" for i in torch.randint(3, 90, (20,), generator=g)) for _ in range(24)]
    (tmp_path / "texts.txt").write_text("\n".join(lines))
    return tmp_path


def test_from_a_text_to_a_judged_dictionary_and_its_features(language_model, texts, capsys):
    of = ["--model", str(language_model), "--quiet"]
    learn = [
        "--point",
        "blocks.*.mlp",
        "--kind",
        "skip",
        "--width",
        "48",
        "--k",
        "6",
        "--steps",
        "40",
        "--vectors",
        "64",
    ]
    assert main(["features", "train", "texts.txt", "--out", "f", *learn, *of, "--json", "f.json"]) == 0
    told = json.loads((texts / "f.json").read_text())
    assert told["config"]["kind"] == "skip"
    assert told["l0"] <= 6
    assert "explained variance" in capsys.readouterr().out
    assert main(["features", "evaluate", "f", "f/held_out.jsonl", *of, "--json", "e.json"]) == 0
    judged = json.loads((texts / "e.json").read_text())
    assert {"explained_variance", "l0", "dead", "loss_recovered"} <= set(judged)
    assert set(judged["controls"]) == {"random", "neurons"}
    assert "the model itself" in capsys.readouterr().out
    assert main(["features", "examples", "f", "texts.txt", "--out", "x", *of]) == 0
    assert main(["features", "show", "x", "0", "5", "--json", "s.json"]) == 0
    assert json.loads((texts / "s.json").read_text())["feature"] == 5


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["train", "texts.txt", "--out", "f"], "no place to learn at"),
        (["train", "texts.txt", "--out", "f", "--point", "blocks.0.mlp", "--kind", "sae"], "cannot be trained at"),
        (["train", "texts.txt", "--out", "f", "--recipe", "none.yaml"], "cannot be read"),
        (["train", "nothing.txt", "--out", "f", "--point", "blocks.0.mlp"], "nothing.txt"),
        (["evaluate", "nowhere", "texts.txt"], "does not say where it reads"),
        (["show", "nowhere", "0", "0"], "no examples"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_told_in_a_sentence(language_model, texts, command, message, capsys):
    of = [] if command[0] == "show" else ["--model", str(language_model)]
    assert main(["features", *command, *of]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "remedy:" in err
