"""`otoscope probe`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from otoscope.cli.options import Common, Force, require_different, require_page, with_common, with_engine
from otoscope.cli.show import say, table, warn, write_json
from otoscope.cli.skipping import end, warn_of_skipped
from otoscope.wording import number

if TYPE_CHECKING:
    from otoscope.probes.probing import ProbeCurve


class Site(StrEnum):
    """Where to probe."""

    ENCODER = "encoder"
    DECODER = "decoder"


class Pool(StrEnum):
    """What a recording's positions become."""

    MEAN = "mean"
    SPEECH = "speech"
    MAX = "max"
    LAST = "last"
    END = "end"
    FRAMES = "frames"


@with_common
@with_engine
def probe(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="MANIFEST|FOLDER", help="A labelled corpus; of texts (JSON lines) for a language model."
        ),
    ],
    *,
    label: Annotated[str, typer.Option(help="What to tell from the activations: a label of the corpus.")],
    model: Annotated[str, typer.Option(help="An alias, a hub id or a model directory.")] = "whisper-tiny.en",
    site: Annotated[
        Site | None,
        typer.Option(help="The stack that hears (default), or the one that writes."),
    ] = None,
    pool: Annotated[
        Pool | None,
        typer.Option(
            help="mean, max, last; speech, frames (encoder); end (decoder: the state that wrote end-of-text)."
        ),
    ] = None,
    group_by: Annotated[
        str,
        typer.Option(help="Label that training and test must not share; none to let them share speakers."),
    ] = "speaker",
    split_by: Annotated[
        str | None, typer.Option(help="Label with the values train and test, in place of cross-validation.")
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Folds of the cross-validation, at most.")] = 5,
    shuffles: Annotated[int, typer.Option(min=1, help="Control tasks with shuffled labels.")] = 5,
    random_model: Annotated[
        bool,
        typer.Option(
            "--random-model", help="Probe a model with random weights, too; hears the corpus again."
        ),
    ] = False,
    language: Annotated[str | None, typer.Option(help="Language to decode in (site decoder).")] = None,
    store: Annotated[
        Path | None,
        typer.Option(help="Directory of the activations; begun ones go on. Default: otoscope's cache."),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write the probes (directions by layer) as safetensors.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Draw the curve over the layers: a .png, .svg or .pdf file.")
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.html", help="A page to look at the curve with: one file that opens offline."
        ),
    ] = None,
    force: Force = False,
    common: Common,
) -> None:
    """Tell what each layer knows: one linear probe a layer, groups kept apart, with controls.

    The score is balanced accuracy on items whose speakers the probe never met (R squared for a numeric label).
    Controls: shuffled labels, mel statistics of the sound, and with --random-model an untrained model.
    Recordings that cannot be read are named and skipped, and the exit code is 3.

    Example: otoscope probe voices/manifest.jsonl --label gender --json gender.json --figure gender.png
    """
    require_different(common.json_path, save, figure, page, source=target)

    from otoscope.corpora import Item, items_or_texts
    from otoscope.figures.style import require_figure
    from otoscope.files import require_writable
    from otoscope.probes.probing import ProbeOptions, check_labels

    if save:
        require_writable(save)
    if figure:
        require_figure(figure)
    require_page(page, force)
    recordings = items_or_texts(target)
    asked = {
        "group_by": group_by,
        "split_by": split_by,
        "folds": folds,
        "shuffles": shuffles,
        "seed": common.seed,
    }
    check_labels(recordings, label, ProbeOptions(**asked))  # before a model is fetched for them

    from otoscope.cli.loading import load_for
    from otoscope.models.transcripts import DecodeOptions
    from otoscope.probes.corpus import default_options, probe_corpus

    loaded = load_for("probe", model, common, [item for item in recordings if isinstance(item, Item)])
    options = default_options(
        loaded, site.value if site else None, pool=pool.value if pool else None, **asked
    )
    curve = probe_corpus(
        loaded,
        recordings,
        label,
        options,
        DecodeOptions(language=language, seed=common.seed),
        store=store,
        random_model=random_model,
        batch=common.batch,
    )
    if save:
        curve.save_probes(save)
    if figure:
        curve.plot(figure)
    if page:
        from otoscope.studies.curve_page import probe_doc
        from otoscope.views.page import save_page

        save_page(probe_doc(curve), page)
    if common.json:
        write_json(curve.to_dict(), common.json)
    warn_of_skipped(curve.skipped, len(recordings))
    for caution in curve.cautions():
        warn(caution)
    if not common.json_on_stdout:
        _say(curve)
        if page:
            say(f"The page is {page}.")
    end(curve.skipped)


def _say(curve: ProbeCurve) -> None:
    task, best = curve.task, curve.best
    measure = "balanced accuracy" if task.classes else "R squared, for its values are numbers,"
    classes = (
        f" ({', '.join(task.classes[:12])}{', …' if len(task.classes) > 12 else ''})" if task.classes else ""
    )
    groups = (
        f"{curve.groups} groups by {curve.options.group_by}"
        if task.groups_disjoint
        else "no groups kept apart"
    )
    parts = f"parts by {curve.options.split_by}" if curve.options.split_by else f"{len(task.folds)} folds"
    say(
        f"{task.label}{classes} in the {curve.options.site} of {curve.model['name']}, pooled by {curve.options.pool}",
        f"{measure} held out; {task.items} items, {groups}, {parts}; layers are counted from 0",
        "",
        *table(_columns(curve)),
        "",
        f"Best layer {best.layer}: {number(best.score)} ({number(best.ci_low)} to {number(best.ci_high)}); "
        f"{number(best.score - _floor(curve))} above the best of chance and the controls.",
    )


def _floor(curve: ProbeCurve) -> float:
    """What a score has to exceed: chance, and every control at the best layer."""
    chance = 1 / len(curve.task.classes) if curve.task.classes else 0.0
    best = curve.best
    return max(chance, *(v for v in (best.control, best.baseline, best.random) if v is not None), chance)


def _columns(curve: ProbeCurve) -> list[tuple[str, ...]]:
    """The table, without columns that hold nothing."""
    told = {
        "layer": [str(layer.layer) for layer in curve.layers],
        "score": [number(layer.score) for layer in curve.layers],
        "95 % interval": [f"{number(layer.ci_low)} to {number(layer.ci_high)}" for layer in curve.layers],
        "AUC": [number(layer.auc) for layer in curve.layers],
        "shuffled labels": [number(layer.control) for layer in curve.layers],
        "mel statistics": [number(layer.baseline) for layer in curve.layers],
        "random weights": [number(layer.random) for layer in curve.layers],
    }
    full = {name: cells for name, cells in told.items() if any(cell != "–" for cell in cells)}
    return [tuple(full), *zip(*full.values(), strict=True)]
