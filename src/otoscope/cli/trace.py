"""`otoscope trace`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from otoscope.cli.options import Common, require_different, with_common
from otoscope.cli.show import say, write_json
from otoscope.errors import OptionError

if TYPE_CHECKING:
    from otoscope.circuits.checking import Check


@with_common
def trace(
    *,
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The text that the model goes on from.")
    ] = None,
    prompt_file: Annotated[Path | None, typer.Option(help="A file with that text.")] = None,
    model: Annotated[
        str, typer.Option(help="A language model: an alias, a hub id or a directory.")
    ] = "smollm2-135m",
    dictionary: Annotated[
        str, typer.Option(help="A folder with transcoders, or neurons for the model's own MLP neurons.")
    ] = "neurons",
    target: Annotated[
        str,
        typer.Option(
            metavar="TEXT|top", help="The token to explain: its text, or top for the most probable."
        ),
    ] = "top",
    nodes: Annotated[int, typer.Option(min=1, help="Features to expand, the most influential.")] = 1000,
    neuronpedia: Annotated[
        Path | None, typer.Option(help="Write the pruned graph as Neuronpedia's JSON.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write the graph into this folder, to go on with in Python.")
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Ablate features in the model and compare with what the graph predicts."
        ),
    ] = False,
    common: Common,
) -> None:
    """Trace which features made a language model write its next token, and by which paths.

    Layers and positions are counted from 0. Needs float32 or float64.

    Example: otoscope trace --prompt "The capital of France is" --nodes 500 --json paris.json
    """
    text = _prompt(prompt, prompt_file)
    require_different(common.json_path, neuronpedia, save, source=prompt_file or Path("-"))

    from otoscope.files import require_writable

    if neuronpedia:
        require_writable(neuronpedia)
    if save:
        require_writable(save / "graph.json" if save.exists() else save)

    from otoscope.circuits.neuronpedia import write_neuronpedia
    from otoscope.circuits.tracer import Tracer, TraceSettings
    from otoscope.dictionaries.loading import load_dictionary
    from otoscope.models.loading import load_model

    patient = load_model(model, common.device, common.dtype)
    settings = TraceSettings(nodes=nodes, batch=common.batch)
    graph = Tracer(patient, text, load_dictionary(dictionary, patient), settings).graph(target)
    checked = graph.check(seed=common.seed) if check else None
    if neuronpedia:
        write_neuronpedia(graph, neuronpedia)
    if save:
        graph.save(save)
    if common.json:
        told: dict[str, Any] = graph.to_dict()
        write_json(told | ({"check": checked.to_dict()} if checked else {}), common.json, indent=None)
    if not common.json_on_stdout:
        from otoscope.circuits.summary import summary_lines

        say(*summary_lines(graph), *(_check_lines(checked) if checked else []))


def _prompt(prompt: str | None, file: Path | None) -> str:
    if (prompt is None) == (file is None):
        raise OptionError("There has to be one prompt.", "Give either --prompt or --prompt-file.")
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


def _check_lines(check: Check) -> list[str]:
    told = check.to_dict()
    direct, free = told["direct"], told["free"]
    baselines = ", ".join(f"{name} {_number(value)}" for name, value in free["baselines"].items())
    return [
        "",
        f"Check: {len(check.features)} features ablated, and as many random ones of nearly equal activation.",
        f"  direct (everything frozen): correlation {_number(direct['correlation'], 6)} over {direct['n']} edges",
        f"  free (the model reacts): correlation {_number(free['correlation'])} "
        f"({_number(free['ci_low'])} to {_number(free['ci_high'])}), n = {free['n']}",
        f"  baselines: {baselines}",
        f"  mean change of the target: {check.top_effect:.3f} by these features, {check.random_effect:.3f} by random ones",
    ]


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
