"""Examples of features: the strongest moments, with words, read one feature at a time."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tests.conftest import tiny
from tests.models.tokenizers import word_tokenizer

import otoscope as oto
from otoscope.cli.main import main
from otoscope.dictionaries.neurons import NeuronBasis
from otoscope.errors import OptionError
from otoscope.studies.feature_examples import Examples, collect_examples, short_label

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def writer():
    model = tiny("llama")
    model.processor = word_tokenizer()
    return model


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Twenty texts of two kinds of words."""
    g, path = torch.Generator().manual_seed(0), tmp_path_factory.mktemp("texts") / "texts.jsonl"
    lines = []
    for i in range(20):
        words = torch.randint(*((3, 40) if i % 2 else (40, 90)), (16,), generator=g).tolist()
        lines.append(
            json.dumps({"text": " ".join(f"w{w}" for w in words), "kind": "low" if i % 2 else "high"})
        )
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def examples(writer, texts, tmp_path_factory):
    out = tmp_path_factory.mktemp("examples") / "found"
    collect_examples(writer, "neurons", texts, out, point="blocks.*.mlp", batch=4)
    return Examples(out)


def test_the_strongest_moments_are_those_of_the_model_and_each_of_another_text(writer, texts, examples):
    neurons, layer, feature = NeuronBasis(writer), 1, 7
    told = examples.read(layer, feature)
    peaks = []
    for line in texts.read_text().splitlines():
        text = json.loads(line)["text"]
        with torch.no_grad():
            _, cache = writer.run_with_cache(text, f"blocks.{layer}.ln2.hook_out")
        x = cache[f"blocks.{layer}.ln2.hook_out"][0]
        values = torch.zeros(len(x), neurons.size(layer))
        active = neurons.encode(layer, x)
        values[active.pos, active.feature] = active.activation
        at = int(values[:, feature].argmax())
        peaks.append((float(values[at, feature]), text.split()[at - len(x)]))
    best = sorted(peaks, reverse=True)[: len(told["examples"])]
    assert [e["activation"] for e in told["examples"]] == pytest.approx(
        [v for v, _ in best if v > 0], abs=1e-3
    )
    assert [e["at"].strip() for e in told["examples"]] == [word for _, word in best]


def test_one_line_is_read_without_the_others_and_says_what_is_promised(examples):
    assert len(examples) == 3 * 48 or len(examples) > 0
    told = examples.read(0, 3)
    assert (told["layer"], told["feature"]) == (0, 3)
    assert {
        "density",
        "mean",
        "max",
        "peaks",
        "quantiles",
        "enrichment",
        "neighbours",
        "promotes",
        "label",
    } <= set(told)
    assert len(list(examples)) == len(examples)
    assert [f["feature"] for f in examples if f["layer"] == 0] == list(range(48))
    with pytest.raises(OptionError, match="no feature 9999"):
        examples.read(0, 9999)


def test_enrichment_tells_a_planted_label_and_shuffled_labels_do_not(examples):
    best = max((e for f in examples for e in f["enrichment"]), key=lambda e: abs(e["auc"] - 0.5))
    assert abs(best["auc"] - 0.5) > 0.35
    shuffled = [abs(e["shuffled"] - 0.5) for f in examples for e in f["enrichment"]]
    assert np.mean(shuffled) < 0.2


def test_a_label_is_the_word_that_most_moments_share():
    moments = [{"at": " Cat,"}] * 5 + [{"at": "dog"}] * 3
    assert short_label({"examples": moments, "enrichment": []}) == "“cat” (5 of 8)"
    assert short_label({"examples": [], "enrichment": []}) == "never active"
    mixed = [{"at": str(i)} for i in range(8)]
    enriched = [{"label": "noise", "value": "babble", "auc": 0.95, "shuffled": 0.52}]
    assert short_label({"examples": mixed, "enrichment": enriched}) == "noise is babble (AUC 0.95)"
    assert short_label({"examples": mixed, "enrichment": [], "promotes": [["x", 1.0]]}) == "writes 'x'"


@pytest.mark.weights
def test_moments_of_an_encoder_have_their_word_and_time(tiny_en, tmp_path, capsys):
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("austen-0880", "austen-0890"):
        (folder / f"{name}.flac").write_bytes(oto.sample(name).read_bytes())
    collect_examples(tiny_en, "neurons", folder, tmp_path / "out", point="encoder_blocks.2.mlp", batch=2)
    told = Examples(tmp_path / "out").read(2, 11)
    words = " ".join(oto.transcribe(tiny_en, folder / "austen-0890.flac").text.split())
    for e in told["examples"]:
        assert 0 <= e["start"] < e["end"] <= 5.4
        assert e["at"].strip() in words + " He was not an old-sposed young man."
    assert main(["features", "show", str(tmp_path / "out"), "2", "11"]) == 0
    assert "L2 feature 11" in capsys.readouterr().out
    assert main(["features", "show", str(tmp_path / "out"), "7", "11"]) == 2
