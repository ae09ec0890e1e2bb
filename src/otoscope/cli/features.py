"""`otoscope features train`."""

from __future__ import annotations

from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from otoscope.cli.options import Common, with_common, with_engine
from otoscope.cli.show import say, write_json
from otoscope.errors import OptionError

if TYPE_CHECKING:
    from otoscope.studies.feature_training import Learned

features = typer.Typer(
    name="features",
    help="Learn dictionaries of features, judge and show them.\n\n"
    "Example: otoscope features train manifest.jsonl --recipe recipes/whisper-tiny.en-decoder.yaml --out features",
)


class Kind(StrEnum):
    """Kinds of dictionaries."""

    SAE = "sae"
    TRANSCODER = "transcoder"
    SKIP = "skip"
    CLT = "clt"


class Gate(StrEnum):
    """How features are kept few."""

    TOPK = "topk"
    BATCHTOPK = "batchtopk"
    JUMPRELU = "jumprelu"


@features.command("train")
@with_common
@with_engine
def train_command(
    data: Annotated[
        list[Path],
        typer.Argument(
            metavar="MANIFEST|TEXT", help="Recordings, or texts for a language model; one or several corpora."
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The dictionary's folder; a begun one goes on.")],
    recipe: Annotated[
        Path | None, typer.Option(help="A YAML file with all that follows; options here go before it.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="An alias, a hub id or a directory; whisper-tiny.en.")
    ] = None,
    point: Annotated[
        str | None,
        typer.Option(
            metavar="POINT",
            help="An MLP for transcoders (decoder_blocks.*.mlp, blocks.3.mlp), or a point for an SAE "
            "(encoder_blocks.2.hook_resid_post); * stands for all layers, which are counted from 0.",
        ),
    ] = None,
    kind: Annotated[Kind | None, typer.Option(help="What is learned; transcoder.")] = None,
    width: Annotated[int | None, typer.Option(min=1, help="Features a layer; 4096.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the optimiser; 2000.")] = None,
    activation: Annotated[Gate | None, typer.Option(help="How features are kept few; topk.")] = None,
    k: Annotated[int | None, typer.Option(min=1, help="Features that stay on at a position; 32.")] = None,
    vectors: Annotated[int | None, typer.Option(min=1, help="Vectors a step; 2048.")] = None,
    lr: Annotated[
        float | None, typer.Option(min=0, help="Peak learning rate; by the width, 4e-4 at 4096.")
    ] = None,
    held_out: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share that is not trained on; 0.1.")
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(metavar="LABEL", help="Label whose values are never in both parts, such as speaker."),
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="Language of the recordings, where the decoder is read.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Where the vectors are kept; beside --out, in DIR-vectors.")
    ] = None,
    exclude: Annotated[
        Path | None,
        typer.Option(metavar="MANIFEST", help="A corpus to judge by later: its texts are not learned from."),
    ] = None,
    common: Common,
) -> None:
    """Learn features from what a model reads and writes at a place, over a corpus.

    The corpus is divided, its vectors are harvested (their size is said first; a run that was stopped goes on), the
    dictionary is learned with checkpoints, and judged on what was held out. Under torchrun several processes share it.

    Example: otoscope features train prompts/manifest.jsonl --point "decoder_blocks.*.mlp" --kind skip --out features
    """
    from otoscope.models.loading import load_model
    from otoscope.studies.feature_training import read_recipe, recipe_of, train_features

    asked = {
        "model": model, "point": point, "kind": kind and kind.value, "width": width, "steps": steps, "k": k, "lr": lr,
        "activation": activation and activation.value, "batch": vectors, "held_out": held_out, "group_by": group_by,
        "language": language, "seed": common.seed or None,
    }  # fmt: skip
    asked = {name: value for name, value in asked.items() if value is not None}
    if recipe is not None:
        read = read_recipe(recipe)
        base: dict[str, Any] = {
            f.name: getattr(read, f.name) for f in fields(read) if f.name != "config"
        } | dict(read.config)
    else:
        base = {"model": "whisper-tiny.en", "kind": "transcoder", "width": 4096, "steps": 2000}
        if point is None:
            raise OptionError("There is no place to learn at.", "Give --point, or a --recipe.")
    chosen = recipe_of(base | asked)
    learned = train_features(
        load_model(chosen.model, common.device, common.dtype),
        data,
        chosen,
        out,
        store=store,
        exclude=exclude,
        batch=common.batch,
    )
    if common.json:
        write_json(learned.to_dict(), common.json)
    if not common.json_on_stdout:
        say(*_lines(learned))


@features.command("evaluate")
@with_common
def evaluate_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A dictionary.")],
    data: Annotated[
        Path,
        typer.Argument(
            metavar="MANIFEST|TEXT",
            help="Recordings with their texts, or texts; none that were learned from.",
        ),
    ],
    *,
    model: Annotated[str, typer.Option(help="An alias, a hub id or a directory.")] = "whisper-tiny.en",
    point: Annotated[
        str | None,
        typer.Option(metavar="POINT", help="Where it reads; what otoscope trained says so itself."),
    ] = None,
    language: Annotated[str | None, typer.Option(help="Language of the recordings.")] = None,
    controls: Annotated[
        bool, typer.Option("--controls/--no-controls", help="Judge neurons and random features, too.")
    ] = True,
    labels: Annotated[
        bool,
        typer.Option(
            "--labels/--no-labels", help="Ask how well single features tell labels, words and phonemes."
        ),
    ] = True,
    against: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="A dictionary of another seed, for stability; may be repeated."),
    ] = None,
    common: Common,
) -> None:
    """Judge a dictionary: what it reconstructs, and what the model loses when it goes on with the reconstruction.

    Beside it the model's own neurons, as many as the dictionary has features on, and random features.

    Example: otoscope features evaluate features features/held_out.jsonl --json scores.json
    """
    from otoscope.models.loading import load_model
    from otoscope.studies.feature_judging import JudgeOptions, evaluate_features, keep_judgement

    options = JudgeOptions(point, language, controls, labels, tuple(against or ()), common.seed, common.batch)
    told = evaluate_features(load_model(model, common.device, common.dtype), folder, data, options)
    keep_judgement(folder, told)
    if common.json:
        write_json(told, common.json)
    if not common.json_on_stdout:
        say(*_judged_lines(told))


