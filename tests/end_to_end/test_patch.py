"""Real weights and clips that loop: patched rows of a batch write what `generate` writes under a hand-written hook."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
import torch

import otoscope as oto
from otoscope.audio import noises
from otoscope.cli.main import main
from otoscope.outcomes import compression_ratio, is_loop
from otoscope.patching.changes import Change
from otoscope.patching.components import Component
from otoscope.patching.writing import writer_of

pytestmark = [pytest.mark.weights, pytest.mark.slow]

TOKENS = 40
SHARES = (0.25, 0.35)
HEADS = {0.25: [(0, 0), (1, 5), (2, 2), (3, 5)], 0.35: [(0, 5), (1, 1), (2, 5), (3, 3)]}


def looping(share):
    """A shipped sentence backwards over and over, clipped: whisper-tiny.en writes it in circles."""
    speech = oto.read(oto.sample("austen-0880")).samples
    clip = oto.Clip(np.resize(speech, 20 * 16000))
    return noises.with_rms(noises.clipped(noises.reversed_in_time(clip), share), 0.1)


@pytest.mark.parametrize("share", SHARES)
def test_heads_zeroed_in_one_batch_write_what_generate_writes_with_a_hook_on_clips_that_loop(tiny_en, share):
    clip, writer = looping(share), writer_of(tiny_en, TOKENS)
    heard = writer.hear(clip)
    (before,) = writer.write([heard], None)
    assert is_loop(before.text)
    changes = [Change((Component("decoder", layer, "cross_attn", head),)) for layer, head in HEADS[share]]
    found = dict(writer.vary(heard, changes))
    features = tiny_en.features(clip)
    assert generated(tiny_en, features) == list(before.ids)
    for i, (layer, head) in enumerate(HEADS[share]):

        def zero(_module, args, head=head):
            z = args[0].clone()
            z[..., 64 * head : 64 * (head + 1)] = 0
            return (z,)

        out = tiny_en.hf.model.decoder.layers[layer].encoder_attn.out_proj
        handle = out.register_forward_pre_hook(zero)
        try:
            assert list(found[i].ids) == generated(tiny_en, features), (layer, head)
        finally:
            handle.remove()
    assert len({row.ids for row in found.values()}) > 1


def generated(model, features):
    with torch.no_grad():
        row = model.hf.generate(features, max_new_tokens=TOKENS, do_sample=False)[0].tolist()
    return [token for token in row if token < model.end_token]


def test_a_sweep_over_looping_clips_tells_what_ends_the_loops_and_at_what_price(tmp_path, capsys):
    for share in SHARES:
        soundfile.write(tmp_path / f"{share}.wav", looping(share).samples, 16000)
    lines = [{"audio_filepath": f"{share}.wav"} for share in SHARES]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    arguments = ["--components", "cross_attn", "--loop-detector", "compression", "--max-tokens", str(TOKENS)]
    places = [
        "--out",
        str(tmp_path / "run"),
        "--json",
        str(tmp_path / "p.json"),
        "--figure",
        str(tmp_path / "p.png"),
    ]
    assert main(["patch", str(tmp_path / "m.jsonl"), *arguments, *places]) == 0
    out, _ = capsys.readouterr()
    data = json.loads((tmp_path / "p.json").read_text())
    assert data["n_items"] == data["n_outcome"] == 2
    assert data["baseline_outcome_rate"] == 1.0
    assert all(compression_ratio(item["text"]) > 2.4 for item in data["items"])
    assert {e["component"] for e in data["effects"]} == {f"decoder_blocks.{i}.cross_attn" for i in range(4)}
    assert any(e["resolved"] for e in data["effects"])
    assert not any(w["significant"] for w in data["winners"])  # two clips and four components prove nothing
    if data["winners"]:
        assert "gross damage" in data["price"]["note"]
        assert "price of decoder_blocks" in out
        assert data["price"]["edits"][0]["card"]["speech"]["en"]["wer"]["before"] < 0.1
