"""How a graph was made: the command, and the Python, that make it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from otoscope.circuits.graph import PROJECTOR, AttributionGraph, TargetInfo
from otoscope.dictionaries.loading import NEURONS
from otoscope.documents.graph import Made


def how_made(graph: AttributionGraph, folders: Mapping[str, str] | None = None) -> Made:
    """The command and the lines of Python that make a graph again, beside its recording.

    Args:
        graph: The graph.
        folders: Where its dictionaries lie, by the name of the option (`dictionary`, `encoder_dictionary`); those that are no
            neurons and not named here are called FOLDER.
    """
    model = str(graph.record.get("model", {}).get("name", "MODEL"))
    options, arguments = _dictionaries(graph, folders)
    options = ["--model", model, "--nodes", str(_settings(graph).get("nodes", 1000)), *options]
    of = _of_recording if "audio" in graph.record else _of_prompt
    command, imports, call = of(graph, options, arguments)
    if arguments:
        imports = [*imports, "from otoscope.dictionaries.loading import load_dictionary"]
    lines = ["import otoscope as oto", *imports, "", f"model = oto.load_model({model!r})", f"graph = {call}"]
    return Made(command=shlex.join(command), python="\n".join(lines))


def folder_of(graph: AttributionGraph, name: str, folders: Mapping[str, str] | None = None) -> str | None:
    """What `load_dictionary` takes to load a dictionary of a graph; None: nobody knows, or its stack was not opened.

    Args:
        graph: The graph.
        name: `dictionary` or `encoder_dictionary`.
        folders: As `how_made`.
    """
    if not _opened(graph, name):
        return None
    told = graph.record[name]
    if told.get("kind") != NEURONS:
        return (folders or {}).get(name) or None
    return NEURONS if told.get("gate") in (None, "half") else f"{NEURONS}:{told['gate']}"


def language_of(graph: AttributionGraph) -> str | None:
    """The language that a recogniser was told to write, whether it was forced or detected; None: it knows but one."""
    language = graph.record.get("language")
    prompt = graph.tokens[: int(graph.record.get("prompt_tokens", 0))]
    return language if f"<|{language}|>" in prompt else None


def compared_with(target: TargetInfo) -> str | None:
    """What a contrast compares with, as the command takes it."""
    _, found, other = target.label.partition(" rather than ")
    return ("end" if other.startswith("<|") else other) if found else None


def _settings(graph: AttributionGraph) -> dict[str, Any]:
    return graph.record.get("settings", {})


def _opened(graph: AttributionGraph, name: str) -> bool:
    """Whether a dictionary was of any use: that of the encoder is of none where the encoder stays closed."""
    closed = name == "encoder_dictionary" and not graph.record.get("encoder_features")
    return bool(graph.record.get(name)) and not closed


def _dictionaries(graph: AttributionGraph, folders: Mapping[str, str] | None) -> tuple[list[str], list[str]]:
    options, arguments = [], []
    for name, stack in (("dictionary", ""), ("encoder_dictionary", ', "encoder"')):
        folder = folder_of(graph, name, folders) or "FOLDER"
        if folder == NEURONS or not _opened(graph, name):
            continue
        options += [f"--{name.replace('_', '-')}", folder]
        arguments.append(f"{name}=load_dictionary({folder!r}, model{stack})")
    return options, arguments


def _of_prompt(
    graph: AttributionGraph, options: list[str], arguments: list[str]
) -> tuple[list[str], list[str], str]:
    prompt = str(graph.record.get("prompt", ""))
    command = ["otoscope", "trace", "--prompt", prompt, "--target", graph.targets[0].label, *options]
    tokens = [target.token for target in graph.targets]
    given = [
        repr(prompt),
        repr(tokens),
        f"settings=TraceSettings(nodes={_settings(graph).get('nodes', 1000)})",
    ]
    call = f"oto.trace(model, {', '.join([*given, *arguments])})"
    return command, ["from otoscope.circuits.tracer import TraceSettings"], call


def _of_recording(
    graph: AttributionGraph, options: list[str], arguments: list[str]
) -> tuple[list[str], list[str], str]:
    audio, settings = graph.record["audio"], _settings(graph)
    # Its folder may be a server's own, and says nothing to whoever has the page.
    source, which = PurePath(audio.get("source") or "RECORDING").name, graph.record.get("token_indices", [])
    kept = {name: settings[name] for name in ("nodes", "segments", "encoder_nodes") if settings.get(name)}
    more = [f"settings=SpeechSettings({', '.join(f'{k}={v!r}' for k, v in kept.items())})", *arguments]
    for name in ("segments", "encoder_nodes"):
        if name in kept:
            options = [*options, f"--{name.replace('_', '-')}", str(kept[name])]
    if audio.get("start"):
        offset = f"{audio['start']:.3f}".rstrip("0").rstrip(".")
        options = [*options, "--offset", offset]
        more.append(f"offset={offset}")
    if language := language_of(graph):
        options = [*options, "--language", language]
        more.append(f"options=oto.DecodeOptions(language={language!r})")
    other = compared_with(graph.targets[0])
    if other:
        options = [*options, "--against", other]
        more.append(f"against={graph.targets[0].against}")
    named = [part for index in which for part in ("--token", str(index))]
    door = "trace_audio" if (graph.nodes.kind == PROJECTOR).any() else "trace_speech"
    call = f"oto.{door}(model, {', '.join([repr(source), repr(list(which)), *more])})"
    return (
        ["otoscope", "trace", source, *named, *options],
        ["from otoscope.circuits.speech_tracing import SpeechSettings"],
        call,
    )
