"""The server of runs as its clients meet it: a real port, every reason to be refused, and nothing lost or left half-written."""

from __future__ import annotations

import base64
import gc
import gzip
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

import pytest
from tests.views.served import KEY, serving

import otoscope as oto
from otoscope.documents.explain import ExplainDoc
from otoscope.runs.annotations import AnnotationStore
from otoscope.views import server_runs
from otoscope.views.page import render_page, save_page
from otoscope.views.server import Limits
from otoscope.views.server_entries import entry_of, id_of
from otoscope.views.server_jobs import CancelledError, Job
from otoscope.views.server_summary import summary
from otoscope.views.server_work import free_name, plain_name

httpx = pytest.importorskip("httpx")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    limits = Limits(upload=2**20, body=100_000, waiting=2, idle=3.0)
    with serving(tmp_path_factory.mktemp("runs"), limits) as running:
        yield running


@pytest.fixture
def folder(served):
    """The folder, empty again afterwards."""
    yield served.folder
    for path in sorted(served.folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


@pytest.fixture
def client(served):
    with served.client() as one:
        yield one


def runs(client):
    told = client.get("/api/runs").json()
    assert told["unread"] == 0
    return {run["path"]: run for run in told["runs"]}


def refused(answer, status):
    assert answer.status_code == status
    told = answer.json()
    assert told["reason"].endswith(".")
    assert told["remedy"].endswith(".")
    return told["reason"]


def wait_for(condition, seconds=300.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


# Who may ask


@pytest.mark.parametrize("path", ["/api/about", "/api/runs", "/api/runs/0/document", "/api/jobs/0"])
@pytest.mark.parametrize(
    "shown", [None, "", "Bearer", "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x", "Bearer \xe9"]
)
def test_without_the_key_nothing_is_told(served, path, shown):
    with served.client(headers={"Authorization": "" if shown is None else shown.encode("latin-1")}) as client:
        refused(client.get(path), 401)


def test_a_missing_key_is_not_called_a_wrong_one(served):
    with served.client(headers={"Authorization": ""}) as client:
        assert client.get("/api/about").json()["reason"] == "The address has no key."
    with served.client(headers={"Authorization": "Bearer wrong"}) as client:
        assert client.get("/api/about").json()["reason"] == "The key is wrong."


def test_the_sound_of_a_lens_has_its_length_in_the_list():
    assert summary({"kind": "lens", "title": "a.wav", "duration": 7.1})["duration"] == 7.1


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1:1", ""])
def test_under_another_name_nothing_is_told(client, host):
    for path in ("/", "/api/runs", "/static/page.js"):
        refused(client.get(path, headers={"Host": host}), 403)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1:1"])
def test_from_another_page_nothing_is_told(client, origin):
    refused(client.get("/api/runs", headers={"Origin": origin}), 403)
    refused(client.post("/api/explain", content=b"", headers={"Origin": origin}), 403)


def test_its_own_page_may_ask_and_no_other_is_let_in_by_headers(served, client):
    answer = client.get("/api/runs", headers={"Origin": f"http://{served.address}"})
    assert answer.status_code == 200
    for path in ("/", "/run/0", "/api/runs", "/static/page.css", "/nowhere"):
        headers = client.get(path).headers
        assert not [name for name in headers if name.startswith("access-control")]
    page = client.get("/").headers
    assert "frame-ancestors 'none'" in page["content-security-policy"]
    assert "script-src 'self';" in page["content-security-policy"]
    assert "frame-ancestors 'self'" in client.get("/beside/0").headers["content-security-policy"]
    assert (page["x-content-type-options"], page["referrer-policy"]) == ("nosniff", "no-referrer")
    assert KEY not in client.get("/").text


# Runs


def test_pages_and_directories_are_found_below_and_summed_up(client, folder, doc):
    (folder / "deep" / "er").mkdir(parents=True)
    save_page(doc, folder / "deep" / "er" / "jfk.html")
    (folder / "probe").mkdir()
    (folder / "probe" / "run.json").write_text(
        json.dumps({"kind": "probe", "settings": {"model": "m", "x": 1}})
    )
    (folder / "report.html").write_text("<html><title>a page of someone else's")
    found = runs(client)
    assert set(found) == {"deep/er/jfk.html", "probe/run.json"}
    run = found["deep/er/jfk.html"]
    assert (run["kind"], run["model"], run["duration"]) == ("explain", "whisper-tiny.en", 11.0)
    assert run["text"].startswith("And so, my fellow")
    assert found["probe/run.json"]["title"] == "probe"
    described = client.get(f"/api/runs/{found['probe/run.json']['id']}/description").json()
    assert described["settings"] == {"model": "m", "x": 1}
    refused(client.get(f"/api/runs/{found['probe/run.json']['id']}/document"), 422)


def test_what_has_been_seen_is_not_sent_again_until_it_changes(client, folder, make_doc):
    small = make_doc(tokens=["a"], text="a", duration=0.5)
    save_page(small, folder / "a.html")
    seen = client.get("/api/runs").json()["seen"]
    assert "runs" not in client.get(f"/api/runs?seen={seen}").json()
    save_page(small, folder / "b.html")
    assert len(client.get(f"/api/runs?seen={seen}").json()["runs"]) == 2
    (folder / "a.html").unlink()
    assert set(runs(client)) == {"b.html"}


def test_a_document_comes_as_it_was(client, folder, doc):
    save_page(doc, folder / "a.html")
    answer = client.get(f"/api/runs/{id_of('a.html')}/document")
    assert ExplainDoc.model_validate_json(answer.text) == doc
    assert oto.read_document(folder / "a.html") == doc


@pytest.mark.parametrize(
    "path", ["/static/..%2f..%2fserver.py", "/static/../server.py", "/api/runs/..%2f..%2fetc%2fpasswd/document",
             "/api/runs/%2fetc%2fpasswd/page", "/api/runs/a.html/document", "/static/live.html"],
)  # fmt: skip
def test_no_path_leads_anywhere(served, path, folder, doc):
    save_page(doc, folder / "a.html")
    connection = http.client.HTTPConnection(served.address, timeout=10)  # sends the path as it is
    connection.request("GET", path, headers={"Authorization": f"Bearer {KEY}"})
    answer = connection.getresponse()
    assert answer.status == 404
    assert b"root:" not in answer.read()
    connection.close()


def test_links_are_not_followed_be_they_there_from_the_start_or_put_in_later(client, folder, tmp_path, doc):
    save_page(doc, tmp_path / "outside.html")
    (folder / "link.html").symlink_to(tmp_path / "outside.html")
    (folder / "linked").symlink_to(tmp_path, target_is_directory=True)
    assert runs(client) == {}
    (folder / "sub").mkdir()
    save_page(doc, folder / "sub" / "outside.html")
    assert set(runs(client)) == {"sub/outside.html"}
    (folder / "sub" / "outside.html").unlink()
    (folder / "sub").rmdir()
    (folder / "sub").symlink_to(tmp_path, target_is_directory=True)
    refused(client.get(f"/api/runs/{id_of('sub/outside.html')}/document"), 404)


def page_with(data, packed=True):
    """A page of otoscope that carries other data."""
    head, _, rest = render_page_of_small().partition('<script type="application/json" id="document">')
    tail = rest[rest.index("</script>") :]
    encoding = ' data-encoding="gzip"' if packed else ""
    return f'{head}<script type="application/json" id="document"{encoding}>{data}{tail}'


def render_page_of_small():
    from tests.views.conftest import made_up

    return render_page(made_up(tokens=["a"], text="a", duration=0.5))


def bomb():
    return base64.b64encode(gzip.compress(b" " * 2**30, 1)).decode()


@pytest.mark.parametrize(
    "data, packed, reason",
    [
        (bomb, True, "unpacks to more than"),
        ("AAAA", True, "damaged"),
        ("***", True, "damaged"),
        (lambda: base64.b64encode(gzip.compress(b"{}")[:-9]).decode(), True, "damaged"),
        ("[" * 100_000, False, "no JSON object"),
        ("{", False, "no JSON object"),
    ],
)
def test_a_page_that_is_damaged_or_a_trap_is_listed_with_the_reason(client, folder, data, packed, reason):
    (folder / "bad.html").write_text(page_with(data() if callable(data) else data, packed))
    (run,) = runs(client).values()
    assert reason in run["broken"]
    assert reason in refused(client.get(f"/api/runs/{run['id']}/document"), 422)


@pytest.mark.parametrize("duration", ["NaN", "1e999", "-1e999", "-1", "9" * 401, "true", '"long"', "1e300"])
def test_a_duration_that_no_recording_has_is_left_out_of_the_list(client, folder, duration, doc):
    save_page(doc, folder / "good.html")
    odd = f'{{"kind": "explain", "title": "odd", "audio": {{"duration": {duration}}}, "transcript": {{"wer": {duration}}}}}'
    (folder / "odd.html").write_text(page_with(odd, packed=False))
    found = runs(client)
    assert (found["good.html"]["duration"], found["odd.html"]["title"]) == (11.0, "odd")
    assert found["odd.html"]["duration"] is None


def test_a_name_that_is_no_text_is_listed_and_opens(client, folder, doc):
    name = os.fsdecode(b"caf\xe9.html")
    try:
        save_page(doc, folder / "good.html")
        (folder / "good.html").rename(folder / name)
    except OSError:
        pytest.skip("The file system takes no such name.")
    (run,) = client.get("/api/runs").json()["runs"]
    assert run["path"] == name
    assert client.get(f"/api/runs/{run['id']}/document").json()["title"] == doc.title


def test_whatever_goes_wrong_with_one_file_the_others_are_listed(client, folder, doc, monkeypatch):
    from otoscope.views import server_entries

    def trapped(data):
        if data["title"] == "trap":
            raise RecursionError
        return {"kind": "explain", "title": "good"}

    monkeypatch.setattr(server_entries, "summary", trapped)
    save_page(doc, folder / "good.html")
    (folder / "trap.html").write_text(page_with('{"kind": "explain", "title": "trap"}', packed=False))
    found = runs(client)
    assert found["good.html"]["broken"] is None
    assert "RecursionError" in found["trap.html"]["broken"]
    assert "RecursionError" in refused(client.get(f"/api/runs/{id_of('trap.html')}/document"), 422)


def test_settings_that_are_not_finite_are_shown_as_text(client, folder):
    (folder / "run.json").write_text('{"kind": "probe", "settings": {"a": NaN, "b": -1e999, "c": 2}}')
    (run,) = runs(client).values()
    settings = client.get(f"/api/runs/{run['id']}/description").json()["settings"]
    assert settings == {"a": "NaN", "b": "-Infinity", "c": 2}


@pytest.mark.parametrize(
    "change", [{"kind": "unknown"}, {"version": 2}, {"title": 3}, {"extra": 1}, {"transcript": {"text": []}}]
)
def test_a_document_that_is_none_is_refused_when_it_is_opened(client, folder, make_doc, change):
    small = json.loads(make_doc(tokens=["a"], text="a", duration=0.5).dumps())
    (folder / "bad.html").write_text(
        page_with(json.dumps(small | change).replace("<", "\\u003c"), packed=False)
    )
    refused(client.get(f"/api/runs/{next(iter(runs(client).values()))['id']}/document"), 422)


def test_runs_that_have_been_read_are_listed_without_being_read_again(client, folder, make_doc, monkeypatch):
    page = render_page(make_doc(tokens=["a"], text="a", duration=0.5))
    for i in range(100):
        (folder / f"{i}.html").write_text(page)
    wait_for(lambda: client.get("/api/runs").json()["unread"] == 0)
    read = []
    monkeypatch.setattr(
        server_runs,
        "entry_of",
        lambda folder, path, stamp: read.append(path) or entry_of(folder, path, stamp),
    )
    assert len(runs(client)) == 100
    assert read == []
    (folder / "new.html").write_text(page)
    assert len(runs(client)) == 101
    assert read == ["new.html"]


# What people write


def test_a_note_is_kept_listed_and_exported_with_the_run(client, folder, doc, tmp_path):
    save_page(doc, folder / "a.html")
    id = next(iter(runs(client).values()))["id"]
    assert client.put(f"/api/runs/{id}/note", json={"text": "</script> listen at 3 s"}).status_code == 204
    assert runs(client)["a.html"]["note"] == "</script> listen at 3 s"
    assert client.get(f"/api/runs/{id}/document").json()["note"] == "</script> listen at 3 s"
    (tmp_path / "copy.html").write_bytes(client.get(f"/api/runs/{id}/page").content)
    assert oto.read_document(tmp_path / "copy.html").note == "</script> listen at 3 s"
    (folder / "a.html").rename(folder / "other.html")
    assert runs(client)["other.html"]["note"] == "</script> listen at 3 s"
    client.put(f"/api/runs/{id_of('other.html')}/note", json={"text": ""})
    assert "note" not in runs(client)["other.html"]
    assert "too long" in refused(
        client.put(f"/api/runs/{id_of('other.html')}/note", json={"text": "x" * 20_000}), 400
    )


def test_a_note_that_is_in_the_file_is_listed_replaced_and_taken_away(client, folder, doc):
    save_page(doc.model_copy(update={"note": "from elsewhere"}), folder / "copy.html")
    id, at = id_of("copy.html"), f"/api/runs/{id_of('copy.html')}"
    assert runs(client)["copy.html"]["note"] == "from elsewhere"
    assert client.get(f"{at}/document").json()["note"] == "from elsewhere"
    for text in ("mine", ""):
        client.put(f"{at}/note", json={"text": text})
        assert runs(client)["copy.html"].get("note", "") == text
        assert client.get(f"{at}/document").json().get("note", "") == text
    assert id == runs(client)["copy.html"]["id"]


def test_what_is_written_on_a_page_is_never_filed_under_another_that_took_its_place(client, folder, make_doc):
    save_page(make_doc(), folder / "a.html")
    runs(client)
    at = f"/api/runs/{id_of('a.html')}"
    shown = client.get(f"{at}/document").headers["etag"]
    assert client.put(f"{at}/note", json={"text": "mine"}, headers={"If-Match": shown}).status_code == 204
    save_page(make_doc(seed=1), folder / "a.html")
    writing = {
        "note": {"text": "late"},
        "annotations": {"place": "circuits/0/graph", "annotations": {}},
    }
    for what, told in writing.items():
        answer = client.put(f"{at}/{what}", json=told, headers={"If-Match": shown})
        assert "was written again since this page was opened" in refused(answer, 412)
    act = {"run": id_of("a.html"), "op": "intervene", "args": {}}
    refused(client.post("/api/act", json=act, headers={"If-Match": shown}), 412)
    assert "note" not in client.get(f"{at}/document").json()
    now = client.get(f"{at}/document").headers["etag"]
    assert client.put(f"{at}/note", json={"text": "new"}, headers={"If-Match": now}).status_code == 204


def test_monitors_of_the_folder_and_those_named_at_the_start_may_be_chosen_by_their_ids_alone(tmp_path):
    from pathlib import Path
    from shutil import copytree

    from otoscope.errors import OptionError
    from otoscope.monitors import monitor
    from otoscope.views.server_choices import Monitors

    shipped = Path(monitor.__file__).with_name("shipped")
    copytree(shipped / "whisper-base", tmp_path / "given")
    copytree(shipped / "whisper-tiny.en", tmp_path / "runs" / "fits" / "mine")
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "monitor.json").write_text("[]")
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "given")
    choices = Monitors(tmp_path / "runs", [tmp_path / "given"])
    given, found = choices.offered()
    assert (given["name"], given["model"], given["given"]) == ("given", "whisper-base", True)
    assert (found["name"], found["model"], found["given"]) == ("fits/mine", "whisper-tiny.en", False)
    assert choices.monitor(found["id"]).model["name"] == "whisper-tiny.en"
    assert choices.monitor("shipped") == "shipped"
    assert choices.monitor("none") is None
    for id in ("fits/mine", str(tmp_path / "given"), "../given", ""):
        with pytest.raises(OptionError, match="not, or no longer"):
            choices.monitor(id)
    with pytest.raises(OptionError, match="nowhere does not exist"):
        Monitors(tmp_path, [tmp_path / "nowhere"])


