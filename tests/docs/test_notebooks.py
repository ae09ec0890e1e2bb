"""The notebooks run from top to bottom, and what they print is what is committed with them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest
from tests.docs.test_examples import require_same

DOCS = Path(__file__).parents[2] / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


def runner():
    spec = importlib.util.spec_from_file_location("run_notebooks", DOCS / "run_notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def printed(notebook) -> list[str]:
    """What each code cell prints, without figures and players."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return ["".join(o.text for o in cell.outputs if o.output_type == "stream") for cell in cells]


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_prints_what_it_shows(path):
    shown = printed(nbformat.read(path, as_version=4))
    for i, (before, now) in enumerate(zip(shown, printed(runner().run(path)), strict=True)):
        if before:  # a notebook may be committed without its outputs; it has to run all the same
            require_same(before, now, f"{path.name}, code cell {i}")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_of_a_notebook_resolve(path):
    text = "\n".join(
        cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"
    )
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        assert (path.parent / link).exists(), link
