"""A graph as a document: shares stay exact, and it prunes on the page as it does here."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from tests.views.graphs import WORDS, made_up_graph, tone

from otoscope.circuits.pruning import edge_influence, keep_strongest
from otoscope.documents.graph import GraphData, GraphDoc
from otoscope.errors import OptionError
from otoscope.studies.graph_making import how_made
from otoscope.studies.graph_page import graph_data, graph_doc

GOLDEN = Path(__file__).parents[2] / "web" / "tests" / "golden" / "graph.json"
SHARES = [(0.3, 0.5), (0.8, 0.8), (0.95, 0.9), (0.99, 0.98), (1.0, 1.0)]


@pytest.fixture(scope="module")
def graph():
    return made_up_graph()


@pytest.fixture(scope="module")
def data(graph):
    return graph_data(graph, node_share=0.9, edge_share=0.9)


def edges_of(data):
    return [getattr(data.edges, name).unpack() for name in ("source", "target", "weight")]


def test_edges_and_rest_make_what_a_node_sums_to(graph, data):
    _, target, weight = edges_of(data)
    for i, node in enumerate(data.nodes):
        if node.inputs is None:
            continue
        own = weight[target == i]
        assert own.sum() + node.inputs.rest == pytest.approx(node.inputs.value, abs=1e-4)
        assert np.abs(own).sum() + node.inputs.rest_mass == pytest.approx(node.inputs.mass, rel=1e-5)
    assert data.left_out.shown_edges == len(weight) < data.left_out.traced_edges == len(graph.weights)


def test_influence_is_that_of_the_whole_graph(graph, data):
    whole = dict(zip(graph.names, graph.influence() / graph.target_weights.sum(), strict=True))
    assert {node.id: node.influence for node in data.nodes} == pytest.approx(
        {node.id: whole[node.id] for node in data.nodes}
    )


def test_nodes_have_their_token_or_their_time(data):
    told = {node.id: node for node in data.nodes}
    target, token = told["target/0"], told["token/2"]
    assert (target.start, target.end) == (data.tokens[11].start, data.tokens[11].end)
    assert (token.position, token.segment, token.label) == (2, None, " and")
    heard = next(node for node in data.nodes if node.stream == "encoder" and node.kind == "feature")
    assert (heard.start, heard.end) == (data.segments[heard.segment].start, data.segments[heard.segment].end)
    assert [token.prompt for token in data.tokens[:3]] == [True, True, False]
    assert data.targets[0].account.value == pytest.approx(sum(data.targets[0].account.sound) + 3.0)


def test_the_strongest_edges_are_kept_and_the_others_join_the_rest(graph):
    kept = keep_strongest(graph, 50)
    assert len(kept.weights) == 50
    floor = np.sort(edge_influence(graph))[-50]
    assert (edge_influence(graph) >= floor).sum() == 50
    np.testing.assert_allclose(
        kept.matrix.sum(axis=1).A1
        if hasattr(kept.matrix.sum(axis=1), "A1")
        else np.asarray(kept.matrix.sum(axis=1)).ravel() + 0 * kept.rest,
        kept.values - kept.rest,
    )


def test_the_document_holds_its_sound_and_comes_back_whole(graph):
    doc = graph_doc(graph, clip=tone(), compare=made_up_graph(seed=1))
    again = GraphDoc.model_validate_json(doc.dumps())
    assert again == doc
    assert doc.sound.audio.duration == 7.0
    assert doc.resources["audio"].media_type == "audio/wav"
    assert doc.other is not None
    assert doc.title == "What made whisper-made-up write 'country'"


def test_without_the_recording_there_is_a_graph_all_the_same(graph):
    assert graph_doc(graph).sound is None


def test_the_command_and_the_python_that_make_it_are_told(graph):
    made = how_made(graph)
    assert made.command == (
        "otoscope trace up.wav --token 9 --model whisper-made-up --nodes 40 --segments words --encoder-nodes 20"
    )
    compile(made.python, "made", "exec")
    odd = replace(
        graph, record=graph.record | {"audio": graph.record["audio"] | {"source": "a 'b\" $(c).wav"}}
    )
    assert "'a '\"'\"'b\" $(c).wav'" in how_made(odd).command
    compile(how_made(odd).python, "made", "exec")


def recorded(graph, start=0.0, **record):
    told = graph.record | record
    return replace(graph, record=told | {"audio": told["audio"] | {"start": start}})


def test_the_window_is_told_to_a_millisecond_and_the_language_where_the_model_knows_several(graph):
    made = how_made(recorded(graph, 12345.6784, language="en"))
    assert "--offset 12345.678 --language en" in made.command
    assert "offset=12345.678, options=oto.DecodeOptions(language='en')" in made.python
    assert "--offset 600 " in how_made(recorded(graph, 600.0, language="en")).command + " "
    assert "--language" not in how_made(recorded(graph, language="fr")).command  # its prompt names none such
    assert graph_doc(recorded(graph, language="en")).settings["language"] == "en"
    assert "language" not in graph_doc(graph).settings


def test_no_folder_of_whoever_made_the_page_is_in_it(graph):
    secret = replace(
        graph, record=graph.record | {"audio": graph.record["audio"] | {"source": "parcels/x1y2/up.wav"}}
    )
    assert "x1y2" not in graph_doc(secret, clip=tone()).dumps()


def test_dictionaries_come_with_the_folder_they_can_be_loaded_from_or_with_none(graph, data):
    assert (data.dictionary_folder, data.encoder_dictionary_folder) == ("neurons", "neurons")
    trained = replace(
        graph, record=graph.record | {"encoder_dictionary": {"kind": "transcoders", "name": "mine"}}
    )
    assert graph_data(trained).encoder_dictionary_folder is None
    assert "--encoder-dictionary FOLDER" in graph_data(trained).made.command
    told = graph_data(trained, folders={"dictionary": "neurons", "encoder_dictionary": "dicts/mine"})
    assert (told.encoder_dictionary, told.encoder_dictionary_folder) == ("mine", "dicts/mine")
    assert "--encoder-dictionary dicts/mine" in told.made.command
    gated = replace(graph, record=graph.record | {"dictionary": {"kind": "neurons", "gate": "up"}})
    assert graph_data(gated).dictionary_folder == "neurons:up"
    assert "--dictionary neurons:up" in how_made(gated).command


def test_shares_outside_of_their_range_are_refused(graph):
    with pytest.raises(OptionError, match="no share"):
        graph_data(graph, node_share=1.5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda told: told["nodes"].append(told["nodes"][0]), "same id"),
        (lambda told: told["targets"].clear(), "target"),
        (lambda told: told["nodes"][0].update(stream="nowhere"), "stream"),
        (lambda told: told["nodes"][0].update(position=99), "token or segment"),
        (lambda told: told["targets"][0]["account"]["sound"].pop(), "account"),
    ],
)  # fmt: skip
def test_parts_that_do_not_agree_are_refused(data, change, words):
    told = json.loads(data.model_dump_json(exclude_none=True))
    change(told)
    with pytest.raises(ValidationError, match=words):
        GraphData.model_validate(told)


def golden():
    graph = made_up_graph(features=30, edges=200, words=WORDS[:8], seconds=4.0, seed=3)
    whole = graph_data(graph, node_share=1.0, edge_share=1.0)
    cases = []
    for shares in SHARES:
        part = graph.prune(*shares).graph
        cases.append({"shares": shares, "nodes": list(part.names), "edges": len(part.weights)})
    return {
        "graph": json.loads(
            whole.dumps() if hasattr(whole, "dumps") else whole.model_dump_json(exclude_none=True)
        ),
        "cases": cases,
    }


def test_the_page_prunes_by_the_same_rule():
    """The page's own tests read this file; `python -m tests.studies.test_graph_page` writes it."""
    assert json.loads(GOLDEN.read_text())["cases"] == json.loads(json.dumps(golden()["cases"]))


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(golden(), indent=1) + "\n")


def test_the_bias_of_the_output_is_told_from_those_of_layers(graph, data):
    out = next(node for node in data.nodes if node.kind == "target")
    labels = {"layer": set(), "output": set()}
    for node in data.nodes:
        if node.kind == "bias":
            behind = (node.stream, node.layer) == (out.stream, out.layer)
            labels["output" if behind else "layer"].add(node.label)
    assert labels == {"layer": {"bias"}, "output": {"the output's own bias"}}