def test_languages_are_offered_where_a_model_has_several(client):
    known = {one["name"]: one for one in client.get("/api/about").json()["models"]}
    assert known["whisper-tiny.en"]["languages"] == []
    assert len(known["whisper-base"]["languages"]) == 99
    assert {"en", "fr", "ru"} < set(known["whisper-base"]["languages"])


def graph_doc():
    from otoscope.documents.base import Array
    from otoscope.documents.graph import GraphData, GraphDoc

    empty = Array.pack([], "f32")
    node = {
        "id": "t",
        "kind": "target",
        "stream": "decoder",
        "layer": 4,
        "position": 0,
        "label": "x",
        "influence": 1,
    }
    data = {
        "model": "m", "dictionary": "d", "text": "a", "streams": [{"name": "decoder", "layers": 4, "hears": False}],
        "tokens": [{"text": "a"}], "targets": [{"node": 0, "text": "x", "weight": 1, "position": 0}], "nodes": [node],
        "edges": {"source": empty, "target": empty, "weight": empty},
        "left_out": dict.fromkeys(("active_features", "traced_features", "shown_features", "traced_edges", "shown_edges"), 0)
        | dict.fromkeys(("node_share", "edge_share", "rest", "errors"), 0.0),
        "made": {"command": "c", "python": "p"},
    }  # fmt: skip
    return GraphDoc(title="a graph", graph=GraphData.model_validate(data))


