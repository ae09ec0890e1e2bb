"""`otoscope corpus make RECIPE`: one sub-command a recipe."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from otoscope.cli.options import Common, with_common
from otoscope.cli.show import say, write_json
from otoscope.errors import OptionError

if TYPE_CHECKING:
    from otoscope.corpora.recipes import Recipe

make = typer.Typer(
    name="make",
    no_args_is_help=True,
    help="Make a corpus by a recipe: recordings and a manifest.\n\n"
    "The same options give the same bytes; a run that was stopped goes on where it was.\n\n"
    "Example: otoscope corpus make voices --out voices",
)

Out = Annotated[
    Path, typer.Option(metavar="FOLDER", help="A new folder, or one begun with the same options.")
]
Music = Annotated[
    list[Path] | None, typer.Option(metavar="PATH", help="Music: a file or folder; may be repeated.")
]
Voices = Annotated[
    str | None, typer.Option(metavar="A,B", help="Voices of espeak-ng; six women and six men.")
]
Accents = Annotated[str | None, typer.Option(metavar="A,B", help="Accents of espeak-ng; eight English ones.")]
Count = Annotated[int, typer.Option(min=1, help="Recordings of each kind.")]
Speech = Annotated[
    Path | None,
    typer.Option(metavar="MANIFEST|FOLDER", help="Speech to take; else the sample recordings and espeak-ng."),
]


class What(StrEnum):
    """What the voices say."""

    SENTENCES = "sentences"
    CATEGORIES = "categories"
    LANGUAGES = "languages"


@make.command()
@with_common
def voices(
    *,
    out: Out,
    what: Annotated[
        What,
        typer.Option(help="Sentences, words of ten semantic categories, or sentences of eight languages."),
    ] = What.SENTENCES,
    voices: Voices = None,
    accents: Accents = None,
    sentences: Annotated[
        int | None,
        typer.Option(
            min=1, help="Sentences in every voice and accent, or words of a category; 6, or 12 words."
        ),
    ] = None,
    common: Common,
) -> None:
    """Synthetic speakers whose gender, accent and words are known, each combined with each.

    Hold out speakers, not recordings: the label speaker is the voice, whatever its accent.

    Example: otoscope corpus make voices --out voices --accents en-us,en-gb --sentences 3
    """
    from otoscope.corpora.recipes import Voices
    from otoscope.corpora.recipes.voices import VOICES

    recipe = Voices(
        seed=common.seed,
        what=what.value,
        voices=_names(voices) or VOICES,
        accents=_names(accents),
        sentences=sentences,
    )
    _make(recipe, out, common)


@make.command()
@with_common
def noise(
    source: Annotated[
        Path, typer.Argument(metavar="MANIFEST|FOLDER", help="The corpus that is to be disturbed.")
    ],
    *,
    out: Out,
    kinds: Annotated[
        str | None, typer.Option(metavar="A,B", help="white, pink, babble, music, hum, reverb; all.")
    ] = None,
    snrs: Annotated[str, typer.Option(metavar="DB,DB", help="Signal-to-noise ratios in dB.")] = "20,10,5,0",
    versions: Annotated[int, typer.Option(min=1, help="Disturbed versions of each recording.")] = 1,
    grid: Annotated[bool, typer.Option("--grid", help="Every kind at every SNR for each recording.")] = False,
    music: Music = None,
    common: Common,
) -> None:
    """A corpus again, each recording clean and disturbed, at the same RMS.

    Example: otoscope corpus make noise voices/manifest.jsonl --out noisy --kinds white,babble --snrs 10,0
    """
    from otoscope.corpora.recipes import Noise
    from otoscope.corpora.recipes.noise import KINDS

    recipe = Noise(
        seed=common.seed,
        source=source,
        kinds=_names(kinds) or KINDS,
        snrs=_numbers(snrs),
        versions=None if grid else versions,
        music=tuple(music or ()),
    )
    _make(recipe, out, common)


@make.command()
@with_common
def nonspeech(
    *,
    out: Out,
    kinds: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="silence, white, pink, brown, tone, chirp, modulated, hum, clicks, chords, music; all, "
            "music if --music names some.",
        ),
    ] = None,
    count: Count = 20,
    shortest: Annotated[float, typer.Option(help="Least length in seconds.")] = 1.0,
    longest: Annotated[float, typer.Option(help="Greatest length in seconds.")] = 10.0,
    music: Music = None,
    common: Common,
) -> None:
    """Silence, noises, tones and music: sounds in which nobody speaks.

    Example: otoscope corpus make nonspeech --out sounds --count 10 --kinds silence,white,hum
    """
    from otoscope.corpora.recipes import NonSpeech
    from otoscope.progress import notice

    if kinds is None and not music:
        notice("Music is left out: name files or folders of it with --music.")
    recipe = NonSpeech(
        seed=common.seed,
        kinds=_names(kinds),
        count=count,
        shortest=shortest,
        longest=longest,
        music=tuple(music or ()),
    )
    _make(recipe, out, common)


@make.command()
@with_common
def loops(
    *,
    out: Out,
    kinds: Annotated[
        str | None, typer.Option(metavar="A,B", help="long, babble, shuffled, shaped, reversed; all.")
    ] = None,
    count: Count = 20,
    speech: Speech = None,
    common: Common,
) -> None:
    """Speech-like sounds on which recognisers fall into loops.

    Example: otoscope corpus make loops --out loops --count 20
    """
    from otoscope.corpora.recipes import Loops
    from otoscope.corpora.recipes.loops import KINDS

    _make(Loops(seed=common.seed, kinds=_names(kinds) or KINDS, count=count, speech=speech), out, common)


@make.command()
@with_common
def repeats(
    *,
    out: Out,
    kinds: Annotated[
        str | None, typer.Option(metavar="A,B", help="word, phrase, clip (needs --speech), second; all.")
    ] = None,
    count: Count = 20,
    speech: Speech = None,
    common: Common,
) -> None:
    """Words, phrases and seconds of speech that are really repeated, 2 to 12 times.

    Example: otoscope corpus make repeats --out repeats --kinds word,phrase
    """
    from otoscope.corpora.recipes import Repeats

    _make(Repeats(seed=common.seed, kinds=_names(kinds), count=count, speech=speech), out, common)


@make.command()
@with_common
def ambiguous(
    *,
    out: Out,
    pairs: Annotated[int | None, typer.Option(help="Pairs of words, from the first; all fifty.")] = None,
    voices: Annotated[str, typer.Option(metavar="A,B", help="Voices of espeak-ng.")] = "f2,m3",
    accent: Annotated[str, typer.Option(help="Accent of espeak-ng.")] = "en-us",
    common: Common,
) -> None:
    """Words that sound almost alike, in misleading, supporting and neutral sentences.

    Example: otoscope corpus make ambiguous --out ambiguous --voices f2,f5,m3
    """
    from otoscope.corpora.recipes import Ambiguous

    _make(Ambiguous(seed=common.seed, pairs=pairs, voices=_names(voices) or (), accent=accent), out, common)


@make.command()
@with_common
def prompts(
    *,
    out: Out,
    sets: Annotated[
        str, typer.Option(metavar="A,B", help="prompts, dialogue, letters, nonspeech.")
    ] = "prompts",
    languages: Annotated[
        str | None, typer.Option(metavar="A,B", help="Language codes such as en,fr; all.")
    ] = None,
    per_speaker: Annotated[
        int | None, typer.Option(min=1, help="Recordings of each speaker at most; all.")
    ] = None,
    packages: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder of .deb files; else they are fetched with apt-get."),
    ] = None,
    common: Common,
) -> None:
    """Real people in many languages, with transcripts, from packages of Debian.

    The recordings are under CC-BY-SA, GPL and the like; every line of the manifest names its licence.

    Example: otoscope corpus make prompts --out prompts --languages en,fr --per-speaker 50
    """
    from otoscope.corpora.recipes import Prompts

    recipe = Prompts(
        seed=common.seed,
        sets=_names(sets) or (),  # pyright: ignore[reportArgumentType] - the recipe refuses unknown ones
        languages=_names(languages),
        per_speaker=per_speaker,
        packages=packages,
    )
    _make(recipe, out, common)


@make.command()
@with_common
def texts(
    *,
    out: Annotated[Path, typer.Option(metavar="MANIFEST", help="The file to write, such as texts.jsonl.")],
    most: Annotated[int | None, typer.Option(min=1, help="Texts of each topic at most; all.")] = None,
    packages: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder with the .deb file; else it is fetched with apt-get."),
    ] = None,
    common: Common,
) -> None:
    """English sayings, quotations and poems by topic, from Debian's fortunes: for language models, and to be spoken.

    Example: otoscope corpus make texts --out texts.jsonl
    """
    from otoscope.corpora.recipes import make_texts

    found = make_texts(out, packages=packages, most=most)
    words = sum(len((item.text or "").split()) for item in found)
    topics = len({item.labels["topic"] for item in found})
    if common.json:
        write_json({"manifest": str(out), "texts": len(found), "words": words, "topics": topics}, common.json)
    if not common.json_on_stdout:
        say(f"{len(found):,} texts of {topics} topics, {words:,} words: {out}")


@make.command()
@with_common
def spoken(
    source: Annotated[
        Path, typer.Argument(metavar="TEXTS", help="A .txt file, one text a line, or a manifest.")
    ],
    *,
    out: Out,
    count: Annotated[
        int | None, typer.Option(min=1, help="Recordings; 0.1 s of work and 5 s of sound each.")
    ] = 1000,
    voices: Voices = None,
    accents: Accents = None,
    common: Common,
) -> None:
    """Sentences of some texts, each read by a synthetic voice with an accent, a pace and a pitch that are drawn.

    Example: otoscope corpus make spoken texts.jsonl --out spoken --count 2000
    """
    from otoscope.corpora.recipes import Spoken
    from otoscope.corpora.recipes.voices import ACCENTS, VOICES

    recipe = Spoken(
        seed=common.seed, source=source, count=count,
        voices=_names(voices) or VOICES, accents=_names(accents) or ACCENTS,
    )  # fmt: skip
    _make(recipe, out, common)


def _make(recipe: Recipe, out: Path, common: Common) -> None:
    from otoscope.corpora.recipes import make_corpus

    made = make_corpus(recipe, out)
    if common.json:
        write_json(made.to_dict(), common.json)
    if not common.json_on_stdout:
        there = len(made.items) - made.fresh
        also = f" ({there} of them were there)" if there else ""
        say(f"{len(made.items)} recordings{also}, {made.seconds / 60:.1f} minutes: {made.manifest}")


def _names(given: str | None) -> tuple[str, ...] | None:
    return None if given is None else tuple(name.strip() for name in given.split(","))


def _numbers(given: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in given.split(","))
    except ValueError as error:
        raise OptionError(f"{given!r} is no list of numbers.", "Give such as 20,10,0.") from error
