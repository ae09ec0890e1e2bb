from __future__ import annotations

from typing import Annotated

import typer

from otoscope.cli.options import Common, with_common


def invoke(command, *arguments: str):
    app = typer.Typer()
    app.command()(command)
    with typer.main.get_command(app).make_context("test", list(arguments)) as context:
        context.command.invoke(context)


def test_the_values_of_the_common_options_reach_the_command_beside_its_own():
    seen = {}

    @with_common
    def command(name: str, *, loud: Annotated[bool, typer.Option("--loud")] = False, common: Common) -> None:
        seen.update(name=name, loud=loud, common=common)

    invoke(command, "ann", "--batch", "3", "--loud", "--seed", "7", "--device", "cpu", "--json", "-")
    expected = Common(device="cpu", dtype="auto", batch=3, seed=7, json="-", quiet=False, debug=False)
    assert seen == {"name": "ann", "loud": True, "common": expected}
    assert expected.json_on_stdout
    assert expected.json_path is None


def test_a_json_path_that_cannot_be_written_is_refused_before_the_command_runs(tmp_path):
    import pytest

    from otoscope.errors import OutputError

    @with_common
    def command(*, common: Common) -> None:
        raise AssertionError("it ran")

    with pytest.raises(OutputError):
        invoke(command, "--json", str(tmp_path / "no" / "x.json"))


def test_notices_are_heard_unless_quiet(capsys):
    from otoscope.progress import notice

    @with_common
    def command(*, common: Common) -> None:
        notice("Fetching it.")

    invoke(command)
    assert capsys.readouterr().err == "Fetching it.\n"
    invoke(command, "--quiet")
    assert capsys.readouterr().err == ""