def test_labels_pins_and_supernodes_come_back_and_are_exported(client, folder, tmp_path):
    save_page(graph_doc(), folder / "g.html")
    id = next(iter(runs(client).values()))["id"]
    written = {
        "labels": {"t": "<b>mine</b>"},
        "pins": ["t"],
        "supernodes": [{"label": "s", "nodes": ["t"]}],
        "note": "n",
    }
    answer = client.put(f"/api/runs/{id}/annotations", json={"place": "graph", "annotations": written})
    assert answer.status_code == 204
    kept = client.get(f"/api/runs/{id}/document").json()["graph"]["annotations"]
    assert {name: kept[name] for name in written} == written
    (tmp_path / "copy.html").write_bytes(client.get(f"/api/runs/{id}/page").content)
    assert oto.read_document(tmp_path / "copy.html").graph.annotations.labels == {"t": "<b>mine</b>"}
    for place, value, status in [
        ("graph", {"labels": 3}, 422), ("graph", {"other": {}}, 422), ("nothing", {}, 422), ("graph/nodes/9", {}, 422),
        ("title", {}, 422), ("graph/nodes/0", {}, 422), ("graph", [], 400), (3, {}, 400),
    ]:  # fmt: skip
        refused(
            client.put(f"/api/runs/{id}/annotations", json={"place": place, "annotations": value}), status
        )


