"""The map of the code is the code's: its layers, its rooms, and every module by name."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "otoscope"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ROOMS = sorted(path.parent.name for path in SOURCE.glob("*/__init__.py"))
MODULE = re.compile(r"`([\w/]+\.py)`")


def sections() -> dict[str, str]:
    """Text under each heading of the third level."""
    return dict(re.findall(r"^### (.+?)$(.*?)(?=^##)", PAGE, re.M | re.S))


def modules(room: str) -> set[str]:
    """Paths below a room of its modules, packages themselves left out."""
    inside = (SOURCE / room).rglob("*.py")
    return {path.relative_to(SOURCE / room).as_posix() for path in inside if path.name[0] != "_"}


def test_the_layers_are_those_of_the_contract():
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = [set(layer.split(" | ")) for layer in rules["contracts"][0]["layers"]]
    drawn = re.findall(r"```text\n(.*?)```", PAGE, re.S)[0]
    assert [set(line.strip("{}").split(", ")) for line in drawn.splitlines()] == layers


def test_every_room_has_one_section():
    headings = re.findall(r"^### (.+?)$", PAGE, re.M)
    assert sorted(h for h in headings if h in ROOMS) == ROOMS
    assert set(headings) - set(ROOMS) == {"Below all rooms", "The front door"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_described_by_its_modules_all_of_them(room):
    named = set(MODULE.findall(sections()[room]))
    elsewhere = {name for name in named - modules(room) if (SOURCE / name).exists()}
    assert named - elsewhere == modules(room)


def test_the_modules_below_all_rooms_are_named():
    alone = {path.name for path in SOURCE.glob("*.py") if path.name[0] != "_"}
    assert set(MODULE.findall(sections()["Below all rooms"])) == alone


def test_tests_and_sources_of_the_page_that_are_named_exist():
    for path in re.findall(r"`(tests/[\w/]+\.py)`", PAGE):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"`((?:pages|panels|model|hosts|draw)/(?:[\w.]+\.tsx?)?|main\.tsx)`", PAGE):
        assert (ROOT / "web" / "src" / path).exists(), path
