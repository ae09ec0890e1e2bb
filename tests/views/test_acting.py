"""What a page may run: JSON in, JSON out, and every refusal one that a person understands."""

import base64
import io

import numpy as np
import pytest
import soundfile
from tests.conftest import tiny

import otoscope as oto
from otoscope.documents.base import Resource
from otoscope.documents.kinds import document_of
from otoscope.errors import DictionaryError, OptionError
from otoscope.progress import Silence, reporting_to
from otoscope.views.acting import Acts, clip_of


def test_the_sound_comes_from_the_document(make_doc):
    doc = make_doc()
    clip = clip_of(doc)
    raw, _ = soundfile.read(io.BytesIO(base64.b64decode(doc.resources["audio"].data)), dtype="float32")
    np.testing.assert_array_equal(clip.samples, raw)
    assert clip.source == doc.audio.file
    with pytest.raises(OptionError, match="carries no sound"):
        clip_of(doc.model_copy(update={"resources": {"other": Resource(media_type="a/b", data="")}}))


def sounding(doc, samples, rate=16_000, form="FLAC"):
    """The document with another sound."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=form)
    data = base64.b64encode(buffer.getvalue()).decode()
    return doc.model_copy(update={"resources": {"audio": Resource(media_type="audio/x", data=data)}})


def test_a_few_bytes_that_unpack_to_hours_are_not_unpacked(make_doc, monkeypatch):
    doc = make_doc(tokens=["a"], text="a", duration=0.5)
    assert clip_of(sounding(doc, np.zeros(30 * 16_000)), 30.0).duration == 30.0
    long, wide = sounding(doc, np.zeros(600 * 16_000)), sounding(doc, np.zeros((30 * 16_000, 8)))
    assert len(long.resources["audio"].data) < 200_000
    monkeypatch.setattr(soundfile, "read", lambda *_, **__: pytest.fail("it was read"))
    for trap in (long, wide):
        with pytest.raises(OptionError, match="longer than one window of 30 s"):
            clip_of(trap, 30.0)


def test_sound_that_is_damaged_is_refused(make_doc):
    data = base64.b64encode(b"no sound").decode()
    resources = {"audio": Resource(media_type="audio/wav", data=data)}
    with pytest.raises(OptionError, match="damaged"):
        clip_of(make_doc().model_copy(update={"resources": resources}))


@pytest.mark.parametrize(
    ("op", "args", "words"),
    [
        ("eval", {}, "no operation 'eval'"),
        ("run", {}, "no operation 'run'"),
        ("intervene", {}, "about whisper-tiny.en"),
    ],
)
def test_what_is_not_offered_or_not_about_this_model_is_refused(make_doc, op, args, words):
    with pytest.raises(OptionError, match=words):
        Acts(tiny("whisper")).run(op, args, make_doc())


@pytest.fixture(scope="module")
def acting(tiny_en, explained):
    return Acts(tiny_en), explained


@pytest.mark.weights
def test_an_intervention_from_a_page_is_the_one_from_python(acting, austen):
    acts, doc = acting
    wanted = {"silence": [[0.4, 0.9]], "zero": ["decoder_blocks.2.cross_attn.3"]}
    answer = acts.run("intervene", {"intervention": wanted, "controls": 1}, doc)
    outcome = document_of(answer)
    own = oto.intervene(acts.model, austen, oto.Intervention(**wanted), controls=1)
    assert outcome.after == own.after
    assert outcome.words == own.words
    assert "'austen-0880.flac'" in outcome.python


@pytest.mark.weights
@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"intervention": {"silence": [[1, "x"]]}}, "silence"),
        ({"intervention": {"zero": "decoder_blocks.2.mlp"}}, "zero"),
        ({"intervention": []}, "intervention"),
        ({"intervention": {"rm": 1}}, "rm"),
        ({"intervention": {"features": ["encoder:9:1=0"]}}, "encoder"),
        ({"intervention": {"dictionary": "/nowhere", "features": ["decoder:1:1=0"]}}, "no dictionary"),
        ({"controls": 10_000}, "controls"),
        ({"seed": True}, "seed"),
        ({"language": 3}, "language"),
        ({"shell": "ls"}, "shell"),
    ],
)
def test_arguments_of_any_kind_are_refused_with_a_reason(acting, args, words):
    acts, doc = acting
    with pytest.raises(oto.OtoscopeError, match=words):
        acts.run("intervene", args, doc)


@pytest.mark.weights
def test_a_listener_that_raises_stops_the_work_and_leaves_no_hook(acting):
    class StoppedError(Exception):
        pass

    class Stopping(Silence):
        def advance(self, amount=1):
            raise StoppedError

    acts, doc = acting
    with pytest.raises(StoppedError), reporting_to(Stopping()):
        acts.run("intervene", {"intervention": {"zero": ["decoder_blocks.2.mlp"]}}, doc)
    assert not acts.model.open_hooks


@pytest.fixture(scope="module")
def reading():
    """A tiny language model with a tokenizer, a page of its lens and one of a graph of the same prompt."""
    from tests.models.tokenizers import word_tokenizer

    from otoscope.circuits.tracer import TraceSettings
    from otoscope.studies.lens import Reader
    from otoscope.studies.lens_page import lens_doc

    model, prompt = tiny("llama"), "w5 w9 w11 w4 w7"
    model.processor = word_tokenizer(97)
    graph = oto.trace(model, prompt, settings=TraceSettings(nodes=60))
    return (
        Acts(model),
        lens_doc(Reader(model).prompt(prompt)),
        oto.graph_doc(graph, node_share=1.0, edge_share=1.0),
    )


def test_a_prompt_on_a_page_is_continued_as_from_python(reading):
    acts, *docs = reading
    wanted = oto.Intervention(zero=("blocks.1.attn.2",))
    own = oto.intervene_prompt(acts.model, "w5 w9 w11 w4 w7", wanted, tokens=3, controls=1)
    for doc in docs:
        answer = acts.run("intervene", {"intervention": wanted.model_dump(), "tokens": 3, "controls": 1}, doc)
        assert document_of(answer) == own.model_copy(update={"seconds": answer["seconds"]})
    with pytest.raises(OptionError, match="no 'language'"):
        acts.run("intervene", {"language": "fr"}, docs[0])


def test_an_edge_of_a_page_is_split_by_head(reading):
    acts, _, doc = reading
    graph, told = doc.graph, doc.graph.splits[0]
    ends = {"source": graph.nodes[told.source].id, "target": graph.nodes[told.target].id}
    answer = acts.run("split", {"place": "graph"} | ends, doc)
    assert answer["residual"] == pytest.approx(told.residual, abs=1e-5)
    assert (answer["source"], answer["target"]) == (told.source, told.target)


@pytest.mark.parametrize(
    "place",
    [
        "other",
        "graph/nodes/0",
        "circuits/0/graph",
        "__class__",
        "graph/nodes/-1",
        "",
        "title/x",
        "resources/audio",
        "graph/nodes/" + "9" * 5000,
    ],
)
def test_a_graph_that_is_not_there_is_refused(reading, place):
    acts, _, doc = reading
    with pytest.raises(OptionError, match="no graph at"):
        acts.run("split", {"place": place, "source": "a", "target": "b"}, doc)
    with pytest.raises(OptionError, match="missing or no text"):
        acts.run("split", {"place": place, "source": 1, "target": "b"}, doc)


def test_a_graph_whose_targets_lie_beyond_its_tokens_is_refused(reading):
    acts, _, doc = reading
    target = doc.graph.targets[0].model_copy(update={"position": 99})
    odd = doc.model_copy(update={"graph": doc.graph.model_copy(update={"targets": [target]})})
    with pytest.raises(OptionError, match="no position 99"):
        acts.run("split", {"place": "graph", "source": "token/4", "target": "target/0"}, odd)


@pytest.mark.parametrize("name", ["/", "..", "served/../..", "served/link", "a\0b", "x" * 5000])
def test_a_server_reads_no_dictionary_outside_its_folder(reading, tmp_path, monkeypatch, name):
    acts, _, doc = reading
    monkeypatch.chdir(tmp_path)
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "link").symlink_to("/")
    served = Acts(acts.model, within=tmp_path / "served")
    changed = {"features": ["text:0:1=0"], "dictionary": name}
    odd = doc.model_copy(update={"graph": doc.graph.model_copy(update={"dictionary_folder": name})})
    with pytest.raises(OptionError, match="not in the folder that is served"):
        served.run("split", {"place": "graph", "source": "token/4", "target": "target/0"}, odd)
    with pytest.raises(OptionError, match="not in the folder that is served"):
        served.run("intervene", {"intervention": changed}, doc)


def test_a_server_reads_the_dictionaries_of_its_folder(reading, tmp_path):
    acts, _, doc = reading
    served = Acts(acts.model, within=tmp_path)
    own = {"features": ["text:0:1=0"], "dictionary": "neurons:half"}
    assert served.run("intervene", {"intervention": own, "tokens": 1, "controls": 0}, doc)
    with pytest.raises(DictionaryError, match="There is no dictionary"):  # it was looked for
        served.run("intervene", {"intervention": own | {"dictionary": str(tmp_path / "mine")}}, doc)
