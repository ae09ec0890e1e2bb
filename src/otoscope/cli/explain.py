"""`otoscope explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from otoscope.cli.options import Common, Mend, mended, require_different, with_common
from otoscope.cli.show import say, table, write_json
from otoscope.errors import OptionError
from otoscope.files import require_writable


@with_common
def explain(
    clip: Annotated[Path, typer.Argument(metavar="CLIP", help="A recording.")],
    *,
    out: Annotated[
        Path | None, typer.Option(help="The page to write.  [default: CLIP's name + .explain.html, here]")
    ] = None,
    model: Annotated[str, typer.Option(help="An alias, a hub id or a model directory.")] = "whisper-tiny.en",
    token: Annotated[int | None, typer.Option(min=0, help="The token to show first, counted from 0.")] = None,
    offset: Annotated[
        float, typer.Option(min=0, help="Where the explained window begins, in seconds.")
    ] = 0.0,
    language: Annotated[str | None, typer.Option(help="Language to decode in, such as fr.")] = None,
    mend: Mend = None,
    common: Common,
) -> None:
    """Explain one clip on one page: what was heard, known at each layer, and needed for each token.

    The page is a single file that opens offline in any browser.

    Example: otoscope explain jfk.flac --out page.html
    """
    page = out or Path(f"{clip.stem}.explain.html")
    require_different(page, common.json_path, source=clip)
    require_writable(page)

    from otoscope.audio import info

    info(clip)  # refuses what is no recording before a model is fetched for it

    from otoscope.models.loading import load_model
    from otoscope.studies.explain import explain_clip
    from otoscope.views.page import save_page

    loaded = load_model(model, common.device, common.dtype)
    with mended(loaded, mend) as watch:
        if watch is not None:
            raise OptionError(
                "A repair that waits for alarms cannot be explained.", "Use one that is always in force."
            )
        doc = explain_clip(
            loaded,  # pyright: ignore[reportArgumentType]
            clip,
            offset=offset,
            token=token,
            language=language,
            batch=common.batch,
            seed=common.seed,
        )
    save_page(doc, page)
    if common.json:
        write_json(doc.to_data(), common.json)
    if not common.json_on_stdout:
        say(*doc.summary().splitlines(), f"The page is {page}.")
    if not (common.json_on_stdout or common.quiet):
        say(*table([(timing.stage, f"{timing.seconds:6.2f} s") for timing in doc.timings]))
