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


def learn(out, *options):
    """Train a small dictionary on the texts, in the folder where the commands run."""
    small = ["--width", "48", "--k", "6", "--steps", "40", "--vectors", "64"]
    assert main(["features", "train", "texts.txt", "--out", out, *small, *options]) == 0


def test_from_a_text_to_a_judged_dictionary_and_its_features(language_model, texts, capsys):
    of = ["--model", str(language_model), "--quiet"]
    learn("f", "--point", "blocks.*.mlp", "--kind", "skip", *of, "--json", "f.json")
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


@pytest.fixture
def trained(language_model, texts):
    """A small dictionary and its examples, in the folder where the commands run."""
    of = ["--model", str(language_model), "--quiet"]
    learn("f", "--point", "blocks.*.mlp", "--kind", "skip", *of)
    assert main(["features", "examples", "f", "texts.txt", "--out", "x", *of]) == 0
    return of


def test_features_are_named_drawn_tested_and_described(trained, texts, capsys):
    assert main(["features", "label", "x", "1:3", "the third word", "--author", "Ann"]) == 0
    assert main(["features", "label", "x", "--json", "labels.json"]) == 0
    (label,) = json.loads((texts / "labels.json").read_text())["labels"]
    assert (label["about"], label["text"], label["author"]) == ("feature 1 3", "the third word", "Ann")
    assert main(["features", "page", "x", "--out", "p.html", "--feature", "1:3", "--json", "p.json"]) == 0
    assert json.loads((texts / "p.json").read_text())["features"][0]["named"] == "the third word"
    assert (texts / "p.html").read_text().startswith("<!doctype html>")
    assert main(["features", "page", "x", "--out", "all.html", "--count", "5", "--quiet"]) == 0
    test = ["features", "test", "f", "texts.txt", "--feature", "1:3", "--controls", "3", *trained]
    assert main([*test, "--json", "t.json"]) in (0, 2)  # it may be on nowhere
    capsys.readouterr()
    assert main(["features", "push", "f", "me/features", "--card"]) == 0
    assert "# Skip transcoders for" in capsys.readouterr().out


def test_exports_are_read_again(trained, texts, capsys):
    assert main(["features", "export", "f", "--to", "circuit-tracer", "--out", "ct", *trained]) == 2
    assert "circuit-tracer has no activation topk with ReLU" in capsys.readouterr().err
    assert main(["features", "export", "f", "--to", "sae-lens", "--out", "sl", *trained]) == 2
    of, point = trained, ("--point", "blocks.1.hook_resid_post")
    learn("s", *point, "--kind", "sae", "--activation", "batchtopk", *of)
    assert main(["features", "export", "s", "--to", "sae-lens", "--out", "sl", *of]) == 0
    evaluate = ["features", "evaluate", "sl", "texts.txt", *point, "--no-labels", *of]
    assert main([*evaluate, "--json", "sl.json"]) == 0
    assert main(["features", "evaluate", "s", "texts.txt", "--no-labels", *of, "--json", "s.json"]) == 0
    ours, theirs = (json.loads((texts / name).read_text()) for name in ("s.json", "sl.json"))
    assert theirs["explained_variance"] == pytest.approx(ours["explained_variance"], abs=1e-5)
    assert (texts / "s" / "judged.json").exists()
    assert main(["features", "export", "s", "--to", "sae-lens", "--out", "sl", *of]) == 2


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["train", "texts.txt", "--out", "f"], "no place to learn at"),
        (["train", "texts.txt", "--out", "f", "--point", "blocks.0.mlp", "--kind", "sae"], "cannot be trained at"),
        (["train", "texts.txt", "--out", "f", "--recipe", "none.yaml"], "cannot be read"),
        (["train", "nothing.txt", "--out", "f", "--point", "blocks.0.mlp"], "nothing.txt"),
        (["evaluate", "nowhere", "texts.txt"], "no dictionary nowhere"),
        (["evaluate", ".", "texts.txt"], "does not say where it reads"),
        (["show", "nowhere", "0", "0"], "no examples"),
        (["page", "nowhere", "--out", "p.html"], "no examples"),
        (["label", "nowhere", "0:1"], "no examples"),
        (["push", "nowhere", "me/x"], "no dictionary"),
        (["pull", "nobody", "--out", "x"], "no name on the hub"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_told_in_a_sentence(language_model, texts, command, message, capsys):
    of = [] if command[0] in ("show", "page", "label", "push", "pull") else ["--model", str(language_model)]
    assert main(["features", *command, *of]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "remedy:" in err
