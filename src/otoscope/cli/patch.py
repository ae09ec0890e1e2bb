"""`otoscope patch`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from otoscope.cli.options import Common, Force, require_different, require_page, with_common, with_engine
from otoscope.cli.show import say, table, write_json
from otoscope.cli.skipping import end, warn_of_skipped
from otoscope.wording import counted, number

if TYPE_CHECKING:
    from otoscope.patching.tokens import TokenResult

_SHOWN = 12


class OutcomeName(StrEnum):
    """What is looked for."""

    LOOP = "loop"
    HALLUCINATION = "hallucination"
    WORD = "word"
    TOKEN = "token"


class LoopDetector(StrEnum):
    """How loops are told."""

    COMBINED = "combined"
    COMPRESSION = "compression"
    NGRAM = "ngram"


class Align(StrEnum):
    """How frames are matched."""

    POSITION = "position"
    WORDS = "words"


@with_common
@with_engine
def patch(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="CLIP|MANIFEST|FOLDER",
            help="A recording, a manifest or a folder; first windows are taken.",
        ),
    ],
    *,
    model: Annotated[str, typer.Option(help="An alias, a hub id or a model directory.")] = "whisper-tiny.en",
    components: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Of cross_attn, self_attn, mlp and resid. Default: all but resid."),
    ] = None,
    heads: Annotated[
        bool,
        typer.Option(
            "--heads", help="Single heads in place of whole attentions; mlp and resid, where named, whole."
        ),
    ] = False,
    stack: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="decoder, encoder; text, audio_encoder. Default: the one that writes.",
        ),
    ] = None,
    reference: Annotated[
        str, typer.Option(metavar="zero|noise|silence|mean|CLIP", help="What components are mixed with.")
    ] = "zero",
    align: Annotated[
        Align,
        typer.Option(
            help="How the frames of a reference CLIP are matched: at the same position, or by words."
        ),
    ] = Align.POSITION,
    alpha: Annotated[float, typer.Option(help="Share of the reference; may exceed 1.")] = 1.0,
    outcome: Annotated[
        OutcomeName,
        typer.Option(
            help="loop, hallucination, word (labels spoken and competing): written again. token: teacher-forced."
        ),
    ] = OutcomeName.LOOP,
    loop_detector: Annotated[LoopDetector, typer.Option(help="How loops are told.")] = LoopDetector.COMBINED,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="INDEX|WORD",
            help="The token (from 0) or word of --outcome token; default the least certain.",
        ),
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="WORD", help="Measure the token's logit against this word's.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens written at most.")] = 224,
    sets: Annotated[
        int, typer.Option(min=0, help="Search sets of this many of the best components, patched at once.")
    ] = 0,
    price: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="MANIFEST",
            help="What winners are priced on; may be given again. Default: the shipped recordings.",
        ),
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="Language to write in; default the item's, else detected.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Directory of the run; a begun one goes on. Default: otoscope's cache."
        ),
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(help="Draw layers and heads with the random baseline: a .png, .svg or .pdf file."),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.html", help="A page to look at the result with: one file that opens offline."
        ),
    ] = None,
    force: Force = False,
    common: Common,
) -> None:
    """Tell which component did it: patch each, write again, and compare with random ones.

    Controls come with every sweep: a random other component, a random direction of the same length, a discovery and a
    test half, corrected p-values, and the price of what works on ordinary speech.

    Example: otoscope patch loops/manifest.jsonl --components cross_attn,self_attn --heads --price speech --json patch.json
    """
    require_different(common.json_path, figure, page, source=target)

    from otoscope.corpora import items
    from otoscope.errors import OptionError
    from otoscope.figures.style import require_figure
    from otoscope.patching.references import Reference
    from otoscope.patching.results import PatchResult
    from otoscope.patching.sweeping import SweepOptions, explain_empty, sweep_corpus

    if figure:
        require_figure(figure)
    require_page(page, force)
    if outcome is not OutcomeName.TOKEN and (token is not None or against is not None):
        raise OptionError(
            "--token and --against belong to --outcome token.", "Add `--outcome token`, or leave them out."
        )
    if outcome is OutcomeName.TOKEN and sets:
        raise OptionError(
            "--sets does not belong to --outcome token, which writes nothing again.", "Leave it out."
        )
    recordings = items(target)
    options = SweepOptions(
        stacks=_split(stack),  # type: ignore[arg-type]
        parts=_split(components),
        heads=heads,
        reference=Reference.of(reference, common.seed, align.value),
        alpha=alpha,
        outcome=outcome.value,
        detector=loop_detector.value,
        max_tokens=max_tokens,
        sets=sets,
        language=language,
        seed=common.seed,
    )

    from otoscope.cli.loading import load_for

    loaded = load_for("patch", model, common)
    if outcome is OutcomeName.TOKEN:
        from otoscope.patching.tokens import sweep_tokens

        wanted = int(token) if token is not None and token.isdecimal() else token
        found: PatchResult | TokenResult = sweep_tokens(
            loaded,
            recordings,
            options,
            token=wanted,
            against=against,
            out=out,
            priced=price or (),
            batch=common.batch,
        )
    else:
        found = sweep_corpus(loaded, recordings, options, out=out, priced=price or (), batch=common.batch)
    result = found.to_dict()
    if common.json:
        write_json(result, common.json)
    if isinstance(found, PatchResult) and (empty := explain_empty(found)):
        raise empty
    if figure:
        found.plot(figure)
    if page:
        from otoscope.studies.patch_page import sweep_doc
        from otoscope.views.page import save_page

        save_page(sweep_doc(found), page)
    warn_of_skipped(result["skipped"], len(recordings))
    if not common.json_on_stdout:
        _say(result)
        if page:
            say(f"The page is {page}.")
    end(result["skipped"])


def _split(value: str | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(part.strip() for part in value.split(",") if part.strip())


def _say(result: Mapping[str, Any]) -> None:
    if result["options"]["outcome"] == "token":
        _say_tokens(result)
        return
    _say_how_few(result)
    options = result["options"]
    rate = result["baseline_outcome"]
    say(
        f"{options['outcome']}: {rate['count']} of {rate['n']} recordings have it before anything is patched; "
        f"components of {result['model']['name']} are patched with {options['reference']['kind']} (alpha {options['alpha']:g}), "
        "layers and heads are counted from 0",
        "",
        *table(_effect_rows(result["effects"])),
        "",
        f"Some component or other restores {_share(result['any_component'])}, best of {len(result['effects'])} tries an item.",
    )
    _say_winners(result)
    _say_sets(result)
    _say_price(result)


def _effect_rows(effects: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    order = sorted(effects, key=lambda e: (-e["restored"], -e["resolved"]))[:_SHOWN]
    head = (
        "component",
        "resolved",
        "restored",
        "95 % interval",
        "random",
        "direction",
        "p",
        "corrected",
        "test half",
    )
    return [
        head,
        *(
            (
                e["label"],
                f"{e['resolved']} of {e['n']}",
                str(e["restored"]),
                f"{number(e['restored_ci_low'], 2)} to {number(e['restored_ci_high'], 2)}",
                number(e["restored_random_rate"], 2),
                number(e["restored_direction_rate"], 2),
                number(e["restored_p_value"]),
                number(e["p_adjusted"]),
                f"{e['test']['restored']} of {e['test']['n']}",
            )
            for e in order
        ),
    ]


def _has_test_half(result: Mapping[str, Any]) -> bool:
    return any(effect["test"]["n"] for effect in result["effects"])


def _say_how_few(result: Mapping[str, Any]) -> None:
    """Where a single recording counts, no figure below tells more than about it."""
    if not _has_test_half(result):
        say(
            "One recording has no test half, and p can only rank a component among those of its kind: what follows describes "
            "this recording. To tell which components stand out, name a manifest or a folder.",
            "",
        )


def _say_winners(result: Mapping[str, Any]) -> None:
    if result["winners"] and not _has_test_half(result):
        first = result["winners"][0]
        names = {(e["component"], e["head"]): e["label"] for e in result["effects"]}
        say(f"The strongest in this recording is {names[first['component'], first['head']]}.")
        return
    labels = {(e["component"], e["head"]): e["label"] for e in result["effects"]}
    for winner in result["winners"]:
        name = labels[winner["component"], winner["head"]]
        if winner["significant"]:
            say(f"{name} stands out on the discovery half (p corrected {number(winner['p_adjusted'])}).")
        else:
            say(f"No component stands out from random ones; the strongest on the discovery half is {name}.")
    if not result["winners"]:
        say("No component restores anything on the discovery half.")


def _say_sets(result: Mapping[str, Any]) -> None:
    from otoscope.patching.price import named

    if result["sets"]:
        best = result["sets"]["minimal"]
        names = " + ".join(map(named, best["components"]))
        shares = f"{number(best['discovery'], 2)} of the discovery half, {number(best['test'], 2)} of the test half"
        say(f"Patched at once, {names} restore {shares}.")


def _say_price(result: Mapping[str, Any]) -> None:
    from otoscope.patching.price import named, price_legend, price_rows

    if not result["price"]:
        return
    for edit in result["price"]["edits"]:
        rows = [(f"price of {named(edit)}", "before", "after"), *price_rows(edit["card"])]
        say("", *table(rows))
    if result["price"]["edits"]:
        say(*price_legend(result["price"]["edits"][0]["card"]))
    if result["price"]["note"]:
        say(result["price"]["note"])


def _say_tokens(result: Mapping[str, Any]) -> None:
    order = sorted(result["effects"], key=lambda e: -abs(e["change"]))[:_SHOWN]
    measure = "log p" if result["measure"] == "logprob" else "logit difference"
    tokens = ", ".join(repr(t["text"]) for t in result["tokens"][:8])
    rows = [
        (
            "component",
            f"change of {measure}",
            "95 % interval",
            "random",
            "direction",
            "p",
            "corrected",
            "test half",
            "no longer first",
        ),
        *(
            (
                e["label"],
                f"{e['change']:+.2f}",
                "–" if e["ci_low"] is None else f"{e['ci_low']:+.2f} to {e['ci_high']:+.2f}",
                "–" if e["random_change"] is None else f"{e['random_change']:+.2f}",
                f"{e['direction_change']:+.2f}",
                number(e["p_value"]),
                number(e["p_adjusted"]),
                "–" if e["test"]["change"] is None else f"{e['test']['change']:+.2f}",
                f"{e['resolved']} of {e['n']}",
            )
            for e in order
        ),
    ]
    found = f"{counted(result['n_outcome'], 'token')} ({tokens}) of {counted(result['n_items'], 'recording')}"
    _say_how_few(result)
    say(
        f"{found}; components of {result['model']['name']} are patched with {result['options']['reference']['kind']}, "
        "layers and heads are counted from 0",
        "",
        *table(rows),
        "",
    )
    _say_winners(result)
    _say_price(result)


def _share(rate: Mapping[str, Any]) -> str:
    return "–" if rate["rate"] is None else f"{rate['rate']:.2f} ({rate['count']} of {rate['n']})"
