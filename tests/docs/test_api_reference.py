"""The API reference is what the source tree gives, and leaves nothing public out."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import otoscope

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "otoscope"


def generator():
    spec = importlib.util.spec_from_file_location("generate_api", ROOT / "docs" / "generate_api.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_what_the_source_gives():
    pages = generator().pages()
    for path, text in pages.items():
        assert path.read_text(encoding="utf-8") == text, "run python docs/generate_api.py"
    assert set((ROOT / "docs" / "api").glob("*.md")) == set(pages) - {ROOT / "docs" / "api.md"}


def test_every_name_of_the_front_door_is_told():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| \[`(\w+)`\]", page, re.M)) >= set(otoscope.__all__) - {"__version__"}


def test_every_module_with_a_public_name_is_shown_whole():
    shown = set()
    for page in (ROOT / "docs" / "api").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        assert "members:" not in text
        shown |= set(re.findall(r"^::: ([\w.]+)$", text, re.M))
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        if "cli" in parts or any(part.startswith("_") for part in parts):
            continue
        defined = [getattr(node, "name", "_") for node in ast.parse(path.read_text(encoding="utf-8")).body]
        assert ".".join(parts) in shown or all(name.startswith("_") for name in defined)