def test_a_file_that_was_written_again_is_another_at_once(client, folder, make_doc):
    save_page(graph_doc(), folder / "a.html")
    at = f"/api/runs/{runs(client)['a.html']['id']}"
    client.put(f"{at}/note", json={"text": "of the graph"})
    annotations = {"place": "graph", "annotations": {"pins": ["t"]}}
    assert client.put(f"{at}/annotations", json=annotations).status_code == 204
    save_page(
        make_doc(tokens=["a"], text="a", duration=0.5), folder / "a.html"
    )  # the list is not asked for again
    told = client.get(f"{at}/document").json()
    assert (told["kind"], told.get("note")) == ("explain", None)
    refused(client.put(f"{at}/annotations", json=annotations), 422)
    client.put(f"{at}/note", json={"text": "of the sound"})
    save_page(graph_doc(), folder / "a.html")
    told = client.get(f"{at}/document").json()
    assert (told["note"], told["graph"]["annotations"]["pins"]) == ("of the graph", ["t"])
    (folder / "a.html").unlink()
    refused(client.get(f"{at}/document"), 404)


def test_annotations_that_no_longer_fit_keep_no_document_shut(client, folder):
    save_page(graph_doc(), folder / "a.html")
    (run,) = runs(client).values()
    store = AnnotationStore(folder)
    for place, value in [("graph", {"of a later version": 1}), ("circuits/0/graph", {"pins": ["t"]})]:
        store.write(run["digest"], place, value)
        told = client.get(f"/api/runs/{run['id']}/document").json()
        assert told["graph"]["annotations"]["pins"] == []
    answer = client.put(
        f"/api/runs/{run['id']}/annotations", json={"place": "graph", "annotations": {"pins": ["t"]}}
    )
    assert answer.status_code == 204


