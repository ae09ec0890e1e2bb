"""What the README and the documentation show is run: Python, commands, printed output, links."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import shlex
import shutil
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROSE = [*PAGES, ROOT / "CONTRIBUTING.md"]
SAMPLES = ROOT / "src" / "otoscope" / "audio" / "samples"

# Every fence that is not run, by page and reason: one more has to be added here on purpose.
NOT_RUN = [
    ("docs/guides/adding-a-family.md", "it is part of another package"),
    ("docs/guides/mending.md", "it takes three quarters of an hour on two cores"),
    ("docs/guides/monitor-live.md", "it serves until Ctrl-C"),
    ("docs/guides/monitoring.md", "it takes about half an hour on two cores"),
    ("docs/guides/serving.md", "it serves until Ctrl-C"),
    ("docs/studies/context_bias.md", "it takes about half an hour on two cores"),
    ("docs/studies/features.md", "it takes an hour on two cores"),
    ("docs/studies/hallucination.md", "it takes about ten minutes on two cores"),
    ("docs/studies/lens.md", "it takes some minutes on two cores"),
    ("docs/studies/monitors.md", "it takes about half an hour on two cores"),
    ("docs/studies/probes.md", "it takes about an hour on two cores"),
    ("docs/studies/repetition.md", "it takes about an hour on two cores"),
    ("docs/studies/why.md", "it takes about ten minutes on two cores"),
]

_FENCE = re.compile(r"^( *)```([\w.-]+)[^\n]*\n(.*?)^\1```$", re.M | re.S)
_NOT_RUN = re.compile(r"<!-- not run: (.+?) -->\s*\Z")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_ANY_LINES = "…"  # a line of shown output that stands for whatever else was printed


@dataclass(frozen=True)
class Fence:
    """One fenced block; `line` is where its content begins in the page, counted from 1."""

    page: Path
    language: str
    body: str
    line: int
    not_run: str | None


def fences(page: Path) -> list[Fence]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        marker = _NOT_RUN.search(text[: match.start()])
        line = text.count("\n", 0, match.start(3)) + 1
        found.append(Fence(page, match[2], textwrap.dedent(match[3]), line, marker and marker[1]))
    return found


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def pages_with(language: str, needs_weights: str) -> list:
    """One case a page that has fences of the language, marked when one of them holds `needs_weights`."""
    cases = []
    for page in PAGES:
        bodies = [fence.body for fence in fences(page) if fence.language == language]
        marks = (
            [pytest.mark.weights, pytest.mark.slow] if any(needs_weights in body for body in bodies) else []
        )
        cases += [pytest.param(page, id=name_of(page), marks=marks)] if bodies else []
    return cases


@pytest.fixture
def workplace(tmp_path, monkeypatch, ablated_once) -> Path:
    """The current folder of an example: the shipped recordings, and a manifest of three of them."""
    for recording in SAMPLES.glob("*.flac"):
        shutil.copy(recording, tmp_path)
    shutil.copy(Path(__file__).with_name("manifest.jsonl"), tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")  # tables fit themselves to the terminal, and a test may run in any
    return tmp_path


# Comparing output --------------------------------------------------------------------------------------------------------


def require_same(shown: str, printed: str, where: str) -> None:
    """Text must be equal up to spacing, whole numbers equal, others equal to two digits or in the last one shown."""
    assert _follows(_lines(shown), _lines(printed)), f"{where} shows\n{shown}\nbut prints\n{printed}"


def _follows(expected: list[str], got: list[str]) -> bool:
    """Whether the lines are the same, where a line of "…" stands for any lines, or none."""
    if expected[:1] == [_ANY_LINES]:
        return any(_follows(expected[1:], got[i:]) for i in range(len(got) + 1))
    if not expected or not got:
        return not expected and not got
    return _same_line(expected[0], got[0]) and _follows(expected[1:], got[1:])


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _same_line(shown: str, printed: str) -> bool:
    if _NUMBER.sub("0", shown).split() != _NUMBER.sub("0", printed).split():
        return False
    numbers = zip(_NUMBER.findall(shown), _NUMBER.findall(printed), strict=True)
    return all(_same_number(a, b) for a, b in numbers)


def _same_number(shown: str, printed: str) -> bool:
    if "." not in shown and "e" not in shown:
        return shown == printed
    a, b = float(shown), float(printed)
    last_digit = 0 if "e" in shown else 10.0 ** -len(shown.partition(".")[2])
    return abs(a - b) <= max(0.01 * abs(a), 1.01 * last_digit)


@pytest.mark.parametrize(
    "shown, printed, same",
    [
        ("(1, 2) -2.18", "(1, 2)  -2.181", True),
        ("p = 0.54", "p = 0.55", True),
        ("p = 0.54", "p = 0.57", False),
        ("24 tokens", "25 tokens", False),
        ("1.0e-06", "1.004e-06", True),
        ("D3 head", "D2 head", False),
        ("a\n…", "a\nb\nc", True),
        ("a\n…", "b\na", False),
        ("a\n…\nd", "a\nb\nc\nd", True),
        ("a\n…\nd", "a\nb\nc", False),
        ("a\nb", "a", False),
    ],
)
def test_shown_output_is_compared_with_what_is_printed(shown, printed, same):
    with contextlib.nullcontext() if same else pytest.raises(AssertionError):
        require_same(shown, printed, "a page")


# Python ------------------------------------------------------------------------------------------------------------------


def run_fence(fence: Fence, namespace: dict) -> list[tuple[int, str]]:
    """Run a fence statement by statement; returns `(last line of the statement, what it printed)`, lines from 1."""
    printed = []
    for statement in ast.parse(fence.body).body:
        module = ast.Module([statement], [])
        end = statement.end_lineno or 0
        code = compile(ast.increment_lineno(module, fence.line - 1), str(fence.page), "exec")
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(code, namespace)
        printed.append((end, out.getvalue()))
    return printed


def shown_after(fence: Fence, line: int) -> str:
    """The `#>` lines right after a line of a fence."""
    shown = []
    for text in fence.body.splitlines()[line:]:
        if not text.startswith("#>"):
            break
        shown.append(text.removeprefix("#>"))
    return "\n".join(shown)


@pytest.mark.parametrize("page", pages_with("python", needs_weights="load_model("))
def test_python_of_a_page_runs_and_prints_what_the_page_shows(page, workplace, monkeypatch):
    namespace = {"__name__": "example"}
    monkeypatch.setitem(sys.modules, "example", type(sys)("example"))  # dataclasses look their module up
    for fence in fences(page):
        if fence.language != "python" or fence.not_run:
            continue
        for end, printed in run_fence(fence, namespace):
            require_same(shown_after(fence, end), printed, f"{name_of(page)}, line {fence.line + end}")


# Commands ----------------------------------------------------------------------------------------------------------------


def commands(fence: Fence) -> list[list[str]]:
    """The words of each line that begins with `$ `, continuation lines joined."""
    text = fence.body.replace("\\\n", " ")
    return [shlex.split(line[2:], comments=True) for line in text.splitlines() if line.startswith("$ ")]


def parse(arguments: list[str]) -> None:
    """Parse a command line without running it; wrong commands and options raise."""
    import typer

    from otoscope.cli.app import app

    command = typer.main.get_command(app)
    rest = list(arguments)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        command = command.commands[rest.pop(0)]  # pyright: ignore[reportAttributeAccessIssue]
    with contextlib.suppress(typer.Exit):  # --help and --version leave
        command.make_context("otoscope", rest)


CONSOLE = [
    pytest.param(fence, id=f"{name_of(page)}:{fence.line}")
    for page in PROSE
    for fence in fences(page)
    if fence.language in ("console", "sh", "shell", "bash")
]


@pytest.mark.parametrize("fence", CONSOLE)
def test_every_shown_command_exists_with_its_options(fence):
    assert fence.language == "console", "commands belong into ```console fences, after a dollar sign"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    assert commands(fence), "no command"
    for program, *arguments in commands(fence):
        if program == "otoscope":
            parse(arguments)
        if program == "make":
            assert {a for a in arguments if "=" not in a} <= targets


@pytest.mark.parametrize("page", pages_with("console", needs_weights="$ otoscope"))
def test_commands_of_a_page_run_and_print_what_the_page_shows(page, workplace, capfd):
    from otoscope.cli.main import main

    found = fences(page)
    for fence, following in zip(found, [*found[1:], None], strict=True):
        if fence.language != "console" or fence.not_run:
            continue
        out = ""
        for program, *arguments in commands(fence):
            if program == "otoscope":
                code = _run(main, arguments)
                said = capfd.readouterr()
                expected = (
                    2 if said.err.startswith("error:") and "error:" in _text_after(fence, following) else 0
                )
                assert code == expected, said.err
                out += said.out + (said.err if expected else "")
        if _text_after(fence, following):
            require_same(_text_after(fence, following), out, f"{name_of(page)}, line {fence.line}")


def _run(main, arguments: list[str]) -> int:
    try:
        return main(arguments)
    except SystemExit as leaving:  # --help
        return int(leaving.code or 0)


def _text_after(fence: Fence, following: Fence | None) -> str:
    """The ```text fence that follows a ```console fence with nothing but blank lines between."""
    if following is None or following.language != "text":
        return ""
    end = fence.line + fence.body.count("\n") + 1  # the line after the closing backticks
    between = fence.page.read_text(encoding="utf-8").splitlines()[end - 1 : following.line - 2]
    return "" if any(line.strip() for line in between) else following.body


def test_what_is_not_run_is_known():
    assert (
        sorted((name_of(f.page), f.not_run) for page in PAGES for f in fences(page) if f.not_run) == NOT_RUN
    )


# Links and claims --------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ +(.+?) *$", text, re.M)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", h.lower()).strip()) for h in headings}


@pytest.mark.parametrize("page", PROSE, ids=name_of)
def test_links_between_pages_resolve(page):
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in _LINK.findall(text):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{link}: no such heading"


def test_a_family_of_another_package_is_found_through_its_entry_point(tmp_path, monkeypatch):
    from otoscope.models.families import families, random_model

    guide = ROOT / "docs" / "guides" / "adding-a-family.md"
    (tmp_path / "otoscope_starcoder.py").write_text(fences(guide)[0].body, encoding="utf-8")
    registration = tmp_path / "otoscope_starcoder-1.0.dist-info"
    registration.mkdir()
    (registration / "METADATA").write_text("Metadata-Version: 2.1\nName: otoscope-starcoder\nVersion: 1.0\n")
    (registration / "entry_points.txt").write_text(
        "[otoscope.families]\nstarcoder2 = otoscope_starcoder:FAMILY\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    families.cache_clear()
    try:
        assert "blocks.1.mlp.hook_post" in random_model("starcoder2").points
    finally:
        families.cache_clear()
        sys.modules.pop("otoscope_starcoder", None)
