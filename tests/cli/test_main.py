from __future__ import annotations

import errno
import os
import re
import shlex
import signal
import subprocess
import sys
from functools import cache

import pytest
import typer

from otoscope.cli.main import main

HEAVY = ("torch", "transformers", "numpy", "scipy", "soundfile", "jiwer", "pandas", "sklearn", "matplotlib")


@cache
def commands() -> list[list[str]]:
    """The words of every command, found in the application itself."""
    from otoscope.cli.app import app

    def walk(command, words):
        inner = getattr(command, "commands", {})
        yield words
        for name, sub in inner.items():
            yield from walk(sub, [*words, name])

    return list(walk(typer.main.get_command(app), []))


GROUPS = [words for words in commands() if any(other[:-1] == words for other in commands() if other)]
LEAVES = [words for words in commands() if words not in GROUPS]


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def failing(monkeypatch):
    """Make `otoscope models list` fail with an error of our choice."""

    def fail_with(error: BaseException) -> None:
        def raise_it():
            raise error

        monkeypatch.setattr("otoscope.models.sources.status", raise_it)

    return fail_with


def assert_refused(code: int, out: str, err: str) -> None:
    assert code == 2
    assert out == ""
    lines = err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["error", "remedy"]
    assert all(line.endswith((".", "?")) for line in lines)
    assert "Traceback" not in err


# Help ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_help_is_shown_with_an_example_that_names_the_command(capsys, words):
    code, out, err = run(capsys, *words, "--help")
    assert (code, err) == (0, "")
    if words != ["models"]:
        assert f"Example: otoscope {' '.join(words)}".rstrip() in out


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_every_command_takes_the_common_options(capsys, words):
    _, out, _ = run(capsys, *words, "--help")
    for option in ("--device", "--dtype", "--batch", "--seed", "--json", "--quiet", "--debug"):
        assert option in out, option


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_the_example_in_the_help_is_a_command_line_that_parses(capsys, monkeypatch, words):
    _, out, _ = run(capsys, *words, "--help")
    example = re.search(r"Example: otoscope (.*)", out)
    assert example
    from otoscope.cli.app import app

    command = typer.main.get_command(app)
    arguments = shlex.split(example[1])
    for _ in words:
        command = command.commands[arguments.pop(0)]  # pyright: ignore[reportAttributeAccessIssue]
    with command.make_context("otoscope", arguments):
        pass


def test_help_of_every_command_imports_nothing_heavy():
    code = (
        "import sys\nfrom otoscope.cli.main import main\n"
        f"for words in {commands()!r}: assert main([*words, '--help']) == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    import subprocess

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_a_word_that_is_no_choice_is_told_with_the_choices_and_no_word_of_a_library(capsys):
    code, _, error = run(capsys, "models", "check", "whisper-tiny.en", "--plan", "trase")
    assert code == 2
    assert "error: Invalid value for '--plan': 'trase' is not one of 'transcribe', 'explain'" in error


def test_version_is_the_packages(capsys):
    import otoscope

    assert run(capsys, "--version") == (0, f"otoscope {otoscope.__version__}\n", "")


def test_without_arguments_the_help_is_shown(capsys):
    code, out, _ = run(capsys)
    assert code == 0
    assert "transcribe" in out


# Refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["transcribe"], "CLIP"),
        (["transcrib"], "transcribe"),
        (["models"], "command"),
        (["transcribe", "x.wav", "--nonsense"], "--nonsense"),
        (["transcribe", "x.wav", "--json"], "otoscope transcribe --help"),
        (["models", "check", "x", "--plan"], "otoscope models check --help"),
        (["trace"], "Name a recording, or give --prompt"),
        (["trace", "--prompt", "a", "--prompt-file", "b"], "one prompt only"),
        (["transcribe", "x.wav", "--batch", "0"], "--batch"),
        (["transcribe", "x.wav", "--batch", "many"], "--batch"),
        (["transcribe", "x.wav", "--temperature", "nan"], "--temperature"),
        (["transcribe", "x.wav", "--task", "sing"], "--task"),
        (["explain", "x.wav", "--token", "-1"], "--token"),
        (["transcribe", "nowhere.wav"], "nowhere.wav"),
        (["transcribe", "nowhere.jsonl"], "nowhere.jsonl"),
        (["explain", "nowhere.wav"], "nowhere.wav"),
        (["models", "get", "whisper-tinny"], "whisper-tinny"),
        (["models", "check", "whisper-tinny"], "whisper-tinny"),
        (["models", "list", "--json", "no/such/folder.json"], "no/such/folder.json"),
        (["transcribe", "x.wav", "--json", "x.wav"], "x.wav"),
        (["transcribe", "x.wav", "--srt", "a", "--vtt", "./a"], "overwritten"),
    ],
)
def test_a_wrong_command_line_is_one_reason_and_one_remedy(capsys, monkeypatch, tmp_path, arguments, word):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *arguments)
    assert_refused(code, out, err)
    assert word in err
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_no_regular_file_is_left_as_it_is(capsys, monkeypatch, tmp_path):
    from pathlib import Path

    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("stream").symlink_to("/proc/self/fd/1")
    for name in ("pipe", "stream"):
        for arguments in (
            ["models", "list", "--json", name],
            ["transcribe", "x.wav", "--srt", name],
            ["explain", "x.wav", "--out", name],
        ):
            code, out, err = run(capsys, *arguments)
            assert_refused(code, out, err)
            assert f"{name} is not a regular file" in err
    assert Path("pipe").is_fifo()
    assert Path("stream").is_symlink()