def test_a_document_is_checked_once_and_few_are_kept(folder, make_doc, monkeypatch):
    from otoscope.views import server_runs

    checked = []
    whole = server_runs.document_of
    monkeypatch.setattr(server_runs, "document_of", lambda data: checked.append(data["title"]) or whole(data))
    for i in range(6):
        small = make_doc(tokens=["a"], text="a", duration=0.5, title=f"{i}")
        save_page(small, folder / f"{i}.html")
    shelf = server_runs.Shelf(folder)
    shelf.refresh(60)
    for i in (0, 1, 0, 1):
        assert shelf.document(id_of(f"{i}.html")).title == f"{i}"
    assert checked == ["0", "1"]
    for i in (2, 3, 4, 5, 0):
        shelf.document(id_of(f"{i}.html"))
    assert checked == ["0", "1", "2", "3", "4", "5", "0"]
    shelf.write_note(id_of("0.html"), "new")
    assert shelf.document(id_of("0.html")).note == "new"
    monkeypatch.setattr(server_runs, "_KEPT_BYTES", 10)
    checked.clear()
    assert [shelf.document(id_of("5.html")).title for _ in range(2)] == ["5", "5"]
    assert len(checked) <= 2


# Sound that comes in


def test_what_is_too_large_or_no_request_is_refused(client):
    assert "more than 1 MB" in refused(
        client.post("/api/explain?name=a.wav", content=b"x" * (2**20 + 1)), 413
    )
    in_pieces = (b"x" * 100_000 for _ in range(12))  # without a length told before
    refused(client.post("/api/explain?name=a.wav", content=in_pieces), 413)
    refused(client.put("/api/runs/0/note", content=b"[" * 90_000), 400)
    refused(client.put("/api/runs/0/note", content=b"x" * 200_000), 413)
    refused(client.put("/api/runs/0/note", json={"text": 3}), 400)
    refused(client.post("/api/act", json={"run": 1}), 400)
    refused(client.post("/api/act", json={"run": "0", "op": "intervene", "args": {}}), 404)


