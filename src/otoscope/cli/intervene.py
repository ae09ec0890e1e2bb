"""`otoscope intervene`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from otoscope.cli.options import (
    ChangedFeatures,
    Common,
    Force,
    ScaledComponents,
    SilencedSpans,
    ZeroedComponents,
    require_different,
    require_page,
    with_common,
)
from otoscope.cli.show import say, table, write_json
from otoscope.errors import OptionError

if TYPE_CHECKING:
    from otoscope.documents.intervention import Outcome

_SIGNS = {"same": "  ", "replaced": "~ ", "added": "+ ", "removed": "− "}


@with_common
def intervene(
    clip: Annotated[Path | None, typer.Argument(metavar="[CLIP]", help="A recording.")] = None,
    *,
    prompt: Annotated[
        str | None, typer.Option(help="Instead of a recording, what a language model continues.")
    ] = None,
    silence: SilencedSpans = None,
    zero: ZeroedComponents = None,
    scale: ScaledComponents = None,
    feature: ChangedFeatures = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="An alias, a hub id or a model directory; whisper-tiny.en for a recording, smollm2-135m for a prompt."
        ),
    ] = None,
    dictionary: Annotated[
        str,
        typer.Option(
            help="What features of the stack that writes are: a folder, or neurons, the model's own."
        ),
    ] = "neurons",
    encoder_dictionary: Annotated[str, typer.Option(help="The same of the encoder.")] = "neurons",
    offset: Annotated[float, typer.Option(min=0, help="Where the window begins, in seconds.")] = 0.0,
    language: Annotated[str | None, typer.Option(help="Language to decode in, such as fr.")] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens that a prompt is continued by; 12.")
    ] = None,
    controls: Annotated[
        int, typer.Option(min=0, help="How often the same is done at random other places.")
    ] = 5,
    page: Annotated[Path | None, typer.Option(help="Write a page that shows it.")] = None,
    force: Force = False,
    common: Common,
) -> None:
    """Change the sound, components or features while a model hears or reads and writes, and see what it writes instead.

    Everything is counted from 0; times are seconds from the start of the window. The same change is made at random other places,
    too, because any change moves a small model.

    Example: otoscope intervene jfk.flac --silence 3.2-4.4

    Example: otoscope intervene jfk.flac --zero decoder_blocks.2.cross_attn.3 --feature encoder:3:604=0

    Example: otoscope intervene --prompt "The capital of France is" --scale blocks.20.attn.3x0.5
    """
    of_clips, of_prompts = {"--offset": offset, "--language": language}, {"--tokens": tokens}
    _require_one_kind(clip, prompt, of_prompts if prompt is None else of_clips)
    require_different(page, common.json_path, source=clip or Path("-"))
    require_page(page, force)

    from otoscope.documents.intervention import Intervention

    wanted = Intervention(
        silence=tuple(silence or ()),  # pyright: ignore[reportArgumentType] - spelled spans are read
        zero=tuple(zero or ()),
        scale=tuple(scale or ()),
        features=tuple(feature or ()),
        dictionary=dictionary,
        encoder_dictionary=encoder_dictionary,
    )
    if not wanted:
        raise OptionError("Nothing is to be changed.", "Give --silence, --zero, --scale or --feature.")
    how = {"controls": controls, "seed": common.seed}
    if clip is None:
        from otoscope.models.loading import load_model
        from otoscope.studies.intervening import TOKENS, intervene_prompt

        opened = load_model(model or "smollm2-135m", common.device, common.dtype)
        outcome = intervene_prompt(opened, prompt or "", wanted, tokens=tokens or TOKENS, **how)
    else:
        from otoscope.audio import info

        info(clip)  # refuses what is no recording before a model is fetched for it

        from otoscope.models.loading import load_model
        from otoscope.studies.intervening import intervene as run

        opened = load_model(model or "whisper-tiny.en", common.device, common.dtype)
        outcome = run(opened, clip, wanted, offset=offset, language=language, **how)
    if page:
        from otoscope.views.page import save_page

        save_page(outcome, page)
    if common.json:
        write_json(outcome.to_data(), common.json)
    if not common.json_on_stdout:
        say(*outcome.summary().splitlines(), *_differences(outcome), f"In Python: {outcome.python}")
        if page:
            say(f"The page is {page}.")


def _require_one_kind(clip: Path | None, prompt: str | None, wrong: dict[str, Any]) -> None:
    """A recording or a prompt, and none of the options of the other."""
    if (clip is None) == (prompt is None):
        raise OptionError(
            "There has to be one recording or one prompt.", "Name a recording, or give --prompt."
        )
    for name, value in wrong.items():
        if value:
            kind, other = ("prompt", "recording") if clip is None else ("recording", "prompt")
            raise OptionError(f"{name} says nothing of a {kind}.", f"It goes with a {other}.")


def _differences(outcome: Outcome) -> list[str]:
    rows = [
        (_SIGNS[change.op] + (change.before or "–"), change.after or "–")
        for change in outcome.words
        if change.op != "same"
    ]
    return table([("  before", "after"), *rows]) if rows else []
