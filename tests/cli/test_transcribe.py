"""What `otoscope transcribe` prints."""

from __future__ import annotations

import pytest
from tests.studies.test_transcription import corpus

from otoscope.cli.main import main
from otoscope.cli.transcribe import _say


@pytest.mark.parametrize(("reference", "shown"), [("said", True), ("", False), (None, False)])
def test_error_rates_are_printed_where_there_are_words_to_get_wrong(reference, shown, capsys):
    _say(corpus("said", "", reference=reference))
    assert ("WER" in capsys.readouterr().out) is shown


@pytest.mark.parametrize(
    "options, said",
    [
        (("--engine", "ray"), "--store DIR"),
        (("--store", "kept", "--temperature", "1"), "Leave --store or --temperature out"),
        (("--store", "kept", "--mend", "repair"), "Leave --store or --mend out"),
    ],
)
def test_what_cannot_be_kept_is_told_before_anything_is_read(options, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["transcribe", "absent.wav", *options]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