def test_who_sends_nothing_is_not_waited_for(served):
    connection = http.client.HTTPConnection(served.address, timeout=10)
    connection.putrequest("POST", "/api/explain?name=a.wav")
    connection.putheader("Authorization", f"Bearer {KEY}")
    connection.putheader("Content-Length", "1000")
    connection.endheaders()
    assert connection.getresponse().status == 408
    connection.close()


@pytest.mark.parametrize(
    "options",
    [
        "[",
        "[]",
        '{"path": "/etc"}',
        '{"offset": "1"}',
        '{"offset": -1}',
        '{"token": true}',
        '{"offset": 1e999}',
        '{"offset": NaN}',
        '{"circuits": 6}',
        '{"circuits": -1}',
        '{"circuits": 1.5}',
    ],
)
def test_options_that_cannot_be_used_are_refused(client, options):
    refused(client.post("/api/explain", params={"options": options}, content=b"RIFF"), 400)


@pytest.mark.parametrize("content", [b"", b"no sound", b"<html>"])
def test_what_is_no_recording_is_refused_at_once(client, content, folder):
    refused(client.post("/api/explain?name=a.wav", content=content), 422)
    assert list(folder.iterdir()) == []


def test_a_model_that_was_not_offered_is_not_loaded(client, jfk, folder):
    options = json.dumps({"model": "/etc"})
    job = client.post("/api/explain", params={"options": options}, content=jfk.read_bytes()).json()
    wait_for(lambda: client.get(f"/api/jobs/{job['id']}").json()["state"] == "failed")
    assert "no model of this server" in client.get(f"/api/jobs/{job['id']}").json()["reason"]


@pytest.mark.parametrize(
    "name, plain",
    [
        ("jfk.flac", "jfk.flac"), ("../../etc/passwd", "passwd.wav"), ("C:\\a\\b.MP3", "b.mp3"), ("", "recording.wav"),
        ("...", "recording.wav"), (".bashrc", "bashrc.wav"), ("a\0\n<script>.wav", "ascript.wav"), ("\u202egnp.exe", "gnp.exe"),
        ("x" * 10_000, "x" * 60 + ".wav"), ("Ärger im Café.ogg", "Ärger im Café.ogg"), ("con|;$(rm).wav", "conrm.wav"),
        ("Größe – 音声 été.wav", "Größe – 音声 été.wav"),
    ],
)  # fmt: skip
def test_names_from_outside_become_plain_ones(name, plain):
    assert plain_name(name) == plain


def test_a_page_never_takes_the_name_of_another(tmp_path):
    (tmp_path / "a.html").touch()
    (tmp_path / "a-2.html").touch()
    assert free_name(tmp_path, "a").name == "a-3.html"


# Work


