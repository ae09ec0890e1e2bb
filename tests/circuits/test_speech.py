"""Tracing a recogniser: every row of the graph sums to its target, encoder closed or opened, and the account is complete."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.circuits.cases import Random
from tests.circuits.test_exchange import require_valid
from tests.conftest import tiny

from otoscope.circuits.adjoint import Sweep
from otoscope.circuits.graph import FEATURE, FRAME
from otoscope.circuits.heads import split_by_head
from otoscope.circuits.hearing import EncoderSweep
from otoscope.circuits.neuronpedia import read_neuronpedia, to_neuronpedia, write_neuronpedia
from otoscope.circuits.saving import load_graph, save_graph
from otoscope.circuits.scores import grounding
from otoscope.circuits.segments import fixed
from otoscope.circuits.speech_tracing import SpeechSettings, SpeechTracer
from otoscope.circuits.summary import summary_lines
from otoscope.circuits.targets import contrast_target, target_seeds, token_target
from otoscope.circuits.totals import totals
from otoscope.dictionaries.activation import Activation
from otoscope.dictionaries.transcoder import Transcoder, TranscoderSet
from otoscope.errors import DictionaryError, GraphError, OptionError

pytestmark = pytest.mark.usefixtures("one_thread")

IDS = torch.tensor([2, 5, 9, 11, 4, 7])
FRAMES, SOUNDING, WIDTH = 50, 34, 48
CLOSED = SpeechSettings(nodes=40, update=16)
OPENED = replace(CLOSED, encoder_nodes=30, carried=15)


@pytest.fixture(scope="module")
def model():
    model = tiny("whisper", dtype=torch.float64)
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():  # random models come without biases, which must not be lost
        for name, weight in model.hf.named_parameters():
            if name.endswith("bias"):
                weight.copy_(torch.randn(weight.shape, generator=noise, dtype=weight.dtype) / 4)
    return model


@pytest.fixture(scope="module")
def features():
    return torch.randn(1, 16, 2 * FRAMES, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def transcoders(layers):
    make = Random(7)
    return TranscoderSet([
        Transcoder(make(40, WIDTH), make(40), make(40, WIDTH), make(WIDTH), Activation("relu")) for _ in range(layers)
    ])  # fmt: skip


def tracer(model, features, settings=CLOSED, *dictionaries):
    segments = fixed(FRAMES, SOUNDING, 0.14)
    return SpeechTracer(
        model, features, IDS, segments, *dictionaries, *[None] * (2 - len(dictionaries)), settings=settings
    )


def sums(graph):
    return np.asarray(graph.matrix.sum(axis=1)).ravel() + graph.rest


KINDS = {"neurons": lambda: (), "transcoders": lambda: (transcoders(2), transcoders(3))}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("settings", [CLOSED, OPENED], ids=["closed", "opened"])
def test_every_row_sums_to_its_target(model, features, settings, kind):
    made = tracer(model, features, settings, *KINDS[kind]())
    graph = made.graph([5, token_target(model, made.tape, 9, 2)])
    np.testing.assert_allclose(sums(graph), graph.values, rtol=1e-9, atol=1e-11)
    logits = made.tape.logits - made.tape.logits.mean(dim=-1, keepdim=True)
    np.testing.assert_allclose(graph.values[-2:], [logits[-1, 5], logits[2, 9]], rtol=1e-9)
    assert len(set(graph.names)) == len(graph.names)


def test_opening_the_encoder_puts_what_is_behind_its_output_in_the_place_of_it(model, features):
    closed, opened = (tracer(model, features, s).graph(5) for s in (CLOSED, OPENED))
    np.testing.assert_allclose(closed.values[-1], opened.values[-1], rtol=1e-12)
    before, after = closed.row("target/0"), opened.row("target/0")
    heard = [name for name in before if name.startswith("frame/")]
    behind = [name for name in after if name.startswith("encoder/")]
    assert heard
    assert behind
    assert not [name for name in after if name.startswith("frame/")]
    carried = sum(after[name] for name in behind) + after["rest"] - before["rest"]
    assert carried == pytest.approx(sum(before[name] for name in heard), rel=1e-9)
    kinds = {name.split("/")[1] for name in behind}
    assert kinds == {"feature", "frame", "position", "bias"}


def test_the_encoder_is_recorded_only_where_it_is_needed_and_the_graph_is_checked_all_the_same(
    model, features
):
    encoded = model.encode(features)
    known = SpeechTracer(
        model, features, IDS, fixed(FRAMES, SOUNDING, 0.14), settings=CLOSED, encoded=encoded
    )
    graph = known.graph([5])
    assert graph.tracer.tape.heard is None
    told = graph.check(features=8)
    assert graph.tracer.tape.heard is not None
    again = tracer(model, features)
    assert told.to_dict() == again.graph([5]).check(features=8).to_dict()


def test_encoder_features_are_nodes_over_a_segment_with_its_time(model, features):
    made = tracer(model, features, OPENED)
    graph = made.graph(5)
    n = graph.nodes
    inside = np.flatnonzero((n.kind == FEATURE) & (np.array(n.stream) == "encoder"))
    assert len(inside) == 30
    for i in inside:
        spans = made.segments.spans[n.pos[i]]
        assert tuple(n.span[i]) == spans
        frames = made.segments.frames(int(n.pos[i]))
        pooled = made.encoder.sources.activation[n.layer[i]][frames, n.feature[i]].sum()
        assert n.activation[i] == pytest.approx(float(pooled))
    assert np.isnan(n.span[(n.kind == FEATURE) & (np.array(n.stream) == "decoder")]).all()
    told = {node["id"]: node for node in graph.to_dict()["nodes"]}
    assert told[graph.names[inside[0]]]["span"] == list(n.span[inside[0]])


@pytest.mark.parametrize("settings", [CLOSED, OPENED], ids=["closed", "opened"])
def test_a_segment_that_is_opened_into_frames_is_their_sum_and_everything_else_stays(
    model, features, settings
):
    made = tracer(model, features, settings)
    whole = made.graph(5)
    opened = made.with_segments(made.segments.opened(1, 0.02)).graph(5)
    kind = "encoder/frame/-1" if settings is OPENED else f"frame/{model.config.encoder_layers}"
    before, after = whole.row("target/0"), opened.row("target/0")
    frames = sum(after[f"{kind}/{segment}"] for segment in range(1, 8))
    assert frames == pytest.approx(before[f"{kind}/1"], rel=1e-9)
    assert after[f"{kind}/8"] == pytest.approx(before[f"{kind}/2"], rel=1e-9)
    np.testing.assert_allclose(sums(opened), opened.values, rtol=1e-9, atol=1e-11)
    features_of = lambda row: {k: v for k, v in row.items() if k.startswith("feature")}  # noqa: E731
    assert features_of(after) == pytest.approx(features_of(before), rel=1e-9)
    assert made.segments.opened(1, 0.02).index.max() == made.segments.index.max() + 6


def test_a_contrast_is_the_difference_of_two_graphs(model, features):
    made = tracer(model, features)
    both = [token_target(model, made.tape, t) for t in (5, 9)]
    rows = [made.graph(target).row("target/0") for target in both]
    graph = made.graph(contrast_target(model, made.tape, 5, 9, len(IDS) - 1))
    found = graph.row("target/0")
    assert graph.targets[0].against == 9
    for name in [n for n in found if n.startswith(("token", "frame", "bias", "position"))]:
        assert found[name] == pytest.approx(rows[0].get(name, 0) - rows[1].get(name, 0), rel=1e-9, abs=1e-12)
    with pytest.raises(OptionError, match="itself"):
        contrast_target(model, made.tape, 5, 5, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_edges_of_sound_and_of_features_split_exactly_by_head(model, features, kind):
    graph = tracer(model, features, CLOSED, *KINDS[kind]()).graph(5)
    row = graph.row("target/0")
    for start in ("frame/", "feature/0/", "token/"):
        name = next(n for n in row if n.startswith(start))
        split = split_by_head(graph, name, "target/0")
        assert split.edge == pytest.approx(row[name], rel=1e-9)
        assert (split.cross.abs().sum() > 0) == (start == "frame/")
    opened = tracer(model, features, OPENED).graph(5)
    heard = next(n for n in opened.names if n.startswith("encoder/feature"))
    with pytest.raises(GraphError, match="stack that hears"):
        split_by_head(opened, heard, "target/0")


@pytest.mark.parametrize("kind", KINDS)
def test_the_account_of_all_paths_sums_to_the_target_and_heads_to_the_sound(model, features, kind):
    made = tracer(model, features, CLOSED, *KINDS[kind]())
    graph = made.graph([5, 9])
    assert graph.tracer
    account = totals(graph.tracer)
    np.testing.assert_allclose(account.value, graph.values[-2:], rtol=1e-9)
    torch.testing.assert_close(account.heads.sum(dim=(1, 2)), account.sound, rtol=1e-9, atol=1e-11)
    assert sum(account.shares(0).values()) == pytest.approx(1)


def test_patches_of_the_spectrogram_are_what_is_heard_less_what_encoder_positions_and_biases_supply(
    model, features
):
    made = tracer(model, features)
    graph = made.graph(5)
    assert isinstance(graph.tracer, SpeechTracer)
    found = graph.tracer.patches()
    assert found.parts.shape == (1, 16, 2 * FRAMES)
    heard = Sweep(made.tape, made.dictionary, made.sources, through=True).heard(
        target_seeds(made.tape, graph.tracer.targets)
    )
    s = made.encoder.sources
    rows = EncoderSweep(s, through=True).from_output(heard)[0]
    total = found.parts.sum() + found.floor[0] + found.biases[0] + rows[s.positions :].sum()
    assert float(total) == pytest.approx(float(totals(graph.tracer).sound.sum()), rel=1e-9)
    with pytest.raises(GraphError, match="no target 1"):
        graph.tracer.patches(1)


def test_grounding_shares_sum_to_one_and_the_ratio_leaves_out_errors_and_rest(model, features):
    graph = tracer(model, features, CLOSED, *KINDS["transcoders"]()).graph([5, 9])
    for target in (None, 0, 1):
        found = grounding(graph, target)
        told = found.to_dict()
        ratio = told.pop("grounding")
        assert sum(told.values()) == pytest.approx(1)
        sources = found.sound + found.text + found.prompt + found.positions + found.biases
        assert ratio == pytest.approx(found.sound / sources)
        assert found.errors > 0
    assert graph.to_dict()["scores"]["grounding"] == grounding(graph).ratio


def test_the_summary_names_the_sound_by_its_time_and_tells_what_was_heard_and_what_was_guessed(
    model, features
):
    made = tracer(model, features, OPENED)
    made.about = {"prompt_tokens": 2}
    lines = "\n".join(summary_lines(made.graph(5)))
    for source in ("the sound", "the words before", "the prompt", "said in any case (biases and positions)"):
        assert f"  {source}\n" in lines  # as the pages call them
    assert "Grounding ratio" in lines
    assert "30 of" in lines
    assert "s (padding)" in lines
    assert "the sound that counts most: " in lines
    assert f"L{model.config.decoder_layers} bias" not in lines  # that one is of no layer


def test_a_speech_graph_is_saved_told_and_read_back(model, features, tmp_path):
    graph = tracer(model, features, OPENED).graph([5, 9])
    save_graph(graph, tmp_path)
    back = load_graph(tmp_path)
    assert back.names == graph.names
    np.testing.assert_array_equal(back.nodes.span, graph.nodes.span)
    told = json.dumps(graph.to_dict(), allow_nan=False)
    assert {"sound", "tokens", "biases"} <= json.loads(told)["totals"][0].keys()
    assert (graph.nodes.kind == FRAME).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("settings", [CLOSED, OPENED], ids=["closed", "opened"])
def test_the_export_to_neuronpedia_is_valid_tells_times_and_comes_back(
    model, features, settings, kind, tmp_path
):
    graph = tracer(model, features, settings, *KINDS[kind]()).graph([5, 9])
    told = to_neuronpedia(graph, "heard", node_share=1.0, edge_share=1.0)
    require_valid(told)
    labels = told["metadata"]["prompt_tokens"]
    assert labels[0] == "0.00-0.14 s"
    heard = [n for n in told["nodes"] if n["clerp"].startswith(("Heard", "Sound"))]
    for node in heard:
        assert node["otoscope"]["span"] == pytest.approx(
            [0.14 * node["ctx_idx"], 0.14 * (node["ctx_idx"] + 1)], abs=0.9
        )
        assert node["layer"] == "E"
    assert heard
    write_neuronpedia(graph, tmp_path / "heard.json")
    again = read_neuronpedia(tmp_path / "heard.json")
    pruned = graph.prune(0.8, 0.98).graph.without_tracer()
    assert again.names == pruned.names
    assert again.to_dict() == pruned.to_dict()


def test_what_does_not_fit_is_refused(model, features):
    with pytest.raises(OptionError, match="0 tokens"):
        SpeechTracer(model, features, IDS[:0], fixed(FRAMES, SOUNDING, 0.14))
    with pytest.raises(DictionaryError, match="3 layers"):
        tracer(model, features, CLOSED, transcoders(3))
    with pytest.raises(DictionaryError, match="2 layers"):
        tracer(model, features, OPENED, transcoders(2), transcoders(2))
