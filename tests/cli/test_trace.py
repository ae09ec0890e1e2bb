from __future__ import annotations

import base64
import gzip
import json

import pytest
from tests.conftest import tiny

from otoscope.circuits.saving import load_graph
from otoscope.cli.main import main
from otoscope.dictionaries.formats.own import save_dictionary


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    """The directory of a random Llama with a tokenizer of 97 words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("llama")
    tiny("llama").hf.save_pretrained(folder)
    raw = Tokenizer(WordLevel({f"w{i}": i for i in range(97)}, unk_token="w0"))
    raw.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="w0", pad_token="w0").save_pretrained(folder)
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


PROMPT = ["--prompt", "w5 w9 w11 w4 w7"]


def test_help_has_an_example_and_loads_no_model(capsys):
    assert main(["trace", "--help"]) == 0
    assert "Example: otoscope trace --prompt" in capsys.readouterr().out


def test_a_prompt_gives_a_summary_json_a_graph_and_a_check(language_model, place, capsys):
    outputs = ["--json", "out.json", "--neuronpedia", "graph.json", "--save", "graph"]
    assert main(["trace", *PROMPT, "--model", str(language_model), "--nodes", "90", "--check", *outputs]) == 0
    out, _ = capsys.readouterr()
    told = json.loads((place / "out.json").read_text("utf-8"))
    assert "Strongest paths" in out
    assert "everything frozen: correlation 1.000000" in out
    assert {"targets", "nodes", "edges", "scores", "check"} <= set(told)
    assert sum(node["kind"] == "feature" for node in told["nodes"]) == 90
    assert {"id", "kind", "stream", "layer", "pos", "feature", "activation", "influence"} <= set(
        told["nodes"][0]
    )
    assert told["check"]["direct"]["correlation"] > 0.9999
    assert told["check"]["free"]["n"] >= 50
    assert {"correlation", "ci_low", "ci_high", "baselines"} <= set(told["check"]["free"])
    assert len(load_graph(place / "graph").nodes) == len([n for n in told["nodes"] if n["kind"] != "rest"])
    assert json.loads((place / "graph.json").read_text())["metadata"]["slug"] == "graph"


def test_a_target_a_file_and_a_dictionary_may_be_given(language_model, place, capsys):
    import torch
    from tests.circuits.cases import Random

    save_dictionary(Random(dtype=torch.float32).transcoders(), place / "dictionary")
    (place / "prompt.txt").write_text("w5 w9 w11\n")
    more = ["--dictionary", "dictionary", "--target", "w7", "--json", "-"]
    assert main(["trace", "--prompt-file", "prompt.txt", "--model", str(language_model), *more]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["targets"][0]["token"] == 7
    assert told["tokens"] == ["w5", "w9", "w11"]
    assert told["record"]["dictionary"]["kind"] == "transcoders"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Name a recording, or give --prompt"),
        ([*PROMPT, "--prompt-file", "x"], "one prompt"),
        (["--prompt", "  "], "prompt is empty"),
        (["--prompt-file", "gone.txt"], "gone.txt cannot be read"),
        ([*PROMPT, "--target", "w5 w6"], "is no single token"),
        ([*PROMPT, "--target", "Paris"], "is no single token"),
        ([*PROMPT, "--dictionary", "gone"], "no dictionary gone"),
        ([*PROMPT, "--json", "x.json", "--neuronpedia", "x.json"], "would be overwritten"),
        ([*PROMPT, "--neuronpedia", "no/x.json"], "cannot be written"),
        ([*PROMPT, "--nodes", "0"], "--nodes"),
        ([*PROMPT, "--dtype", "bfloat16"], "--dtype float32"),
        (["--prompt", "w5 " * 65], "context holds 64"),
    ],
)
def test_what_cannot_be_done_is_refused(language_model, place, capsys, arguments, words):
    assert main(["trace", "--model", str(language_model), *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not list(place.iterdir())


def test_a_page_shows_the_graph_beside_a_saved_one(language_model, place, capsys):
    assert main(["trace", *PROMPT, "--model", str(language_model), "--nodes", "40", "--save", "first"]) == 0
    more = ["--page", "graph.html", "--compare", "first", "--check"]
    assert main(["trace", *PROMPT, "--model", str(language_model), "--nodes", "60", *more]) == 0
    assert capsys.readouterr().out.endswith("The page is graph.html.\n")
    page = (place / "graph.html").read_text("utf-8")
    packed = page.split('id="document" data-encoding="gzip">')[1].split("<")[0]
    doc = json.loads(gzip.decompress(base64.b64decode(packed)))
    assert doc["kind"] == "graph"
    assert doc["graph"]["splits"]
    assert doc["graph"]["features"][0]["promotes"]
    assert doc["graph"]["checks"][0]["direct"] > 0.999
    assert doc["other"]["left_out"]["traced_features"] == 40
    assert "--nodes 60" in doc["graph"]["made"]["command"]


def test_what_belongs_to_a_page_needs_one(language_model, place, capsys):
    assert main(["trace", *PROMPT, "--model", str(language_model), "--compare", "first"]) == 2
    assert "--page" in capsys.readouterr().err
