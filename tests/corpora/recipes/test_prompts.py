from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tests.corpora.recipes.debs import deb

from otoscope.audio import noises, read
from otoscope.corpora import read_manifest
from otoscope.corpora.recipes import Prompts, make_corpus
from otoscope.corpora.recipes.debian import packages_folder
from otoscope.corpora.recipes.prompts import decoded, transcripts
from otoscope.errors import AudioError, OptionError

TEXTS = """\ufeff; Core sounds
hello: Hello there.
digits/1: one
beep: [a tone]
goodbye:  Good: bye
silent:
missing: Nobody recorded this.
"""


def encoded(samples: np.ndarray, form: str, **more) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, format=form, **more)
    return out.getvalue()


def g722(samples: np.ndarray) -> bytes:
    import av

    out = io.BytesIO()
    with av.open(out, "w", format="g722") as container:
        stream = container.add_stream("g722", rate=16_000, layout="mono")
        whole = np.round(samples * 32767).astype(np.int16)
        for block in whole.reshape(-1, 320):
            frame = av.AudioFrame.from_ndarray(block[None], format="s16", layout="mono")
            frame.sample_rate = 16_000
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


@pytest.fixture
def packages(tmp_path) -> Path:
    pytest.importorskip("av")
    folder = tmp_path / "packages"
    folder.mkdir()
    tones = {f: noises.tone(1.0, f).samples for f in (400, 500, 600, 700)}
    sounds = "./usr/share/asterisk/sounds/en_US_f_Allison"
    deb(
        folder / "asterisk-core-sounds-en-g722_1_all.deb",
        {
            f"{sounds}/hello.g722": g722(tones[400]),
            f"{sounds}/digits/1.g722": g722(tones[500]),
            f"{sounds}/beep.g722": g722(tones[600]),
            f"{sounds}/goodbye.g722": g722(tones[700]),
            f"{sounds}/silence/1.g722": g722(tones[600]),
            f"{sounds}/untold.g722": g722(tones[600]),
        },
    )
    texts = {"./usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz": gzip.compress(TEXTS.encode())}
    deb(folder / "asterisk-core-sounds-en_1_all.deb", texts)
    fish = "./usr/share/games/fillets-ng/sound"
    ogg = encoded(np.tile(tones[400], 2), "OGG", samplerate=16_000, subtype="VORBIS")
    for language in ("cs", "nl"):
        files = {
            f"{fish}/airplane/{language}/let-m-divna.ogg": ogg,
            f"{fish}/airplane/{language}/let-v-budrada.ogg": ogg,
            f"{fish}/airplane/{language}/let-x-other.ogg": ogg,
            f"{fish}/airplane/xx/let-m-divna.ogg": ogg,
        }
        deb(folder / f"fillets-ng-data-{language}_1_all.deb", files)
    music = encoded(np.tile(tones[500], 40)[::2], "WAV", samplerate=8000, subtype="PCM_16")
    deb(folder / "asterisk-moh-opsound-wav_1_all.deb", {"./usr/share/asterisk/moh/band-song.wav": music})
    icon = encoded(tones[700], "WAV", samplerate=16_000)
    icons = {
        "./usr/share/sounds/sound-icons/bell.wav": icon,
        "./usr/share/sounds/sound-icons/broken.wav": b"RIFF",
    }
    deb(folder / "sound-icons_1_all.deb", icons)
    oga = encoded(tones[700], "OGG", samplerate=16_000, subtype="VORBIS")
    stereo = "./usr/share/sounds/freedesktop/stereo"
    named = {f"{stereo}/bell.oga": oga, f"{stereo}/audio-channel-side-left.oga": oga}
    deb(folder / "sound-theme-freedesktop_1_all.deb", named)
    return folder


def pitch(samples: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(samples)).argmax() * 16_000 / len(samples))


def test_prompts_come_with_their_own_text_speaker_and_licence(packages, tmp_path):
    made = make_corpus(Prompts(languages=("en",), packages=packages), tmp_path / "out")
    heard = {item.labels["file"]: (item.text, round(pitch(item.clip().samples), -1)) for item in made.items}
    assert heard == {
        "hello.g722": ("Hello there.", 400),
        "1.g722": ("one", 500),
        "goodbye.g722": ("Good: bye", 700),
    }
    for item in made.items:
        assert item.language == "en"
        assert item.labels["speaker"] == "allison"
        assert item.labels["gender"] == "female"
        assert item.labels["licence"] == "CC-BY-SA-3.0"
        assert item.labels["package"] == "asterisk-core-sounds-en-g722_1_all"
    assert read_manifest(made.manifest)[0].text == made.items[0].text


