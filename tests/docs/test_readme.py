"""What the README says of commands and extras is what there is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import typer

from otoscope.cli.app import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
FOR_DEVELOPERS = {"dev", "fuzz", "docs"}
ROWS = [row.replace(r"\|", "|") for row in re.findall(r"^\| `otoscope ([^`]+)` \|", README, re.MULTILINE)]


def commands(row: str):
    """The commands that a row of the table names, each with the words after it."""
    command, words = typer.main.get_command(app), row.split()
    names = words.pop(0)
    first = command.commands[names]
    if not hasattr(first, "commands"):
        return [(first, words)]
    return [(first.commands[name], words[1:]) for name in words[0].split("|")]


@pytest.mark.parametrize("row", ROWS)
def test_a_command_of_the_table_takes_what_the_table_says(row):
    for command, words in commands(row):
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = {name for p in command.params for name in p.opts}
        assert {word for word in words if word.startswith("--")} <= options
        if words and re.fullmatch(r"[A-Z|]+", words[0]) and arguments:
            assert words[0] == arguments[0].metavar.strip("[]")


def test_every_command_is_in_the_table():
    shown = {row.split()[0] for row in ROWS}
    assert shown == set(typer.main.get_command(app).commands)


def test_every_extra_is_explained_and_those_marked_are_what_make_installs():
    told = dict(re.findall(r"^\| `(\w+)`( \*)? \|", README.split("## Installation")[1], re.MULTILINE))
    assert set(told) == set(EXTRAS) - FOR_DEVELOPERS
    made = re.search(r"^EXTRAS \?= (.+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert made
    assert {extra for extra, mark in told.items() if mark} == set(made[1].split(","))