def blocking(served):
    """A job that works until it is let go, or is called off."""
    entered, free = threading.Event(), threading.Event()

    def work(job):
        entered.set()
        while not free.wait(0.01):
            job.check()
        return {}

    return served.queue.add(Job("explain", "blocking", work)), entered, free


def test_jobs_wait_for_each_other_and_no_more_wait_than_may(served, client, jfk):
    first, entered, _ = blocking(served)
    assert entered.wait(5)
    second, _, _ = blocking(served)
    third, _, _ = blocking(served)
    told = {job["id"]: job for job in client.get("/api/runs").json()["jobs"]}
    assert told[first.id]["state"] == "running"
    assert [told[job.id]["position"] for job in (second, third)] == [1, 2]
    assert "wait already" in refused(client.post("/api/explain?name=a.flac", content=jfk.read_bytes()), 429)
    assert client.delete(f"/api/jobs/{second.id}").status_code == 204
    assert client.get(f"/api/jobs/{second.id}").json()["state"] == "cancelled"
    assert client.get(f"/api/jobs/{third.id}").json()["position"] == 1
    client.delete(f"/api/jobs/{third.id}")
    client.delete(f"/api/jobs/{first.id}")
    wait_for(lambda: client.get(f"/api/jobs/{first.id}").json()["state"] == "cancelled")
    refused(client.delete("/api/jobs/none"), 404)


