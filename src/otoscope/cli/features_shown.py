"""`otoscope features examples`, `show`, `page`, `label` and `test`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from otoscope.cli.options import (
    Common,
    Force,
    ModelName,
    ReadAt,
    Spoken,
    require_page,
    with_common,
    with_engine,
)
from otoscope.cli.show import say, write_json
from otoscope.errors import OptionError


@with_common
@with_engine
def examples_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A dictionary, or neurons.")],
    data: Annotated[Path, typer.Argument(metavar="MANIFEST|TEXT", help="Recordings, or texts.")],
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for what is found.")],
    model: ModelName = "whisper-tiny.en",
    point: ReadAt = None,
    language: Spoken = None,
    common: Common,
) -> None:
    """Find each feature's strongest moments over a corpus, and what they have in common.

    Example: otoscope features examples features prompts/manifest.jsonl --out examples
    """
    from otoscope.models.loading import load_model
    from otoscope.studies.feature_examples import Examples, collect_examples

    loaded = load_model(model, common.device, common.dtype)
    about = collect_examples(loaded, folder, data, out, point=point, language=language, batch=common.batch)
    if common.json:
        write_json(about, common.json)
    if not common.json_on_stdout:
        say(
            f"{about['features']} features ({about['dead']} never active) over {about['vectors']:,} vectors of "
            f"{about['items']} recordings or texts: {out}",
            *(f"  L{f['layer']} {f['feature']:5d}  {f['label']}" for f in Examples(out).strongest(12)),
        )


@with_common
def show_command(
    folder: Annotated[Path, typer.Argument(metavar="EXAMPLES", help="What `features examples` made.")],
    layer: Annotated[int, typer.Argument(min=0, help="Layer, from 0.")],
    feature: Annotated[int, typer.Argument(min=0, help="Feature, from 0.")],
    *,
    common: Common,
) -> None:
    """Show one feature: its strongest moments with their words and times, and what goes with it.

    Example: otoscope features show examples 2 1310
    """
    from otoscope.studies.feature_examples import Examples

    told = Examples(folder).read(layer, feature)
    if common.json:
        write_json(told, common.json)
    if not common.json_on_stdout:
        say(*_feature_lines(told))


@with_common
def effect_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A dictionary, or neurons with --point.")],
    data: Annotated[
        Path,
        typer.Argument(metavar="MANIFEST|TEXT", help="Recordings, or texts; none that were learned from."),
    ],
    *,
    feature: Annotated[
        list[str] | None,
        typer.Option(metavar="LAYER:FEATURE", help="A feature, both counted from 0; may be repeated."),
    ] = None,
    screen: Annotated[
        Path | None,
        typer.Option(
            metavar="MANIFEST|TEXT",
            help="Other recordings or texts, by which the features that matter most are found, to first order.",
        ),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many are screened.")] = 5,
    scale: Annotated[
        float, typer.Option(help="What its activation is multiplied by: 0 takes it away, 2 doubles it.")
    ] = 0.0,
    controls: Annotated[
        int, typer.Option(min=1, help="Other features that are on as often and write as much.")
    ] = 20,
    model: ModelName = "whisper-tiny.en",
    point: ReadAt = None,
    language: Spoken = None,
    common: Common,
) -> None:
    """Test whether the model uses a feature: take it away, and see how probable the tokens stay at which it was on.

    Beside it other features of the layer that are on as often and write as much, taken away likewise.

    Example: otoscope features test features features/held_out.jsonl --feature 2:1310
    """
    if bool(feature) == (screen is not None):
        raise OptionError(
            "Which features to test is not said." if not feature else "Features are both named and screened.",
            "Name them with --feature LAYER:FEATURE, or find them with --screen MANIFEST.",
        )
    from otoscope.models.loading import load_model
    from otoscope.studies.feature_effects import EffectOptions, feature_effect, screen_features

    options = EffectOptions(scale, controls, point, language, common.batch, common.seed)
    loaded = load_model(model, common.device, common.dtype)
    chosen = [_place(one) for one in feature or ()]
    screened = [] if screen is None else screen_features(loaded, folder, screen, count, options)
    chosen += [(one["layer"], one["feature"]) for one in screened]
    tests = []
    for place in chosen:
        tests.append(feature_effect(loaded, folder, data, *place, options))
        if not common.json_on_stdout:
            say(*_effect_lines(tests[-1]))
    if common.json:
        write_json(
            tests[0] if feature and len(tests) == 1 else {"screened": screened, "tests": tests}, common.json
        )


def _effect_lines(told: dict[str, Any]) -> list[str]:
    at, elsewhere, controls = told["at"], told["elsewhere"], told["controls"]
    interval = f"{at['ci_low']:+.3f} to {at['ci_high']:+.3f}"
    lines = [
        f"L{told['layer']} feature {told['feature']}, scaled by {told['scale']:g}, over {told['windows']} windows or texts:",
        f"  where it is on   {at['change']:+.3f} nats a token ({interval}; {at['tokens']} tokens)",
    ]
    if elsewhere["change"] is not None:
        lines.append(f"  elsewhere        {elsewhere['change']:+.3f} ({elsewhere['tokens']} tokens)")
    places = (("at_these", "at the same tokens", "p_these"), ("at_their_own", "where they are on", "p_own"))
    for name, where, p in places:
        found = sorted(controls[name])
        if found:
            lines.append(
                f"  other features   {controls[f'mean_{name}']:+.3f} on average {where} ({found[0]:+.3f} to {found[-1]:+.3f}; "
                f"{len(found)} features), p = {told[p]:.3f}"
            )
    if told["examples"]:
        lines.append(
            "  most: " + ", ".join(f"{e['text']!r} {e['change']:+.2f}" for e in told["examples"][:6])
        )
    return lines


@with_common
def page_command(
    folder: Annotated[Path, typer.Argument(metavar="EXAMPLES", help="What `features examples` made.")],
    *,
    out: Annotated[
        Path, typer.Option(metavar="PAGE.html", help="The page to write: one file, with its sound.")
    ],
    feature: Annotated[
        list[str] | None,
        typer.Option(metavar="LAYER:FEATURE", help="A feature, both counted from 0; may be repeated."),
    ] = None,
    count: Annotated[
        int, typer.Option(min=1, help="Features whose moments have most in common, where none are named.")
    ] = 24,
    force: Force = False,
    common: Common,
) -> None:
    """Draw features on one page: their strongest moments to be heard, with words, times and statistics.

    Example: otoscope features page examples --out features.html --feature 2:1310 --feature 0:7
    """
    require_page(out, force)

    from otoscope.studies.feature_examples import Examples
    from otoscope.studies.feature_page import features_doc
    from otoscope.views.page import save_page

    chosen = [_place(text) for text in feature] if feature else None
    doc = features_doc(Examples(folder), chosen, count=count)
    save_page(doc, out)
    if common.json:
        write_json(doc.model_dump(mode="json", exclude_none=True, exclude={"resources"}), common.json)
    if not common.json_on_stdout:
        say(f"{len(doc.features)} features, {out.stat().st_size / 1e6:.1f} MB: {out}")


@with_common
def label_command(
    folder: Annotated[Path, typer.Argument(metavar="EXAMPLES", help="What `features examples` made.")],
    feature: Annotated[
        str | None, typer.Argument(metavar="LAYER:FEATURE", help="A feature, both counted from 0.")
    ] = None,
    text: Annotated[
        str | None, typer.Argument(help='Its name; "" takes it away. None: all labels are shown.')
    ] = None,
    *,
    author: Annotated[str, typer.Option(help="Who says so.")] = "",
    common: Common,
) -> None:
    """Name a feature, or show all names that people gave: they are kept in SQLite beside the examples.

    Example: otoscope features label examples 2:1310 "the vowel of 'see'"
    """
    from otoscope.runs.notes import Notes
    from otoscope.studies.feature_examples import Examples
    from otoscope.studies.feature_page import about_feature

    examples = Examples(folder)
    notes = Notes(folder)
    if (feature is None) != (text is None):
        raise OptionError(
            "A name needs a feature, and a feature a name.", "Give both, or neither to list them."
        )
    if feature is not None and text is not None:
        place = _place(feature)
        examples.read(*place)  # there has to be such a feature
        notes.write(about_feature(*place), text, author)
    found = [note.to_dict() for note in notes.read().values()]
    if common.json:
        write_json({"labels": found}, common.json)
    if not common.json_on_stdout:
        lines = [f"{note['about']:20s} {note['text']}" for note in found]
        say(*(lines or ["No feature has a name yet."]))


def _place(text: str) -> tuple[int, int]:
    layer, colon, feature = text.partition(":")
    if not (colon and layer.isdecimal() and feature.isdecimal()):
        raise OptionError(
            f"{text!r} names no feature.", "Give layer and feature, both from 0, such as 2:1310."
        )
    return int(layer), int(feature)


def _feature_lines(told: dict[str, Any]) -> list[str]:
    lines = [
        f"L{told['layer']} feature {told['feature']}: {told['label']}",
        f"active at {100 * told['density']:.2f} % of the places, {told['mean']:.2f} on average, {told['max']:.2f} at most",
        "",
    ]
    for e in told["examples"]:
        when = "" if e["start"] is None else f"{e['start']:7.2f} s  "
        name = Path(e["recording"]).name if e["recording"] else ""
        lines.append(f"  {e['activation']:7.2f}  {when}{name:28s} {e['before']}[{e['at']}]{e['after']}")
    if told.get("promotes"):
        lines += ["", "writes       " + ", ".join(repr(t) for t, _ in told["promotes"])]
        lines += ["writes less  " + ", ".join(repr(t) for t, _ in told["suppresses"])]
    for e in told["enrichment"][:3]:
        lines.append(
            f"{e['label']} {e['value']}: AUC {e['auc']:.2f} (shuffled {e['shuffled']:.2f}; {e['n']} recordings)"
        )
    near = ", ".join(f"{int(i)} ({c:.2f})" for i, c in told["neighbours"])
    return [*lines, f"writes most like {near}"]
