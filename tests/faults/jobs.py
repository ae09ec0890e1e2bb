"""Jobs for processes that are killed.

Commands run as a person runs them, on a few seconds of speech and whisper-tiny.en. The others are of random models, take a second
or less, and are kinds of work that commands do for much longer.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

import torch

from otoscope.audio.samples import sample

Job = Callable[[Path], object]


def command(arguments: Sequence[str], folder: Path) -> NoReturn:
    """A command of otoscope, as its console entry runs it, in a folder."""
    from otoscope.cli.main import run

    os.chdir(folder)
    sys.argv = ["otoscope", *arguments]
    run()


def manifest_of(folder: Path, count: int, seconds: float = 2.0) -> Path:
    """A manifest of overlapping spans of the shipped recordings."""
    lines = []
    for name, length in (("jfk", 11.0), ("austen-0870", 7.0), ("austen-0890", 5.0), ("austen-0880", 2.9)):
        for i in range(int(length - seconds) + 1):
            lines.append(
                {"audio_filepath": str(sample(name)), "offset": float(i), "duration": seconds, "text": "so",
                 "language": "en", "speaker": f"{name}-{i % 2}", "half": "ab"[len(lines) % 2]}
            )  # fmt: skip
    path = folder / f"clips-{count}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines[:count]), encoding="utf-8")
    return path


def commands(shared: Path) -> dict[str, Job]:
    """Long commands on small inputs; what they need besides is in `shared`, see `prepare`."""
    few, some, more = (str(manifest_of(shared, count)) for count in (4, 6, 18))
    mended, recipe = str(shared / "mended"), str(shared / "recipe.yaml")
    found = {
        "transcribe": ["transcribe", some, "--max-positions", "12", "--json", "texts.json", "--srt", "srt"],
        "probe": ["probe", some, "--label", "half", "--group-by", "none", "--shuffles", "2", "--folds", "2",
                  "--store", "store", "--save", "probes.safetensors", "--json", "probe.json"],
        "patch": ["patch", few, "--outcome", "hallucination", "--components", "mlp", "--max-tokens", "6",
                  "--out", "sweep", "--json", "sweep.json"],
        "patch, one token": ["patch", few, "--outcome", "token", "--components", "mlp", "--price", few,
                             "--max-tokens", "6", "--out", "tokens", "--json", "tokens.json"],
        "features train": ["features", "train", more, "--recipe", recipe, "--out", "features", "--json", "learned.json"],
        "study probes": ["study", "probes", "--data", some, "--no-random-weights", "--out", "study"],
        "mend price": ["mend", "price", mended, "--on", more, "--max-tokens", "4", "--out", "price", "--json", "price.json"],
        "mend export": ["mend", "export", mended, "--out", "hf", "--ct2", "ct2", "--json", "export.json"],
        "corpus make": ["corpus", "make", "voices", "--out", "voices", "--voices", "f1,m1", "--accents", "en-us",
                        "--sentences", "4"],
    }  # fmt: skip
    return {name: partial(command, [*arguments, "--quiet"]) for name, arguments in found.items()}


def prepare(shared: Path) -> dict[str, Job]:
    """What `commands` need: a recipe that sets checkpoints, and a repair, which a job makes."""
    (shared / "recipe.yaml").write_text(
        "model: whisper-tiny.en\npoint: encoder_blocks.0.mlp\nkind: transcoder\nwidth: 128\nsteps: 60\nbatch: 64\n"
        "calibration: 128\ncheckpoint_every: 10\nrecord_every: 5\n",
        encoding="utf-8",
    )
    made = ["mend", "make", "--model", "whisper-tiny.en", "--gate", "L3H1", "--out", "mended", "--quiet"]
    return {"mend make": partial(command, made)}


def harvested(folder: Path) -> None:
    """Every frame of 20 spans of speech: three shards."""
    from tests.patching.worlds import hearing_whisper, spans

    from otoscope.probes.harvesting import Pools, harvest

    torch.set_num_threads(1)
    items = [*spans(), *spans(), *spans(), *spans()][:20]
    harvest(hearing_whisper(), items, folder / "store", Pools(("mean", "frames"), ()), batch=4)


def swept(folder: Path) -> None:
    """A sweep that writes again, with sets of components."""
    from tests.patching.worlds import hearing_whisper, spans

    from otoscope.patching.sweeping import SweepOptions, sweep_corpus

    torch.set_num_threads(1)
    options = SweepOptions(parts=("cross_attn", "mlp"), max_tokens=28, sets=2, seed=3)
    model = hearing_whisper(seed=1, dtype=torch.float64)
    result = sweep_corpus(model, spans(), options, out=folder / "sweep", priced=None)
    (folder / "result.json").write_text(json.dumps(result.to_dict()))


def trained(folder: Path) -> None:
    """A training of 40 steps with a checkpoint every ten."""
    from tests.dictionaries.training.planted import Planted, config_of

    from otoscope.dictionaries.training.trainer import train

    torch.set_num_threads(1)
    config = config_of(
        "sae", steps=40, batch=64, calibration=128, record_every=1, checkpoint_every=10, layers=(0, 1), dead_after=500
    )  # fmt: skip
    train(config, Planted("sae", 2, steps=40, batch=64), folder / "features")


def transcribed(folder: Path) -> None:
    """Seven short recordings, kept in parts of two."""
    from tests.patching.worlds import hearing_whisper, spans

    from otoscope.models.transcripts import DecodeOptions
    from otoscope.studies import kept_transcripts
    from otoscope.studies.transcription import transcribe_corpus

    torch.set_num_threads(1)
    kept_transcripts.part_windows = lambda batch: 2
    options = DecodeOptions(max_positions=24)
    result = transcribe_corpus(hearing_whisper(), spans(7), options, store=folder / "kept", batch=2)
    (folder / "result.json").write_text(json.dumps(result.to_dict()))


def searched(folder: Path) -> None:
    """A search of six trials."""
    from tests.mending.corpora import mixed_corpus, talker

    from otoscope.mending.search import SearchOptions, search_repair

    torch.set_num_threads(1)
    options = SearchOptions(heads=((0, 1), (1, 2)), gates=2, trials=6, max_tokens=20)
    search_repair(talker(), mixed_corpus(), options, folder / "search")


def monitored(folder: Path) -> None:
    """The steps of 90 short texts in six shards, and a monitor that is fitted to them."""
    from tests.monitors.test_fitting import corpus
    from tests.patching.worlds import hearing_whisper

    from otoscope.monitors.fitting import FitOptions, fit_monitor

    torch.set_num_threads(1)
    fit_monitor(hearing_whisper(), corpus(), folder / "monitor", FitOptions(language="en", false_alarms=0.1))


def made(folder: Path) -> None:
    """A corpus of six noises."""
    from otoscope.corpora.recipes import NonSpeech, make_corpus

    make_corpus(NonSpeech(kinds=("white", "hum"), count=3, shortest=0.1, longest=0.3), folder / "corpus")


LIBRARY: dict[str, Job] = {
    "transcribe --store": transcribed,
    "harvest": harvested,
    "sweep": swept,
    "train": trained,
    "mend search": searched,
    "monitor fit": monitored,
}
"""Jobs of random models, by what they are parts of."""
