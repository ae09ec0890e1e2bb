from __future__ import annotations

from typing import Annotated

import pytest
import typer

from otoscope.cli.app import app
from otoscope.cli.main import main
from otoscope.cli.options import Common, with_common


def invoke(command, *arguments: str):
    one = typer.Typer()
    one.command()(command)
    with typer.main.get_command(one).make_context("test", list(arguments)) as context:
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


PAGES = [
    ["explain", "clip.flac", "--out"],
    ["lens", "clip.flac", "--page"],
    ["probe", "clips", "--label", "gender", "--page"],
    ["patch", "clip.flac", "--page"],
    ["trace", "clip.flac", "--page"],
    ["intervene", "clip.flac", "--silence", "0-1", "--page"],
    ["features", "page", "examples", "--out"],
]


@pytest.mark.parametrize("words", PAGES, ids=lambda words: words[0])
def test_a_page_that_is_there_is_replaced_only_where_that_is_asked_for(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.html"
    page.write_text("what somebody wrote")
    assert main([*words, "page.html"]) == 2
    assert "error: page.html is there already.\nremedy: Name another page, or replace it with --force." in (
        capsys.readouterr().err
    )
    assert main([*words, "page.html", "--force"]) == 2  # nothing of what is named exists
    assert "is there already" not in capsys.readouterr().err
    assert page.read_text() == "what somebody wrote"


def test_pages_of_several_tokens_have_names_of_their_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("clip.explain.html", "clip.token-5.explain.html"):
        (tmp_path / name).touch()
    for more, page in ([], "clip.explain.html"), (["--token", "5"], "clip.token-5.explain.html"):
        assert main(["explain", "clip.flac", *more]) == 2
        assert f"{page} is there already." in capsys.readouterr().err


def test_every_command_listens_with_the_same_model():
    from otoscope.models.loading import DEFAULT_MODEL

    def leaves(command):
        for inner in getattr(command, "commands", {}).values():
            yield from leaves(inner)
        yield command

    models = [p for c in leaves(typer.main.get_command(app)) for p in c.params if "--model" in p.opts]
    assert len(models) > 15
    assert {p.default for p in models} <= {DEFAULT_MODEL, None}
