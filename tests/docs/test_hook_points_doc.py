from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from tests.conftest import FAMILIES

from otoscope.errors import PointError
from otoscope.models.families import family_of

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "hook-points.md").read_text("utf-8")


def sections() -> dict[str, str]:
    """Text by model type."""
    found = {}
    for title, body in re.findall(r"^## (.+?)$(.*?)(?=^## |\Z)", PAGE, flags=re.M | re.S):
        found |= dict.fromkeys(title.split(", "), body)
    return found


def points(model_type: str):
    family = family_of(model_type)
    return family.points(family.tiny_config(model_type))


def test_the_page_is_what_the_tables_give():
    spec = importlib.util.spec_from_file_location("generate_hook_points", DOCS / "generate_hook_points.py")
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    assert generator.render() == PAGE, "run python docs/generate_hook_points.py"


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_point_is_on_the_page_and_every_point_on_the_page_exists(model_type):
    table = points(model_type)
    rows = re.findall(r"^\| `([^`]+)` \| ([a-z_0-9 ]+) \| `([^`]+)`", sections()[model_type], flags=re.M)
    written = {name: (tuple(axes.split()), module) for name, axes, module in rows}
    for layer in range(3):
        for name, (axes, module) in written.items():
            name, module = name.replace("{i}", str(layer)), module.replace("{i}", str(layer))
            if name in table:
                assert (table[name].axes, table[name].module) == (axes, module)
    named = {name.replace("{i}", str(layer)) for name in written for layer in range(3)}
    assert set(table) <= named
    assert {n.replace("{i}", "0") for n in written} <= set(table)


def test_every_point_in_an_example_exists():
    fences = "".join(re.findall(r"```python(.*?)```", PAGE, flags=re.S))
    names = re.findall(r'"([\w*.]*hook_[\w.]+)"', fences)
    assert len(names) >= 3
    for name in names:
        assert points("whisper").select(name)


def test_a_name_that_is_not_on_the_page_would_be_noticed():
    with pytest.raises(PointError):
        points("whisper").select("decoder_blocks.1.hook_resid_pots")


def test_head_labels_are_explained():
    for label in ("L5H3", "EL0H1", "DL0H1"):
        assert f"`{label}`" in PAGE
