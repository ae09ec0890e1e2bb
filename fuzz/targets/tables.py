"""Corpora in tables: AudioFolder's CSV and Common Voice's TSV."""

from __future__ import annotations

from pathlib import Path

from otoscope.corpora.audio_folder import read_audio_folder
from otoscope.corpora.common_voice import read_common_voice
from otoscope.errors import ManifestError

FILES = ("metadata.csv", "validated.tsv")


def seeds() -> list[tuple[bytes, bytes]]:
    """Quotation, line ends of both systems, empty cells."""
    return [
        (b'file_name,transcription,duration,speaker\na.wav,"ask ""not"", what\nelse",1.5,k\nb.wav,,,\n',
         b"client_id\tpath\tsentence\tlocale\taccents\ns1\ta.mp3\task not\ten-US\tboston\ns2\tb.mp3\twhat\tde\t\n"),
        (b"\xef\xbb\xbffile_name,text\r\na.wav,ask\r\n", b"client_id\tpath\tsentence\r\ns1\ta.mp3\tx\r\n"),
    ]  # fmt: skip


def parse(folder: Path) -> None:
    """Read both; refused if both are."""
    refused = []
    for read, target in ((read_audio_folder, folder), (read_common_voice, folder / FILES[1])):
        try:
            assert read(target)
        except ManifestError as error:
            refused.append(error)
    if len(refused) == 2:
        raise refused[0]