def test_debug_shows_the_traceback_above_reason_and_remedy(capsys):
    code, _, err = run(capsys, "models", "get", "whisper-tinny", "--debug")
    assert code == 2
    assert "Traceback" in err
    assert err.splitlines()[-2].startswith("error: ")
    assert err.splitlines()[-1].startswith("remedy: ")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_the_systems_refusal_to_write_is_told_with_the_file(capsys, failing, number):
    failing(OSError(number, "it will not", "/data/result.json"))
    code, out, err = run(capsys, "models", "list")
    assert_refused(code, out, err)
    assert "/data/result.json" in err


@pytest.mark.parametrize("text", ["DefaultCPUAllocator: can't allocate memory: you tried", None])
def test_lack_of_memory_points_to_batch(capsys, failing, text):
    failing(RuntimeError(text) if text else MemoryError())
    code, out, err = run(capsys, "models", "list")
    assert_refused(code, out, err)
    assert "--batch" in err


def test_an_unexpected_error_is_called_a_bug_and_has_an_exit_code_of_its_own(capsys, failing):
    failing(ZeroDivisionError("division by zero"))
    code, _, err = run(capsys, "models", "list")
    assert code == 1
    assert "ZeroDivisionError" in err
    assert "bug" in err
    assert "Traceback" not in err
    assert "Traceback" in run(capsys, "models", "list", "--debug")[2]


def test_a_hostile_file_name_cannot_steer_the_terminal(capsys):
    _, _, err = run(capsys, "transcribe", "\x1b[2J\u202egnp\udcff.wav")
    assert "\x1b" not in err
    assert "\u202e" not in err
    assert r"\x1b[2J\u202egnp\udcff.wav" in err


def test_otoscopes_own_warnings_are_one_line_and_others_are_silent(capsys, monkeypatch):
    import warnings

    def warn():
        warnings.warn_explicit("Heed this.", UserWarning, "x.py", 1, module="otoscope.activations.edits")
        warnings.warn_explicit("Never mind.", UserWarning, "y.py", 1, module="transformers.utils")
        return []

    monkeypatch.setattr("otoscope.models.sources.status", warn)
    _, _, err = run(capsys, "models", "list")
    assert err == "warning: Heed this.\n"


# Processes ----------------------------------------------------------------------------------------------------


def test_an_interrupt_within_source_text_that_python_runs_ends_like_any_other(tmp_path):
    (tmp_path / "program.py").write_text("""
import sys
from otoscope.cli import main
main._invoke = lambda arguments: exec("raise KeyboardInterrupt")
sys.exit(main.main([]))
""")
    done = subprocess.run([sys.executable, "-m", "program"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "Interrupted; no half-written file was left behind.\n")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_in_the_middle_of_an_import_waits_for_its_end(tmp_path, name):
    (tmp_path / "library.py").write_text(f"""
import os, signal, time
os.kill(os.getpid(), signal.{name})
time.sleep(0.2)
print("imported whole")
""")
    (tmp_path / "program.py").write_text("""
import time
from otoscope.cli import main
def command(arguments):
    import library
    time.sleep(10)
main._invoke = command
main.run()
""")
    done = subprocess.run(
        [sys.executable, "-m", "program"], cwd=tmp_path, capture_output=True, text=True, timeout=9
    )
    assert done.stdout == "imported whole\n"
    assert done.stderr == "Interrupted; no half-written file was left behind.\n"
    assert done.returncode == 128 + signal.Signals[name]


def test_an_interrupt_tells_where_the_work_goes_on(monkeypatch, capsys):
    from otoscope.cli import main as entry

    monkeypatch.setattr("signal.signal", lambda *_: None)  # else this process would heed no Ctrl-C any more

    def stopped(_):
        interrupt = KeyboardInterrupt()
        interrupt.add_note("The same command goes on with what is kept in searched.")
        raise interrupt

    monkeypatch.setattr(entry, "_invoke", stopped)
    assert entry.main([]) == 130
    assert capsys.readouterr().err.splitlines() == [
        "Interrupted; no half-written file was left behind.",
        "The same command goes on with what is kept in searched.",
    ]


def test_a_full_disk_behind_stdout_is_an_error_without_a_traceback(otoscope):
    import subprocess
    from pathlib import Path

    if not Path("/dev/full").exists():
        pytest.skip("/dev/full is not here; it comes with Linux")
    with Path("/dev/full").open("w") as full:
        done = otoscope("models", "list", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert_refused(done.returncode, "", done.stderr)


def test_a_reader_who_leaves_is_no_error(otoscope):
    import subprocess

    reader, writer = os.pipe()
    os.close(reader)
    done = otoscope("models", "list", capture_output=False, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("command", ["transcribe", "lens", "patch", "monitor run"])
def test_several_recordings_are_sent_to_a_folder_or_a_manifest(capsys, command):
    assert_refused(*(told := run(capsys, *command.split(), "a.wav", "b.mp3")))
    assert "name a folder or a manifest" in told[2]


@pytest.mark.parametrize("command", ["explain", "transcribe"])
def test_the_recording_of_the_examples_is_found_in_the_package(capsys, tmp_path, monkeypatch, command):
    from otoscope.audio.samples import sample

    monkeypatch.chdir(tmp_path)
    assert_refused(*(told := run(capsys, command, "jfk.flac")))
    assert f"The sample of that name is {sample('jfk')}." in told[2]
    assert str(sample("jfk")) not in run(capsys, command, "mine.flac")[2]