@features.command("examples")
@with_common
@with_engine
def examples_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A dictionary, or neurons.")],
    data: Annotated[Path, typer.Argument(metavar="MANIFEST|TEXT", help="Recordings, or texts.")],
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for what is found.")],
    model: Annotated[str, typer.Option(help="An alias, a hub id or a directory.")] = "whisper-tiny.en",
    point: Annotated[
        str | None,
        typer.Option(metavar="POINT", help="Where it reads; what otoscope trained says so itself."),
    ] = None,
    language: Annotated[str | None, typer.Option(help="Language of the recordings.")] = None,
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


@features.command("show")
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


@features.command("test")
@with_common
def effect_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A dictionary, or neurons with --point.")],
    data: Annotated[
        Path,
        typer.Argument(metavar="MANIFEST|TEXT", help="Recordings, or texts; none that were learned from."),
    ],
    *,
    feature: Annotated[str, typer.Option(metavar="LAYER:FEATURE", help="A feature, both counted from 0.")],
    scale: Annotated[
        float, typer.Option(help="What its activation is multiplied by: 0 takes it away, 2 doubles it.")
    ] = 0.0,
    controls: Annotated[
        int, typer.Option(min=1, help="Other features that are on as often and write as much.")
    ] = 20,
    model: Annotated[str, typer.Option(help="An alias, a hub id or a directory.")] = "whisper-tiny.en",
    point: Annotated[
        str | None,
        typer.Option(metavar="POINT", help="Where it reads; what otoscope trained says so itself."),
    ] = None,
    language: Annotated[str | None, typer.Option(help="Language of the recordings.")] = None,
    common: Common,
) -> None:
    """Test whether the model uses a feature: take it away, and see how probable the tokens stay at which it was on.

    Beside it other features of the layer that are on as often and write as much, each at its own moments.

    Example: otoscope features test features features/held_out.jsonl --feature 2:1310
    """
    from otoscope.models.loading import load_model
    from otoscope.studies.feature_effects import EffectOptions, feature_effect

    options = EffectOptions(scale, controls, point, language, common.batch, common.seed)
    loaded = load_model(model, common.device, common.dtype)
    told = feature_effect(loaded, folder, data, *_place(feature), options)
    if common.json:
        write_json(told, common.json)
    if not common.json_on_stdout:
        say(*_effect_lines(told))


