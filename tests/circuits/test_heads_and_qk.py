"""Edges split by head, and scores by pairs of sources: both exactly."""

from __future__ import annotations

import pytest
import torch
from tests.circuits.cases import FAMILIES, IDS, Random, model_of

from otoscope.circuits.graph import ERROR, FEATURE, POSITION, TOKEN
from otoscope.circuits.heads import split_by_head
from otoscope.circuits.qk import qk_attribution
from otoscope.circuits.tracer import Tracer, TraceSettings, trace
from otoscope.errors import GraphError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["cross-layer", "skip", "neurons"])
def test_the_parts_of_the_heads_and_of_the_residual_path_sum_to_the_edge(family, kind):
    make, model = Random(), model_of(family)
    dictionary = {"cross-layer": make.cross_layer(skip=True), "skip": make.transcoders("topk", True)}.get(
        kind
    )
    graph = trace(model, IDS, 4, dictionary=dictionary, settings=TraceSettings(nodes=50))
    n = graph.nodes
    sources = [graph.names[i] for kind in (FEATURE, ERROR, TOKEN, POSITION) for i in n.of(kind)[:30:7]]
    late = graph.names[n.of(FEATURE)[-1]]
    carried = 0.0
    for target in ("target/0", late):
        row = graph.row(target)
        for source in sources:
            split = split_by_head(graph, source, target)
            assert split.edge == pytest.approx(row.get(source, 0.0), rel=1e-9, abs=1e-12)
            assert split.heads.shape == (3, 4)
            carried += float(split.heads.abs().sum())
    assert carried > 0


def test_a_head_that_is_ablated_takes_its_part_of_the_edge_with_it():
    """The last layer's heads read the source directly: zeroing one's pattern changes the frozen logit by its part."""
    graph = trace(model_of("llama"), IDS, 4, settings=TraceSettings(nodes=50))
    token = "token/2"
    split = split_by_head(graph, token, "target/0")
    tape = graph.tracer.tape
    from dataclasses import replace

    pattern = tape.attention[2].pattern.clone()
    pattern[1] = 0
    attention = (*tape.attention[:2], replace(tape.attention[2], pattern=pattern))
    tracer = Tracer(graph.tracer.model, IDS, graph.tracer.dictionary)
    tracer.tape = replace(tape, attention=attention)
    tracer.sweep.tape = tracer.tape
    from otoscope.circuits.targets import target_seeds

    row = tracer.rows(target_seeds(tracer.tape, graph.tracer.targets))[0]
    assert graph.row("target/0")[token] - float(row[tracer.sources.tokens + 2]) == pytest.approx(
        float(split.heads[2, 1])
    )
    assert split.strongest(1)[0][0].startswith("L")


def test_only_nodes_that_write_and_read_in_one_place_can_be_asked_about():
    graph = trace(model_of("gpt2"), IDS, 4, settings=TraceSettings(nodes=50))
    with pytest.raises(GraphError, match="has no sources"):
        split_by_head(graph, "token/1", "token/2")
    with pytest.raises(GraphError, match="many places"):
        split_by_head(graph, "bias/0", "target/0")
    with pytest.raises(GraphError, match="no node 'token/99'"):
        split_by_head(graph, "token/99", "target/0")


@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_of_sources_sum_to_the_score_of_the_model(family):
    model = model_of(family)
    tracer = Tracer(model, IDS, Random().transcoders("relu", True))
    names = [f"blocks.{layer}.attn.hook_attn_scores" for layer in range(3)]
    _, cache = model.run_with_cache(torch.tensor([IDS]), names)
    for layer, head, query, key in ((0, 1, 5, 5), (1, 3, 8, 4), (2, 0, 6, 1)):
        found = qk_attribution(tracer, layer, head, query, key)
        score = float(cache[names[layer]][0, head, query, key])
        if family == "gemma2":  # capped in the model
            score = float(torch.atanh(torch.tensor(score / 50, dtype=torch.float64)) * 50)
        if score > -1e30:  # not outside a sliding window
            assert found.score == pytest.approx(score, rel=1e-6)
        every = torch.arange(tracer.sources.columns)
        assert float(found.pairs(every, every).sum()) == pytest.approx(found.score, rel=1e-9)
        assert float(found.by_query.sum()) == pytest.approx(found.score, rel=1e-9)
        assert float(found.by_key.sum()) == pytest.approx(found.score, rel=1e-9)


def test_the_strongest_pairs_are_named():
    tracer = Tracer(model_of("gpt2"), IDS, Random().transcoders())
    found = qk_attribution(tracer, 1, 2, 7, 3)
    pairs = found.strongest(4, among=10**6)
    table = found.pairs(*[torch.arange(tracer.sources.columns)] * 2)
    assert [part for *_, part in pairs] == pytest.approx(
        sorted(table.flatten().tolist(), key=abs, reverse=True)[:4]
    )
    kinds = {name.split("/")[0] for q, k, _ in pairs for name in (q, k)}
    assert kinds <= {"feature", "error", "token", "position", "bias"}
    assert found.to_dict()["score"] == found.score


@pytest.mark.parametrize(
    ("place", "words"), [((3, 0, 1, 0), "no layer 3"), ((0, 4, 1, 0), "Head 4 of 4"), ((0, 0, 1, 2), "at 2")]
)
def test_heads_and_positions_that_do_not_exist_are_refused(place, words):
    tracer = Tracer(model_of("llama"), IDS)
    with pytest.raises(GraphError, match=words):
        qk_attribution(tracer, *place)