def test_a_job_that_was_called_off_keeps_no_sound(served, client, jfk, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    first, entered, _ = blocking(served)
    assert entered.wait(5)
    job = client.post("/api/explain?name=jfk.flac", content=jfk.read_bytes()).json()
    assert [path.name for path in tmp_path.rglob("*.flac")] == ["jfk.flac"]
    client.delete(f"/api/jobs/{job['id']}")
    gc.collect()
    assert list(tmp_path.iterdir()) == []
    client.delete(f"/api/jobs/{first.id}")
    wait_for(lambda: first.finished)


def test_the_end_of_a_job_is_forgotten_without_another_that_comes(served, client, monkeypatch):
    job = served.queue.add(Job("explain", "x", lambda job: {}))
    wait_for(lambda: job.finished)
    assert client.get(f"/api/jobs/{job.id}").status_code == 200
    monkeypatch.setattr("otoscope.views.server_jobs._KEPT", 0.0)
    client.get("/api/runs")
    monkeypatch.undo()
    refused(client.get(f"/api/jobs/{job.id}"), 404)


def test_an_answer_that_was_streamed_is_not_kept(served, client, folder, make_doc, monkeypatch):
    save_page(make_doc(tokens=["a"], text="a", duration=0.5), folder / "a.html")
    runs(client)
    monkeypatch.setattr(served.workshop, "act", lambda job, op, args, doc: {"sound": "x" * 1000})
    answer = client.post("/api/act", json={"run": id_of("a.html"), "op": "intervene"})
    told = [json.loads(line) for line in answer.iter_lines()][-1]
    assert told["answer"] == {"sound": "x" * 1000}
    wait_for(lambda: client.get(f"/api/jobs/{told['id']}").json()["answer"] == {}, 10)


def test_a_job_that_fails_tells_why_and_the_next_is_done(served, client):
    def fails(job):
        raise ValueError("broken <b>")

    job = served.queue.add(Job("explain", "x", fails))
    wait_for(lambda: job.finished)
    told = client.get(f"/api/jobs/{job.id}").json()
    assert told["state"] == "failed"
    assert "ValueError: broken <b>" in told["reason"]
    after = served.queue.add(Job("explain", "x", lambda job: {"run": "y"}))
    wait_for(lambda: after.finished)
    assert client.get(f"/api/jobs/{after.id}").json()["answer"] == {"run": "y"}


def test_progress_inside_a_step_counts_and_any_step_is_a_way_out(served):
    from otoscope.progress import track

    seen = []

    def work(job):
        with track("Whole", 2) as whole:
            whole.advance()
            with track("Part", 4) as part:
                part.advance()
                seen.append((job.done, job.total, job.stage))
            job.unwanted.set()
            try:
                whole.advance()
            except Exception:
                pytest.fail("a library might have caught it")
        return {}

    job = served.queue.add(Job("explain", "x", work))
    wait_for(lambda: job.finished)
    assert seen == [(1.25, 2, "Part")]
    assert job.state == "cancelled"
    assert not issubclass(CancelledError, Exception)


@pytest.mark.weights
@pytest.mark.slow
def test_two_recordings_at_once_are_explained_one_after_the_other(client, folder, shorter, ablated_once):
    asked = [("../a.wav", "{}"), ("a.wav", '{"circuits": 0}')]
    jobs = [
        client.post("/api/explain", params={"name": name, "options": options}, content=shorter).json()
        for name, options in asked
    ]
    wait_for(lambda: all(client.get(f"/api/jobs/{job['id']}").json()["state"] == "done" for job in jobs))
    found = runs(client)
    assert set(found) == {"a.html", "a-2.html"}
    assert all("fellow" in run["text"] for run in found.values())
    assert oto.read_document(folder / "a.html").audio.file == "a.wav"
    assert [len(oto.read_document(folder / name).circuits) for name in ("a.html", "a-2.html")] == [1, 0]


@pytest.fixture
def shorter(jfk, tmp_path):
    """Three seconds of speech, as a WAV file's bytes."""
    import soundfile

    soundfile.write(tmp_path / "short.wav", oto.read(jfk, duration=3.0).samples, 16_000)
    return (tmp_path / "short.wav").read_bytes()


@pytest.mark.weights
@pytest.mark.slow
def test_a_recording_that_is_called_off_leaves_nothing(client, folder, jfk):
    job = client.post("/api/explain?name=jfk.flac", content=jfk.read_bytes()).json()
    wait_for(lambda: client.get(f"/api/jobs/{job['id']}").json()["done"] >= 1)
    client.delete(f"/api/jobs/{job['id']}")
    wait_for(lambda: client.get(f"/api/jobs/{job['id']}").json()["state"] == "cancelled")
    assert list(folder.iterdir()) == []


@pytest.mark.weights
@pytest.mark.slow
def test_an_act_streams_its_progress_and_its_answer(client, folder, explained):
    save_page(explained, folder / "a.html")
    runs(client)
    intervention = {"silence": [[0.5, 1.5]]}
    asked = {"run": id_of("a.html"), "op": "intervene", "args": {"intervention": intervention, "controls": 1}}
    with client.stream("POST", "/api/act", json=asked) as answer:
        lines = [json.loads(line) for line in answer.iter_lines()]
    assert lines[-1]["state"] == "done", lines[-1]
    assert lines[-1]["answer"]["kind"] == "intervention"
    assert {line["state"] for line in lines} <= {"waiting", "running", "done"}
    with client.stream("POST", "/api/act", json=asked | {"op": "rm"}) as answer:
        assert [json.loads(line) for line in answer.iter_lines()][-1]["reason"].startswith(
            "There is no operation"
        )


def test_who_hangs_up_calls_its_act_off(served, client, folder, make_doc):
    save_page(make_doc(tokens=["a"], text="a", duration=0.5), folder / "a.html")
    runs(client)
    first, entered, free = blocking(served)
    assert entered.wait(5)
    with client.stream("POST", "/api/act", json={"run": id_of("a.html"), "op": "intervene"}) as answer:
        job = json.loads(next(answer.iter_lines()))
        assert (job["state"], job["position"]) == ("waiting", 1)
    wait_for(lambda: client.get(f"/api/jobs/{job['id']}").json()["state"] == "cancelled", 10)
    free.set()
    wait_for(lambda: first.finished)


@pytest.mark.weights
@pytest.mark.slow
def test_killed_midway_it_leaves_no_page_and_the_next_start_lists_what_is_whole(tmp_path, doc, jfk):
    save_page(doc, tmp_path / "whole.html")
    command = [sys.executable, "-m", "otoscope", "serve", str(tmp_path), "--json", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        headers = {"Authorization": f"Bearer {told['token']}"}
        with httpx.Client(base_url=told["address"], headers=headers, timeout=30) as client:
            job = client.post("/api/explain?name=jfk.flac", content=jfk.read_bytes()).json()
            wait_for(lambda: client.get(f"/api/jobs/{job['id']}").json()["done"] >= 2)
        os.kill(process.pid, signal.SIGKILL)
    assert [path.name for path in tmp_path.iterdir() if re.fullmatch(r"[^.].*", path.name)] == ["whole.html"]
    with serving(tmp_path) as served, served.client() as client:
        assert set(runs(client)) == {"whole.html"}
