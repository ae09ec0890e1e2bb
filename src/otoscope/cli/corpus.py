"""`otoscope corpus check|split|make`; the recipes of `make` are in `corpus_make.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from otoscope.cli.corpus_make import make
from otoscope.cli.options import Common, require_different, with_common
from otoscope.cli.show import say, table, write_json
from otoscope.errors import ManifestError, OptionError
from otoscope.files import require_writable
from otoscope.wording import counted

if TYPE_CHECKING:
    from otoscope.corpora import CorpusReport
    from otoscope.corpora.splitting import Part

corpus = typer.Typer(
    name="corpus",
    help="Make, check and divide collections of recordings.\n\n"
    "Example: otoscope corpus check manifest.jsonl --label speaker",
)
corpus.add_typer(make)

Target = Annotated[
    Path,
    typer.Argument(
        metavar="MANIFEST|FOLDER",
        help="A manifest (JSON lines), a Common Voice .tsv, or a folder: AudioFolder, Kaldi, Common Voice, recordings.",
    ),
]
GroupBy = Annotated[str, typer.Option(metavar="LABEL", help="The label that parts must not share.")]

_SHOWN = 10  # findings of one kind; JSON has all


@corpus.command("check")
@with_common
def check_corpus(
    target: Target,
    *,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A label that every recording must have; repeat it for several."),
    ] = None,
    group_by: GroupBy = "speaker",
    common: Common,
) -> None:
    """Listen through a corpus and say what is wrong with it: 2 is the exit code when there are errors.

    Example: otoscope corpus check manifest.jsonl --label speaker --label gender
    """
    require_different(common.json_path, source=target)
    from otoscope.corpora import check, items

    report = check(items(target), label or (), group_by)
    if common.json:
        write_json(report.to_dict(), common.json)
    if not common.json_on_stdout:
        say(*_summary(report), *_totals(report), *_findings(report))
    if errors := report.count("error"):
        raise ManifestError(
            f"{target} has {counted(errors, 'error')}.",
            "Put right what the findings marked as errors name, or leave those recordings out.",
        )


@corpus.command("split")
@with_common
def split_corpus(
    target: Target,
    *,
    out: Annotated[Path, typer.Option(metavar="MANIFEST", help="Where to write the manifest.")],
    shares: Annotated[
        str, typer.Option(metavar="NAME=SHARE,...", help="The parts; their shares add up to 1.")
    ] = "train=0.8,test=0.2",
    group_by: GroupBy = "speaker",
    stratify_by: Annotated[
        str | None, typer.Option(metavar="LABEL", help="The label whose classes all parts should have alike.")
    ] = None,
    common: Common,
) -> None:
    """Write a manifest whose items are divided into parts that share no speaker, by a label `split`.

    Example: otoscope corpus split manifest.jsonl --out parts.jsonl --stratify-by gender
    """
    wanted = _parsed(shares)
    require_different(common.json_path, out, source=target)
    from otoscope.corpora import items, labels_of, split, write_manifest
    from otoscope.corpora.manifest import require_manifest_name
    from otoscope.corpora.splitting import contents
    from otoscope.progress import notice

    require_manifest_name(out)
    require_writable(out)
    found = items(target)
    if any(part is not None for part in labels_of(found, "split")):
        notice("The items are in splits already; these are replaced.")
    parts = split(found, wanted, group_by, stratify_by, common.seed)
    divided = [
        replace(item, labels=item.labels | {"split": part}) for item, part in zip(found, parts, strict=True)
    ]
    write_manifest(divided, out)
    inside = contents(found, parts, group_by, stratify_by)
    if common.json:
        facts = {name: asdict(part) for name, part in inside.items()}
        write_json({"manifest": str(out), "parts": facts}, common.json)
    if not common.json_on_stdout:
        say(*_contents(inside, group_by))


def _parsed(shares: str) -> dict[str, float]:
    pairs = [pair.split("=") for pair in shares.split(",")]
    try:
        parsed = {name.strip(): float(share) for name, share in pairs}
    except ValueError:
        parsed = {}
    if len(parsed) < len(pairs):
        raise OptionError(
            f"--shares {shares} names no parts.", "Write each part once, such as train=0.8,test=0.2."
        )
    return parsed


def _summary(report: CorpusReport) -> Iterator[str]:
    counts = f"{report.items} items, {report.readable} readable, {report.with_text} with text"
    yield f"{counts}, {_length(report.seconds)}"
    found = {severity: report.count(severity) for severity in ("error", "warning", "note")}
    yield ", ".join(counted(count, severity) for severity, count in found.items())


def _length(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def _totals(report: CorpusReport) -> list[str]:
    rows = [("label", "value", "items", "length")]
    for name, values in report.totals.items():
        most = sorted(values, key=lambda value: -values[value].items)
        rows += [(name, _named(v), str(values[v].items), _length(values[v].seconds)) for v in most[:_SHOWN]]
        if len(most) > _SHOWN:
            rows.append((name, f"… {len(most) - _SHOWN} more", "", ""))
    return ["", *table(rows)] if len(rows) > 1 else []


def _named(value: str) -> str:
    name = "–" if value == "null" else value
    return name if len(name) <= 40 else f"{name[:39]}…"


def _findings(report: CorpusReport) -> list[str]:
    rows = []
    for kind, severity in dict.fromkeys((f.kind, f.severity) for f in report.findings):
        found = [f for f in report.findings if (f.kind, f.severity) == (kind, severity)]
        rows += [(severity, kind, f.audio_filepath, f"{f.reason} {f.remedy}") for f in found[:_SHOWN]]
        if len(found) > _SHOWN:
            rows.append((severity, kind, f"… {len(found) - _SHOWN} more", "--json PATH writes all."))
    return ["", *table([("severity", "what", "recording", "finding"), *rows])] if rows else []


def _contents(parts: Mapping[str, Part], group_by: str) -> list[str]:
    rows = [("split", "items", f"values of {group_by}", "classes")]
    for name, part in parts.items():
        classes = ", ".join(f"{_named(value)} {count}" for value, count in part.classes.items())
        rows.append((name, str(part.items), str(part.groups), classes or "–"))
    return table(rows)
