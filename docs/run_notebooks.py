"""Run the notebooks again and keep what they print: `python docs/run_notebooks.py [NAME...]` (about a minute and a half).

Outputs are committed on purpose: a reader on the site sees what came out, and a test runs the notebooks and holds the text of
every output to what is committed (`tests/docs/test_notebooks.py`). Players and pages are kept out, the text beside them stays.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parent / "notebooks"
ROOT = f"{Path(__file__).resolve().parents[1]}/"
KEPT = ("text/plain", "image/png", "text/html")
LARGEST = 200_000
"""Characters of one output that is kept."""


def run(path: Path) -> nbformat.NotebookNode:
    """The notebook with fresh outputs; it runs in a folder of its own."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as work:
        NotebookClient(
            notebook, timeout=300, coalesce_streams=True, resources={"metadata": {"path": work}}
        ).execute()
    for cell in notebook.cells:
        cell.metadata.clear()
        if cell.cell_type == "code":
            cell.outputs = [kept(output) for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def kept(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """An output without what is too large, or only a notebook with a kernel can show.

    Shipped recordings are named from the root of the repository, wherever that stands.
    """
    if "data" in output:
        data = {kind: v for kind, v in output.data.items() if kind in KEPT and len(v) <= LARGEST}
        output.data = {kind: v.replace(ROOT, "") if "text" in kind else v for kind, v in data.items()}
        output.metadata.clear()
    return output


def main(names: list[str]) -> None:
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if not names or path.stem in names:
            nbformat.write(run(path), path)
            print(path.name)


if __name__ == "__main__":
    main(sys.argv[1:])
