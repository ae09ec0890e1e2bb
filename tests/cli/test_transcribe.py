"""What `otoscope transcribe` prints."""

from __future__ import annotations

import pytest
from tests.studies.test_transcription import corpus

from otoscope.cli.transcribe import _say


@pytest.mark.parametrize(("reference", "shown"), [("said", True), ("", False), (None, False)])
def test_error_rates_are_printed_where_there_are_words_to_get_wrong(reference, shown, capsys):
    _say(corpus("said", "", reference=reference))
    assert ("WER" in capsys.readouterr().out) is shown
