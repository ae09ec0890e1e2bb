"""How a graph was made: the command, and the Python, that make it again."""

from __future__ import annotations

import shlex
from typing import Any

from otoscope.circuits.graph import PROJECTOR, AttributionGraph, TargetInfo
from otoscope.documents.graph import Made


def how_made(graph: AttributionGraph, **folders: str) -> Made:
    """The command and the lines of Python that make a graph again.

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


def compared_with(target: TargetInfo) -> str | None:
    """What a contrast compares with, as the command takes it."""
    _, found, other = target.label.partition(" rather than ")
    return ("end" if other.startswith("<|") else other) if found else None


def _settings(graph: AttributionGraph) -> dict[str, Any]:
    return graph.record.get("settings", {})


def _dictionaries(graph: AttributionGraph, folders: dict[str, str]) -> tuple[list[str], list[str]]:
    options, arguments = [], []
    for name, stack in (("dictionary", ""), ("encoder_dictionary", ', "encoder"')):
        told = graph.record.get(name, {"kind": "neurons"})
        closed = name == "encoder_dictionary" and not graph.record.get("encoder_features")
        if told.get("kind") == "neurons" or closed:
            continue
        folder = folders.get(name) or "FOLDER"
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
    source, which = str(audio.get("source") or "RECORDING"), list(graph.record.get("token_indices", []))
    kept = {name: settings[name] for name in ("nodes", "segments", "encoder_nodes") if settings.get(name)}
    more = [f"settings=SpeechSettings({', '.join(f'{k}={v!r}' for k, v in kept.items())})", *arguments]
    for name in ("segments", "encoder_nodes"):
        if name in kept:
            options = [*options, f"--{name.replace('_', '-')}", str(kept[name])]
    if audio.get("start"):
        options = [*options, "--offset", f"{audio['start']:g}"]
        more.append(f"offset={audio['start']:g}")
    other = compared_with(graph.targets[0])
    if other:
        options = [*options, "--against", other]
        more.append(f"against={graph.targets[0].against}")
    named = [part for index in which for part in ("--token", str(index))]
    door = "trace_audio" if (graph.nodes.kind == PROJECTOR).any() else "trace_speech"
    call = f"oto.{door}(model, {', '.join([repr(source), repr(which), *more])})"
    return (
        ["otoscope", "trace", source, *named, *options],
        ["from otoscope.circuits.speech import SpeechSettings"],
        call,
    )
