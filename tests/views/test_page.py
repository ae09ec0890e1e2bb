"""The page as a file."""

import base64
import gzip
import hashlib
import json
import re
import runpy
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from otoscope.errors import OutputError
from otoscope.views.page import render_page, save_page

ROOT = Path(__file__).parents[2]
WEB, STATIC = ROOT / "web", ROOT / "src" / "otoscope" / "views" / "static"


def elements(page):
    """(tag, attributes, text) of every script, style, meta and title."""
    found = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.append([tag, dict(attrs), ""])

        def handle_data(self, data):
            if found:
                found[-1][2] += data

        def handle_endtag(self, tag):
            found.append([f"/{tag}", {}, ""])

    Reader(convert_charrefs=False).feed(page)
    return found


def only_script(page):
    return next(text for tag, attrs, text in elements(page) if tag == "script" and attrs["type"] == "module")


def test_the_policy_allows_the_bundle_by_hash_and_nothing_else(doc):
    page = render_page(doc)
    policy = next(attrs["content"] for tag, attrs, _ in elements(page) if "http-equiv" in attrs)
    digest = base64.b64encode(hashlib.sha256(only_script(page).encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data: blob:; "
        "media-src data: blob:; worker-src blob:; base-uri 'none'; form-action 'none'"
    )


def test_the_file_holds_the_whole_document(doc):
    tag, attrs, text = next(one for one in elements(render_page(doc)) if one[1].get("id") == "document")
    assert (tag, attrs["data-encoding"]) == ("script", "gzip")
    assert gzip.decompress(base64.b64decode(text)).decode() == doc.dumps()


def test_a_small_document_stays_readable_in_the_file(make_doc):
    small = make_doc(tokens=["a"], text="a", duration=0.5)
    text = next(text for _, attrs, text in elements(render_page(small)) if attrs.get("id") == "document")
    assert json.loads(text) == json.loads(small.dumps())


def test_no_label_changes_the_structure_of_the_file(make_doc, label):
    tame, hostile = (
        make_doc(tokens=["a"], text=text, title=text, duration=0.5) for text in ("a", label[:200])
    )
    shape = [
        [(tag, sorted(attrs)) for tag, attrs, _ in elements(render_page(one))] for one in (tame, hostile)
    ]
    assert shape[0] == shape[1]
    assert only_script(render_page(tame)) == only_script(render_page(hostile))


def test_the_same_document_gives_the_same_bytes(doc):
    assert render_page(doc) == render_page(doc)


def test_a_page_that_cannot_be_written_leaves_nothing_behind(doc, tmp_path):
    with pytest.raises(OutputError):
        save_page(doc, tmp_path / "missing" / "page.html")
    save_page(doc, tmp_path / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


# The bundle


def sources_digest():
    files = [path for path in (WEB / "src").rglob("*") if path.is_file()] + [WEB / "package-lock.json"]
    digest = hashlib.sha256()
    for name in sorted(path.relative_to(WEB).as_posix() for path in files):
        digest.update(f"{name}\0".encode() + (WEB / name).read_bytes() + b"\0")
    return digest.hexdigest()


@pytest.mark.parametrize("name", ["page.js", "page.css", "widget.js", "live.css"])
def test_the_bundle_was_built_from_these_sources(name):
    stamp = re.search(r"sources sha256: (\w{64})", (STATIC / name).read_text(encoding="utf-8"))
    assert stamp
    assert stamp[1] == sources_digest(), "The page's bundle is stale; run `npm run build` in web/."


def test_the_types_of_the_page_are_those_of_the_documents():
    generated = runpy.run_path(str(WEB / "generate_types.py"))["generate"]()
    written = (WEB / "src" / "contract.ts").read_text(encoding="utf-8")
    assert written == generated, "web/src/contract.ts is stale; run `npm run types` in web/."


def test_the_bundle_is_small_and_asks_no_other_machine():
    script, css = (STATIC / "page.js").read_bytes(), (STATIC / "page.css").read_bytes()
    assert len(gzip.compress(script)) + len(gzip.compress(css)) < 150_000
    assert b"</script" not in script.lower()
    assert b"<!--" not in script
    assert b"</style" not in css.lower()
    assert b"url(" not in css
    assert b"@import" not in css
    addresses = set(re.findall(rb"https?://[\w./-]+", script))
    assert addresses <= {
        b"http://www.w3.org/2000/svg",
        b"http://www.w3.org/1998/Math/MathML",
        b"http://www.w3.org/1999/xhtml",
    }


def test_the_lockfile_names_no_registry():
    assert "resolved" not in (WEB / "package-lock.json").read_text(encoding="utf-8")


def test_the_page_of_an_eleven_second_clip_stays_under_a_megabyte(doc):
    assert len(render_page(doc).encode()) < 1_000_000


@pytest.mark.skipif(
    not (shutil.which("npm") and (WEB / "node_modules").is_dir()),
    reason="The page's own tests need Node; run `npm ci` in web/.",
)
def test_the_sources_of_the_page_pass_their_own_checks():
    for script in ("check", "test"):
        done = subprocess.run(["npm", "run", "-s", script], cwd=WEB, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
