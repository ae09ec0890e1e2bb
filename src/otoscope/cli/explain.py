"""`otoscope explain`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from otoscope.cli.options import (
    Common,
    Force,
    Mend,
    MonitorFolder,
    mended,
    repair_of,
    require_different,
    require_page,
    with_common,
)
from otoscope.cli.show import say, table, write_json
from otoscope.errors import OptionError


class Without(StrEnum):
    """Stages that can be left out."""

    RISK = "risk"
    ENCODER_LENS = "encoder-lens"
    ABLATION = "ablation"
    CONTROLS = "controls"
    SOUND = "sound"
    CIRCUITS = "circuits"


@with_common
def explain(
    clip: Annotated[Path, typer.Argument(metavar="CLIP", help="A recording.")],
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The page to write.  [default: CLIP.explain.html, here; with --token N, CLIP.token-N.explain.html]"
        ),
    ] = None,
    force: Force = False,
    model: Annotated[str, typer.Option(help="An alias, a hub id or a model directory.")] = "whisper-tiny.en",
    token: Annotated[
        int | None, typer.Option(min=0, help="The token to trace and to show first, counted from 0.")
    ] = None,
    offset: Annotated[
        float, typer.Option(min=0, help="Where the explained window begins, in seconds.")
    ] = 0.0,
    language: Annotated[str | None, typer.Option(help="Language to decode in, such as fr.")] = None,
    circuits: Annotated[
        str,
        typer.Option(
            metavar="N|none", help="Tokens to trace: the one in alarm, --token, then the least certain words."
        ),
    ] = "1",
    feature: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER.NUMBER", help="Draw this feature of the encoder under the sound; repeatable."
        ),
    ] = None,
    dictionary: Annotated[
        str | None, typer.Option(help="Features of the encoder: neurons, or a folder with a dictionary.")
    ] = None,
    monitor: MonitorFolder = None,
    without: Annotated[list[Without] | None, typer.Option(help="Leave a stage out; repeatable.")] = None,
    mend: Mend = None,
    common: Common,
) -> None:
    """Explain one clip on one page: which sound made each word, how far to trust it, what each layer knew and needed.

    The page is a single file that opens offline in any browser.

    Example: otoscope explain jfk.flac --out page.html
    """
    page = out or Path(f"{clip.stem}{'' if token is None else f'.token-{token}'}.explain.html")
    require_different(page, common.json_path, source=clip)
    require_page(page, force)
    traced = _count(circuits)
    chosen = [_feature(each) for each in feature or []]
    out_of = set(without or [])

    from otoscope.audio import info

    info(clip)  # refuses what is no recording before a model is fetched for it

    from otoscope.cli.loading import load_for
    from otoscope.dictionaries.loading import load_dictionary
    from otoscope.monitors.monitor import Monitor
    from otoscope.studies.explain import Stages, explain_clip
    from otoscope.views.page import save_page

    watching = None if Without.RISK in out_of else Monitor.load(monitor) if monitor else "shipped"
    repair = repair_of(mend)
    loaded = load_for("explain", model, common)
    with mended(loaded, repair) as watch:
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
            monitor=watching,
            features=chosen,
            dictionary=load_dictionary(dictionary, loaded, "encoder") if dictionary else None,
            dictionary_name=dictionary or "neurons",
            stages=Stages(
                encoder_lens=Without.ENCODER_LENS not in out_of,
                ablation=Without.ABLATION not in out_of,
                controls=Without.CONTROLS not in out_of,
                accounts=Without.SOUND not in out_of,
                circuits=0 if Without.CIRCUITS in out_of else traced,
            ),
        )
    save_page(doc, page)
    if common.json:
        write_json(doc.to_data(), common.json)
    if not common.json_on_stdout:
        say(*doc.summary().splitlines(), f"The page is {page}.")
    if not (common.json_on_stdout or common.quiet):
        say(*table([(timing.stage, f"{timing.seconds:6.2f} s") for timing in doc.timings]))


def _count(circuits: str) -> int:
    if circuits == "none":
        return 0
    if not circuits.isdecimal():
        raise OptionError(f"--circuits {circuits} is no number.", "Give how many tokens to trace, or none.")
    return int(circuits)


def _feature(named: str) -> tuple[int, int]:
    layer, _, number = named.partition(".")
    if not (layer.isdecimal() and number.isdecimal()):
        raise OptionError(f"{named} names no feature.", "Give a layer and a number, such as 3.547.")
    return int(layer), int(number)
