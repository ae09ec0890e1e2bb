"""`otoscope trace`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from otoscope.cli.options import Common, Force, require_different, require_page, with_common
from otoscope.cli.show import say, write_json
from otoscope.errors import OptionError
from otoscope.wording import number

if TYPE_CHECKING:
    from otoscope.circuits.checking import Check
    from otoscope.circuits.graph import AttributionGraph
    from otoscope.models.base import Model


@with_common
def trace(
    clip: Annotated[
        str | None, typer.Argument(metavar="[CLIP]", help="A recording, of which a word is explained.")
    ] = None,
    *,
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The text that the model goes on from.")
    ] = None,
    prompt_file: Annotated[Path | None, typer.Option(help="A file with that text.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="An alias, a hub id or a directory; whisper-tiny.en for a recording, smollm2-135m for a prompt."
        ),
    ] = None,
    dictionary: Annotated[
        str, typer.Option(help="A folder with transcoders, or neurons for the model's own MLP neurons.")
    ] = "neurons",
    target: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT|top",
            help="After a prompt: the token to explain, its text, or top for the most probable.",
        ),
    ] = None,
    token: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N|WORD",
            help="In a recording: number of a written token, from 0, a word, or end; may be given several times. "
            "Default: the token that the model was least sure of.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="In a recording: why that and not this; end for the end of the text."
        ),
    ] = None,
    segments: Annotated[
        str | None, typer.Option(metavar="words|80ms|frames|similar", help="How the sound is cut.")
    ] = None,
    nodes: Annotated[
        int | None,
        typer.Option(min=1, help="Features to expand, the most influential; 1000, in a recording 500."),
    ] = None,
    encoder_nodes: Annotated[
        int | None,
        typer.Option(min=0, help="Features of the encoder to expand; 0 (default) takes its output as given."),
    ] = None,
    encoder_dictionary: Annotated[
        str | None, typer.Option(help="The same as --dictionary, for the encoder.")
    ] = None,
    language: Annotated[str | None, typer.Option(help="Language of a recording; default: detected.")] = None,
    offset: Annotated[float, typer.Option(min=0, help="Where in the recording to begin, in seconds.")] = 0.0,
    neuronpedia: Annotated[
        Path | None, typer.Option(help="Write the pruned graph as Neuronpedia's JSON.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write the graph into this folder, to go on with in Python.")
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(help="Of a recording: draw the (first) word's sound; .png, .svg or .pdf."),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(help="Write the graph as a page to see, hear and explore, one offline HTML file."),
    ] = None,
    force: Force = False,
    compare: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="With --page: a graph of --save to see beside this one."),
    ] = None,
    examples: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="With --page: what `otoscope features examples` collected; may be given twice, for both stacks.",
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Ablate features in the model and compare with what the graph predicts."
        ),
    ] = False,
    ladder: Annotated[
        bool,
        typer.Option(
            "--ladder", help="With --check: also tell what of the model's reaction is not predicted."
        ),
    ] = False,
    common: Common,
) -> None:
    """Trace what made a model write a word: from a recording's sound, or from a prompt, through features and heads.

    Layers, tokens and positions are counted from 0. Needs float32 or float64.

    Example: otoscope trace call.wav --token country --page country.html

    Example: otoscope trace --prompt "The capital of France is" --nodes 500 --json paris.json
    """
    speech = {
        "--token": token,
        "--against": against,
        "--segments": segments,
        "--encoder-nodes": encoder_nodes,
        "--encoder-dictionary": encoder_dictionary,
        "--language": language,
        "--offset": offset,
        "--figure": figure,
    }
    _require_one_kind(clip, {"--prompt": prompt, "--prompt-file": prompt_file, "--target": target}, speech)
    text = _prompt(prompt, prompt_file) if clip is None else ""
    require_different(
        common.json_path, neuronpedia, save, figure, page, source=prompt_file or Path(clip or "-")
    )

    from otoscope.files import require_writable

    if page is None and (compare or examples):
        raise OptionError(
            "--compare and --examples are for a page.", "Say where it shall be written with --page."
        )
    require_page(page, force)
    other = _saved(compare)
    if neuronpedia:
        require_writable(neuronpedia)
    if save:
        require_writable(save / "graph.json" if save.exists() else save)
    if figure:
        from otoscope.figures.style import require_figure

        require_figure(figure)

    from otoscope.circuits.neuronpedia import write_neuronpedia
    from otoscope.circuits.tracer import Tracer, TraceSettings
    from otoscope.cli.loading import load_for
    from otoscope.dictionaries.loading import load_dictionary

    patient = load_for(
        "trace", model or ("smollm2-135m" if clip is None else "whisper-tiny.en"), common, units=nodes
    )
    if clip is None:
        settings = TraceSettings(nodes=nodes or 1000, batch=common.batch)
        graph = Tracer(patient, text, load_dictionary(dictionary, patient), settings).graph(target or "top")
    else:
        graph = _of_recording(
            patient,
            Path(clip),
            [int(each) if each.isdigit() else each for each in token or []] or None,
            against,
            language,
            dictionary=load_dictionary(dictionary, patient),
            encoder_dictionary=load_dictionary(encoder_dictionary, patient, _hearing_stack(patient))
            if encoder_dictionary
            else None,
            settings={
                "nodes": nodes or 500,
                "batch": common.batch,
                "encoder_nodes": encoder_nodes or 0,
                "segments": segments or "words",
            },
            offset=offset,
        )
    checked = graph.check(seed=common.seed, ladder=ladder) if check or ladder else None
    if neuronpedia:
        write_neuronpedia(graph, neuronpedia)
    if save:
        graph.save(save)
    if figure:
        _draw(graph, figure)
    if page:
        folders = {"dictionary": dictionary, "encoder_dictionary": encoder_dictionary or ""}
        _write_page(graph, page, other, examples or [], checked, folders)
    if common.json:
        told: dict[str, Any] = graph.to_dict()
        write_json(told | ({"check": checked.to_dict()} if checked else {}), common.json, indent=None)
    if not common.json_on_stdout:
        from otoscope.circuits.summary import summary_lines

        say(*summary_lines(graph), *(_check_lines(checked) if checked else []))
        if page:
            say(f"The page is {page}.")


def _saved(folder: Path | None) -> AttributionGraph | None:
    """A graph to compare with, read before anything long begins."""
    if folder is None:
        return None
    from otoscope.circuits.saving import load_graph

    return load_graph(folder)


def _write_page(
    graph: AttributionGraph,
    path: Path,
    other: AttributionGraph | None,
    examples: list[Path],
    checked: Check | None,
    folders: dict[str, str],
) -> None:
    from otoscope.studies.feature_examples import Examples
    from otoscope.studies.graph_page import graph_doc
    from otoscope.views.page import save_page

    collected = [Examples(folder) for folder in examples]
    doc = graph_doc(graph, compare=other, examples=collected, check=checked, folders=folders)
    save_page(doc, path)


def _draw(graph: AttributionGraph, path: Path) -> None:
    from otoscope.circuits.speech_tracing import SpeechTracer
    from otoscope.figures.trace import trace_figure

    tracer, told = graph.tracer, graph.record
    assert isinstance(tracer, SpeechTracer)
    segments, target = told["segments"], graph.targets[0]
    trace_figure(
        tracer.features[0].float().cpu().numpy(),
        tracer.patches().parts[0].float().cpu().numpy(),
        told["totals"][0]["sound"],
        segments["spans"],
        segments["labels"],
        told["audio"]["duration"],
        f"{target.label.strip()!r}: what was heard for it and against it ({told['model']['name']})",
        path=path,
    )


def _of_recording(
    patient: Model,
    clip: Path,
    token: list[int | str] | None,
    against: str | None,
    language: str | None,
    settings: dict[str, Any],
    **how: Any,
) -> AttributionGraph:
    from otoscope.circuits.audio_language import trace_audio
    from otoscope.circuits.speech import trace_speech
    from otoscope.circuits.speech_tracing import SpeechSettings
    from otoscope.models.qwen2_audio import AudioLanguageModel
    from otoscope.models.transcripts import DecodeOptions

    how |= {"settings": SpeechSettings(**settings)}
    if isinstance(patient, AudioLanguageModel):
        if language:
            raise OptionError("--language is of recognisers.", "Ask this model for a language in words.")
        return trace_audio(patient, clip, token, against, **how)
    options = DecodeOptions(language=language)
    # What is no recogniser is refused there.
    return trace_speech(patient, clip, token, against, options=options, **how)  # type: ignore[arg-type]


def _hearing_stack(patient: Model) -> str:
    """Name of the stack that hears."""
    return next((s for s in patient.points.stacks if s in ("encoder", "audio_encoder")), "encoder")


def _require_one_kind(clip: str | None, of_prompts: dict[str, Any], of_recordings: dict[str, Any]) -> None:
    """Options of prompts go with a prompt alone, those of recordings with a recording."""
    wrong = of_prompts if clip is not None else of_recordings
    given = [name for name, value in wrong.items() if value]
    if given:
        kind, other = ("recording", "prompt") if clip is not None else ("prompt", "recording")
        raise OptionError(f"{given[0]} is for a {other}, and a {kind} is traced.", "Leave one of them out.")


def _prompt(prompt: str | None, file: Path | None) -> str:
    if prompt is None and file is None:
        raise OptionError(
            "There is nothing to trace.", "Name a recording, or give --prompt or --prompt-file."
        )
    if prompt is not None and file is not None:
        raise OptionError("There can be one prompt only.", "Give either --prompt or --prompt-file.")
    text = prompt
    if file is not None:
        try:
            text = file.read_text("utf-8").removesuffix("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise OptionError(
                f"{file} cannot be read as text: {error}.", "Name a text file in UTF-8."
            ) from error
    if not (text or "").strip():
        raise OptionError("The prompt is empty.", "Give at least one token of text.")
    return str(text)


_OF_KINDS = {
    "decoder_features": "features of the decoder",
    "encoder_features": "features of the encoder over a segment",
    "supernodes": "features of one layer and place, together",
    "sound": "segments of sound, silenced",
}


def _check_lines(check: Check) -> list[str]:
    lines = ["", "Check: what goes when nodes are taken away in the model, beside what the graph says."]
    kinds = check.kinds or {"": check}
    for kind, each in kinds.items():
        title = _OF_KINDS.get(kind, "features ablated")
        told = each.to_dict()
        direct, free = told["direct"], told["free"]
        baselines = ", ".join(
            f"{name.replace('_', ' ')} {number(value)}" for name, value in free["baselines"].items()
        )
        lines += [
            f"  {len(each.features)} {title}, and as many random ones:",
            f"    everything frozen: correlation {number(direct['correlation'], 6)} over {direct['n']} edges",
            f"    the model reacts: correlation {number(free['correlation'])} "
            f"({number(free['ci_low'])} to {number(free['ci_high'])}), n = {free['n']}; {_verdict(free)}",
            f"    baselines: {baselines}",
            *_ladder_lines(free),
            f"    mean change of the target: {each.top_effect:.3f}, by random ones {each.random_effect:.3f}",
        ]
    return lines


def _ladder_lines(free: dict[str, Any]) -> list[str]:
    if "ladder" not in free:
        return []
    scales, gates = (free["ladder"][name] for name in ("gates", "patterns"))
    return [
        f"    with norm scales reacting: {number(scales)}; gates, too: {number(gates)}; what is left are attention patterns"
    ]


def _verdict(free: dict[str, Any]) -> str:
    """Whether the graph is a better guide than everything simpler."""
    own = free["correlation"]
    better = [
        name
        for name, value in free["baselines"].items()
        if value is not None and (own is None or value >= own)
    ]
    return (
        f"no better than {', '.join(n.replace('_', ' ') for n in better)}"
        if better
        else "above every baseline"
    )
