"""`otoscope mend`: `make`, `tune`, `search`, `price` and `export`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from otoscope.cli.options import Common, ModelName, require_different, with_common
from otoscope.cli.show import say, table, warn, write_json
from otoscope.errors import ModelError, OptionError

if TYPE_CHECKING:
    from otoscope.activations import Edit
    from otoscope.corpora import Item
    from otoscope.mending.breaker import Breaker
    from otoscope.mending.repair import Repair
    from otoscope.models.whisper import SpeechModel

mend = typer.Typer(
    name="mend",
    help="Make repairs, tell what they cost, and export them; `--mend DIR` of other commands applies one.\n\n"
    "Example: otoscope mend tune discovery.jsonl --model whisper-base --heads H1,H3,H6 --out calm",
)

_DISCOVERY = (
    "What the repair is made with: sounds without speech, recordings that may loop, speech with its text, "
    "genuine repetitions; one or several corpora."
)

Discovery = Annotated[list[Path], typer.Argument(metavar="MANIFEST|FOLDER", help=_DISCOVERY)]
Folder = Annotated[Path, typer.Option(metavar="DIR", help="A new or empty directory for the repair.")]
Name = Annotated[str | None, typer.Option(help="Its name in tables.  [default: that of its directory]")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Tokens written at most.")]


class BreakerAction(StrEnum):
    """What is done about a loop."""

    NONE = "none"
    END = "end"
    FORBID = "forbid"


BreakerOption = Annotated[
    BreakerAction,
    typer.Option(
        help="Break loops while they last: end the text there, or forbid the token that would go on."
    ),
]
Copies = Annotated[int, typer.Option(min=2, help="Copies without a gap that make a loop.")]
Tokens = Annotated[int, typer.Option(min=2, help="Tokens that they take together at least.")]


@mend.command("make")
@with_common
def make_command(
    *,
    out: Folder,
    model: ModelName = "whisper-tiny.en",
    gate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="L5H3[=FACTOR]",
            help="Scale a head of the decoder's self-attention; without a factor it is zeroed. May be given again; "
            "layers and heads are counted from 0.",
        ),
    ] = None,
    breaker: BreakerOption = BreakerAction.NONE,
    copies: Copies = 3,
    tokens: Tokens = 8,
    may_be_empty: Annotated[
        bool,
        typer.Option(
            "--may-be-empty",
            help="Let the end be written first, which the checkpoint's suppress list forbids.",
        ),
    ] = False,
    stop: Annotated[
        bool,
        typer.Option(
            "--stop", help="End a text at the monitor's alarm; the repair then acts in alarm alone."
        ),
    ] = False,
    in_alarm: Annotated[
        bool,
        typer.Option(
            "--in-alarm", help="Act only where, and as long as, the monitor of the model is in alarm."
        ),
    ] = False,
    false_alarms: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Share of ordinary speech on which the monitor may ring for it."),
    ] = None,
    start: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A repair whose weights and edits this one takes over.")
    ] = None,
    name: Name = None,
    common: Common,
) -> None:
    """Put a repair together by hand: head gates, a loop breaker, an end at the monitor's alarm.

    Example: otoscope mend make --model whisper-base --gate L5H3 --breaker end --out gate
    """
    from dataclasses import replace

    from otoscope.mending.repair import Repair, load_repair, require_empty
    from otoscope.monitors.thresholds import check_rate

    require_empty(out)
    if not (gate or may_be_empty or stop or start) and breaker is BreakerAction.NONE:
        raise OptionError(
            "Nothing is to be mended.", "Name a --gate, a --breaker, --stop, --may-be-empty or --start."
        )
    if false_alarms is not None:
        check_rate(false_alarms)  # before the model is loaded
    loaded = _speech_model(model, common)
    repair = Repair.of(
        loaded,
        name or out.name,
        edits=tuple(edit for text in gate or () for edit in _gates(loaded, text)),
        breaker=_breaker(breaker, copies, tokens),
        may_be_empty=may_be_empty,
        when="alarm" if in_alarm or stop else "always",
        stop=stop,
        false_alarms=false_alarms,
        made={"how": "by hand"},
    )
    if start is not None:
        first = load_repair(start)
        first.require_fit(loaded)
        repair = replace(replace(first, when=repair.when).joined(repair), name=repair.name)
    _save(repair, out, common)


@mend.command("tune")
@with_common
def tune_command(
    data: Discovery,
    *,
    out: Folder,
    heads: Annotated[
        str,
        typer.Option(
            metavar="L5H3,H1",
            help="Heads of the decoder's self-attention; H1 is head 1 of every layer, from 0.",
        ),
    ],
    model: ModelName = "whisper-tiny.en",
    gates: Annotated[
        bool,
        typer.Option(
            "--gates", help="Learn one factor for each head in place of its weights; --lr 0.05 fits."
        ),
    ] = False,
    optimizer: Annotated[str, typer.Option(help="Any optimiser of torch.optim.")] = "adamw",
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 3e-4,
    epochs: Annotated[int, typer.Option(min=1, help="How often every lesson is given.")] = 4,
    lessons: Annotated[int, typer.Option(min=1, help="Lessons a step.")] = 16,
    breaker: BreakerOption = BreakerAction.NONE,
    copies: Copies = 3,
    tokens: Tokens = 8,
    max_tokens: MaxTokens = 224,
    memory: Annotated[float, typer.Option(help="Gigabytes that encoder outputs may take.")] = 4.0,
    name: Name = None,
    common: Common,
) -> None:
    """Fine-tune single heads: nothing for sounds, what is right for speech, no more than the beginning of a loop.

    Nothing but the heads' slices of four projections changes. After Calm-Whisper (arXiv 2505.12969).

    Example: otoscope mend tune discovery.jsonl --model whisper-base --heads H1,H3,H6 --out calm
    """
    from dataclasses import replace

    from otoscope.mending.keeping import REMEDY, imbalance, write_again
    from otoscope.mending.lessons import hear_items, lessons_of
    from otoscope.mending.pricing import used
    from otoscope.mending.repair import require_empty
    from otoscope.mending.tuning import TuneOptions, learn_gates, parse_heads, tune_heads

    require_empty(out)
    corpus = _corpus(data)
    loaded = _speech_model(model, common)
    options = TuneOptions(parse_heads(heads, loaded), optimizer, lr, epochs, lessons, common.seed)
    heard = hear_items(loaded, corpus, common.batch, memory)
    taught = lessons_of(loaded, heard, max_tokens=max_tokens, batch=common.batch)
    if scarce := imbalance(taught):
        warn(scarce)
    learn = learn_gates if gates else tune_heads
    repair = learn(loaded, taught, options, name or out.name)
    repair = replace(repair, breaker=_breaker(breaker, copies, tokens))
    kept = write_again(loaded, repair, taught, max_tokens=max_tokens, batch=common.batch, seed=common.seed)
    made = {**repair.made, "used": used(corpus), "speech": kept and kept.to_dict()}
    _save(replace(repair, made=made), out, common)
    if not common.json_on_stdout:
        say("loss by epoch: " + ", ".join(f"{loss:.3f}" for loss in repair.made["losses"]))
        if kept:
            say(f"{kept}.")
    if kept and kept.broke:
        warn(f"the repair breaks speech that it was taught to keep. {REMEDY}")


@mend.command("search")
@with_common
def search_command(
    data: Discovery,
    *,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Directory of the search and the repair; a begun one goes on.")
    ],
    model: ModelName = "whisper-tiny.en",
    parts: Annotated[
        str,
        typer.Option(
            metavar="A,B",
            help="What is searched: gates, steer, project, breaker, empty, strength (of --start).",
        ),
    ] = "gates,breaker,empty",
    heads: Annotated[
        str | None,
        typer.Option(
            metavar="L5H3,H1",
            help="Heads that may be gated, from 0.  [default: all of the decoder's self-attention]",
        ),
    ] = None,
    gates: Annotated[int, typer.Option(min=1, help="Heads gated at once, at most.")] = 3,
    trials: Annotated[int, typer.Option(min=1, help="Trials in all.")] = 40,
    wer_budget: Annotated[float, typer.Option(help="Points of WER that English may lose.")] = 0.3,
    cer_budget: Annotated[float, typer.Option(help="Points of CER that each other language may lose.")] = 1.0,
    start: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A repair that every trial is added to, such as tuned heads."),
    ] = None,
    max_tokens: MaxTokens = 224,
    name: Name = None,
    common: Common,
) -> None:
    """Search a repair with Optuna: loops and invented text left, against the price; the best within the budget is kept.

    Example: otoscope mend search discovery.jsonl --model whisper-base --trials 60 --out searched
    """
    from otoscope.mending.repair import load_repair
    from otoscope.mending.search import SearchOptions, require_parts, search_repair
    from otoscope.mending.tuning import parse_heads

    searched = tuple(part.strip() for part in parts.split(",") if part.strip())
    require_parts(searched, started=start is not None)
    corpus = _corpus(data)
    begin = load_repair(start) if start else None
    loaded = _speech_model(model, common)
    every = ",".join(f"H{head}" for head in range(loaded.config.decoder_attention_heads))
    options = SearchOptions(
        heads=parse_heads(heads or every, loaded),
        parts=searched,
        gates=gates,
        trials=trials,
        wer_budget=wer_budget / 100,
        cer_budget=cer_budget / 100,
        max_tokens=max_tokens,
        seed=common.seed,
    )
    result = search_repair(
        loaded, corpus, options, out, start=begin, name=name or out.name, batch=common.batch
    )
    if common.json:
        write_json(result.to_dict(), common.json)
    if result.repair and not result.within:
        warn("no trial is within the budget; the cheapest was kept.")
    if not common.json_on_stdout:
        head = ("trial", "loops left", "invented text left", "price in budgets", "repair")
        rows = [
            (
                str(trial.number),
                f"{trial.score.loops:.2f}",
                f"{trial.score.invented:.2f}",
                f"{trial.score.price:.2f}",
                _params(trial.params),
            )
            for trial in sorted(result.front, key=lambda t: t.score.price)
        ]
        say(
            f"{len(result.trials)} trials; what none of them beats:",
            "",
            *table([head, *rows]),
            "",
            f"The repair is {out}."
            if result.repair
            else f"No trial beat doing nothing, so there is no repair. More --trials go on in {out}; "
            "other --parts or a higher budget make a search of their own.",
        )


@mend.command("price")
@with_common
def price_command(
    repairs: Annotated[
        list[Path], typer.Argument(metavar="DIR", help="One or several repairs of one model.")
    ],
    *,
    on: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="MANIFEST",
            help="A test split; may be given again. Default: the shipped recordings, which show gross damage at most.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="An alias, a hub id or a directory.  [default: the repair's own]")
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="Language to write in; default the item's, else detected.")
    ] = None,
    max_tokens: MaxTokens = 224,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Directory of the run; a begun one goes on. Default: otoscope's cache."
        ),
    ] = None,
    common: Common,
) -> None:
    """Tell what repairs bring and cost on recordings that they were not made with, before and after, with intervals.

    Example: otoscope mend price calm --on test.jsonl --json price.json
    """
    from otoscope.mending.pricing import price_repairs, repair_rows
    from otoscope.mending.repair import load_repair
    from otoscope.patching.price import SHIPPED, price_legend, priced_on, shipped

    loaded_repairs = [load_repair(folder) for folder in repairs]
    corpus = priced_on(on or ())
    speech = _speech_model(model or str(loaded_repairs[0].model["name"]), common)
    result = price_repairs(
        speech, loaded_repairs, corpus, out=out, language=language, max_tokens=max_tokens, batch=common.batch
    )
    result["note"] = None if on else SHIPPED.format(len(shipped())).replace("--price", "--on")
    if common.json:
        write_json(result, common.json)
    if not common.json_on_stdout:
        for priced in result["repairs"]:
            say(*table([(f"price of {priced['name']}", "before", "after"), *repair_rows(priced)]), "")
        say(*price_legend(result["repairs"][0]["card"]))
        if result["note"]:
            say(result["note"])


@mend.command("export")
@with_common
def export_command(
    repair: Annotated[Path, typer.Argument(metavar="DIR", help="A repair.")],
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder for the Transformers checkpoint.")],
    ct2: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A new folder for a CTranslate2 model, for faster-whisper."),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="Of the CTranslate2 model: float32, float16, int8, ...")
    ] = "float32",
    check: Annotated[
        list[Path] | None,
        typer.Option(metavar="MANIFEST", help="Recordings on which the exported models must write the same."),
    ] = None,
    clips: Annotated[int, typer.Option(min=1, help="How many of them.")] = 50,
    model: Annotated[
        str | None, typer.Option(help="An alias, a hub id or a directory.  [default: the repair's own]")
    ] = None,
    max_tokens: MaxTokens = 224,
    common: Common,
) -> None:
    """Bake a repair into the weights, for Transformers and faster-whisper; what cannot be baked gets a program beside it.

    Example: otoscope mend export calm --out calm-hf --ct2 calm-ct2 --check test.jsonl
    """
    require_different(common.json_path, out, ct2, source=repair)

    from otoscope.mending.exporting import (
        check_exports,
        export_ctranslate2,
        export_transformers,
        made_of,
        require_export_place,
    )
    from otoscope.mending.repair import load_repair

    loaded = load_repair(repair)
    done = require_export_place(out, made_of(loaded))
    done_too = ct2 and require_export_place(ct2, made_of(loaded, precision))
    for folder in filter(None, (done and out, done_too and ct2)):
        warn(f"{folder} holds this export already and is kept.")
    speech = _speech_model(model or str(loaded.model["name"]), common)
    exported = export_transformers(speech, loaded, out)
    if ct2:
        export_ctranslate2(out, ct2, precision)
    found = []
    if check:
        chosen = _sample(_corpus(check), clips, speech.window_seconds, common.seed)
        found = check_exports(speech, loaded, chosen, out, ct2, max_tokens=max_tokens, batch=common.batch)
    told = exported.to_dict() | {"ctranslate2": ct2 and str(ct2), "parity": [p.to_dict() for p in found]}
    if common.json:
        write_json(told, common.json)
    for left in exported.left:
        warn(f"not in the weights: {left}.")
    if not common.json_on_stdout:
        say(f"{len(exported.baked)} parameters differ in {out}.")
        if exported.left:
            say(f"{out / 'mended.py'} applies what is not in the weights; it needs otoscope.")
        if ct2:
            without = " It goes without what is not in the weights." if exported.left else ""
            say(f"The CTranslate2 model is {ct2}.{without}")
        for parity in found:
            say(f"{parity.name} writes the same for {parity.same.count} of {parity.same.n} recordings.")
        if found and exported.left:
            say(f"Compared without what is not in the weights; {found[0].loops} of these texts loop.")


# Shared -----------------------------------------------------------------------------------------------------------------


def _speech_model(name: str, common: Common) -> SpeechModel:
    from otoscope.models.loading import load_model
    from otoscope.models.whisper import SpeechModel

    loaded = load_model(name, common.device, common.dtype)
    if not isinstance(loaded, SpeechModel):
        raise ModelError(
            f"{name} is no Whisper model.", "Repairs are made, priced and exported for Whisper models."
        )
    return loaded


def _corpus(paths: Sequence[Path]) -> list[Item]:
    from otoscope.corpora import items

    return [item for path in paths for item in items(path)]


def _sample(corpus: Sequence[Item], count: int, seconds: float, seed: int) -> list[Any]:
    """Some of the recordings, first windows."""
    import random

    drawn = random.Random(seed).sample(list(corpus), min(count, len(corpus)))
    return [next(item.windows(seconds)) for item in drawn]


def _gates(model: SpeechModel, text: str) -> list[Edit]:
    from otoscope.activations import Edit
    from otoscope.mending.tuning import parse_heads

    name, _, factor = text.partition("=")
    try:
        scale = float(factor or 0)
    except ValueError as error:
        raise OptionError(f"{factor!r} is no factor.", "Write L5H3=0.5.") from error
    return [
        Edit.scale(f"decoder_blocks.{layer}.self_attn.hook_z", scale, heads=head)
        for layer, head in parse_heads(name, model)
    ]


def _breaker(action: BreakerAction, copies: int, tokens: int) -> Breaker | None:
    from otoscope.mending.breaker import Breaker

    return None if action is BreakerAction.NONE else Breaker(copies, tokens, action=action.value)


def _save(repair: Repair, out: Path, common: Common) -> None:
    repair.save(out)
    if common.json:
        write_json(repair.to_dict(), common.json)
    if not common.json_on_stdout:
        say(f"The repair is {out}.")


def _params(params: dict[str, Any] | Any) -> str:
    """What a trial chose, in a few words."""
    told = [
        f"{params[key]}={params[key.replace('head', 'gate')]:g}"
        for key in sorted(params)
        if key.startswith("head_") and params[key] != "none"
    ]
    if params.get("breaker", "none") != "none":
        told.append(f"{params['breaker']} at {params['copies']} copies, {params['tokens']} tokens")
    if params.get("may_be_empty"):
        told.append("may be empty")
    if "strength" in params:
        told.append(f"weights at {params['strength']:g}")
    if params.get("steer_strength"):
        told.append(f"steer layer {params['steer_layer']} by {params['steer_strength']:g}")
    if params.get("project_rank"):
        told.append(f"project rank {params['project_rank']} out of layer {params['project_layer']}")
    return ", ".join(told) or "nothing"
