"""`otoscope intervene`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from otoscope.cli.options import (
    ChangedFeatures,
    Common,
    SilencedSpans,
    ZeroedComponents,
    require_different,
    with_common,
)
from otoscope.cli.show import say, table, write_json
from otoscope.errors import OptionError
from otoscope.files import require_writable

if TYPE_CHECKING:
    from otoscope.documents.intervention import Outcome

_SIGNS = {"same": "  ", "replaced": "~ ", "added": "+ ", "removed": "− "}


@with_common
def intervene(
    clip: Annotated[Path, typer.Argument(metavar="CLIP", help="A recording.")],
    *,
    silence: SilencedSpans = None,
    zero: ZeroedComponents = None,
    feature: ChangedFeatures = None,
    model: Annotated[str, typer.Option(help="An alias, a hub id or a model directory.")] = "whisper-tiny.en",
    dictionary: Annotated[
        str, typer.Option(help="What features of the decoder are: a folder, or neurons, the model's own.")
    ] = "neurons",
    encoder_dictionary: Annotated[str, typer.Option(help="The same of the encoder.")] = "neurons",
    offset: Annotated[float, typer.Option(min=0, help="Where the window begins, in seconds.")] = 0.0,
    language: Annotated[str | None, typer.Option(help="Language to decode in, such as fr.")] = None,
    controls: Annotated[
        int, typer.Option(min=0, help="How often the same is done at random other places.")
    ] = 5,
    page: Annotated[Path | None, typer.Option(help="Write a page that shows it.")] = None,
    common: Common,
) -> None:
    """Change the sound, components or features while a model hears and writes, and see what it writes instead.

    Everything is counted from 0; times are seconds from the start of the window. The same change is made at random other places,
    too, because any change moves a small model.

    Example: otoscope intervene jfk.flac --silence 3.2-4.4

    Example: otoscope intervene jfk.flac --zero decoder_blocks.2.cross_attn.3 --feature encoder:3:604=0
    """
    require_different(page, common.json_path, source=clip)
    if page:
        require_writable(page)

    from otoscope.audio import info
    from otoscope.documents.intervention import Intervention

    wanted = Intervention(
        silence=tuple(silence or ()),  # pyright: ignore[reportArgumentType] - spelled spans are read
        zero=tuple(zero or ()),
        features=tuple(feature or ()),
        dictionary=dictionary,
        encoder_dictionary=encoder_dictionary,
    )
    if not wanted:
        raise OptionError("Nothing is to be changed.", "Give --silence, --zero or --feature.")
    info(clip)  # refuses what is no recording before a model is fetched for it

    from otoscope.models.loading import load_model
    from otoscope.studies.intervening import intervene as run

    outcome = run(
        load_model(model, common.device, common.dtype),
        clip,
        wanted,
        offset=offset,
        language=language,
        controls=controls,
        seed=common.seed,
    )
    if page:
        from otoscope.views.page import save_page

        save_page(outcome, page)
    if common.json:
        write_json(outcome.to_data(), common.json)
    if not common.json_on_stdout:
        say(*outcome.summary().splitlines(), *_differences(outcome), f"In Python: {outcome.python}")
        if page:
            say(f"The page is {page}.")


def _differences(outcome: Outcome) -> list[str]:
    rows = [
        (_SIGNS[change.op] + (change.before or "–"), change.after or "–")
        for change in outcome.words
        if change.op != "same"
    ]
    return table([("  before", "after"), *rows]) if rows else []
