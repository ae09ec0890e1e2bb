"""Make the figures and clips of docs/concepts.md from the real model: `python docs/make_concepts.py` (about two minutes).

Every figure comes light and dark, drawn from numbers that are computed here and kept nowhere else. The recordings are the
public-domain ones that ship with otoscope. The clips are MP3, which every browser plays.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from draw_concepts import draw_feature, draw_graph, draw_heads, draw_risk, draw_sum
from matplotlib.figure import Figure

import otoscope as oto
from otoscope.audio import noises
from otoscope.circuits.heard import listen
from otoscope.circuits.speech import trace_speech
from otoscope.circuits.speech_tracing import SpeechSettings
from otoscope.dictionaries.harvesting import heard_vectors
from otoscope.dictionaries.places import places_of
from otoscope.figures.heat_map import lens_figure
from otoscope.monitors.running import watch_all
from otoscope.patching.activation_patching import get_act_patch_attn_head_out_all_pos
from otoscope.patching.metrics import logit_difference, recovery
from otoscope.patching.scene import Scene
from otoscope.studies.feature_training import FeatureRecipe, train_features
from otoscope.studies.lens import LensSettings, Reader

DOCS = Path(__file__).parent
FIGURES, CLIPS = DOCS / "images" / "concepts", DOCS / "clips"
COUNTRY = 9  # index of the first " country" among the written tokens of jfk
SAMPLES = ("jfk", "austen-0870", "austen-0880", "austen-0890")
Draw = Callable[..., Figure]


def main() -> None:
    FIGURES.mkdir(parents=True, exist_ok=True)
    CLIPS.mkdir(exist_ok=True)
    model = oto.load_model("whisper-tiny.en")
    for make in (residual_stream, lens, patching, transcoder, attribution_graph, monitor):
        make(model)
        print(make.__name__)


def save_figure(name: str, draw: Draw, *args: Any) -> None:
    """Write a figure on a light and on a dark ground."""
    for ground in ("light", "dark"):
        draw(*args, path=FIGURES / f"{name}-{ground}.svg", dark=ground == "dark")


def save_clip(name: str, *clips: oto.Clip, pause: float = 0.25) -> None:
    """Write clips one after another, `pause` seconds of silence between them."""
    gap = oto.silence(pause).samples
    parts = [part for clip in clips for part in (clip.samples, gap)][:-1]
    soundfile.write(CLIPS / f"{name}.mp3", np.concatenate(parts), 16000, format="MP3")


# Residual stream ---------------------------------------------------------------------------------------------------------


def residual_stream(model: Any) -> None:
    """What each component adds to the logit of one word, in the order in which it is added."""
    reading = Reader(model, LensSettings(attribution=True, encoder=False)).recording(oto.sample("jfk"))
    parts = reading.attribution
    save_figure("residual-stream", draw_sum, parts.components, parts.component[:, COUNTRY].numpy())
    save_clip("country", oto.read(oto.sample("jfk")).span(4.5, 6.5))


# Lens --------------------------------------------------------------------------------------------------------------------


def lens(model: Any) -> None:
    """Every decoder layer read as if it were the last."""
    reading = Reader(model, LensSettings(encoder=False)).recording(oto.sample("austen-0880"))
    save_figure(
        "lens",
        lens_figure,
        reading.to_dict()["tokens"],
        "The decoder's layers, read as if each were the last",
    )
    save_clip("young-man", oto.read(oto.sample("austen-0880")))


# Patching ----------------------------------------------------------------------------------------------------------------


def patching(model: Any) -> None:
    """Cross-attention heads of the run that hears "country", written one by one into the run that hears "Americans"."""
    clip = oto.read(oto.sample("jfk"))
    sound, start = clip.samples.copy(), round(10.22 * 16000)
    other = sound[round(1.76 * 16000) : round(2.26 * 16000)]
    sound[start : start + len(other)] = other
    spliced = dataclasses.replace(clip, samples=sound)
    text = (
        " And so my fellow Americans ask not what your country can do for you, ask what you can do for your"
    )
    country, americans, *tokens = model.tokenizer.encode(
        f" country Americans{text}", add_special_tokens=False
    )
    clean, corrupt = (Scene.of(model, model.inputs(c, [*model.prompt(), *tokens])) for c in (clip, spliced))
    metric = recovery(logit_difference(country, americans), corrupt=corrupt, clean=clean)
    cache = clean.read(["decoder_blocks.*.hook_z"])
    heads = get_act_patch_attn_head_out_all_pos(model, corrupt, cache, metric, part="cross_attn")
    save_figure("patching", draw_heads, heads.numpy())
    save_clip("for-your-country", clip.span(8.3, 11.0))
    save_clip("for-your-americans", spliced.span(8.3, 11.0))


# Transcoder --------------------------------------------------------------------------------------------------------------


def transcoder(model: Any) -> None:
    """A small transcoder, learned from the four recordings, and the moments of one of its features."""
    folder, point = Path(oto.sample("jfk")).parent, "encoder_blocks.1.mlp"
    config = {
        "kind": "skip",
        "start": "neurons",
        "width": 1536,
        "k": 32,
        "batch": 256,
        "steps": 150,
        "warmup": 20,
        "lr": 1e-3,
    }
    with tempfile.TemporaryDirectory() as work:
        learned = train_features(
            model,
            folder,
            FeatureRecipe("whisper-tiny.en", point, config, held_out=0.2),
            Path(work, "features"),
        )
    clips = [oto.read(oto.sample(name)) for name in SAMPLES]
    items = [item for name in SAMPLES for item in oto.items(oto.sample(name))]
    on, mels = [], []
    for clip, vectors in zip(clips, heard_vectors(model, items, places_of(model, point)), strict=True):
        active = learned.dictionary.encode(1, vectors.inputs[0].float())
        dense = np.zeros((vectors.inputs.shape[1], config["width"]), np.float32)
        dense[active.pos.numpy(), active.feature.numpy()] = active.activation.numpy()
        on.append(dense)
        mels.append(model.features(clip)[0].numpy()[:, : 2 * len(dense)])
    feature = most_alike(on, mels)
    moments = strongest_moments([dense[:, feature] for dense in on], 8)
    save_figure(
        "transcoder",
        draw_feature,
        mels[0],
        on[0][:, feature],
        feature,
        learned.scores.layers[0].explained_variance,
    )
    save_clip("feature", *(clips[i].span(max(0.0, t - 0.12), t + 0.12) for i, t in moments), pause=0.4)


def strongest_moments(tracks: list[np.ndarray], count: int, apart: int = 10) -> list[tuple[int, float]]:
    """Recording and seconds of the highest frames, at least `apart` frames of 20 ms from each other."""
    order = sorted(
        ((value, i, f) for i, track in enumerate(tracks) for f, value in enumerate(track) if value > 0),
        reverse=True,
    )
    found: list[tuple[int, int]] = []
    for _, i, frame in order:
        if all(i != j or abs(frame - other) >= apart for j, other in found):
            found.append((i, frame))
    return [(i, 0.02 * frame) for i, frame in found[:count]]


def most_alike(on: list[np.ndarray], mels: list[np.ndarray]) -> int:
    """The feature, on in 2 to 10 % of the frames, whose eight strongest moments are loud and have the most similar spectra."""
    share = np.mean(np.concatenate(on) > 0, axis=0)
    best, likeness, loud = 0, -1.0, float(np.mean(np.concatenate(mels, axis=1)))
    for feature in np.flatnonzero((share > 0.02) & (share < 0.10)):
        moments = strongest_moments([dense[:, feature] for dense in on], 8)
        spectra = np.array([mels[i][:, round(100 * t) : round(100 * t) + 2].mean(axis=1) for i, t in moments])
        heard = len(moments) == 8 and bool((spectra.mean(axis=1) > loud).all())
        if heard and (alike := float(np.corrcoef(spectra).mean())) > likeness:
            best, likeness = int(feature), alike
    return best


# Attribution graph -------------------------------------------------------------------------------------------------------


def attribution_graph(model: Any) -> None:
    """From stretches of sound and written words, through decoder features, to one word."""
    heard = listen(model, oto.sample("jfk"))
    graph = trace_speech(model, heard, "country", settings=SpeechSettings(nodes=200))
    save_figure("attribution-graph", draw_graph, graph, 5, 70)
    save_clip("what-your-country", oto.read(oto.sample("jfk")).span(5.0, 6.5))


# Monitor -----------------------------------------------------------------------------------------------------------------


def monitor(model: Any) -> None:
    """The risk of every token: of speech, and of the same speech played backwards."""
    speech = oto.read(oto.sample("jfk"))
    clips = {"speech": speech, "backwards": noises.reversed_in_time(speech)}
    watched = list(watch_all(model, list(clips.values())))
    risks = [w.progress[0].risks[:26] for w in watched]
    save_figure("monitor", draw_risk, risks, watched[0].monitor.threshold, watched[1].transcript.text)
    for name, clip in clips.items():
        save_clip(name, clip)


if __name__ == "__main__":
    main()
