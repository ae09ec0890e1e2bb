from __future__ import annotations

import pytest

from otoscope.corpora import Item, items
from otoscope.errors import ManifestError

HEADER = "client_id\tpath\tsentence\tup_votes\tage\tgender\taccents\tlocale\n"


def write_list(folder, *rows, name="validated.tsv", header=HEADER):
    (folder / name).write_text(header + "".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return folder / name


def test_columns_become_fields_and_labels(tmp_path):
    write_list(tmp_path, ("c1", "a.mp3", 'Say "hi".', "2", "twenties", "", "Scottish English", "sv-SE"))
    assert items(tmp_path) == [
        Item(
            "clips/a.mp3",
            tmp_path / "clips" / "a.mp3",
            'Say "hi".',
            language="sv",
            labels={
                "speaker": "c1",
                "up_votes": "2",
                "age": "twenties",
                "accent": "Scottish English",
                "locale": "sv-SE",
            },
        )
    ]


def test_older_lists_name_the_accent_otherwise_and_a_lone_quotation_mark_is_text(tmp_path):
    header = "client_id\tpath\tsentence\taccent\n"
    write_list(tmp_path, ("c1", "a.mp3", '"Oh', "us"), ("c2", "b.mp3", "no", ""), header=header)
    assert [(item.text, item.language, item.labels) for item in items(tmp_path)] == [
        ('"Oh', None, {"speaker": "c1", "accent": "us"}),
        ("no", None, {"speaker": "c2"}),
    ]


def test_several_lists_demand_a_choice(tmp_path):
    row = ("c1", "a.mp3", "Hi.", "", "", "", "", "en")
    write_list(tmp_path, row)
    write_list(tmp_path, row, row, name="train.tsv")
    (tmp_path / "notes.tsv").write_text("x\ty\n")
    with pytest.raises(ManifestError, match=r"several lists: train\.tsv, validated\.tsv\. Name one"):
        items(tmp_path)
    assert len(items(tmp_path / "train.tsv")) == 2


@pytest.mark.parametrize(
    "row, reason",
    [
        (("c1", "a.mp3", "Hi."), "has 3 cells, not 8"),
        (("c1", "a.mp3", "Hi.", "", "", "", "", "en", ""), "has 9 cells, not 8"),
        (("c1", "", "Hi.", "", "", "", "", "en"), "has no path"),
        (("", "a.mp3", "Hi.", "", "", "", "", "en"), "has no client_id"),
    ],
)
def test_a_line_that_cannot_be_used_is_named_by_its_number(tmp_path, row, reason):
    path = write_list(tmp_path, ("c1", "a.mp3", "Hi.", "", "", "", "", "en"), row)
    with pytest.raises(ManifestError, match=rf"^Line 3 of .*validated\.tsv {reason}"):
        items(path)


def test_a_list_without_rows_and_another_table_are_refused(tmp_path):
    with pytest.raises(ManifestError, match="has no rows"):
        items(write_list(tmp_path))
    (tmp_path / "other.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(ManifestError, match=r"Line 2 .* has no client_id"):
        items(tmp_path / "other.tsv")
