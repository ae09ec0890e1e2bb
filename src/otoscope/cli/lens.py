"""`otoscope lens`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from otoscope.cli.options import Common, Force, require_different, require_page, with_common
from otoscope.cli.show import say, table, warn, write_json
from otoscope.cli.skipping import end, warn_of_skipped
from otoscope.errors import ModelError, OptionError, OutputError
from otoscope.wording import counted

if TYPE_CHECKING:
    from otoscope.corpora import Item
    from otoscope.lenses.tuned_lens import TunedLens
    from otoscope.models.base import Model
    from otoscope.studies.lens import Lens, Reader
    from otoscope.studies.lens_corpus import CorpusLens

_WIDEST = 160  # columns of the table, however wide the terminal is


@with_common
def lens(
    target: Annotated[
        Path | None,
        typer.Argument(
            metavar="[CLIP|MANIFEST|FOLDER]", help="A recording, a manifest or a folder of recordings."
        ),
    ] = None,
    *,
    model: Annotated[str, typer.Option(help="An alias, a hub id or a model directory.")] = "whisper-tiny.en",
    prompt: Annotated[
        str | None,
        typer.Option(help="A text for a language model, or what an audio language model is asked."),
    ] = None,
    language: Annotated[str | None, typer.Option(help="Language to decode in, such as fr.")] = None,
    offset: Annotated[
        float, typer.Option(min=0, help="Where the window begins in a recording, in seconds.")
    ] = 0.0,
    reference: Annotated[
        str | None, typer.Option(help="What is said: the encoder's texts are judged by it.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=100, help="Candidates a layer.")] = 5,
    closeness: Annotated[
        bool, typer.Option("--closeness", help="Also: how close candidates are in sound and meaning.")
    ] = False,
    attribution: Annotated[
        bool, typer.Option("--attribution", help="Also: each token's logit as a sum over layers and heads.")
    ] = False,
    encoder: Annotated[
        bool, typer.Option("--encoder/--no-encoder", help="Let the decoder write from every encoder layer.")
    ] = True,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens at most that an encoder layer writes.")
    ] = None,
    tuned: Annotated[Path | None, typer.Option(help="A folder with a tuned lens to read through.")] = None,
    fit_tuned: Annotated[
        Path | None, typer.Option(help="Train a tuned lens on the recordings and write it into this folder.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="A heat map of one clip or prompt, .png or .svg.")
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.html", help="A page to look at the reading with: one file that opens offline."
        ),
    ] = None,
    force: Force = False,
    common: Common,
) -> None:
    """Read what each layer knows: logit lens and encoder lens, of a clip, a corpus or a prompt.

    Of a recording longer than a window, the first window from --offset is read. Of a corpus, means by layer with intervals.
    Recordings of one that cannot be read are named and skipped, and the exit code is 3.

    Example: otoscope lens jfk.flac --json jfk.json --figure jfk.png
    """
    require_page(page, force)

    from otoscope.corpora import items
    from otoscope.studies.lens import INSTRUCTION, LensSettings
    from otoscope.studies.transcription import require_readable

    recordings = items(target) if target else []
    many = any(item.path != target for item in recordings)
    _check(target, prompt, figure, fit_tuned, many, {"--reference": reference, "--offset": offset or None})
    require_different(
        *(path for path in (common.json_path, figure, page, fit_tuned) if path), source=target or Path("-")
    )
    _check_places(figure, fit_tuned)
    if target:
        require_readable(recordings)  # before a model is fetched for them

    from otoscope.cli.loading import load_for

    patient = load_for("lens", model, common, recordings)
    if fit_tuned:
        _fit(patient, recordings, fit_tuned, language, common)
        return
    _check_kind(patient, target)
    settings = LensSettings(
        language,
        top,
        closeness,
        attribution,
        encoder,
        max_tokens,
        common.batch,
        prompt or INSTRUCTION,
        common.seed,
    )
    reader = _reader(patient, settings, tuned)
    if many:
        _corpus(reader, recordings, page, common)
        return
    one = (
        reader.prompt(prompt or "")
        if target is None
        else reader.recording(target, offset=offset, reference=reference)
    )
    _one(one, figure, page, common)


# Refusals before any work ------------------------------------------------------------------------------------------------


def _check(
    target: Path | None,
    prompt: str | None,
    figure: Path | None,
    fit: Path | None,
    many: bool,
    single: dict[str, Any],
) -> None:
    if target is None and prompt is None:
        raise OptionError(
            "There is nothing to read.", "Name a recording, or give a language model a --prompt."
        )
    if figure and (many or fit):
        raise OptionError(
            "A heat map shows one clip or prompt.", "Name one recording, or leave --figure out."
        )
    if fit and not many:
        raise OptionError("A tuned lens is trained on a corpus.", "Name a manifest or a folder.")
    for option, value in single.items():
        if many and value is not None:
            raise OptionError(
                f"{option} is for one recording.", "Write it into the manifest, or name one recording."
            )


def _check_places(figure: Path | None, fit: Path | None) -> None:
    from otoscope.figures.style import require_figure
    from otoscope.files import require_writable

    if figure:
        require_figure(figure)
    if fit and fit.exists() and not fit.is_dir():
        raise OutputError(f"{fit} is a file, not a folder.", "Name a folder for the tuned lens.")
    if fit:
        require_writable(fit / "tuned_lens.json" if fit.exists() else fit)


def _check_kind(model: Model, target: Path | None) -> None:
    from otoscope.models.causal_lm import LanguageModel

    if target is None and not isinstance(model, LanguageModel):
        raise ModelError(f"{model.origin.name} needs a recording.", "Name one, or use a language model.")


# What is asked for -------------------------------------------------------------------------------------------------------


def _reader(model: Model, settings: Any, tuned: Path | None) -> Reader:
    from otoscope.lenses.tuned_lens import TunedLens
    from otoscope.studies.lens import Reader

    return Reader(model, settings, TunedLens.load(tuned, model) if tuned else None)


def _fit(model: Model, recordings: list[Item], folder: Path, language: str | None, common: Common) -> None:
    from otoscope.lenses.tuned_lens import TunedSettings, fit_tuned_lens

    lens = fit_tuned_lens(model, recordings, TunedSettings(language=language, seed=common.seed))
    lens.save(folder)
    if common.json:
        write_json(lens.header(), common.json)
    if not common.json_on_stdout:
        say(*_measured(lens), f"The tuned lens is in {folder}.")


def _measured(lens: TunedLens) -> Iterator[str]:
    for stack, told in lens.measured.items():
        columns = {name: values for name, values in told.items() if isinstance(values, list)}
        yield f"{stack}: {told['objective']} on {told['positions']} held-out positions"
        numbers = [[f"{value:9.3f}" for value in values] for values in columns.values()]
        rows = [(str(layer), *row) for layer, row in enumerate(zip(*numbers, strict=True))]
        yield from table([("layer", *columns), *rows])
        yield ""


def _one(lens: Lens, figure: Path | None, page: Path | None, common: Common) -> None:
    if figure:
        lens.plot(figure)
    if page:
        from otoscope.studies.lens_page import lens_doc
        from otoscope.views.page import save_page

        save_page(lens_doc(lens), page)
    if common.json:
        write_json(lens.to_dict(), common.json)
    for caution in lens.cautions():
        warn(caution)
    if not common.json_on_stdout:
        say(
            *_shown(lens),
            *([f"The heat map is {figure}."] if figure else []),
            *([f"The page is {page}."] if page else []),
        )


def _corpus(reader: Reader, recordings: list[Item], page: Path | None, common: Common) -> None:
    from otoscope.studies.lens_corpus import lens_corpus

    with _json_file(common) as file:
        corpus = lens_corpus(reader, recordings, file)
    warn_of_skipped([asdict(one) for one in corpus.skipped], len(recordings))
    if page:
        from otoscope.studies.curve_page import corpus_lens_doc
        from otoscope.views.page import save_page

        save_page(corpus_lens_doc(corpus), page)
    if not common.json_on_stdout:
        say(*_summarised(corpus), *([f"The page is {page}."] if page else []))
    end(corpus.skipped)


@contextmanager
def _json_file(common: Common) -> Iterator[IO[bytes] | None]:
    """Where the readings go as they come; stdout gets them all at the end, so that a failure prints nothing."""
    import sys
    import tempfile

    from otoscope.files import atomic_write

    if common.json_path:
        with atomic_write(common.json_path, "wb") as file:
            yield file
    elif common.json_on_stdout:
        with tempfile.TemporaryFile() as file:
            yield file
            file.seek(0)
            sys.stdout.flush()
            shutil.copyfileobj(file, sys.stdout.buffer)
    else:
        yield None


# Tables for people -------------------------------------------------------------------------------------------------------


def _shown(lens: Lens) -> Iterator[str]:
    yield from (
        lens.text,
        "",
        "Each layer's best candidate and its probability in per cent; a token saturates at the first",
    )
    yield from ("layer from which on it stays the best.", "")
    yield from table(list(_token_rows(lens)))
    if lens.encoder:
        yield from ("", f"Written from each encoder layer (type by the {lens.typed_against}):")
        yield from table(
            [(f"layer {e.layer}", str(e.type or "–"), _short(e.text, 100)) for e in lens.encoder]
        )


def _token_rows(lens: Lens) -> Iterator[tuple[str, ...]]:
    """A row a token: where it saturates, and the best candidate of some layers with its probability in per cent."""
    layers = _some_layers(len(lens.reading.p_final))
    prompt = ("after",) if lens.after else ()
    further = (
        *(("phoneme error",) if lens.closeness else ()),
        *(("largest part",) if lens.attribution else ()),
    )
    yield ("", *prompt, "token", "saturates", *(f"layer {layer}" for layer in layers), *further)
    for i, token in enumerate(lens.ids):
        saturation = lens.reading.saturation[i]
        yield (
            str(i),
            *((_short(lens.after[i], 12),) if lens.after else ()),
            _short(lens.texts[token], 14),
            "–" if saturation is None else str(saturation),
            *(_cell(lens, layer, i) for layer in layers),
            *_further(lens, i),
        )


def _cell(lens: Lens, layer: int, i: int) -> str:
    best = _short(lens.texts[int(lens.reading.top_ids[layer, i, 0])], 9)
    return f"{best:<9} {100 * float(lens.reading.top_p[layer, i, 0]):3.0f}"


def _further(lens: Lens, i: int) -> Iterator[str]:
    if lens.closeness:
        values = lens.closeness.phoneme_error[:, i].tolist()
        yield " → ".join("–" if value != value else f"{value:.2f}" for value in (values[0], values[-1]))
    if lens.attribution:
        parts = lens.attribution.component[:, i]
        row = int(parts.argmax())
        yield f"{lens.attribution.components[row]} {float(parts[row]):+.1f}"


def _some_layers(count: int) -> list[int]:
    """Layers that fit side by side, evenly chosen, the last always among them."""
    room = max(2, (min(shutil.get_terminal_size((100, 24)).columns, _WIDEST) - 32) // 15)
    if count <= room:
        return list(range(count))
    return [round(i * (count - 1) / (room - 1)) for i in range(room)]


def _short(text: str, longest: int) -> str:
    text = " ".join(text.split()) or repr(text)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _summarised(corpus: CorpusLens) -> Iterator[str]:
    told = corpus.summary()
    recordings = counted(told["recordings"], "recording")
    yield f"{told['tokens']} tokens of {recordings}; 95 % intervals over recordings."
    names = {
        "p_final": "p of the token",
        "saturated": "saturated",
        "phoneme_error": "phoneme error",
        "cosine": "cosine",
    }
    if told["layers"]:
        there = [name for name in names if name in told["layers"][0]]
        rows = [
            (f"layer {each['layer']}", *(_interval(each[name]) for name in there)) for each in told["layers"]
        ]
        yield ""
        yield from table([("", *(names[name] for name in there)), *rows])
    if told["encoder"]:
        kinds = list(told["encoder"][0]["types"])
        yield from ("", "Written from each encoder layer:")
        rows = [
            (f"layer {e['layer']}", *(_share(e["types"][kind]) for kind in kinds)) for e in told["encoder"]
        ]
        yield from table([("", *kinds), *rows])


def _interval(value: dict[str, Any]) -> str:
    if value["mean"] is None:
        return "–"
    return f"{value['mean']:.3f} ({value['ci_low']:.3f}–{value['ci_high']:.3f})"


def _share(rate: dict[str, Any]) -> str:
    if not rate["count"]:
        return "–"
    return f"{rate['count']} ({100 * rate['ci_low']:.0f}–{100 * rate['ci_high']:.0f} %)"
