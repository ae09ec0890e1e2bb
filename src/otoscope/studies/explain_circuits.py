"""The stage of `explain` that traces tokens: which ones, and their circuits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from otoscope.circuits.speech import trace_speech
from otoscope.circuits.speech_tracing import SpeechSettings
from otoscope.documents.explain import Circuit
from otoscope.studies.graph_page import graph_data

if TYPE_CHECKING:
    from otoscope.circuits.heard import Heard
    from otoscope.documents.bench import Risk
    from otoscope.models.transcripts import Transcript
    from otoscope.models.whisper import SpeechModel

Why = Literal["alarm", "asked for", "least certain"]


def tokens_to_trace(
    transcript: Transcript, risk: Risk | None, token: int | None, count: int
) -> dict[int, Why]:
    """Tokens to trace and why: the one in alarm, the one that was asked for, then those of the least certain words.

    Args:
        transcript: What was written.
        risk: What the monitor said of it.
        token: The one that was asked for.
        count: How many; at least one is named, where anything was written.
    """
    wanted: dict[int, Why] = {}
    written = transcript.tokens
    if risk is not None and risk.alarm_token is not None and risk.alarm_token < len(written):
        wanted[risk.alarm_token] = "alarm"
    if token is not None:
        wanted.setdefault(token, "asked for")
    for word in sorted(transcript.words, key=lambda word: word.probability):
        if len(wanted) >= max(count, 1):
            break
        least = min(range(word.first_token, word.last_token + 1), key=lambda i: written[i].logprob)
        wanted.setdefault(least, "least certain")
    return wanted


def why_no_circuit(written: bool, asked: bool, accounted: bool) -> str | None:
    """In a sentence, why nothing is traced; None: it is.

    Args:
        written: Whether anything was.
        asked: Whether circuits were asked for.
        accounted: Whether the tokens could be accounted for; what cannot be cannot be traced either.
    """
    if not asked:
        return "No circuit was asked for (--circuits)."
    if not written:
        return "There is no circuit, since nothing was written."
    return None if accounted else "No circuit was traced, for the same reason."


def circuits_of(model: SpeechModel, said: Heard, wanted: Mapping[int, Why], nodes: int) -> list[Circuit]:
    """The circuits of tokens.

    Args:
        model: A Whisper model in float32 or float64.
        said: The recording, and what was written of it.
        wanted: Tokens, and why each is traced.
        nodes: Features of each circuit.
    """
    settings = SpeechSettings(nodes=nodes)
    return [
        Circuit(token=token, why=why, graph=graph_data(trace_speech(model, said, token, settings=settings)))
        for token, why in wanted.items()
    ]