def _effect_lines(told: dict[str, Any]) -> list[str]:
    at, elsewhere, controls = told["at"], told["elsewhere"], told["controls"]
    interval = f"{at['ci_low']:+.3f} to {at['ci_high']:+.3f}"
    lines = [
        f"L{told['layer']} feature {told['feature']}, scaled by {told['scale']:g}, over {told['windows']} windows or texts:",
        f"  where it is on   {at['change']:+.3f} nats a token ({interval}; {at['tokens']} tokens)",
    ]
    if elsewhere["change"] is not None:
        lines.append(f"  elsewhere        {elsewhere['change']:+.3f} ({elsewhere['tokens']} tokens)")
    if controls["changes"]:
        found = sorted(controls["changes"])
        lines.append(
            f"  other features   {controls['mean']:+.3f} on average where they are on ({found[0]:+.3f} to {found[-1]:+.3f}; "
            f"{len(found)} features), p = {told['p']:.3f}"
        )
    if told["examples"]:
        lines.append(
            "  most: " + ", ".join(f"{e['text']!r} {e['change']:+.2f}" for e in told["examples"][:6])
        )
    return lines


class Format(StrEnum):
    """Formats of other programs."""

    CIRCUIT_TRACER = "circuit-tracer"
    SAE_LENS = "sae-lens"


@features.command("page")
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
    common: Common,
) -> None:
    """Draw features on one page: their strongest moments to be heard, with words, times and statistics.

    Example: otoscope features page examples --out features.html --feature 2:1310 --feature 0:7
    """
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


@features.command("label")
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


@features.command("export")
@with_common
def export_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A dictionary.")],
    *,
    to: Annotated[Format, typer.Option(help="The program that shall read it.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder.")],
    model: Annotated[str, typer.Option(help="An alias, a hub id or a directory.")] = "whisper-tiny.en",
    common: Common,
) -> None:
    """Write a dictionary as circuit-tracer or SAELens reads it.

    Example: otoscope features export features --to circuit-tracer --out for-circuit-tracer --model smollm2-135m
    """
    from otoscope.models.loading import load_model
    from otoscope.studies.feature_training import export_features

    export_features(load_model(model, common.device, common.dtype), folder, out, to.value)
    if common.json:
        write_json({"folder": str(out), "format": to.value}, common.json)
    if not common.json_on_stdout:
        say(f"{out}")


@features.command("push")
@with_common
def push_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A dictionary that otoscope trained.")],
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Where to on the model hub.")],
    *,
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public.")] = False,
    card: Annotated[bool, typer.Option("--card", help="Only show the model card, and send nothing.")] = False,
    common: Common,
) -> None:
    """Put a dictionary on the model hub, with a card that says what it is and how good.

    Example: otoscope features push features me/whisper-tiny.en-decoder-transcoders
    """
    from otoscope.dictionaries.sharing import model_card, push

    told = model_card(folder) if card else push(folder, repo, private=not public)
    if common.json:
        write_json({"card" if card else "commit": told}, common.json)
    if not common.json_on_stdout:
        say(told)