def test_what_is_no_speech_is_left_out_where_no_text_tells_it(tmp_path):
    tone = encoded(noises.tone(1.0, 400).samples, "WAV", samplerate=16_000)
    names = (
        "hello",
        "digits/1",
        "beep",
        "beeperr",
        "silence/1",
        "tt-monkeys",
        "confbridge-join",
        "tt-monkeysintro",
    )
    files = {f"./usr/share/asterisk/sounds/it_IT_f_Menardi/{name}.wav": tone for name in names}
    deb(tmp_path / "asterisk-prompt-it-menardi-wav_1_all.deb", files)
    deb(tmp_path / "asterisk-core-sounds-it_1_all.deb", {"./x.txt": b""})
    deb(tmp_path / "asterisk-core-sounds-it-g722_1_all.deb", {"./x.txt": b""})
    sounds = Prompts(languages=("it",), packages=tmp_path).sounds()
    assert sorted(s.labels["file"] for s in sounds) == ["1.wav", "hello.wav", "tt-monkeysintro.wav"]


def test_the_fish_have_their_genders(packages, tmp_path):
    made = make_corpus(Prompts(sets=("dialogue",), packages=packages), tmp_path / "out")
    told = {(i.labels["speaker"], i.labels["gender"], i.language, i.text) for i in made.items}
    assert told == {
        ("small-fish-cs", "female", "cs", None),
        ("big-fish-cs", "male", "cs", None),
        ("small-fish-nl", "female", "nl", None),
        ("big-fish-nl", "male", "nl", None),
    }
    assert len(made.items) == 4


def test_nonspeech_is_music_in_pieces_and_sounds_that_nobody_speaks(packages, tmp_path):
    made = make_corpus(Prompts(sets=("nonspeech",), packages=packages), tmp_path / "out")
    told = [(i.labels["kind"], i.labels["file"], i.duration, i.text) for i in made.items]
    assert told == [
        ("music", "band-song.wav", 12.0, ""),
        ("music", "band-song.wav", 12.0, ""),
        ("music", "band-song.wav", 12.0, ""),
        ("sound", "bell.oga", 1.0, ""),
        ("sound", "bell.wav", 1.0, ""),
    ]
    assert list(made.skipped) == ["sound-icons-0001"]
    assert all("speaker" not in item.labels for item in made.items)


def test_a_share_of_each_speaker_is_drawn_by_the_seed(packages):
    drawn = [
        tuple(s.name for s in Prompts(languages=("en",), packages=packages, per_speaker=2, seed=n).sounds())
        for n in range(6)
    ]
    assert {len(names) for names in drawn} == {2}
    assert len(set(drawn)) > 1


def test_where_the_packages_lie_does_not_matter_to_what_is_made(packages, tmp_path):
    make_corpus(Prompts(languages=("en",), packages=packages), tmp_path / "out")
    moved = packages.rename(tmp_path / "elsewhere")
    assert make_corpus(Prompts(languages=("en",), packages=moved), tmp_path / "out").fresh == 0


def test_gsm_is_read_at_its_rate():
    data = encoded(noises.tone(1.0, 800).samples[::2], "RAW", samplerate=8000, subtype="GSM610")
    clip = decoded(data, ".gsm")
    assert clip.duration == pytest.approx(1, abs=0.03)
    assert pitch(clip.samples) == pytest.approx(800, abs=5)


@pytest.mark.parametrize("suffix", [".wav", ".ogg", ".gsm", ".g722"])
@pytest.mark.parametrize("data", [b"", b"\x00\x01junk"], ids=["empty", "junk"])
def test_a_damaged_recording_is_an_error_of_audio(suffix, data):
    with pytest.raises(AudioError):
        decoded(data, suffix)


def test_damaged_texts_are_refused(tmp_path):
    package = deb(tmp_path / "a_1_all.deb", {"./usr/share/doc/a/core-sounds-en.txt.gz": b"no gzip"})
    with pytest.raises(OptionError, match="damaged"):
        transcripts(package)


@pytest.mark.parametrize(
    "more",
    [{"sets": ("x",)}, {"sets": ()}, {"languages": ("xx",)}, {"languages": ("cs",)}, {"per_speaker": 0}],
    ids=str,
)
def test_settings_out_of_range_are_refused(packages, more):
    with pytest.raises(OptionError):
        Prompts(packages=packages, **more).sounds()


@pytest.mark.slow
def test_the_recordings_are_those_of_the_prepared_set(shared_audio, tmp_path):
    """The Russian prompts, from the real packages: the same texts and the same samples."""
    if not list(packages_folder().glob("asterisk-core-sounds-ru-g722_*.deb")):
        pytest.skip("the Russian prompts were not fetched: otoscope corpus make prompts --languages ru")
    made = make_corpus(Prompts(languages=("ru",), sets=("prompts",)), tmp_path)
    ours = {Path(item.labels["file"]).stem: item for item in made.items}
    prepared = [
        i
        for i in read_manifest(shared_audio / "manifest.jsonl")
        if i.audio_filepath.startswith("prompts/ru/")
    ]
    assert len(prepared) == 30
    for item in prepared:
        mine = ours[Path(item.audio_filepath).stem]
        assert mine.text == item.text
        np.testing.assert_array_equal(mine.clip().samples, read(item.path).samples)
