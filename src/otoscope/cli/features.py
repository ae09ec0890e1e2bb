"""`otoscope features`: `train` and `evaluate`; what is shown and shared lies beside it."""

from __future__ import annotations

from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from otoscope.cli.features_shared import export_command, pull_command, push_command
from otoscope.cli.features_shown import (
    effect_command,
    examples_command,
    label_command,
    page_command,
    show_command,
)
from otoscope.cli.options import Common, ModelName, ReadAt, Spoken, with_common, with_engine
from otoscope.cli.show import say, write_json
from otoscope.errors import OptionError

if TYPE_CHECKING:
    from otoscope.studies.feature_training import Learned

features = typer.Typer(
    name="features",
    help="Learn dictionaries of features, judge and show them.\n\n"
    "Example: otoscope features train manifest.jsonl --recipe whisper-tiny.en-decoder --out features",
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
        Path | None,
        typer.Option(
            metavar="NAME|FILE",
            help="A YAML file with all that follows, or a recipe of otoscope's such as whisper-tiny.en-decoder; "
            "options here go before it.",
        ),
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
    stream: Annotated[
        bool,
        typer.Option(
            "--stream", help="Learn while the model listens, and keep no vectors but those held out."
        ),
    ] = False,
    common: Common,
) -> None:
    """Learn features from what a model reads and writes at a place, over a corpus.

    The corpus is divided, its vectors are harvested (their size is said first; a run that was stopped goes on), the
    dictionary is learned with checkpoints, and judged on what was held out. Under torchrun several processes share it.

    Example: otoscope features train prompts/manifest.jsonl --point "decoder_blocks.*.mlp" --kind skip --out features
    """
    from otoscope.models.loading import load_model
    from otoscope.studies.feature_recipes import read_recipe, recipe_of
    from otoscope.studies.feature_training import train_features

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
        stream=stream,
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
    model: ModelName = "whisper-tiny.en",
    point: ReadAt = None,
    language: Spoken = None,
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


def _counted(vectors: int | None) -> str:
    return "streamed" if vectors is None else f"{vectors:,}"


def _lines(learned: Learned) -> list[str]:
    scores = learned.scores
    learned_from, held = learned.trained_on, learned.held_out
    head = [
        f"Trained on {_counted(learned_from['vectors'])} vectors of {learned_from['items']:,} recordings or texts, judged on "
        f"{_counted(held['vectors'])} of {held['items']:,} others.",
        "  layer   explained variance      L0    dead   dense   of",
    ]
    rows = [
        f"  {s.layer:5d}   {s.explained_variance:18.3f}  {s.l0:6.1f}  {s.dead:6d}  {s.dense:6d}   {s.width}"
        for s in scores.layers
    ]
    return [*head, *rows, f"{learned.folder}"]


# After its own commands, in the order in which they are listed.
features.command("examples")(examples_command)
features.command("show")(show_command)
features.command("page")(page_command)
features.command("label")(label_command)
features.command("test")(effect_command)
features.command("export")(export_command)
features.command("push")(push_command)
features.command("pull")(pull_command)
