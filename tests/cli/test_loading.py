"""The precision a command's model is loaded in."""

from __future__ import annotations

import pytest

from otoscope.cli.loading import load_for
from otoscope.cli.options import Common
from otoscope.models import loading


@pytest.mark.parametrize(
    "command, named, taken",
    [
        ("trace", "auto", "float32"),
        ("explain", "auto", "float32"),
        ("trace", "float16", "float16"),
        ("transcribe", "auto", "auto"),
    ],
)
def test_what_has_graphs_takes_float32_on_accelerators_too_where_no_precision_is_named(
    command, named, taken, monkeypatch
):
    asked = []
    monkeypatch.setattr(loading, "load_model", lambda *how: asked.append(how))
    load_for(command, "whisper-tiny.en", Common("cpu", named, None, 0, None, True, False))
    assert asked == [("whisper-tiny.en", "cpu", taken)]
