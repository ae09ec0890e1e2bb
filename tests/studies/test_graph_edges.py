"""Any edge of a page's graph is split by the model as it is while the graph is traced."""

import pytest
from tests.conftest import tiny
from tests.models.tokenizers import word_tokenizer

import otoscope as oto
from otoscope.circuits.tracer import TraceSettings
from otoscope.documents.graph import GraphData
from otoscope.errors import GraphError, OptionError
from otoscope.studies.graph_edges import EdgeSplitter, edge_weights
from otoscope.studies.graph_page import graph_data


@pytest.fixture(scope="module")
def model():
    made = tiny("llama")
    made.processor = word_tokenizer(97)
    return made


@pytest.fixture(scope="module")
def data(model):
    graph = oto.trace(model, "w5 w9 w11 w4 w7", settings=TraceSettings(nodes=60))
    return GraphData.model_validate_json(graph_data(graph, node_share=1, edge_share=1).model_dump_json())


@pytest.fixture(scope="module")
def splitter(model, data):
    return EdgeSplitter(model, data, None)


def ids(data, edge):
    return data.nodes[edge[0]].id, data.nodes[edge[1]].id


def test_what_the_page_carries_is_what_the_model_says_again(data, splitter):
    for told in data.splits[:10]:
        again = splitter.split(*ids(data, (told.source, told.target)))
        assert [(h.layer, h.head) for h in again.heads] == [(h.layer, h.head) for h in told.heads]
        assert again.residual == pytest.approx(told.residual, abs=1e-5)
        assert [s.score for s in again.scores] == pytest.approx(
            [s.score for s in told.scores if again.scores], abs=1e-4
        )


def test_edges_that_came_without_their_heads_are_split_and_sum_to_the_edge(data, splitter):
    weights, carried = edge_weights(data), {(s.source, s.target) for s in data.splits}
    others = [e for e in weights if e not in carried and data.nodes[e[0]].kind in ("feature", "token")]
    assert len(others) > 20
    for edge in others[:20]:
        split = splitter.split(*ids(data, edge))
        total = sum(h.part for h in split.heads) + split.others + split.residual + split.skip
        assert total == pytest.approx(weights[edge], abs=1e-4)


def test_what_is_no_edge_or_cannot_be_split_is_refused(data, splitter):
    target = data.nodes[data.targets[0].node].id
    with pytest.raises(OptionError, match="no edge"):
        splitter.split(target, "token/0")
    with pytest.raises(GraphError, match="no node"):
        splitter.split("token/99", target)


def test_a_model_that_gives_other_edges_is_told_from_the_one_that_was_traced(data):
    other = tiny("llama", seed=1)
    other.processor = word_tokenizer(97)
    with pytest.raises(OptionError, match="as the page has it"):
        EdgeSplitter(other, data, None).split("token/4", "target/0")
