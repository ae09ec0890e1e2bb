"""Tracing Qwen2-Audio: embeddings of sound, and the tower behind them, keep every sum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.circuits.test_speech import sums, transcoders
from tests.conftest import tiny

from otoscope.circuits.audio_language import AudioTracer, trace_audio
from otoscope.circuits.checking import check
from otoscope.circuits.graph import FRAME, PROJECTOR
from otoscope.circuits.scores import grounding
from otoscope.circuits.segments import fixed
from otoscope.circuits.speech_tracing import SpeechSettings
from otoscope.circuits.summary import summary_lines
from otoscope.circuits.targets import token_target
from otoscope.circuits.totals import totals
from otoscope.dictionaries.activation import Activation
from otoscope.dictionaries.transcoder import Transcoder, TranscoderSet
from otoscope.errors import OptionError

pytestmark = pytest.mark.usefixtures("one_thread")

CLOSED = SpeechSettings(nodes=40, update=16)
OPENED = replace(CLOSED, encoder_nodes=30, carried=15)


@pytest.fixture(scope="module")
def model():
    model = tiny("qwen2_audio", dtype=torch.float64)
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():  # random models come without biases, which must not be lost
        for name, weight in model.hf.named_parameters():
            if name.endswith("bias"):
                weight.copy_(torch.randn(weight.shape, generator=noise, dtype=weight.dtype) / 4)
    return model


def inputs(sounding: int = 80):
    """30 ids with a slot for every two frames; `sounding` of 100 columns hear something."""
    g = torch.Generator().manual_seed(5)
    frames = (sounding - 1) // 2 + 1
    slots = (frames - 2) // 2 + 1
    ids = torch.randint(3, 80, (1, slots + 6), generator=g)
    ids[:, 2 : 2 + slots] = 90
    mask = torch.zeros(1, 100, dtype=torch.long)
    mask[:, :sounding] = 1
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "input_features": torch.randn(1, 16, 100, generator=g, dtype=torch.float64),
        "feature_attention_mask": mask,
    }


def tracer(model, settings=CLOSED, *dictionaries, seconds=0.08, sounding=80):
    segments = fixed(50, sounding // 2, seconds)
    return AudioTracer(
        model,
        inputs(sounding),
        segments,
        *dictionaries,
        *[None] * (2 - len(dictionaries)),
        settings=settings,
    )


def of_width(make, width, size, layers):
    return TranscoderSet([
        Transcoder(make(size, width), make(size), make(size, width), make(width), Activation("relu")) for _ in range(layers)
    ])  # fmt: skip


def trained():
    from tests.circuits.cases import Random

    return of_width(Random(7), 32, 40, 2), of_width(Random(8), 40, 40, 3)


KINDS = {"neurons": lambda: (), "transcoders": trained}


@pytest.mark.parametrize("sounding", [100, 80])
def test_both_stacks_run_apart_are_the_model(model, sounding):
    made = tracer(model, sounding=sounding)
    with torch.no_grad():
        whole = model.forward(inputs(sounding)).logits[0]
        apart = model.hf.lm_head(made.forward(1, made.hear(1)))[0]
    torch.testing.assert_close(apart, whole, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(made.hear(1)[0], made.output, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("settings", [CLOSED, OPENED], ids=["closed", "opened"])
@pytest.mark.parametrize("seconds", [0.04, 0.2])
def test_every_row_sums_to_its_target(model, settings, kind, seconds):
    made = tracer(model, settings, *KINDS[kind](), seconds=seconds)
    graph = made.graph([5, token_target(model, made.tape, 9, len(made.ids) - 3)])
    np.testing.assert_allclose(sums(graph), graph.values, rtol=1e-9, atol=1e-11)
    logits = made.tape.logits - made.tape.logits.mean(dim=-1, keepdim=True)
    np.testing.assert_allclose(graph.values[-2:], [logits[-1, 5], logits[-3, 9]], rtol=1e-9)
    assert len(set(graph.names)) == len(graph.names)


def test_opening_the_tower_puts_what_is_behind_the_embeddings_in_their_place(model):
    closed, opened = (tracer(model, s).graph(5) for s in (CLOSED, OPENED))
    before, after = closed.row("target/0"), opened.row("target/0")
    heard = [name for name in before if name.startswith("projector/")]
    behind = [name for name in after if name.startswith("audio_encoder/")]
    assert len(heard) == 20
    assert not [name for name in after if name.startswith("projector/")]
    carried = sum(after[name] for name in behind) + after["rest"] - before["rest"]
    assert carried == pytest.approx(sum(before[name] for name in heard), rel=1e-9)
    assert {name.split("/")[1] for name in behind} == {"feature", "frame", "position", "bias"}
    n = closed.nodes
    spans = n.span[n.kind == PROJECTOR]
    np.testing.assert_allclose(spans[3], [0.12, 0.16])
    assert not (n.kind == FRAME).any()


@pytest.mark.parametrize("kind", KINDS)
def test_the_account_of_all_paths_sums_to_the_target(model, kind):
    graph = tracer(model, CLOSED, *KINDS[kind]()).graph([5, 9])
    account = totals(graph.tracer)
    np.testing.assert_allclose(account.value, graph.values[-2:], rtol=1e-9)
    assert account.sound.shape == (2, 11)
    assert sum(account.shares(0).values()) == pytest.approx(1)
    assert 0 < grounding(graph).sound < 1


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_every_node_moves_what_reads_it_by_its_edge(model, kind):
    graph = tracer(model, OPENED, *KINDS[kind]()).graph([5, 9])
    for name, each in check(graph, 12).kinds.items():
        scale = abs(each.direct.predicted).max()
        np.testing.assert_allclose(
            each.direct.measured, each.direct.predicted, rtol=1e-9, atol=1e-9 * scale, err_msg=name
        )
        assert len(each.direct.measured), name


def test_a_segment_that_cuts_a_pooled_pair_is_refused(model):
    with pytest.raises(OptionError, match="40 ms"):
        tracer(model, seconds=0.06)


def test_a_recording_is_traced_to_what_is_written(model):
    from tests.models.tokenizers import audio_processor

    from otoscope.audio import Clip

    heard = tiny("qwen2_audio")
    heard.processor = audio_processor(heard.config)
    sound = torch.randn(8000, generator=torch.Generator().manual_seed(0)).numpy() / 10
    graph = trace_audio(heard, Clip(sound), 1, prompt="<|AUDIO|> a b", settings=CLOSED, max_tokens=4)
    assert graph.record["token_indices"] == [1]
    assert graph.to_dict()["scores"]["grounding"] > 0
    lines = "\n".join(summary_lines(graph))
    assert "heard 0." in lines
    with pytest.raises(OptionError, match="no token 9"):
        trace_audio(heard, Clip(sound), 9, prompt="<|AUDIO|> a b", settings=CLOSED, max_tokens=4)
    assert transcoders