@features.command("pull")
@with_common
def pull_command(
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="A dictionary on the model hub.")],
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder.")],
    common: Common,
) -> None:
    """Fetch a dictionary from the model hub; its size is said first.

    Example: otoscope features pull me/whisper-tiny.en-decoder-transcoders --out features
    """
    from otoscope.dictionaries.sharing import pull

    folder = pull(repo, out)
    if common.json:
        write_json({"folder": str(folder)}, common.json)
    if not common.json_on_stdout:
        say(f"{folder}")


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


def _judged_lines(told: dict[str, Any]) -> list[str]:
    """A table: the dictionary and what it is compared with."""
    speech = "wer" in told
    rows = [
        ("the model itself", None, None, told["loss"], told.get("wer"), None),
        ("dictionary", told["explained_variance"], told["l0"], told["loss_spliced"], told.get("wer_spliced"),
         told["loss_recovered"]),
        *((name, c["explained_variance"], c["l0"], c["loss"], c.get("wer"), c["loss_recovered"])
          for name, c in told["controls"].items()),
        ("nothing", None, None, told["loss_zeroed"], told.get("wer_zeroed"), 0.0),
    ]  # fmt: skip
    lines = [f"{told['items']} recordings or texts, {told['vectors']:,} vectors a layer.", ""]
    head = f"{'':18s}{'explained':>10s}{'L0':>8s}{'loss':>8s}{'recovered':>11s}" + (
        f"{'WER':>8s}" if speech else ""
    )
    lines.append(head)
    for name, explained, l0, loss, wer, recovered in rows:
        line = f"{name:18s}{_or_dash(explained, 10)}{_or_dash(l0, 8, 1)}{_or_dash(loss, 8)}{_or_dash(recovered, 11)}"
        lines.append(line + (_or_dash(wer, 8) if speech else ""))
    lines += ["", "layer   explained variance      L0    dead   dense   of"]
    lines += [
        f"{s['layer']:5d}   {s['explained_variance']:18.3f}  {s['l0']:6.1f}  {s['dead']:6d}  {s['dense']:6d}   {s['width']}"
        for s in told["layers"]
    ]
    if speech:
        d = told["wer_difference"]
        lines.append(
            f"Spliced in, the WER changes by {100 * d['change']:+.2f} points ({100 * d['ci_low']:+.2f} to "
            f"{100 * d['ci_high']:+.2f}; {d['n']} recordings)."
        )
    for kind, found in told.get("told_apart", {}).items():
        parts = ", ".join(f"{name} {found[name]:.3f}" for name in found if name not in ("values", "each"))
        lines.append(f"Best single feature for each of {found['values']} {kind} labels, mean AUC: {parts}.")
    for kind, found in told.get("splitting", {}).items():
        if found["split"] is not None:
            lines.append(
                f"Signs of splitting ({kind}): five features add {found['split']:.3f} to the best one's F1; "
                f"absorbed {found['absorbed'] or 0:.3f}."
            )
    if stable := told.get("stability"):
        lines.append(
            f"Beside {stable['compared']} other trainings: nearest write vector {stable['writes']:.2f} (chance "
            f"{stable['chance']:.2f}), reads {stable['reads']:.2f}; {100 * stable['shared']:.0f} % are shared."
        )
    return lines


def _or_dash(value: float | None, width: int, digits: int = 3) -> str:
    return f"{'–':>{width}s}" if value is None else f"{value:{width}.{digits}f}"


def _lines(learned: Learned) -> list[str]:
    scores = learned.scores
    head = [
        f"Trained on {learned.trained_on['vectors']:,} vectors of {learned.trained_on['items']:,} recordings or texts, judged on "
        f"{learned.held_out['vectors']:,} of {learned.held_out['items']:,} others.",
        "  layer   explained variance      L0    dead   dense   of",
    ]
    rows = [
        f"  {s.layer:5d}   {s.explained_variance:18.3f}  {s.l0:6.1f}  {s.dead:6d}  {s.dense:6d}   {s.width}"
        for s in scores.layers
    ]
    return [*head, *rows, f"{learned.folder}"]
