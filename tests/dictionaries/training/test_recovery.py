"""Features that were planted are found, by every kind of dictionary and every gate."""

from __future__ import annotations

import json

import pytest
import torch
from tests.dictionaries.training.planted import Planted, config_of, recovered

from otoscope.dictionaries.training.trainer import Trainer, train

pytestmark = pytest.mark.usefixtures("one_thread")


def planted_rows(planted, found, at, out):
    """What features of one layer are to write into another."""
    if planted.kind == "sae":
        return planted.reads[at]
    rows = planted.writes[at, out]
    if planted.kind != "skip":
        return rows
    # What is linear in the input may go through the skip path or through features: together they are determined.
    rows = rows - planted.reads[at] @ (found.skip(at) - planted.skip).T
    return rows / rows.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("kind,activation,tying", [
    ("sae", "topk", "none"),
    ("sae", "batchtopk", "none"),
    ("sae", "jumprelu", "none"),
    ("transcoder", "topk", "none"),
    ("transcoder", "batchtopk", "none"),
    ("transcoder", "jumprelu", "none"),
    ("skip", "topk", "none"),
    ("clt", "topk", "none"),
    ("clt", "topk", "source"),
    ("clt", "topk", "target"),
])  # fmt: skip
def test_planted_features_are_found(kind, activation, tying, tmp_path):
    layers = 2 if kind == "clt" else 1
    # Where layers share rows, features must also find the numbers that fit together.
    pace = {"steps": 500, "lr": 5e-3} if tying == "target" else {"steps": 300}
    planted = Planted(kind, layers, steps=600, tying=tying)
    config = config_of(
        kind, activation=activation, tying=tying, layers=tuple(range(layers)), bandwidth=2.0, **pace
    )
    found = train(config, planted, tmp_path)
    for at in range(layers):
        for out in found.targets(at):
            rows = found.decoder(at, out, None)
            assert recovered(rows, planted_rows(planted, found, at, out)) > 0.9, (at, out)
    last = json.loads((tmp_path / "loss.jsonl").read_text().splitlines()[-1])
    assert last["l0"] == pytest.approx(3, abs=0.5)
    assert last["explained_variance"] > 0.75


@pytest.mark.parametrize("aux", [0.0, 0.5])
def test_dead_features_come_back_to_life_by_the_auxiliary_loss_alone(aux, tmp_path):
    config = config_of("transcoder", steps=300, aux=aux, dead_after=2000, decoder_start="random")
    trainer = Trainer(config, Planted("transcoder"), tmp_path)
    trainer.coder[0].b_enc.data[:16] -= 5  # below zero at every input
    line = {}
    for vectors in Planted("transcoder", steps=300):
        line = trainer.update(vectors)
    assert line["dead"] <= 3 if aux else line["dead"] >= 16


def test_rows_that_are_held_at_norm_one_stay_there_and_learn(tmp_path):
    planted = Planted("sae")
    trainer = Trainer(config_of("sae", unit_decoder=True), planted, tmp_path)
    for vectors in planted:
        trainer.update(vectors)
    rows = trainer.coder[0].w_dec.detach()
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)))
    assert recovered(rows, planted.reads[0]) > 0.9
