"""Look inside models that listen and speak.

    import otoscope as oto

    model = oto.load_model("whisper-tiny.en")
    doc = oto.explain(model, oto.sample("jfk"))
    oto.save_page(doc, "jfk.html")

Names are imported when first used, so that `import otoscope` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_DOORS = {
    "load_model": "otoscope.models.loading",
    "read": "otoscope.audio",
    "sample": "otoscope.audio.samples",
    "Clip": "otoscope.audio",
    "mix": "otoscope.audio",
    "silence": "otoscope.audio",
    "white_noise": "otoscope.audio",
    "Edit": "otoscope.activations",
    "ActivationCache": "otoscope.activations",
    "HookPoint": "otoscope.activations",
    "DecodeOptions": "otoscope.models.transcripts",
    "Transcript": "otoscope.models.transcripts",
    "transcribe": "otoscope.models.transcribing",
    "transcribe_all": "otoscope.models.transcribing",
    "explain": "otoscope.studies.explain:explain_clip",
    "Intervention": "otoscope.documents.intervention",
    "intervene": "otoscope.studies.intervening",
    "intervene_prompt": "otoscope.studies.intervening",
    "graph_doc": "otoscope.studies.graph_page",
    "items": "otoscope.corpora",
    "probe": "otoscope.probes.corpus:probe_corpus",
    "save_page": "otoscope.views.page",
    "read_document": "otoscope.views.page_reading",
    "trace": "otoscope.circuits.tracer",
    "trace_audio": "otoscope.circuits.audio_language",
    "trace_speech": "otoscope.circuits.speech",
    "OtoscopeError": "otoscope.errors",
}

__all__ = [
    "ActivationCache", "Clip", "DecodeOptions", "Edit", "HookPoint", "Intervention", "OtoscopeError", "Transcript",
    "__version__", "explain", "graph_doc", "intervene", "intervene_prompt", "items", "load_model", "mix", "probe", "read",
    "read_document", "sample", "save_page", "silence", "trace", "trace_audio", "trace_speech", "transcribe", "transcribe_all",
    "white_noise",
]  # fmt: skip

if TYPE_CHECKING:
    from otoscope.activations import ActivationCache, Edit, HookPoint
    from otoscope.audio import Clip, mix, read, silence, white_noise
    from otoscope.audio.samples import sample
    from otoscope.circuits.audio_language import trace_audio
    from otoscope.circuits.speech import trace_speech
    from otoscope.circuits.tracer import trace
    from otoscope.corpora import items
    from otoscope.documents.intervention import Intervention
    from otoscope.errors import OtoscopeError
    from otoscope.models.loading import load_model
    from otoscope.models.transcribing import transcribe, transcribe_all
    from otoscope.models.transcripts import DecodeOptions, Transcript
    from otoscope.probes.corpus import probe_corpus as probe
    from otoscope.studies.explain import explain_clip as explain
    from otoscope.studies.graph_page import graph_doc
    from otoscope.studies.intervening import intervene, intervene_prompt
    from otoscope.views.page import save_page
    from otoscope.views.page_reading import read_document


def __getattr__(name: str) -> Any:
    if name not in _DOORS:
        raise AttributeError(f"module 'otoscope' has no attribute {name!r}")
    module, _, other = _DOORS[name].partition(":")
    return getattr(import_module(module), other or name)


def __dir__() -> list[str]:
    return sorted(__all__)
