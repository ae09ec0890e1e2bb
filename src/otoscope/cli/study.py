"""`otoscope study`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from otoscope.cli.options import Common, with_common
from otoscope.cli.show import say, write_json


class Study(StrEnum):
    """The studies."""

    LENS = "lens"
    PROBES = "probes"
    HALLUCINATION = "hallucination"
    REPETITION = "repetition"
    CONTEXT_BIAS = "context-bias"
    WHY = "why"


@with_common
def study(
    name: Annotated[
        Study,
        typer.Argument(metavar="NAME", help="lens, probes, hallucination, repetition, context-bias or why."),
    ],
    *,
    model: Annotated[str, typer.Option(help="An alias, a hub id or a model directory.")] = "whisper-tiny.en",
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="A manifest; may be given again. Without one the study makes its own corpora below --out."
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR", help="Directory for results.json, report.md and figures; a begun one goes on."
        ),
    ],
    random_weights: Annotated[
        bool,
        typer.Option(
            "--random-weights/--no-random-weights",
            help="Probe the architecture with random weights, too (probes); hears the corpora again.",
        ),
    ] = True,
    common: Common,
) -> None:
    """Run a published experiment from data to report, with its controls.

    lens: saturation and what each layer would write. probes: gender, accent, noise, language, meaning, speech or
    not. hallucination: the three rates on sounds without speech, and whether the last state tells. repetition: which
    components keep a loop going, and the price of patching them. context-bias: whether noise in a component brings
    back the word that was said.

    Example: otoscope study probes --model whisper-tiny.en --out probes
    """
    from otoscope.cli.loading import exact
    from otoscope.figures.studies import study_figures
    from otoscope.figures.style import save_figure
    from otoscope.models.loading import load_model
    from otoscope.studies.curve_page import study_docs
    from otoscope.views.page import save_page

    loaded = load_model(model, common.device, exact(common.dtype) if name is Study.WHY else common.dtype)
    manifests = data or []
    if name is Study.PROBES:
        from otoscope.studies.probes import study_probes

        results = study_probes(
            loaded, manifests, out, seed=common.seed, batch=common.batch, random_weights=random_weights
        )
    elif name is Study.HALLUCINATION:
        from otoscope.studies.hallucination import study_hallucination

        results = study_hallucination(loaded, manifests, out, seed=common.seed, batch=common.batch)
    elif name is Study.REPETITION:
        from otoscope.studies.repetition import study_repetition

        results = study_repetition(loaded, manifests, out, seed=common.seed, batch=common.batch)
    elif name is Study.CONTEXT_BIAS:
        from otoscope.studies.context_bias import study_context_bias

        results = study_context_bias(loaded, manifests, out, seed=common.seed, batch=common.batch)
    elif name is Study.WHY:
        from otoscope.studies.why import study_why

        results = study_why(loaded, manifests, out, seed=common.seed)
    else:
        from otoscope.studies.layers import study_lens

        results = study_lens(loaded, manifests, out, seed=common.seed, batch=common.batch)
    for stem, figure in study_figures(results).items():
        save_figure(figure, out / f"{stem}.png")
    for stem, doc in study_docs(results).items():
        save_page(doc, out / f"{stem}.html")
    if common.json:
        write_json(results, common.json)
    if not common.json_on_stdout:
        say(f"{out / 'report.md'}", f"{out / 'results.json'}")
